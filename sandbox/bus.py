"""systemd's manager over D-Bus: units started and stopped, each awaited by the signal that says so.

Root talks to systemd's own socket, ``/run/systemd/private``, as ``systemctl`` does: no message bus in between. Everyone
else, and root where that socket is missing, goes through the message bus; the manager of a user has both too.

On its own socket systemd sends every signal it has, asked or not. What has arrived is thrown away before each use, but
while a connection lies idle systemd queues what the socket does not take: close it then (:meth:`Bus.close`), the next
use opens it again. On a message bus only the ends of jobs and units are matched.

Sources: org.freedesktop.systemd1(5), the D-Bus specification, and systemd's ``src/core/dbus.c`` and ``dbus-manager.c``.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, TypeVar

from .errors import BusError
from .property import Property, declared, object_path, packed, process, unpack

PATIENCE = 30.0
"""Seconds for any answer, as runc has it."""
RETRY = 0.01
"""Seconds between attempts to connect while systemd executes itself anew: nothing tells when its socket is back."""

SYSTEMD, ROOT = "org.freedesktop.systemd1", "/org/freedesktop/systemd1"
DBUS, DBUS_ROOT = "org.freedesktop.DBus", "/org/freedesktop/DBus"
MANAGER = f"{SYSTEMD}.Manager"
NO_SUCH_UNIT, UNIT_EXISTS = f"{SYSTEMD}.NoSuchUnit", f"{SYSTEMD}.UnitExists"
READ_ONLY = f"{DBUS}.Error.PropertyReadOnly"
DENIED = tuple(f"{DBUS}.Error.{name}" for name in ("AccessDenied", "InteractiveAuthorizationRequired"))
ABSENT = tuple(f"{DBUS}.Error.{name}" for name in ("NameHasNoOwner", "ServiceUnknown", "NoReply", "Disconnected"))
"""What a message bus answers for a manager that has left it."""
METHOD_RETURN, SIGNAL, NO_REPLY_EXPECTED, NO_AUTO_START = 2, 4, 0x1, 0x2

Call = tuple[Any, ...]
Result = TypeVar("Result")


class Refused(Exception):
    """The manager answered with an error: its D-Bus name and its message."""

    def __str__(self) -> str:
        return "{1} ({0})".format(*self.args)


class Link:
    """One open connection, logged in, to systemd's own socket (``private``) or to a message bus.

    Methods raise ConnectionError when it dropped, TimeoutError when ``until`` has passed, Refused for an error.
    """

    def __init__(self, address: str, *, private: bool, until: float) -> None:
        import socket

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
            self._tell_bus("Hello")
            for member in ("JobRemoved", "UnitRemoved"):
                self._tell_bus("AddMatch", f"type='signal',sender='{SYSTEMD}',path='{ROOT}',member='{member}'")
            # Without a subscriber the manager broadcasts nothing.
            self.send(SYSTEMD, ROOT, MANAGER, "Subscribe", reply=False)
            if not self.ask(DBUS, DBUS_ROOT, DBUS, "NameHasOwner", "s", (SYSTEMD,))[0]:
                raise ConnectionRefusedError("systemd is not on this bus")

    def _tell_bus(self, member: str, *body: str) -> None:
        """Messages are handled in order: no answer has to be waited for."""
        self.send(DBUS, DBUS_ROOT, DBUS, member, "s" * len(body), body, reply=False)

    def send(self, name: str, path: str, interface: str, member: str, signature: str = "",
             body: tuple[object, ...] = (), *, reply: bool = True) -> int:
        """Send a method call; the serial number its answer will refer to."""
        import socket
        from array import array

        from jeepney import DBusAddress, MessageFlag, new_method_call  # type: ignore[import-untyped]

        message = new_method_call(DBusAddress(path, name, interface), member, signature, body)
        message.header.flags = MessageFlag(NO_AUTO_START | (0 if reply else NO_REPLY_EXPECTED))
        self._serial += 1
        fds = array("i")
        data = message.serialise(self._serial, fds)
        self._socket.settimeout(self._left())
        sent = self._socket.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if fds else [])
        self._socket.sendall(data[sent:])
        return self._serial

    def ask(self, *call: Any) -> tuple[Any, ...]:
        """Call a method, see :meth:`send`, and wait for its answer."""
        from jeepney import HeaderFields

        serial = self.send(*call)
        while (message := self._receive()).header.fields.get(HeaderFields.reply_serial) != serial:
            pass
        if message.header.message_type.value == METHOD_RETURN:
            return tuple(message.body)
        error = message.header.fields[HeaderFields.error_name]
        if error in ABSENT and not self.private:
            raise ConnectionResetError(f"systemd left the bus: {error}")
        raise Refused(error, str(message.body[0]) if message.body else "")

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

    def _receive(self) -> Any:
        """The next answer, or signal of the end of a job or unit, which is noted."""
        from jeepney import HeaderFields
        from jeepney.low_level import Message  # type: ignore[import-untyped]

        # Nothing else is parsed: a message takes jeepney a tenth of a millisecond.
        while (raw := self._next()) is None or (raw[1] == SIGNAL and b"Removed\0" not in raw):
            if raw is None:
                self._read(self._left())
        message = Message.from_buffer(raw)
        member = message.header.fields.get(HeaderFields.member)
        if raw[1] == SIGNAL and member == "JobRemoved":
            self.ended[message.body[1]] = message.body[3]
        elif raw[1] == SIGNAL and member == "UnitRemoved":
            self.ended[message.body[0]] = "removed"
        return message

    def _read(self, timeout: float) -> None:
        self._socket.settimeout(timeout)
        data = self._socket.recv(1 << 16)
        if not data:
            raise ConnectionResetError("systemd closed the connection")
        self._input += data

    def _next(self) -> bytes | None:
        """Cut the next message off what was read."""
        from jeepney.low_level import calc_msg_size

        if len(self._input) < 16 or len(self._input) < (size := calc_msg_size(self._input)):
            return None
        raw = bytes(self._input[:size])
        del self._input[:size]
        return raw


class Bus:
    """A manager of systemd, through one connection that is opened anew whenever it dropped. Any thread may use it.

    Methods raise BusError when the manager refuses, fails, or gives no answer within :data:`PATIENCE`.
    """

    def __init__(self, *, user: bool) -> None:
        self._user = user
        self._lock = threading.RLock()
        self._link: Link | None = _connect(user, time.monotonic() + PATIENCE)

    @classmethod
    def open(cls, *, user: bool = False) -> Bus:
        """Connect to the system's manager, or to that of this user.

        :raises BusError: there is no systemd, no manager of the user, or it is not for us.
        """
        return cls(user=user)

    def __enter__(self) -> Bus:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next use opens a new one."""
        with self._lock:
            if self._link:
                self._link.close()
            self._link = None

    def _do(self, what: str, work: Callable[[Link, bool], Result]) -> Result:
        """Do ``work`` on the connection, and again on a new one whenever it drops; then its second argument is true."""
        with self._lock:
            until, again = time.monotonic() + PATIENCE, False
            while True:
                try:
                    self._link = self._link or _connect(self._user, until, again=again)
                    self._link.until = until
                    self._link.drain()
                    return work(self._link, again)
                except ConnectionError:
                    self.close()
                    again = True
                except TimeoutError:
                    self.close()
                    raise BusError(f"systemd gave no answer within {PATIENCE:g} s: {what}",
                                   hint="see `systemctl list-jobs` and `journalctl -b _PID=1`") from None
                except Refused as error:
                    hint = {READ_ONLY: f"systemd {self.version} does not know it, or does not let it be set here",
                            **dict.fromkeys(DENIED, "run as root, or with --systemd-user")}.get(error.args[0], "")
                    raise BusError(f"systemd refused to {what}: {error}", hint=hint) from None

    @cached_property
    def version(self) -> int:
        """systemd's, e.g. 252."""
        return int(re.findall("[0-9]+", str(self.get("", "Manager", "Version")))[0])

    @cached_property
    def control_group(self) -> str:
        """The cgroup below which the units of this manager are; ``/`` for the system's."""
        return str(self.get("", "Manager", "ControlGroup")) or "/"

    def start(self, unit: str, properties: Sequence[Property]) -> None:
        """Start a transient unit, and return when it is up. When that fails it is not left behind, except that systemd
        may yet start it after giving no answer in time: end its processes then.

        What is left of a failed unit of this name is forgotten. When the connection drops meanwhile, the unit is
        looked for, and started again only if it is not there with our process in it.

        :param properties: processes as ``PIDs`` (``au``), or from systemd 255 on as pidfds in ``PIDFDs`` (``ah``).
        """
        call: Call = ("StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "fail", [packed(*one) for one in properties], [])

        def work(link: Link, again: bool) -> None:
            if again and _is_up(link, unit, process(properties)):
                return
            try:
                result = link.wait(self._accepted(link, unit, call))
            except TimeoutError:
                with suppress(TimeoutError, ConnectionError):  # a message bus delivers this whenever systemd wakes up
                    link.until = time.monotonic() + 1
                    link.send(SYSTEMD, ROOT, MANAGER, "StopUnit", "ss", (unit, "replace"), reply=False)
                raise
            if result != "done":
                _stop(link, unit)
                raise BusError(f"systemd could not start {unit}: the job's result is {result!r}",
                               hint=f"see `journalctl -b -u {unit}`")

        self._do(f"start {unit}", work)

    def _accepted(self, link: Link, unit: str, call: Call) -> str:
        """The job that starts the unit, if need be after forgetting a failed one."""
        for forget in (True, False):
            try:
                return str(link.manager(*call)[0])
            except Refused as error:
                if error.args[0] != UNIT_EXISTS:
                    raise
            if forget:
                with suppress(Refused):
                    link.manager("ResetFailedUnit", "s", unit)
        state, text = (link.read(object_path(unit), "Unit", name) for name in ("ActiveState", "Description"))
        raise BusError(f"the name {unit} is taken by a unit that is {state}: {text!r}",
                       hint=f"systemctl {'--user ' if self._user else ''}stop {unit}")

    def stop(self, unit: str) -> None:
        """Stop a unit, and return when systemd has forgotten it; fine when there is none."""
        self._do(f"stop {unit}", lambda link, _: _stop(link, unit))

    def unit_of(self, cgroup: str) -> str:
        """The unit that owns a cgroup, given by its path below the root; empty when there is none."""
        def work(link: Link, _: bool) -> str:
            try:
                return str(link.read(link.manager("GetUnitByControlGroup", "s", cgroup)[0], "Unit", "Id"))
            except Refused as error:
                if error.args[0] != NO_SUCH_UNIT:
                    raise
                return ""

        return self._do(f"find the unit of {cgroup}", work)

    def get(self, unit: str, interface: str, name: str) -> object:
        """A property as plain data (see :mod:`sandbox.property`); that of a unit that is not there has its default.

        :param unit: empty for the manager itself.
        :param interface: ``Unit``, ``Scope``, ``Service``, ``Slice`` or ``Manager``.
        """
        return self._do(f"read {name} of {unit}", lambda link, _: link.read(object_path(unit), interface, name))

    def get_all(self, unit: str, interface: str) -> dict[str, object]:
        """All properties, see :meth:`get`."""
        call = (object_path(unit), f"{DBUS}.Properties", "GetAll", "s", (f"{SYSTEMD}.{interface}",))
        found, = self._do(f"read {unit}", lambda link, _: link.ask(SYSTEMD, *call))
        return {name: unpack(*value) for name, value in found.items()}

    def signatures(self, kind: str) -> dict[str, str]:
        """The D-Bus signature of each property that a ``scope`` or ``service`` has, by the bus's own introspection."""
        call = (object_path(f"init.{kind}"), f"{DBUS}.Introspectable", "Introspect")  # an empty service is shown, too
        return declared(self._do(f"introspect a {kind}", lambda link, _: link.ask(SYSTEMD, *call))[0], kind)

    def call(self, method: str, signature: str = "", *args: object) -> tuple[object, ...]:
        """Call a method of the manager, e.g. ``Reload``; once more whenever the connection drops, except that this is
        how ``Reexecute`` is answered: it returns when systemd is back."""
        return self._do(f"do {method}", lambda link, again: () if again and method == "Reexecute"
                        else link.manager(method, signature, *args))


def _stop(link: Link, unit: str) -> None:
    try:
        link.wait(link.manager("StopUnit", "ss", unit, "replace")[0])
        while True:
            link.ended.pop(unit, None)
            link.manager("ResetFailedUnit", "s", unit)  # of a unit that is unloaded this says NoSuchUnit
            link.wait(unit)  # a daemon-reload sends this signal too, so look again
    except Refused as error:
        if error.args[0] != NO_SUCH_UNIT:
            raise


def _is_up(link: Link, unit: str, process: int) -> bool:
    """Whether the unit is active, once it is through with its job, and has ``process`` (if not 0) in it."""
    path = object_path(unit)
    with suppress(Refused):
        link.manager("GetUnit", "s", unit)
        if (job := link.read(path, "Unit", "Job")[1]) != "/":
            link.wait(job)
        return (link.read(path, "Unit", "ActiveState") == "active"
                and (not process or link.manager("GetUnitByPID", "u", process)[0] == path))
    return False


def _connect(user: bool, until: float, *, again: bool = False) -> Link:
    """Open a connection; a socket that is there but deaf is waited for: systemd is executing itself anew."""
    while True:
        failures: dict[str, OSError] = {}
        for private, address in _addresses(user):
            try:
                return Link(address, private=private, until=until)
            except OSError as error:
                failures[address] = error
        deaf = isinstance(next(iter(failures.values())), ConnectionError)
        if not (again or deaf) or time.monotonic() > until or not os.path.isdir("/run/systemd/system"):
            raise _unreachable(user, failures)
        time.sleep(RETRY)


def _addresses(user: bool) -> Iterator[tuple[bool, str]]:
    """Where the manager may be reached, and whether that is its own socket."""
    from jeepney.bus import get_connectable_addresses  # type: ignore[import-untyped]

    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    yield True, f"{runtime if user else '/run'}/systemd/private"
    with suppress(ValueError, RuntimeError):  # none, or none that jeepney can read
        listed = os.environ.get("DBUS_SESSION_BUS_ADDRESS", "") if user else ""
        yield from ((False, address) for address in get_connectable_addresses(listed))
    yield False, f"{runtime}/bus" if user else "/run/dbus/system_bus_socket"


def _unreachable(user: bool, failures: dict[str, OSError]) -> BusError:
    tried = "; ".join(f"{address}: {error.strerror or error}" for address, error in failures.items())
    if not os.path.isdir("/run/systemd/system"):
        return BusError("systemd does not run here", hint="use --driver cgroupfs, or try it in `sandbox lab shell`")
    if not user:
        return BusError(f"systemd cannot be reached: {tried}", hint="run as root, or with --systemd-user")
    uid, missing = os.geteuid(), "" if os.environ.get("XDG_RUNTIME_DIR") else "XDG_RUNTIME_DIR is not set, and "
    return BusError(f"{missing}no systemd manager of user {uid} can be reached: {tried}",
                    hint=f"log in, or have root do `loginctl enable-linger {uid}`"
                         + (f", then export XDG_RUNTIME_DIR=/run/user/{uid}" if missing else ""))
