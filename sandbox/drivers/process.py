"""The part of a plan that every driver shares: the guard, the init, and the way of the workload to its execve."""

from __future__ import annotations

import os

from ..host import Host
from ..isolation import capabilities, cgroup_view, filesystem, landlock, mounts, namespaces, seccomp
from ..records import IO_CLASSES, Ulimit
from ..spec import Spec
from ..spelling import spelled
from ..stdlib import TYPE_CHECKING
from ..steps import Arg, Limit, Phase, Plan, Read, Step, Unmet, Where

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..facts import Hierarchy

LAUNCHER = "{launcher}"
"""Late value: the launcher's process id."""
TERMINAL = mounts.TERMINAL
"""Late value: the path of the terminal that is the workload's stdin."""
STREAMS = "{streams}"
"""Late value: which of 0, 1 and 2 are the workload's own."""
UNIT = "unit "
"""How a line of a state file begins that names no cgroup but a unit."""

OOM_EXEMPT = -999
"""oom_score_adj of the guard and the init, so that the OOM killer chooses them last. With -1000 it could not choose
them at all: alone in a cgroup with a tiny limit, they would retry a page fault for ever."""
SCORE_BESIDE_INIT = 300
"""oom_score_adj of a command that shares its cgroup with an init that is not exempt. It is above what processes of a
login (0) and of a user's systemd (200) start with, so that the OOM killer chooses the command."""

NPROC = "nproc"
RLIMIT_CORE = 4
"""The same on every architecture (<asm-generic/resource.h>): to load the module resource for it costs half a ms."""

FEW_FILES = 64
FIRST_FD = 3
"""The lowest fd after stdin, stdout and stderr."""

SAMPLE_MS = 100
"""How often a figure is sampled that the kernel keeps no peak of."""
CPU_TIME_MS = 20
"""How often the tree's CPU time is compared with its limit."""


def watches(spec: Spec, figures: Sequence[Read]) -> tuple[Step, ...]:
    """The files that the guard reads again and again, with the limit that ends the run if there is one."""
    found = [_watch(read.watch, read, 0, SAMPLE_MS) for read in figures if read.watch]
    clock = next((read for read in figures if read.figure == "cpu_time"), None)
    if spec.limits.cpu_time is not None and clock is not None:
        per_second = {"ns": 1_000_000_000, "us": 1_000_000}[clock.unit]
        found.append(_watch("cpu_time", clock, round(spec.limits.cpu_time * per_second), CPU_TIME_MS))
    return tuple(found)


def _watch(name: str, read: Read, limit: int, interval: int) -> Step:
    return _guard("watch", name, read.file, read.key, limit, interval, realises=f"limits.{name}" if limit else "")


def limits(spec: Spec, host: Host, found: Iterable[Step]) -> tuple[tuple[Limit, ...], tuple[Unmet, ...]]:
    """The limits that are not kernel files: rlimits, wall time, CPU time; and those that lack what they need."""
    void = tuple(_void_for_root(spec, host))
    rows = [Limit(realises="limits.ulimit", asked=f"{item.name}={item.bounds}",
                  applied=f"RLIMIT_{item.name.upper()} {item.bounds}", knob="rlimit", note="of each process")
            for item in spec.limits.ulimit if not (void and item.name == NPROC)]
    if spec.limits.timeout is not None:
        rows.append(Limit(realises="limits.timeout", asked=f"{spec.limits.timeout:g} s", knob="watch",
                          applied=f"deadline {spec.limits.timeout:g} s after the execve"))
    if spec.limits.cpu_time is None:
        return tuple(rows), void
    watch = next((step for step in found if step.args[0] == "cpu_time"), None)
    if watch is None:
        return tuple(rows), (*void, needs_cgroup("limits.cpu_time", "cpuacct.usage", host))
    rows.append(Limit(realises="limits.cpu_time", asked=f"{spec.limits.cpu_time:g} s", knob="watch",
                      applied=f"{watch.args[1]} compared every {CPU_TIME_MS} ms"))
    return tuple(rows), void


def _shares_nproc(spec: Spec, host: Host) -> bool:
    """True if RLIMIT_NPROC counts all processes of the user on the host. The kernel counts by user namespace."""
    asked = any(item.name == NPROC and item.soft is not None for item in spec.limits.ulimit)
    return asked and host.uid == 0 and not namespaces.is_shifted(spec, host)


def _void_for_root(spec: Spec, host: Host) -> Iterator[Unmet]:
    """Yield why ``nproc`` is refused for root of the host: the kernel exempts root from RLIMIT_NPROC
    (copy_process() in kernel/fork.c)."""
    if _shares_nproc(spec, host) and namespaces.identity(spec, host).uid == 0:
        yield Unmet(realises="limits.ulimit", reason="nproc: the kernel holds root of the host to no such limit",
                    remedy=f"use {spelled('pids_limit')}, or leave {spelled('userns', 'host')} out")


