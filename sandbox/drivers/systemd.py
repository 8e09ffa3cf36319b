"""The systemd driver: one transient unit per sandbox, its limits told as properties over D-Bus.

A scope is made around our own init, so the sandboxing stays ours; for a service, systemd starts our guard as the main
process. The kernel files are the same ones, and every limit is read back from them.
"""

from __future__ import annotations

from ..errors import SpecError
from ..facts import Hierarchy, Property
from ..host import Host
from ..knobs import V1_CONTROLLER
from ..reads import reads
from ..records import UNLIMITED
from ..spec import Spec
from ..spelling import spelled
from ..stdlib import TYPE_CHECKING, NamedTuple
from ..steps import Limit, Phase, Plan, Read, Step
from ..units import show_bytes
from ..wishes import Wish, wishes
from . import process, unit
from .cgroupfs import Group, always_taken, born_first, chain, limit, read_back, write
from .properties import properties, rounded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..isolation.device_policy import Policy

TOGETHER = {"cpu_burst": "cpus", "swap_max": "memory"}
"""A file-only knob that is of no use, or refused, in another cgroup than the one with the second knob. cgroup v2's
``memory.swap.max`` has a property and is never file-only."""
COUNTED_WITH = {"memory_failures": "memory", "oom": "memory", "swap_failures": "swap_max", "memory_high": "memory_high",
                "pids_failures": "pids_limit", "periods": "cpus", "throttled_periods": "cpus", "throttled_time": "cpus"}
"""Figures that are counted in the cgroup that has the limit, not in the one that has the processes."""
HOLDERS = {"scope": 1, "service": 2}
"""How many processes of ours are in the unit: the init, and in a service the guard too."""
SERVICE_MEMORY = 512 << 10
"""Bytes that are added to the memory limit of a service. The guard and the namespaces that it makes are charged to the
service's cgroup; a scope has neither. Measured on Linux 6.18 when the command starts: 690 KiB are charged to a service,
330 to a scope, 250 to a cgroup that systemd did not make."""


class SystemdDriver:
    """Asks systemd for a scope, or for a service, and reads every limit back."""

    name = "systemd"

    def problems(self, host: Host) -> tuple[str, ...]:
        """See :class:`~sandbox.drivers.Driver`."""
        return (host.manager.problem,) if host.manager.problem else ()

    def compile(self, spec: Spec, host: Host, *, name: str) -> Plan:
        """See :class:`~sandbox.drivers.Driver`."""
        return _Compiler(spec, host, name).plan()


driver = SystemdDriver()


class Told(NamedTuple):
    """A limit and how systemd is told of it: by properties, or, when there are none, not at all."""

    wish: Wish
    properties: tuple[Property, ...]
    asked: tuple[Property, ...] = ()
    """The properties for the value that was asked for, without what is added for our own processes in the unit."""


