"""A plan for people: step by step, with the flag each step realises, and what cannot be done here."""

from __future__ import annotations

import stat

from ..host import Host
from ..isolation import capabilities, landlock, mounts, namespaces
from ..spec import Spec
from ..spelling import flag_of
from ..stdlib import TYPE_CHECKING
from ..steps import Arg, Limit, Plan, Step, masked

if TYPE_CHECKING:
    from collections.abc import Callable

CLONE_FLAGS = {getattr(namespaces, name): name for name in vars(namespaces) if name.startswith("CLONE_NEW")}
ATTRIBUTES = {mounts.RDONLY: "ro", mounts.NOSUID: "nosuid", mounts.NODEV: "nodev", mounts.NOEXEC: "noexec"}
CAPABILITIES = {bit: name for name, bit in capabilities.BITS.items()}
SECUREBITS = {0x1: "NOROOT", 0x4: "NO_SETUID_FIXUP", 0x10: "KEEP_CAPS", 0x40: "NO_CAP_AMBIENT_RAISE"}
SHOWN = ("network", "publish", "net_rate", "net_delay", "pid", "ipc", "uts", "userns", "cgroupns", "ns", "hostname",
         "rootfs", "read_only", "overlay", "commit", "volume", "tmpfs", "cap_add", "cap_drop", "security_opt",
         "nest", "seccomp_log", "device", "gpu")
"""Fields besides the limits whose flag is printed at the end of a line."""

OPS = {
    "makedirs": "make the directory for state files",
    "spawn": "posix_spawn the guard, from a sealed memfd",
    "launcher": "watch the launcher: when it dies in any way, kill and remove everything",
    "claim": "write the state file and lock it for as long as the guard lives",
    "oom_exempt": "oom_score_adj of the guard and the init, where it may be lowered: the kernel kills them last",
    "stop": "how a soft stop goes: signal, then milliseconds until SIGKILL",
    "deadline": "stop after so many milliseconds of wall time",
    "watch": "read the file again and again: name, file, key, limit (0: only keep the highest), milliseconds",
    "thaw": "where to move frozen processes before SIGKILL (v1): controllers, mounted cgroup, mount point, target",
    "leave_chroot": "make the chroot's directory the root of a mount namespace of the guard's: in a chroot, the kernel "
                    "makes no user namespace",
    "namespaces": "start a holder in a new user namespace and in others that belong to it",
    "tell_namespaces": "tell the launcher the holder's process id, and give it the network namespace",
    "clone3": "start the init in new namespaces",
    "id_map": "write setgroups, uid_map and gid_map of the user namespace: inside, outside, how many",
    "new_id_map": "the same by newuidmap and newgidmap, with ids that are lent to this user: two command lines",
    "give_streams": "the command owns the pipes that are its streams: user, group, which of 0, 1 and 2",
    "enable": "enable controllers for the children of this cgroup",
    "mkdir": "make the cgroup",
    "check_type": "refuse unless cgroup.type is domain",
    "inherit": "copy the value from the parent cgroup",
    "write": "write the limit",
    "read_back": "read it again; refuse the run if it is not what was asked",
    "property": "a property of the unit: name, D-Bus type, value",
    "start_unit": "StartTransientUnit with these properties; wait for JobRemoved with result done: unit, its processes",
    "start_service": "the same, with the guard as the main process of the service",
    "attach": "AttachProcessesToUnit: the init joins the processes that hold the unit",
    "split": "move the unit's own processes into a cgroup below it: only a leaf may hold processes",
    "systemctl": "if the launcher is dead: stop the unit; cgroup v1 may not tell systemd that it is empty",
    "stop_unit": "StopUnit, and wait until the unit is gone",
    "tell_init": "tell the launcher the process id of the init",
    "hold": "stay in the unit's cgroup until it was read: systemd removes what is empty",
    "in_cgroup": "refuse to go on unless /proc/self/cgroup says this",
    "streams": "the command owns the pipes, and a terminal made for it, that are its streams: user, group",
    "open": "open it here, for a child that no longer sees it",
    "open_directory": "open the cgroup here, for a child that no longer sees it",
    "go": "everything holds: let the init start the workload",
    "reserve": "bind a port of the host, so that no program has it meanwhile",
    "nftables": "a table of packet rules: outside it lasts as long as its netlink socket, inside as its namespace",
    "veth": "a pair of devices, one end in the sandbox's network namespace: names, MTU, alias",
    "sysctl": "a setting of the sandbox's own network namespace, where /proc/sys may be written to",
    "address": "switch a device on and give it an address, unless another has just taken it",
    "route": "add a route by this gateway",
    "netem": "hold back what a device sends: microseconds, most packets; then read it back",
    "tbf": "limit what a device sends: bits per second, burst in bytes, longest wait; then read it back",
    "delete_link": "remove the pair; without this it goes with its namespace",
    "delete_table": "close the table's socket, which removes it, and those that reserve ports",
    "subreaper": "orphans come to the init, which finds whom to kill at the end",
    "private": "what is mounted from here on does not show outside",
    "setns": "join namespaces of the holder",
    "join_ns": "join the namespace that this file stands for",
    "hostname": "set the host name",
    "lo_up": "bring the loopback device up",
    "tree": "open_tree: take a copy of this of the host, attached nowhere yet: slot, path, attributes",
    "overlay": "an overlay of two directories: slot, what is below, what is written, a work directory",
    "node": "make a device node for the ids inside, as it is on the host: slot, attributes, number, mode, owner",
    "device_filter": "load and attach a BPF program that lets the cgroup open these devices only; see that it is there",
    "has_filter": "refuse the run unless the cgroup has a device filter",
    "read_property": "read it from systemd; refuse the run if it is not what was asked: unit, name, value",
    "root": "attach what is in the slot on top of /: the new root",
    "discard": "take away the host's mount at this path, so that /proc/self/mountinfo does not list it",
    "place": "attach what is in the slot: slot, place inside",
    "mount": "mount a new file system: type, place inside, attributes, options",
    "mkdir_in": "make a directory inside, if there is none: path, mode",
    "mknod_in": "make a device node inside: path, number, mode, owner",
    "symlink_in": "make a symbolic link inside: text, path",
    "mask": "hide what is there, if it is: nothing to read, nothing to find",
    "read_only": "what is there, if it is, can no longer be written to",
    "attr": "set attributes of a mount",
    "pivot": "pivot_root: the rest of the host is gone",
    "unshare": "make a namespace of its own",
    "mount_cgroup": "show its cgroup, read-only: place, type, controllers",
    "enter_userns": "join the user namespace that the holder made: from here on it is nobody outside",
    "securebits": "uid 0 gives no capabilities, for good",
    "bounding": "drop all others from the bounding set: no file gives them",
    "capset": "the permitted, effective and inheritable capabilities",
    "ambient": "the capabilities that an execve keeps",
    "label": "the label for the execve: module; profile, or parts of a context; refuse one that is only logged",
    "no_new_privs": "no execve gives privileges",
    "landlock": "abstract sockets, signals, tracing end at the sandbox's edge; sockets with paths too, but for these",
    "seccomp": "load the filter of system calls: profile, capabilities it allows for; flags",
    "clone_into_cgroup": "the child is born in the opened cgroup: clone3 with CLONE_INTO_CGROUP",
    "join": "the child moves itself into the cgroup: write 0 to the opened tasks",
    "oom_score_adj": "set oom_score_adj: score if the init is exempt, score otherwise, 1 if it was asked for",
    "reset_realtime": "a caller's real-time policy becomes SCHED_OTHER: no quota or weight holds for it",
    "no_core": "a limit of 1 byte for cores: the kernel writes none, and starts no program of core_pattern",
    "nice": "setpriority: -20, the most of a CPU, to 19",
    "ionice": "ioprio_set: level, class",
    "rlimit": "setrlimit: resource, soft, hard",
    "setgroups": "set the supplementary groups",
    "setresgid": "set the group id",
    "setresuid": "set the user id",
    "chdir": "change directory",
    "setsid": "start a session with the init as its leader, so that Ctrl-Z can stop the command",
    "setpgid": "start a process group of the session",
    "foreground": "make it the foreground process group of its terminal",
    "ctty": "make stdin the controlling terminal",
    "reset_signals": "default handlers, empty signal mask",
    "close_fds": "mark every fd from here on close-on-exec",
    "preserve_fds": "pass on those of these fds that are open in the launcher and not close-on-exec: first, last",
    "execve": "run the command",
    "remove": "remove the cgroup, and what was made below it",
    "unlink": "remove the state file",
}
"""Every op, in a few words."""


