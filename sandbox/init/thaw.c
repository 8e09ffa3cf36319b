/*
 * Freezer cgroups of cgroup v1. Somebody may move a process of the run into one and freeze it. SIGKILL then has no effect
 * until the process is thawed (freezer-subsystem.rst); on cgroup v2 it has. The guard does not thaw a cgroup of somebody
 * else, as other processes in it would run again. It moves the process of the run to another cgroup, which thaws that
 * process alone (freezer_attach() in kernel/cgroup/legacy_freezer.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "descendants.h"
#include "files.h"
#include "guard.h"
#include "ops.h"
#include "process.h"
#include "record.h"

/*
 * Arguments of the step `thaw`: controllers of the hierarchy as in /proc/PID/cgroup, the cgroup that is mounted, its mount
 * point, and the directory of the cgroup that frozen processes are moved to.
 */
static struct {
    const char *controllers, *root, *mount, *destination;
} freezer;

/* A process that could not be moved, the errno, and its freezer cgroup. */
static struct {
    pid_t pid;
    int error;
    char path[PATH_MAX];
} stuck;

int step_thaw(const struct step *step)
{
    freezer.controllers = step->args[0].text;
    freezer.root = step->args[1].text;
    freezer.mount = step->args[2].text;
    freezer.destination = step->args[3].text;
    return 0;
}

/* Appends to the path in `room`, whose size is PATH_MAX. Returns whether it fits. */
static bool append(char *room, const char *more, size_t length)
{
    size_t have = strlen(room);

    if (have + length >= PATH_MAX)
        return false;
    memcpy(room + have, more, length);
    room[have + length] = '\0';
    return true;
}

/* Writes the directory of the process's freezer cgroup to `path`. The lines are ID:CONTROLLERS:PATH (cgroups(7)). Returns
 * false also if the cgroup is not below the mounted one. */
static bool find_cgroup(int process, char *path)
{
    static char room[8192];
    size_t length = strlen(freezer.controllers), above = strlen(freezer.root);

    read_text(process, "cgroup", room, sizeof room);
    for (const char *line = room, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        const char *found = strchr(line, ':');

        if (found == NULL || found > end || strncmp(found + 1, freezer.controllers, length) != 0 ||
            found[1 + length] != ':')
            continue;
        found += length + 2;
        path[0] = '\0';
        if (strncmp(found, freezer.root, above) != 0 || (found[above] != '/' && found[above] != '\n'))
            return false;
        found += above;
        return append(path, freezer.mount, strlen(freezer.mount)) && append(path, found, (size_t)(end - found));
    }
    return false;
}

/*
 * Returns whether the process is frozen, and writes the directory of its freezer cgroup to `path`. freezer.state is FROZEN
 * also if a cgroup above is frozen. The root cgroup has no such file and is never frozen.
 */
static bool is_frozen(int process, char *path)
{
    char state[16];

    if (!find_cgroup(process, path))
        return false;
    int directory = openat(AT_FDCWD, path, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (directory < 0)
        return false;
    read_text(directory, "freezer.state", state, sizeof state);
    close(directory);
    return strncmp(state, "FR", 2) == 0; /* FROZEN, or FREEZING */
}

static int move_out(pid_t pid)
{
    char path[PATH_MAX] = "", number[24];

    if (!append(path, freezer.destination, strlen(freezer.destination)) || !append(path, "/cgroup.procs", 13))
        return ENAMETOOLONG;
    number_text(number, pid);
    return write_text(AT_FDCWD, path, number);
}

/* A frozen process cannot end, so its pid is still its own when it is moved. */
static void release(pid_t pid, int process)
{
    static char path[PATH_MAX];

    if (!is_frozen(process, path))
        return;
    int error = move_out(pid);

    if (error == 0 && !is_frozen(process, path))
        return;
    stuck.pid = pid;
    stuck.error = error;
    memcpy(stuck.path, path, sizeof path);
}

void thaw(bool tell)
{
    int procfs = freezer.mount == NULL ? -1 : openat(AT_FDCWD, "/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (procfs < 0)
        return;
    stuck.pid = 0;
    descendants_visit(procfs, release);
    close(procfs);
    if (tell && stuck.pid != 0)
        say("frozen %d %d %s", (int)stuck.pid, stuck.error, stuck.path);
}
