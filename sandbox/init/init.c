/*
 * The init: pid 1 inside. It builds the inside, waits for "go", starts the workload, passes signals on to it, reaps
 * whatever dies, and ends with the workload: then it kills and reaps what the workload has left behind.
 */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "descendants.h"
#include "guard.h"
#include "label.h"
#include "namespaces.h"
#include "ops.h"
#include "privileges.h"
#include "process.h"
#include "record.h"

struct handed handed;
volatile struct start *start;
int procfs_outside = -1;

static struct {
    pid_t pid;
    int pidfd;
} workload;

/* An empty cgroup is systemd's to remove: it must not be empty before the launcher has read it. */
static bool holds;

int step_hold(const struct step *step)
{
    (void)step;
    holds = true;
    return 0;
}

/*
 * The launcher has no right to give them away; we have, within our user namespace. A terminal keeps its group. What
 * cannot be given can be used all the same, only not opened again.
 */
int step_give_streams(const struct step *step)
{
    for (unsigned i = 2; i < step->count; i++) {
        int fd = (int)step->args[i].number;
        struct stat status;

        if (fd < 0 || fd >= PLAN_FD)
            return EINVAL;
        if (fstat(fd, &status) == 0)
            syscall(SYS_fchown, fd, (uid_t)step->args[0].number,
                    S_ISCHR(status.st_mode) ? (gid_t)-1 : (gid_t)step->args[1].number);
    }
    return step->count < 2 ? EINVAL : 0;
}

/*
 * The init leads the session. If the workload led it, the workload's process group would be orphaned (setpgid(2)), and
 * the kernel drops SIGTSTP, which Ctrl-Z sends, for the processes of such a group.
 */
int step_setsid(const struct step *step)
{
    (void)step;
    return outcome(setsid());
}

int step_ctty(const struct step *step)
{
    return outcome(ioctl((int)step->args[0].number, TIOCSCTTY, 0));
}

static void hold(void)
{
    char command[32];
    ssize_t length;

    while (holds && (length = recv(GO, command, sizeof command - 1, 0)) != 0) {
        command[length < 0 ? 0 : length] = '\0';
        if (strcmp(command, "bye") == 0 || (length < 0 && errno != EINTR))
            return;
    }
}

static _Noreturn void give_up(void)
{
    _exit(1);
}

/* Dies with the guard. It may have died before it could be asked for: getppid(2) is 0 in here either way. */
static void tie_to(int guard)
{
    struct pollfd dead = {.fd = guard, .events = POLLIN};

    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || ppoll(&dead, 1, &(struct timespec){0}, NULL) != 0)
        give_up();
}

static void wait_for_maps(int maps)
{
    uint64_t value;

    if (maps >= 0 && read(maps, &value, sizeof value) < 0)
        give_up();
}

/* Closes what is open from `from` on, but these. Those that are -1 are none. */
static bool close_others(unsigned from, const int *kept, unsigned count)
{
    for (;;) {
        unsigned next = ~0U;

        for (unsigned i = 0; i < count; i++)
            if (kept[i] >= 0 && (unsigned)kept[i] >= from && (unsigned)kept[i] < next)
                next = (unsigned)kept[i];
        if (next > from && close_range(from, next - 1, 0) != 0)
            return false;
        if (next == ~0U)
            return true;
        from = next + 1;
    }
}

