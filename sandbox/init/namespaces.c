#include "namespaces.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/if.h>
#include <linux/sched.h>
#include <linux/sockios.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "files.h"
#include "init.h"
#include "kernel.h"
#include "ops.h"
#include "process.h"
#include "record.h"

enum {
    HELD = CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWTIME,
};

static const uint64_t SLOW = CLONE_NEWNET; /* a third of a millisecond: others go on meanwhile */

struct holder holder = {-1, -1, -1, -1, -1, (uid_t)-1, (gid_t)-1};
bool in_own_user_namespace;

/* --- the guard's */

/* Moves to the root of the mount namespace, and puts the tree there in place of what it has. */
static int make_root(int tree)
{
    const struct mount_attr attr = {.propagation = MS_PRIVATE};
    int self = pidfd_of(getpid());

    if (self < 0)
        return errno;
    int error = outcome(setns(self, CLONE_NEWNS));

    close(self);
    if (error != 0)
        return error;
    if (sys_mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, &attr) != 0 ||
        sys_mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr) != 0 ||
        sys_move_mount(tree, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) != 0 || fchdir(tree) != 0 ||
        syscall(SYS_pivot_root, ".", ".") != 0 || syscall(SYS_umount2, ".", (long)MNT_DETACH) != 0)
        return errno;
    return outcome(chdir("/"));
}

/*
 * In a chroot(2) the kernel makes no user namespace (EPERM in user_namespaces(7)). A process that joins a mount namespace
 * has the namespace's own root as its root (setns(2)), so the guard joins its own, and makes the chroot's directory the
 * root there.
 */
int step_leave_chroot(const struct step *step)
{
    (void)step;
    if (unshare(CLONE_NEWNS) != 0)
        return errno;
    int tree = sys_open_tree(AT_FDCWD, "/", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);

    if (tree < 0)
        return errno;
    int error = make_root(tree);

    close(tree);
    return error;
}

/* It keeps nothing but the socket, and nobody in the namespaces may look into it: it is the host's root still. */
static _Noreturn void hold_namespaces(int line, uint64_t flags)
{
    char byte;

    prctl(PR_SET_DUMPABLE, 0);
    prctl(PR_SET_NAME, "sandbox-holder");
    if (syscall(SYS_dup3, line, 0, 0) < 0 || close_range(1, ~0U, 0) != 0)
        _exit(1);
    int error = flags == 0 ? 0 : outcome(unshare((int)flags));

    if (send(0, &error, sizeof error, MSG_NOSIGNAL) != sizeof error)
        _exit(1);
    while (recv(0, &byte, 1, 0) < 0 && errno == EINTR)
        ;
    _exit(0);
}

/* Waits until it has said how the making went. Returns 0 or an errno. */
static int wait_for_namespaces(int flags)
{
    int error = 0;
    ssize_t length;

    while ((length = recv(holder.line, &error, sizeof error, flags)) < 0 && errno == EINTR)
        ;
    return length < 0 ? errno : length == 0 ? ESRCH : error;
}

static int open_namespace_of(pid_t pid, const char *name)
{
    char path[48] = "/proc/", *end = number_text(path + strlen(path), pid);

    memcpy(end, "/ns/", 4);
    memcpy(end + 4, name, strlen(name) + 1);
    return openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
}

int step_namespaces(const struct step *step)
{
    uint64_t flags = (uint64_t)step->args[0].number;
    int ends[2];

    if ((flags & ~(uint64_t)HELD) != 0 || (flags & CLONE_NEWUSER) == 0 || holder.pid >= 0)
        return EINVAL;
    if (syscall(SYS_socketpair, (long)AF_UNIX, (long)(SOCK_SEQPACKET | SOCK_CLOEXEC), 0L, ends) != 0 ||
        (holder.reaped = eventfd(0, EFD_CLOEXEC)) < 0)
        return errno;
    holder.pid = clone_process(flags & ~SLOW, -1, &holder.pidfd);
    if (holder.pid == 0)
        hold_namespaces(ends[0], flags & SLOW);
    int error = holder.pid < 0 ? errno : 0;

    close(ends[0]);
    holder.line = ends[1];
    if (error != 0)
        return error;
    holder.userns = open_namespace_of(holder.pid, "user");
    return outcome(holder.userns);
}

