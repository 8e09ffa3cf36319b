/* The init's steps that build the file system. What is mounted is got ready first, while it is nowhere yet, and then
 * put in its place: nothing is ever seen half done. */
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

#include "inside.h"
#include "kernel.h"
#include "mounts.h"
#include "namespaces.h"
#include "ops.h"
#include "process.h"
#include "record.h"

enum { SLOTS = 64 };

/* Trees that wait for their place. 0 is none: it is the workload's stdin. */
static int slots[SLOTS];

static int *slot_of(const struct step *step)
{
    int64_t index = step->args[0].number;

    return index >= 0 && index < SLOTS ? &slots[index] : NULL;
}

static int keep(const struct step *step, int tree)
{
    int *slot = slot_of(step);

    if (slot == NULL || *slot != 0) {
        close(tree);
        return EBADF;
    }
    *slot = tree;
    return 0;
}

int step_private(const struct step *step)
{
    const struct mount_attr attr = {.propagation = MS_PRIVATE};

    (void)step;
    return outcome(sys_mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, &attr));
}

/* Ids are mapped on the top mount only: those below may be of file systems that cannot. */
static int change(int tree, uint64_t attributes, bool recursive, bool id_mapped)
{
    struct mount_attr attr = {.attr_set = attributes};
    struct mount_attr ids = {.attr_set = MOUNT_ATTR_IDMAP | (recursive ? 0 : attributes)};

    if (id_mapped) {
        if (holder.userns < 0)
            return EBADF;
        ids.userns_fd = (uint64_t)holder.userns;
        if (sys_mount_setattr(tree, "", AT_EMPTY_PATH, &ids) != 0)
            return errno;
    }
    if (attributes == 0 || (id_mapped && !recursive))
        return 0;
    return outcome(sys_mount_setattr(tree, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), &attr));
}

int step_tree(const struct step *step)
{
    const union arg *args = step->args;
    bool recursive = args[3].number != 0;
    int tree = sys_open_tree(AT_FDCWD, args[1].text,
                             OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (recursive ? AT_RECURSIVE : 0));

    if (tree < 0)
        return errno;
    int error = change(tree, (uint64_t)args[2].number, recursive, args[4].number != 0);

    if (error != 0) {
        close(tree);
        return error;
    }
    return keep(step, tree);
}

/* On top of /, where only we know it: what begins at / goes on leading to the host's files until `pivot`. */
int step_root(const struct step *step)
{
    int *slot = slot_of(step);

    if (slot == NULL || *slot == 0 || inside_root >= 0)
        return EBADF;
    if (sys_move_mount(*slot, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) != 0)
        return errno;
    inside_root = *slot;
    *slot = 0;
    return 0;
}

/* Moves the host's mount at this path to the old root, with which pivot_root takes it away. Covered by a new mount it
 * would stay in /proc/self/mountinfo, where programs look for cgroup trees. */
int step_discard(const struct step *step)
{
    const char *path = step->args[0].text;
    int mount = inside_open(path);

    if (mount < 0)
        return errno;
    int error = sys_move_mount(mount, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) != 0 ? errno : 0;

    close(mount);
    return error;
}

int step_pivot(const struct step *step)
{
    (void)step;
    if (inside_root < 0)
        return EBADF;
    /* The old root ends up on top of the new one, and is taken off. */
    if (fchdir(inside_root) != 0 || syscall(SYS_pivot_root, ".", ".") != 0 ||
        syscall(SYS_umount2, ".", (long)MNT_DETACH) != 0 || chdir("/") != 0)
        return errno;
    close(inside_root);
    inside_root = -1;
    return 0;
}

/* As mknod(2) takes it; the C library's makedev is another function to carry along. */
static long device_number(unsigned major, unsigned minor)
{
    return (long)((minor & 0xff) | major << 8 | (minor & ~0xffU) << 12);
}

/* What: mode, major, minor, owner, group. */
static int make_node(int directory, const char *name, const union arg *what)
{
    mode_t mask = umask(0);
    int error = outcome((int)syscall(SYS_mknodat, (long)directory, name, (long)what[0].number,
                                     device_number((unsigned)what[1].number, (unsigned)what[2].number)));

    umask(mask);
    return error != 0 ? error : outcome(fchownat(directory, name, (uid_t)what[3].number, (gid_t)what[4].number,
                                                 AT_SYMLINK_NOFOLLOW));
}

int step_mknod_in(const struct step *step)
{
    const char *name;
    int directory = inside_parent(step->args[0].text, &name);

    if (directory < 0)
        return errno;
    int error = make_node(directory, name, &step->args[1]);

    close(directory);
    return error;
}

/* Only what is attached can be copied: the file system with the node lies on /dev for a moment, then the copy is all
 * that is left of it. */
