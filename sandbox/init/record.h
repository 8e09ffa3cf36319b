/* Records: what the guard, the init and the workload tell the launcher, one packet each. */
#ifndef RECORD_H
#define RECORD_H

#include <stdint.h>

/* The fds that the launcher has put in place. */
enum { PLAN_FD = 3, CONTROL = 4, GO = 5, GO_OTHER_END = 6, FIRST_OTHER = 7 };

/* The socket that records are sent to: CONTROL, until the workload needs that fd for another file. */
extern int record_fd;

/* Sends a record; of printf(3) it knows %d, %lld and %s. A launcher that is gone is no error here. */
__attribute__((format(printf, 1, 2))) void say(const char *format, ...);

/* The same, with an fd attached. */
__attribute__((format(printf, 2, 3))) void say_with_fd(int fd, const char *format, ...);

/* Writes `value` as decimal digits and a NUL; 21 bytes are enough. Returns where the NUL is. */
char *number_text(char *to, long long value);

/* CLOCK_MONOTONIC in nanoseconds. */
int64_t now(void);

#endif
