"""Where the console script begins: before the modules that take most of its start are loaded."""

from __future__ import annotations

import signal
from typing import NoReturn


def main() -> NoReturn:
    """Load the program and run it. Ctrl-C meanwhile ends it as it ends any program, without a traceback."""
    raises = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if raises:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .__main__ import main as run

    if raises:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()
