#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "process.h"

/* It gets none of what is open here: the workload's streams and our sockets are nothing to it. */
static _Noreturn void become_tool(char *const argv[], int said)
{
    static char *const NOTHING[] = {NULL};
    int null = openat(AT_FDCWD, "/dev/null", O_RDWR | O_CLOEXEC);

    /* One of the three may have been closed: then the pipe is in its place, and dup3 refuses a copy of itself. */
    int line = fcntl(said, F_DUPFD_CLOEXEC, 3);

    if (null < 0 || line < 0 || (null = fcntl(null, F_DUPFD_CLOEXEC, 3)) < 0 || syscall(SYS_dup3, null, 0, 0) < 0 ||
        syscall(SYS_dup3, null, 1, 0) < 0 || syscall(SYS_dup3, line, 2, 0) < 0 ||
        close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) != 0)
        _exit(126);
    set_signal_mask(NO_SIGNALS);
    execve(argv[0], argv, NOTHING);
    _exit(127);
}

/* To its end, or the tool would die of a pipe that nobody reads. */
static void read_line(int from, char *line, size_t room)
{
    char rest[64];
    size_t length = 0;
    ssize_t got;

    do {
        bool full = length == room - 1;

        got = full ? read(from, rest, sizeof rest) : read(from, line + length, room - 1 - length);
        if (got > 0 && !full)
            length += (size_t)got;
    } while (got > 0 || (got < 0 && errno == EINTR));
    line[length] = '\0';
    char *end = strchr(line, '\n');

    if (end != NULL)
        *end = '\0';
}

int run_tool(char *const argv[], char *said, size_t room)
{
    int ends[2], pidfd = -1, status = 0;

    said[0] = '\0';
    if (syscall(SYS_pipe2, ends, (long)O_CLOEXEC) != 0)
        return errno;
    pid_t pid = clone_process(0, -1, &pidfd);

    if (pid == 0)
        become_tool(argv, ends[1]);
    int error = pid < 0 ? errno : 0;

    close(ends[1]);
    if (pid > 0) {
        read_line(ends[0], said, room);
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
        close(pidfd);
    }
    close(ends[0]);
    return error != 0 ? error : status == 0 ? 0 : ECHILD;
}
