"""The executor's steps that go through systemd: a transient unit is started, split, and seen to its end."""

from __future__ import annotations

import os
import sys
from errno import EEXIST, ESRCH
from itertools import zip_longest

from .cgroup import files
from .errors import BusError, StepError
from .launch import executable_path
from .stdlib import TYPE_CHECKING
from .steps import Step
from .systemd import borrow

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from .bus import Bus
else:
    import _socket as socket  # without the enums around its numbers, and selectors


class Unit:
    """The unit of one plan.

    :param process: gives the process id of ``guard`` or ``init``; waits for the init.
    """

    def __init__(self, process: Callable[[str], int]) -> None:
        self._process = process
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
            pids = [self._process(one) for one in processes]
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
        manager, unit = map(str, step.args)
        command = (executable_path(), ("sandbox-init", "--adopt"), 0)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        rights = b"".join([fd.to_bytes(4, sys.byteorder) for fd in sources])
        try:
            with borrow(user=manager == "user") as bus:
                # They wait in the socket: no path that could be left behind, and nobody to wait for.
                ours.sendmsg([b"fds"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
                self._start(bus, unit, ("Type", "s", "exec"), ("ExecStart", "a(sasb)", command),
                            ("StandardInputFileDescriptor", "h", theirs.fileno()))
                pid = int(str(bus.get(unit, "Service", "MainPID")))
        finally:
            ours.close()
            theirs.close()
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
        pid = self._process(process)
        with borrow(user=manager == "user") as bus:
            bus.call("AttachProcessesToUnit", "ssau", unit, cgroup, [pid])

    def read(self, step: Step) -> None:
        """Read a property back, one that no kernel file tells of. systemd turns lists of pairs around."""
        manager, unit, name, *words = map(str, step.args)
        with borrow(user=manager == "user") as bus:
            found = bus.get(unit, unit.rpartition(".")[2].capitalize(), name)
        told = [*map(str, found)] if isinstance(found, tuple) else [str(found)]
        if sorted(zip_longest(told[::2], told[1::2])) != sorted(zip_longest(words[::2], words[1::2])):
            raise BusError(f"{unit} does not have the {name} that it was given: systemd says {found!r}",
                           hint=f"systemctl show -p {name} {unit}")

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