class _Compiler:
    """What is known while one Spec is compiled."""

    def __init__(self, spec: Spec, host: Host, name: str) -> None:
        self.spec, self.name = spec, name
        self.kind = spec.unit_type
        self.unit = unit.unit_name(spec, name, self.kind)
        self.cgroup = unit.cgroup_of(self.unit, spec, host)
        self.host = unit.placed(host, self.cgroup)
        found, unmet = wishes(spec.limits, self.host)
        told = self._told(found)
        alone = [one.wish for one in told if one.wish.relative and not one.properties]
        self.unmet = (*unmet, *unit.untyped(spec, host), *(unit.without_effect(wish, host) for wish in alone))
        self.limits = [one for one in told if one.wish not in alone]
        self._refuse_rivals()
        self.leaves = self._leaves()
        self.counted = frozenset(self._counted())
        self.policy = self._policy()

    def plan(self) -> Plan:
        """Put it together."""
        figures = tuple(self._figures())
        watches = process.watches(self.spec, figures)
        others, more = process.limits(self.spec, self.host, watches)
        limits = (*(limit(told.wish, self._place(told), self._ancestors(told)) for told in self.limits),
                  *(self.policy.limits(self._devices()) if self.policy and self.policy.tree else ()), *others)
        plan = Plan(driver=driver.name, name=self.name, steps=tuple(self._steps(watches)), limits=limits,
                    reads=figures, unmet=(*self.unmet, *more), notes=tuple(self._notes(limits)))
        return process.with_network(plan, self.spec, self.host)

    def _policy(self) -> Policy | None:
        """What says which devices may be opened; none unless some are given."""
        if not self.spec.device and not self.spec.gpu:
            return None
        from ..isolation import device_policy

        return device_policy.of_unit(self.spec, self.host)

    def _devices(self) -> str:
        """The cgroup that keeps the policy."""
        return (self.policy.tree.mount if self.policy and self.policy.tree else "") + self.cgroup

    # -- which limit goes where

    def _told(self, found: list[Wish]) -> list[Told]:
        version = self.host.manager.version
        told = []
        for wish in found:
            plain = rounded(wish, version)
            fit = self._with_holders(plain)
            words = properties(fit, version) if unit.is_managed(wish.tree) else ()
            asked = properties(plain, version) if words and fit is not plain else words
            told.append(Told(fit if words else wish, words, asked))
        alone = {TOGETHER.get(one.wish.knob.field) for one in told if not one.properties}
        as_asked = {wish.knob.field: wish for wish in found}
        return [Told(as_asked[one.wish.knob.field], (), one.asked) if one.wish.knob.field in alone else one
                for one in told]

    def _refuse_rivals(self) -> None:
        """Refuse a ``--property`` that sets another value than a limit does: systemd would take the later one.

        :raises SpecError: naming both.
        """
        given = zip(self.spec.property, self.host.manager.properties, strict=False)
        typed = {one.name: (text, one) for text, one in given}
        for told in self.limits:
            for one in told.properties:
                text, other = typed.get(one.name, ("", one))
                if other not in (one, *told.asked):
                    raise SpecError(f"{spelled(told.wish.realises, told.wish.asked)} and {spelled('property', text)} "
                                    f"are two values for {one.name}", field="property", hint="give one of them")

    def _with_holders(self, wish: Wish) -> Wish:
        """Raise the unit's limits of tasks and memory by what our own processes in the unit use."""
        if wish.value == UNLIMITED:
            return wish
        if self.kind == "service" and wish.knob.field in ("memory", "memory_high"):
            note = f"{show_bytes(SERVICE_MEMORY)} more than asked: the guard and the init with its namespaces"
            return wish._replace(value=wish.value + SERVICE_MEMORY, note="; ".join(filter(None, (wish.note, note))))
        if wish.knob.field != "pids_limit":
            return wish
        holders = HOLDERS[self.kind]
        whose = "the init, which holds the unit" if holders == 1 else "the guard and the init"
        return wish._replace(value=wish.value + holders, note=f"{holders} more than asked: {whose}")

    def _leaves(self) -> dict[str, Group]:
        """The cgroups of ours, by mount point: below the unit for what has no property, elsewhere where it has none."""
        wanted: dict[str, set[str]] = {}
        for told in self.limits:
            if not told.properties:
                tree = told.wish.tree
                wanted.setdefault(tree.mount, set()).add(told.wish.knob.controller_in(tree.version))
        leaves = {}
        always = always_taken(self.host)
        for tree in self.host.hierarchies:
            takes_part = not unit.is_managed(tree) and not always.isdisjoint(tree.controllers)
            if tree.parent is not None and (takes_part or tree.mount in wanted):
                some = tuple(one for one in tree.controllers if one in wanted.get(tree.mount, ()))
                leaves[tree.mount] = Group(tree, self.name, some if tree.version == 2 else tree.controllers)
        return leaves

    def _place(self, told: Told) -> str:
        """The directory whose files hold the limit."""
        tree = told.wish.tree
        return tree.mount + self.cgroup if told.properties else self.leaves[tree.mount].path

    def _ancestors(self, told: Told) -> tuple[str, ...]:
        tree = told.wish.tree
        return chain(tree.mount, self.cgroup)[1:] if told.properties else self.leaves[tree.mount].ancestors()

    def _managed(self) -> Iterator[Hierarchy]:
        """The trees with the unit's group that take part: they limit or count, and on v2 hold the processes."""
        names = {V1_CONTROLLER.get(name, name) for name in self.counted}
        for tree in self.host.hierarchies:
            if unit.is_managed(tree) and (tree.version == 2 or not names.isdisjoint(tree.controllers)):
                yield tree

    def _trees(self) -> tuple[Hierarchy, ...]:
        """The trees in which the command is in the unit's cgroup or in one of ours."""
        return tuple(dict.fromkeys((*(leaf.tree for leaf in self.leaves.values()), *self._managed())))

    def _counted(self) -> Iterator[str]:
        """Controllers the unit has anyway, or for a limit; on v1 the CPU's where its tree counts CPU time too."""
        yield from unit.ALWAYS_COUNTED
        yield from (told.wish.knob.controller for told in self.limits)
        if any(tree.version == 1 and {"cpu", "cpuacct"} <= {*tree.controllers} for tree in self.host.hierarchies):
            yield "cpu"

    # -- what is read at the end

    def _figures(self) -> Iterator[Read]:
        seen: set[tuple[str, str]] = set()
        told = {one.wish.knob.field for one in self.limits if one.properties}
        for read in self._candidates(told):
            several = read.file.rpartition("/")[2] if read.unit in ("blkio", "io.stat", "psi", "hugetlb") else ""
            if (read.figure, several) not in seen:
                seen.add((read.figure, several))
                yield read

    def _candidates(self, told: set[str]) -> Iterator[Read]:
        for leaf in self.leaves.values():
            for read in reads(leaf.tree, leaf.path, leaf.controllers):
                if COUNTED_WITH.get(read.figure) not in told:
                    yield read
        for tree in self._managed():
            for read in reads(tree, tree.mount + self.cgroup, self._controllers(tree)):
                yield read._replace(less=self._ours(read.figure))

    def _ours(self, figure: str) -> int:
        """Return how much of a counter of the unit's cgroup the guard and the init are counted for."""
        if figure == "memory_peak" and self.kind == "service":
            return SERVICE_MEMORY
        return HOLDERS[self.kind] if figure == "pids_peak" else 0

    def _controllers(self, tree: Hierarchy) -> tuple[str, ...]:
        """Those that systemd gives the unit."""
        return tree.controllers if tree.version == 1 else tuple(name for name in tree.usable if name in self.counted)

    # -- the steps

    def _steps(self, watches: tuple[Step, ...]) -> Iterator[Step]:
        service = self.kind == "service"
        ours = tuple(leaf.path for leaf in self.leaves.values() if not unit.is_managed(leaf.tree))
        tell = tuple(self._tell())
        start = (*(step._replace(phase=Phase.SPAWN) for step in tell),
                 unit.start_service(self.unit, self.host)) if service else ()
        yield from process.spawn(self.spec, self.host, name=self.name, watches=watches, cgroups=ours, unit=self.unit,
                                 start=start)
        if not service:
            yield unit.tell_init()
            yield from tell
            yield unit.start(self.unit, self.host, "init")
        if any(leaf.tree.version == 2 for leaf in self.leaves.values()):
            yield from unit.split(self.host, self.cgroup)
        for leaf in self.leaves.values():
            yield from leaf.make()
        for index, told in enumerate(self.limits):
            place = self._place(told)
            yield from [read_back(index, told.wish, place)] if told.properties else write(index, told.wish, place)
        if self.policy and self.policy.tree:
            yield from self._read_policy(self.policy, self.policy.tree)
        trees = self._trees()
        yield from process.enter(self.spec, self.host, trees)
        yield unit.hold()
        yield from (leaf.open() for leaf in self.leaves.values())
        yield Step(op="go", phase=Phase.ATTACH)
        yield from (leaf.join(index) for index, leaf in sorted(enumerate(self.leaves.values()), key=born_first))
        for tree in self._managed():
            path = self.leaves[tree.mount].path if tree.mount in self.leaves else tree.mount + self.cgroup
            yield unit.in_cgroup(tree, path.removeprefix(tree.mount))
        yield from process.become(self.spec, self.host, trees, beside_init=True)
        yield from process.cleanup(self.host, name=self.name, cgroups=ours, unit=self.unit,
                                   events="" if service else unit.events(self.host, self.cgroup))
        yield unit.stop(self.unit, self.host)

    def _read_policy(self, policy: Policy, tree: Hierarchy) -> Iterator[Step]:
        """cgroup v1 says what is allowed; of v2's BPF program only that it is there, and the rest by systemd."""
        if tree.version == 1:
            yield policy.read_back(self._devices(), len(self.limits))
            return
        yield from (unit.read_property(self.unit, self.host, one, policy.realises) for one in policy.told())
        yield Step(op="has_filter", args=(self._devices(),), phase=Phase.PREPARE, realises=policy.realises)

    def _tell(self) -> Iterator[Step]:
        delegate = any(unit.is_managed(leaf.tree) for leaf in self.leaves.values())
        yield from unit.tell(unit.common(self.spec, self.host, self.name, delegate=delegate, accounted=self.counted))
        yield from unit.tell(unit.oom_policy(self.kind, self.host, delegate=delegate))
        for told in self.limits:
            yield from unit.tell(told.properties, told.wish.realises)
        if self.policy and self.policy.rules:
            yield from unit.tell(self.policy.properties(), self.policy.realises)
        ours = {one.name for told in self.limits for one in told.properties}
        yield from unit.tell([one for one in self.host.manager.properties if one.name not in ours], "property")

    def _notes(self, limits: tuple[Limit, ...]) -> Iterator[str]:
        ours = [(told, row) for told, row in zip(self.limits, limits, strict=False) if not told.properties]
        beside = [row for told, row in ours if told.asked]
        if files := _names(row for told, row in ours if not told.asked):
            together = f"; {_names(beside)} must be set in the same cgroup" if beside else ""
            yield (f"file-only, systemd has no property for it: {files}; it is in a cgroup of ours, where systemd does "
                   f"not reset it{together}")
        yield from unit.oom_notes(self.kind, self.host)
        yield from process.notes(self.spec, self.host)
        yield from self.policy.notes if self.policy else ()


def _names(rows: Iterable[Limit]) -> str:
    """The kernel files of some limits, each once."""
    return ", ".join(dict.fromkeys(file.rpartition("/")[2] for row in rows for file in row.files))
