"""From a path to the whole disk that the kernel limits I/O of.

The kernel's I/O limits are per whole disk: a partition is refused with ENODEV, and a file system is not a device. The
way from one to the other is that of systemd's ``lookup_block_device()`` (src/core/cgroup.c): the device below the file
system, down through device mapper, then from the partition to the disk. What is not one local disk is told, never
guessed. Each function takes ``root``, a directory that stands for ``/``.
"""

from __future__ import annotations

import os
import stat

from .cgroup.hierarchy import Mount, mounts
from .facts import Disk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable



class _NoDisk(Exception):
    """Why there is none, for :attr:`sandbox.facts.Disk.reason`."""


def resolve(path: str, *, root: str = "") -> Disk:
    """The whole disk behind ``path``: a block device, ``MAJ:MIN``, or a file or directory on a disk's file system."""
    return _resolved(path, root, _number)


def of_file_system(path: str, *, root: str = "") -> Disk:
    """The whole disk behind a file system whose device number is made up, such as btrfs."""
    return _resolved(path, root, _source)


def _resolved(path: str, root: str, start: Callable[[str, str, list[str]], str]) -> Disk:
    chain = [path]
    try:
        device = _whole(start(path, root, chain), root, chain)
    except _NoDisk as reason:
        return Disk(path=path, chain=tuple(chain), reason=str(reason))
    return Disk(path=path, device=device, chain=tuple(chain))


def _number(path: str, root: str, chain: list[str]) -> str:
    """``MAJ:MIN`` of the device that is named, or that the file system is on."""
    major, _, minor = path.partition(":")
    if path.isascii() and major.isdecimal() and minor.isdecimal() and len(major) <= 4 and len(minor) <= 7:
        return path
    try:
        seen = os.stat(root + path)
    except (OSError, ValueError) as error:
        raise _NoDisk(f"{path!r}: {getattr(error, 'strerror', None) or error}") from None
    if stat.S_ISBLK(seen.st_mode):
        return _pair(seen.st_rdev)
    if not (stat.S_ISREG(seen.st_mode) or stat.S_ISDIR(seen.st_mode)):
        raise _NoDisk(f"{path} is not a block device, file or directory")
    # Major 0 is no device: the kernel makes such numbers up for tmpfs, overlay, and for btrfs too.
    return _pair(seen.st_dev) if os.major(seen.st_dev) else _source(path, root, chain)


def _source(path: str, root: str, chain: list[str]) -> str:
    mount = _mount_of(path, root)
    if mount is None:
        raise _NoDisk(f"{path} is on a file system that is not in /proc/self/mountinfo")
    if mount.kind != "btrfs":
        raise _NoDisk(f"{path} is on {mount.kind} mounted at {mount.point}, which is not on one disk of its own")
    name = os.path.basename(os.path.realpath(root + mount.source))
    chain.append(f"btrfs on {mount.source}")
    members = _btrfs_members(name, root)
    if len(members) > 1:
        raise _NoDisk(f"{path} is on btrfs over several devices ({', '.join(members)}); name each of them instead")
    number = _text(f"{root}/sys/class/block/{name}/dev")
    if not number:
        raise _NoDisk(f"{path} is on btrfs, but its device {mount.source} is not in /sys/class/block")
    return number


def _mount_of(path: str, root: str) -> Mount | None:
    """The last of the mounts with the longest mount point above ``path`` is the one on top."""
    real = os.path.realpath(root + path).removeprefix(os.path.realpath(root) if root else "") or "/"
    best = None
    for mount in mounts(root):
        inside = real == mount.point or real.startswith(f"{mount.point.rstrip('/')}/")
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def _btrfs_members(name: str, root: str) -> list[str]:
    for uuid in _names(f"{root}/sys/fs/btrfs"):
        members = _names(f"{root}/sys/fs/btrfs/{uuid}/devices")
        if name in members:
            return members
    return [name]


def _whole(number: str, root: str, chain: list[str]) -> str:
    """Down through device mapper and up from partitions, until it is a disk."""
    while True:
        place = f"{root}/sys/dev/block/{number}"
        if not os.path.exists(place):
            raise _NoDisk(f"there is no block device {number}")
        real = os.path.realpath(place)
        chain.append(f"{number} {os.path.basename(real)}")
        if os.path.isdir(f"{place}/dm"):
            number = _slave(place, root, chain)
        elif os.path.exists(f"{place}/partition"):
            number = _text(f"{os.path.dirname(real)}/dev")
        else:
            return number


def _slave(place: str, root: str, chain: list[str]) -> str:
    """The device below a mapped one; several count as one if they are parts of the same disk."""
    slaves = {name: _text(f"{place}/slaves/{name}/dev") for name in _names(f"{place}/slaves")}
    shown = chain[-1]
    if not slaves:
        raise _NoDisk(f"{shown} is a mapped device with nothing below it")
    if len(slaves) > 1 and len({_whole(number, root, []) for number in slaves.values()}) > 1:
        raise _NoDisk(f"{shown} is a mapped device over several disks ({', '.join(slaves)}); name each of them instead")
    return next(iter(slaves.values()))


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _pair(number: int) -> str:
    return f"{os.major(number)}:{os.minor(number)}"
