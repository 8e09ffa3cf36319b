"""What a start loads beyond a bare Python, by name: a module that creeps in here costs every run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BUILT_IN = {"__future__", "_collections", "_ctypes", "_functools", "_json", "_prctl", "_socket", "errno", "fcntl",
            "select"}
"""Modules in C, and the one of Python that ``from __future__`` itself loads."""
LIBRARY = BUILT_IN - {"_json", "_prctl", "select"}
RUN = BUILT_IN - {"_json"}
TERMINAL = {"_operator", "collections", "contextlib", "functools", "itertools", "keyword", "operator", "reprlib",
            "termios", "tty", "types"}
RE = {"_operator", "_sre", "collections", "copyreg", "enum", "functools", "itertools", "keyword", "operator", "re",
      "re._casefix", "re._compiler", "re._constants", "re._parser", "reprlib", "types"}
PLAIN = ["--driver", "none", "--", "true"]
LIMITS = ["-m", "64m", "--cpus", "1", "--pids-limit", "64", "--timeout", "60", "--name", "start-up"]

PROGRAMS = {
    "run": (["run", *PLAIN], RUN),
    "run with limits and files": (["run", "--best-effort", "-v", "/tmp:/mnt", "-e", "A=1", "-w", "/", *LIMITS, *PLAIN],
                                  RUN),
    "run with a report": (["run", "--json", "report.json", *PLAIN], BUILT_IN),
    "a command line with an error": (["run", "-m", "64q", "--", "true"], RUN - {"select", "_ctypes", "_prctl"}),
    "explain": (["explain", *PLAIN], LIBRARY | RE | {"shlex"}),
    "lab run": (["lab", "run"], {"__future__", "_collections", "_functools"}),
}


def loaded(argv: list[str], cwd: Path) -> set[str]:
    """The modules that a Python with these words loads besides those that it always loads, without our own."""
    def names(words: list[str]) -> set[str]:
        done = subprocess.run([sys.executable, "-X", "importtime", *words], text=True, capture_output=True, check=False,
                              stdin=subprocess.DEVNULL, cwd=cwd, env=os.environ | {"HOME": str(cwd)})
        return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "import time:" in line}

    found = names(argv)
    assert "sandbox" in found
    return {name for name in found - names(["-c", "pass"]) if name.partition(".")[0] not in ("sandbox", "sandbox_cli")}


@pytest.mark.parametrize("what", PROGRAMS)
def test_program(what: str, tmp_path: Path) -> None:
    words, allowed = PROGRAMS[what]
    program = f"import sys; sys.argv[1:] = {words!r}; from sandbox_cli.start import main; main()"
    loaded(["-c", program], tmp_path)  # the first run of all compiles the filter
    assert loaded(["-c", program], tmp_path) - allowed - {"gc"} == set()


def test_import() -> None:
    assert loaded(["-c", "import sandbox"], Path()) <= {"__future__", "_collections", "_functools"}


def test_first_run_of_the_library(tmp_path: Path) -> None:
    code = "import sandbox; assert sandbox.run(['true'], driver='none').exit_code == 0"
    loaded(["-c", code], tmp_path)
    assert loaded(["-c", code], tmp_path) - LIBRARY == set()


def test_typer_is_for_the_unusual(tmp_path: Path) -> None:
    program = "import sys; sys.argv[1:] = ['run', '--help']; from sandbox_cli.start import main; main()"
    assert "typer" in loaded(["-c", program], tmp_path)
