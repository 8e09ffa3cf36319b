"""Counters of the cgroups above a sandbox: whose limit refused forks, ran out of memory, or throttled the CPU.

And which cgroup systemd-oomd chose to kill.

A limit of an ancestor is shared by all cgroups below it, and the sandbox's own counters do not count its events. The
ancestors' counters also count what happened before the run, so they are read when it starts and when it ends. Sources:
``Documentation/admin-guide/cgroup-v2.rst`` (``memory.events.local``, ``pids.events.local``, ``cpu.stat``).
"""

from __future__ import annotations

import os

from .cgroup import files
from .errors import CgroupError
from .stdlib import TYPE_CHECKING, NamedTuple, suppress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .steps import Read

FIGURES = ("oom", "pids_failures", "cpu_time", "throttled_periods")
"""Figures that are read in the sandbox's own cgroups: the search for ancestors starts from there."""
COUNTERS = (("memory.events.local", "oom"), ("pids.events.local", "max"), ("cpu.stat", "nr_throttled"))
"""Files and keys of the counters. cgroup v1 and Linux before 6.12 have no ``pids.events.local``: they do not count in
which cgroup the limit was that refused a fork."""
QUOTAS = ("cpu.max", "cpu.cfs_quota_us")
"""Files of the CPU quota. ``cpu.stat`` is read only below a quota, because on cgroup v2 the kernel first sums it up."""
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

    def __init__(self, reads: Iterable[Read]) -> None:
        own = {read.figure: read.file.rpartition("/")[0] for read in reads if read.figure in FIGURES}
        self._own = dict.fromkeys(own.values())
        self._tasks = own.get("pids_failures", "")
        # The property of a systemd unit may limit its CPU time when no option does.
        self._limited_unasked = "throttled_periods" not in own
        self._before = dict(self._counters())
        # When the unit's processes are dead, systemd removes its cgroup. An fd still has the attributes then.
        self._fds = {cgroup: _open(cgroup) for cgroup in _with_above(own.get("oom", ""))}
        self._chosen = {cgroup: _chosen(fd) for cgroup, fd in self._fds.items()}

    def __del__(self) -> None:
        while self._fds:
            os.close(self._fds.popitem()[1])

    def rises(self) -> tuple[Rise, ...]:
        """Return each counter that has risen since the start, those of the nearest ancestor first. Works once."""
        # A cgroup that was not there at the start began to count at 0.
        found = {key: count - self._before.get(key, 0) for key, count in self._counters()}
        found |= {(cgroup, cgroup, OOMD): _chosen(fd) - self._chosen[cgroup] for cgroup, fd in self._fds.items()}
        self.__del__()
        return tuple(Rise(*key, times) for key, times in found.items() if times > 0)

    def task_limits(self) -> tuple[str, ...]:
        """Return the path of each ``pids.max`` that limits something, its own and all ancestors', nearest first."""
        paths = (f"{cgroup}/pids.max" for cgroup in _with_above(self._tasks))
        return tuple(path for path in paths if _text(path) not in UNLIMITED)

    def _counters(self) -> Iterator[tuple[tuple[str, str, str], int]]:
        for own in self._own:
            for file, key in COUNTERS:
                inclusive = file == "cpu.stat" and self._limited_unasked
                for cgroup in _with_above(own) if inclusive else _above(own):
                    if file != "cpu.stat" or _has_quota(cgroup):
                        with suppress(CgroupError, KeyError):
                            path = f"{cgroup}/{file}"
                            yield (cgroup, path, key), int(files.value_of(files.read(path), key))


def _has_quota(cgroup: str) -> bool:
    return any(_text(f"{cgroup}/{file}").partition(" ")[0] not in UNLIMITED for file in QUOTAS)


def _above(cgroup: str) -> Iterator[str]:
    """Yield the directories of all cgroups above ``cgroup``, nearest first, the root of the hierarchy included."""
    cgroup = cgroup.rpartition("/")[0]
    while cgroup and os.path.exists(f"{cgroup}/cgroup.procs"):
        yield cgroup
        cgroup = cgroup.rpartition("/")[0]


def _with_above(cgroup: str) -> tuple[str, ...]:
    return (cgroup, *_above(cgroup)) if cgroup else ()


def _open(cgroup: str) -> int:
    return os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _chosen(fd: int) -> int:
    """How often systemd-oomd chose the cgroup."""
    try:
        return int(os.getxattr(fd, OOMD))
    except (OSError, ValueError):
        return 0


def _text(path: str) -> str:
    """Return the content of a cgroup file; empty if there is no such file."""
    try:
        return files.read(path).strip()
    except CgroupError:
        return ""
