"""Plans: ordered lists of steps that are data.

A driver compiles a :class:`~sandbox.spec.Spec` for a :class:`~sandbox.host.Host` into a :class:`Plan`. ``explain``
prints it, ``run`` executes it: nothing touches the kernel that is not listed here. A step is an op name and plain
arguments, so that it can cross an exec, be printed, and be compared.
"""

from __future__ import annotations

from .stdlib import NamedTuple, StrEnum

Arg = int | str | tuple[str, ...]


class Phase(StrEnum):
    """When a step happens; within a phase, list order decides."""

    PREPARE = "PREPARE"
    """make the cgroup, write the limits, read them back"""
    SPAWN = "SPAWN"
    """start the guard and, in new namespaces, the init"""
    MAP = "MAP"
    """write the id maps of a user namespace"""
    ENTER = "ENTER"
    """build the inside: mounts and the like, done by the init"""
    ATTACH = "ATTACH"
    """the workload joins its cgroup and takes on its limits and identity"""
    EXEC = "EXEC"
    """execve; the watches run from here on"""
    COLLECT = "COLLECT"
    """the tree is dead: read the usage"""
    CLEANUP = "CLEANUP"
    """remove what was made"""


class Where(StrEnum):
    """Which process carries a step out."""

    HOST = "host"
    """the launcher (Python)"""
    GUARD = "guard"
    """sandbox-init outside the namespaces"""
    INIT = "init"
    """sandbox-init as pid 1 inside"""
    WORKLOAD = "workload"
    """the forked child on its way to execve"""


CHILDREN = (Where.GUARD, Where.INIT, Where.WORKLOAD)
"""The processes of sandbox-init."""


class Step(NamedTuple):
    """One thing that touches the kernel.

    :param op: name of the operation; a key of the executor's op table or of ``sandbox-init``'s.
    :param args: its arguments, plain data.
    :param realises: the field of the Spec it fulfils, e.g. ``limits.memory``; empty for scaffolding.
    """

    op: str
    phase: Phase
    args: tuple[Arg, ...] = ()
    where: Where = Where.HOST
    realises: str = ""


class Done(NamedTuple):
    """A step of the launcher that was carried out.

    :param number: its place in the plan, from 1.
    :param seconds: how long it took.
    """

    number: int
    seconds: float


class Limit(NamedTuple):
    """One limit of the plan, and how to tell that it holds.

    :param realises: field of the Spec, e.g. ``limits.memory``.
    :param asked: the value as the user gave it, printed canonically.
    :param applied: the value the kernel is given, after conversion and rounding, as text.
    :param files: absolute paths of the kernel files that hold it; empty for rlimits and watches.
    :param knob: row of :data:`sandbox.knobs.KNOBS`; ``rlimit`` or ``watch`` when it is no kernel file.
    :param value: what the row's ``decode`` must yield from the files; None when it is no kernel file.
    :param version: cgroup version of the files.
    :param ancestors: directories above the cgroup, nearest first, that may hold a tighter limit.
    :param note: a conversion or rounding worth telling, e.g. ``shares 512 are weight 59``.
    """

    realises: str
    asked: str
    applied: str
    files: tuple[str, ...] = ()
    knob: str = ""
    value: object = None
    version: int = 0
    ancestors: tuple[str, ...] = ()
    note: str = ""


class Read(NamedTuple):
    """One figure that is read when the tree is dead.

    :param figure: field of :class:`~sandbox.usage.Usage` it yields.
    :param file: absolute path of the kernel file.
    :param key: key within a flat-keyed file (``cpu.stat``), empty when the file is a single number.
    :param unit: ``1`` (bytes or events), ``ns``, ``us``; ``io.stat``, ``blkio`` and ``psi`` are formats of their own.
    :param watch: name of the watch whose highest sample stands in, because the kernel has no such file.
    :param less: what is subtracted from it: tasks and memory of the sandbox's own processes in a systemd unit.
    """

    figure: str
    file: str
    key: str = ""
    unit: str = "1"
    watch: str = ""
    less: int = 0


class Unmet(NamedTuple):
    """A wish that cannot be enforced here.

    :param realises: field of the Spec.
    :param reason: names the file, the controller or the property that is missing.
    :param remedy: what to do about it.
    """

    realises: str
    reason: str
    remedy: str = ""


class Plan(NamedTuple):
    """Everything a run does.

    :param driver: name of the driver that made it.
    :param name: name of the sandbox; part of each path.
    :param steps: in order of execution, guard, init and workload steps included.
    :param limits: the limits among them, with the way to verify each.
    :param reads: what is read at the end.
    :param unmet: what cannot be done here.
    :param notes: what a reader should know: rounding, placement, what the kernel does not limit. One that begins with
        a flag says that this flag does less than it seems; the program prints it as a warning.
    """

    driver: str
    name: str
    steps: tuple[Step, ...]
    limits: tuple[Limit, ...] = ()
    reads: tuple[Read, ...] = ()
    unmet: tuple[Unmet, ...] = ()
    notes: tuple[str, ...] = ()


def masked(step: Step) -> tuple[Arg, ...]:
    """The arguments of a step, without the values of variables that are not on the allow-list: they may be secrets."""
    if step.op != "execve":
        return step.args
    from .identity import KEPT

    paths, argv, env = step.args
    assert isinstance(env, tuple)
    pairs = (entry.partition("=") for entry in env)
    return (paths, argv, tuple(f"{name}={value if name in KEPT else '***'}" for name, _, value in pairs))
