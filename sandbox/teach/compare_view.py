"""Two views of one sandbox while it runs: what systemd believes, and what the kernel's files hold."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ..bus import Bus
from ..errors import SandboxError
from ..facts import Hierarchy
from ..host import Host, small_file
from ..knobs import V1_UNLIMITED
from ..steps import Plan
from .compare import Belief, Node, Snapshot
from .compare_plan import directories

INFINITY = "infinity"
UNKNOWN = 2**64 - 1
"""systemd's largest number: no limit for a limit, unknown for what is used."""
SIBLINGS = 12
"""Cgroups beside ours that a tree shows by name."""
ROOT_SLICE = "-.slice"
IN_CONTAINER = "/run/systemd/container"
"""File that exists if systemd runs in a container; systemd makes it (CONTAINER_INTERFACE.md)."""


class Question(NamedTuple):
    """One figure, and where each side keeps it.

    :param files: for cgroup v1 and v2.
    """

    figure: str
    controller: str
    property: str
    files: dict[int, tuple[str, ...]]


LIMITS = (
    Question("memory limit", "memory", "MemoryMax", {1: ("memory.limit_in_bytes",), 2: ("memory.max",)}),
    Question("CPU quota", "cpu", "CPUQuotaPerSecUSec", {1: ("cpu.cfs_quota_us", "cpu.cfs_period_us"), 2: ("cpu.max",)}),
    Question("task limit", "pids", "TasksMax", {1: ("pids.max",), 2: ("pids.max",)}),
)
COUNTERS = (
    Question("memory", "memory", "MemoryCurrent", {1: ("memory.usage_in_bytes",), 2: ("memory.current",)}),
    Question("tasks", "pids", "TasksCurrent", {1: ("pids.current",), 2: ("pids.current",)}),
)


def snapshot(plan: Plan, host: Host, bus: Bus | None, time: float | None) -> Snapshot | None:
    """Look at the sandbox now; None when it has gone meanwhile.

    :param bus: the manager to ask; None where there is none.
    :param time: seconds since the execve.
    :raises SandboxError: systemd gave no answer.
    """
    viewer = _Viewer(plan, host, bus)
    if not viewer.places:
        return None
    cgroup = viewer.cgroup
    unit = viewer.owner(cgroup)
    found = Snapshot(time=time, cgroup=cgroup, unit=unit, delegated=viewer.is_delegated(unit),
                     beliefs=tuple(viewer.beliefs()), tree=viewer.tree())
    return found if all(os.path.isdir(place) for place in viewer.places.values()) else None