/* Keeps the workload's streams, its two sockets and the way into the namespaces, nothing else of the host's. */
static void let_go(void)
{
    const int kept[] = {CONTROL, GO, holder.pidfd, holder.userns, holder.line, holder.reaped, descent};

    if (!close_others(PLAN_FD, kept, sizeof kept / sizeof kept[0]))
        give_up();
    prctl(PR_SET_NAME, "sandbox-init");
    prctl(PR_SET_DUMPABLE, 0);
    procfs_outside = openat(AT_FDCWD, "/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static void keep_fds(struct msghdr *message)
{
    struct cmsghdr *part = CMSG_FIRSTHDR(message); /* nobody sends anything but fds */

    if (part == NULL || part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
        return;
    size_t length = part->cmsg_len - CMSG_LEN(0);

    memcpy(handed.fds, CMSG_DATA(part), length);
    handed.count = (unsigned)(length / sizeof handed.fds[0]);
}

/* Waits for "go". Anything else in its place means that nothing is to be started. */
static bool receive_go(void)
{
    union {
        struct cmsghdr header; /* for the alignment */
        char room[CMSG_SPACE(sizeof handed.fds)];
    } control;
    char word[16];
    struct iovec data = {word, sizeof word};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control.room};
    ssize_t length;

    while ((length = recvmsg(GO, &message, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR)
        ;
    if (length != 2 || memcmp(word, "go", 2) != 0 || (message.msg_flags & MSG_CTRUNC) != 0)
        return false;
    keep_fds(&message);
    return true;
}

/* The step whose directory the workload is to be born in, NULL if there is none. */
static const struct step *birthplace(const struct plan *plan)
{
    for (uint32_t i = 0; i < plan->count; i++) {
        const struct step *step = &plan->steps[i];

        if (step->op->carry_out == step_clone_into_cgroup && is_handed(step->args[0].number))
            return step;
    }
    return NULL;
}

/*
 * CLONE_VFORK: we go on when the child has executed the command or is dead, and `start` says which of the two.
 * Its memory is its own, so that nothing it does to itself happens to us.
 */
static bool start_workload(const struct plan *plan)
{
    start = mmap(NULL, sizeof *start, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) {
        say("failed 0 %d init", errno);
        return false;
    }
    const struct step *birth = birthplace(plan);
    int cgroup = birth == NULL ? -1 : handed.fds[birth->args[0].number];

    workload.pid = clone_process(CLONE_VFORK, cgroup, &workload.pidfd);
    if (workload.pid == 0) {
        if (carry_out(plan, WORKLOAD))
            say("failed 0 %d workload", ENOEXEC); /* there is no execve in the plan */
        start->failed = true;
        _exit(127);
    }
    if (workload.pid < 0)
        say("failed %d %d init", birth == NULL ? 0 : birth->number, errno);
    return workload.pid > 0 && !start->failed;
}

/* From here on the streams, the cgroups and the user namespace are the workload's alone. */
static void let_workload_go(void)
{
    const int kept[] = {CONTROL, GO, workload.pidfd, descent};

    keep_only_kill();
    if (!close_others(0, kept, sizeof kept / sizeof kept[0]))
        give_up();
    say_with_fd(workload.pidfd, "started %lld", (long long)start->time);
    if (is_timed())
        (void)send(GO, "started", 7, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Everything in the namespace but us. Anywhere else -1 would mean the whole machine. */
static void kill_all(void)
{
    if (descent >= 0)
        descendants_kill();
    else if (getpid() == 1)
        kill(-1, SIGKILL);
}

/* A packet from the guard. Its end of the socket is gone only when it is. */
static void obey(void)
{
    char command[32];
    ssize_t length = recv(GO, command, sizeof command - 1, MSG_DONTWAIT);

    if (length == 0)
        give_up();
    if (length < 0)
        return;
    command[length] = '\0';
    if (strcmp(command, "kill") == 0)
        kill_all();
    else if (signal_of(command, "signal") != 0)
        pidfd_signal(workload.pidfd, signal_of(command, "signal"));
    else if (signal_of(command, "group") != 0)
        kill(-workload.pid, signal_of(command, "group"));
}

/*
 * Reaps dead children, and tells the launcher when the workload has been stopped. Returns true if the workload is dead;
 * other dead children may then be left to reap.
 */
static bool reap(int *status)
{
    pid_t pid;

    while ((pid = waitpid(-1, status, WNOHANG | __WALL | WUNTRACED)) > 0)
        if (pid == workload.pid && !WIFSTOPPED(*status))
            return true;
        else if (pid == workload.pid)
            say("stopped %d", WSTOPSIG(*status));
    return false;
}

/*
 * Reads a signal to the init. SIGCHLD only wakes it. SIGHUP is what the kernel sends when a terminal is gone, to the
 * leader of its session alone: the init passes it on, since without a sandbox the workload could be that leader.
 */
static void hear(int signals)
{
    struct signalfd_siginfo info;

    if (read(signals, &info, sizeof info) < 0) {
        if (errno != EAGAIN)
            give_up();
    } else if (info.ssi_signo == SIGHUP && info.ssi_code == SI_KERNEL) {
        kill(-workload.pid, SIGHUP);
        kill(-workload.pid, SIGCONT);
    }
}

static void outlive_workload(int *status)
{
    const uint64_t heard = SIGNAL_BIT(SIGCHLD) | SIGNAL_BIT(SIGHUP);

    int signals = (int)syscall(SYS_signalfd4, -1, &heard, sizeof heard, SFD_CLOEXEC | SFD_NONBLOCK);

    if (signals < 0) {
        say("failed 0 %d init", errno);
        give_up();
    }
    struct pollfd fds[] = {{.fd = signals, .events = POLLIN}, {.fd = GO, .events = POLLIN}};

    while (!reap(status)) {
        if (ppoll(fds, 2, NULL, NULL) < 0 && errno != EINTR)
            give_up();
        if (fds[1].revents != 0)
            obey();
        if (fds[0].revents != 0)
            hear(signals);
    }
}

/*
 * Kills the processes that the workload has left behind. Returns how many there were, without those that were dead already.
 * The launcher and the guard are told first, because on cgroup v1 SIGKILL has no effect on a frozen process.
 */
static int clear(int status, long long time)
{
    int killed = 0;
    pid_t pid;

    while ((pid = waitpid(-1, NULL, WNOHANG | __WALL)) > 0)
        ;
    if (pid == 0) {
        say("clearing %d %lld", status, time);
        (void)send(GO, "clearing", 8, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    if (descent >= 0)
        return descendants_end(NULL);
    if (pid == 0)
        kill_all();
    while (pid >= 0 || errno != ECHILD)
        if ((pid = waitpid(-1, NULL, __WALL)) > 0)
            killed++;
    return killed;
}

static long long microseconds(struct timeval time)
{
    return time.tv_sec * 1000000LL + time.tv_usec;
}

static void report_exit(int status, long long time, int left_behind)
{
    struct rusage usage;

    getrusage(RUSAGE_CHILDREN, &usage);
    say("exited %d %lld %lld %lld %lld %lld %lld %lld %lld %lld %lld %d", status, time, microseconds(usage.ru_utime),
        microseconds(usage.ru_stime), (long long)usage.ru_maxrss, (long long)usage.ru_minflt,
        (long long)usage.ru_majflt, (long long)usage.ru_inblock, (long long)usage.ru_oublock,
        (long long)usage.ru_nvcsw, (long long)usage.ru_nivcsw, left_behind);
}

_Noreturn void init_run(const struct plan *plan, int guard, int maps)
{
    int status = 0;

    in_own_user_namespace = maps >= 0;
    tie_to(guard);
    wait_for_maps(maps);
    let_go();
    if (!carry_out(plan, INIT))
        give_up();
    holder_dismiss(); /* it would be one task too many among the workload's */
    say("ready");
    if (!receive_go() || !start_workload(plan))
        give_up();
    tell_labels(plan, workload.pid);
    let_workload_go();
    outlive_workload(&status);
    long long time = now();

    report_exit(status, time, clear(status, time));
    hold();
    _exit(0);
}
