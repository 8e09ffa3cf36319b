"""Labs from outside: boot one, run commands in it, end it."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time

from ..errors import SandboxError, SpecError, Unsupported
from ..stdlib import signal, suppress
from . import engine as engines
from .client import Command, SignalSource, window
from .engine import Engine
from .image import Progress
from .record import PATIENCE, Lab, check_name, claim, is_held, load, names, wait_until_free
from .remains import remove

READY = "ready"
"""A file in the lab's directory from the moment its agent has answered."""
RETRY = 0.02
"""Seconds between two tries to reach the agent, until the sockets are there."""


def up(name: str = "", *, engine: str = "", image: str = "", progress: Progress = lambda text: None) -> Lab:
    """Boot a lab, unless it is up.

    :param name: what to call it; by default the one that is up, else a name after the engine and the image.
    :param engine: ``container`` or ``vm``; by default the container where it can serve.
    :param image: for the engine ``vm``, see :data:`sandbox.lab.recipe.IMAGES`; default ``trixie``.
    :param progress: called with what is being done.
    :raises SpecError: a name is wrong.
    :raises Unsupported: this machine cannot do it, and the hint says what to install.
    :raises SandboxError: it did not boot, or another one has that name.
    """
    there = _wanted(name, engine, image)
    if there is not None:
        return _join(there, progress)
    kind = _choose(engine, image)
    lab = Lab(name=check_name(name or _default_name(kind, image)), engine=kind.name, image=image or kind.default_image,
              since=time.time())
    lab = kind.prepare(lab, progress)
    while (lock := claim(lab.name)) is not None:
        left = load(lab.name)
        if left is None:
            return _boot(lab, kind, lock, progress)
        remove(left)  # its keeper was killed
        os.close(lock)
    return _join(lab, progress)


def run(lab: Lab, argv: list[str], *, cwd: str | None = None, env: dict[str, str] | None = None, tty: bool = False,
        signals: SignalSource | None = None, files: tuple[int, int, int] = (0, 1, 2)) -> int:
    """Run a command in a lab that is up, with our standard files.

    :param cwd: the directory to run it in, ours by default; changes to it stay in the lab.
    :param env: variables for it.
    :param tty: give it a terminal.
    :param signals: what to pass on to it.
    :returns: its exit code, 128+n for a signal.
    :raises SandboxError: the lab is not up, or ended first.
    """
    try:
        channel = engines.get(lab.engine).connect(lab)
    except OSError as error:
        raise SandboxError(f"the lab {lab.name} cannot be reached: {error}", hint="sandbox lab ls") from error
    command = Command(channel, argv, cwd=cwd or os.getcwd(), env=env, size=window() if tty else None, files=files)
    return command.wait(signals, deadline=30)


def output(lab: Lab, argv: list[str], *, env: dict[str, str] | None = None, signals: SignalSource | None = None
           ) -> tuple[int, bytes]:
    """:func:`run` without input; what the command writes to its standard output is kept, its errors go to ours.

    :returns: the exit code, and the output.
    :raises SandboxError: the lab is not up, or ended first.
    """
    with open(os.devnull, "rb") as nothing, open(os.memfd_create("output"), "rb") as kept:
        code = run(lab, argv, env=env, signals=signals, files=(nothing.fileno(), kept.fileno(), 2))
        kept.seek(0)
        return code, kept.read()


def down(name: str) -> bool:
    """End a lab and wait until nothing of it is left.

    :returns: whether there was one.
    :raises SandboxError: it does not go.
    """
    lab = load(name)
    if lab is None:
        return False
    lock = claim(name)
    if lock is not None:
        remove(lab)
        os.close(lock)
        return True
    _end_keeper(lab)
    if not wait_until_free(name):
        raise SandboxError(f"the lab {name} does not end", hint=f"see {lab.directory}")
    return True


def running() -> list[Lab]:
    """The labs that are up, or on their way."""
    return [lab for name in names() if is_held(name) and (lab := load(name)) is not None]


