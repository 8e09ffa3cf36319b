/*
 * The guard: lives outside the namespaces and sees to it that nothing stays. It kills the tree when the launcher dies
 * in any way, when the launcher says so, and when a deadline or a watch ends; afterwards it removes what was made.
 */
#include "guard.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "descendants.h"
#include "namespaces.h"
#include "ops.h"
#include "process.h"
#include "record.h"

/*
 * Milliseconds in which an init that was told "kill" must be dead, or it is killed from outside. Then what it knows of
 * the end is lost: the exit code and the usage. Much memory to free, many processes and a slow machine take seconds;
 * only an init that somebody stops again and again takes all of the time. A test compiles the program with another value.
 */
#ifndef INIT_MAY_TAKE
#define INIT_MAY_TAKE 10000
#endif

/* Nanoseconds after a deadline. A guard that has not acted on the deadline by then is taken for frozen. */
#define GUARD_MAY_TAKE (10000 * MILLISECOND)

struct run run = {.init = -1};

/*
 * Timers for a guard that somebody has stopped or frozen. `awake` sends SIGCONT when something is due, so SIGSTOP does not
 * suspend the time limit. SIGCONT does not wake a frozen process, but on cgroup v2 a signal that kills does: `overdue`
 * sends SIGALRM, by which the launcher knows why the guard died. The init dies with its parent, the guard.
 */
static struct alarm awake = {.number = SIGCONT, .at = NEVER}, overdue = {.number = SIGALRM, .at = NEVER};

static struct {
    int launcher; /* pidfd */
    bool bye;     /* it has seen the tree dead and read what it wanted: everything may be removed */
    bool cleaned, left;

    int stop_signal;
    int64_t stop_timeout, timeout;
    bool stopping, killing;
    bool awaits_start; /* of the workload, from which on its time is counted */
    bool is_service;   /* systemd is the guard's parent: the launcher's death sends the guard no signal */
    bool deaf; /* the init has closed its end of the socket */
    const char *reason;
    int64_t deadline_at, hard_at, last_at, thaw_at, thaw_pause, tell_at;
} guard = {
    .launcher = -1, .timeout = NEVER, .deadline_at = NEVER, .hard_at = NEVER, .last_at = NEVER, .thaw_at = NEVER,
    .tell_at = NEVER,
};

/* --- steps */

int step_launcher(const struct step *step)
{
    pid_t pid = (pid_t)step->args[0].number;

    guard.launcher = pidfd_of(pid);
    if (guard.launcher < 0 && errno != ESRCH)
        return errno;
    /* Asked last: if it is the parent still, the pidfd is its. In a service systemd is, and the sockets must do. */
    guard.is_service = step->args[1].number == 0;
    run.orphan = !guard.is_service && getppid() != pid;
    /* A guard that is stopped (SIGSTOP) must see its launcher die. The signal comes also if the thread that started the
     * guard ends (prctl(2)), which does no harm. */
    return outcome(prctl(PR_SET_PDEATHSIG, (long)SIGCONT, 0L, 0L, 0L));
}

/* The lock says that this run is alive: it is the guard's alone, and goes with it. */
int step_claim(const struct step *step)
{
    const char *content = step->args[1].text;
    size_t length = strlen(content);
    int fd = openat(AT_FDCWD, step->args[0].text, O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_WRONLY, 0600);

    if (fd < 0) {
        run.foreign = errno == EEXIST;
        return errno;
    }
    if (flock(fd, LOCK_EX) != 0)
        return errno;
    ssize_t written = write(fd, content, length);

    return written < 0 ? errno : (size_t)written < length ? ENOSPC : 0;
}

int step_stop(const struct step *step)
{
    int64_t number = step->args[0].number, timeout = step->args[1].number;

    if (number < 1 || number > 64 || timeout < 0 || timeout > NEVER / MILLISECOND)
        return EINVAL;
    guard.stop_signal = (int)number;
    guard.stop_timeout = timeout * MILLISECOND;
    return 0;
}

int step_deadline(const struct step *step)
{
    int64_t timeout = step->args[0].number;

    if (timeout < 1 || timeout > NEVER / 2 / MILLISECOND)
        return EINVAL;
    guard.timeout = timeout * MILLISECOND;
    return 0;
}

/* --- ending it */

