"""The terminal of ``sandbox run -t``: a pty for the workload, and the relay between it and ours."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import stat
import termios
import tty

CHUNK = 4096
END_OF_FILE = b"\x04"


class Terminal:
    """A pty whose slave end is the workload's terminal. Use as a context manager: our own terminal, if stdin is one,
    is raw in between while the runner is in the foreground, and restored on every way out.

    At most one chunk is held for each direction: while it cannot be written, no more is read.

    """

    def __init__(self) -> None:
        self._master, self.slave = os.openpty()
        os.set_blocking(self._master, False)
        self._attributes = termios.tcgetattr(0) if os.isatty(0) else None
        self._stdout = _own_stdout()
        self._incoming = b""
        self._outgoing = b""
        self._stdin_open = True
        self._is_raw = False
        self._last_input = b"\n"
        self.resize()

    def __enter__(self) -> Terminal:
        self.resume()
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()
        self.hang_up()
        os.close(self.slave)
        os.close(self._stdout)

    def resume(self) -> None:
        """Make our terminal raw if the runner is in the foreground: at the start, and when the shell continues it."""
        if self._attributes is not None and not _in_background():
            with contextlib.suppress(termios.error):  # it may be gone, and its SIGCONT the news of that
                tty.setraw(0, termios.TCSADRAIN)
                self._is_raw = True

    def restore(self) -> None:
        """Set the attributes of our terminal to what they were at the start."""
        if self._attributes is not None and self._is_raw:
            self._is_raw = False
            with contextlib.suppress(termios.error):  # the terminal itself may be gone
                termios.tcsetattr(0, termios.TCSADRAIN, self._attributes)

    @property
    def is_in_background(self) -> bool:
        """The runner was in the background when :meth:`resume` looked last."""
        return self._attributes is not None and not self._is_raw

    def resize(self) -> None:
        """Copy our window's size; the kernel tells the workload by SIGWINCH."""
        window = next((fd for fd in range(3) if os.isatty(fd)), None)
        if window is not None and self._master >= 0:
            size = fcntl.ioctl(window, termios.TIOCGWINSZ, bytes(8))
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def hang_up(self) -> None:
        """Close our end: the workload gets SIGHUP, as when a terminal window closes."""
        if self._master >= 0:
            os.close(self._master)
        self._master, self._outgoing, self._incoming, self._stdin_open = -1, b"", b"", False

    def register(self, poll: select.poll) -> None:
        """Ask ``poll`` for what can be made use of now, and for nothing else."""
        if self._master >= 0:
            wanted = (0 if self._outgoing else select.POLLIN) | (select.POLLOUT if self._incoming else 0)
            poll.register(self._master, wanted)
        if self._outgoing:
            poll.register(self._stdout, select.POLLOUT)
        if self._reads_stdin():
            poll.register(0, select.POLLIN)

    def relay(self) -> bool:
        """Move what can be moved without waiting; tell whether the workload's output is all written."""
        self._read_stdin()
        self._write_master()
        if not self._outgoing:
            self._outgoing = _read(self._master) or b"" if self._master >= 0 else b""
        self._write_stdout()
        return not self._outgoing and not _ready(self._master)

    def _reads_stdin(self) -> bool:
        """True if there is room for more input. In the background, the shell reads what is typed."""
        return self._stdin_open and not self._incoming and not self.is_in_background

    def _read_stdin(self) -> None:
        if not self._reads_stdin() or not _ready(0):
            return
        data = _read(0)
        if data is None:
            return
        if data:
            self._incoming, self._last_input = data, data[-1:]
            return
        self._stdin_open = False
        # A terminal has no end of file, only this character; in mid line the first one just ends the line.
        self._incoming = END_OF_FILE if self._last_input == b"\n" else 2 * END_OF_FILE

    def _write_master(self) -> None:
        if self._incoming and self._master >= 0:
            with contextlib.suppress(BlockingIOError):
                self._incoming = self._incoming[os.write(self._master, self._incoming):]

    def _write_stdout(self) -> None:
        if not self._outgoing or not _ready(self._stdout, select.POLLOUT):
            return
        try:
            self._outgoing = self._outgoing[os.write(self._stdout, self._outgoing):]
        except BlockingIOError:
            pass
        except OSError:  # the reader is gone
            self.hang_up()


def _in_background() -> bool:
    """True if stdin is our controlling terminal, and another process group is its foreground group."""
    try:
        return os.tcgetpgrp(0) != os.getpgrp()
    except OSError:  # it is not our controlling terminal, so no shell moves us to the background
        return False


def _own_stdout() -> int:
    """Stdout as an open file of our own, so that making it non-blocking does not do that to the caller's."""
    mode = os.fstat(1).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        with contextlib.suppress(OSError):
            return os.open("/proc/self/fd/1", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    return os.dup(1)


def _ready(fd: int, event: int = select.POLLIN) -> bool:
    if fd < 0:
        return False
    poll = select.poll()
    poll.register(fd, event)
    return bool(poll.poll(0))


def _read(fd: int) -> bytes | None:
    """A chunk, empty at the end, None when there is nothing yet."""
    try:
        return os.read(fd, CHUNK)
    except BlockingIOError:
        return None
    except OSError:  # EIO: a terminal that is gone
        return b""
