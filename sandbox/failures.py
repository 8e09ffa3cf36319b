"""The error messages for steps that sandbox-init could not carry out.

A message names the option that the step is for, what failed, and the kernel's error. Its hint says what to do.
"""

from __future__ import annotations

import os
from errno import (
    E2BIG,
    EACCES,
    EAGAIN,
    EBUSY,
    EEXIST,
    EINVAL,
    ELOOP,
    EMFILE,
    ENODEV,
    ENOENT,
    ENOMEM,
    ENOSPC,
    ENOSYS,
    ENOTDIR,
    EPERM,
    EROFS,
    EUSERS,
    EXDEV,
)

from .errors import MountError, NamespaceError, StepError
from .launch import Record
from .spelling import spelled
from .steps import Plan, Step

MOUNTS = ("private", "tree", "overlay", "node", "root", "discard", "place", "mount", "mkdir_in", "mknod_in",
          "symlink_in", "mask", "read_only", "attr", "pivot", "mount_cgroup")
NAMESPACES = ("leave_chroot", "namespaces", "clone3", "id_map", "new_id_map", "setns", "join_ns", "unshare",
              "enter_userns")
WHAT = {
    "launcher": "cannot watch the launcher", "claim": "cannot make the state file {0}",
    "no_core": "cannot keep cores of the command from the host's program for them",
    "reset_realtime": "cannot leave the caller's real-time policy", "oom_exempt": "cannot set oom_score_adj to {0}",
    "stop": "cannot keep the stop signal {0}", "deadline": "cannot set the timer",
    "watch": "cannot read {1} again and again", "tell_init": "cannot tell the launcher of the init",
    "leave_chroot": "cannot leave the chroot for a mount namespace whose root it is",
    "tell_namespaces": "cannot tell the launcher of the namespaces", "namespaces": "cannot make the namespaces",
    "clone3": "cannot start a process in new namespaces", "id_map": "cannot map ids into the new user namespace",
    "new_id_map": "cannot map the lent ids into the new user namespace",
    "subreaper": "cannot become the parent of orphans", "hold": "cannot stay in the unit's cgroup",
    "give_streams": "cannot give the command its stdin, stdout and stderr",
    "private": "cannot keep mounts of the sandbox from showing outside", "setns": "cannot join the namespaces",
    "join_ns": "cannot join the namespace {0}", "hostname": "cannot set the host name {0}",
    "lo_up": "cannot switch on the device lo inside", "sysctl": "cannot set {0} to {1} inside",
    "tree": "cannot show {1} inside",
    "overlay": "cannot mount the overlay", "node": "cannot make a device node for the command",
    "root": "cannot make the new root directory", "discard": "cannot take away what the host has mounted at {0}",
    "place": "cannot put anything at {1} inside",
    "mount": "cannot mount {0} at {1} inside", "mkdir_in": "cannot make the directory {0} inside",
    "mknod_in": "cannot make the device node {0} inside", "symlink_in": "cannot make the link {1} inside",
    "mask": "cannot hide {0} inside", "read_only": "cannot make {0} read-only inside",
    "attr": "cannot set the attributes of the mount at {0} inside", "pivot": "cannot leave the host's root directory",
    "unshare": "cannot make the cgroup namespace", "mount_cgroup": "cannot show the cgroup at {0}",
    "clone_into_cgroup": "cannot start the command in its cgroup", "join": "cannot move the command into its cgroup",
    "in_cgroup": "cannot tell in which cgroup the command is", "enter_userns": "cannot enter the user namespace",
    "securebits": "cannot keep uid 0 from getting capabilities", "bounding": "cannot drop capabilities",
    "capset": "cannot set the capabilities", "ambient": "cannot keep the capabilities for the command",
    "no_new_privs": "cannot set no_new_privs", "landlock": "cannot restrict itself by Landlock",
    "seccomp": "cannot load the filter of system calls", "oom_score_adj": "cannot set oom_score_adj to {0}",
    "nice": "cannot set the nice value {0}", "ionice": "cannot set the I/O priority",
    "setgroups": "cannot set the supplementary groups", "setresgid": "cannot become the group {0}",
    "setresuid": "cannot become the user {0}", "chdir": "cannot enter the directory {0}",
    "setsid": "cannot start a session", "ctty": "cannot make stdin the controlling terminal",
    "setpgid": "cannot start a process group", "foreground": "cannot put the command in the foreground of its terminal",
    "reset_signals": "cannot reset the signals", "close_fds": "cannot close the other files",
    "preserve_fds": "cannot keep files open for the command",
    "remove": "cannot remove the cgroup {0}", "unlink": "cannot remove the state file {0}",
    "systemctl": "cannot stop the unit by systemctl", "thaw": "cannot keep the path of the freezer cgroup",
}
"""What failed, by op; the numbers in braces stand for the arguments of the step."""
NO_SETFCAP = ("root may map its own id only with CAP_SETFCAP (user_namespaces(7)): add that capability, in docker and "
              "podman `--cap-add SETFCAP`, or start it as another user")