static void tell_init(const char *command)
{
    /* An init that is gone or does not read is dealt with when its time is up. One that is stopped (SIGSTOP) goes on. */
    (void)send(GO_OTHER_END, command, strlen(command), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (run.init >= 0)
        pidfd_signal(run.init, SIGCONT);
}

/*
 * Schedules the first look for frozen processes 200 ms from now: after a kill, most processes are dead by then. Each pause
 * is twice as long as the one before, because somebody may freeze the processes again and again. A process that stays
 * frozen for INIT_MAY_TAKE is reported.
 */
static void thaw_soon(void)
{
    if (guard.thaw_at == NEVER && plan_has("thaw")) {
        int64_t time = now();

        guard.thaw_pause = 200 * MILLISECOND;
        guard.thaw_at = time + guard.thaw_pause;
        guard.tell_at = time + INIT_MAY_TAKE * MILLISECOND;
    }
}

static void kill_init(void)
{
    guard.last_at = NEVER;
    if (run.init >= 0)
        pidfd_signal(run.init, SIGKILL);
    thaw_soon();
}

static void kill_hard(const char *reason)
{
    int64_t time = now();

    if (guard.killing)
        return;
    guard.killing = guard.stopping = true;
    guard.hard_at = NEVER;
    say("killing %s %lld", reason, (long long)time);
    tell_init("kill");
    guard.last_at = time + INIT_MAY_TAKE * MILLISECOND;
    thaw_soon();
}

static void stop(const char *reason)
{
    char command[16] = "signal ";
    int64_t time = now();

    if (guard.stopping)
        return;
    guard.reason = reason;
    if (guard.stop_timeout == 0) {
        kill_hard(reason);
        return;
    }
    guard.stopping = true;
    say("stopping %s %lld", reason, (long long)time);
    number_text(command + strlen(command), guard.stop_signal);
    tell_init(command);
    guard.hard_at = time > NEVER - guard.stop_timeout ? NEVER : time + guard.stop_timeout;
}

static void lose_launcher(void)
{
    run.orphan = true;
    kill_init();
}

/* --- the loop */

/* One packet of the control socket. Returns whether the launcher is gone. */
static bool take_command(void)
{
    char command[32];
    ssize_t length = recv(CONTROL, command, sizeof command - 1, MSG_DONTWAIT);

    if (length < 0)
        return errno != EAGAIN && errno != EINTR;
    command[length] = '\0';
    if (strcmp(command, "stop") == 0)
        stop("killed");
    else if (strcmp(command, "kill") == 0)
        kill_hard("killed");
    else if (strcmp(command, "keep") == 0)
        run.foreign = true;
    else if (strcmp(command, "bye") == 0)
        guard.bye = true;
    if (guard.bye || signal_of(command, "signal") != 0 || signal_of(command, "group") != 0)
        tell_init(command); /* at "bye" it may be holding the cgroup */
    return length == 0;
}

/* Takes a word of the init: "started" when the workload runs, from which on its time is counted, and "clearing" when the
 * init kills the processes that the workload has left behind. The kernel kills all of them if the init dies. */
static void take_word(void)
{
    char word[16];
    int64_t time = now();
    ssize_t length = recv(GO_OTHER_END, word, sizeof word, MSG_DONTWAIT);

    guard.deaf = length == 0 || (length < 0 && errno != EAGAIN && errno != EINTR); /* it is gone */
    if (guard.deaf || (length == 8 && memcmp(word, "clearing", 8) == 0))
        thaw_soon();
    if (length != 7 || memcmp(word, "started", 7) != 0)
        return;
    guard.awaits_start = false;
    if (guard.timeout != NEVER)
        guard.deadline_at = time + guard.timeout;
    watches_start(time);
}

static int64_t earliest(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static void keep_time(void)
{
    int64_t time = now();
    const char *reached = watches_look(time);

    if (time >= guard.deadline_at) {
        guard.deadline_at = NEVER;
        stop("wall_time");
    }
    if (reached != NULL)
        stop(reached);
    if (time >= guard.hard_at)
        kill_hard(guard.reason);
    if (time >= guard.last_at)
        kill_init();
    if (time >= guard.thaw_at) {
        thaw(false);
        guard.thaw_pause *= 2;
        guard.thaw_at = time + guard.thaw_pause;
    }
    if (time >= guard.tell_at) {
        guard.tell_at = NEVER;
        thaw(true);
    }
}

/* Sets both timers. Returns the time when the guard has to act next, or NEVER. */
static int64_t next_due(void)
{
    int64_t end = earliest(earliest(guard.deadline_at, guard.hard_at), guard.last_at);
    int64_t due = earliest(earliest(end, earliest(guard.thaw_at, guard.tell_at)), watches_due());

    /* Without this timer, a guard that is stopped before it has read "started" would never know of the time limit, and the
     * guard of a service would not see its launcher die. */
    if (guard.awaits_start || guard.is_service)
        due = earliest(due, now() + (guard.awaits_start ? 1000 : 5000) * MILLISECOND);
    alarm_at(&awake, due);
    alarm_at(&overdue, end > NEVER - GUARD_MAY_TAKE ? NEVER : end + GUARD_MAY_TAKE);
    return due;
}

static bool is_set(const struct pollfd *fd)
{
    return fd->revents != 0;
}

/* Waits for something to happen and deals with it. Returns whether the init is dead, or nothing can be waited for. */
static bool look_around(void)
{
    struct pollfd fds[] = {
        {.fd = run.init, .events = POLLIN},
        {.fd = run.orphan ? -1 : CONTROL, .events = POLLIN},
        {.fd = run.orphan ? -1 : guard.launcher, .events = POLLIN},
        {.fd = guard.deaf ? -1 : GO_OTHER_END, .events = POLLIN},
        {.fd = holder.pidfd, .events = POLLIN},
    };
    int64_t due = next_due();
    int64_t left = due == NEVER ? 0 : due - now();
    struct timespec wait = {.tv_sec = 0};

    if (left > 0)
        wait = (struct timespec){left / 1000000000, left % 1000000000};
    if (ppoll(fds, sizeof fds / sizeof fds[0], due == NEVER ? NULL : &wait, NULL) < 0 && errno != EINTR)
        return true;
    if (is_set(&fds[0]))
        return true; /* what the launcher says now comes too late */
    if (is_set(&fds[2]) || (is_set(&fds[1]) && take_command()))
        lose_launcher();
    if (is_set(&fds[3]))
        take_word();
    if (is_set(&fds[4]))
        holder_reap(false);
    if (due != NEVER)
        keep_time();
    return false;
}

static void finish(void)
{
    guard.cleaned = true;
    guard.left = !run.foreign && !clean_up(run.plan);
}

/* Called while the guard kills the descendants of a dead init, which had no pid namespace: some may be frozen. */
static void retry_descendants(void)
{
    thaw(now() >= guard.tell_at);
}

/* With the tree dead, all that is waited for is the kernel taking the namespaces down; that time is used. */
static void outlive_init(void)
{
    while (!look_around())
        if (guard.bye && !guard.cleaned) {
            watches_report();
            finish();
        }
    alarm_at(&overdue, NEVER);
    kill_init(); /* if it is not dead, poll(2) has failed */
    guard.stopping = guard.killing = true;
    while (waitpid(run.init_pid, NULL, 0) < 0 && errno == EINTR)
        ;
    close(run.init);
    run.init = -1;
    if (descent >= 0) {
        guard.tell_at = now() + INIT_MAY_TAKE * MILLISECOND;
        descendants_end(retry_descendants);
    }
}

/* The launcher reads its figures now; what it leaves is removed when it says so or is gone. */
static void wait_for_bye(void)
{
    while (!run.orphan && !guard.bye) {
        struct pollfd fds[] = {{.fd = CONTROL, .events = POLLIN}, {.fd = guard.launcher, .events = POLLIN}};

        if (ppoll(fds, 2, NULL, NULL) < 0 && errno != EINTR)
            return;
        run.orphan = is_set(&fds[1]) || (is_set(&fds[0]) && take_command());
    }
}

int guard_run(const struct plan *plan)
{
    run.plan = plan;
    guard.awaits_start = is_timed();
    bool done = carry_out(plan, GUARD);

    /* The workload's streams must end with the workload. */
    close_range(0, PLAN_FD, 0);
    close(GO);
    holder_leave();
    if (!done)
        kill_init();
    if (run.init >= 0)
        outlive_init();
    holder_reap(true);
    if (!guard.cleaned)
        watches_report();
    say("done");
    wait_for_bye();
    if (!guard.cleaned)
        finish();
    return guard.left ? 1 : 0;
}
