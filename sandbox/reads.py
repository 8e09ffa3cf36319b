"""Which kernel file yields which figure of the report, per hierarchy. What a kernel lacks is sampled, or stays null.

Page faults are not among them: the init's getrusage(2) has them for the whole tree, and ``memory.stat`` costs as much
to read as all the others together.
"""

from __future__ import annotations

from .facts import Hierarchy
from .stdlib import TYPE_CHECKING
from .steps import Read

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Row = tuple[str, str, str, str, str]
"""Figure, controller (empty: there without any), file, key, unit."""

V2: tuple[Row, ...] = (
    ("cpu_time", "", "cpu.stat", "usage_usec", "us"),
    ("cpu_user", "", "cpu.stat", "user_usec", "us"),
    ("cpu_system", "", "cpu.stat", "system_usec", "us"),
    ("periods", "cpu", "cpu.stat", "nr_periods", "1"),
    ("throttled_periods", "cpu", "cpu.stat", "nr_throttled", "1"),
    ("throttled_time", "cpu", "cpu.stat", "throttled_usec", "us"),
    ("memory_peak", "memory", "memory.peak", "", "1"),
    ("swap_peak", "memory", "memory.swap.peak", "", "1"),
    # .local: what happened in this very cgroup; memory.events also counts the workload's own cgroups below it.
    ("oom_kill", "memory", "memory.events.local", "oom_kill", "1"),
    ("oom", "memory", "memory.events.local", "oom", "1"),
    ("memory_failures", "memory", "memory.events.local", "max", "1"),
    ("memory_high", "memory", "memory.events.local", "high", "1"),
    ("swap_failures", "memory", "memory.swap.events", "max", "1"),
    ("pids_peak", "pids", "pids.peak", "", "1"),
    ("pids_failures", "pids", "pids.events.local", "max", "1"),
    ("pids_failures", "pids", "pids.events", "max", "1"),
    ("io", "io", "io.stat", "", "io.stat"),
    ("pressure", "", "cpu.pressure", "", "psi"),
    ("pressure", "", "memory.pressure", "", "psi"),
    ("pressure", "", "io.pressure", "", "psi"),
)
V1: tuple[Row, ...] = (
    ("cpu_time", "cpuacct", "cpuacct.usage", "", "ns"),
    ("cpu_user", "cpuacct", "cpuacct.usage_user", "", "ns"),
    ("cpu_system", "cpuacct", "cpuacct.usage_sys", "", "ns"),
    ("periods", "cpu", "cpu.stat", "nr_periods", "1"),
    ("throttled_periods", "cpu", "cpu.stat", "nr_throttled", "1"),
    ("throttled_time", "cpu", "cpu.stat", "throttled_time", "ns"),
    ("memory_peak", "memory", "memory.max_usage_in_bytes", "", "1"),
    ("oom_kill", "memory", "memory.oom_control", "oom_kill", "1"),
    ("memory_failures", "memory", "memory.failcnt", "", "1"),
    ("pids_peak", "pids", "pids.peak", "", "1"),
    ("pids_failures", "pids", "pids.events", "max", "1"),
    ("io", "blkio", "blkio.throttle.io_service_bytes_recursive", "", "blkio"),
    ("io", "blkio", "blkio.throttle.io_serviced_recursive", "", "blkio"),
)

SAMPLED = {"memory_peak": "memory.current", "swap_peak": "memory.swap.current", "pids_peak": "pids.current"}
"""Figures that older kernels keep no peak of, and the file that is sampled instead."""


def _by_controller(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row[1], []).append(row)
    return found


ROWS = {1: _by_controller(V1), 2: _by_controller(V2)}


def reads(tree: Hierarchy, path: str, controllers: Iterable[str]) -> Iterator[Read]:
    """The figures that the cgroup at ``path`` in ``tree`` yields.

    :param path: absolute path of the cgroup's directory.
    :param controllers: those it has.
    """
    rows, there = ROWS[tree.version], set(tree.files)
    if "hugetlb" in controllers:
        yield from _hugetlb(tree, path)
    for controller in ("", *controllers):
        for figure, _, file, key, unit in rows.get(controller, ()):
            if not there or file in there:
                yield Read(figure, f"{path}/{file}", key, unit)
            elif SAMPLED.get(figure) in there:
                yield Read(figure, f"{path}/{SAMPLED[figure]}", watch=figure)


def _hugetlb(tree: Hierarchy, path: str) -> Iterator[Read]:
    """The counters of refused huge pages, whose files are named by the size of the pages."""
    ending, key = (".events.local", "max") if tree.version == 2 else (".failcnt", "")
    for file in tree.files:
        if file.startswith("hugetlb.") and file.endswith(ending):
            yield Read("hugetlb_failures", f"{path}/{file}", key, "hugetlb")
