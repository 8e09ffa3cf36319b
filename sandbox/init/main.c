/*
 * sandbox-init: carries out the guard's, the init's and the workload's steps of a plan. It knows steps, not policy.
 *
 *   launcher --posix_spawn--> guard --clone3--> init (pid 1 inside) --clone3--> workload
 *                                   --clone3--> holder of the namespaces that the init and the workload join, as root
 *
 * fds at the start: 0 to 2 are the workload's, 3 the plan, 4 the control socket, 5 and 6 the two ends of the socket
 * that tells the init to go on. With --adopt they come over a socket, see adopt.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "adopt.h"
#include "ops.h"
#include "process.h"
#include "record.h"

enum { EXIT_BAD_PLAN = 2 };

/* A closed standard stream would be filled by the next fd that is opened. */
static bool fill_stdio(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && openat(AT_FDCWD, "/dev/null", O_RDWR) != fd)
            return false;
    return true;
}

/* Nothing of the caller's leaks in. */
static bool shut_doors(void)
{
    return close_range(FIRST_OTHER, ~0U, 0) == 0 && close_range(PLAN_FD, GO_OTHER_END, CLOSE_RANGE_CLOEXEC) == 0;
}

/*
 * What the caller ignores or blocks must not decide how the guard and the init behave: all of it is blocked, and
 * SIGCHLD is not ignored, which would make zombies vanish unseen. The others are reset by the workload's own step.
 */
static bool block_signals(void)
{
    return set_signal_mask(ALL_SIGNALS) == 0 && default_signal(SIGCHLD) == 0;
}

/* The launcher writes the plan while we come to life, and says when it is whole. */
static int await_plan(void)
{
    char word[8];
    ssize_t length;

    while ((length = recv(CONTROL, word, sizeof word, 0)) < 0 && errno == EINTR)
        ;
    return length < 0 ? errno : length == 4 && memcmp(word, "plan", 4) == 0 ? 0 : ECANCELED;
}

static int read_plan(struct plan *plan)
{
    int error = await_plan();

    if (error != 0)
        return error;
    off_t end = lseek(PLAN_FD, 0, SEEK_END);

    if (end <= 0 || end > UINT32_MAX)
        return end < 0 ? errno : EINVAL;
    size_t length = (size_t)end;
    const void *bytes = mmap(NULL, length, PROT_READ, MAP_PRIVATE, PLAN_FD, 0);
    void *room = mmap(NULL, PLAN_ROOM(length), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                      -1, 0);

    if (bytes == MAP_FAILED || room == MAP_FAILED)
        return errno;
    return plan_parse(bytes, length, room, plan);
}

/* One line per op, for the test that compares them with wire.py's. */
static int print_ops(void)
{
    for (unsigned i = 0; i < OPS_COUNT; i++) {
        const char *words[] = {(char[]){(char)OPS[i].where, '\0'}, " ", OPS[i].name, " ", OPS[i].signature, "\n"};

        for (unsigned j = 0; j < sizeof words / sizeof words[0]; j++)
            if (write(STDOUT_FILENO, words[j], strlen(words[j])) < 0)
                return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct plan plan;

    if (argc == 2 && strcmp(argv[1], "--ops") == 0)
        return print_ops();
    if (argc == 2 && strcmp(argv[1], "--adopt") == 0 && adopt() != 0)
        return EXIT_BAD_PLAN; /* there is nobody to tell but systemd */
    if (!fill_stdio() || !shut_doors() || !block_signals()) {
        say("failed 0 %d guard", errno);
        return EXIT_BAD_PLAN;
    }
    int error = read_plan(&plan);

    if (error != 0) {
        say("failed 0 %d wire", error);
        return EXIT_BAD_PLAN;
    }
    prctl(PR_SET_NAME, "sandbox-guard");
    return guard_run(&plan);
}
