"""Limits as properties of a systemd unit: what systemd can be told, in which unit of measure, rounded once.

Sources: org.freedesktop.systemd1(5), systemd.resource-control(5), and systemd's ``dbus-cgroup.c``.
"""

from __future__ import annotations

from ..facts import Property
from ..knobs import io_weight_from_bfq
from ..records import UNLIMITED
from ..stdlib import TYPE_CHECKING
from ..units import cpu_numbers
from ..wishes import DEFAULT_PERIOD, MIN_QUOTA, Wish

INFINITY = str(2**64 - 1)
"""How D-Bus says that there is no limit."""
PERCENT = 10_000
"""Microseconds of CPU time per second: 1 %."""
FINE_SINCE = 257
"""The oldest systemd that is known to keep a finer CPU quota. 252 writes the drop-in of a transient unit in whole
percent, so that 12.5 % are 12 % after the next daemon-reload (bus_cgroup_set_cpu_quota)."""
SECOND = 1_000_000


def number(name: str, value: int | str) -> Property:
    """A property that is an unsigned number, or infinity."""
    return Property(name, "t", (INFINITY if value == UNLIMITED else str(value),))


def text(name: str, value: str) -> Property:
    """A property that is a text."""
    return Property(name, "s", (value,))


def switch(name: str, *, on: bool = True) -> Property:
    """A property that is a boolean."""
    return Property(name, "b", (str(int(on)),))


def rounded(wish: Wish, version: int) -> Wish:
    """The wish as systemd ``version`` can keep it: CPU quota in whole percent or hundredths of a percent, rounded up.

    systemd makes the period longer where the quota would be below the kernel's 1 ms (cgroup_cpu_adjust_period); with
    a whole percent and the default period that does not happen.
    """
    if wish.knob.field != "cpus" or wish.value[0] == UNLIMITED:
        return wish
    quota, period = wish.value
    per_second = _per_second(quota, period, version)
    period = min(max(period, MIN_QUOTA * SECOND // per_second), SECOND)
    fresh = (max(per_second * period // SECOND, MIN_QUOTA), period)
    if fresh == wish.value:
        return wish
    kept = "whole percent" if version < FINE_SINCE else "hundredths of a percent"
    note = f"systemd {version} keeps {kept}: {per_second / PERCENT:g} % is {fresh[0]} us of {period} us"
    return wish._replace(value=fresh, note="; ".join(one for one in (wish.note, note) if one))


def _per_second(quota: int, period: int, version: int) -> int:
    """Microseconds per second, rounded up to what systemd ``version`` keeps."""
    unit = PERCENT if version < FINE_SINCE else PERCENT // 100
    return -(-quota * SECOND // (period * unit)) * unit


def properties(wish: Wish, version: int) -> tuple[Property, ...]:
    """How systemd ``version`` is told of a :func:`rounded` wish; empty when it has no property for it.

    What has none is file-only: it goes into a cgroup of ours below the unit.
    """
    if not wish.knob.property or wish.knob.field == "oom_group":
        return ()  # OOMPolicy=kill would take the init along, which holds the unit
    if wish.knob.field == "cpus":
        return _quota(wish, version)
    if wish.tree.version == 1:
        return _LEGACY.get(wish.knob.field, _nothing)(wish)
    if wish.knob.field == "cpu_idle":
        return (number("CPUWeight", 0),) if version >= 252 else ()
    return _UNIFIED.get(wish.knob.field, _number)(wish)


def _nothing(wish: Wish) -> tuple[Property, ...]:
    return ()


def _number(wish: Wish) -> tuple[Property, ...]:
    return (number(wish.knob.property, wish.value),)


def _quota(wish: Wish, version: int) -> tuple[Property, ...]:
    quota, period = wish.value
    per_second = UNLIMITED if quota == UNLIMITED else _per_second(quota, period, version)
    found = [number("CPUQuotaPerSecUSec", per_second)]
    if period != DEFAULT_PERIOD:
        found.append(number("CPUQuotaPeriodUSec", period))
    return tuple(found)


def _shares(wish: Wish) -> tuple[Property, ...]:
    """cgroup v1's own unit, which systemd knows until version 258 drops cgroup v1."""
    return (number("CPUShares", wish.value),)


def _set(wish: Wish) -> tuple[Property, ...]:
    """A set of CPUs or nodes: a bit mask, least significant byte first."""
    bits = sum(1 << one for one in cpu_numbers(wish.value))
    mask = bits.to_bytes(max((bits.bit_length() + 7) // 8, 1), "little")
    return (Property(wish.knob.property, "ay", tuple(map(str, mask))),)


def _io_weight(wish: Wish) -> tuple[Property, ...]:
    """systemd converts its weight for bfq's file, which has a narrower range (since version 249)."""
    return (number(wish.knob.property, _weight(wish, wish.value)),)


def _device_weight(wish: Wish) -> tuple[Property, ...]:
    device, weight = wish.value
    return _device(wish._replace(value=(device, _weight(wish, weight))))


def _weight(wish: Wish, weight: int) -> int:
    return io_weight_from_bfq(weight) if wish.file == "io.bfq.weight" else weight


def _device(wish: Wish) -> tuple[Property, ...]:
    """By number: systemd resolves a path to the file system it is on, we have gone to the whole disk already."""
    device, amount = wish.value
    return (Property(wish.knob.property, "a(st)",
                     (f"/dev/block/{device}", INFINITY if amount == UNLIMITED else str(amount))),)


if TYPE_CHECKING:
    from collections.abc import Callable

    Convert = Callable[[Wish], tuple[Property, ...]]

_UNIFIED: dict[str, Convert] = {
    "cpuset_cpus": _set, "cpuset_mems": _set, "io_weight": _io_weight,
    "blkio_weight_device": _device_weight,
    "device_read_bps": _device, "device_write_bps": _device, "device_read_iops": _device,
    "device_write_iops": _device,
}
_LEGACY: dict[str, Convert] = {
    "cpu_weight": _shares, "memory": _number, "pids_limit": _number,
    "device_read_bps": _device, "device_write_bps": _device,
}
"""What systemd translates for cgroup v1; it leaves swap, IOPS and cpusets of v1 alone."""
