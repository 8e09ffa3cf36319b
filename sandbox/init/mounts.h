/* A new mount. */
#ifndef MOUNTS_H
#define MOUNTS_H

/* Mounts a file system of this type, nowhere yet; options as for mount(8). Returns its fd, or -1 with errno. */
int new_mount(const char *type, unsigned attributes, const char *options);

#endif
