#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "files.h"
#include "record.h"

#define KERNEL_SIGNAL_SET sizeof(uint64_t) /* glibc's is 16 times as long */

pid_t clone_process(uint64_t flags, int cgroup, int *pidfd)
{
    struct clone_args args = {
        .flags = flags | CLONE_PIDFD | (cgroup < 0 ? 0 : CLONE_INTO_CGROUP),
        .pidfd = (uint64_t)(uintptr_t)pidfd,
        .exit_signal = SIGCHLD,
        .cgroup = cgroup < 0 ? 0 : (uint64_t)cgroup,
    };

    return (pid_t)syscall(SYS_clone3, &args, sizeof args);
}

int pidfd_of(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

int pidfd_signal(int pidfd, int number)
{
    return (int)syscall(SYS_pidfd_send_signal, pidfd, number, NULL, 0);
}

int set_oom_score_adj(int procfs, int64_t value)
{
    char text[24];

    number_text(text, value);
    return write_text(procfs, "self/oom_score_adj", text);
}

int default_signal(int number)
{
    const unsigned long standard[8] = {(unsigned long)SIG_DFL}; /* zeros, whatever the order in the kernel's struct */

    return (int)syscall(SYS_rt_sigaction, number, standard, NULL, KERNEL_SIGNAL_SET);
}

int default_signals(void)
{
    for (int number = 1; number <= 64; number++)
        if (number != SIGKILL && number != SIGSTOP && default_signal(number) != 0)
            return -1;
    return 0;
}

/* Sets the default action of the signal, and unblocks it. */
static bool restore_signal(int number)
{
    const uint64_t signal = SIGNAL_BIT(number);

    return default_signal(number) == 0 &&
           syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &signal, NULL, KERNEL_SIGNAL_SET) == 0;
}

void alarm_at(struct alarm *alarm, int64_t time)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = alarm->number};
    struct itimerspec when = {{0}, {0}}; /* disarms the timer */

    if (time == alarm->at || (time == INT64_MAX && !alarm->made))
        return;
    if (!alarm->made && (!restore_signal(alarm->number) ||
                         syscall(SYS_timer_create, (long)CLOCK_MONOTONIC, &event, &alarm->timer) != 0))
        return; /* without a timer, only a guard that somebody stops is late */
    alarm->made = true;
    alarm->at = time;
    if (time != INT64_MAX)
        when.it_value = (struct timespec){time / 1000000000, time % 1000000000};
    syscall(SYS_timer_settime, alarm->timer, (long)TIMER_ABSTIME, &when, NULL);
}

int set_signal_mask(uint64_t mask)
{
    return (int)syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, KERNEL_SIGNAL_SET);
}

int signal_of(const char *command, const char *whom)
{
    size_t length = strlen(whom);
    int number = 0;

    if (strncmp(command, whom, length) != 0 || command[length] != ' ')
        return 0;
    for (command += length + 1; *command >= '0' && *command <= '9' && number < 100; command++)
        number = number * 10 + (*command - '0');
    return *command == '\0' && number <= 64 ? number : 0;
}
