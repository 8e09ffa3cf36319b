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
import time

from .dbus_value import Property, object_path, packed, process, unpack
from .errors import BusError
from .host import systemd_runs
from .link import DBUS, MANAGER, ROOT, SYSTEMD, Link, Refused
from .spelling import spelled
from .stdlib import TYPE_CHECKING, Any, RLock, suppress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PATIENCE = 25.0
"""Seconds for any answer, as libdbus and sd-bus have it."""
JOB_PATIENCE = 100.0
"""Seconds for a job that starts a unit. A job that makes no progress ends by systemd's own ``DefaultTimeoutStartSec=``,
90 s. A service under 1 % of a CPU may need half of that: systemd's executor loads its libraries inside the limit."""
RETRY = 0.01
"""Seconds between attempts to connect while systemd executes itself anew: nothing tells when its socket is back."""

NO_SUCH_UNIT, UNIT_EXISTS = f"{SYSTEMD}.NoSuchUnit", f"{SYSTEMD}.UnitExists"
READ_ONLY = f"{DBUS}.Error.PropertyReadOnly"
DENIED = tuple(f"{DBUS}.Error.{name}" for name in ("AccessDenied", "InteractiveAuthorizationRequired"))

Call = tuple[Any, ...]
if TYPE_CHECKING:
    from typing import TypeVar

    Result = TypeVar("Result")


def is_there(unit: str, *, user: bool) -> bool:
    """A transient unit is loaded, by the file that systemd keeps for as long as it is."""
    return os.path.exists(f"{_runtime(user)}/transient/{unit}")


class Bus:
    """A manager of systemd, through one connection that is opened anew whenever it dropped. Any thread may use it.

    Methods raise BusError when the manager refuses, fails, or gives no answer within :data:`PATIENCE`, and when a unit
    is not up within :data:`JOB_PATIENCE`.
    """

    def __init__(self, *, user: bool) -> None:
        self._user = user
        self._known: dict[str, str] = {}
        self._lock = RLock()
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
            begin, again = time.monotonic(), False
            until = begin + PATIENCE
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
                    raise BusError(f"systemd gave no answer within {time.monotonic() - begin:.0f} s: {what}",
                                   hint="see `systemctl list-jobs` and `journalctl -b _PID=1`") from None
                except Refused as error:
                    hint = {READ_ONLY: f"systemd {self.version} does not know it, or does not let it be set here",
                            **dict.fromkeys(DENIED, _as_whom())}.get(error.args[0], "")
                    raise BusError(f"systemd refused to {what}: {error}", hint=hint) from None

    @property
    def version(self) -> int:
        """systemd's, e.g. 252."""
        # "252.38-1~deb12u1", "v257", "257~rc1"
        text = self._manager("Version").lstrip("v")
        return int(text[:len(text) - len(text.lstrip("0123456789"))])

    @property
    def control_group(self) -> str:
        """The cgroup below which the units of this manager are; ``/`` for the system's."""
        return self._manager("ControlGroup") or "/"

    def _manager(self, name: str) -> str:
        """Return a property of the manager, read once: its version and its cgroup never change."""
        if name not in self._known:
            self._known[name] = str(self.get("", "Manager", name))
        return self._known[name]

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
                job = self._accepted(link, unit, call)
                link.until = time.monotonic() + JOB_PATIENCE
                result = link.wait(job)
            except TimeoutError:
                with suppress(TimeoutError, ConnectionError):  # a message bus delivers this whenever systemd wakes up
                    link.until = time.monotonic() + 1
                    link.send(SYSTEMD, ROOT, MANAGER, "StopUnit", "ss", (unit, "replace"), reply=False)
                raise
            if result != "done":
                self._stop(link, unit)
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
        self._do(f"stop {unit}", lambda link, _: self._stop(link, unit))

    def _stop(self, link: Link, unit: str) -> None:
        try:
            link.wait(link.manager("StopUnit", "ss", unit, "replace")[0])
        except Refused as error:
            if error.args[0] != NO_SUCH_UNIT:
                raise
            return
        while True:
            # A unit that failed may stay until it is told to go. No answer is needed: the signal says what came of it.
            link.send(SYSTEMD, ROOT, MANAGER, "ResetFailedUnit", "s", (unit,), reply=False)
            link.wait(unit)
            if not is_there(unit, user=self._user):
                return  # systemd unlinks it first; a daemon-reload, which sends this signal too, does not

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
        """A property as plain data (see :mod:`sandbox.dbus_value`); that of a unit that is not there has its default.

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
        from .property import declared

        call = (object_path(f"init.{kind}"), f"{DBUS}.Introspectable", "Introspect")  # an empty service is shown, too
        return declared(self._do(f"introspect a {kind}", lambda link, _: link.ask(SYSTEMD, *call))[0], kind)

    def call(self, method: str, signature: str = "", *args: object) -> tuple[object, ...]:
        """Call a method of the manager, e.g. ``Reload``; once more whenever the connection drops, except that this is
        how ``Reexecute`` is answered: it returns when systemd is back."""
        return self._do(f"do {method}", lambda link, again: () if again and method == "Reexecute"
                        else link.manager(method, signature, *args))


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
        if not (again or deaf) or time.monotonic() > until or not systemd_runs():
            raise _unreachable(user, failures)
        time.sleep(RETRY)


def _addresses(user: bool) -> Iterator[tuple[bool, str]]:
    """Where the manager may be reached, and whether that is its own socket."""
    yield True, f"{_runtime(user)}/private"
    from jeepney.bus import get_connectable_addresses  # type: ignore[import-untyped]

    with suppress(ValueError, RuntimeError):  # none, or none that jeepney can read
        listed = os.environ.get("DBUS_SESSION_BUS_ADDRESS", "") if user else ""
        yield from ((False, address) for address in get_connectable_addresses(listed))
    yield False, f"{os.path.dirname(_runtime(user))}/bus" if user else "/run/dbus/system_bus_socket"


def _runtime(user: bool) -> str:
    """Where the manager keeps its socket and the files of transient units."""
    home = (os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}") if user else "/run"
    return f"{home}/systemd"


def _as_whom() -> str:
    return f"run as root, or with {spelled('systemd_user', True)}"


def _unreachable(user: bool, failures: dict[str, OSError]) -> BusError:
    tried = "; ".join(f"{address}: {error.strerror or error}" for address, error in failures.items())
    if not systemd_runs():
        return BusError("systemd does not run here",
                        hint=f"use {spelled('driver', 'cgroupfs')}, or try it in `sandbox lab shell`")
    if not user:
        return BusError(f"systemd cannot be reached: {tried}", hint=_as_whom() if os.geteuid() else
                        f"see who is connected: ss -xp | grep -e {_runtime(user)}/private -e bus")
    uid, missing = os.geteuid(), "" if os.environ.get("XDG_RUNTIME_DIR") else "XDG_RUNTIME_DIR is not set, and "
    return BusError(f"{missing}no systemd manager of user {uid} can be reached: {tried}",
                    hint=f"log in, or have root do `loginctl enable-linger {uid}`"
                         + (f", then export XDG_RUNTIME_DIR=/run/user/{uid}" if missing else ""))
