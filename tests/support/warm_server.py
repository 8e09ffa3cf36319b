"""The process behind :mod:`support.warm_program`: it has loaded ``sandbox``, and forks a runner for each request.

Usage: warm_server.py FD, a socket (AF_UNIX, SOCK_SEQPACKET). A request is JSON with ``argv`` (all words of the command
line), ``cwd``, ``env`` and ``load`` (names of modules to load first), and comes with the runner's stdin, stdout and
stderr. The answer is the runner's process id. The end of the stream ends the server.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import sandbox_cli
import sandbox_cli.commands
import sandbox_cli.start

import sandbox

LAZY = ("_prctl", "encodings.ascii", "resource")
"""Modules, besides the program's own, that it loads in the middle of a run."""
REQUEST = 1 << 18
"""Bytes of the largest request."""


def load() -> None:
    """Load all that a run may load of the program."""
    for package in (sandbox, sandbox_cli):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.startswith(("sandbox.lab", "sandbox.teach")) and module.name != "sandbox_cli.__main__":
                importlib.import_module(module.name)
    for name in LAZY:
        importlib.import_module(name)


def serve(requests: socket.socket) -> None:
    """Answer requests until there are no more."""
    while True:
        data, fds, _, _ = socket.recv_fds(requests, REQUEST, 3)
        if not data:
            return
        request = json.loads(data)
        for name in request["load"]:
            importlib.import_module(name)
        requests.send(str(fork(request, fds)).encode())
        for fd in fds:
            os.close(fd)


def fork(request: dict[str, Any], fds: Sequence[int]) -> int:
    """Fork a runner that is not our child, and return its process id.

    The kernel gives a process whose parent has ended to the nearest subreaper: pytest. The runner waits for that, as
    the program looks who its parent is, and pytest must not wait for a process that is not its child yet.
    """
    told, tell = os.pipe()
    free, hold = os.pipe()
    parent = os.fork()
    if not parent:
        runner = os.fork()
        if runner:
            os.write(tell, str(runner).encode())
            os._exit(0)
        os.close(hold)
        os.read(free, 1)  # the end of the stream: nobody but the server has held the other end
        become(request, fds)
    os.close(tell)
    os.close(free)
    pid = int(os.read(told, 32))
    os.close(told)
    os.waitpid(parent, 0)
    os.close(hold)
    return pid


def become(request: dict[str, Any], fds: Sequence[int]) -> NoReturn:
    """Run the program in this process, which is the server's copy, as if it had just started."""
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.argv = request["argv"]
    sandbox_cli.commands.PARENT = os.getppid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sandbox_cli.start.main()


if __name__ == "__main__":
    # Ctrl-C goes to all of the terminal's foreground group; pytest needs its server for the tests' ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    load()
    with socket.socket(fileno=int(sys.argv[1])) as one:
        serve(one)
