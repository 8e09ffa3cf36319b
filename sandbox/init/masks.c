/* What is hidden of the kernel's files, and what may only be read. What is not there need not be hidden. */
#include <errno.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "inside.h"
#include "kernel.h"
#include "mounts.h"
#include "ops.h"

/* What the first mask of its kind was made of; the others are copies of it. -1 before. */
static int empty_directory = -1, empty_file = -1;

static int shut(int tree, uint64_t attributes)
{
    const struct mount_attr attr = {.attr_set = attributes};

    return sys_mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr) < 0 ? errno : 0;
}

static int new_empty(bool directory)
{
    if (directory)
        return new_mount("tmpfs", SHUT, "mode=0555,nr_blocks=1,nr_inodes=1");
    int null = inside_open("/dev/null"); /* the host, a chroot perhaps, may have none */

    if (null < 0)
        return -1;
    int tree = sys_open_tree(null, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);

    close(null);
    if (tree >= 0 && (errno = shut(tree, SHUT & ~(uint64_t)MOUNT_ATTR_NODEV)) != 0) {
        int error = errno;

        close(tree);
        errno = error;
        return -1;
    }
    return tree;
}

/* Only what is attached can be copied: that is why the first is made, and no other. */
static int cover(int target, bool directory)
{
    int *first = directory ? &empty_directory : &empty_file;

    if (*first < 0) {
        *first = new_empty(directory);
        return *first < 0 ? errno : attach(*first, target);
    }
    int copy = sys_open_tree(*first, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);

    if (copy < 0)
        return errno;
    int error = attach(copy, target);

    close(copy);
    return error;
}

int step_mask(const struct step *step)
{
    struct stat status;
    int target = inside_open(step->args[0].text);

    if (target < 0)
        return errno == ENOENT ? 0 : errno;
    int error = fstat(target, &status) != 0 ? errno : cover(target, S_ISDIR(status.st_mode));

    close(target);
    return error;
}

int step_read_only(const struct step *step)
{
    int target = inside_open(step->args[0].text);

    if (target < 0)
        return errno == ENOENT ? 0 : errno;
    int copy = sys_open_tree(target, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE);
    int error = copy < 0 ? errno : shut(copy, SHUT);

    if (error == 0)
        error = attach(copy, target);
    if (copy >= 0)
        close(copy);
    close(target);
    return error;
}
