"""``/dev``: a handful of the host's devices that give nothing away, terminals of its own, and shared memory."""

from __future__ import annotations

import stat

from ..host import Host
from ..records import Tmpfs
from ..spec import Spec
from ..stdlib import TYPE_CHECKING
from ..steps import Step
from . import paths
from .mounts import INERT, KERNEL, NOEXEC, NOSUID, RDONLY, TERMINAL, Tree, step, tmpfs
from .namespaces import is_lent, is_rootless, is_shifted, private

if TYPE_CHECKING:
    from collections.abc import Iterator

DEVICES = {"/dev/null": (1, 3), "/dev/zero": (1, 5), "/dev/full": (1, 7), "/dev/random": (1, 8), "/dev/urandom": (1, 9),
           "/dev/tty": (5, 0)}
"""Their numbers are the same on every machine (admin-guide/devices.txt)."""
LINKS = (("/proc/self/fd", "/dev/fd"), ("/proc/self/fd/0", "/dev/stdin"), ("/proc/self/fd/1", "/dev/stdout"),
         ("/proc/self/fd/2", "/dev/stderr"), ("pts/ptmx", "/dev/ptmx"))
TTY_GROUP = 5
"""Who owns terminals: Debian's ``tty``, and that of most distributions."""


def trees(spec: Spec, host: Host) -> Iterator[Tree]:
    """What is taken over from the host: its nodes, if we can make none."""
    for path in () if host.mknod else DEVICES:
        if path in host.present:
            yield Tree(path, path, NOSUID | NOEXEC, recursive=False)
    if spec.tty:
        # By this node ttyname(3) finds the terminal, which is one of the host's.
        yield Tree(TERMINAL, "/dev/console", NOSUID | NOEXEC, recursive=False, realises="tty")
    if spec.ipc == "host":
        kind = host.mount("/dev/shm")[1]
        yield Tree("/dev/shm", "/dev/shm", KERNEL, is_shifted(spec, host) and paths.may_shift(kind, host),
                   realises="ipc")


def make(spec: Spec, host: Host, owner: int | None) -> Iterator[Step]:
    """The directory, with all but the devices themselves."""
    yield tmpfs(Tmpfs("/dev", size=65536, mode=0o755), owner, attributes=_attributes(host))
    if host.mknod:
        yield from (step("mknod_in", path, stat.S_IFCHR | 0o666, major, minor, owner or 0, owner or 0)
                    for path, (major, minor) in DEVICES.items())
    yield step("mkdir_in", "/dev/pts", 0o755)
    yield step("mkdir_in", "/dev/shm", 0o755)
    group = "" if is_rootless(spec, host) and not is_lent(spec, host) else f",gid={TTY_GROUP + (owner or 0)}"
    yield step("mount", "devpts", "/dev/pts", NOSUID | NOEXEC, f"mode=620,ptmxmode=666{group}")
    if spec.ipc != "host":
        yield tmpfs(Tmpfs("/dev/shm"), owner)
    for text, path in LINKS:
        yield step("symlink_in", text, path)


def queues(spec: Spec, host: Host) -> Iterator[Step]:
    """Message queues belong to the IPC namespace, and may be mounted by whoever that belongs to."""
    if "/proc/sys/fs/mqueue" in host.present and ("ipc" in private(spec, host) or not is_rootless(spec, host)):
        yield step("mkdir_in", "/dev/mqueue", 0o755)
        yield step("mount", "mqueue", "/dev/mqueue", KERNEL, "")


def close(host: Host) -> Step:
    """Nothing more is made in it."""
    return step("attr", "/dev", RDONLY | NOEXEC | _attributes(host))


def _attributes(host: Host) -> int:
    """A bound node has a mount of its own; others work where they were made, which nobody inside can do."""
    return NOSUID if host.mknod else INERT
