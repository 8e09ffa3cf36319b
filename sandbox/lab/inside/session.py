"""One command on one channel, from its start to its exit code."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import struct
import termios
from collections.abc import Callable
from typing import Any

from .frames import CHUNK, MAGIC, Frames, frame
from .place import enter, join, new_group


class Session:
    """One command on one channel.

    :param channel: fd of the channel, non-blocking from here on.
    """

    def __init__(self, channel: int) -> None:
        os.set_blocking(channel, False)
        self._channel = channel
        self._frames = Frames(MAGIC)
        self._out = bytearray()
        self._input = bytearray()
        self._input_ended = False
        self._stdin = -1
        self._sources: dict[int, bytes] = {}
        self._terminal = False
        self._pid = 0
        self._pidfd = -1

    def serve(self) -> None:
        """Until the command has ended and its output is sent, or the other side has gone."""
        handle: dict[bytes, Callable[[bytes], None]] = {
            b"S": self._start, b"I": self._take_input, b"K": self._signal, b"W": self._resize}
        while True:
            ready = self._wait()
            if self._channel in ready:
                data = _read(self._channel)
                if data == b"":
                    self._abandon()
                    return
                for kind, payload in self._frames.feed(data or b""):
                    handle[kind](payload)
            self._feed_command()
            if not self._out:
                self._collect()
            if self._pidfd in ready and not self._out and self._finish():
                return
            self._flush()

    def _wait(self) -> set[int]:
        poll = select.poll()
        poll.register(self._channel, select.POLLIN | (select.POLLOUT if self._out else 0))
        if self._input and self._stdin >= 0:
            poll.register(self._stdin, select.POLLOUT)
        if not self._out:
            for source in self._sources:
                poll.register(source, select.POLLIN)
            if self._pidfd >= 0:
                poll.register(self._pidfd, select.POLLIN)
        return {fd for fd, event in poll.poll() if event & ~select.POLLOUT}

    def _start(self, payload: bytes) -> None:
        wish = json.loads(payload)
        self._out += bytes.fromhex(wish["token"])
        self._terminal = wish["size"] is not None
        ends = self._open_terminal(wish["size"]) if self._terminal else self._open_pipes()
        group = new_group()
        self._pid = os.fork()
        if self._pid == 0:
            run(wish, ends, group, terminal=self._terminal)
        self._pidfd = os.pidfd_open(self._pid)
        for end in set(ends):
            os.close(end)

    def _open_terminal(self, size: list[int]) -> tuple[int, int, int]:
        self._stdin, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        os.set_blocking(self._stdin, False)
        self._sources = {self._stdin: b"O"}
        return slave, slave, slave

    def _open_pipes(self) -> tuple[int, int, int]:
        stdin, self._stdin = os.pipe()
        stdout, out = os.pipe()
        stderr, err = os.pipe()
        self._sources = {stdout: b"O", stderr: b"E"}
        for fd in (self._stdin, stdout, stderr):
            os.set_blocking(fd, False)
        return stdin, out, err

    def _take_input(self, payload: bytes) -> None:
        if payload:
            self._input += payload
        elif self._terminal:
            self._input += b"\x04"
        else:
            self._input_ended = True

    def _signal(self, payload: bytes) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, int(payload))

    def _resize(self, payload: bytes) -> None:
        fcntl.ioctl(self._stdin, termios.TIOCSWINSZ, struct.pack("HHHH", *json.loads(payload), 0, 0))

    def _feed_command(self) -> None:
        taken = 0
        if self._input:
            try:
                taken = os.write(self._stdin, self._input) if self._stdin >= 0 else len(self._input)
            except BlockingIOError:
                return
            except OSError:  # nobody reads it any more: swallow what comes
                taken = len(self._input)
                self._input_ended = True
            del self._input[:taken]
            self._out += frame(b"A", b"%d" % taken)
        if self._input_ended and not self._input and self._stdin >= 0 and not self._terminal:
            os.close(self._stdin)
            self._stdin = -1

    def _collect(self) -> int:
        """Queue what the command has written; the number of bytes."""
        total = 0
        for source, kind in list(self._sources.items()):
            data = _read(source)
            if data == b"":
                del self._sources[source]
            elif data:
                total += len(data)
                self._out += frame(kind, data)
        return total

    def _finish(self) -> bool:
        """The command has ended: send what is left, then the exit code."""
        while self._collect():
            self._drain()
        _, status = os.waitpid(self._pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._out += frame(b"X", b"%d" % (code if code >= 0 else 128 - code))
        self._drain()
        return True

    def _drain(self) -> None:
        while self._out:
            poll = select.poll()
            poll.register(self._channel, select.POLLOUT)
            if any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll()):
                self._out.clear()
            self._flush()

    def _flush(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._out:
                del self._out[:os.write(self._channel, self._out[:CHUNK])]

    def _abandon(self) -> None:
        """The other side has gone: the command goes too, softly first, as when a terminal is closed."""
        if not self._pid:
            return
        for number in (signal.SIGHUP, signal.SIGKILL):
            self._signal(b"%d" % number)
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            if poll.poll(2000):
                break
        os.waitpid(self._pid, 0)


def run(wish: dict[str, Any], ends: tuple[int, int, int], group: str, *, terminal: bool) -> None:
    """In the child: become the command. Does not return."""
    try:
        for number, end in enumerate(ends):
            os.dup2(end, number)
        os.setsid()
        if terminal:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        join(group)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        enter(wish["cwd"])
        os.closerange(3, 4096)
        os.execvpe(wish["argv"][0], wish["argv"], wish["env"])
    except OSError as error:
        _give_up(f"{wish['argv'][0]}: {error.strerror}", 127 if isinstance(error, FileNotFoundError) else 126)
    except BaseException as error:
        _give_up(repr(error), 125)


def _give_up(reason: str, code: int) -> None:
    os.write(2, f"sandbox lab: {reason}\n".encode())
    os._exit(code)


def _read(fd: int) -> bytes | None:
    """A chunk, empty at the end, None when there is nothing now."""
    try:
        return os.read(fd, CHUNK)
    except BlockingIOError:
        return None
    except OSError:
        return b""
