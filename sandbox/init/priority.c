/* Steps that set the workload's OOM score, nice value and I/O priority. */
#include <errno.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "guard.h"
#include "init.h"
#include "ops.h"
#include "process.h"

enum { IOPRIO_WHO_PROCESS = 1, IOPRIO_CLASS_SHIFT = 13 }; /* <linux/ioprio.h>, which some systems lack */

/*
 * Without CAP_SYS_RESOURCE the score cannot go below an inherited minimum. That is an error only if the user asked for the
 * score. While a process is not dumpable, the host's root owns the files in /proc/self (proc(5)): hence PR_SET_DUMPABLE.
 */
int step_oom_score_adj(const struct step *step)
{
    const union arg *args = step->args;

    prctl(PR_SET_DUMPABLE, 1);
    int error = set_oom_score_adj(procfs_outside, args[run.oom_exempt ? 0 : 1].number);

    prctl(PR_SET_DUMPABLE, 0);
    return error == EACCES && args[2].number == 0 ? 0 : error;
}

int step_nice(const struct step *step)
{
    return outcome(syscall(SYS_setpriority, (long)PRIO_PROCESS, 0L, (long)step->args[0].number));
}

int step_ionice(const struct step *step)
{
    long priority = (long)step->args[1].number << IOPRIO_CLASS_SHIFT | (long)step->args[0].number;

    return outcome(syscall(SYS_ioprio_set, (long)IOPRIO_WHO_PROCESS, 0L, priority));
}
