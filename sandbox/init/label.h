/* Labels of security modules. */
#ifndef LABEL_H
#define LABEL_H

#include <sys/types.h>

#include "wire.h"

/* Sends `label NUMBER LABEL` for each label that the plan has for the workload: which one it got. */
void tell_labels(const struct plan *plan, pid_t workload);

#endif
