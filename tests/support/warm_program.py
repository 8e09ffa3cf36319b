"""``sandbox run`` without the start of Python: a server that has loaded the program forks a process for each run.

Three quarters of a short run are Python's start and imports, and of a VM's emulated CPU they take most of a second. A
forked runner calls the program's own ``main``, and is a process like any other: a child of pytest with streams,
environment, working directory, signals and exit code of its own. Its memory is a copy of that of a server that has done
nothing but load. A test takes the program as a user starts it (:class:`support.sandbox_run.Program`) when it is about
the start, or about the memory or the files of the runner.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.probes import Bare
from support.sandbox_run import SANDBOX, Program

PATIENCE = 60.0
"""Seconds for the server to load a module or to fork; long, as only a failure takes all of it."""
FOLLOWED = frozenset({"stdin", "stdout", "stderr", "cwd", "env"})
"""Options of Popen that a fork follows. A run with any other starts Python."""


class Server:
    """The process that has the program in its memory. Leaving the ``with`` block ends it.

    Our process must be a subreaper (prctl(2)): the first parent of a runner ends at once, and then we are its parent.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(PATIENCE)
        with theirs:
            program = Path(__file__).with_name("warm_server.py")
            # Without -P, the modules beside the program would hide others of the same names.
            self._process = subprocess.Popen([sys.executable, "-P", program, str(theirs.fileno())],
                                             pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._process.wait(PATIENCE)

    def fork(self, request: dict[str, object], fds: list[int]) -> int:
        """Start the program, and return its process id. Safe from any thread.

        :param request: as ``warm_server.py`` takes it.
        :param fds: stdin, stdout and stderr.
        """
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(request).encode()], fds)
            answer = self._socket.recv(32)
        assert answer, f"the server has ended: {self._process.wait(PATIENCE)}"
        return int(answer)


class Forked(subprocess.Popen[bytes]):
    """A process of the server's as Popen has it.

    :param server: that forks it.
    :param load: modules that the server loads before.
    """

    def __init__(self, server: Server, load: tuple[str, ...], argv: list[str], **options: Any) -> None:
        self._server, self._load = server, load
        super().__init__(argv, **options)

    def _execute_child(self, args: list[str], *rest: Any) -> None:  # what Popen does between the pipes and the wait
        cwd, env = rest[4:6]
        pipes = rest[9:15]  # the read and the write end of stdin, of stdout, of stderr
        fds = [number if fd == -1 else fd for number, fd in enumerate((pipes[0], pipes[3], pipes[5]))]
        try:
            self.pid = self._server.fork({"argv": args, "cwd": os.fspath(cwd or os.getcwd()), "load": self._load,
                                          "env": dict(os.environ if env is None else env)}, fds)
            self._child_created = True
        finally:
            self._close_pipe_fds(*pipes)


def popen(server: Server, load: tuple[str, ...] = ()) -> Callable[..., subprocess.Popen[bytes]]:
    """What starts a program in the place of :class:`subprocess.Popen`."""
    def start(argv: list[str], **options: Any) -> subprocess.Popen[bytes]:
        if argv[:len(SANDBOX)] != SANDBOX or set(options) - FOLLOWED:
            return subprocess.Popen(argv, **options)
        return Forked(server, load, ["sandbox", *argv[len(SANDBOX):]], **options)

    return start


@pytest.fixture(scope="session")
def warm_server(subreaper: None) -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def warm(driver: str, tmp_path: Path, check_report: Callable[[dict[str, Any]], None], warm_server: Server) -> Program:
    """In the place of the suite's ``sandbox``: the program is forked, not started."""
    return Program(driver, tmp_path, check_report, popen(warm_server))


@pytest.fixture
def warm_bare(driver: str, tmp_path: Path, check_report: Callable[[dict[str, Any]], None],
              warm_server: Server) -> Program:
    """In the place of ``bare``."""
    return Bare(driver, tmp_path, check_report, popen(warm_server))


@pytest.fixture
def warm_with_network(driver: str, tmp_path: Path, check_report: Callable[[dict[str, Any]], None],
                      warm_server: Server) -> Program:
    """As ``warm``, with what ``--network veth`` loads. It doubles the server's memory, so each fork takes longer."""
    return Program(driver, tmp_path, check_report, popen(warm_server, ("pyroute2",)))