class _Viewer:
    """Looks once.

    :ivar places: the sandbox's directory for each controller that something of it is limited or counted by.
    """

    def __init__(self, plan: Plan, host: Host, bus: Bus | None) -> None:
        self._plan, self._host, self._bus = plan, host, bus
        self._owners: dict[str, str] = {}
        self._delegated: dict[str, bool] = {}
        self.places = {one.controller: place for one in LIMITS if (place := self._place(one.controller))}

    @property
    def cgroup(self) -> str:
        """The cgroup that has the memory limit, or else another one of the sandbox, below the root of its tree."""
        controller, place = next(iter(self.places.items()))
        return place.removeprefix(self._tree_of(controller).mount)

    def owner(self, cgroup: str) -> str:
        """The unit that systemd finds for a cgroup: its own, or the nearest above; empty when there is none."""
        if self._bus is None:
            return ""
        if cgroup not in self._owners:
            self._owners[cgroup] = self._bus.unit_of(cgroup or "/")
        return self._owners[cgroup]

    def is_delegated(self, unit: str) -> bool:
        """True if systemd leaves the cgroups below the unit alone (``Delegate=``)."""
        if self._bus is None or not unit:
            return False
        if unit not in self._delegated:
            self._delegated[unit] = self._bus.get(unit, _interface(unit), "Delegate") is True
        return self._delegated[unit]

    def beliefs(self) -> Iterator[Belief]:
        """Each figure at each level, as either side has it."""
        for question in (*LIMITS, *COUNTERS):
            if question.controller in self.places:
                yield self._belief("cgroup", question, self.places[question.controller])
        for question in COUNTERS:
            if question.controller in self.places:
                tree, place = self._tree_of(question.controller), self.places[question.controller]
                level, above = _above(place, tree.mount)
                if above != tree.mount:
                    yield self._belief(level, question, above)
                yield self._belief("root", question, tree.mount)

    def tree(self) -> Node:
        """The cgroups from the root down to ours, with those beside it."""
        controller, place = next(iter(self.places.items()))
        tree = self._tree_of(controller)
        return self._node(tree, tree.mount, place)

    # -- where

    def _tree_of(self, controller: str) -> Hierarchy:
        return next(tree for tree in self._host.hierarchies if controller in tree.controllers)

    def _place(self, controller: str) -> str:
        tree = next((tree for tree in self._host.hierarchies if controller in tree.controllers), None)
        if tree is None:
            return ""
        for directory in directories(self._plan):
            file = f"{directory}/{controller}.{'max' if tree.version == 2 else _PROBE_V1[controller]}"
            if directory.startswith(f"{tree.mount}/") and os.path.exists(file):
                return directory
        return ""

    # -- what

    def _belief(self, level: str, question: Question, directory: str) -> Belief:
        tree = self._tree_of(question.controller)
        cgroup = directory.removeprefix(tree.mount)
        # GetUnitByControlGroup finds no unit for the root, which is the root slice of the system's manager.
        is_root = level == "root" and self._bus is not None and self._bus.control_group == "/"
        unit = ROOT_SLICE if is_root else self.owner(cgroup)
        names = question.files[tree.version]
        file, holds = f"{directory}/{names[0]}", _held(directory, names, question.figure)
        if level == "root" and not holds:
            file = f"{directory}/*/{names[0]}"  # the real root has no such file: the sum of its children
            holds = str(sum(int(small_file(f"{one.path}/{names[0]}") or 0) for one in _children(directory)))
        return Belief(level=level, figure=question.figure, unit=unit, property=question.property,
                      says=self._says(unit, question), file=file, holds=holds,
                      unlike=self._unlike(cgroup, unit, question))

    def _unlike(self, cgroup: str, unit: str, question: Question) -> str:
        """Return why the unit's property may differ from the cgroup's file; empty if both are about one cgroup."""
        if self._bus is None:
            return ""
        if not unit:
            return f"systemd has no unit for {cgroup or '/'}"
        if unit == ROOT_SLICE and not cgroup:
            # unit_get_memory_current() and unit_get_tasks_current(): only for the root of the host.
            return "" if os.path.exists(IN_CONTAINER) else (
                "systemd asks /proc, which counts what is in no cgroup as well")
        if os.path.basename(cgroup) == unit:
            return ""
        if question in COUNTERS:
            return f"systemd counts all of {unit}"
        if self.is_delegated(unit):
            return f"systemd was not told: it has delegated what is below {unit}"
        return f"systemd was not told: it has no unit for {cgroup}, the nearest above is {unit}"

    def _says(self, unit: str, question: Question) -> str:
        if self._bus is None or not unit:
            return ""
        value = self._bus.get(unit, _interface(unit), question.property)
        if not isinstance(value, int):
            return ""
        if value == UNKNOWN:
            return INFINITY if question in LIMITS else ""
        return f"{value / 1e6:g}" if question.figure == "CPU quota" else str(value)

    def _node(self, tree: Hierarchy, directory: str, target: str) -> Node:
        cgroup = directory.removeprefix(tree.mount)
        ours = target == directory or target.startswith(f"{directory}/")
        files = {one.figure: one.files[tree.version] for one in (*LIMITS, *COUNTERS)}
        memory = _held(directory, files["memory"], "memory")
        limit = _held(directory, files["memory limit"], "memory limit")
        inside = [one.path for one in _children(directory)] if ours else []
        # The branch of ours, and the first of the others, in the order of their names.
        shown = sorted(inside, key=lambda path: (not f"{target}/".startswith(f"{path}/"), path))[:SIBLINGS]
        return Node(name=os.path.basename(cgroup) or "/", owner=self._whose(cgroup, directory, target),
                    memory=int(memory) if memory.isdigit() else None, limit=int(limit) if limit.isdigit() else None,
                    ours=ours, children=tuple(self._node(tree, path, target) for path in sorted(shown)))

    def _whose(self, cgroup: str, directory: str, target: str) -> str:
        if self._bus is not None and (not cgroup or self.owner(cgroup) == os.path.basename(cgroup)):
            return "systemd"
        if f"{directory}/".startswith(f"{target}/") or f"sandbox-{self._plan.name}" in cgroup:
            return self._plan.driver
        return "foreign" if self._bus is not None else ""


_PROBE_V1 = {"memory": "limit_in_bytes", "cpu": "cfs_quota_us", "pids": "max"}


def _held(directory: str, names: tuple[str, ...], figure: str) -> str:
    """What the files of one figure hold, in the unit of :class:`Belief`; empty when they are not there."""
    text = " ".join(small_file(f"{directory}/{name}") for name in names)
    words = text.split()
    if len(words) != (2 if figure == "CPU quota" else 1):
        return ""
    if figure == "CPU quota":
        return INFINITY if words[0] in ("max", "-1") else f"{int(words[0]) / int(words[1]):g}"
    return INFINITY if words[0] == "max" or (words[0].isdigit() and int(words[0]) >= V1_UNLIMITED) else words[0]


def _above(directory: str, mount: str) -> tuple[str, str]:
    """Return level and directory of the nearest slice above a cgroup; without a slice, those of its parent cgroup."""
    parent: str = os.path.dirname(directory)
    place = parent
    while place != mount and not place.endswith(".slice"):
        place = os.path.dirname(place)
    return ("parent", parent) if place == mount else ("slice", place)


def _interface(unit: str) -> str:
    """The D-Bus interface of a unit's own properties: ``Scope`` for ``x.scope``."""
    return unit.rpartition(".")[2].capitalize()


def _children(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return [one for one in entries if one.is_dir(follow_symlinks=False)]
    except OSError:
        return []


Look = Callable[[float | None], Snapshot | None]
"""Takes a snapshot, given the seconds since the execve."""


def looker(plan: Plan, host: Host, bus: Bus | None) -> Look:
    """:func:`snapshot` of one sandbox; nothing is seen when systemd gives no answer."""
    def look(time: float | None) -> Snapshot | None:
        try:
            return snapshot(plan, host, bus, time)
        except (SandboxError, OSError):
            return None

    return look
