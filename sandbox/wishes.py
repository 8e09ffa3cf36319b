"""From :class:`~sandbox.spec.Limits` to values for knobs: resolve percents, convert units, round once.

Shared by every driver, so that the same Spec leads to the same kernel values whoever writes them.
"""

from __future__ import annotations

from . import knobs
from .errors import SpecError
from .facts import Hierarchy
from .host import UNIT_CONTROLLERS, Host
from .knobs import KNOBS, Knob
from .records import UNLIMITED, Bytes, DeviceRate, Percent
from .spec import Limits
from .spelling import spelled
from .stdlib import TYPE_CHECKING, Any, NamedTuple
from .steps import Unmet
from .units import MAX_INT, show_bytes, show_cpus

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_PERIOD = 100_000
"""Microseconds: the kernel's and docker's CPU period."""
MIN_QUOTA = 1_000
"""Microseconds: the kernel refuses a smaller quota or period."""
MAX_PERIOD = 1_000_000


MAX_IOPS = 2**32 - 1
"""``blkio.throttle.*_iops_device`` and ``io.max`` keep 32 bits."""
NO_QUOTA = "no effect, because there is no quota"
SOFT_LIMIT = ("a soft limit on cgroup v1: when the machine is short of memory, the kernel reclaims first from the "
              "cgroups that exceed theirs; it protects no memory")
"""Source: ``Documentation/admin-guide/cgroup-v1/memory.rst``, "Soft limits"."""
SMALLEST_MEMORY = 2 << 20
"""Bytes: the smallest memory limit under which every driver can start a command.

The kernel charges its own structures of each process, 70 to 100 KiB, and the first pages of a program to the limit.
Under systemd the init is charged to it as well, and would be the only process that the OOM killer can choose. To start
a service, systemd 257 itself needs 1.6 MiB (``systemd-executor``), of which the driver makes up for 0.5.
"""

RATES = ("device_read_bps", "device_write_bps", "device_read_iops", "device_write_iops")
PER_DISK = (*RATES, "blkio_weight_device")
"""Fields of knobs whose value begins with the number of a disk."""


class Wish(NamedTuple):
    """One value for one knob.

    :param knob: the row of the table.
    :param value: what :attr:`Knob.encode` takes.
    :param tree: the hierarchy whose file will hold it.
    :param realises: the Spec field it comes from; differs from the knob's for aliases such as ``--cpu-shares``.
    :param asked: the value as the user put it.
    :param note: a conversion or rounding worth telling.
    """

    knob: Knob
    value: Any
    tree: Hierarchy
    realises: str
    asked: str
    note: str = ""

    @property
    def file(self) -> str:
        """The name of the kernel file, the last one if there are several."""
        return self.knob.files(self.tree.version)[-1]

    @property
    def relative(self) -> bool:
        """Whether the effect depends on other cgroups: a weight on the siblings, a protection on the ancestors."""
        return self.file in knobs.WEIGHTS or self.file in knobs.PROTECTIONS


def wishes(limits: Limits, host: Host) -> tuple[list[Wish], list[Unmet]]:
    """Sort ``limits`` into what a kernel file can hold here and what cannot be done.

    Order matters to the kernel: the period before the quota, the quota before the burst, memory before memory plus
    swap. :data:`~sandbox.knobs.KNOBS` is in that order; raw ``--cgroup-conf`` files come last.
    """
    found: list[Wish] = []
    unmet: list[Unmet] = []
    for candidate in _candidates(limits, host):
        if isinstance(candidate, Unmet):
            unmet.append(candidate)
        else:
            found.append(candidate)
    _refuse_rivals(found)
    return found, unmet


def _refuse_rivals(found: list[Wish]) -> None:
    """Refuse two values for one thing, which may have two names: a disk, a size of huge pages, a kernel file.

    :raises SpecError: naming both.
    """
    taken: dict[tuple[str, ...], Wish] = {}
    for wish in found:
        for mount, file, disk, key in _content(wish):
            other = taken.setdefault((mount, file, disk, key), wish)
            if other.value != wish.value:
                what = f"{file} of disk {disk}" if disk else file
                raise SpecError(f"{_typed(other)} and {_typed(wish)} are two values for {what}", field=wish.realises,
                                hint="give one of them")


