"""One connection to systemd: calls are sent, answers and the signals of ended jobs and units are waited for.

Source: the D-Bus specification. A manager on the same machine has our byte order.
"""

from __future__ import annotations

import os
import sys
import time

from . import dbus
from .dbus_value import unpack
from .stdlib import TYPE_CHECKING, Any, suppress

if TYPE_CHECKING:
    import socket
else:
    import _socket as socket  # without the enums around its numbers, and selectors

SYSTEMD, ROOT = "org.freedesktop.systemd1", "/org/freedesktop/systemd1"
DBUS, DBUS_ROOT = "org.freedesktop.DBus", "/org/freedesktop/DBus"
MANAGER = f"{SYSTEMD}.Manager"
ABSENT = tuple(f"{DBUS}.Error.{name}" for name in ("NameHasNoOwner", "ServiceUnknown", "NoReply", "Disconnected"))
"""What a message bus answers for a manager that has left it."""


def _member(name: str) -> bytes:
    """The header field of a signal's name (``yv``: the code 3, and a string), as it stands in a message."""
    return b"\3\1s\0" + len(name).to_bytes(4, sys.byteorder) + name.encode() + b"\0"


JOB_REMOVED, UNIT_REMOVED = _member("JobRemoved"), _member("UnitRemoved")


class Refused(Exception):
    """The manager answered with an error: its D-Bus name and its message."""

    def __str__(self) -> str:
        return "{1} ({0})".format(*self.args)


class Link:
    """One open connection, logged in, to systemd's own socket (``private``) or to a message bus.

    Methods raise ConnectionError when it dropped, TimeoutError when ``until`` has passed, Refused for an error.
    """

    def __init__(self, address: str, *, private: bool, until: float) -> None:
        self.private, self.until = private, until
        self.ended: dict[str, str] = {}  # during this use: jobs, by object path, with their results, and units
        self._serial, self._input = 0, bytearray()
        self._socket = socket.socket(socket.AF_UNIX)
        self.close = self._socket.close
        try:
            self._socket.settimeout(self._left())
            self._socket.connect(address)
            self._log_in()
        except BaseException:
            self.close()
            raise

    def _left(self) -> float:
        return max(self.until - time.monotonic(), 0.001)

    def _log_in(self) -> None:
        """SASL EXTERNAL with everything sent at once, as sd-bus does: one round trip, and one more on a message bus."""
        user = str(os.geteuid()).encode().hex().encode()
        self._socket.sendall(b"\0AUTH EXTERNAL %b\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n" % user)
        while self._input.count(b"\r\n") < 2:
            self._read(self._left())
        answer, agreed, self._input = self._input.split(b"\r\n", 2)
        if not answer.startswith(b"OK ") or agreed != b"AGREE_UNIX_FD":
            raise PermissionError(f"login refused, {answer.decode(errors='replace')}")
        if not self.private:
            try:
                self.ask(DBUS, DBUS_ROOT, DBUS, "Hello")
                for member in ("JobRemoved", "UnitRemoved"):
                    self._tell_bus("AddMatch", f"type='signal',sender='{SYSTEMD}',path='{ROOT}',member='{member}'")
                # systemd broadcasts signals only if a client has called Subscribe. Wait for the answer: our connection
                # may have started dbus-daemon, which drops calls to systemd until systemd has connected to it as well.
                self.manager("Subscribe")
            except Refused as error:
                raise ConnectionRefusedError(str(error)) from None

    def _tell_bus(self, member: str, *body: str) -> None:
        """Messages are handled in order: no answer has to be waited for."""
        self.send(DBUS, DBUS_ROOT, DBUS, member, "s" * len(body), body, reply=False)

    def send(self, name: str, path: str, interface: str, member: str, signature: str = "",
             body: tuple[object, ...] = (), *, reply: bool = True) -> int:
        """Send a method call; the serial number its answer will refer to."""
        self._serial += 1
        flags = dbus.NO_AUTO_START | (0 if reply else dbus.NO_REPLY_EXPECTED)
        data, fds = dbus.call(self._serial, name, path, interface, member, signature, body, flags=flags)
        rights = b"".join([fd.to_bytes(4, sys.byteorder) for fd in fds])
        self._socket.settimeout(self._left())
        sent = self._socket.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if fds else [])
        self._socket.sendall(data[sent:])
        return self._serial

    def ask(self, *call: Any) -> tuple[Any, ...]:
        """Call a method, see :meth:`send`, and wait for its answer."""
        serial = self.send(*call)
        while (answer := self._receive()) is None or answer.serial != serial:
            pass
        if answer.kind == dbus.METHOD_RETURN:
            return answer.body
        if answer.error in ABSENT and not self.private:
            raise ConnectionResetError(f"systemd is not connected to this message bus: {answer.error}; "
                                       "SIGUSR1 makes systemd reconnect")
        raise Refused(answer.error, str(answer.body[0]) if answer.body else "")

    def manager(self, method: str, signature: str = "", *body: object) -> tuple[Any, ...]:
        """Call a method of the manager."""
        return self.ask(SYSTEMD, ROOT, MANAGER, method, signature, body)

    def read(self, path: str, interface: str, name: str) -> Any:
        """Read a property, as plain data."""
        call = (f"{DBUS}.Properties", "Get", "ss", (f"{SYSTEMD}.{interface}", name))
        return unpack(*self.ask(SYSTEMD, path, *call)[0])

    def wait(self, what: str) -> str:
        """Wait for the end of a job, whose result it is, or for a unit to be unloaded."""
        while what not in self.ended:
            self._receive()
        return self.ended.pop(what)

    def drain(self) -> None:
        """Throw away what has arrived."""
        with suppress(BlockingIOError):
            while True:
                self._read(0)
                while self._next():
                    pass
        self.ended.clear()

    def _receive(self) -> dbus.Answer | None:
        """The next answer; None for a signal, of which only what has ended is noted."""
        while (raw := self._next()) is None:
            self._read(self._left())
        if raw[1] != dbus.SIGNAL:
            return dbus.answer(raw)
        if ended := ending(raw):
            self.ended[ended[0]] = ended[1]
        return None

    def _read(self, timeout: float) -> None:
        self._socket.settimeout(timeout)
        data = self._socket.recv(1 << 16)
        if not data:
            raise ConnectionResetError("systemd closed the connection")
        self._input += data

    def _next(self) -> bytes | None:
        """Cut the next message off what was read."""
        size = dbus.size(self._input)
        if not size or len(self._input) < size:
            return None
        raw = bytes(self._input[:size])
        del self._input[:size]
        return raw


def ending(signal: bytes) -> tuple[str, str] | None:
    """What a signal says has ended: a job, by its object path, with its result; or a unit. None for another signal.

    Not read whole: every launch brings some twenty signals, and none but these two matters.
    """
    size = int.from_bytes(signal[12:16], sys.byteorder)
    header, body = signal[:16 + size], signal[16 + size + -size % 8:]
    if JOB_REMOVED in header:
        job, _, result = _strings(body[4:])  # behind its number
        return job, result
    return (_strings(body)[0], "removed") if UNIT_REMOVED in header else None


def _strings(body: bytes) -> list[str]:
    """The strings and object paths that are all there is in ``body``."""
    found, at = [], 0
    while at < len(body):
        end = at + 4 + int.from_bytes(body[at:at + 4], sys.byteorder)
        found.append(body[at + 4:end].decode())
        at = end + 1 + -(end + 1) % 4
    return found
