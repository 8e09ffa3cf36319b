"""Processes of a lab, which die with the process that started them."""

from __future__ import annotations

import ctypes
import os
import subprocess

from ..stdlib import TYPE_CHECKING, partial, signal

if TYPE_CHECKING:
    from collections.abc import Mapping

PR_SET_PDEATHSIG = 1
LIBRARIES = "usr/lib/x86_64-linux-gnu"


def die_with_parent(parent: int) -> None:
    """Have the kernel kill us when the process that forked us ends, however it ends (prctl(2)).

    For a parent that has ended before the call the kernel sends no signal: then this process exits.

    :param parent: what getppid(2) returns in this process as long as the parent lives.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def start(argv: list[str], *, log: str, pass_fds: tuple[int, ...] = (), environment: Mapping[str, str] | None = None
          ) -> int:
    """Start a program that dies with us; what it says goes to the file ``log``.

    :returns: its process id.
    """
    with open(log, "wb") as file:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file, pass_fds=pass_fds,
                                env={**os.environ, **(environment or {})},
                                preexec_fn=partial(die_with_parent, os.getpid())).pid


def with_loader(tree: str, program: str, *words: str) -> list[str]:
    """A command line for a program of an unpacked tree, with the libraries it was made for."""
    return [f"{tree}/usr/lib64/ld-linux-x86-64.so.2", "--library-path",
            f"{tree}/{LIBRARIES}:{tree}/{LIBRARIES}/pulseaudio", f"{tree}/{program}", *words]