def text(plan: Plan, spec: Spec, host: Host, *, show_env: bool = False) -> str:
    """The plan as text.

    :param show_env: print the values of environment variables, which may be secrets.
    """
    lines = [f"{plan.driver} driver, cgroup {host.cgroup_mode}, Linux {host.kernel}; {len(plan.steps)} steps"]
    phase = ""
    for number, step in enumerate(plan.steps, 1):
        head = step.phase if step.phase != phase else ""
        phase = step.phase
        named = step.realises.startswith("limits.") or step.realises in SHOWN
        flag = f"  <- {flag_of(step.realises)}" if named else ""
        lines.append(f"{head:<8} {number:>3} {step.where:<8} {step.op:<13} {arguments(step, show_env=show_env)}{flag}")
    lines += _section("limits", [_limit(one) for one in plan.limits])
    watches = [step for step in plan.steps if step.op in ("watch", "deadline")]
    lines += _section("watch", [f"{step.op} {arguments(step)}" for step in watches])
    lines += _section("read at the end", [f"{read.figure:<18} {read.file} {read.key}".rstrip()
                                          + (" (sampled)" if read.watch else "") for read in plan.reads])
    lines += _section("cannot be done here", [f"{flag_of(one.realises)}: {one.reason}. {one.remedy}".rstrip(". ")
                                              for one in plan.unmet])
    lines += _section("note", list(plan.notes))
    return "\n".join(lines)


