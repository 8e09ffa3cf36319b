"""Every limit that is a kernel file: one row per knob, for cgroup v2, cgroup v1 and systemd.

Sources: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/ of the kernel, org.freedesktop.systemd1(5). A row's
``encode`` turns a value into what is written, ``decode`` turns what the kernel says back into the value. "No limit"
is :data:`~sandbox.records.UNLIMITED` here, because that is a value one can write.
"""

from __future__ import annotations

from .records import UNLIMITED
from .stdlib import TYPE_CHECKING, Any, NamedTuple

V1_UNLIMITED = 0x7FFFFFFFFFFFF000
"""What cgroup v1's memory files say when there is no limit, with 4 KiB pages: PAGE_COUNTER_MAX in bytes."""

V1_CONTROLLER = {"io": "blkio"}
"""Controllers that cgroup v1 knows under another name."""

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Encode = Callable[[Any, int], tuple[str, ...]]
    Decode = Callable[[tuple[str, ...], int, Any], Any]


class Knob(NamedTuple):
    """One limit in every spelling.

    :param field: field of :class:`~sandbox.spec.Limits`.
    :param controller: kernel name on cgroup v2; :data:`V1_CONTROLLER` has the exceptions.
    :param v2: kernel files, in the order they are written; empty when v2 has no such thing.
    :param v1: the same for cgroup v1.
    :param since: kernel version the v2 files appeared in.
    :param property: D-Bus property of a systemd unit; empty means file-only: lost when systemd rewrites the unit.
    :param encode: ``(value, version) -> what is written, one text per file``.
    :param decode: ``(texts read, version, value written) -> value``; the last argument says which device's line.
    """

    field: str
    controller: str
    encode: Encode
    decode: Decode
    v2: tuple[str, ...] = ()
    v1: tuple[str, ...] = ()
    since: str = ""
    property: str = ""

    def files(self, version: int) -> tuple[str, ...]:
        """The kernel files under cgroup ``version``."""
        return self.v2 if version == 2 else self.v1

    def controller_in(self, version: int) -> str:
        """The controller's name under cgroup ``version``."""
        return self.controller if version == 2 else V1_CONTROLLER.get(self.controller, self.controller)


# -- how values look in the files -------------------------------------------------------------------------------

def _encode_number(value: int | str, version: int) -> tuple[str, ...]:
    return (str(value),)


def _encode_bytes(value: int | str, version: int) -> tuple[str, ...]:
    return ("-1" if value == UNLIMITED and version == 1 else str(value),)


def _decode_number(texts: tuple[str, ...], version: int, written: object) -> int | str:
    text = texts[0].strip()
    if text == UNLIMITED:
        return UNLIMITED
    number = int(text)
    return UNLIMITED if version == 1 and (number < 0 or number >= V1_UNLIMITED) else number


def _decode_same(texts: tuple[str, ...], version: int, written: object) -> int | str:
    first, *others = (_decode_number((text,), version, written) for text in texts)
    if any(other != first for other in others):
        raise ValueError(f"not the same: {texts}")
    return first


def _encode_text(value: str, version: int) -> tuple[str, ...]:
    return (value,)


def _decode_text(texts: tuple[str, ...], version: int, written: object) -> str:
    return texts[0].strip()


def _encode_quota(value: tuple[int | str, int], version: int) -> tuple[str, ...]:
    quota, period = value
    if version == 2:
        return (f"{quota} {period}",)
    return (str(period), "-1" if quota == UNLIMITED else str(quota))


def _decode_quota(texts: tuple[str, ...], version: int, written: object) -> tuple[int | str, int]:
    quota, period = texts[0].split() if version == 2 else (texts[1].strip(), texts[0].strip())
    return (UNLIMITED if quota in (UNLIMITED, "-1") else int(quota), int(period))


def _device_line(text: str, device: str) -> list[str]:
    """The words behind ``device`` in a nested-keyed file, empty when it has no line."""
    for line in text.splitlines():
        words = line.split()
        if words and words[0] == device:
            return words[1:]
    return []


def _throttle(key: str) -> tuple[Encode, Decode]:
    """A rate for one disk: a key of ``io.max`` on v2, a whole file on v1, where 0 removes the limit."""

    def encode(value: tuple[str, int | str], version: int) -> tuple[str, ...]:
        device, rate = value
        if version == 2:
            return (f"{device} {key}={rate}",)
        return (f"{device} {0 if rate == UNLIMITED else rate}",)

    def decode(texts: tuple[str, ...], version: int, written: tuple[str, int | str]) -> tuple[str, int | str]:
        words = _device_line(texts[0], written[0])
        if version == 2:
            words = [word.removeprefix(f"{key}=") for word in words if word.startswith(f"{key}=")]
        rate = words[0] if words else UNLIMITED
        return (written[0], rate if rate == UNLIMITED else int(rate))

    return encode, decode


