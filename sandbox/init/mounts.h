/* A new mount. */
#ifndef MOUNTS_H
#define MOUNTS_H

#include "kernel.h"

/* Nothing in such a mount can be written to, be executed, or be a device. */
enum { SHUT = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC };

/* Mounts a file system of this type, nowhere yet; options as for mount(8). Returns its fd, or -1 with errno. */
int new_mount(const char *type, unsigned attributes, const char *options);

#endif
