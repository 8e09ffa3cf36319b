"""The handle on a cgroup that exists, whoever made it: its directory in each tree."""

from __future__ import annotations

import os
import time
from errno import ENOENT

from ..errors import CgroupError, CleanupError
from ..stdlib import TYPE_CHECKING, NamedTuple, signal, suppress
from . import files

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 5.0
"""Seconds: rmdir(2) answers EBUSY for a while after the last process has gone."""


class Cgroup(NamedTuple):
    """One cgroup: a directory on v2, one per hierarchy on v1.

    :param directories: absolute paths.
    """

    directories: tuple[str, ...]

    def pids(self) -> set[int]:
        """The processes in it and in the cgroups below it, as the caller's pid namespace numbers them."""
        found: set[int] = set()
        for directory in self._tree():
            try:
                found.update(int(pid) for pid in files.read(f"{directory}/cgroup.procs").split())
            except CgroupError as error:
                if error.errno != ENOENT:
                    raise
        return found

    def kill(self) -> None:
        """SIGKILL everything in it and wait until it is empty.

        :raises CleanupError: when something is left after :data:`PATIENCE` seconds.
        """
        deadline = time.monotonic() + PATIENCE
        while pids := self.pids():
            for pid in pids:
                self._kill(pid)
            if time.monotonic() > deadline:
                raise CleanupError(f"processes {sorted(pids)} in {self.directories[0]} do not die",
                                   leftovers=self.directories)
            time.sleep(0.005)  # the kernel has no event for "the last process has left" on cgroup v1

    def remove(self) -> None:
        """Remove its directories and those below them, patiently. Absent ones are fine.

        :raises CleanupError: naming what is still there.
        """
        deadline = time.monotonic() + PATIENCE
        delay = 0.001
        while left := [path for path in self._tree() if not _rmdir(path)]:
            if time.monotonic() > deadline:
                raise CleanupError(f"cannot remove {left[0]}: it is busy", leftovers=tuple(left),
                                   hint=f"see who is in it: cat {left[0]}/cgroup.procs")
            time.sleep(delay)
            delay = min(delay * 2, 0.2)

    def _kill(self, pid: int) -> None:
        """SIGKILL through a pidfd, if it is still a member: the number may have gone to another process meanwhile."""
        with suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            try:
                if pid in self.pids():
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)

    def _tree(self) -> Iterator[str]:
        """Every directory, the deepest first."""
        for top in self.directories:
            for directory, _, _ in os.walk(top, topdown=False):
                yield directory


def _rmdir(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
