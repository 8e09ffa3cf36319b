"""Programs that try to get out. Each is sent into the sandbox as text, so that no file of ours must be seen there.

They print JSON: for each attempt ``ok`` or the name of the error. ``calls.py`` comes with each of them, as a module.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.sandbox_run import Program, Result

DIRECTORY = Path(__file__).parent
PYTHON = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
"""One that everybody may run: our own may lie in a directory that only its owner sees."""
REFUSED = frozenset({"EPERM", "EACCES", "ENOSYS"})
"""What a call says that is not allowed, and not just wrong."""


def command(name: str, *words: str) -> list[str]:
    """The command line, after the flags, that runs the probe called ``name``."""
    calls = (DIRECTORY / "calls.py").read_text()
    text = f"import sys, types\nmodule = sys.modules['calls'] = types.ModuleType('calls')\n" \
           f"exec({calls!r}, module.__dict__)\n{(DIRECTORY / f'{name}.py').read_text()}"
    return [*python(text), *words]


def python(code: str) -> list[str]:
    """A command that runs Python code."""
    return ["--", PYTHON, "-I", "-S", "-c", code]


def probe(sandbox: Program, name: str, *words: str, flags: tuple[str, ...] = (), given: object = None,
          **options: Any) -> Any:
    """What the probe called ``name`` finds inside.

    :param words: its arguments.
    :param flags: for ``sandbox run``.
    :param given: what it reads as JSON from its stdin.
    """
    done = sandbox(*flags, *command(name, *words), input=json.dumps(given).encode(), **options)
    return found(done)


def found(done: Result) -> Any:
    """What a probe that came to its end has printed."""
    assert done.code == 0, (done.code, done.err)
    return json.loads(done.out)


class Bare(Program):
    """As somebody runs it who types no more than ``sandbox run -- ./untrusted``: with no directory of the test's."""

    def flags(self) -> list[str]:
        return self.way()

    def wishes(self) -> dict[str, Any]:
        return {key: value for key, value in super().wishes().items() if key not in ("volume", "tmpfs")}


@pytest.fixture
def bare(driver: str, tmp_path: Path, check_report: Callable[[dict[str, Any]], None]) -> Program:
    """In the place of the suite's ``sandbox``."""
    return Bare(driver, tmp_path, check_report)
