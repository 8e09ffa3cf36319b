/* The three roles of the one binary, and the system calls that glibc has no wrapper for. */
#ifndef PROCESS_H
#define PROCESS_H

#include <errno.h>
#include <stdbool.h>
#include <sys/types.h>

#include "wire.h"

/* Guards one run, from outside the namespaces. Returns the exit code: 1 if something could not be removed. */
int guard_run(const struct plan *plan);

/* Pid 1 inside. `guard` is a pidfd; `maps` an eventfd that says that the id maps are written, -1 when there are none. */
_Noreturn void init_run(const struct plan *plan, int guard, int maps);

/*
 * clone3(2), used like fork(2): the child gets a copy of everything and no new stack; it is born in the cgroup (v2)
 * whose directory `cgroup` is, unless that is negative.
 * Returns the pid, 0 in the child, -1 with errno; *pidfd is the parent's.
 */
pid_t clone_process(uint64_t flags, int cgroup, int *pidfd);

int pidfd_of(pid_t pid);
int pidfd_signal(int pidfd, int number);

/* Sets oom_score_adj of this process; children inherit it (proc_pid_oom_score_adj(5)). `procfs` is an fd of /proc.
 * Returns 0 or an errno. */
int set_oom_score_adj(int procfs, int64_t value);

/* Returns errno if the result of a system call is negative, else 0. */
static inline int outcome(long result)
{
    return result < 0 ? errno : 0;
}

/* SIG_DFL for all but KILL and STOP, or for one; by system call, because glibc keeps two signals to itself. */
int default_signal(int number);
int default_signals(void);

/* A timer of the kernel that sends this process a signal, also while the process is stopped or frozen. */
struct alarm {
    int number;  /* of the signal */
    bool made;
    int timer;   /* of timer_create(2) */
    int64_t at;
};

/* Sets the alarm to a time of CLOCK_MONOTONIC, INT64_MAX for never. The signal is unblocked and has its default
 * action. */
void alarm_at(struct alarm *alarm, int64_t time);

#define NO_SIGNALS UINT64_C(0)
#define ALL_SIGNALS (~NO_SIGNALS)
#define SIGNAL_BIT(number) (UINT64_C(1) << ((number) - 1))

int set_signal_mask(uint64_t mask);

/* The number N in "signal N" (to the workload) or "group N" (to its process group), 0 if `command` does not begin with
 * the word `whom`. `command` ends with NUL. */
int signal_of(const char *command, const char *whom);

#endif
