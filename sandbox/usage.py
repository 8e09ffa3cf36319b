"""What a run used: read from the kernel's files when the tree is dead, before the cgroup goes."""

from __future__ import annotations

import os

from .cgroup import files
from .errors import CgroupError
from .stdlib import TYPE_CHECKING, NamedTuple, dataclass, field
from .steps import Read

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PER_SECOND = {"ns": 1e9, "us": 1e6}
RUSAGE = ("cpu_user", "cpu_system", "max_rss", "page_faults", "major_page_faults", "context_switches", "preemptions")
"""Figures that the init's own getrusage(2) of its dead children fills where no cgroup has them."""


class DiskUsage(NamedTuple):
    """I/O on one disk.

    :param device: ``MAJ:MIN``.
    :param read_bytes: bytes read from it; likewise written.
    :param read_operations: requests; likewise written.
    """

    device: str
    read_bytes: int = 0
    write_bytes: int = 0
    read_operations: int = 0
    write_operations: int = 0


@dataclass(slots=True, kw_only=True)
class Usage:
    """Figures of one run: seconds, bytes and counts. None where the kernel has no such figure: never made up.

    :param wall_time: from the execve to the workload's death.
    :param cpu_time: CPU time of the whole tree; ``cpu_user`` and ``cpu_system`` are its parts.
    :param memory_peak: most memory that was charged at once.
    :param swap_peak: most swap at once.
    :param max_rss: largest resident set of a single process (getrusage(2)).
    :param page_faults: all faults; ``major_page_faults`` those that needed I/O.
    :param periods: CPU periods in which something ran; in ``throttled_periods`` the quota ran out, for
        ``throttled_time`` in all.
    :param pids_peak: most tasks at once.
    :param pids_failures: forks that the task limit refused.
    :param oom_kill: processes that the kernel killed for memory.
    :param oom: times an allocation was about to fail at its own memory limit (cgroup v2's ``oom``).
    :param memory_failures: times the memory limit was hit.
    :param memory_high: times ``--memory-high`` was exceeded and tasks had to reclaim, which slows them (cgroup v2).
    :param swap_failures: times the limit of swap was hit (cgroup v2).
    :param hugetlb_failures: size of huge pages -> times the limit refused some, as ``2MB``; on cgroup v1 those refused
        when they were reserved are apart, as ``2MB.rsvd``.
    :param io: per disk.
    :param pressure: resource -> ``some`` and ``full`` -> seconds stalled (PSI).
    :param net_received_bytes: what came in by the device of ``--network veth``; ``net_sent_bytes`` what went out.
    :param net_received_dropped: packets that ``--net-rate`` or ``--net-delay`` dropped on their way in; in
        ``net_received_overlimits`` times one had to wait. Likewise sent.
    :param context_switches: voluntary; ``preemptions`` involuntary.
    :param left_behind: processes that outlived the command and were killed.
    :param sources: figure -> the file it was read from, or how it was come by, or why it is None.
    """

    wall_time: float | None = None
    cpu_time: float | None = None
    cpu_user: float | None = None
    cpu_system: float | None = None
    memory_peak: int | None = None
    swap_peak: int | None = None
    max_rss: int | None = None
    page_faults: int | None = None
    major_page_faults: int | None = None
    periods: int | None = None
    throttled_periods: int | None = None
    throttled_time: float | None = None
    pids_peak: int | None = None
    pids_failures: int | None = None
    oom_kill: int | None = None
    oom: int | None = None
    memory_failures: int | None = None
    memory_high: int | None = None
    swap_failures: int | None = None
    hugetlb_failures: dict[str, int] = field(default_factory=dict)
    io: list[DiskUsage] = field(default_factory=list)
    pressure: dict[str, dict[str, float]] = field(default_factory=dict)
    net_received_bytes: int | None = None
    net_received_packets: int | None = None
    net_received_dropped: int | None = None
    net_received_overlimits: int | None = None
    net_sent_bytes: int | None = None
    net_sent_packets: int | None = None
    net_sent_dropped: int | None = None
    net_sent_overlimits: int | None = None
    context_switches: int | None = None
    preemptions: int | None = None
    left_behind: int | None = None
    sources: dict[str, str] = field(default_factory=dict)


def kept(reads: Iterable[Read]) -> list[str]:
    """The files with the figures that the kernel keeps; those that are sampled come by :func:`add_samples`."""
    return [read.file for read in reads if not read.watch]


def collect(reads: Iterable[Read], texts: Mapping[str, str | CgroupError]) -> Usage:
    """The figures of a plan that the kernel keeps.

    :param texts: what their files say, see :func:`kept`.
    """
    usage = Usage()
    for read in reads:
        if read.watch:
            continue
        text = texts[read.file]
        if isinstance(text, CgroupError):
            usage.sources.setdefault(read.figure, text.message)
            continue
        try:
            _take(usage, read, text)
        except (KeyError, ValueError, IndexError):
            usage.sources.setdefault(read.figure, f"{read.file} has no {read.key or 'number'}")
    return usage


