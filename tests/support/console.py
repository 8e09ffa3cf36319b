"""A terminal for the program under test, and somebody who types into it and reads it."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
import time
from typing import Any

from support.sandbox_run import BESIDE_SYSTEMD, Program, Running

WARNING = BESIDE_SYSTEMD.rstrip().encode()


class Console:
    """A pty. A runner started on it has it as its controlling terminal, as from a shell in a window."""

    def __init__(self, rows: int = 24, columns: int = 80) -> None:
        self.master, self.slave = os.openpty()
        self.text = b""
        self.resize(rows, columns)

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.master)
        os.close(self.slave)

    def resize(self, rows: int, columns: int) -> None:
        """As dragging the window's corner does: the foreground process group gets SIGWINCH."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def start(self, sandbox: Program, *words: str, **options: Any) -> Running:
        """Start ``sandbox run`` on this terminal."""
        return sandbox.start(*words, stdin=self.slave, stdout=self.slave, stderr=self.slave,
                             preexec_fn=self._take_over, **options)

    def _take_over(self) -> None:
        os.setsid()
        fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)

    def type(self, data: bytes) -> None:
        """What somebody types."""
        os.write(self.master, data)

    def expect(self, wanted: bytes, *, seconds: float = 60) -> bytes:
        """Read until ``wanted`` appears; what was read up to its end is returned, and forgotten."""
        deadline = time.monotonic() + seconds
        while wanted not in self.text:
            ready, _, _ = select.select([self.master], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"no {wanted!r} in {self.text!r}"
            self.text += os.read(self.master, 65536)
            for ending in (b"\r\n", b"\n"):  # with -t, the terminal is raw already
                self.text = self.text.replace(WARNING + ending, b"")
        end = self.text.index(wanted) + len(wanted)
        found, self.text = self.text[:end], self.text[end:]
        return found
