"""The cgroupfs driver: we make directories and write kernel files, on cgroup v1, hybrid and v2 alike."""

from __future__ import annotations

from ..facts import Hierarchy
from ..host import Host
from ..isolation import cgroup_view
from ..knobs import WEIGHTS
from ..reads import reads
from ..spec import Spec
from ..spelling import spelled
from ..stdlib import TYPE_CHECKING
from ..steps import Limit, Phase, Plan, Read, Step, Unmet, Where
from ..wishes import Wish, wishes
from . import process

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..isolation.device_policy import Policy

PREFIX = "sandbox-"
"""Each of our cgroups is called this and the sandbox's name: what `sandbox gc` looks for."""

MEASURED = ("memory", "cpuacct", "pids", "io", "blkio")
"""Controllers whose counters make the report, limited or not. cgroup v2 counts CPU time without any."""


class CgroupfsDriver:
    """Makes one cgroup per mounted tree that is needed, writes the limits, and reads every one back."""

    name = "cgroupfs"

    def problems(self, host: Host) -> tuple[str, ...]:
        """See :class:`~sandbox.drivers.Driver`."""
        if not host.hierarchies:
            return ("no cgroup file system is mounted",)
        if all(tree.parent is None for tree in host.hierarchies):
            reasons = dict.fromkeys(tree.reason for tree in host.hierarchies if tree.reason)
            return tuple(reasons) or ("no cgroup may be made below the launcher's own",)
        return ()

    def compile(self, spec: Spec, host: Host, *, name: str) -> Plan:
        """See :class:`~sandbox.drivers.Driver`."""
        plan = plan_below(self.name, spec, host, name=name)
        plan = plan._replace(unmet=(*plan.unmet, *_without_parent(spec, host)))
        if not host.systemd_running:
            return plan
        return plan._replace(notes=(MANAGED, *plan.notes))


def _without_parent(spec: Spec, host: Host) -> Iterator[Unmet]:
    """The cgroup trees that the report reads counters from, and in which ``--cgroup-parent`` does not exist."""
    if spec.cgroup_parent:
        option = spelled("cgroup_parent", spec.cgroup_parent)
        for tree in host.hierarchies:
            if tree.parent is None and not {*MEASURED}.isdisjoint(tree.controllers):
                yield Unmet(realises="cgroup_parent", reason=tree.reason.removeprefix(f"{option}: "),
                            remedy="it must be in each tree that counts: cpuacct, memory, pids and blkio on cgroup v1")


driver = CgroupfsDriver()

MANAGED = ("systemd manages this machine's cgroups: it may take back controllers and values that are set behind its "
           "back, also when an unrelated unit stops; --driver delegated is safe from that")


def plan_below(driver_name: str, spec: Spec, host: Host, *, name: str, unit: str = "", events: str = "",
               wanted: tuple[Sequence[Wish], Sequence[Unmet]] | None = None, shared: Sequence[tuple[Wish, str]] = (),
               before: Iterable[Step] = (), after: Iterable[Step] = ()) -> Plan:
    """The plan that makes cgroups of ours below the ``parent`` of each tree of ``host`` and writes the limits there.

    :param unit: the systemd unit that is made for it.
    :param events: the ``cgroup.events`` of the unit on cgroup v2.
    :param wanted: the result of :func:`~sandbox.wishes.wishes`, if the caller has it already.
    :param shared: values that systemd has set for the unit itself, each with the directory of the unit's cgroup.
    :param before: what has to happen on the host before the first cgroup.
    :param after: what has to happen when the last one is gone.
    """
    found, unmet = wanted or wishes(spec.limits, host)
    policy = _policy(spec, host)
    groups = _groups(name, found, host, policy, everywhere=spec.cgroup_parent is not None)
    figures = _figures(groups.values())
    watches = process.watches(spec, figures)
    limits, more = process.limits(spec, host, watches)
    devices = policy.limits(groups[policy.tree.mount].path) if policy and policy.tree else ()
    paths = tuple(group.path for group in groups.values())
    trees = tuple(group.tree for group in groups.values())
    steps = (
        *process.spawn(spec, host, name=name, watches=watches, cgroups=paths, unit=unit),
        *before,
        *(step for group in groups.values() for step in group.make()),
        *(step for index, wish in enumerate(found) for step in write(index, wish, groups[wish.tree.mount].path)),
        *(read_back(index, wish, place) for index, (wish, place) in enumerate(shared, len(found))),
        *(policy.write(groups[policy.tree.mount].path, len(found) + len(shared)) if policy and policy.tree else ()),
        *process.enter(spec, host, trees),
        *(group.open() for group in groups.values()),
        Step(op="go", phase=Phase.ATTACH),
        *(group.join(index) for index, group in sorted(enumerate(groups.values()), key=born_first)),
        *process.become(spec, host, trees),
        *process.cleanup(host, name=name, cgroups=paths, unit=unit, events=events),
        *after,
    )
    plan = Plan(driver=driver_name, name=name, steps=steps, reads=figures, unmet=(*unmet, *more),
                limits=(*(limit(wish, groups[wish.tree.mount].path, groups[wish.tree.mount].ancestors())
                          for wish in found),
                        *(limit(wish, place, chain(wish.tree.mount, place.removeprefix(wish.tree.mount))[1:])
                          for wish, place in shared), *devices, *limits),
                notes=(*_notes(spec, host, groups.values()), *process.notes(spec, host),
                       *(policy.notes if policy else ())))
    return process.with_network(plan, spec, host)