def needs_cgroup(realises: str, file: str, host: Host) -> Unmet:
    """What a driver without cgroups says of a limit, with what is in the way of the cgroups here."""
    obstacle = next((tree.reason for tree in host.hierarchies if tree.parent is None), "")
    return Unmet(realises=realises, reason=f"{file}: the none driver makes no cgroup",
                 remedy=obstacle or f"use the cgroupfs driver as root, or run with {spelled('best_effort', True)}")


def spawn(spec: Spec, host: Host, *, name: str, watches: Iterable[Step], cgroups: Sequence[str], unit: str = "",
          start: Sequence[Step] = ()) -> Iterator[Step]:
    """Start the guard first: from then on it removes whatever follows, even if the launcher is killed.

    :param cgroups: what it removes.
    :param unit: the systemd unit that somebody else must stop when both guard and launcher are dead.
    :param start: how the guard is started, when it is not by posix_spawn.
    """
    claimed = [*cgroups, *([f"{UNIT}{'user' if host.manager.user else 'system'} {unit}"] if unit else [])]
    yield from _guarded(host, name, claimed, start)
    if not any(item.name == "core" for item in spec.limits.ulimit):
        yield _guard("no_core")
    yield _guard("stop", spec.stop_signal, round(spec.stop_timeout * 1000))
    if spec.limits.timeout is not None:
        yield _guard("deadline", max(round(spec.limits.timeout * 1000), 1), realises="limits.timeout")
    yield from watches
    yield from _thaw(host)
    yield from namespaces.spawn(spec, host)


def hold(host: Host, *, name: str, unit: str) -> Iterator[Step]:
    """A guard that guards no sandbox, only a unit."""
    yield from _guarded(host, name, (f"{UNIT}{'user' if host.manager.user else 'system'} {unit}",), ())


def _guarded(host: Host, name: str, claimed: Sequence[str], start: Sequence[Step]) -> Iterator[Step]:
    yield Step(op="makedirs", args=(host.runtime_dir,), phase=Phase.SPAWN)
    yield from start or (Step(op="spawn", args=("sandbox-init",), phase=Phase.SPAWN),)
    yield _guard("launcher", LAUNCHER, 0 if start else 1)
    if not start:  # systemd starts a service with the policy that its properties say
        yield _guard("reset_realtime")
    if host.uid == 0:
        yield _guard("oom_exempt", OOM_EXEMPT)
    yield _guard("claim", state_file(host, name), "".join(f"{line}\n" for line in claimed))


def _thaw(host: Host) -> Iterator[Step]:
    """Tell the guard the launcher's freezer cgroup. It moves frozen processes of the run there before they are killed,
    since on cgroup v1 SIGKILL has no effect on a frozen process."""
    tree = host.hierarchy("freezer")
    if tree is not None:
        yield _guard("thaw", ",".join(tree.controllers), tree.root.rstrip("/"), tree.mount,
                     f"{tree.mount}{tree.own.rstrip('/')}")


def state_file(host: Host, name: str) -> str:
    """Where the guard of the sandbox ``name`` keeps its claim: its lock says that it is alive."""
    return f"{host.runtime_dir}/{name}"


def enter(spec: Spec, host: Host, cgroups: Sequence[Hierarchy] = ()) -> Iterator[Step]:
    """The inside. Propagation is cut before any mount at all, so that nothing shows outside.

    :param cgroups: the trees in which the command has a cgroup of its own.
    """
    owner = namespaces.outside(spec, host)
    if namespaces.is_lent(spec, host):
        user = namespaces.identity(spec, host)
        yield _init("give_streams", user.uid, user.gid, STREAMS)
    elif owner != (host.uid, host.gid):
        # Who is somebody else could not open /dev/stdin, a pipe of the launcher's.
        yield Step(op="streams", args=owner, phase=Phase.ENTER)
    yield _init("setsid")
    if spec.tty:
        yield _init("ctty", 0, realises="tty")
    yield _init("private")
    yield from filesystem.enter(spec, host, cgroups)


def become(spec: Spec, host: Host, cgroups: Sequence[Hierarchy] = (), *, beside_init: bool = False) -> Iterator[Step]:
    """From the forked child, which is in its cgroup by now, to the workload.

    :param cgroups: as for :func:`enter`.
    :param beside_init: the init is in the same cgroup, so that the OOM killer may choose it instead of the command.
    """
    yield from _priorities(spec, beside_init=beside_init)
    yield from namespaces.settle(spec, host)
    yield from cgroup_view.mounts(cgroups, spec, host)
    yield from (_ulimit(item) for item in spec.limits.ulimit if not _is_few(item))
    yield _workload("chdir", filesystem.working_directory(spec, host), realises="cwd")
    yield from namespaces.enter_userns(spec, host)
    names = capabilities.held(spec, namespaces.identity(spec, host).uid)
    yield from capabilities.before(names)
    yield from namespaces.ids(spec, host)
    yield from capabilities.after(names)
    yield _workload("setpgid")
    if spec.tty:
        yield _workload("foreground", 0, realises="tty")
    yield _workload("reset_signals")
    yield from seccomp.steps(spec, landlock.steps(spec, host))
    yield _workload("close_fds", FIRST_FD)
    if spec.preserve_fds:
        yield _workload("preserve_fds", FIRST_FD, FIRST_FD + spec.preserve_fds - 1, realises="preserve_fds")
    yield from (_ulimit(item) for item in spec.limits.ulimit if _is_few(item))
    yield _workload("execve", candidates(spec), spec.argv, tuple(f"{key}={value}" for key, value in spec.env),
                    realises="argv")


