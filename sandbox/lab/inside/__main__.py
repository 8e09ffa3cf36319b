"""Serves the channels: the socket that is named, or the virtio-serial ports there are."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator

from .frames import PORT_PREFIX, PORTS
from .place import install_project, move_aside, remove_group
from .session import Session


def ports() -> list[str]:
    """The device files of our virtio-serial ports, which the kernel makes some time after it has found the device."""
    base, found = "/sys/class/virtio-ports", list[str]()
    while len(found) < PORTS:
        names = os.listdir(base) if os.path.isdir(base) else []
        found = [f"/dev/{name}" for name in sorted(names) if _name(f"{base}/{name}").startswith(PORT_PREFIX)]
        time.sleep(0.02)
    return found


def _name(directory: str) -> str:
    with contextlib.suppress(OSError), open(f"{directory}/name") as file:
        return file.read()
    return ""


def serve_ports() -> None:
    """One command at a time on each port; the kernel tells by SIGIO when something happens on one."""
    numbers = (signal.SIGIO, signal.SIGCHLD)
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    idle, busy = [_open_port(path) for path in ports()], {}
    while True:
        for fd in list(idle):
            if _has_guest(fd):
                idle.remove(fd)
                busy[_fork(fd)] = fd
        signal.sigtimedwait(numbers, 5)
        idle += [busy.pop(pid) for pid in _ended()]


def _open_port(path: str) -> int:
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    return fd


def _has_guest(fd: int) -> bool:
    """Somebody is connected and has said something."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    events = sum(event for _, event in poll.poll(0))
    return bool(events & select.POLLIN) and not events & select.POLLHUP


def serve_socket(path: str) -> None:
    """A command per connection."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = listener.accept()
        _fork(connection.fileno())
        connection.close()


def _fork(fd: int) -> int:
    """Serve the channel in a child, which ends with the command."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with contextlib.suppress(Exception):
            Session(fd).serve()
        remove_group()
        os._exit(0)
    return pid


def _ended() -> Iterator[int]:
    with contextlib.suppress(ChildProcessError):
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            yield pid


if __name__ == "__main__":
    move_aside()
    install_project()
    if sys.argv[1:]:
        serve_socket(sys.argv[1])
    else:
        serve_ports()
