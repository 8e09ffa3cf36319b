/* The system calls of mounts and privileges, raw: glibc has some of them from 2.36 on, in a header that clashes with
 * the kernel's own, and others not at all. */
#ifndef KERNEL_H
#define KERNEL_H

#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MNT_DETACH
#define MNT_DETACH 2 /* umount2(2): also if it is busy; only the clashing header has it */
#endif

static inline int sys_openat2(int directory, const char *path, const struct open_how *how)
{
    return (int)syscall(SYS_openat2, (long)directory, path, how, sizeof *how);
}

static inline int sys_open_tree(int directory, const char *path, unsigned flags)
{
    return (int)syscall(SYS_open_tree, (long)directory, path, (long)flags);
}

static inline int sys_move_mount(int from, const char *source, int to, const char *target, unsigned flags)
{
    return (int)syscall(SYS_move_mount, (long)from, source, (long)to, target, (long)flags);
}

static inline int sys_mount_setattr(int directory, const char *path, unsigned flags, const struct mount_attr *attr)
{
    return (int)syscall(SYS_mount_setattr, (long)directory, path, (long)flags, attr, sizeof *attr);
}

static inline int sys_fsopen(const char *type)
{
    return (int)syscall(SYS_fsopen, type, (long)FSOPEN_CLOEXEC);
}

static inline int sys_fsconfig(int context, unsigned command, const char *key, const char *value)
{
    return (int)syscall(SYS_fsconfig, (long)context, (long)command, key, value, 0L);
}

static inline int sys_fsmount(int context, unsigned attributes)
{
    return (int)syscall(SYS_fsmount, (long)context, (long)FSMOUNT_CLOEXEC, (long)attributes);
}

#endif