def _ulimit(item: Ulimit) -> Step:
    return _workload("rlimit", _rlimit(item.name), _wire(item.soft), _wire(item.hard), realises="limits.ulimit")


def _is_few(item: Ulimit) -> bool:
    """Whether the limit of open files is so low that the steps before the execve could fail with EMFILE.

    Such a limit is set last. That is possible because lowering a limit needs no capability.
    """
    return item.name in ("nofile", "ofile") and item.hard is not None and item.hard < FEW_FILES


def _priorities(spec: Spec, *, beside_init: bool) -> Iterator[Step]:
    """Set the priorities. The command never inherits oom_score_adj: with -1000, no memory limit could end it."""
    score = spec.oom_score_adj
    if score is None:
        yield _workload("oom_score_adj", 0, SCORE_BESIDE_INIT if beside_init else 0, 0)
    else:
        yield _workload("oom_score_adj", score, score, 1, realises="oom_score_adj")
    if spec.nice is not None:
        yield _workload("nice", spec.nice, realises="nice")
    if spec.ionice is not None:
        yield _workload("ionice", spec.ionice.level, IO_CLASSES.index(spec.ionice.kind), realises="ionice")


def notes(spec: Spec, host: Host) -> tuple[str, ...]:
    """Return what a reader should know about the isolation, and about limits whose meaning depends on it."""
    return (*_nproc_notes(spec, host), *namespaces.notes(spec, host), *filesystem.notes(spec, host))


def _nproc_notes(spec: Spec, host: Host) -> Iterator[str]:
    user = namespaces.identity(spec, host)
    if _shares_nproc(spec, host) and user.uid:
        yield (f"--ulimit nproc counts all processes of user {user.uid} on this machine, as the command shares the "
               "host's user ids; --pids-limit counts those of the sandbox alone")


def with_network(plan: Plan, spec: Spec, host: Host) -> Plan:
    """Return the plan with the steps, limits and notes of ``--network veth``; unchanged without that flag."""
    if spec.network != "veth":
        return plan
    from ..isolation import network

    return network.add(plan, spec, host)


def _guard(op: str, *args: Arg, realises: str = "", phase: Phase = Phase.SPAWN) -> Step:
    return Step(op=op, args=args, phase=phase, where=Where.GUARD, realises=realises)


def _init(op: str, *args: Arg, realises: str = "") -> Step:
    return Step(op=op, args=args, phase=Phase.ENTER, where=Where.INIT, realises=realises)


def _workload(op: str, *args: Arg, realises: str = "") -> Step:
    return Step(op=op, args=args, phase=Phase.EXEC, where=Where.WORKLOAD, realises=realises)


def candidates(spec: Spec) -> tuple[str, ...]:
    """The paths that are tried in turn, as execvpe(3) does, in the PATH of the workload's own environment."""
    command = spec.argv[0]
    if "/" in command:
        return (command,)
    directories = dict(spec.env).get("PATH", "/usr/local/bin:/usr/bin:/bin")
    return tuple(f"{directory or '.'}/{command}" for directory in directories.split(":"))


def _rlimit(name: str) -> int:
    if name == "core":
        return RLIMIT_CORE
    import resource

    return int(getattr(resource, f"RLIMIT_{name.upper()}"))


def _wire(value: int | None) -> int:
    return -1 if value is None else value


def cleanup(host: Host, *, name: str, cgroups: Sequence[str], unit: str = "", events: str = "") -> Iterator[Step]:
    """What the guard does last, whether the launcher is still there or not.

    :param events: the ``cgroup.events`` of the unit, if it is a scope on cgroup v2.
    """
    for path in cgroups:
        yield _guard("remove", path, phase=Phase.CLEANUP)
    yield _guard("unlink", state_file(host, name), phase=Phase.CLEANUP)
    if unit and (events or host.cgroup_mode != "v2"):
        # Last of all: a guard that is in the unit itself does not survive it.
        user = host.manager.user
        argv = ("systemctl", "--quiet", "--user" if user else "--system", "stop", unit)
        environment = (f"XDG_RUNTIME_DIR={os.path.dirname(host.runtime_dir)}",) if user else ()
        yield _guard("systemctl", argv, environment, events, phase=Phase.CLEANUP)