class Group:
    """The directory that is made in one tree.

    :param tree: the tree.
    :param name: name of the sandbox.
    :param controllers: what it has; on v2 they must be enabled for it.
    """

    def __init__(self, tree: Hierarchy, name: str, controllers: tuple[str, ...]) -> None:
        self.tree = tree
        self.controllers = controllers
        parent = (tree.parent or "/").rstrip("/")
        self.path = f"{tree.mount}{parent}/{PREFIX}{name}"

    def ancestors(self) -> tuple[str, ...]:
        """The directories above ours, nearest first; the root is left out, it has no limits."""
        return chain(self.tree.mount, self.tree.parent or "/")

    def make(self) -> Iterator[Step]:
        """mkdir; on v2 the controllers are enabled from the top down first, and the type is checked after."""
        if self.tree.version == 2:
            for cgroup, enabled in self.tree.enable:
                missing = [name for name in self.controllers if name not in enabled]
                if missing:
                    directory = self.tree.mount + cgroup.rstrip("/")
                    yield Step(op="enable", args=(directory, *missing), phase=Phase.PREPARE)
        yield Step(op="mkdir", args=(self.path,), phase=Phase.PREPARE)
        if self.tree.version == 2 and self.controllers:
            yield Step(op="check_type", args=(self.path,), phase=Phase.PREPARE)
        elif self.tree.version == 1 and "cpuset" in self.tree.controllers:
            # cgroup v1 lets no process in before both are set, and leaves both empty.
            for file in ("cpuset.cpus", "cpuset.mems"):
                yield Step(op="inherit", args=(f"{self.path}/{file}",), phase=Phase.PREPARE)

    def open(self) -> Step:
        """Open what the child joins by, from outside its mount namespace.

        Not ``cgroup.procs``: a write to it waits for an RCU grace period, 12 to 24 ms on an idle machine, because it
        moves all threads of a process. A thread that writes 0 to cgroup v1's ``tasks`` (Linux 5.6) and a child that is
        born in its v2 cgroup (clone3(2), Linux 5.7) are spared that.
        """
        if self.tree.version == 2:
            return Step(op="open_directory", args=(self.path,), phase=Phase.ATTACH)
        return Step(op="open", args=(f"{self.path}/tasks",), phase=Phase.ATTACH)

    def join(self, index: int) -> Step:
        """The child enters the ``index``-th opened cgroup."""
        op = "clone_into_cgroup" if self.tree.version == 2 else "join"
        return Step(op=op, args=(index,), phase=Phase.ATTACH, where=Where.WORKLOAD)


def chain(mount: str, path: str) -> tuple[str, ...]:
    """The directories of a cgroup and of those above it, nearest first, without the root."""
    parts = path.strip("/").split("/")
    return tuple(f"{mount}/{'/'.join(parts[:depth])}" for depth in range(len(parts), 0, -1) if parts[0])


def born_first(numbered: tuple[int, Group]) -> bool:
    """The child is born in a v2 cgroup; it joins the others afterwards."""
    return numbered[1].tree.version != 2


def _policy(spec: Spec, host: Host) -> Policy | None:
    """What says which devices may be opened; none unless some are given."""
    if not spec.device and not spec.gpu:
        return None
    from ..isolation import device_policy

    return device_policy.of_cgroup(spec, host)


