"""Signals to the runner, read as data."""

from __future__ import annotations

import os
import sys

from sandbox.libc import call
from sandbox.stdlib import TYPE_CHECKING, signal

if TYPE_CHECKING:
    from collections.abc import Iterable

ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
PASSED = frozenset({signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH})
JOB_CONTROL = frozenset({signal.SIGTSTP, signal.SIGCONT})
SI_KERNEL = 0x80
"""``si_code`` of a signal that the kernel itself has sent (sigaction(2)). It sends SIGINT, SIGQUIT and SIGTSTP when
somebody presses a key of the terminal."""
_SIGINFO_SIZE = 128
_SIGSET_SIZE = 128


def end_in_order() -> None:
    """Have SIGTERM end us as Ctrl-C does, with everything removed on the way out."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


class Signals:
    """A signalfd(2) for the signals the runner cares about, which are blocked from here on.

    Python has none, and its handlers run only between two of its own instructions.

    :param numbers: what to read.
    :raises OSError: when the kernel refuses.
    """

    def __init__(self, numbers: Iterable[int]) -> None:
        chosen = frozenset(numbers)
        signal.pthread_sigmask(signal.SIG_BLOCK, chosen)
        mask = sum(1 << (number - 1) for number in chosen).to_bytes(_SIGSET_SIZE, sys.byteorder)
        self._fd = call("signalfd", -1, mask, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError("signalfd(2) gave no fd: too many files may be open")

    def fileno(self) -> int:
        """Readable when a signal has come."""
        return self._fd

    def read(self) -> list[int]:
        """The signals that came. Does not block."""
        return [number for number, _ in self.read_origins()]

    def read_origins(self) -> list[tuple[int, bool]]:
        """The signals that came, each with whether a key of the terminal sent it. Does not block."""
        try:
            data = os.read(self._fd, 16 * _SIGINFO_SIZE)
        except BlockingIOError:
            return []
        return [(int.from_bytes(data[at:at + 4], sys.byteorder),
                 int.from_bytes(data[at + 8:at + 12], sys.byteorder, signed=True) == SI_KERNEL)
                for at in range(0, len(data), _SIGINFO_SIZE)]

    def close(self) -> None:
        """Close the fd. The signals stay blocked: what comes now must not cut off the report."""
        os.close(self._fd)
