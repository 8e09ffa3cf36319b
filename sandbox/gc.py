"""Collect what killed runners left behind: only what is ours, and only what is dead.

Every guard holds a lock on its state file. A state file whose lock can be taken belongs to nobody alive: its cgroups
are emptied and removed. A cgroup with our prefix but without a state file is removed when it is empty and not new.
"""

from __future__ import annotations

import fcntl
import os
import time

from .cgroup.group import Cgroup
from .drivers.cgroupfs import PREFIX
from .drivers.process import UNIT
from .errors import SpecError
from .host import Host
from .spec import check_name
from .stdlib import TYPE_CHECKING, suppress

if TYPE_CHECKING:
    from collections.abc import Iterator

GRACE = 10.0
"""Seconds a thing without an owner is left alone: a sandbox that is just starting has cgroups before its claim."""


def collect(host: Host | None = None) -> tuple[str, ...]:
    """Remove the leftovers of dead sandboxes.

    :param host: facts about the machine; probed when None.
    :returns: the paths that were removed.
    :raises CleanupError: something would not go.
    """
    if host is None:
        from .host import probe

        host = probe()
    return (*_claims(host.runtime_dir), *_orphans(host))


def _claims(directory: str) -> Iterator[str]:
    """Clean up after each guard that is dead."""
    for name in _names(directory):
        path = f"{directory}/{name}"
        with suppress(OSError):
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                yield from _claim(path, fd)
            finally:
                os.close(fd)


def _claim(path: str, fd: int) -> Iterator[str]:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # its guard is alive
    status = os.fstat(fd)
    if not status.st_nlink or (not status.st_size and time.time() - status.st_mtime < GRACE):
        return  # removed meanwhile, or not yet written
    lines = os.fsdecode(os.read(fd, 1 << 16)).splitlines()
    directories = tuple(line for line in lines if _is_ours(line))
    units = [line.removeprefix(UNIT) for line in lines if line.startswith(UNIT)]
    for unit in units:
        _stop(*unit.split(" ", 1))
    cgroup = Cgroup(directories)
    cgroup.kill()
    cgroup.remove()
    os.unlink(path)
    yield from (*(unit.partition(" ")[2] for unit in units), *directories, path)


def _stop(manager: str, unit: str) -> None:
    """End the unit of a dead sandbox. Where nothing but systemd itself could have ended it, it is gone already."""
    from .systemd import borrow

    with borrow(user=manager == "user") as bus:
        bus.stop(unit)


def _is_ours(directory: str) -> bool:
    """A state file names absolute paths that end in a name of ours; anything else in it was not written by us."""
    return directory.startswith("/") and "/../" not in directory and _has_our_name(os.path.basename(directory))


def _has_our_name(name: str) -> bool:
    """Our prefix alone is not enough: systemd's units are called ``sandbox-lab.service`` and the like, too."""
    if not name.startswith(PREFIX):
        return False
    try:
        check_name(name.removeprefix(PREFIX))
    except SpecError:
        return False
    return True


def _orphans(host: Host) -> Iterator[str]:
    """Empty cgroups with our prefix that no state file claims."""
    for tree in host.hierarchies:
        if tree.parent is None:
            continue
        parent = tree.mount + tree.parent.rstrip("/")
        for name in _names(parent):
            directory = f"{parent}/{name}"
            if _has_our_name(name) and _is_orphan(host, directory, name.removeprefix(PREFIX)):
                Cgroup((directory,)).remove()
                yield directory


def _is_orphan(host: Host, directory: str, name: str) -> bool:
    with suppress(FileNotFoundError):
        return (not os.path.exists(f"{host.runtime_dir}/{name}") and time.time() - os.stat(directory).st_mtime > GRACE
                and not Cgroup((directory,)).pids())
    return False


def _names(directory: str) -> list[str]:
    with suppress(OSError):
        return os.listdir(directory)
    return []
