"""Processes of a lab, which die with the process that started them."""

from __future__ import annotations

import ctypes
import os
import subprocess

from ..stdlib import TYPE_CHECKING, signal

if TYPE_CHECKING:
    from collections.abc import Mapping

PR_SET_PDEATHSIG = 1
LIBRARIES = "usr/lib/x86_64-linux-gnu"


def die_with_parent(parent: int) -> None:
    """Have the kernel kill us when the process that forked us ends, however it ends (prctl(2)).

    :param parent: its process id as we see it, 0 from a PID namespace of our own. The kernel sends nothing for a
        parent that has ended by now, so we end ourselves.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def start(argv: list[str], *, log: str, pass_fds: tuple[int, ...] = (), environment: Mapping[str, str] | None = None
          ) -> int:
    """Start a program that dies with us; what it says goes to the file ``log``.

    :returns: its process id.
    """
    parent = os.getpid()
    with open(log, "wb") as file:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file, pass_fds=pass_fds,
                                env={**os.environ, **(environment or {})},
                                preexec_fn=lambda: die_with_parent(parent)).pid


def with_loader(tree: str, program: str, *words: str) -> list[str]:
    """A command line for a program of an unpacked tree, with the libraries it was made for."""
    return [f"{tree}/usr/lib64/ld-linux-x86-64.so.2", "--library-path",
            f"{tree}/{LIBRARIES}:{tree}/{LIBRARIES}/pulseaudio", f"{tree}/{program}", *words]
