/* What the guard's parts share. */
#ifndef GUARD_H
#define GUARD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "wire.h"

#define NEVER INT64_MAX
#define MILLISECOND INT64_C(1000000)

/* The run that is guarded. */
struct run {
    const struct plan *plan;
    int init;     /* pidfd, -1 when there is none */
    pid_t init_pid;
    bool orphan;  /* the launcher is gone */
    bool oom_exempt; /* the OOM killer chooses the guard and the init last */
    bool foreign; /* the name belongs to another run, and so does all that is called by it */
};

extern struct run run;

/* Does the plan have a step of this op? */
bool plan_has(const char *op);

/* Does the plan have a time limit or a watch? Their time begins when the workload starts. */
bool is_timed(void);

/*
 * Moves frozen processes of the run out of their freezer cgroup. On cgroup v1, SIGKILL has no effect on a process while it
 * is frozen. With `tell`, the guard reports a process that stays frozen to the launcher: `frozen PID ERRNO PATH`.
 */
void thaw(bool tell);

/* Everything that is to be undone: carries out the steps of the cleanup. Returns whether nothing was left. */
bool clean_up(const struct plan *plan);

/* Opens what the watches read; their first look is one interval later. */
void watches_start(int64_t time);

/* When the next watch is due, NEVER if there is none. */
int64_t watches_due(void);

/* Looks at what is due. Returns the name of a watch whose limit is reached, else NULL. */
const char *watches_look(int64_t time);

/* The tree is dead: looks once more and sends a `sample` record for each. */
void watches_report(void);

#endif