def _encode_io_weight(value: int, version: int) -> tuple[str, ...]:
    return (f"default {value}",) if version == 2 else (str(value),)


def _decode_io_weight(texts: tuple[str, ...], version: int, written: object) -> int:
    words = _device_line(texts[0], "default")
    return int(words[0]) if words else int(texts[0].split()[0])


def _encode_device_weight(value: tuple[str, int], version: int) -> tuple[str, ...]:
    return (f"{value[0]} {value[1]}",)


def _decode_device_weight(texts: tuple[str, ...], version: int, written: tuple[str, int]) -> tuple[str, int]:
    words = _device_line(texts[0], written[0])
    return (written[0], int(words[0]) if words else 0)


# -- the table -------------------------------------------------------------------------------------------------

def _bytes(field: str, v2: str = "", v1: str = "", *, since: str = "4.5", property: str = "") -> Knob:
    return Knob(field=field, controller="memory", v2=(v2,) if v2 else (), v1=(v1,) if v1 else (), since=since,
                property=property, encode=_encode_bytes, decode=_decode_number)


def _rate(field: str, key: str, v1: str, property: str) -> Knob:
    encode, decode = _throttle(key)
    return Knob(field=field, controller="io", v2=("io.max",), v1=(f"blkio.throttle.{v1}_device",), since="4.5",
                property=property, encode=encode, decode=decode)


_ROWS = (
    Knob(field="cpus", controller="cpu", v2=("cpu.max",), v1=("cpu.cfs_period_us", "cpu.cfs_quota_us"), since="4.15",
         property="CPUQuotaPerSecUSec", encode=_encode_quota, decode=_decode_quota),
    Knob(field="cpu_burst", controller="cpu", v2=("cpu.max.burst",), v1=("cpu.cfs_burst_us",), since="5.14",
         encode=_encode_number, decode=_decode_number),
    Knob(field="cpu_weight", controller="cpu", v2=("cpu.weight",), v1=("cpu.shares",), since="4.15",
         property="CPUWeight", encode=_encode_number, decode=_decode_number),
    Knob(field="cpu_idle", controller="cpu", v2=("cpu.idle",), v1=("cpu.idle",), since="5.15", property="CPUWeight",
         encode=_encode_number, decode=_decode_number),
    Knob(field="cpuset_cpus", controller="cpuset", v2=("cpuset.cpus",), v1=("cpuset.cpus",), since="5.0",
         property="AllowedCPUs", encode=_encode_text, decode=_decode_text),
    Knob(field="cpuset_mems", controller="cpuset", v2=("cpuset.mems",), v1=("cpuset.mems",), since="5.0",
         property="AllowedMemoryNodes", encode=_encode_text, decode=_decode_text),
    _bytes("memory", "memory.max", "memory.limit_in_bytes", property="MemoryMax"),
    _bytes("memory_high", "memory.high", property="MemoryHigh"),
    _bytes("memory_low", "memory.low", "memory.soft_limit_in_bytes", property="MemoryLow"),
    _bytes("memory_min", "memory.min", since="4.18", property="MemoryMin"),
    # v2 counts swap alone, v1 memory plus swap: the value is converted before it comes here.
    _bytes("swap_max", "memory.swap.max", "memory.memsw.limit_in_bytes", property="MemorySwapMax"),
    Knob(field="memory_swappiness", controller="memory", v1=("memory.swappiness",),
         encode=_encode_number, decode=_decode_number),
    Knob(field="oom_group", controller="memory", v2=("memory.oom.group",), since="4.19", property="OOMPolicy",
         encode=_encode_number, decode=_decode_number),
    Knob(field="pids_limit", controller="pids", v2=("pids.max",), v1=("pids.max",), since="4.5", property="TasksMax",
         encode=_encode_number, decode=_decode_number),
    _rate("device_read_bps", "rbps", "read_bps", "IOReadBandwidthMax"),
    _rate("device_write_bps", "wbps", "write_bps", "IOWriteBandwidthMax"),
    _rate("device_read_iops", "riops", "read_iops", "IOReadIOPSMax"),
    _rate("device_write_iops", "wiops", "write_iops", "IOWriteIOPSMax"),
    Knob(field="io_weight", controller="io", v2=("io.weight",), v1=("blkio.bfq.weight",), since="4.5",
         property="IOWeight", encode=_encode_io_weight, decode=_decode_io_weight),
    Knob(field="blkio_weight_device", controller="io", v2=("io.weight",), v1=("blkio.bfq.weight_device",),
         since="4.5", property="IODeviceWeight", encode=_encode_device_weight, decode=_decode_device_weight),
)