def _wanted(name: str, engine: str, image: str) -> Lab | None:
    """The lab that is up and meant.

    :raises SandboxError: the name is taken by another kind of lab.
    :raises SpecError: several are up, and nothing says which one is meant.
    """
    labs = running()
    if name:
        found = next((lab for lab in labs if lab.name == name), None)
        if found and (engine not in ("", found.engine) or image not in ("", found.image)):
            raise SandboxError(f"the lab {name} is a {found.engine} with the image {found.image}",
                               hint=f"choose another name, or end it: sandbox lab down {name}")
        return found
    if engine or image:
        return None
    if len(labs) > 1:
        raise SpecError(f"there are {len(labs)} labs: {', '.join(lab.name for lab in labs)}", field="name",
                        hint=f"name one: --name {labs[0].name}")
    return labs[0] if labs else None


def _choose(engine: str, image: str) -> Engine:
    if engine or image:
        kind = engines.get(engine or "vm")
        if problems := kind.problems():
            raise Unsupported(f"the {kind.name} lab cannot serve here: {problems[0]}")
        return kind
    reasons = []
    for kind in map(engines.get, engines.NAMES):
        problems = kind.problems()
        if not problems:
            return kind
        reasons.append(f"{kind.name}: {problems[0]}")
    raise Unsupported(f"no lab can be booted here; {'; '.join(reasons)}")


def _default_name(kind: Engine, image: str) -> str:
    return kind.name if kind.name == "container" else image or kind.default_image


def _boot(lab: Lab, kind: Engine, lock: int, progress: Progress) -> Lab:
    """Start the keeper and wait for the agent inside to answer. Leaving early ends the keeper."""
    lab.save()
    ours, theirs = socket.socketpair()
    with ours:
        with theirs, open(f"{lab.directory}/keeper.log", "wb") as log:
            argv = [sys.executable, "-m", f"{__package__}.keeper", lab.name, str(theirs.fileno())]
            keeper = subprocess.Popen(
                kind.keeper_command(lab, argv),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                pass_fds=(lock, theirs.fileno()), cwd="/",
                env=os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(os.path.dirname(__file__)))})
        os.close(lock)
        try:
            with open(f"{lab.directory}/pid", "w") as file:
                file.write(str(keeper.pid))
            progress(f"booting the {lab.name} lab")
            _await_agent(lab, kind, ours)
            with open(f"{lab.directory}/{READY}", "w"):
                ours.sendall(b"+")
        except BaseException:
            ours.close()
            keeper.wait()
            raise
    keeper.returncode = 0  # it stays; Popen need not warn about it
    return lab


def _await_agent(lab: Lab, kind: Engine, keeper: socket.socket) -> None:
    deadline = time.monotonic() + kind.patience
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        while (left := deadline - time.monotonic()) > 0:
            _check(keeper)
            with suppress(OSError, SandboxError):  # not there yet, or just ended, which the keeper explains
                command = Command(kind.connect(lab), ["true"], cwd="/", files=(null, null, null))
                if command.wait(deadline=left) == 0:
                    return
    finally:
        os.close(null)
    raise SandboxError(f"the lab did not answer within {kind.patience:.0f} s: {lab.last_words()}")


def _check(keeper: socket.socket) -> None:
    """Give it a moment, and hear whether it has given up."""
    keeper.settimeout(RETRY)
    with suppress(TimeoutError):
        reason = keeper.recv(4096).decode(errors="replace")
        raise SandboxError(f"the lab did not boot: {reason or 'its keeper was killed'}")


def _join(lab: Lab, progress: Progress) -> Lab:
    """Wait for a lab that somebody else boots."""
    deadline = time.monotonic() + engines.get(lab.engine).patience
    while not os.path.exists(f"{lab.directory}/{READY}"):
        if not is_held(lab.name):
            raise SandboxError(f"the lab {lab.name}, which another process wanted, did not boot", hint="try again")
        if time.monotonic() > deadline:
            raise SandboxError(f"the lab {lab.name} is not ready", hint=f"sandbox lab down {lab.name}")
        progress(f"waiting for the {lab.name} lab, which another process boots")
        time.sleep(RETRY)
    return load(lab.name) or lab


def _end_keeper(lab: Lab) -> None:
    """Ask the keeper for the end, by a pidfd and after a look at what the process is, and wait for it."""
    with suppress(FileNotFoundError, ProcessLookupError, ValueError):
        with open(f"{lab.directory}/pid") as file:
            pid = int(file.read())
        pidfd = os.pidfd_open(pid)
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if f"{__package__}.keeper".encode() in file.read().split(b"\0"):
                    signal.pidfd_send_signal(pidfd, signal.SIGTERM)
                    select.select([pidfd], [], [], PATIENCE)
        finally:
            os.close(pidfd)
