#include "descendants.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "files.h"
#include "ops.h"
#include "process.h"
#include "record.h"

enum { DEEPEST = 16, LIST = 2048 };

int descent = -1;

int descendants_adopt(void)
{
    if (descent < 0)
        descent = openat(AT_FDCWD, "/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    return descent < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1L, 0L, 0L, 0L) != 0 ? errno : 0;
}

int step_subreaper(const struct step *step)
{
    (void)step;
    return descendants_adopt();
}

static pid_t take_pid(const char **text)
{
    pid_t pid = 0;

    for (; **text >= '0' && **text <= '9'; (*text)++)
        pid = pid * 10 + (**text - '0');
    return pid;
}

/* In /proc/PID/stat, behind the last bracket, which ends the name, come the state and the parent. */
static pid_t parent_in(int process)
{
    char stat[512];
    const char *field = NULL;

    read_text(process, "stat", stat, sizeof stat);
    for (const char *at = stat; (at = strchr(at, ')')) != NULL; at++)
        field = at;
    if (field == NULL || strlen(field) < 5)
        return 0;
    field += 4;
    return take_pid(&field);
}

/* What a walk through the descendants needs: an fd of /proc, and the function that it calls for each of them. */
struct walk {
    int procfs;
    void (*visit)(pid_t pid, int process);
};

static void visit_below(const struct walk *walk, pid_t pid, int process, int depth);

/*
 * An open /proc/PID stands for that process and no later one. Its number may have been another's when the list was
 * read: it is a descendant if its parent is who the list was of, or we ourselves, since.
 */
static void visit_listed(const struct walk *walk, pid_t pid, pid_t parent, int depth)
{
    char number[24];

    number_text(number, pid);
    int process = openat(walk->procfs, number, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (process < 0)
        return;
    pid_t found = parent_in(process);

    if (found == parent || found == getpid()) {
        if (depth < DEEPEST)
            visit_below(walk, pid, process, depth);
        walk->visit(pid, process);
    }
    close(process);
}

static void visit_below(const struct walk *walk, pid_t pid, int process, int depth)
{
    char path[48] = "task/", list[LIST];

    memcpy(number_text(path + strlen(path), pid), "/children", sizeof "/children");
    read_text(process, path, list, sizeof list);
    for (const char *next = list; *next != '\0';) {
        pid_t child = take_pid(&next);

        if (child <= 0 || *next != ' ')
            return; /* the list was cut off here */
        next++;
        visit_listed(walk, child, pid, depth + 1);
    }
}

void descendants_visit(int procfs, void (*visit)(pid_t pid, int process))
{
    const struct walk walk = {procfs, visit};
    char number[24];
    pid_t self = getpid();

    number_text(number, self);
    int process = openat(procfs, number, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (process < 0)
        return;
    visit_below(&walk, self, process, 0);
    close(process);
}

static void kill_one(pid_t pid, int process)
{
    (void)pid;
    pidfd_signal(process, SIGKILL);
}

void descendants_kill(void)
{
    descendants_visit(descent, kill_one);
}

/* Waits up to one second for SIGCHLD, which is blocked. Returns whether it came. */
static bool await_death(void)
{
    const uint64_t child = SIGNAL_BIT(SIGCHLD);
    const struct timespec second = {.tv_sec = 1};

    return syscall(SYS_rt_sigtimedwait, &child, NULL, &second, sizeof child) >= 0;
}

int descendants_end(void (*retry)(void))
{
    int count = 0;

    for (;;) {
        pid_t pid;

        descendants_kill();
        while ((pid = waitpid(-1, NULL, WNOHANG | __WALL)) > 0)
            count++;
        if (pid < 0 && errno != EINTR)
            return count;
        if (!await_death() && retry != NULL)
            retry();
    }
}
