/*
 * The guard replaces its caller's oom_score_adj, real-time policy and limit of core dumps. It does so before it clones the
 * init, which inherits them.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "guard.h"
#include "ops.h"
#include "process.h"

/* Lowers oom_score_adj of the guard; the init inherits it. Without CAP_SYS_RESOURCE it stays, which is no failure. */
int step_oom_exempt(const struct step *step)
{
    int procfs = openat(AT_FDCWD, "/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (procfs < 0)
        return errno;
    int error = set_oom_score_adj(procfs, step->args[0].number);

    close(procfs);
    run.oom_exempt = error == 0;
    return error == EACCES ? 0 : error;
}

/* CPU quota and weight do not apply to SCHED_FIFO and SCHED_RR, and a cgroup of v1 without a real-time budget refuses such
 * a process (sched(7)). SCHED_BATCH and SCHED_IDLE are kept. */
int step_reset_realtime(const struct step *step)
{
    const struct sched_param none = {0};
    long policy = syscall(SYS_sched_getscheduler, 0L);

    (void)step;
    return policy == SCHED_FIFO || policy == SCHED_RR
               ? outcome(syscall(SYS_sched_setscheduler, 0L, (long)SCHED_OTHER, &none))
               : 0;
}

/* True if core_pattern names a program, or cannot be read (core(5)). */
static bool cores_are_piped(void)
{
    char first = '|';
    int fd = openat(AT_FDCWD, "/proc/sys/kernel/core_pattern", O_RDONLY | O_CLOEXEC);

    if (fd >= 0) {
        if (read(fd, &first, 1) < 0)
            first = '|';
        close(fd);
    }
    return first == '|';
}

/* A core dump would be written to a directory of the host, or piped to a program that runs there. A limit of 1 stops both,
 * a limit of 0 does not stop the pipe (do_coredump() in fs/coredump.c). The guard sets it, because only CAP_SYS_RESOURCE
 * of the caller's user namespace raises a hard limit of 0. Without it, 0 will do where no program gets the core. */
int step_no_core(const struct step *step)
{
    const struct rlimit limit = {1, 1};

    (void)step;
    int error = outcome(prlimit(0, RLIMIT_CORE, &limit, NULL));

    return error == EPERM && !cores_are_piped() ? 0 : error;
}
