/* What the guard's parts share. */
#ifndef GUARD_H
#define GUARD_H

#include <stdbool.h>
#include <stdint.h>

#include "wire.h"

#define NEVER INT64_MAX
#define MILLISECOND INT64_C(1000000)

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