HIDDEN = {
    "proc": "where something is mounted over a part of /proc, the kernel mounts no other proc: see findmnt -R /proc, "
            "or share the one that is there with {pid}",
    "sysfs": "where something is mounted over a part of /sys, the kernel mounts no other sysfs: see findmnt -R /sys, "
             "or share the one that is there with {network}",
}
"""Why a file system cannot be mounted in a new user namespace (mount_too_revealing() in fs/namespace.c)."""
OPTIONS = {"overlay": (True,), "pids_limit": (), "cpuset_cpus": (), "cpuset_mems": (), "seccomp_log": (), "cwd": (),
           "pid": ("host",), "network": ("host",), "security_opt": ("seccomp=FILE",), "ulimit": ("nofile=N",)}
"""Options that hints name in braces, with the values that are shown there."""
PROCESSES = "a limit of processes is reached: {pids_limit}, that of a cgroup above, or `ulimit -u`"
PLACES = {
    ELOOP: "a link is in the way of what is made anew inside, or leads out of it",
    EROFS: "the root is read-only and has no such place: choose one that is there, or one in /tmp, or add {overlay}",
    ENOENT: "the path, or a directory above it, does not exist; it may have been removed since the start",
    EEXIST: "a file or a link is at that place: choose another one",
    ENOSYS: "Linux 5.12 or newer is needed, or a filter around this process refuses new mounts",
    EINVAL: "this kernel does not support it for this file system: Linux 5.12 or newer is needed",
    ENODEV: "this kernel has no such file system: see /proc/filesystems",
}
SPACES = {
    ENOSPC: "a limit in /proc/sys/user/max_*_namespaces is reached",
    EUSERS: "namespaces are nested too deeply here: 32 levels are the most",
    EAGAIN: PROCESSES,
    EINVAL: "this kernel has not all of these namespaces: see `sandbox info`",
    ENOSYS: "the kernel is older than Linux 5.7, or a filter around this process refuses new namespaces",
    EPERM: "namespaces are forbidden here: see /proc/sys/kernel/*userns* and /proc/sys/user/max_*_namespaces, and in a "
           "container its filter",
}
CGROUPS = {
    EBUSY: "the cgroup has children with controllers: another program may have made them",
    ENODEV: "the cgroup was removed meanwhile, by another program",
    EAGAIN: PROCESSES,
    ENOSPC: "the cgroup has no CPU or no memory node: give {cpuset_cpus} and {cpuset_mems}",
    EINVAL: "a real-time process cannot join it, or the cgroup is not of type domain",
}
HINTS: dict[str, dict[int, str]] = {
    **dict.fromkeys(MOUNTS, PLACES), **dict.fromkeys(NAMESPACES, SPACES),
    **dict.fromkeys(("clone_into_cgroup", "join"), CGROUPS),
    "mask": {ENOENT: "there is no /dev/null here: for a chroot, before entering it, "
                     "mount --rbind --make-rslave /dev NEWROOT/dev"},
    "overlay": {EINVAL: "the kernel puts an overlay on an overlay once, not twice, and writes none to some file "
                        "systems: see dmesg | grep overlayfs, and findmnt -T for each directory"},
    "landlock": {E2BIG: "sandboxes are nested too deeply: Landlock has 16 layers"},
    "seccomp": {EBUSY: "something around this sandbox listens to a filter already: leave {seccomp_log} out",
                EINVAL: "this kernel does not accept the filter: give a simpler one with {security_opt}"},
    "chdir": dict.fromkeys((ENOENT, ENOTDIR, EACCES, EPERM, ELOOP), "give a {cwd} that exists and may be entered"),
    "no_core": {EPERM: "the hard limit of RLIMIT_CORE is 0, and only CAP_SYS_RESOURCE raises it to 1, at which the "
                       "kernel starts no program of core_pattern; {core} allows that program"},
    "nice": dict.fromkeys((EACCES, EPERM), "it needs CAP_SYS_NICE, or a higher RLIMIT_NICE"),
    "ionice": dict.fromkeys((EACCES, EPERM), "it needs CAP_SYS_NICE or CAP_SYS_ADMIN"),
    "oom_score_adj": dict.fromkeys((EACCES, EPERM), "a score below the caller's minimum needs CAP_SYS_RESOURCE"),
    "setgroups": {EPERM: "the caller's user namespace does not allow it, or has not these ids"},
    "setresuid": {EINVAL: "the user namespace has no such id", EAGAIN: PROCESSES},
    "setresgid": {EINVAL: "the user namespace has no such id"},
    "claim": {ENOSPC: "the file system is full: see df /run /tmp"},
    "ctty": {EPERM: "stdin is the controlling terminal of another session"},
}
"""Hints by op and errno."""
ANY = {
    ENOSYS: "this kernel has no such system call, or a filter around this process refuses it",
    ENOMEM: "the machine or a cgroup above is out of memory, or the memory limit is too small to start the command",
    EMFILE: "too many files are open for the limit of them: give a higher {ulimit}, or see `ulimit -n`",
    EAGAIN: PROCESSES,
    EROFS: "the file system is read-only here",
    EINVAL: "this kernel does not support it: see `sandbox info`",
    ENOENT: "a file that the step opens does not exist: see whether /proc is mounted",
    ENOSPC: "a limit in /proc/sys/user, or of the file system, is reached",
    EBUSY: "another program uses it at the same time",
    EEXIST: "another program has made it meanwhile",
}
NOT_ROOT = "this user may not: run it as root, or see `sandbox info` for what works without"
NOT_EVEN_ROOT = ("root lacks a capability here, or a security module or a filter around this process forbids it: see "
                 "`sandbox info` and dmesg")


