#include "ops.h"

#include <string.h>

#include "record.h"

const struct op OPS[] = {
    {"launcher", GUARD, "ii", step_launcher, false},
    {"claim", GUARD, "ss", step_claim, false},
    {"stop", GUARD, "ii", step_stop, false},
    {"deadline", GUARD, "i", step_deadline, false},
    {"watch", GUARD, "sssii", step_watch, false},
    {"oom_exempt", GUARD, "i", step_oom_exempt, false},
    {"reset_realtime", GUARD, "", step_reset_realtime, false},
    {"leave_chroot", GUARD, "", step_leave_chroot, false},
    {"no_core", GUARD, "", step_no_core, false},
    {"namespaces", GUARD, "i", step_namespaces, false},
    {"tell_namespaces", GUARD, "", step_tell_namespaces, false},
    {"clone3", GUARD, "i", step_clone3, false},
    {"tell_init", GUARD, "", step_tell_init, false},
    {"id_map", GUARD, "sss", step_id_map, false},
    {"new_id_map", GUARD, "ll", step_new_id_map, false},
    {"thaw", GUARD, "ssss", step_thaw, false},
    {"remove", GUARD, "s", step_remove, true},
    {"systemctl", GUARD, "lls", step_systemctl, true},
    {"unlink", GUARD, "s", step_unlink, true},

    {"give_streams", INIT, "i*", step_give_streams, false},
    {"hold", INIT, "", step_hold, false},
    {"setsid", INIT, "", step_setsid, false},
    {"ctty", INIT, "i", step_ctty, false},
    {"subreaper", INIT, "", step_subreaper, false},
    {"private", INIT, "", step_private, false},
    {"setns", INIT, "i", step_setns, false},
    {"join_ns", INIT, "si", step_join_ns, false},
    {"hostname", INIT, "s", step_hostname, false},
    {"lo_up", INIT, "", step_lo_up, false},
    {"sysctl", INIT, "ss", step_sysctl, false},
    {"tree", INIT, "isiii", step_tree, false},
    {"overlay", INIT, "isss", step_overlay, false},
    {"node", INIT, "iiiiiii", step_node, false},
    {"root", INIT, "i", step_root, false},
    {"discard", INIT, "s", step_discard, false},
    {"place", INIT, "is", step_place, false},
    {"mount", INIT, "ssis", step_mount, false},
    {"mkdir_in", INIT, "si", step_mkdir_in, false},
    {"mknod_in", INIT, "siiiii", step_mknod_in, false},
    {"symlink_in", INIT, "ss", step_symlink_in, false},
    {"mask", INIT, "s", step_mask, false},
    {"read_only", INIT, "s", step_read_only, false},
    {"attr", INIT, "si", step_attr, false},
    {"pivot", INIT, "", step_pivot, false},

    {"clone_into_cgroup", WORKLOAD, "i", step_clone_into_cgroup, false},
    {"join", WORKLOAD, "i", step_join, false},
    {"in_cgroup", WORKLOAD, "s", step_in_cgroup, false},
    {"unshare", WORKLOAD, "i", step_unshare, false},
    {"mount_cgroup", WORKLOAD, "sss", step_mount_cgroup, false},
    {"enter_userns", WORKLOAD, "", step_enter_userns, false},
    {"rlimit", WORKLOAD, "iii", step_rlimit, false},
    {"oom_score_adj", WORKLOAD, "iii", step_oom_score_adj, false},
    {"nice", WORKLOAD, "i", step_nice, false},
    {"ionice", WORKLOAD, "ii", step_ionice, false},
    {"setgroups", WORKLOAD, "i*", step_setgroups, false},
    {"setresgid", WORKLOAD, "i", step_setresgid, false},
    {"setresuid", WORKLOAD, "i", step_setresuid, false},
    {"securebits", WORKLOAD, "i", step_securebits, false},
    {"bounding", WORKLOAD, "i", step_bounding, false},
    {"capset", WORKLOAD, "iii", step_capset, false},
    {"ambient", WORKLOAD, "i", step_ambient, false},
    {"chdir", WORKLOAD, "s", step_chdir, false},
    {"setpgid", WORKLOAD, "", step_setpgid, false},
    {"foreground", WORKLOAD, "i", step_foreground, false},
    {"reset_signals", WORKLOAD, "", step_reset_signals, false},
    {"label", WORKLOAD, "ssi", step_label, false},
    {"no_new_privs", WORKLOAD, "", step_no_new_privs, false},
    {"landlock", WORKLOAD, "iil", step_landlock, false},
    {"seccomp", WORKLOAD, "bi", step_seccomp, false},
    {"close_fds", WORKLOAD, "i", step_close_fds, false},
    {"preserve_fds", WORKLOAD, "i*", step_preserve_fds, false},
    {"execve", WORKLOAD, "lll", step_execve, false},
};

const unsigned OPS_COUNT = sizeof OPS / sizeof OPS[0];

const struct op *op_named(const char *name)
{
    for (unsigned i = 0; i < OPS_COUNT; i++)
        if (strcmp(OPS[i].name, name) == 0)
            return &OPS[i];
    return NULL;
}

static const char *place(enum where where)
{
    return where == GUARD ? "guard" : where == INIT ? "init" : "workload";
}

bool carry_out(const struct plan *plan, enum where where)
{
    for (uint32_t i = 0; i < plan->count; i++) {
        const struct step *step = &plan->steps[i];

        if (step->op->where != where || step->op->last)
            continue;
        int error = step->op->carry_out(step);

        if (error == 0)
            continue;
        if (error != ALREADY_SAID)
            say("failed %d %d %s", step->number, error, place(where));
        return false;
    }
    return true;
}
