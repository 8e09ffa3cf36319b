#include "inside.h"

#include <errno.h>
#include <limits.h>
#include <linux/securebits.h>
#include <signal.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "kernel.h"
#include "namespaces.h"
#include "process.h"

enum {
    OFTEN = 100, /* a rename elsewhere may disturb a lookup; it is repeated so many times */
    LINKS = 40,  /* the most symbolic links that the kernel follows in one path (path_resolution(7)) */
};

int inside_root = -1;

/* Is it one of the places that a rootfs must not send elsewhere? */
static bool is_fixed(const char *path)
{
    static const char *const PLACES[] = {"/proc", "/sys", "/dev"};

    for (unsigned i = 0; i < sizeof PLACES / sizeof PLACES[0]; i++) {
        size_t length = strlen(PLACES[i]);

        if (strncmp(path, PLACES[i], length) == 0 && (path[length] == '/' || path[length] == '\0'))
            return true;
    }
    return false;
}

static int open_in(const char *path, uint64_t flags)
{
    const struct open_how how = {
        .flags = O_PATH | O_CLOEXEC | flags,
        .resolve = (is_fixed(path) ? RESOLVE_NO_SYMLINKS : RESOLVE_NO_MAGICLINKS) |
                   (inside_root < 0 ? 0 : RESOLVE_IN_ROOT),
    };
    int fd = -1;

    for (int i = 0; i < OFTEN && fd < 0 && (i == 0 || errno == EAGAIN); i++)
        fd = sys_openat2(inside_root < 0 ? AT_FDCWD : inside_root, path, &how);
    return fd;
}

int inside_open(const char *path)
{
    return open_in(path, 0);
}

static bool is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

int inside_parent(const char *path, const char **name)
{
    char directory[PATH_MAX];
    const char *next, *last = path;

    while ((next = strchr(last, '/')) != NULL)
        last = next + 1;
    size_t length = (size_t)(last - path);

    if (length == 0 || length >= sizeof directory || *last == '\0' || is_dots(last)) {
        errno = length < sizeof directory ? EINVAL : ENAMETOOLONG;
        return -1;
    }
    memcpy(directory, path, length);
    directory[length] = '\0';
    if (length > 1)
        directory[length - 1] = '\0';
    *name = last;
    return open_in(directory, O_DIRECTORY);
}

static int make_at(int directory, const char *name, mode_t mode)
{
    mode_t mask = umask(0);
    int made = S_ISDIR(mode) ? mkdirat(directory, name, mode & 07777)
                             : openat(directory, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, mode & 07777);
    int error = made < 0 ? errno : 0;

    if (made > 0)
        close(made);
    umask(mask);
    return error;
}

int act_as(uid_t uid, gid_t gid)
{
    if (holder.userns < 0)
        return 0;
    int bits = prctl(PR_GET_SECUREBITS);

    if (bits < 0 || prctl(PR_SET_SECUREBITS, bits | SECBIT_NO_SETUID_FIXUP) != 0)
        return errno;
    setfsgid(gid);
    setfsuid(uid);
    return prctl(PR_SET_SECUREBITS, bits) != 0 ? errno : 0;
}

/* In an id-mapped mount, only an id of its map can create files, and ours is not one: a child creates them with such an
 * id. The child keeps its capabilities, since the directory may belong to any user. */
static int make_as_inner_root(int directory, const char *name, mode_t mode)
{
    int pidfd = -1, status = 0;

    if (holder.line < 0)
        holder_dismiss(); /* it may be about to go, and there may be room for one more task only */
    pid_t pid = clone_process(0, -1, &pidfd);

    if (pid == 0) {
        int error = act_as(holder.uid, holder.gid);

        _exit(error != 0 ? error : make_at(directory, name, mode));
    }
    if (pid < 0)
        return errno;
    close(pidfd);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
}

int inside_make(const char *path, mode_t mode)
{
    const char *name;
    int directory = inside_parent(path, &name);

    if (directory < 0)
        return errno;
    int error = make_at(directory, name, mode);

    if (error == EOVERFLOW && holder.userns >= 0)
        error = make_as_inner_root(directory, name, mode);
    close(directory);
    return error;
}

/* From the top down. What is there already need not be a directory: making the next one tells. */
static int make_above(const char *path)
{
    char above[PATH_MAX];
    size_t length = strlen(path);

    if (length == 0 || length >= sizeof above)
        return ENAMETOOLONG;
    memcpy(above, path, length + 1);
    for (char *slash = strchr(above + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        int error = inside_make(above, S_IFDIR | 0755);

        if (error != 0 && error != EEXIST)
            return error;
        *slash = '/';
    }
    return 0;
}

int inside_make_all(const char *path, mode_t mode)
{
    int error = inside_make(path, mode);

    if (error == ENOENT && (error = make_above(path)) == 0)
        error = inside_make(path, mode);
    return error;
}

int attach(int mount, int target)
{
    const unsigned BOTH = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;

    return sys_move_mount(mount, "", target, "", BOTH) < 0 ? errno : 0;
}

/* Replaces a path that ends in a symbolic link by the path that the link names. Returns 0 or an errno. */
static int follow(char path[PATH_MAX])
{
    char link[PATH_MAX];
    const char *name;
    int directory = inside_parent(path, &name);

    if (directory < 0)
        return errno;
    ssize_t length = readlinkat(directory, name, link, sizeof link - 1);
    int error = length < 0 ? errno : 0;

    close(directory);
    if (error != 0)
        return error;
    size_t base = link[0] == '/' ? 0 : (size_t)(name - path);

    if (base + (size_t)length >= PATH_MAX)
        return ENAMETOOLONG;
    memcpy(path + base, link, (size_t)length);
    path[base + (size_t)length] = '\0';
    return 0;
}

/* Makes the mount point `wanted` for `mount`. If it is a symbolic link to a file that is missing, makes that file. */
static int make_target(int mount, const char *wanted)
{
    char path[PATH_MAX];
    struct stat status;
    size_t length = strlen(wanted);

    if (length >= sizeof path)
        return ENAMETOOLONG;
    if (fstat(mount, &status) != 0)
        return errno;
    memcpy(path, wanted, length + 1);
    mode_t mode = S_ISDIR(status.st_mode) ? S_IFDIR | 0755 : S_IFREG | 0644;
    int error = inside_make_all(path, mode);

    for (int i = 0; i < LINKS && error == EEXIST && (error = follow(path)) == 0; i++)
        error = inside_make_all(path, mode);
    return error;
}

int inside_attach(int mount, const char *path)
{
    int error = 0, target = inside_open(path);

    if (target < 0 && errno == ENOENT) {
        error = make_target(mount, path);
        target = error == 0 ? inside_open(path) : -1;
    }
    if (error == 0)
        error = target < 0 ? errno : attach(mount, target);
    if (target >= 0)
        close(target);
    close(mount);
    return error;
}
