/* Small files of /proc and of cgroup file systems. */
#ifndef FILES_H
#define FILES_H

#include <stddef.h>

/* Reads a text of at most size - 1 bytes; NUL ends it. It is empty if the file cannot be read. */
void read_text(int directory, const char *file, char *to, size_t size);

/* Writes the text in one write(2), as the kernel's files expect it. Returns 0 or an errno. */
int write_text(int directory, const char *file, const char *text);

#endif
