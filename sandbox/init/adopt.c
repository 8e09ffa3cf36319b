/*
 * As the main process of a systemd service, the guard is started with nothing of the launcher's but one end of a socket
 * as its stdin. On it the plan, the guard's own sockets and the workload's streams are waiting.
 */
#include "adopt.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "record.h"

enum { OUT_OF_THE_WAY = 32 };

/* All of them, or EPROTO. */
static int receive(int fds[FIRST_OTHER])
{
    union {
        struct cmsghdr header; /* for the alignment */
        char room[CMSG_SPACE(sizeof(int[FIRST_OTHER]))];
    } control;
    char word[8];
    struct iovec data = {word, sizeof word};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control.room};
    ssize_t length = recvmsg(STDIN_FILENO, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

    if (length <= 0)
        return length < 0 ? errno : EPROTO;
    const struct cmsghdr *part = CMSG_FIRSTHDR(&message);

    if (part == NULL || part->cmsg_type != SCM_RIGHTS || part->cmsg_len != CMSG_LEN(sizeof(int[FIRST_OTHER])))
        return EPROTO;
    memcpy(fds, CMSG_DATA(part), sizeof(int[FIRST_OTHER]));
    return 0;
}

int adopt(void)
{
    int fds[FIRST_OTHER], error = receive(fds);

    for (int i = 0; error == 0 && i < FIRST_OTHER; i++)
        if ((fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, OUT_OF_THE_WAY)) < 0)
            error = errno;
    for (int i = 0; error == 0 && i < FIRST_OTHER; i++)
        if (syscall(SYS_dup3, fds[i], i, 0) < 0)
            error = errno;
    return error;
}