def always_taken(host: Host) -> frozenset[str]:
    """Controllers in whose v1 trees every run takes part: they count its use, or programs look for them."""
    return cgroup_view.needed(host).union(MEASURED)


def _groups(name: str, found: Iterable[Wish], host: Host, policy: Policy | None, *,
            everywhere: bool) -> dict[str, Group]:
    """The groups to make, by mount point.

    A tree takes part when it holds a limit, counts something that no other tree does, or is looked for by programs that
    size themselves; cgroup v2 always does.

    :param everywhere: every tree takes part, because each may have a limit in the parent that was asked for.
    """
    trees = [tree for tree in host.hierarchies if tree.parent is not None]
    limited: dict[str, set[str]] = {}
    for wish in found:
        limited.setdefault(wish.tree.mount, set()).add(wish.knob.controller_in(wish.tree.version))
    if policy and policy.tree and policy.tree.version == 1:
        limited.setdefault(policy.tree.mount, set()).add("devices")
    always = always_taken(host)
    groups = {}
    for tree in trees:
        wanted = limited.get(tree.mount, set())
        if tree.version == 2:
            may_count = _countable(tree, host)
            groups[tree.mount] = Group(tree, name, tuple(one for one in tree.usable if one in wanted | may_count))
        elif wanted or everywhere or not always.isdisjoint(tree.controllers):
            groups[tree.mount] = Group(tree, name, tree.controllers)
    return groups


def _countable(tree: Hierarchy, host: Host) -> set[str]:
    """The v2 controllers to enable for their counters alone: not in a tree that systemd manages, if they are off."""
    if not host.systemd_running or host.manager.delegated or ".scope" in (tree.parent or ""):
        return {*MEASURED}
    return {name for name in MEASURED if all(name in enabled for _, enabled in tree.enable)}


def _figures(groups: Iterable[Group]) -> tuple[Read, ...]:
    """What the groups yield. In hybrid mode two trees know the CPU time: the first one is asked."""
    found: dict[tuple[str, str], Read] = {}
    for group in groups:
        for read in reads(group.tree, group.path, group.controllers):
            several = read.file if read.unit in ("blkio", "io.stat", "psi", "hugetlb") else ""
            found.setdefault((read.figure, several), read)
    return tuple(found.values())


def write(index: int, wish: Wish, cgroup: str) -> Iterator[Step]:
    """Write one limit, then read it back: ``index`` is its place in the plan's limits, which say what must be read."""
    texts = wish.knob.encode(wish.value, wish.tree.version)
    for path, text in zip(_files(wish, cgroup), texts, strict=True):
        yield Step(op="write", args=(path, text), phase=Phase.PREPARE, realises=wish.realises)
    yield read_back(index, wish, cgroup)


def read_back(index: int, wish: Wish, cgroup: str) -> Step:
    """Read what the kernel holds."""
    return Step(op="read_back", args=(index, *_files(wish, cgroup)), phase=Phase.PREPARE, realises=wish.realises)


def limit(wish: Wish, cgroup: str, ancestors: tuple[str, ...]) -> Limit:
    """The plan's row for a wish whose files are in ``cgroup``, an absolute path."""
    version, note = wish.tree.version, wish.note
    if wish.file in WEIGHTS:
        note = f"{note}; " * bool(note) + f"relative to the other cgroups in {cgroup.rpartition('/')[0]}"
    return Limit(realises=wish.realises, asked=wish.asked, applied=" ".join(wish.knob.encode(wish.value, version)),
                 files=_files(wish, cgroup), knob=wish.knob.field, value=wish.value, version=version,
                 ancestors=ancestors, note=note)


def _files(wish: Wish, cgroup: str) -> tuple[str, ...]:
    return tuple(f"{cgroup}/{file}" for file in wish.knob.files(wish.tree.version))


def _notes(spec: Spec, host: Host, groups: Iterable[Group]) -> Iterator[str]:
    yield from dict.fromkeys(group.tree.reason for group in groups if group.tree.reason)
    rates = (spec.limits.device_read_bps, spec.limits.device_write_bps, spec.limits.device_read_iops,
             spec.limits.device_write_iops)
    tree = host.hierarchy("blkio")
    if any(rates) and tree is not None and tree.version == 1:
        yield ("cgroup v1 limits direct I/O and what is read or synced through the cache; buffered writes that the "
               "kernel writes back later are not limited")