def _content(wish: Wish) -> Iterator[tuple[str, str, str, str]]:
    """What the wish writes to: mount point of the tree, file, number of the disk, and the key in the disk's line.

    The last two are empty unless the file has a line for each disk.
    """
    for file in wish.knob.files(wish.tree.version):
        if wish.knob.field in PER_DISK:
            yield wish.tree.mount, file, wish.value[0], wish.knob.field if file == "io.max" else ""
        elif wish.knob.field != "cgroup_conf" or " " not in wish.value or file == "cpu.max":
            yield wish.tree.mount, file, "", ""


def _typed(wish: Wish) -> str:
    return spelled(wish.realises, wish.asked)


def _candidates(limits: Limits, host: Host) -> Iterator[Wish | Unmet]:
    yield from _cpu(limits, host)
    yield from _memory(limits, host)
    if limits.pids_limit is not None:
        yield make(host, KNOBS["pids_limit"], limits.pids_limit, "pids_limit")
    yield from _io(limits, host)
    for page in limits.hugetlb:
        asked = f"{show_bytes(page.page_size)}:{_shown(page.limit)}"
        tree = host.hierarchy("hugetlb")
        yield make(host, knobs.hugetlb(page.page_size, tree.files if tree else ()), page.limit, "hugetlb", asked=asked)
    for conf in limits.cgroup_conf:
        yield make(host, knobs.other(conf.file), conf.value, "cgroup_conf", asked=f"{conf.file}={conf.value}")


# -- one controller after another ----------------------------------------------------------------------------------

def _cpu(limits: Limits, host: Host) -> Iterator[Wish | Unmet]:
    if limits.cpus is not None or limits.cpu_quota is not None or limits.cpu_period is not None:
        yield _quota(limits, host)
    if limits.cpu_burst is not None:
        note = NO_QUOTA if limits.cpus is None and limits.cpu_quota in (None, UNLIMITED) else ""
        yield make(host, KNOBS["cpu_burst"], limits.cpu_burst, "cpu_burst", note=note)
    yield from _cpu_share(limits, host)
    for field in ("cpuset_cpus", "cpuset_mems"):
        value = getattr(limits, field)
        if value is not None:
            yield make(host, KNOBS[field], value, field)


def _quota(limits: Limits, host: Host) -> Wish | Unmet:
    period = limits.cpu_period or DEFAULT_PERIOD
    if limits.cpus is None:
        quota: int | str = UNLIMITED if limits.cpu_quota is None else limits.cpu_quota
        field = "cpu_period" if limits.cpu_quota is None else "cpu_quota"
        return make(host, KNOBS["cpus"], (quota, period), field, asked=f"{quota} us of {period} us",
                    note=NO_QUOTA if limits.cpu_quota is None else "")
    quota = round(limits.cpus * period)
    note = ""
    if quota < MIN_QUOTA:
        period = min(round(MIN_QUOTA / limits.cpus), MAX_PERIOD)
        quota = MIN_QUOTA
        note = f"the kernel's smallest quota is {MIN_QUOTA} us, so the period becomes {period} us"
    elif quota != limits.cpus * period:
        note = f"rounded to {quota} us of {period} us"
    return make(host, KNOBS["cpus"], (quota, period), "cpus", asked=show_cpus(limits.cpus), note=note)


def _cpu_share(limits: Limits, host: Host) -> Iterator[Wish | Unmet]:
    knob = KNOBS["cpu_weight"]
    version = _version(host, knob)
    if limits.cpu_shares is not None:
        if version == 1:
            yield make(host, knob, limits.cpu_shares, "cpu_shares")
        else:
            weight = knobs.weight_from_shares(limits.cpu_shares)
            yield make(host, knob, weight, "cpu_shares", asked=str(limits.cpu_shares),
                        note=f"shares {limits.cpu_shares} are weight {weight} (runc >= 1.3.2, crun >= 1.23)")
    if limits.cpu_weight is not None:
        shares = knobs.shares_from_weight(limits.cpu_weight)
        value, note = (shares, f"weight {limits.cpu_weight} is {shares} shares (as systemd)") if version == 1 else (
            limits.cpu_weight, "")
        yield make(host, knob, value, "cpu_weight", asked=str(limits.cpu_weight), note=note)
    if limits.cpu_idle:
        yield make(host, KNOBS["cpu_idle"], 1, "cpu_idle")


