/* The workload's last steps but one: what it may do is taken from it, for good. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ops.h"
#include "privileges.h"
#include "process.h"
#include "record.h"

enum { CAPABILITIES = 64 };

/* <linux/landlock.h> of Linux 7.1, <linux/seccomp.h> of 5.19: those that we are built with may be older. */
enum { LANDLOCK_CREATE_RULESET = 444, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF }; /* the same on every architecture */
enum { RULE_PATH_BENEATH = 1, ACCESS_FS_REFER = 1 << 13 };

struct ruleset {
    uint64_t handled_access_fs, handled_access_net, scoped;
};

struct path_beneath {
    uint64_t allowed_access;
    int32_t parent_fd;
} __attribute__((packed));

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV 32UL
#endif

int set_capabilities(uint64_t permitted, uint64_t effective, uint64_t inheritable)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[] = {
        {(uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable},
        {(uint32_t)(effective >> 32), (uint32_t)(permitted >> 32), (uint32_t)(inheritable >> 32)},
    };

    return outcome(syscall(SYS_capset, &header, data));
}

int step_capset(const struct step *step)
{
    const union arg *args = step->args;

    return set_capabilities((uint64_t)args[0].number, (uint64_t)args[1].number, (uint64_t)args[2].number);
}

int step_securebits(const struct step *step)
{
    return outcome(prctl(PR_SET_SECUREBITS, (unsigned long)step->args[0].number, 0L, 0L, 0L));
}

/* The kernel refuses the first number that is no capability. */
int step_bounding(const struct step *step)
{
    uint64_t kept = (uint64_t)step->args[0].number;

    for (unsigned number = 0; number < CAPABILITIES; number++)
        if ((kept >> number & 1) == 0 && prctl(PR_CAPBSET_DROP, (unsigned long)number, 0L, 0L, 0L) != 0)
            return errno == EINVAL && number > 0 ? 0 : errno;
    return 0;
}

int step_ambient(const struct step *step)
{
    uint64_t raised = (uint64_t)step->args[0].number;

    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0L, 0L, 0L) != 0)
        return errno;
    for (unsigned long number = 0; number < CAPABILITIES; number++)
        if ((raised >> number & 1) != 0 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number, 0L, 0L) != 0)
            return errno;
    return 0;
}

int step_no_new_privs(const struct step *step)
{
    (void)step;
    return outcome(prctl(PR_SET_NO_NEW_PRIVS, 1L, 0L, 0L, 0L));
}

/* What is not there for the workload needs no rule. */
static int allow_below(int ruleset, const char *path, uint64_t access)
{
    struct path_beneath rule = {access, openat(AT_FDCWD, path, O_PATH | O_CLOEXEC)};

    if (rule.parent_fd < 0)
        return errno == ENOENT || errno == EACCES ? 0 : errno;
    int error = outcome(syscall((long)LANDLOCK_ADD_RULE, (long)ruleset, (long)RULE_PATH_BENEATH, &rule, 0L));

    close(rule.parent_fd);
    return error;
}

/*
 * Without any right of files the ruleset forbids neither mounts nor renames. With one, it forbids renames from one
 * directory to another unless a rule allows them; a second ruleset could not, for the first would forbid them then.
 */
int step_landlock(const struct step *step)
{
    uint64_t rights = (uint64_t)step->args[1].number;
    const struct ruleset wanted = {
        .handled_access_fs = rights == 0 ? 0 : rights | ACCESS_FS_REFER,
        .scoped = (uint64_t)step->args[0].number,
    };
    int ruleset = (int)syscall((long)LANDLOCK_CREATE_RULESET, &wanted, sizeof wanted, 0L);

    if (ruleset < 0)
        return errno;
    int error = rights == 0 ? 0 : allow_below(ruleset, "/", ACCESS_FS_REFER);

    for (char **shown = step->args[2].list; error == 0 && *shown != NULL; shown++)
        error = allow_below(ruleset, *shown, rights);
    if (error == 0)
        error = outcome(syscall((long)LANDLOCK_RESTRICT_SELF, (long)ruleset, 0L));
    close(ruleset);
    return error;
}

static long load_filter(unsigned long flags, const struct sock_fprog *filter)
{
    return syscall(SYS_seccomp, (long)SECCOMP_SET_MODE_FILTER, (long)flags, filter);
}

/* From here on a refused call of ours waits for the launcher too; sendmsg(2) must not be one of them. */
static int load_and_tell(unsigned long flags, const struct sock_fprog *filter)
{
    struct seccomp_notif_sizes sizes;

    if (syscall(SYS_seccomp, (long)SECCOMP_GET_NOTIF_SIZES, 0L, &sizes) != 0)
        return errno;
    /* With it, a signal that a handler is for does not interrupt a call that is being answered. */
    long listener = load_filter(flags | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, filter);

    if (listener < 0 && errno == EINVAL)
        listener = load_filter(flags, filter);
    if (listener < 0)
        return errno;
    say_with_fd((int)listener, "listener %d %d", sizes.seccomp_notif, sizes.seccomp_notif_resp);
    close((int)listener);
    return 0;
}

int step_seccomp(const struct step *step)
{
    const struct bytes *program = step->args[0].bytes;
    size_t count = program->length / sizeof(struct sock_filter);
    unsigned long flags = (unsigned long)step->args[1].number;

    if (program->length % sizeof(struct sock_filter) != 0 || count > UINT16_MAX)
        return EINVAL;
    struct sock_fprog filter = {(unsigned short)count, (struct sock_filter *)(uintptr_t)program->data};

    if ((flags & SECCOMP_FILTER_FLAG_NEW_LISTENER) != 0)
        return load_and_tell(flags, &filter);
    long result = load_filter(flags, &filter);

    return result > 0 ? EINVAL : outcome(result); /* a thread that could not be brought along */
}

void keep_only_kill(void)
{
    const uint64_t KILL = UINT64_C(1) << CAP_KILL;

    if (set_capabilities(KILL, KILL, 0) != 0)
        set_capabilities(0, 0, 0); /* it has not even that one */
}
