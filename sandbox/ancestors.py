"""Counters of the cgroups above a sandbox that rose during the run: refused forks, memory limits that were hit, CPU
periods that were throttled, and kills by systemd-oomd.

All cgroups below an ancestor share its limit, and the sandbox's own counters do not count when that limit is hit. The
ancestor's counters also count what happened before the run, so they are read when it starts and when it ends. Sources:
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
"""Files and keys of counters on cgroup v2. On cgroup v1, and before Linux 6.12, there is no ``pids.events.local``: the
kernel counts a refused fork only in the cgroup that forked, not in the cgroup whose limit refused it."""
QUOTAS = {1: "cpu.cfs_quota_us", 2: "cpu.max"}
"""File of the CPU quota, by cgroup version. ``cpu.stat`` is read only if this file holds a quota, because the kernel
adds up the statistics of all CPUs for each read."""
THROTTLED = ("cpu.stat", "nr_throttled")
UNLIMITED = ("max", "-1", "")
"""Contents of a limit file that mean no limit. The empty text stands for a missing file."""

OOMD = "user.oomd_ooms"
"""Extended attribute of a cgroup: systemd-oomd and Meta's oomd add one to it before they kill the cgroup's processes
(``oomd_cgroup_kill()``)."""


class Rise(NamedTuple):
    """A counter of an ancestor, or of the sandbox's own unit, that rose during the run.

    :param cgroup: directory of the cgroup that has the counter.
    :param file: absolute path of the file; for :data:`OOMD` the directory.
    :param key: key in the file, or :data:`OOMD`.
    :param times: by how much the counter rose. An ancestor also counts for the other cgroups below it.
    """

    cgroup: str
    file: str
    key: str
    times: int


class Ancestors:
    """The cgroups above those of one run. Their counters are read when this object is made.

    :param reads: the counters of the run's own cgroups; their paths lead to the ancestors.
    """

    def __init__(self, reads: Sequence[Read]) -> None:
        self._fds: dict[str, int] = {}
        paths = {read.figure: read.file for read in reads}
        own = {figure: file.rpartition("/")[0] for figure, file in paths.items()}
        # The cgroup of the v2 tree is the one whose CPU time is read from cpu.stat; cgroup v1 has cpuacct.usage.
        unified = next((own["cpu_time"] for read in reads if (read.figure, read.key) == ("cpu_time", "usage_usec")), "")
        throttled = own.get("throttled_periods", "")
        self._tasks = own.get("pids_failures", "")
        self._watched: list[tuple[int, str, tuple[tuple[str, str], ...]]]
        """Cgroup version, directory, and the counters that are read besides ``nr_throttled``."""
        # Without pids.events.local, a cgroup's counter has only the refused forks of its own processes.
        events = EVENTS if paths.get("pids_failures", ".local").endswith(".local") else EVENTS[:1]
        self._watched = [(2, cgroup, events) for cgroup in _above(unified)]
        if throttled != unified:
            self._watched += [(1, cgroup, ()) for cgroup in _above(throttled)]
        if unified and not throttled:
            # A property of the unit may set a CPU quota that no option asked for: then the plan reads no nr_throttled.
            self._watched.append((2, unified, ()))
        self._before = dict(self._counters())
        # systemd removes a unit's cgroup when its processes are dead. Its attributes can still be read from an open fd.
        for cgroup in _with_above(own.get("oom", "")):
            with suppress(OSError):
                self._fds[cgroup] = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._chosen = {cgroup: _chosen(fd) for cgroup, fd in self._fds.items()}

    def close(self) -> None:
        """Close the directories. It may be called twice."""
        while self._fds:
            os.close(self._fds.popitem()[1])

    __del__ = close  # for a run that failed before its end was looked at

    def rises(self) -> tuple[Rise, ...]:
        """Return each counter that has risen since the start, the nearest ancestor's first. It may be called once."""
        # A counter that was not read at the start cannot be compared: a cgroup may have got its quota during the run.
        found = {key: count - self._before.get(key, count) for key, count in self._counters()}
        found |= {(cgroup, cgroup, OOMD): _chosen(fd) - self._chosen[cgroup] for cgroup, fd in self._fds.items()}
        self.close()
        return tuple(Rise(*key, times) for key, times in found.items() if times > 0)

    def task_limits(self) -> tuple[str, ...]:
        """Return each ``pids.max`` whose limit may have been reached: of the run's own cgroup, then of its ancestors.

        From Linux 6.1 on, ``pids.peak`` says whether as many tasks as the limit allows were ever there at once: the
        kernel counts a task in a cgroup before it asks the cgroups above. The last one is the words "a cgroup above
        PATH" in a cgroup namespace, from where those above are not seen.
        """
        cgroups = _with_above(self._tasks)
        found = [f"{cgroup}/pids.max" for cgroup in cgroups if _may_be_reached(cgroup)]
        # Only the root of the whole tree has no such file.
        if cgroups and os.path.exists(f"{cgroups[-1]}/pids.max"):
            found.append(f"a cgroup above {cgroups[-1]}")
        return tuple(found)

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


def _may_be_reached(cgroup: str) -> bool:
    limit, peak = small_file(f"{cgroup}/pids.max"), small_file(f"{cgroup}/pids.peak")
    return limit not in UNLIMITED and (not peak or int(peak) >= int(limit))


def _chosen(fd: int) -> int:
    """Return how often systemd-oomd chose the cgroup to be killed."""
    try:
        return int(os.getxattr(fd, OOMD))
    except (OSError, ValueError):
        return 0
