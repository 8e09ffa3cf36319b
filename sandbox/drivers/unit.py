"""What the drivers that go through systemd share: where a unit's cgroup is, and the steps that make and end a unit.

Sources: systemd.slice(5), systemd.scope(5), org.freedesktop.systemd1(5), and systemd's CGROUP_DELEGATION.md: a cgroup
has one writer, so nothing is written into a unit's own directory; what systemd has no property for goes into a cgroup
below it, and then the unit is delegated.
"""

from __future__ import annotations

from ..facts import Hierarchy, Property
from ..host import Host
from ..knobs import KNOBS
from ..spec import Spec
from ..spelling import spelled
from ..stdlib import TYPE_CHECKING
from ..steps import Phase, Step, Unmet, Where
from .cgroupfs import PREFIX
from .properties import number, switch, text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..wishes import Wish

MANAGED_V1 = frozenset(("cpu", "cpuacct", "memory", "pids", "blkio", "devices"))
"""Controllers of cgroup v1 that systemd makes groups for."""
ACCOUNTING = {"cpu": "CPUAccounting", "memory": "MemoryAccounting", "pids": "TasksAccounting", "io": "IOAccounting"}
"""The property that has a controller count, limited or not."""
ALWAYS_COUNTED = frozenset(("memory", "pids"))
"""systemd counts these in every unit unless it is told not to (systemd-system.conf(5))."""
PROCESSES = "processes"
"""What the cgroup is called that the unit's own processes move into when the unit is split."""
PIDFDS_SINCE = 255
"""systemd's version that takes pidfds in place of process ids, which another process might have got meanwhile."""


def slice_path(name: str) -> str:
    """``a-b.slice`` is at ``/a.slice/a-b.slice``, ``-.slice`` at the root (systemd.slice(5))."""
    words = name.removesuffix(".slice").split("-")
    if not any(words):
        return ""
    return "".join(f"/{'-'.join(words[:depth])}.slice" for depth in range(1, len(words) + 1))


def default_slice(*, user: bool) -> str:
    """Return the slice that systemd puts a unit in when no slice is given (``unit_set_default_slice()``).

    :param user: the manager is the user's.
    """
    return "app.slice" if user else "system.slice"


def slice_of(spec: Spec, host: Host) -> str:
    """The slice the unit goes to: what was asked for, else where the manager itself puts such units."""
    return spec.slice or default_slice(user=host.manager.user)


def slice_cgroup(name: str, host: Host) -> str:
    """The cgroup of a slice below the root of each tree."""
    return f"{host.manager.control_group.rstrip('/')}{slice_path(name)}"


def unit_name(spec: Spec, name: str, kind: str) -> str:
    """The unit's name: what was asked for, else ours, with its suffix."""
    stem = spec.unit or PREFIX + name
    return stem if stem.endswith(f".{kind}") else f"{stem}.{kind}"


def cgroup_of(unit: str, spec: Spec, host: Host) -> str:
    """The unit's cgroup below the root of each tree."""
    return f"{slice_cgroup(slice_of(spec, host), host)}/{unit}"


def is_managed(tree: Hierarchy) -> bool:
    """systemd makes the unit's group in this tree."""
    return tree.version == 2 or (not MANAGED_V1.isdisjoint(tree.controllers) and tree.controllers != ("cpuacct",))


def placed(host: Host, cgroup: str, *, enabled: tuple[str, ...] = ()) -> Host:
    """The host as seen from inside the unit: new cgroups are made below ``cgroup`` where systemd manages the tree.

    :param enabled: v2: controllers that its children have already.
    """
    return host._replace(hierarchies=tuple(_placed(tree, host, cgroup, enabled) if is_managed(tree) else tree
                                           for tree in host.hierarchies))


def _placed(tree: Hierarchy, host: Host, cgroup: str, enabled: tuple[str, ...]) -> Hierarchy:
    usable = tree.controllers
    if tree.version == 2:
        usable = tuple(name for name in usable if name in host.manager.controllers)
    return tree._replace(parent=cgroup, reason="", usable=usable,
                         enable=((cgroup, enabled),) if tree.version == 2 else ())


def untyped(spec: Spec, host: Host) -> Iterator[Unmet]:
    """``--property`` on a saved host. systemd tells the D-Bus types of properties, and the file does not have them."""
    if len(host.manager.properties) < len(spec.property):
        yield Unmet(realises="property", reason=f"{', '.join(spec.property)}: the saved host does not say what type "
                    "systemd gives it", remedy="explain it on that host")


def without_effect(wish: Wish, host: Host) -> Unmet:
    """Why a weight or a protection of memory is refused: systemd cannot set it for the unit.

    In a cgroup below the unit, a weight has no sibling to compete with, and a protection is void if the unit has none.
    """
    version, option = wish.tree.version, ""
    if wish.knob.field == "cgroup_conf":
        fields = [knob.field for knob in KNOBS.values() if version == 2 and wish.file in knob.files(2)]
        option = spelled(fields[0]) if fields else ""
    if option:
        return Unmet(realises=wish.realises, reason=f"{wish.file}: only systemd writes the unit's own files, and in a "
                     "cgroup below the unit it would have no effect", remedy=f"use {option}, a property of the unit")
    return Unmet(realises=wish.realises, reason=f"{wish.file}: systemd {host.manager.version} has no property for it "
                 f"on cgroup v{version}, and in a cgroup below the unit it would have no effect",
                 remedy=f"use {spelled('driver', 'cgroupfs')} as root")


