/* The workload's standing among other processes. */
#include <errno.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ops.h"
#include "process.h"

enum { IOPRIO_WHO_PROCESS = 1, IOPRIO_CLASS_SHIFT = 13 }; /* <linux/ioprio.h>, which some systems lack */

static int outcome(long result)
{
    return result < 0 ? errno : 0;
}

/*
 * Not everybody may lower it: what was not asked for is then left as it was inherited, which is higher. The file belongs
 * to root of the machine, not to us, unless we are dumpable.
 */
int step_oom_score_adj(const struct step *step)
{
    const union arg *args = step->args;

    prctl(PR_SET_DUMPABLE, 1);
    int error = set_oom_score_adj(args[spared ? 0 : 1].number);

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
