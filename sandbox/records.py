"""The records that a wish is made of: a size, a rate for a disk, a volume, a published port.

They are plain immutable data; :mod:`sandbox.values` reads them from text.
"""

from __future__ import annotations

from .stdlib import NamedTuple

UNLIMITED = "max"
"""The explicit wish for no limit, as opposed to None, which leaves the kernel's file alone."""


class Percent(NamedTuple):
    """A share of something the host has: ``Percent(50.0)`` of memory is half of the RAM."""

    value: float

    def __str__(self) -> str:
        return f"{self.value:g}%"


Bytes = int | Percent | str
"""A number of bytes, a share of the RAM, or :data:`UNLIMITED`."""


class DeviceRate(NamedTuple):
    """A limit or weight for the disk behind a path.

    :param path: a block device, a partition, or any file or directory on a disk's file system.
    :param rate: bytes per second, operations per second, or a weight; :data:`UNLIMITED` for none.
    """

    path: str
    rate: int | str


class Hugetlb(NamedTuple):
    """A limit for one size of huge page.

    :param page_size: bytes, e.g. 2097152.
    :param limit: bytes, or :data:`UNLIMITED`.
    """

    page_size: int
    limit: int | str


class FileValue(NamedTuple):
    """A value for any other kernel file, e.g. ``memory.swap.high`` = ``16777216``."""

    file: str
    value: str


IO_CLASSES = ("none", "realtime", "best-effort", "idle")
"""I/O scheduling classes; the index is the kernel's number (ioprio_set(2))."""


class IoPriority(NamedTuple):
    """A priority for the disks.

    :param kind: one of :data:`IO_CLASSES`.
    :param level: 0, the highest, to 7; 0 for ``idle``, which has none.
    """

    kind: str
    level: int = 0

    def __str__(self) -> str:
        return self.kind if self.kind == "idle" else f"{self.kind}:{self.level}"


class Ulimit(NamedTuple):
    """A resource limit of setrlimit(2).

    :param name: lower case without the prefix, e.g. ``nofile``.
    :param soft: the value, None for infinity.
    :param hard: the ceiling, None for infinity.
    """

    name: str
    soft: int | None
    hard: int | None

    @property
    def bounds(self) -> str:
        """Both numbers as one types them: ``64:128``, ``0:unlimited``."""
        return ":".join("unlimited" if value is None else str(value) for value in (self.soft, self.hard))


class Volume(NamedTuple):
    """A file or directory of the host that is seen inside.

    :param source: its path on the host; relative to the launcher's working directory when it begins with ``.``.
    :param target: where it is inside, absolute.
    :param read_only: it and whatever is mounted below it cannot be written to.
    """

    source: str
    target: str
    read_only: bool = False


class Tmpfs(NamedTuple):
    """An empty file system in memory.

    :param target: where it is inside, absolute.
    :param size: bytes it may hold; None for the kernel's default, half of the RAM.
    :param mode: permissions of its root directory.
    :param executable: programs in it may be run.
    :param read_only: nothing can be written to it.
    """

    target: str
    size: int | None = None
    mode: int = 0o1777
    executable: bool = False
    read_only: bool = False


class Device(NamedTuple):
    """A device of the host, or a directory of them, that the command may use.

    :param source: its path on the host.
    :param target: where it is inside, absolute.
    :param access: what may be done with it: of ``r`` read, ``w`` write, ``m`` make a node of it.
    """

    source: str
    target: str
    access: str = "rwm"


class Joined(NamedTuple):
    """A namespace that exists already.

    :param kind: its name in ``/proc/PID/ns``: ``net``, ``ipc``, ``uts``, ``time`` or ``cgroup``.
    :param path: a file that refers to it, e.g. ``/run/netns/blue`` or ``/proc/PID/ns/net``.
    """

    kind: str
    path: str


class Publish(NamedTuple):
    """A port of the host that leads to one inside.

    :param address: IPv4 address of the host; empty for all it has, 127.0.0.1 too.
    :param host_port: port of the host.
    :param port: port inside.
    :param protocol: ``tcp`` or ``udp``.
    """

    address: str
    host_port: int
    port: int
    protocol: str = "tcp"


class NetRate(NamedTuple):
    """How fast the network is, each way.

    :param rate: bits per second.
    :param burst: bytes that may pass at once after a pause; None for as much as passes in 100 ms, at least 16 KiB.
    """

    rate: int
    burst: int | None = None


class User(NamedTuple):
    """Who the workload runs as, in numbers.

    :param uid: user id.
    :param gid: group id.
    :param groups: supplementary group ids.
    :param name: login name for ``USER`` and ``LOGNAME``; empty when the id has none.
    :param home: home directory for ``HOME``.
    """

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    name: str = ""
    home: str = "/"