def common(spec: Spec, host: Host, name: str, *, delegate: bool, accounted: Iterable[str]) -> Iterator[Property]:
    """The properties of every unit of ours, whatever its limits are.

    :param accounted: the controllers whose counters are read. One more than is on already is dear: systemd enables it
        for every sibling, moves their processes, and takes it back when the unit goes.
    """
    yield text("Description", f"sandbox {name}")
    yield text("Slice", slice_of(spec, host))
    # What is left of a failed unit would keep its name; everything worth knowing is read before it ends.
    yield text("CollectMode", "inactive-or-failed")
    yield number("TimeoutStopUSec", max(round(spec.stop_timeout * 1_000_000), 1_000_000))
    for controller, words in ACCOUNTING.items():
        if controller in accounted:
            yield switch(words)
    if delegate:
        yield switch("Delegate")


def delegated_controllers(host: Host) -> frozenset[str]:
    """What a delegated unit has counted: on v1 that is what makes systemd create its groups, on v2 all are there."""
    return ALWAYS_COUNTED if host.cgroup_mode == "v2" else frozenset(ACCOUNTING)


def oom_policy(kind: str, host: Host, *, delegate: bool) -> Iterator[Property]:
    """The property that keeps the unit running after the kernel has killed one of its processes for memory.

    By default systemd then stops the whole unit. Scopes have ``OOMPolicy=`` since systemd 253. Some releases of 252
    have it too, and in these a delegated scope keeps running; the other releases accept the delegation, without effect.
    No controller is delegated.

    :param delegate: the unit is delegated anyway.
    """
    if kind == "service" or host.manager.version >= 253:
        yield text("OOMPolicy", "continue")
    elif host.cgroup_mode == "v2" and not delegate:  # on v1 the kernel does not tell systemd of a kill
        yield Property("DelegateControllers", "as", ())


def oom_notes(kind: str, host: Host) -> Iterator[str]:
    """Yield a note if systemd stops a scope after the kernel has killed one of its processes for memory."""
    if kind == "scope" and host.cgroup_mode == "v2" and host.manager.version < 252:
        service = f"{spelled('driver', 'systemd')} {spelled('unit_type', 'service')}"
        yield (f"systemd {host.manager.version} stops the whole scope once the kernel has killed a process in it for "
               f"memory: with {service} the other processes go on")


def tell(found: Iterable[Property], realises: str = "") -> Iterator[Step]:
    """A step per property; the call that starts the unit carries them all."""
    for one in found:
        yield Step(op="property", args=(one.name, one.signature, *one.words), phase=Phase.PREPARE, realises=realises)


def start(unit: str, host: Host, *processes: str) -> Step:
    """Start the scope.

    :param processes: ``guard``, ``init``: a scope is made around processes that exist.
    """
    kind = "PIDFDs" if host.manager.version >= PIDFDS_SINCE else "PIDs"
    return Step(op="start_unit", args=(_manager(host), unit, kind, *processes), phase=Phase.PREPARE)


def start_service(unit: str, host: Host) -> Step:
    """Start the service, whose main process becomes the guard."""
    return Step(op="start_service", args=(_manager(host), unit), phase=Phase.SPAWN)


def attach(unit: str, host: Host) -> Step:
    """Have systemd move the init in beside the processes that hold the unit. Without root it may not move there
    itself, and its child, the workload, could not be born below the unit (cgroups(7))."""
    return Step(op="attach", args=(_manager(host), unit, f"/{PROCESSES}", "init"), phase=Phase.PREPARE)


def read_property(unit: str, host: Host, one: Property, realises: str) -> Step:
    """See that systemd has taken it."""
    return Step(op="read_property", args=(_manager(host), unit, one.name, *one.words), phase=Phase.PREPARE,
                realises=realises)


def stop(unit: str, host: Host) -> Step:
    """See to it that the unit is gone."""
    return Step(op="stop_unit", args=(_manager(host), unit), phase=Phase.CLEANUP)


def events(host: Host, cgroup: str) -> str:
    """The file by which cgroup v2 tells systemd that the unit is empty; empty on v1, where nothing does."""
    if host.cgroup_mode != "v2":
        return ""
    return next(f"{tree.mount}{cgroup}/cgroup.events" for tree in host.hierarchies if tree.version == 2)


def split(host: Host, cgroup: str) -> Iterator[Step]:
    """v2: a cgroup with processes in it cannot have children with controllers (cgroups(7)), so they move below."""
    for tree in host.hierarchies:
        if tree.version == 2:
            there = f"{tree.mount}{cgroup}/{PROCESSES}"
            yield Step(op="split", args=(tree.mount + cgroup, there), phase=Phase.PREPARE)


def enable(host: Host, cgroup: str) -> Iterator[Step]:
    """v2: give the children of ``cgroup`` every controller there is."""
    for tree in host.hierarchies:
        if tree.version == 2 and tree.usable:
            yield Step(op="enable", args=(tree.mount + cgroup, *tree.usable), phase=Phase.PREPARE)


def tell_init() -> Step:
    """Learn the process id of the init, which the scope is made around."""
    return Step(op="tell_init", phase=Phase.SPAWN, where=Where.GUARD)


def hold() -> Step:
    """Keep the unit's cgroup until it was read: systemd removes an empty one at once."""
    return Step(op="hold", phase=Phase.ENTER, where=Where.INIT)


def in_cgroup(tree: Hierarchy, cgroup: str) -> Step:
    """The workload looks for itself whether it is where it should be."""
    controllers = ",".join(tree.controllers) if tree.version == 1 else ""
    return Step(op="in_cgroup", args=(f"{controllers}:{cgroup}",), phase=Phase.ATTACH, where=Where.WORKLOAD)


def _manager(host: Host) -> str:
    return "user" if host.manager.user else "system"