def _memory(limits: Limits, host: Host) -> Iterator[Wish | Unmet]:
    for field in ("memory", "memory_high", "memory_low", "memory_min"):
        value = getattr(limits, field)
        if value is not None:
            count, note = _whole_pages(value, host)
            if field == "memory" and isinstance(count, int) and count < SMALLEST_MEMORY:
                raise SpecError(f"{spelled(field, _shown(value))} is too little to start any command",
                                field="limits.memory", hint=f"give {show_bytes(SMALLEST_MEMORY)} or more")
            if field == "memory_low" and _version(host, KNOBS[field]) == 1:
                note = "; ".join(filter(None, (note, SOFT_LIMIT)))
            yield make(host, KNOBS[field], count, field, asked=_shown(value), note=note)
    yield from _swap(limits, host)
    if limits.memory_swappiness is not None:
        yield make(host, KNOBS["memory_swappiness"], limits.memory_swappiness, "memory_swappiness")
    if limits.oom_group:
        yield make(host, KNOBS["oom_group"], 1, "oom_group")


def _swap(limits: Limits, host: Host) -> Iterator[Wish | Unmet]:
    """docker's ``--memory-swap`` (memory plus swap) and the plain ``--swap-max`` in the unit of each version."""
    knob = KNOBS["swap_max"]
    version = _version(host, knob)
    memory = None if limits.memory is None else _whole_pages(limits.memory, host)[0]
    if limits.memory_swap is not None:
        field, asked = "memory_swap", _shown(limits.memory_swap)
        total = _whole_pages(limits.memory_swap, host)[0]
        swap = UNLIMITED if UNLIMITED in (total, memory) else int(total) - int(memory or 0)
    elif limits.swap_max is not None:
        field, asked = "swap_max", _shown(limits.swap_max)
        swap = _whole_pages(limits.swap_max, host)[0]
    elif memory is not None and memory != UNLIMITED and host.swap_total:
        # Without it a memory limit would only push the workload into swap. As much swap as memory is docker's rule.
        field, asked, swap = "memory", _shown(limits.memory), memory
    else:
        return
    if isinstance(swap, int) and swap < 0:
        reason = f"memory plus swap ({asked}) is less than memory ({_shown(memory)})"
        yield Unmet(realises=f"limits.{field}", reason=reason, remedy=f"use {spelled('swap_max')} to limit swap alone")
    elif version == 2 or swap == UNLIMITED:
        note = {"memory_swap": f"{asked} is memory plus swap; {_shown(swap)} of it is swap",
                "memory": "as much swap as memory, docker's default"}.get(field, "")
        yield make(host, knob, swap, field, asked=asked, note=note)
    elif memory is None or memory == UNLIMITED:
        yield Unmet(realises=f"limits.{field}", reason="memory.memsw.limit_in_bytes of cgroup v1 limits memory plus "
                    "swap and has no limit for swap alone", remedy=f"give {spelled('memory')} as well")
    else:
        yield make(host, knob, int(memory) + int(swap), field, asked=asked, note="" if field == "memory_swap" else
                    f"cgroup v1 counts memory plus swap: {_shown(memory)} + {_shown(swap)}")


def _io(limits: Limits, host: Host) -> Iterator[Wish | Unmet]:
    for field in RATES:
        for rate in getattr(limits, field):
            if field.endswith("iops") and rate.rate > MAX_IOPS:
                raise SpecError(f"{spelled(field, f'{rate.path}:{rate.rate}')} is more than the kernel can count",
                                field=f"limits.{field}", hint=f"give {MAX_IOPS} or less")
            yield on_disk(host, KNOBS[field], rate, rate.rate, field)
    if limits.has_io_weight:
        from .io_weights import candidates

        yield from candidates(limits, host)


def on_disk(host: Host, knob: Knob, wish: DeviceRate, value: int | str, field: str, note: str = "") -> Wish | Unmet:
    """Return the wish for a limit of one disk, or the reason why there is no disk behind the path."""
    disk = host.disk(wish.path)
    if disk is None or not disk.device:
        reason = disk.reason if disk else "this record of the host does not know the path"
        return Unmet(realises=f"limits.{field}", reason=f"{wish.path}: {reason}",
                     remedy="name a disk, or a file or directory on one")
    chain = " -> ".join(disk.chain)
    return make(host, knob, (disk.device, value), field, asked=f"{wish.path}:{wish.rate}",
                 note="; ".join(text for text in (chain if wish.path != disk.device else "", note) if text))


# -- where it would go -----------------------------------------------------------------------------------------------

def tree_of(host: Host, knob: Knob) -> Hierarchy | None:
    """Return the mounted cgroup tree with the knob's controller; None if no tree has it."""
    return next((tree for tree in host.hierarchies if knob.controller_in(tree.version) in tree.controllers), None)