def step_failure(plan: Plan, record: Record) -> StepError:
    """The error for a step that sandbox-init could not carry out."""
    number, errno, where = int(record.words[0]), int(record.words[1]), record.words[2]
    if not number:
        return StepError(f"sandbox-init failed as the {where}", errno=errno,
                         hint="rebuild it: make setup" if where == "wire" else "")
    step = plan.steps[number - 1]
    if step.op == "label":
        from .isolation.label import failure

        return failure(step, number, errno, record.words[3:])
    kind = MountError if step.op in MOUNTS else NamespaceError if step.op in NAMESPACES else StepError
    if step.op == "new_id_map" and (said := " ".join(record.words[3:])):
        return kind(f"{spelled('user')}: {said}", errno=errno, number=number,
                    hint="newuidmap may map what subuid(5) says, and nothing under no_new_privs")
    if step.op == "in_cgroup" and errno == EXDEV:
        return StepError(f"the command would not have been in {step.args[0]}", number=number,
                         hint="somebody moved it, or systemd made the unit elsewhere; see systemd-cgls")
    if step.op == "claim" and errno == EEXIST:
        return kind(f"{spelled('name', plan.name)}: a sandbox of that name is running", errno=errno, number=number,
                    hint=f"choose another {spelled('name')}")
    what, hint = _rlimit(step, errno) if step.op == "rlimit" else (WHAT[step.op].format(*step.args), "")
    option = spelled(step.realises) if step.realises else ""
    return kind(f"{option}: {what}" if option else what, errno=errno, number=number, hint=hint or _hint(step, errno))


def _hint(step: Step, errno: int) -> str:
    denied = NOT_ROOT if os.geteuid() else NOT_EVEN_ROOT
    if around := _hint_of_surroundings(step, errno):
        return around
    hidden = HIDDEN.get(str(step.args[0]), "") if step.op == "mount" and errno == EPERM else ""
    hint = (hidden or HINTS.get(step.op, {}).get(errno) or (denied if errno in (EACCES, EPERM) else ANY.get(errno))
            or "`sandbox explain` shows the step, dmesg may tell more")
    return hint.format(core=spelled("ulimit", "core=0"),
                       **{field: spelled(field, *values) for field, values in OPTIONS.items()})


def _hint_of_surroundings(step: Step, errno: int) -> str:
    """What lets a sandbox be made in the container, chroot or sandbox around this process, or why root may not."""
    if errno not in (EPERM, EACCES, ENOSYS) or step.op not in (*NAMESPACES, *MOUNTS):
        return ""
    from . import surroundings

    if step.op == "id_map" and errno == EPERM and not os.geteuid() and not surroundings.holds_setfcap():
        return NO_SETFCAP
    return surroundings.for_namespaces()


def _rlimit(step: Step, errno: int) -> tuple[str, str]:
    """A resource limit by its name, and the hard limit that it would have raised."""
    import resource

    number, soft, hard = (int(str(arg)) for arg in step.args)
    name = next(name for name in dir(resource) if name.startswith("RLIMIT_") and getattr(resource, name) == number)
    bounds = ":".join("unlimited" if value < 0 else str(value) for value in (soft, hard))
    what = f"cannot set {name} to {bounds}"
    if errno != EPERM:
        example = f"{name.removeprefix('RLIMIT_').lower()}=64:128"
        return what, f"give soft:hard, with soft not above hard: {example}" if errno == EINVAL else ""
    ceiling = resource.getrlimit(number)[1]
    hint = f"the hard limit here is {'unlimited' if ceiling < 0 else ceiling}, and only CAP_SYS_RESOURCE raises it"
    return what, hint + "; the most for anybody is in /proc/sys/fs/nr_open" * (name == "RLIMIT_NOFILE")
