#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

void read_text(int directory, const char *file, char *to, size_t size)
{
    size_t have = 0;
    ssize_t length = 0;
    int fd = openat(directory, file, O_RDONLY | O_CLOEXEC);

    while (fd >= 0 && have < size - 1 && (length = read(fd, to + have, size - 1 - have)) > 0)
        have += (size_t)length;
    to[have] = '\0';
    if (fd >= 0)
        close(fd);
}

int write_text(int directory, const char *file, const char *text)
{
    int fd = openat(directory, file, O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return errno;
    int error = write(fd, text, strlen(text)) < 0 ? errno : 0;

    close(fd);
    return error;
}