KNOBS = {knob.field: knob for knob in _ROWS}
"""Field of Limits -> its row. ``hugetlb`` and ``cgroup_conf`` make their rows by :func:`hugetlb` and :func:`other`."""


def hugetlb(page_size: int, there: Iterable[str] = ()) -> Knob:
    """The knob for huge pages of ``page_size`` bytes: ``hugetlb.2MB.max``.

    :param there: the files that a cgroup has. If one of them limits reservations (Linux 5.7), the knob has it too: then
        mmap(2) fails where, without it, the first touch of a page kills by SIGBUS (cgroup-v1/hugetlb.rst).
    """
    scale, unit = next((scale, unit) for scale, unit in ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB"))
                       if page_size >= scale)
    size = f"hugetlb.{page_size // scale}{unit}"
    v2, v1 = ([f"{size}.{kind}{name}" for kind in ("", "rsvd.") if not kind or f"{size}.{kind}{name}" in there]
              for name in ("max", "limit_in_bytes"))
    return Knob(field="hugetlb", controller="hugetlb", v2=tuple(v2), v1=tuple(v1), since="5.6",
                encode=lambda value, version: _encode_bytes(value, version) * len(v2 if version == 2 else v1),
                decode=_decode_same)


def other(file: str) -> Knob:
    """A knob for any other kernel file, whose value is passed on as it is."""
    controller = file.partition(".")[0]
    controller = next((name for name, v1 in V1_CONTROLLER.items() if v1 == controller), controller)
    return Knob(field="cgroup_conf", controller=controller, v2=(file,), v1=(file,),
                encode=_encode_text, decode=_decode_text)


WEIGHTS = frozenset(("cpu.weight", "cpu.weight.nice", "cpu.idle", "cpu.shares", "io.weight", "io.bfq.weight",
                     "blkio.weight", "blkio.bfq.weight", "blkio.weight_device", "blkio.bfq.weight_device"))
"""Kernel files with weights: the children of one cgroup share a resource in this ratio (cgroup-v2.rst, "Weights")."""
PROTECTIONS = {"memory.low": "MemoryLow", "memory.min": "MemoryMin"}
"""Kernel files with protections of memory, and systemd's property for each. A cgroup is protected only up to the
protection of the cgroups above (cgroup-v2.rst, "Protections"). cgroup v1's ``memory.soft_limit_in_bytes`` is not among
them, because it has the same effect in every place of the tree."""


# -- conversions between units -----------------------------------------------------------------------------------

def weight_from_shares(shares: int) -> int:
    """docker's shares (2..262144) as a v2 weight (1..10000): the curve of runc 1.3.2, crun 1.23 and youki.

    ``10^((l² + 125·l)/612 - 7/34)`` with ``l = log2(shares)`` keeps 1024 at 100, unlike the linear formula before it.
    """
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    import math

    exponent = math.log2(shares)
    return math.ceil(10 ** ((exponent * exponent + 125 * exponent) / 612 - 7 / 34))


def shares_from_weight(weight: int) -> int:
    """A v2 weight as v1 shares, as systemd does it: proportional, 100 is 1024."""
    return min(max(weight * 1024 // 100, 2), 262144)


def io_weight_from_blkio(weight: int) -> int:
    """docker's block I/O weight (10..1000) as ``io.weight`` (1..10000): linear, as runc and crun."""
    return 1 + (weight - 10) * 9999 // 990


def bfq_from_io_weight(weight: int) -> int:
    """``io.weight`` (1..10000) as ``io.bfq.weight`` (1..1000), as systemd does it: up to 100 they are the same."""
    return weight if weight <= 100 else 100 + (weight - 100) * 900 // 9900


def io_weight_from_bfq(weight: int) -> int:
    """The ``IOWeight=`` that systemd converts into this ``io.bfq.weight``."""
    return weight if weight <= 100 else 100 + (weight - 100) * 11


def blkio_from_io_weight(weight: int) -> int:
    """``io.weight`` (1..10000) as v1's weight (10..1000), as systemd does it: 100 is 500."""
    return min(max(weight * 500 // 100, 10), 1000)
