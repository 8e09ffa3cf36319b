"""Where the program begins: before the modules that take most of its start are loaded."""

from __future__ import annotations

import os
import sys

from sandbox.errors import SandboxError
from sandbox.stdlib import TYPE_CHECKING, signal

if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Load the program and run it. Ctrl-C meanwhile ends it as it ends any program, without a traceback."""
    _open_standard_files()
    raises = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if raises:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .commands import exit_code
    from .quick import command_of

    work = command_of(sys.argv[1:])
    if work is None:
        from .application import run_typer
    if raises:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = run_typer() if work is None else exit_code(work)
    except Exception:
        sys.excepthook(*sys.exc_info())
        code = SandboxError.exit_code
    # Everything is written and closed; taking the interpreter down in order would cost each run another 8 ms.
    os._exit(code)


def _open_standard_files() -> None:
    """Fill closed ones of fds 0 to 2 with /dev/null, before another file takes their number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
