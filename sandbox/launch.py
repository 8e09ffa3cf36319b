"""Starting ``sandbox-init`` and talking with it: one posix_spawn, two sockets, small text records.

posix_spawn never runs Python code between fork and exec, so any thread of any program may launch, and its cost does
not grow with the caller's memory.
"""

from __future__ import annotations

import os
import sys
from errno import EAGAIN, EFBIG, EMFILE
from fcntl import F_DUPFD_CLOEXEC, fcntl

from .errors import NamespaceError, SandboxError
from .init import path as init_path
from .stdlib import TYPE_CHECKING, Lock, NamedTuple, signal, suppress

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Sequence
else:
    import _socket as socket  # without the enums around its numbers, and selectors

PATIENCE = 30.0
"""Seconds for what is not our child to die."""
HINTS = {
    EFBIG: "the caller's limit of file sizes is below the size of sandbox-init: see `ulimit -f`",
    EMFILE: "the caller's limit of open files is too low: see `ulimit -n`",
    EAGAIN: "see the caller's limit of processes, `ulimit -u`; under SCHED_DEADLINE only a process with reset-on-fork "
            "may start others, `chrt -R` (sched(7))",
}
"""What to do about an errno of memfd_create(2), write(2), posix_spawn(3). The table is not in ``failures.py``, because
no module can be imported when too many files are open."""
ENDING = ("stop", "kill", "bye")
"""Commands that end the run."""
FIRST_FREE = 10
"""Above the fds 3 to 6 that sandbox-init expects: a duplicate made here is not overwritten by one made there."""

# <linux/memfd.h> and <linux/fcntl.h>; the os module lacks MFD_EXEC, the fcntl module lacks F_SEAL_EXEC.
MFD_CLOEXEC, MFD_ALLOW_SEALING, MFD_EXEC = 0x1, 0x2, 0x10
F_ADD_SEALS = 1033
F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE = 0x1, 0x2, 0x4, 0x8

Stdio = tuple[int | None, int | None, int | None]
"""stdin, stdout and stderr of the workload; None passes the launcher's own on."""


class Record(NamedTuple):
    """One message of sandbox-init.

    :param kind: ``ready listener started stopped stopping killing clearing exited failed exec_failed sample frozen
        done left``.
    :param words: what follows, as the protocol says for each kind.
    :param fd: with ``started`` the workload's pidfd, with ``namespaces`` the network namespace, with ``listener`` that
        of the filter; None with all others.
    """

    kind: str
    words: tuple[str, ...]
    fd: int | None = None


