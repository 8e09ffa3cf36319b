"""Whose turn it is: tests run beside each other in the workers of pytest-xdist, and one that is ``alone`` does not."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.selection import PLACE

TURNSTILE, ROOM = (Path(__file__).parents[1], Path(__file__).parent)
"""Two directories that every worker can open, for their locks (flock(2)). Whoever waits for the room holds the
turnstile: nobody who comes later is let in before."""


def is_alone(test: pytest.Item) -> bool:
    """The test measures, or acts on the whole machine. Where systemd has cgroup v2, it takes controllers back from a
    cgroup that is made behind its back whenever a unit of another test ends: the cgroupfs driver is tested alone."""
    return test.get_closest_marker("alone") is not None or (PLACE == "vm" and "cgroupfs" in test.name)


@contextmanager
def turn(test: pytest.Item) -> Iterator[None]:
    """Wait for what must not run beside ``test``, and keep it away until the block ends."""
    with _lock(TURNSTILE) as turnstile, _lock(ROOM) as room:
        fcntl.flock(turnstile, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if is_alone(test) else fcntl.LOCK_SH)
        fcntl.flock(turnstile, fcntl.LOCK_UN)
        yield


@contextmanager
def _lock(path: Path) -> Iterator[int]:
    """A descriptor to lock; at the end nobody holds its lock, not even a forked child that has it too."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)
