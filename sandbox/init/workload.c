/* The workload's steps: the way of the forked child to its execve. Little memory is touched here: after `join` it is
 * charged to the workload. */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "init.h"
#include "inside.h"
#include "ops.h"
#include "process.h"
#include "record.h"

/* "0" is the writer itself, whatever its pid is out there. */
int step_join(const struct step *step)
{
    int64_t index = step->args[0].number;

    return is_handed(index) ? outcome(write(handed.fds[index], "0", 1)) : EBADF;
}

/* The clone that made us has seen to it. */
int step_clone_into_cgroup(const struct step *step)
{
    return is_handed(step->args[0].number) ? 0 : EBADF;
}

/* /proc/self/cgroup has lines of ID:CONTROLLERS:PATH; the id is a matter of the boot. */
int step_in_cgroup(const struct step *step)
{
    static char room[8192];
    const char *wanted = step->args[0].text;
    size_t length = strlen(wanted), have = 0;
    ssize_t got;
    int fd = openat(AT_FDCWD, "/proc/self/cgroup", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return errno;
    while (have < sizeof room - 1 && (got = read(fd, room + have, sizeof room - 1 - have)) > 0)
        have += (size_t)got;
    close(fd);
    room[have] = '\0';
    for (const char *line = room; line != NULL && *line != '\0';) {
        const char *fields = strchr(line, ':'), *end = strchr(line, '\n');

        if (fields != NULL && end != NULL && (size_t)(end - fields - 1) == length &&
            memcmp(fields + 1, wanted, length) == 0)
            return 0;
        line = end == NULL ? NULL : end + 1;
    }
    return EXDEV;
}

int step_rlimit(const struct step *step)
{
    const union arg *args = step->args;
    /* -1 on the wire is RLIM_INFINITY */
    struct rlimit limit = {(rlim_t)args[1].number, (rlim_t)args[2].number};

    return outcome(prlimit(0, (__rlimit_resource_t)args[0].number, &limit, NULL));
}

/* By system call: glibc's wrappers make every thread do it, and there is one only. */
int step_setgroups(const struct step *step)
{
    gid_t groups[UINT8_MAX];

    for (unsigned i = 0; i < step->count; i++)
        groups[i] = (gid_t)step->args[i].number;
    return outcome(syscall(SYS_setgroups, (size_t)step->count, groups));
}

int step_setresgid(const struct step *step)
{
    gid_t gid = (gid_t)step->args[0].number;

    return outcome(syscall(SYS_setresgid, gid, gid, gid));
}

int step_setresuid(const struct step *step)
{
    uid_t uid = (uid_t)step->args[0].number;

    return outcome(syscall(SYS_setresuid, uid, uid, uid));
}

/* Not by way of /proc/PID/fd: what is open may lie outside (CVE-2024-21626). */
int step_chdir(const struct step *step)
{
    int directory = inside_open(step->args[0].text);

    if (directory < 0)
        return errno;
    int error = outcome(fchdir(directory));

    close(directory);
    return error;
}

int step_setpgid(const struct step *step)
{
    (void)step;
    return outcome(syscall(SYS_setpgid, 0L, 0L));
}

/* The kernel sends SIGTTOU to a background process that asks for this. All signals are still blocked here. */
int step_foreground(const struct step *step)
{
    pid_t group = getpid();

    return outcome(ioctl((int)step->args[0].number, TIOCSPGRP, &group));
}

int step_reset_signals(const struct step *step)
{
    (void)step;
    return outcome(default_signals() < 0 ? -1 : set_signal_mask(NO_SIGNALS));
}

int step_close_fds(const struct step *step)
{
    return outcome(close_range((unsigned)step->args[0].number, ~0U, CLOSE_RANGE_CLOEXEC));
}

/*
 * Gives the workload open files of the launcher, under the fds that they have there. They are the last of those that
 * came with "go". Before that, the socket for records and the files themselves are copied to fds above the highest of
 * those, so that none is overwritten; the execve closes the copies.
 */
int step_preserve_fds(const struct step *step)
{
    unsigned first = handed.count - step->count;
    int above = PLAN_FD;

    if (step->count > handed.count)
        return EBADF;
    for (unsigned i = 0; i < step->count; i++)
        if (step->args[i].number >= above)
            above = (int)step->args[i].number + 1;
    if ((record_fd = fcntl(CONTROL, F_DUPFD_CLOEXEC, above)) < 0)
        return errno;
    for (unsigned i = 0; i < step->count; i++)
        if ((handed.fds[first + i] = fcntl(handed.fds[first + i], F_DUPFD_CLOEXEC, above)) < 0)
            return errno;
    for (unsigned i = 0; i < step->count; i++)
        if (syscall(SYS_dup3, handed.fds[first + i], (int)step->args[i].number, 0) < 0)
            return errno;
    return 0;
}

struct attempt {
    int error, index;
    bool exists, allowed; /* there is a file; its permissions let it be executed */
};

/* Tells most of all: a file that may not be executed, then one whose interpreter is missing, then none at all. */
static int weight(struct attempt attempt)
{
    return attempt.error == EACCES ? 2 : attempt.exists ? 1 : 0;
}

static bool is_directory(const char *path)
{
    int fd = openat(AT_FDCWD, path, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

/* Tries each path as execvpe(3) does, but without its shell for what has no header. */
int step_execve(const struct step *step)
{
    char **paths = step->args[0].list, **argv = step->args[1].list, **env = step->args[2].list;
    struct attempt told = {ENOENT, 0, false, false};

    for (int i = 0; paths[i] != NULL; i++) {
        start->time = now();
        execve(paths[i], argv, env);
        struct attempt attempt = {errno, i, false, false};

        attempt.exists = faccessat(AT_FDCWD, paths[i], F_OK, 0) == 0;
        attempt.allowed = faccessat(AT_FDCWD, paths[i], X_OK, 0) == 0;
        if (attempt.error == EACCES && is_directory(paths[i]))
            attempt.error = EISDIR; /* the kernel says EACCES of both a directory and a file without x */
        if (i == 0 || weight(attempt) > weight(told))
            told = attempt;
        if (attempt.error != ENOENT && attempt.error != ENOTDIR && attempt.error != EACCES &&
            attempt.error != EISDIR) {
            told = attempt;
            break;
        }
    }
    say("exec_failed %d %d %d %d %d", step->number, told.error, told.index, told.exists, told.allowed);
    return ALREADY_SAID;
}
