/* The descendants of this process. In a sandbox without its own pid namespace, a process belongs to the sandbox if it
 * descends from the init. */
#ifndef DESCENDANTS_H
#define DESCENDANTS_H

#include <sys/types.h>

/* The host's /proc, as long as it can be seen; -1 in a pid namespace, where none of this is needed. */
extern int descent;

/* Orphans among the descendants become our children from here on. Returns 0 or an errno. */
int descendants_adopt(void);

/*
 * Calls `visit` for each descendant, children before their parent, with its pid and an fd of its /proc/PID. `procfs` is
 * an fd of /proc. Processes that are forked during the walk, or are nested too deeply, are left out.
 */
void descendants_visit(int procfs, void (*visit)(pid_t pid, int process));

/* Kills the descendants that are there; what is forked meanwhile, or too deep down, becomes a child of ours. */
void descendants_kill(void);

/*
 * Kills and reaps descendants until there are none. Returns how many it reaped. `retry`, unless it is NULL, is called
 * each time no descendant has died for a second.
 */
int descendants_end(void (*retry)(void));

#endif