def data(plan: Plan, spec: Spec, host: Host, *, show_env: bool = False) -> dict[str, object]:
    """The plan as plain data for ``explain --json``."""
    steps = [{"number": number, "phase": step.phase, "where": step.where, "op": step.op, "explained": OPS[step.op],
              "args": list(step.args if show_env else masked(step)), "realises": step.realises,
              "flag": flag_of(step.realises) if step.realises else ""}
             for number, step in enumerate(plan.steps, 1)]
    return {"schema_version": 1, "driver": plan.driver, "name": plan.name, "cgroup_mode": host.cgroup_mode,
            "steps": steps, "limits": [one._asdict() for one in plan.limits],
            "reads": [one._asdict() for one in plan.reads],
            "unmet": [one._asdict() for one in plan.unmet], "notes": list(plan.notes), "argv": list(spec.argv)}


def arguments(step: Step, *, show_env: bool = False) -> str:
    """The arguments of a step as they are read best."""
    args = step.args if show_env else masked(step)
    special = SPECIAL.get(step.op)
    return special(*args) if special else " ".join(_words(arg) for arg in args)


def _tree(slot: Arg, path: Arg, attributes: Arg, recursive: Arg, shifted: Arg) -> str:
    words = [_flags(attributes, ATTRIBUTES, ","), "recursive" * (recursive == 1), "owners mapped" * (shifted == 1)]
    return f"{slot} {_words(path)} {' '.join(filter(None, words))}"


def _mount(kind: Arg, target: Arg, attributes: Arg, options: Arg) -> str:
    return f"{kind} {_words(target)} {_flags(attributes, ATTRIBUTES, ',')} {options}".rstrip()


def _node(slot: Arg, attributes: Arg, *what: Arg) -> str:
    return f"{slot} {_flags(attributes, ATTRIBUTES, ',')} {_device(*what)}"


def _device(mode: Arg, major: Arg, minor: Arg, uid: Arg, gid: Arg) -> str:
    assert isinstance(mode, int)
    return f"{'c' if stat.S_ISCHR(mode) else 'b'} {major}:{minor} {stat.S_IMODE(mode):04o} {uid}:{gid}"


def _execve(paths: Arg, argv: Arg, env: Arg) -> str:
    return f"{_words(argv)} (tries {_words(paths)}; environment {_words(env)})"


def _id_map(setgroups: Arg, uids: Arg, gids: Arg) -> str:
    shown = [str(text).replace("\n", ", ") for text in (uids, gids)]
    return " ".join([f"setgroups {setgroups};"] * bool(setgroups) + [f"uid {shown[0]}; gid {shown[1]}"])


def _securebits(bits: Arg) -> str:
    assert isinstance(bits, int)
    return f"{_flags(bits, SECUREBITS)} locked {_flags(bits >> 1, SECUREBITS)}"


def _capabilities(*masks: Arg) -> str:
    return " ".join(_flags(mask, CAPABILITIES, ",") if mask else "none" for mask in masks)


def _nftables(side: Arg, table: Arg, commands: Arg) -> str:
    assert isinstance(commands, tuple)
    return "".join([f"{side!s} {table!s}", *(f"\n{' ' * 36}{command}" for command in commands)])


def _octal(path: Arg, mode: Arg) -> str:
    return f"{_words(path)} {mode:04o}"


def _clone(flags: Arg) -> str:
    return _flags(flags, CLONE_FLAGS)


SPECIAL: dict[str, Callable[..., str]] = {
    "namespaces": _clone, "clone3": _clone, "setns": _clone, "unshare": _clone, "id_map": _id_map,
    "join_ns": lambda path, flag: f"{_words(path)} {_clone(flag)}",
    "nftables": _nftables, "tree": _tree, "mount": _mount, "mkdir_in": _octal, "node": _node,
    "mknod_in": lambda path, *what: f"{_words(path)} {_device(*what)}",
    "symlink_in": lambda text, path: f"{_words(path)} -> {_words(text)}",
    "attr": lambda path, attributes: f"{_words(path)} {_flags(attributes, ATTRIBUTES, ',')}",
    "landlock": lambda scopes, rights, shown: " ".join(
        (_flags(scopes, landlock.SCOPES, ","), *(["resolve_unix"] if rights else []), *shown)),
    "securebits": _securebits, "bounding": _capabilities, "capset": _capabilities, "ambient": _capabilities,
    "write": lambda path, value: f"{path} = {value}", "read_back": lambda _, *files: " ".join(map(str, files)),
    "claim": lambda path, _: str(path), "execve": _execve,
}
"""Ops whose arguments are more than words."""


def _words(arg: Arg) -> str:
    import shlex

    return shlex.join(arg) if isinstance(arg, tuple) else str(arg) or "''"


def _flags(value: Arg, names: dict[int, str], between: str = "|") -> str:
    assert isinstance(value, int)
    return between.join(name for bit, name in names.items() if value & bit) or "0"


def _limit(limit: Limit) -> str:
    note = f" ({limit.note})" if limit.note else ""
    return f"{flag_of(limit.realises)} {limit.asked} -> {limit.applied}{note}"


def _section(title: str, rows: list[str]) -> list[str]:
    return [f"{title}:", *(f"    {row}" for row in rows)] if rows else []

