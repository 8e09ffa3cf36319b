"""The process that holds a lab: it boots it, ends with it, and removes what it was.

Started by :func:`sandbox.lab.control.up` with two fds: the lab's lock, and a socket to whoever wants the lab. Until a
byte comes over that socket nobody is sure of the lab, and the end of the socket is the end of the lab.
"""

from __future__ import annotations

import os
import select
import shutil
import socket
import sys

from ..stdlib import signal, suppress
from .engine import get
from .record import Lab, cache_directory, load
from .remains import remove

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(name: str, caller: socket.socket) -> None:
    """Keep the lab called ``name`` until it ends or a signal asks for its end."""
    lab = load(name)
    assert lab is not None
    reading = _wake_on_signals()
    children: list[int] = []
    try:
        try:
            children = get(lab.engine).boot(lab)
        except Exception as error:
            _tell(caller, str(error))
            return
        _wait(lab, caller, children, reading)
    finally:
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        for child in children:
            with suppress(ChildProcessError):
                os.waitpid(child, 0)
        remove(load(name) or lab)


def _wait(lab: Lab, caller: socket.socket, children: list[int], reading: int) -> None:
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    poll.register(caller, select.POLLIN)
    watched = {os.pidfd_open(child) for child in children}
    for pidfd in watched:
        poll.register(pidfd, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if ready & watched:
            _tell(caller, lab.last_words())
            with suppress(OSError):  # what a kernel says that panics is longer than an error message
                shutil.copyfile(f"{lab.directory}/console.log", f"{cache_directory()}/ended.log")
            return
        if reading in ready and set(os.read(reading, 64)) & set(ENDING):
            return
        if caller.fileno() in ready:
            if not caller.recv(1):
                return
            poll.unregister(caller)
            caller.close()


def _wake_on_signals() -> int:
    """The fd from which the numbers of the signals that came can be read."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    for number in ENDING:
        signal.signal(number, lambda *_: None)
    return reading


def _tell(caller: socket.socket, text: str) -> None:
    with suppress(OSError):
        caller.sendall(text.encode())


if __name__ == "__main__":
    main(sys.argv[1], socket.socket(fileno=int(sys.argv[2])))
