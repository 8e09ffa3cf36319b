"""A command in a lab, at our own terminal."""

from __future__ import annotations

import os
import sys
import termios
import threading
import time
from contextlib import contextmanager, nullcontext, suppress

from sandbox import lab as labs
from sandbox.stdlib import TYPE_CHECKING

from .messages import say

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType


def run(argv: list[str], *, engine: str, image: str, name: str, tty: bool) -> int:
    """Run a command in a lab, which is booted first if need be: the command's exit code.

    :param tty: give it a terminal.
    """
    with Progress() as progress:
        lab = labs.up(name, engine=engine, image=image, progress=progress.tell)
    from signal import SIGWINCH

    from .signals import ENDING, PASSED, Signals

    signals = Signals(ENDING | PASSED | {SIGWINCH})
    with _raw() if tty else nullcontext():
        return labs.run(lab, argv, tty=tty, signals=signals)


@contextmanager
def _raw() -> Iterator[None]:
    """Our terminal passes every key on, also Ctrl-C."""
    if not os.isatty(0):
        yield
        return
    from tty import setraw

    before = termios.tcgetattr(0)
    setraw(0, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


class Progress:
    """Says what is being done, on stderr, when it takes longer than a second; on a terminal with the time it took."""

    def __init__(self) -> None:
        self._text = ""
        self._begin = 0.0
        self._shown = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
                 ) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._shown and sys.stderr.isatty():
            say("")

    def tell(self, text: str) -> None:
        """What is being done from now on."""
        if text != self._text:
            self._text, self._begin = text, time.monotonic()
        if not self._thread.is_alive():
            self._thread.start()

    def _watch(self) -> None:
        told = ""
        while not self._over.wait(1):
            if sys.stderr.isatty():
                with suppress(OSError):
                    os.write(2, f"\r\x1b[Ksandbox: {self._text} ({time.monotonic() - self._begin:.0f} s)".encode())
                self._shown = True
            elif told != self._text:
                told = self._text
                say(f"sandbox: {told}")
