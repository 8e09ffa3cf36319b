/* The ops: every step that sandbox-init knows. What it learns next is one more row in ops.c. */
#ifndef OPS_H
#define OPS_H

#include <stdbool.h>

#include "wire.h"

/* What a step returns when it has sent a record about its failure itself. */
#define ALREADY_SAID (-1)

struct op {
    const char *name;
    enum where where;
    const char *signature;             /* i number, s text, l list, b bytes; i* any number of numbers */
    int (*carry_out)(const struct step *); /* 0, an errno, or ALREADY_SAID */
    bool last;                         /* part of the guard's cleanup, not of its way to the init */
};

extern const struct op OPS[];
extern const unsigned OPS_COUNT;

const struct op *op_named(const char *name);

/*
 * Carries out the steps of `where` in order, those of the cleanup or the others. Stops at the first that fails and
 * sends `failed NUMBER ERRNO WHERE` about it. Returns whether all went well.
 */
bool carry_out(const struct plan *plan, enum where where);

int step_launcher(const struct step *), step_claim(const struct step *), step_stop(const struct step *);
int step_deadline(const struct step *), step_watch(const struct step *), step_clone3(const struct step *);
int step_id_map(const struct step *), step_remove(const struct step *), step_unlink(const struct step *);
int step_oom_exempt(const struct step *), step_reset_realtime(const struct step *),
    step_no_core(const struct step *);
int step_systemctl(const struct step *), step_thaw(const struct step *), step_tell_init(const struct step *), step_namespaces(const struct step *);
int step_leave_chroot(const struct step *);
int step_tell_namespaces(const struct step *), step_new_id_map(const struct step *);

int step_give_streams(const struct step *);
int step_setsid(const struct step *), step_ctty(const struct step *);
int step_hold(const struct step *), step_subreaper(const struct step *), step_private(const struct step *);
int step_setns(const struct step *), step_join_ns(const struct step *), step_hostname(const struct step *);
int step_lo_up(const struct step *), step_sysctl(const struct step *);
int step_tree(const struct step *), step_overlay(const struct step *);
int step_node(const struct step *), step_mknod_in(const struct step *);
int step_root(const struct step *), step_discard(const struct step *);
int step_place(const struct step *), step_mount(const struct step *);
int step_mkdir_in(const struct step *), step_symlink_in(const struct step *), step_mask(const struct step *);
int step_read_only(const struct step *), step_attr(const struct step *), step_pivot(const struct step *);

int step_clone_into_cgroup(const struct step *), step_in_cgroup(const struct step *);
int step_unshare(const struct step *), step_mount_cgroup(const struct step *), step_enter_userns(const struct step *);
int step_securebits(const struct step *), step_bounding(const struct step *), step_capset(const struct step *);
int step_ambient(const struct step *), step_label(const struct step *), step_no_new_privs(const struct step *);
int step_landlock(const struct step *), step_seccomp(const struct step *);
int step_join(const struct step *), step_rlimit(const struct step *), step_setgroups(const struct step *);
int step_setresgid(const struct step *), step_setresuid(const struct step *), step_chdir(const struct step *);
int step_oom_score_adj(const struct step *), step_nice(const struct step *), step_ionice(const struct step *);
int step_setpgid(const struct step *), step_foreground(const struct step *), step_reset_signals(const struct step *);
int step_close_fds(const struct step *), step_preserve_fds(const struct step *), step_execve(const struct step *);

#endif