def add_counters(usage: Usage, counters: Mapping[str, tuple[int, str]]) -> None:
    """Fill in figures that are in no file.

    :param counters: figure -> its value, and how it was come by.
    """
    for figure, (number, source) in counters.items():
        setattr(usage, figure, number)
        usage.sources[figure] = source


def add_rusage(usage: Usage, words: Sequence[int]) -> None:
    """getrusage(RUSAGE_CHILDREN) of the init: times in microseconds, RSS in KiB; only where a cgroup has no figure."""
    user, system, rss, minor, major, _, _, voluntary, involuntary, left_behind = words
    usage.left_behind = left_behind
    values = (user / 1e6, system / 1e6, rss * 1024, minor + major, major, voluntary, involuntary)
    for figure, value in zip(RUSAGE, values, strict=True):
        if getattr(usage, figure) is None:
            setattr(usage, figure, value)
            usage.sources[figure] = "getrusage(RUSAGE_CHILDREN) of the sandbox's init"
    if usage.cpu_time is None:
        usage.cpu_time = (user + system) / 1e6
        usage.sources["cpu_time"] = usage.sources["cpu_user"]


def add_samples(usage: Usage, reads: Iterable[Read], samples: Mapping[str, int]) -> None:
    """Fill in the figures that the guard sampled.

    :param samples: highest values it saw, by name of the watch.
    """
    for read in reads:
        if read.watch and samples.get(read.watch):  # 0 was read when all had died: nothing that ran uses nothing
            setattr(usage, read.figure, max(samples[read.watch] - read.less, 0))
            usage.sources[read.figure] = f"highest of the samples of {read.file}{_less(read)}"
        elif read.watch:
            usage.sources[read.figure] = f"{read.file} was never sampled: the run was too short"


def _take(usage: Usage, read: Read, text: str) -> None:
    if read.unit == "blkio":
        _take_blkio(usage, read, text)
    elif read.unit == "io.stat":
        _take_io_stat(usage, text)
    elif read.unit == "hugetlb":
        usage.hugetlb_failures[pages_of(read)] = int(files.value_of(text, read.key) if read.key else text)
    elif read.unit == "psi":
        usage.pressure[os.path.basename(read.file).removesuffix(".pressure")] = _stalled(text)
    else:
        number = max(int(files.value_of(text, read.key) if read.key else text) - read.less, 0)
        scale = PER_SECOND.get(read.unit)
        setattr(usage, read.figure, number / scale if scale else number)
    usage.sources[read.figure] = f"{read.file} {read.key}".rstrip() + _less(read)


def _less(read: Read) -> str:
    return f", less {read.less} for the sandbox's own processes" if read.less else ""


def pages_of(read: Read) -> str:
    """Which huge pages are counted in ``hugetlb.2MB.rsvd.failcnt``: ``2MB.rsvd``, reservations of 2 MiB."""
    _, size, *rest = os.path.basename(read.file).split(".")
    return f"{size}.rsvd" if "rsvd" in rest else size


def _count(usage: Usage, device: str, figures: dict[str, int]) -> None:
    """Add figures of one disk to what is known of it."""
    for index, disk in enumerate(usage.io):
        if disk.device == device:
            usage.io[index] = DiskUsage(**{**disk._asdict(), **figures})
            return
    usage.io.append(DiskUsage(device, **figures))


def _take_blkio(usage: Usage, read: Read, text: str) -> None:
    """cgroup v1: ``254:0 Read 4096`` per line; one file counts bytes, the other requests."""
    what = "bytes" if "service_bytes" in read.file else "operations"
    for words in map(str.split, text.splitlines()):
        if len(words) == 3 and words[1] in ("Read", "Write"):
            _count(usage, words[0], {f"{words[1].lower()}_{what}": int(words[2])})


def _take_io_stat(usage: Usage, text: str) -> None:
    """cgroup v2: ``254:0 rbytes=4096 wbytes=0 rios=1 wios=0 ...`` per line."""
    names = {"rbytes": "read_bytes", "wbytes": "write_bytes", "rios": "read_operations", "wios": "write_operations"}
    for device, *words in map(str.split, text.splitlines()):
        pairs = (word.partition("=") for word in words)
        _count(usage, device, {names[key]: int(value) for key, _, value in pairs if key in names})


def _stalled(text: str) -> dict[str, float]:
    """PSI: seconds in ``some avg10=0.00 avg60=0.00 avg300=0.00 total=12345`` (microseconds)."""
    return {words[0]: int(words[-1].removeprefix("total=")) / 1e6 for words in map(str.split, text.splitlines())}