class Guard:
    """A running sandbox-init, as its launcher sees it: the guard, and behind it the init.

    :param plan: makes the child steps on the wire, while the process comes to life.
    :param stdio: the workload's standard streams.
    :param start: starts the process with these fds from 0 on and returns its pid; posix_spawn when None.
    :raises NamespaceError: when the process cannot be started.
    """

    def __init__(self, plan: Callable[[], bytes], stdio: Stdio,
                 start: Callable[[Sequence[int]], int] | None = None) -> None:
        self._control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._go, go = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        plan_fd = os.memfd_create("sandbox-plan", MFD_CLOEXEC)
        self.pid = 0
        try:
            sources = (plan_fd, control.fileno(), go.fileno(), self._go.fileno())
            self.pid = _spawn(sources, stdio) if start is None else start((*_streams(stdio), *sources))
            _write(plan_fd, plan())
            self.send("plan")
        except BaseException as error:
            self._control.close()
            self._go.close()
            if self.pid and start is None:  # without a plan it ends
                os.waitpid(self.pid, 0)
            if isinstance(error, SandboxError) or not isinstance(error, OSError):
                raise
            raise NamespaceError("cannot start sandbox-init", errno=error.errno or 0,
                                 hint=HINTS.get(error.errno or 0, "")) from error
        finally:
            os.close(plan_fd)
            control.close()
            go.close()
        self._pidfd = os.pidfd_open(self.pid)

    def fileno(self) -> int:
        """The fd that is readable when there is a record."""
        return self._control.fileno()

    def go(self, fds: Sequence[int]) -> None:
        """Let the init start the workload; ``fds`` are what its ``join`` steps refer to."""
        data = b"".join([fd.to_bytes(4, sys.byteorder) for fd in fds])
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, data)] if fds else []
        with suppress(OSError):  # the init may be gone; its record says why
            self._go.sendmsg([b"go"], rights)
        self._go.close()

    def send(self, command: str) -> None:
        """Send ``plan``, ``stop``, ``kill``, ``signal N``, ``keep`` or ``bye``. A guard that is gone is no error."""
        with suppress(OSError):
            self._control.send(command.encode())
            if command in ENDING:  # a guard that somebody has stopped (SIGSTOP) reads no command
                signal.pidfd_send_signal(self._pidfd, signal.SIGCONT)

    def receive(self, *, block: bool = True) -> Record | None:
        """The next record; None when there is none yet (``block=False``).

        :raises EOFError: the guard is gone.
        """
        flags = 0 if block else socket.MSG_DONTWAIT
        try:
            data, ancillary, _, _ = self._control.recvmsg(4096, socket.CMSG_SPACE(4),
                                                          flags | socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return None
        except ConnectionResetError as error:
            raise EOFError from error
        if not data:
            raise EOFError
        kind, *words = os.fsdecode(data).split(" ")
        fd = next((int.from_bytes(payload[:4], sys.byteorder) for level, what, payload in ancillary
                   if (level, what) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)), None)
        return Record(kind, tuple(words), fd)

    def was_overdue(self) -> bool | None:
        """Wait for the guard's death, and return whether its own timer killed it (``SIGALRM``).

        The timer does so if somebody keeps the guard frozen when the time of the run is over.

        :returns: None if the guard is not a child of this process, as in a service.
        """
        try:
            result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            return None
        return result is not None and (result.si_code, result.si_status) == (os.CLD_KILLED, signal.SIGALRM)

    def reap(self) -> bool:
        """Wait until the guard has cleaned up and is gone; True when it left nothing behind.

        A launcher that ignores SIGCHLD, or a foreign wait(2), may have reaped it before, and a service is systemd's
        child: then it is not known, False.
        """
        self._control.close()
        self._go.close()
        try:
            result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        except ChildProcessError:
            _wait_for_death(self._pidfd)
            return False
        finally:
            os.close(self._pidfd)
        return result is not None and result.si_code == os.CLD_EXITED and result.si_status == 0

    def leave(self) -> None:
        """Let go of the guard, which stays until a process that SIGKILL cannot end is thawed."""
        from threading import Thread

        # A launcher that goes on must reap the guard when it ends, or a zombie is left.
        Thread(target=self.reap, daemon=True).start()


def _spawn(sources: Sequence[int], stdio: Stdio) -> int:
    """posix_spawn with ``sources`` as fds 3, 4, ... and ``stdio`` as 0 to 2; everything else the guard closes."""
    actions: list[tuple[int, int, int]] = []
    copies: list[int] = []

    def pass_on(fd: int, number: int) -> None:
        copy = fcntl(fd, F_DUPFD_CLOEXEC, FIRST_FREE)
        copies.append(copy)
        actions.append((os.POSIX_SPAWN_DUP2, copy, number))

    try:
        for number, fd in enumerate(stdio):
            if fd is not None:
                pass_on(fd, number)
        for number, fd in enumerate(sources, 3):
            pass_on(fd, number)
        executable = fcntl(_executable(), F_DUPFD_CLOEXEC, FIRST_FREE)
        copies.append(executable)
        return os.posix_spawn(f"/proc/self/fd/{executable}", ["sandbox-init"], {}, file_actions=actions)
    finally:
        for copy in copies:
            os.close(copy)


_executable_lock = Lock()
_executable_fd: int | None = None


def _executable() -> int:
    """sandbox-init as a sealed memfd, made once per process: nothing inside can reach a file through /proc/1/exe."""
    global _executable_fd
    with _executable_lock:
        if _executable_fd is None:
            with open(init_path(), "rb") as file:
                program = file.read()
            try:
                fd = _memfd("sandbox-init", program, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC)
            except OSError:  # MFD_EXEC appeared in Linux 6.3
                fd = _memfd("sandbox-init", program, MFD_CLOEXEC | MFD_ALLOW_SEALING)
            fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)
            _executable_fd = fd
        return _executable_fd


def executable_path() -> str:
    """Where another process of the same user finds sandbox-init, for as long as we live."""
    return f"/proc/{os.getpid()}/fd/{_executable()}"


def _streams(stdio: Stdio) -> Iterator[int]:
    return (number if fd is None else fd for number, fd in enumerate(stdio))


def _wait_for_death(pidfd: int) -> None:
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll(PATIENCE * 1000)


def _memfd(name: str, content: bytes, flags: int) -> int:
    fd = os.memfd_create(name, flags)
    _write(fd, content)
    return fd


def _write(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view):]
