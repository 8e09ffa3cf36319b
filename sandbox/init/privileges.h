/* Capabilities. */
#ifndef PRIVILEGES_H
#define PRIVILEGES_H

#include <stdint.h>

/* Sets the three sets of the calling process. Returns 0 or an errno. */
int set_capabilities(uint64_t permitted, uint64_t effective, uint64_t inheritable);

/* All that a pid 1 needs when everything runs. */
void keep_only_kill(void);

#endif