int step_node(const struct step *step)
{
    int tree = -1, target = inside_open("/dev");
    int mount = target < 0 ? -1 : new_mount("tmpfs", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, "mode=700,nr_inodes=2");
    int error = mount < 0 ? errno : attach(mount, target);

    if (error == 0) {
        error = make_node(mount, "node", &step->args[2]);
        if (error == 0)
            error = outcome(tree = sys_open_tree(mount, "node", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
        if ((fchdir(mount) != 0 || syscall(SYS_umount2, ".", (long)MNT_DETACH) != 0 || chdir("/") != 0) && error == 0)
            error = errno;
    }
    if (mount >= 0)
        close(mount);
    if (target >= 0)
        close(target);
    if (error == 0)
        error = change(tree, (uint64_t)step->args[1].number, false, false);
    if (error == 0)
        return keep(step, tree);
    if (tree >= 0)
        close(tree);
    return error;
}

int step_place(const struct step *step)
{
    int *slot = slot_of(step);

    if (slot == NULL || *slot == 0)
        return EBADF;
    int tree = *slot;

    *slot = 0;
    return inside_attach(tree, step->args[1].text);
}

/* "size=1m,mode=1777,noswap" */
static int configure(int context, const char *options)
{
    char room[PATH_MAX], *option = room;
    size_t length = strlen(options);

    if (length >= sizeof room)
        return E2BIG;
    memcpy(room, options, length + 1);
    while (option != NULL && *option != '\0') {
        char *next = strchr(option, ',');

        if (next != NULL)
            *next++ = '\0';
        char *value = strchr(option, '=');

        if (value != NULL)
            *value++ = '\0';
        if (sys_fsconfig(context, value == NULL ? FSCONFIG_SET_FLAG : FSCONFIG_SET_STRING, option, value) != 0)
            return errno;
        option = next;
    }
    return outcome(sys_fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL));
}

int new_mount(const char *type, unsigned attributes, const char *options)
{
    int context = sys_fsopen(type);

    if (context < 0)
        return -1;
    int error = configure(context, options);
    int mount = error == 0 ? sys_fsmount(context, attributes) : -1;

    if (error == 0)
        error = outcome(mount);
    close(context);
    errno = error;
    return mount;
}

int step_mount(const struct step *step)
{
    const union arg *args = step->args;
    int mount = new_mount(args[0].text, (unsigned)args[2].number, args[3].text);

    return mount < 0 ? errno : inside_attach(mount, args[1].text);
}

/* Mounts a cgroup tree read-only; in the workload's cgroup namespace, its root is the workload's own cgroup. If the
 * kernel refuses the mount, or the directory for it is missing, the command starts without it. */
int step_mount_cgroup(const struct step *step)
{
    const union arg *args = step->args;
    int target = inside_open(args[0].text);
    int mount = target < 0 ? -1 : new_mount(args[1].text, SHUT, args[2].text);
    int error = mount < 0 ? errno : attach(mount, target);

    if (mount >= 0)
        close(mount);
    if (target >= 0)
        close(target);
    return error == EPERM || error == EBUSY || error == ENOENT ? 0 : error;
}

int step_attr(const struct step *step)
{
    const struct mount_attr attr = {.attr_set = (uint64_t)step->args[1].number};
    int target = inside_open(step->args[0].text);

    if (target < 0)
        return errno;
    int error = outcome(sys_mount_setattr(target, "", AT_EMPTY_PATH, &attr));

    close(target);
    return error;
}

/* What is made belongs to the root of the inside, if that is another than ours. */
int step_mkdir_in(const struct step *step)
{
    const char *path = step->args[0].text, *name;
    int error = inside_make(path, S_IFDIR | ((mode_t)step->args[1].number & 07777));

    if (error != 0 || holder.userns < 0)
        return error == EEXIST ? 0 : error;
    int directory = inside_parent(path, &name);

    if (directory < 0)
        return errno;
    error = outcome(fchownat(directory, name, holder.uid, holder.gid, AT_SYMLINK_NOFOLLOW));
    close(directory);
    return error;
}

int step_symlink_in(const struct step *step)
{
    const char *name;
    int directory = inside_parent(step->args[1].text, &name);

    if (directory < 0)
        return errno;
    int error = outcome(symlinkat(step->args[0].text, directory, name));

    close(directory);
    return error;
}

/* By way of an fd, whose path is short and has neither colons nor commas: fsconfig(2) takes 255 bytes. */
static int set_directory(int context, const char *key, const char *path)
{
    char number[32] = "/proc/self/fd/";
    int directory = openat(AT_FDCWD, path, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (directory < 0)
        return errno;
    number_text(number + strlen(number), directory);
    int error = outcome(sys_fsconfig(context, FSCONFIG_SET_STRING, key, number));

    close(directory);
    return error;
}

static int configure_overlay(int context, const union arg *args)
{
    static const char *const KEYS[] = {"lowerdir", "upperdir", "workdir"};
    int error = 0;

    for (unsigned i = 0; error == 0 && i < 3; i++)
        error = set_directory(context, KEYS[i], args[i].text);
    if (error == 0 && in_own_user_namespace)
        error = outcome(sys_fsconfig(context, FSCONFIG_SET_FLAG, "userxattr", NULL));
    return error != 0 ? error : outcome(sys_fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL));
}

int step_overlay(const struct step *step)
{
    int context = sys_fsopen("overlay");

    if (context < 0)
        return errno;
    /* Overlayfs creates files as the user who has mounted it, and an id-mapped layer only takes an id of its map. */
    int error = act_as(holder.uid, holder.gid);

    if (error == 0)
        error = configure_overlay(context, step->args + 1);
    if (act_as(0, 0) != 0 && error == 0)
        error = errno;
    int tree = error == 0 ? sys_fsmount(context, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV) : -1;

    if (error == 0)
        error = outcome(tree);
    close(context);
    return error != 0 ? error : keep(step, tree);
}
