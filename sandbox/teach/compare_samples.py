"""What a run uses over time, sampled from the files of its own plan by a thread."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence

from ..cgroup.files import value_of
from ..host import small_file
from ..steps import Read
from ..usage import PER_SECOND
from .compare import Series, Snapshot
from .compare_view import Look

INTERVAL = 0.025
"""Seconds between two samples at first; whenever there are :data:`MOST` of them, every other one is dropped."""
MOST = 800
FIRST_LOOK = 0.05
"""Seconds until the first snapshot; each later one is taken at twice the time, and the one with most memory kept."""
CURRENT = {"memory.peak": "memory.current", "memory.max_usage_in_bytes": "memory.usage_in_bytes"}
"""What memory is in use now, beside the file that keeps the peak."""


class Sampler(threading.Thread):
    """Samples from :meth:`start` until :meth:`stop`.

    :param reads: the plan's.
    :param look: takes the snapshots.
    :param started: CLOCK_MONOTONIC seconds of the execve.
    """

    def __init__(self, reads: Sequence[Read], look: Look, started: float) -> None:
        super().__init__(daemon=True)
        self._files = {name: read for name in ("cpu_time", "throttled_time", "oom_kill")
                       if (read := next((one for one in reads if one.figure == name), None))}
        peak = next((one for one in reads if one.figure == "memory_peak"), None)
        if peak is not None:
            directory, name = os.path.split(peak.file)
            self._files["memory"] = Read("memory", f"{directory}/{CURRENT.get(name, name)}")
        self._look, self._begin = look, started
        self._over = threading.Event()
        self._rows: list[tuple[float, ...]] = []
        self.snapshot: Snapshot | None = None

    def run(self) -> None:
        interval, next_look = INTERVAL, FIRST_LOOK
        while True:
            self._sample()
            if time.monotonic() - self._begin >= next_look:
                self._take_snapshot()
                next_look *= 2
            if len(self._rows) >= MOST:
                self._rows = self._rows[::2]
                interval *= 2
            if self._over.wait(interval):
                return

    def stop(self) -> Series:
        """End it: everything that was sampled."""
        self._over.set()
        self.join()
        columns = dict(zip(("times", *self._files), zip(*self._rows, strict=True), strict=True)) if self._rows else {}
        return Series(times=columns.get("times", ()), memory=tuple(map(int, columns.get("memory", ()))),
                      cpu=columns.get("cpu_time", ()), throttled=columns.get("throttled_time", ()),
                      oom_kills=tuple(map(int, columns.get("oom_kill", ()))))

    def _sample(self) -> None:
        now = time.monotonic() - self._begin
        try:
            self._rows.append((round(now, 4), *map(_number, self._files.values())))
        except (ValueError, KeyError):
            return  # it is over, and the cgroup is gone

    def _take_snapshot(self) -> None:
        fresh = self._look(round(time.monotonic() - self._begin, 2))
        if fresh is not None and (self.snapshot is None or _memory(fresh) >= _memory(self.snapshot)):
            self.snapshot = fresh


def _number(read: Read) -> float:
    text = small_file(read.file)
    number = int(value_of(text, read.key) if read.key else text)
    scale = PER_SECOND.get(read.unit)
    return round(number / scale, 6) if scale else number


def _memory(snapshot: Snapshot) -> int:
    return next((int(one.holds) for one in snapshot.beliefs
                 if (one.level, one.figure) == ("cgroup", "memory") and one.holds.isdigit()), 0)