int step_tell_namespaces(const struct step *step)
{
    (void)step;
    if (holder.pid < 0)
        return EINVAL;
    int error = wait_for_namespaces(MSG_PEEK);

    if (error != 0)
        return error;
    int network = open_namespace_of(holder.pid, "net");

    if (network < 0)
        return errno;
    say_with_fd(network, "namespaces %d", (int)holder.pid);
    close(network);
    return 0;
}

/* The lines of a map are INSIDE OUTSIDE COUNT; as it is for us, so it is for what is looked for: 0 begins a line. */
static uid_t outer_root(const char *map)
{
    while (map != NULL && strncmp(map, "0 ", 2) != 0) {
        map = strchr(map, '\n');
        map = map == NULL ? NULL : map + 1;
    }
    if (map == NULL)
        return (uid_t)-1;
    uid_t id = 0;

    for (map += 2; *map >= '0' && *map <= '9'; map++)
        id = id * 10 + (uid_t)(*map - '0');
    return id;
}

void holder_mapped(const char *uid_map, const char *gid_map)
{
    holder.uid = outer_root(uid_map);
    holder.gid = outer_root(gid_map);
}

static void shut(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void holder_leave(void)
{
    shut(&holder.line);
    shut(&holder.userns);
}

void holder_reap(bool force)
{
    static const uint64_t REAPED = 1;
    pid_t pid;

    if (holder.pidfd < 0)
        return;
    if (force)
        pidfd_signal(holder.pidfd, SIGKILL);
    while ((pid = waitpid(holder.pid, NULL, force ? 0 : WNOHANG)) < 0 && errno == EINTR)
        ;
    if (pid == 0)
        return;
    if (write(holder.reaped, &REAPED, sizeof REAPED) > 0)
        shut(&holder.reaped);
    shut(&holder.pidfd);
}

/* --- the init's */

void holder_dismiss(void)
{
    uint64_t value;

    shut(&holder.line);
    while (holder.reaped >= 0 && read(holder.reaped, &value, sizeof value) < 0 && errno == EINTR)
        ;
    shut(&holder.reaped);
    shut(&holder.pidfd);
}

/* It may end while we go on: there is nothing else that it is needed for. */
int step_setns(const struct step *step)
{
    int error = holder.pidfd < 0 || holder.line < 0 ? EBADF : wait_for_namespaces(0);

    if (error == 0)
        error = outcome(setns(holder.pidfd, (int)step->args[0].number));
    shut(&holder.line);
    return error;
}

int step_join_ns(const struct step *step)
{
    int namespace = openat(AT_FDCWD, step->args[0].text, O_RDONLY | O_CLOEXEC);

    if (namespace < 0)
        return errno;
    int error = outcome(setns(namespace, (int)step->args[1].number));

    close(namespace);
    return error;
}

int step_hostname(const struct step *step)
{
    return outcome(sethostname(step->args[0].text, strlen(step->args[0].text)));
}

/* Any socket will do, as long as it was made in here. */
int step_lo_up(const struct step *step)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    (void)step;
    if (fd < 0)
        return errno;
    int error = outcome(ioctl(fd, SIOCSIFFLAGS, &request));

    close(fd);
    return error;
}

/* Writes to the host's /proc, since the one inside is read-only. If that one is read-only too, as in a container, or a
 * security module forbids the write, the kernel's default stays. */
int step_sysctl(const struct step *step)
{
    int directory = openat(procfs_outside, "sys", O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (directory < 0)
        return errno == ENOENT ? 0 : errno;
    int error = write_text(directory, step->args[0].text, step->args[1].text);

    close(directory);
    return error == ENOENT || error == EROFS || error == EACCES || error == EPERM ? 0 : error;
}

/* --- the workload's */

int step_unshare(const struct step *step)
{
    return outcome(unshare((int)step->args[0].number));
}

int step_enter_userns(const struct step *step)
{
    (void)step;
    return holder.userns < 0 ? EBADF : outcome(setns(holder.userns, CLONE_NEWUSER));
}
