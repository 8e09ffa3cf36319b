"""The executor's steps that go through systemd: a transient unit is started, split, and seen to its end."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Sequence
from errno import EEXIST, ESRCH
from typing import TYPE_CHECKING

from .cgroup import files
from .errors import BusError, StepError
from .launch import Guard, Record, executable_path
from .steps import Step
from .systemd import borrow

if TYPE_CHECKING:
    from .bus import Bus


class Unit:
    """The unit of one plan.

    :param guard: gives the guard, once there is one.
    :param failed: called with a record of sandbox-init that says that it failed; raises.
    """

    def __init__(self, guard: Callable[[], Guard | None], failed: Callable[[Record], None]) -> None:
        self._guard = guard
        self._failed = failed
        self._properties: list[tuple[str, str, object]] = []
        self.started = False

    def tell(self, step: Step) -> None:
        """Remember a property for the call that starts the unit."""
        name, signature, *words = map(str, step.args)
        self._properties.append((name, signature, plain(signature, words)))

    def start(self, step: Step) -> None:
        """Start a scope around processes of ours."""
        manager, unit, kind, *processes = map(str, step.args)
        with borrow(user=manager == "user") as bus:
            pids = [self._pid(one) for one in processes]
            if kind == "PIDs":
                self._start(bus, unit, (kind, "au", tuple(map(str, pids))))
                return
            pidfds = _open_pidfds(pids)
            try:
                self._start(bus, unit, (kind, "ah", tuple(pidfds)))
            finally:
                for pidfd in pidfds:
                    os.close(pidfd)

    def start_service(self, step: Step, sources: Sequence[int]) -> int:
        """Start a service whose main process is sandbox-init, and hand it what posix_spawn would have.

        :param sources: its fds from 0 on.
        :returns: its process id.
        """
        import socket

        manager, unit = map(str, step.args)
        command = (executable_path(), ("sandbox-init", "--adopt"), 0)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs, borrow(user=manager == "user") as bus:
            # They wait in the socket: no path that could be left behind, and nobody to wait for.
            ours.sendmsg([b"fds"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", sources).tobytes())])
            self._start(bus, unit, ("Type", "s", "exec"), ("ExecStart", "a(sasb)", command),
                        ("StandardInputFileDescriptor", "h", theirs.fileno()))
            pid = int(str(bus.get(unit, "Service", "MainPID")))
        if not pid:
            raise BusError(f"{unit} ended before it did anything", hint=f"journalctl -n 20 -u {unit}")
        return pid

    def split(self, step: Step) -> None:
        """Move the unit's own processes into a cgroup below it. It may be there: launches share a delegated unit."""
        source, target = map(str, step.args)
        try:
            os.mkdir(target, 0o755)
        except OSError as error:
            if error.errno != EEXIST:
                raise files.failure("make", target, "", error) from error
        while pids := files.read(f"{source}/cgroup.procs").split():
            for pid in pids:
                _move(target, pid)

    def attach(self, step: Step) -> None:
        """Have systemd move a process of ours into a unit that is there."""
        manager, unit, cgroup, process = map(str, step.args)
        pid = self._pid(process)
        with borrow(user=manager == "user") as bus:
            bus.call("AttachProcessesToUnit", "ssau", unit, cgroup, [pid])

    def stop(self, step: Step) -> None:
        """See to it that the unit is gone, if it was ever asked for. Its processes are, so it may go by itself."""
        from .bus import is_there

        manager, unit = map(str, step.args)
        try:
            if self.started:
                with borrow(user=manager == "user") as bus:
                    bus.stop(unit)
        except BusError:
            if is_there(unit, user=manager == "user"):
                raise

    def _start(self, bus: Bus, unit: str, *properties: tuple[str, str, object]) -> None:
        """Have it started. One that systemd refuses is not ours to stop: another may have the name."""
        self.started = True
        try:
            bus.start(unit, [*self._properties, *properties])
        except BusError:
            self.started = False
            raise

    def _pid(self, process: str) -> int:
        guard = self._guard()
        assert guard is not None
        return guard.pid if process == "guard" else self._init_pid(guard)

    def _init_pid(self, guard: Guard) -> int:
        try:
            while (record := guard.receive()) is not None:
                if record.kind == "init":
                    return int(record.words[0])
                if record.kind == "failed":
                    self._failed(record)
        except EOFError:
            pass
        raise BusError("sandbox-init was killed before its unit was there")


def _move(target: str, pid: str) -> None:
    try:
        files.write(f"{target}/cgroup.procs", pid)
    except StepError as error:
        if error.errno != ESRCH:  # it has just died
            raise


def _open_pidfds(pids: Sequence[int]) -> list[int]:
    try:
        return [os.pidfd_open(pid) for pid in pids]
    except OSError as error:
        raise BusError("cannot open the init's pidfd", errno=error.errno or 0) from error


def plain(signature: str, words: Sequence[str]) -> object:
    """A property's words as the bus takes them."""
    if len(signature) > 1:
        return tuple(words)
    return words[0] if signature in "sog" else int(words[0])
