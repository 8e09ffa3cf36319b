"""Counters of the cgroups above a sandbox: whose limit refused forks, ran out of memory, or throttled the CPU.

And which cgroup systemd-oomd chose to kill.

A limit of an ancestor is shared by all cgroups below it, and the sandbox's own counters do not count its events. The
ancestors' counters also count what happened before the run, so they are read when it starts and when it ends. Sources:
``Documentation/admin-guide/cgroup-v2.rst`` (``memory.events.local``, ``pids.events.local``, ``cpu.stat``).
"""

from __future__ import annotations

import os

from .cgroup import files
from .host import small_file
from .stdlib import TYPE_CHECKING, NamedTuple, suppress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .steps import Read

EVENTS = (("memory.events.local", "oom"), ("pids.events.local", "max"))
"""Files and keys of counters of cgroup v2. Linux before 6.12 has no ``pids.events.local``: like cgroup v1, it does not
count in which cgroup the limit was that refused a fork."""
QUOTAS = {1: "cpu.cfs_quota_us", 2: "cpu.max"}
"""File of the CPU quota, by cgroup version. ``cpu.stat`` is read only where there is a quota: the kernel sums it up."""
THROTTLED = ("cpu.stat", "nr_throttled")
UNLIMITED = ("max", "-1", "")
"""How these files say that there is no limit; the empty text stands for no file."""

OOMD = "user.oomd_ooms"
"""Extended attribute in which systemd-oomd, and Meta's oomd, count how often they chose the cgroup, before they kill it
(``oomd_cgroup_kill()``)."""


class Rise(NamedTuple):
    """An ancestor's counter that rose during the run.

    :param cgroup: directory of the ancestor.
    :param file: absolute path of the file; of :data:`OOMD`, the directory.
    :param key: key in the file, or :data:`OOMD`. That one may be of the sandbox's own cgroup, too.
    :param times: by how much it rose. Events of other cgroups below the ancestor are among them.
    """

    cgroup: str
    file: str
    key: str
    times: int


class Ancestors:
    """The ancestors of one run's cgroups.

    :param reads: what is read of the cgroups themselves. The counters of their ancestors are read now.
    """

    def __init__(self, reads: Sequence[Read]) -> None:
        self._fds: dict[str, int] = {}
        own = {read.figure: read.file.rpartition("/")[0] for read in reads}
        # Only on cgroup v2 the CPU time is in cpu.stat.
        unified = next((own["cpu_time"] for read in reads if (read.figure, read.key) == ("cpu_time", "usage_usec")), "")
        throttled = own.get("throttled_periods", "")
        self._tasks = own.get("pids_failures", "")
        self._watched: list[tuple[int, str, tuple[tuple[str, str], ...]]]
        """Cgroup version, cgroup, and its counters besides that of the CPU quota."""
        self._watched = [(2, cgroup, EVENTS) for cgroup in _above(unified)]
        if throttled != unified:
            self._watched += [(1, cgroup, ()) for cgroup in _above(throttled)]
        if unified and not throttled:
            # The property of a systemd unit may limit its own CPU time when no option does.
            self._watched.append((2, unified, ()))
        self._before = dict(self._counters())
        # When the unit's processes are dead, systemd removes its cgroup. An fd still has the attributes then.
        for cgroup in _with_above(own.get("oom", "")):
            with suppress(OSError):
                self._fds[cgroup] = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._chosen = {cgroup: _chosen(fd) for cgroup, fd in self._fds.items()}

    def close(self) -> None:
        """Close the fds; the second time nothing happens."""
        while self._fds:
            os.close(self._fds.popitem()[1])

    __del__ = close  # a run that was abandoned

    def rises(self) -> tuple[Rise, ...]:
        """Return each counter that has risen since the start, those of the nearest ancestor first. Works once."""
        # What was not read at the start, such as cpu.stat of a cgroup that had no quota then, cannot be compared.
        found = {key: count - self._before.get(key, count) for key, count in self._counters()}
        found |= {(cgroup, cgroup, OOMD): _chosen(fd) - self._chosen[cgroup] for cgroup, fd in self._fds.items()}
        self.close()
        return tuple(Rise(*key, times) for key, times in found.items() if times > 0)

    def task_limits(self) -> tuple[str, ...]:
        """Return the path of each ``pids.max`` that limits something, its own and all ancestors', nearest first."""
        paths = (f"{cgroup}/pids.max" for cgroup in _with_above(self._tasks))
        return tuple(path for path in paths if small_file(path) not in UNLIMITED)

    def _counters(self) -> Iterator[tuple[tuple[str, str, str], int]]:
        for version, cgroup, events in self._watched:
            limited = small_file(f"{cgroup}/{QUOTAS[version]}").partition(" ")[0] not in UNLIMITED
            for file, key in (*events, *((THROTTLED,) if limited else ())):
                with suppress(KeyError):
                    yield (cgroup, f"{cgroup}/{file}", key), int(files.value_of(small_file(f"{cgroup}/{file}"), key))


def _above(cgroup: str) -> tuple[str, ...]:
    """Return the directories of all cgroups above ``cgroup``, nearest first, the root of the hierarchy included."""
    found = []
    while (cgroup := cgroup.rpartition("/")[0]) and os.path.exists(f"{cgroup}/cgroup.procs"):
        found.append(cgroup)
    return tuple(found)


def _with_above(cgroup: str) -> tuple[str, ...]:
    return (cgroup, *_above(cgroup)) if cgroup else ()


def _chosen(fd: int) -> int:
    """How often systemd-oomd chose the cgroup."""
    try:
        return int(os.getxattr(fd, OOMD))
    except (OSError, ValueError):
        return 0
