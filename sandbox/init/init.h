/* What the init and the workload's steps share: the fds that came with "go", and how the start went. */
#ifndef INIT_H
#define INIT_H

#include <stdbool.h>
#include <stdint.h>

enum { MOST_FDS = 128 };

struct handed {
    int fds[MOST_FDS];
    unsigned count;
};

extern struct handed handed;

/* The host's /proc, opened before the inside is built: the inside's /proc may be read-only. It is close-on-exec. */
extern int procfs_outside;

/* Memory that the child, which has its own otherwise, shares with the init. */
struct start {
    int64_t time; /* when the last execve was tried */
    bool failed;  /* it did not come to an execve that worked */
    bool changes_label; /* the execve takes on another label than the child was born with */
};

extern volatile struct start *start;

static inline bool is_handed(int64_t index)
{
    return index >= 0 && index < handed.count;
}

#endif
