"""The least that can launch sandbox-init: for tests of the program alone, without the library's launcher."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from sandbox.init import wire
from sandbox.steps import Arg, Phase, Step

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x0002_0000, 0x1000_0000, 0x2000_0000
PATIENCE = 60.0
"""Seconds until a test that waits for an event fails; long, as a busy machine takes some of them."""

ENTER: tuple[tuple[Arg, ...], ...] = (
    ("clone3", CLONE_NEWPID | CLONE_NEWNS),
    ("private",),
    ("mount", "proc", "/proc", 0, ""),
)
SIGNALS: tuple[tuple[Arg, ...], ...] = (("reset_signals",),)
SLEEP = ("/bin/sleep", "1000")
"""Command line of a workload that lives until it is killed."""
TERM = int(signal.SIGTERM)


def step(op: str, *args: Arg) -> Step:
    return Step(op=op, args=args, phase=Phase.EXEC, where=wire.OPS[op][0])


def plan(argv: Sequence[str], *, guard: Sequence[tuple[Arg, ...]] = (), enter: Sequence[tuple[Arg, ...]] = ENTER,
         workload: Sequence[tuple[Arg, ...]] = SIGNALS, candidates: Sequence[str] = ()) -> list[Step]:
    """A plan as the drivers make it: steps of the guard, the init, and the workload."""
    rows: list[tuple[Arg, ...]] = [
        ("launcher", os.getpid(), 1), *guard, *enter, *workload, ("close_fds", 3),
        ("execve", tuple(candidates) or (argv[0],), tuple(argv), ("PATH=/usr/bin:/bin",))]
    return [step(str(op), *args) for op, *args in rows]


def shell(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script)


def wait_gone(*pidfds: int) -> None:
    """Wait until the processes are dead."""
    for pidfd in pidfds:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        assert poller.poll(PATIENCE * 1000), "a process that should be dead lives"


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Run:
    """One sandbox-init, from its spawn to its end.

    :param program: path of the executable.
    :param data: the plan on the wire.
    :param stdio: fds for 0 to 2; -1 closes the stream.
    """

    def __init__(self, program: Path, data: bytes, *, stdio: Sequence[int] = (0, 1, 2),
                 env: dict[str, str] | None = None) -> None:
        self.control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(PATIENCE)
        self.go_on, go = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        plan_fd = os.memfd_create("plan")
        os.write(plan_fd, data)
        self.control.send(b"plan")
        wanted = {**{n: fd for n, fd in enumerate(stdio) if fd >= 0},
                  3: plan_fd, 4: control.fileno(), 5: go.fileno(), 6: self.go_on.fileno()}
        copies = {n: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 30) for n, fd in wanted.items()}
        actions = [(os.POSIX_SPAWN_DUP2, fd, n) for n, fd in copies.items()]
        closed = [(os.POSIX_SPAWN_CLOSE, n) for n, fd in enumerate(stdio) if fd < 0]
        self.pid = os.posix_spawn(program, ["sandbox-init"], env or {}, file_actions=[*actions, *closed])
        for fd in (plan_fd, *copies.values()):
            os.close(fd)
        control.close()
        go.close()
        self.pidfd = os.pidfd_open(self.pid)
        self.workload = -1
        """pidfd of the workload, once it has started."""
        self.network = -1
        """The network namespace of the holder, or the listener of a filter, once it is told."""
        self.records: list[list[str]] = []

    def go(self, *fds: int) -> None:
        with suppress(BrokenPipeError):
            socket.send_fds(self.go_on, [b"go"], fds) if fds else self.go_on.send(b"go")
        self.go_on.close()

    def send(self, command: str) -> None:
        self.control.send(command.encode())

    def receive(self) -> list[str]:
        """The next record; empty at the end."""
        data, fds, _, _ = socket.recv_fds(self.control, 8192, 1)
        if not data:
            return []
        if fds and data.startswith(b"started "):
            self.workload = fds[0]
        elif fds:
            self.network = fds[0]
        self.records.append(os.fsdecode(data).split(" "))
        return self.records[-1]

    def until(self, kind: str) -> list[str]:
        """Take records until one of this kind."""
        while (record := self.receive()) and record[0] != kind:
            assert record[0] != "done", f"no {kind} among {self.records}"
        assert record, f"no {kind} among {self.records}"
        return record

    def finish(self) -> int:
        """Take the records up to `done`, say bye, and wait for the end: its exit code."""
        if ["done"] not in self.records:
            self.until("done")
        with suppress(BrokenPipeError, ConnectionResetError):
            self.send("bye")
            while self.receive():
                pass
        return self.reap()

    def reap(self) -> int:
        wait_gone(self.pidfd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    @property
    def init(self) -> int:
        """Pid of the init."""
        (pid,) = children(self.pid)
        return pid

    def kinds(self) -> list[str]:
        return [record[0] for record in self.records]

    def record(self, kind: str) -> list[str]:
        """What the only record of this kind says."""
        found = [record[1:] for record in self.records if record[0] == kind]
        assert len(found) == 1, f"not one {kind} among {self.records}"
        return found[0]

    def exit_code(self) -> int:
        """The workload's: negative for a signal."""
        return os.waitstatus_to_exitcode(int(self.record("exited")[0]))

    def close(self) -> None:
        """Whatever the test has done, nothing of it stays."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        for fd in (self.pidfd, self.workload, self.network):
            if fd >= 0:
                os.close(fd)
        self.control.close()
        self.go_on.close()


Start = Callable[..., Run]
"""Type of the fixture ``start`` of tests/kernel, which takes a plan."""


@contextmanager
def pipe() -> Iterator[tuple[FileIO, FileIO]]:
    """A pipe whose ends may be closed meanwhile; not inherited."""
    reader, writer = os.pipe()
    with FileIO(reader, "rb") as one, FileIO(writer, "wb") as other:
        yield one, other
