"""A plan for people: step by step, with the flag each step realises, and what cannot be done here."""

from __future__ import annotations

from ..drivers.process import (
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
)
from ..host import Host
from ..spec import Spec, flag_of
from ..steps import Arg, Limit, Plan, Step, masked

CLONE_FLAGS = {CLONE_NEWNS: "CLONE_NEWNS", CLONE_NEWPID: "CLONE_NEWPID", CLONE_NEWUSER: "CLONE_NEWUSER"}
MOUNT_FLAGS = {MS_NOSUID: "MS_NOSUID", MS_NODEV: "MS_NODEV", MS_NOEXEC: "MS_NOEXEC", MS_REC: "MS_REC",
               MS_PRIVATE: "MS_PRIVATE"}

OPS = {
    "makedirs": "make the directory for state files",
    "spawn": "posix_spawn the guard, from a sealed memfd",
    "launcher": "watch the launcher: when it dies in any way, kill and remove everything",
    "claim": "write the state file and lock it for as long as the guard lives",
    "stop": "how a soft stop goes: signal, then milliseconds until SIGKILL",
    "deadline": "stop after so many milliseconds of wall time",
    "watch": "read the file again and again: name, file, key, limit (0: only keep the highest), milliseconds",
    "clone3": "start the init in new namespaces",
    "id_map": "write setgroups, uid_map and gid_map of the user namespace",
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
    "open": "open it here, for a child that no longer sees it",
    "open_directory": "open the cgroup here, for a child that no longer sees it",
    "go": "everything holds: let the init start the workload",
    "mount": "mount: source, target, type, flags, data",
    "clone_into_cgroup": "the child is born in the opened cgroup: clone3 with CLONE_INTO_CGROUP",
    "join": "the child moves itself into the cgroup: write 0 to the opened tasks",
    "rlimit": "setrlimit: resource, soft, hard",
    "setgroups": "set the supplementary groups",
    "setresgid": "set the group id",
    "setresuid": "set the user id",
    "chdir": "change directory",
    "setsid": "start a session",
    "ctty": "make stdin the controlling terminal",
    "reset_signals": "default handlers, empty signal mask",
    "close_fds": "mark every fd from here on close-on-exec",
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
        flag = f"  <- {flag_of(step.realises)}" if step.realises.startswith("limits.") else ""
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
    if step.op == "clone3":
        return _flags(args[0], CLONE_FLAGS)
    if step.op == "mount":
        source, target, kind, flags, _ = args
        return f"{source or '-'} {target} {kind or '-'} {_flags(flags, MOUNT_FLAGS)}"
    if step.op == "write":
        return f"{args[0]} = {args[1]}"
    if step.op == "read_back":
        return " ".join(map(str, args[1:]))
    if step.op == "claim":
        return str(args[0])
    if step.op == "execve":
        return f"{_words(args[1])} (tries {_words(args[0])}; environment {_words(args[2])})"
    return " ".join(_words(arg) for arg in args)


def _words(arg: Arg) -> str:
    import shlex

    return shlex.join(arg) if isinstance(arg, tuple) else str(arg) or "''"


def _flags(value: Arg, names: dict[int, str]) -> str:
    assert isinstance(value, int)
    return "|".join(name for bit, name in names.items() if value & bit) or "0"


def _limit(limit: Limit) -> str:
    note = f" ({limit.note})" if limit.note else ""
    return f"{flag_of(limit.realises)} {limit.asked} -> {limit.applied}{note}"


def _section(title: str, rows: list[str]) -> list[str]:
    return [f"{title}:", *(f"    {row}" for row in rows)] if rows else []

