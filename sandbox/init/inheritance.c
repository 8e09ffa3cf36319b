/*
 * The guard replaces its caller's oom_score_adj and real-time policy. It does so before it clones the init, which inherits
 * both.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
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
