/* The guard's last steps: what was made goes. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "guard.h"
#include "ops.h"
#include "process.h"
#include "record.h"

enum { DEEPEST = 64, NOT_LOADED = 5 /* exit status of systemctl for a unit that is not there (systemctl(1)) */ };

#define PATIENCE (5000 * MILLISECOND) /* for all of them together */

static int64_t give_up_at;

static bool is_dot(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* Removes the directories in `directory`, deepest first. Files are the kernel's and go with their directory. */
static void remove_children(int directory, int depth)
{
    union {
        struct dirent64 first; /* for the alignment */
        char bytes[1024];
    } room;
    long length;

    while ((length = syscall(SYS_getdents64, directory, room.bytes, sizeof room.bytes)) > 0) {
        for (long at = 0; at < length;) {
            struct dirent64 *entry = (struct dirent64 *)(room.bytes + at);

            at += entry->d_reclen;
            if (entry->d_type != DT_DIR || is_dot(entry->d_name))
                continue;
            int child = openat(directory, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

            if (child >= 0) {
                if (depth < DEEPEST)
                    remove_children(child, depth + 1);
                close(child);
            }
            unlinkat(directory, entry->d_name, AT_REMOVEDIR); /* if it fails, so does the parent's */
        }
    }
}

static int remove_once(const char *path)
{
    if (unlinkat(AT_FDCWD, path, AT_REMOVEDIR) == 0 || errno == ENOENT)
        return 0;
    if (errno != EBUSY && errno != ENOTEMPTY)
        return errno;
    int directory = openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (directory < 0)
        return errno == ENOENT ? 0 : errno;
    remove_children(directory, 0);
    close(directory);
    return unlinkat(AT_FDCWD, path, AT_REMOVEDIR) == 0 || errno == ENOENT ? 0 : errno;
}

/* The kernel may need a moment until it sees that a cgroup is empty. */
int step_remove(const struct step *step)
{
    int64_t pause = MILLISECOND;
    int error;

    while ((error = remove_once(step->args[0].text)) == EBUSY || error == ENOTEMPTY) {
        struct timespec wait = {pause / 1000000000, pause % 1000000000};

        if (now() + pause > give_up_at)
            return error;
        nanosleep(&wait, NULL);
        pause *= 2;
    }
    return error;
}

int step_unlink(const struct step *step)
{
    return unlinkat(AT_FDCWD, step->args[0].text, 0) == 0 || errno == ENOENT ? 0 : errno;
}

/* Whether the file, a cgroup.events, says that a process is in its cgroup. False when it cannot be read. */
static bool is_populated(const char *path)
{
    static const char POPULATED[] = "populated 1\n";
    char text[64];
    int fd = openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return false;
    ssize_t length = read(fd, text, sizeof text);

    close(fd);
    return length >= (ssize_t)strlen(POPULATED) && strncmp(text, POPULATED, strlen(POPULATED)) == 0;
}

/*
 * Stops the unit when the launcher, which does so otherwise, is gone. On cgroup v1 nothing tells systemd that the unit's
 * last process has ended. On cgroup v2 the kernel does, unless the unit never had a living process: systemd accepts a
 * guard or an init that is dead but not yet reaped, and the kernel does not move it into the unit's cgroup. The launcher's
 * request may still be on its way to systemd, so the unit is stopped also if it is not there yet.
 */
int step_systemctl(const struct step *step)
{
    const char *events = step->args[2].text; /* empty on cgroup v1 */
    int pidfd = -1, status = 0;

    if (!run.orphan || run.foreign || is_populated(events))
        return 0;
    pid_t pid = clone_process(0, -1, &pidfd);

    if (pid == 0) {
        while (openat(AT_FDCWD, "/dev/null", O_RDWR) >= 0 && fcntl(2, F_GETFD) < 0)
            ;
        set_signal_mask(NO_SIGNALS);
        execve("/usr/bin/systemctl", step->args[0].list, step->args[1].list);
        execve("/bin/systemctl", step->args[0].list, step->args[1].list);
        _exit(127);
    }
    if (pid < 0)
        return errno;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    close(pidfd);
    return status == 0 || status == NOT_LOADED << 8 ? 0 : ECHILD;
}

bool clean_up(const struct plan *plan)
{
    bool clean = true;

    give_up_at = now() + PATIENCE;
    for (uint32_t i = 0; i < plan->count; i++) {
        const struct step *step = &plan->steps[i];
        int error = step->op->last ? step->op->carry_out(step) : 0;

        if (error != 0) {
            say("left %d %s", error, step->op->signature[0] == 's' ? step->args[0].text : step->op->name);
            clean = false;
        }
    }
    return clean;
}
