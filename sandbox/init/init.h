/* What the init and the workload's steps share: the fds that came with "go". */
#ifndef INIT_H
#define INIT_H

#include <stdbool.h>
#include <stdint.h>

enum { MOST_FDS = 64 };

struct handed {
    int fds[MOST_FDS];
    unsigned count;
};

extern struct handed handed;

static inline bool is_handed(int64_t index)
{
    return index >= 0 && index < handed.count;
}

#endif
