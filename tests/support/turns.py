"""Locks that keep a test that must be alone from running beside the tests of other workers of pytest-xdist."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

TURNSTILE, ROOM = (Path(__file__).parents[1], Path(__file__).parent)
"""Directories of the sources, which every worker can lock (flock(2)). A running test holds the lock ROOM, shared, or
exclusive if it must be alone. A test that waits for ROOM holds TURNSTILE, so that no later test gets ROOM before it."""


@contextmanager
def turn(test: pytest.Item) -> Iterator[None]:
    """Wait until ``test`` may run, and keep tests that must not run beside it waiting until the block ends."""
    with _lock(TURNSTILE) as turnstile, _lock(ROOM) as room:
        fcntl.flock(turnstile, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if test.get_closest_marker("alone") else fcntl.LOCK_SH)
        fcntl.flock(turnstile, fcntl.LOCK_UN)
        yield


@contextmanager
def _lock(path: Path) -> Iterator[int]:
    """A file descriptor to lock. At the end it is unlocked and closed, also if a forked child has a copy of it."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)