def _version(host: Host, knob: Knob) -> int:
    tree = tree_of(host, knob)
    return tree.version if tree else 2


def make(host: Host, knob: Knob, value: Any, field: str, *, asked: str | None = None, note: str = "") -> Wish | Unmet:
    """Return the wish for a value of a knob, or the reason why no kernel file of this machine can hold it.

    :param field: of :class:`~sandbox.spec.Limits`.
    """
    realises = f"limits.{field}"
    tree = tree_of(host, knob)
    names = "/".join(dict.fromkeys((knob.controller, knob.controller_in(1))))
    if tree is None:
        file = (knob.v2 or knob.v1)[0]
        if not host.hierarchies:
            from .surroundings import for_no_cgroups

            return Unmet(realises=realises, reason=f"{file}: no cgroup file system is mounted",
                         remedy=for_no_cgroups(host.around))
        return Unmet(realises=realises, reason=f"{file}: no mounted cgroup tree has the {names} controller",
                     remedy="see the controllers that `sandbox info` lists; a kernel parameter such as "
                            f"cgroup_disable={knob.controller} switches one off")
    reason, remedy = _obstacle(tree, knob, host)
    if reason:
        return Unmet(realises=realises, reason=reason, remedy=remedy)
    return Wish(knob=knob, value=value, tree=tree, realises=realises, asked=str(value) if asked is None else asked,
                note=note)


DELEGATE = ("as root: mkdir -p /etc/systemd/system/user@.service.d; "
            f"printf '[Service]\\nDelegate={' '.join(UNIT_CONTROLLERS)}\\n' "
            ">/etc/systemd/system/user@.service.d/delegate.conf; systemctl daemon-reload; then log in anew")
"""What gives the user's manager more than memory and pids."""
CPUSET = "; before Linux 6.6 the kernel may refuse cpuset while other users have processes: then reboot"


def _obstacle(tree: Hierarchy, knob: Knob, host: Host) -> tuple[str, str]:
    """Why ``tree`` cannot hold the knob, and what to do about it; empty texts when it can."""
    controller = knob.controller_in(tree.version)
    files = knob.files(tree.version)
    if not files:
        other, there = (knob.v2, "boot with systemd.unified_cgroup_hierarchy=1 for cgroup v2") if knob.v2 else (
            knob.v1, "only cgroup v1 has it")
        return (f"{other[0]}: the {controller} controller of cgroup v{tree.version} has no such file",
                f"{there}, or run with {spelled('best_effort', True)}")
    if tree.parent is None:
        reason, _, remedy = tree.reason.partition("; ")
        return f"{files[0]}: {reason}", remedy or (
            f"give a {spelled('cgroup_parent')} that is there and that you may write to"
            + (", or run as root" if host.uid else ""))
    if controller not in tree.usable and tree.parent.endswith((".scope", ".service")):
        known = controller in UNIT_CONTROLLERS
        remedy = DELEGATE + (CPUSET if controller == "cpuset" else "")
        return (f"{files[0]}: systemd does not give the {controller} controller to "
                + ("units of this user" if host.manager.user and known else "units"),
                remedy if host.manager.user and known else f"use {spelled('driver', 'cgroupfs')} as root")
    if controller not in tree.usable:
        return (f"{files[0]}: the {controller} controller is not enabled for children of {tree.mount}{tree.parent}",
                f"echo +{controller} > {tree.mount}{tree.parent.rstrip('/')}/cgroup.subtree_control, or delegate it")
    missing = [file for file in files if tree.files and file not in tree.files]
    if missing:
        since = f" (since Linux {knob.since})" if knob.since and tree.version == 2 else ""
        return f"{missing[0]}: this kernel's {controller} controller has no such file{since}", (
            f"run with {spelled('best_effort', True)}")
    return "", ""


def _shown(value: object) -> str:
    return show_bytes(value) if isinstance(value, int) else str(value)


def _whole_pages(value: Bytes, host: Host) -> tuple[int | str, str]:
    """Bytes as the kernel keeps them, in whole pages, rounded down; and a note when that changed them."""
    if value == UNLIMITED:
        return UNLIMITED, ""
    count = int(host.memory_total * value.value / 100) if isinstance(value, Percent) else int(value)
    whole = count - count % host.page_size
    if whole >= MAX_INT - host.page_size:
        return UNLIMITED, "the kernel's largest value, which is no limit"
    if isinstance(value, Percent):
        return whole, f"{value} of {host.memory_total}"
    return whole, "" if whole == count else f"{count} rounded down to whole pages"
