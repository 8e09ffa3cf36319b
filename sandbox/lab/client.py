"""Our end of a command in a lab: its standard files and signals, over a channel to the agent."""

from __future__ import annotations

import os
import secrets
import select

from ..errors import SandboxError
from ..stdlib import TYPE_CHECKING, Protocol, suppress
from .inside.frames import CHUNK, MAGIC, WINDOW, Frames, frame

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

PASSED_VARIABLES = ("TERM", "LANG", "LC_ALL", "COLORTERM", "NO_COLOR")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class SignalSource(Protocol):
    """Signals as data: an fd that becomes readable, and what came."""

    def fileno(self) -> int: ...

    def read(self) -> Iterable[int]: ...


class Command:
    """A command in a lab, from its start to its exit code.

    :param channel: a fresh connection to the agent; closed at the end.
    :param argv: the command.
    :param cwd: directory inside; the host's directory of that path is shown there.
    :param env: variables besides those of the lab.
    :param size: rows and columns of a terminal to give it; None for none.
    :param files: the fds that are its standard input, output and error.
    """

    def __init__(self, channel: socket.socket, argv: list[str], *, cwd: str, env: dict[str, str] | None = None,
                 size: tuple[int, int] | None = None, files: tuple[int, int, int] = (0, 1, 2)) -> None:
        import json

        self._channel = channel
        self._stdin, self._outputs = files[0], {b"O": files[1], b"E": files[2]}
        self._stdin_open = True
        self._sent = 0
        self._size = size
        environment = {"PATH": PATH, "HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/bash"}
        environment |= {name: value for name in PASSED_VARIABLES if (value := os.environ.get(name))} | (env or {})
        token = secrets.token_bytes(16)
        self._frames = Frames(token)
        wish = {"argv": argv, "env": environment, "cwd": cwd, "size": size, "token": token.hex()}
        channel.sendall(MAGIC + frame(b"S", json.dumps(wish).encode()))

    def wait(self, signals: SignalSource | None = None, *, deadline: float | None = None) -> int:
        """Relay until the command has ended.

        :param signals: passed on to the command's process group; SIGWINCH as the terminal's new size.
        :param deadline: seconds to wait for the agent to answer at all.
        :returns: the command's exit code, 128+n for a signal.
        :raises SandboxError: the lab ended first.
        :raises TimeoutError: the agent did not answer.
        """
        with self._channel:
            while True:
                ready = self._poll(signals, None if self._frames.begun else deadline)
                if self._channel.fileno() in ready:
                    code = self._receive()
                    if code is not None:
                        return code
                if self._stdin in ready:
                    self._send_input()
                if signals is not None and signals.fileno() in ready:
                    self._send_signals(signals)

    def _poll(self, signals: SignalSource | None, deadline: float | None) -> set[int]:
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        if self._stdin_open and self._frames.begun and self._sent < WINDOW:
            poll.register(self._stdin, select.POLLIN)
        if signals is not None:
            poll.register(signals.fileno(), select.POLLIN)
        ready = {fd for fd, _ in poll.poll(None if deadline is None else deadline * 1000)}
        if not ready:
            raise TimeoutError(f"the agent did not answer within {deadline:g} s")
        return ready

    def _receive(self) -> int | None:
        try:
            data = self._channel.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        if not data:
            raise SandboxError("the lab ended before the command did",
                               hint="a VM's last words are in ended.log in the cache directory")
        for kind, payload in self._frames.feed(data):
            if kind == b"X":
                return int(payload)
            if kind == b"A":
                self._sent -= int(payload)
            else:
                self._write(self._outputs[kind], payload)
        return None

    def _write(self, fd: int, data: bytes) -> None:
        """To our own output. Nobody reads it: the command learns that by SIGPIPE, as it would here."""
        try:
            while data:
                data = data[os.write(fd, data):]
        except BrokenPipeError:
            self._send(b"K", b"13")

    def _send_input(self) -> None:
        try:
            data = os.read(self._stdin, min(CHUNK, WINDOW - self._sent))
        except OSError:
            data = b""
        self._stdin_open = bool(data)
        self._sent += len(data)
        self._send(b"I", data)

    def _send_signals(self, signals: SignalSource) -> None:
        import json
        from signal import SIGWINCH

        for number in signals.read():
            if number == SIGWINCH:
                if self._size is not None:
                    self._send(b"W", json.dumps(window()).encode())
            else:
                self._send(b"K", b"%d" % number)

    def _send(self, kind: bytes, payload: bytes) -> None:
        with suppress(OSError):  # it has just ended, and the exit code is on its way
            self._channel.sendall(frame(kind, payload))


def window() -> tuple[int, int]:
    """Rows and columns of our terminal."""
    for fd in range(3):
        try:
            size = os.get_terminal_size(fd)
        except OSError:
            continue
        return size.lines or 24, size.columns or 80
    return 24, 80
