/* The plan: what wire.py writes, read back strictly. */
#ifndef WIRE_H
#define WIRE_H

#include <stddef.h>
#include <stdint.h>

enum where { GUARD = 'g', INIT = 'i', WORKLOAD = 'w' };

struct bytes {
    const uint8_t *data;
    size_t length;
};

union arg {
    int64_t number;
    const char *text;
    const struct bytes *bytes;
    char **list; /* ends with NULL, as execve(2) wants it */
};

struct op;

struct step {
    const struct op *op;
    const union arg *args;
    uint16_t number; /* in the whole plan, from 1, as `sandbox explain` prints it */
    uint8_t count;   /* of args */
};

struct plan {
    const struct step *steps;
    uint32_t count;
};

/*
 * Room that plan_parse() needs for a plan of `length` bytes. The densest thing on the wire is an empty list: 5 bytes
 * become one arg and one NULL, 16 bytes; a step without arguments is 9 bytes and becomes 24. (Bytes are denser still,
 * 5 that become 24, but their only op has them once, and a name that makes up for it.)
 */
#define PLAN_ROOM(length) (4 * (length))

/*
 * Reads `bytes` into `plan`; strings stay where they are, the rest is laid out in `room`, which must be aligned and
 * hold PLAN_ROOM(length) bytes. Returns 0, or EINVAL for anything that wire.py would not have written.
 */
int plan_parse(const uint8_t *bytes, size_t length, void *room, struct plan *plan);

#endif
