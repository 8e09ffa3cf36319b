"""One wish under several drivers, as plain data: what ``sandbox compare`` collects, prints and writes as JSON.

:mod:`~sandbox.teach.compare_plan` says what follows from the plans alone, :mod:`~sandbox.teach.compare_collect` runs
them, :mod:`~sandbox.teach.compare_rows` lines the drivers up, and ``compare_text`` and ``compare_page`` draw that. As
everything between is data, what was collected in a lab is drawn outside of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

SCHEMA_VERSION = 1
"""Raised when a key changes its meaning or goes; new keys may come without."""
DRIVERS = ("cgroupfs", "systemd", "delegated")
"""What is compared when nothing else is asked for."""

Record = TypeVar("Record")


class Told(NamedTuple):
    """One wish under one driver.

    :param realises: field of the Spec, e.g. ``limits.memory``.
    :param flag: the flag that sets it.
    :param asked: the value as the user gave it.
    :param knob: row of :data:`sandbox.knobs.KNOBS`, or ``rlimit`` or ``watch``: several may realise one wish.
    :param words: what the manager is told, e.g. ``memory.max = 67108864`` or ``MemoryMax = 67108864 (t)``.
    :param by: ``file``, ``property``, or ``process`` for what is no matter of cgroups.
    :param applied: what the kernel is to hold.
    :param file: absolute path of the (last) kernel file; empty when there is none.
    :param note: a conversion or rounding.
    :param read_back: what the file said at the end of the run; None when nothing ran or there is no file.
    :param held: at the end, the file still had the value that was asked for; None when the file was not read.
    :param unmet: why it cannot be enforced under this driver; empty when it can.
    """

    realises: str
    flag: str
    asked: str
    knob: str = ""
    words: tuple[str, ...] = ()
    by: str = ""
    applied: str = ""
    file: str = ""
    note: str = ""
    read_back: str | None = None
    held: bool | None = None
    unmet: str = ""


class Reach(NamedTuple):
    """How the plan gets there, in numbers: kernel files and directories, and systemd.

    :param cgroups: directories made, and removed at the end.
    :param writes: values written to kernel files, controllers enabled among them.
    :param reads: files read back.
    :param properties: carried by the one call that starts the unit.
    :param calls: methods of systemd called, each with one signal awaited.
    """

    cgroups: int = 0
    writes: int = 0
    reads: int = 0
    properties: int = 0
    calls: int = 0


class Belief(NamedTuple):
    """One figure as each side has it.

    :param level: ``cgroup`` for the sandbox's own; ``slice`` for the nearest slice above it, or ``parent`` for the
        cgroup above it where there is no slice; ``root`` for the root of the tree.
    :param figure: ``memory limit``, ``CPU quota``, ``task limit``, ``memory`` or ``tasks``.
    :param unit: the unit that systemd is asked about, and its ``property``.
    :param says: its answer: bytes, CPUs or tasks; ``infinity``; or empty when it does not know.
    :param file: the kernel file, and what it ``holds``, in the same form; with a ``*`` in it, the sum of several.
    :param unlike: why ``says`` and ``holds`` may differ; empty when both are about one cgroup.
    """

    level: str
    figure: str
    unit: str
    property: str
    says: str
    file: str
    holds: str
    unlike: str = ""


class Node(NamedTuple):
    """A cgroup in a tree.

    :param name: last part of its path; ``/`` for the root.
    :param owner: who made it: ``systemd``, ``foreign``, or our driver; empty where systemd does not run.
    :param memory: bytes charged to it, when that is counted.
    :param limit: its own memory limit in bytes, if it has one.
    :param ours: it has to do with the sandbox.
    """

    name: str
    owner: str = ""
    memory: int | None = None
    limit: int | None = None
    ours: bool = False
    children: tuple[Node, ...] = ()


class Snapshot(NamedTuple):
    """What was found at one moment of the run.

    :param time: seconds since the execve; None when the command was over too soon, and a sleeping one with the same
        limits was looked at in its place.
    :param cgroup: path of the sandbox's cgroup below the root of its tree.
    :param unit: the unit that ``GetUnitByControlGroup`` gives for it, its own or the nearest above; empty when there
        is none.
    :param delegated: systemd has delegated the unit, so that cgroups below it are not systemd's.
    """

    time: float | None
    cgroup: str
    unit: str
    delegated: bool = False
    beliefs: tuple[Belief, ...] = ()
    tree: Node = Node("/")


class Kept(NamedTuple):
    """A file of a limit before and after a daemon-reload; None when it is not there (any more)."""

    file: str
    before: str | None
    after: str | None


class Reload(NamedTuple):
    """Whether the limits survive ``systemctl daemon-reload`` and a sibling unit that comes and goes.

    :param problem: why that was not tried; empty when it was.
    """

    files: tuple[Kept, ...] = ()
    problem: str = ""


class Phase(NamedTuple):
    """One of :data:`~sandbox.teach.bench_phases.PHASES`, in seconds: the median of several launches of ``true`` under
    the same limits."""

    name: str
    seconds: float


class Figure(NamedTuple):
    """A figure of :class:`~sandbox.usage.Usage`: seconds, bytes or a count."""

    name: str
    value: float


class Event(NamedTuple):
    """Something that happened, so many seconds after the execve."""

    kind: str
    time: float
    detail: str = ""


class Series(NamedTuple):
    """Samples of one run; all of the same length, or empty where the kernel does not count it.

    :param times: seconds since the execve.
    :param memory: bytes; ``cpu`` and ``throttled``: seconds so far; ``oom_kills``: processes killed so far.
    """

    times: tuple[float, ...] = ()
    memory: tuple[int, ...] = ()
    cpu: tuple[float, ...] = ()
    throttled: tuple[float, ...] = ()
    oom_kills: tuple[int, ...] = ()


class Run(NamedTuple):
    """One run of the command.

    :param outcome: how it ended, see :class:`~sandbox.report.Outcome`; ``why`` says it in a sentence.
    :param exit_code: what ``sandbox run`` would have exited with.
    """

    outcome: str
    why: str
    exit_code: int
    usage: tuple[Figure, ...] = ()
    events: tuple[Event, ...] = ()
    series: Series = Series()


class Isolation(NamedTuple):
    """What the plan isolates the command from.

    :param steps: how many steps do it.
    :param digest: a checksum of those steps: equal for the same isolation.
    :param score: of what is left open, 0.0 to 10.0; ``band`` is the word for it (:mod:`sandbox.isolation.exposure`).
    """

    steps: int
    digest: str
    score: float
    band: str


class Column(NamedTuple):
    """Everything about one driver.

    :param driver: its name in :data:`~sandbox.teach.columns.COLUMNS`.
    :param problem: why it cannot be used here, or why its run failed; empty when all went well.
    :param remedy: what to do about it.
    :param wishes: what becomes of each wish.
    :param besides: properties that the unit is given besides: accounting, the OOM policy and the like.
    :param defaults: for each of ``besides``, the value that the unit would have without it; empty when systemd does not
        say.
    :param notes: what a reader should know.
    """

    driver: str
    problem: str = ""
    remedy: str = ""
    wishes: tuple[Told, ...] = ()
    besides: tuple[str, ...] = ()
    defaults: tuple[str, ...] = ()
    reach: Reach = Reach()
    isolation: Isolation | None = None
    notes: tuple[str, ...] = ()
    run: Run | None = None
    snapshot: Snapshot | None = None
    reload: Reload | None = None
    phases: tuple[Phase, ...] = ()


class Machine(NamedTuple):
    """Where it was collected."""

    kernel: str
    cgroup_mode: str
    cpus: int
    systemd: str = ""
    lab: str = ""


class Comparison(NamedTuple):
    """The same command and wishes under several drivers.

    :param argv: the command.
    :param flags: the wishes as flags of ``sandbox run``.
    :param ran: the command was run; False when the plans were only compiled.
    """

    argv: tuple[str, ...]
    flags: tuple[str, ...]
    machine: Machine
    ran: bool
    columns: tuple[Column, ...]


def to_data(comparison: Comparison) -> dict[str, object]:
    """As mappings and lists, which :func:`from_data` reads back equal."""
    return {"schema_version": SCHEMA_VERSION, **_plain(comparison)}


def from_data(data: dict[str, Any]) -> Comparison:
    """The comparison that :func:`to_data` wrote, maybe as JSON in between."""
    return _record({name: value for name, value in data.items() if name != "schema_version"}, Comparison)


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        return {name: _plain(member) for name, member in value._asdict().items()}
    return [_plain(member) for member in value] if isinstance(value, tuple) else value


def _record(data: dict[str, Any], kind: type[Record]) -> Record:
    hints = get_type_hints(kind)
    return kind(**{name: _value(value, hints[name]) for name, value in data.items()})


def _value(data: Any, hint: Any) -> Any:
    if isinstance(data, dict):
        record = next(one for one in (hint, *get_args(hint)) if hasattr(one, "_fields"))
        return _record(data, record)
    if isinstance(data, list):
        assert get_origin(hint) is tuple
        return tuple(_value(one, get_args(hint)[0]) for one in data)
    return data
