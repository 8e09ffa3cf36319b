/* The inside while it is built: the tree that will be /, the paths in it, and what waits to be put there. */
#ifndef INSIDE_H
#define INSIDE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* The tree that has been attached by `root`, -1 as long as it is the process's own /. */
extern int inside_root;

/*
 * Opens a path in the inside, O_PATH. Whatever is in there, symbolic links included, it leads to something in there.
 * Below /proc, /sys and /dev no symbolic link is followed at all: ELOOP. Returns -1 with errno.
 */
int inside_open(const char *path);

/* Makes a directory or an empty file in the inside, with exactly these permissions. Returns 0 or an errno. */
int inside_make(const char *path, mode_t mode);

/* The same with the directories on the way to it, 0755, that are missing. */
int inside_make_all(const char *path, mode_t mode);

/* Changes the user and group that the kernel checks our file accesses by (setfsuid(2)), without a change of our
 * capabilities; does nothing if the init holds no user namespace for the workload. Returns 0 or an errno. */
int act_as(uid_t uid, gid_t gid);

/* The directory that a path is in, open, and the last component in *name. Returns -1 with errno. */
int inside_parent(const char *path, const char **name);

/*
 * Puts a mount that is nowhere yet onto a path, which is made if it is missing, and closes `mount`. Returns 0 or an
 * errno.
 */
int inside_attach(int mount, const char *path);

/* The same, onto what is open already; `mount` stays open. */
int attach(int mount, int target);

#endif
