#include "record.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

int record_fd = CONTROL;

enum { ROOM = PATH_MAX + 64 }; /* the longest is `left ERRNO PATH` */

struct text {
    char bytes[ROOM];
    size_t length;
};

static void put(struct text *text, const char *word)
{
    while (*word != '\0' && text->length < ROOM)
        text->bytes[text->length++] = *word++;
}

char *number_text(char *to, long long value)
{
    unsigned long long rest = value < 0 ? -(unsigned long long)value : (unsigned long long)value;
    char digits[20];
    unsigned count = 0;

    do
        digits[count++] = (char)('0' + rest % 10);
    while ((rest /= 10) != 0);
    if (value < 0)
        *to++ = '-';
    while (count > 0)
        *to++ = digits[--count];
    *to = '\0';
    return to;
}

static void put_number(struct text *text, long long value)
{
    char digits[24];

    number_text(digits, value);
    put(text, digits);
}

static void format_into(struct text *text, const char *format, va_list args)
{
    text->length = 0;
    while (*format != '\0') {
        if (strncmp(format, "%lld", 4) == 0) {
            put_number(text, va_arg(args, long long));
            format += 4;
        } else if (strncmp(format, "%d", 2) == 0) {
            put_number(text, va_arg(args, int));
            format += 2;
        } else if (strncmp(format, "%s", 2) == 0) {
            put(text, va_arg(args, const char *));
            format += 2;
        } else {
            put(text, (char[]){*format++, '\0'});
        }
    }
}

static void send_text(struct text *text, int fd)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof fd)];
    } control = {.header = {.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct iovec data = {text->bytes, text->length};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};

    if (fd >= 0) {
        memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
    }
    while (sendmsg(record_fd, &message, MSG_NOSIGNAL) < 0 && errno == EINTR)
        ;
}

void say(const char *format, ...)
{
    struct text text;
    va_list args;

    va_start(args, format);
    format_into(&text, format, args);
    va_end(args);
    send_text(&text, -1);
}

void say_with_fd(int fd, const char *format, ...)
{
    struct text text;
    va_list args;

    va_start(args, format);
    format_into(&text, format, args);
    va_end(args);
    send_text(&text, fd);
}

int64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}
