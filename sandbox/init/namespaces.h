/* The holder: as root, a child of the guard in a user namespace of its own makes the namespaces that this one is to
 * own. When the init has joined them it is done: the user namespace is entered last, by an fd of it. */
#ifndef NAMESPACES_H
#define NAMESPACES_H

#include <stdbool.h>
#include <sys/types.h>

/* All of it is -1 when there is none. The fds are close-on-exec. */
struct holder {
    pid_t pid;
    int pidfd;
    int userns;
    int line;    /* a socket: it says when the namespaces are made, and dies when nobody has this open */
    int reaped;  /* eventfd: the guard has reaped it */
    uid_t uid;   /* what 0 in its user namespace is in ours */
    gid_t gid;
};

extern struct holder holder;

/* Was the init born in a user namespace of its own? */
extern bool in_own_user_namespace;

/* Takes note of what 0 is mapped to, in maps as they are written to uid_map and gid_map. */
void holder_mapped(const char *uid_map, const char *gid_map);

/* The guard's: from here on the init alone keeps it alive. */
void holder_leave(void);

/* The init's: has it end and waits until it counts no more as a task. */
void holder_dismiss(void);

/* The guard's: reaps the holder if it is dead; with `force` it will be. */
void holder_reap(bool force);

#endif
