"""How a command can end, and that the exit code and the report tell one end from another."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from pathlib import Path

import pytest

from support.sandbox_run import Program, python
from support.warm_program import warm

sandbox = warm
pytestmark = [pytest.mark.matter("process"), pytest.mark.drivers("none")]


@pytest.mark.parametrize("wanted", [0, 1, 7, 124, 125, 126, 127, 128, 137, 255, 256, 300])
def test_exit_code_is_the_commands_own(sandbox: Program, wanted: int) -> None:
    bare = subprocess.run(["sh", "-c", f"exit {wanted}"], check=False).returncode
    done = sandbox("--", "sh", "-c", f"exit {wanted}")
    assert done.code == bare == wanted % 256
    assert (done.report["outcome"], done.report["exit_code"], done.report["signal"]) == ("exited", bare, None)
    assert done.report["runner_exit_code"] == bare


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGABRT, signal.SIGPIPE,
                                    signal.SIGRTMIN + 3])
def test_signal_is_128_plus_n(sandbox: Program, number: int) -> None:
    done = sandbox("--", "sh", "-c", f"kill -{int(number)} $$")
    assert done.code == 128 + number
    assert (done.report["outcome"], done.report["exit_code"], done.report["signal"]) == ("signaled", None, number)
    assert done.report["why"]


@pytest.mark.once
@pytest.mark.parametrize(("limit", "hint"), [("--fsize=20000", "ulimit -f"), ("--nofile=12:12", "ulimit -n")])
def test_limits_of_the_caller_that_are_too_low_for_the_runner(sandbox: Program, limit: str, hint: str) -> None:
    done = sandbox("--", "true", wrap=("prlimit", limit), report=False)
    assert (done.code, done.err.splitlines()[0].startswith("sandbox: cannot start sandbox-init: ")) == (125, True)
    assert hint in done.err


def test_missing_command(sandbox: Program) -> None:
    done = sandbox("--", "no-such-command-anywhere")
    assert done.code == 127
    assert "no-such-command-anywhere" in done.err
    _never_ran(done.report, errno.ENOENT)


def test_missing_file(sandbox: Program, tmp_path: Path) -> None:
    done = sandbox("--", str(tmp_path / "missing"))
    assert done.code == 127
    _never_ran(done.report, errno.ENOENT)


def test_not_executable(sandbox: Program, tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_text("#!/bin/sh\n")
    done = sandbox("--", str(file))
    assert done.code == 126
    assert str(file) in done.err
    _never_ran(done.report, errno.EACCES)


def test_directory(sandbox: Program, tmp_path: Path) -> None:
    done = sandbox("--", str(tmp_path))
    assert done.code == 126
    assert "Is a directory" in done.report["why"]
    _never_ran(done.report, errno.EISDIR)


def test_bad_interpreter(sandbox: Program, tmp_path: Path) -> None:
    file = tmp_path / "script"
    file.write_text("#!/no/such/interpreter\n")
    file.chmod(0o755)
    done = sandbox("--", str(file))
    assert done.code == 126
    assert "interpreter" in done.report["why"]
    _never_ran(done.report, errno.ENOENT)


def test_no_program_format(sandbox: Program, tmp_path: Path) -> None:
    file = tmp_path / "empty"
    file.touch(0o755)
    done = sandbox("--", str(file))
    assert done.code == 126
    _never_ran(done.report, errno.ENOEXEC)


def test_path_of_the_commands_own_environment_is_searched(sandbox: Program, tmp_path: Path) -> None:
    tool = tmp_path / "tool-of-this-test"
    tool.write_text("#!/bin/sh\nexit 9\n")
    tool.chmod(0o755)
    assert sandbox("--", tool.name).code == 127
    assert sandbox("-e", f"PATH=/nonexistent:{tmp_path}", "--", tool.name).code == 9


def _never_ran(report: dict[str, object], number: int) -> None:
    assert (report["outcome"], report["exit_code"], report["signal"]) == ("failed", None, None)
    assert report["exec_errno"] == number


def test_processes_that_outlive_the_command_are_killed(sandbox: Program) -> None:
    done = sandbox("--", "sh", "-c", "setsid sleep 1000 & sleep 1000 & exit 3")
    assert done.code == 3
    assert done.usage["left_behind"] == 2


def test_no_output_of_ours_when_all_is_well(sandbox: Program) -> None:
    done = sandbox("--", "echo", "hello", report=False)
    assert (done.code, done.out, done.err) == (0, b"hello\n", "")


@pytest.mark.parametrize("words", [(), ("--",), ("--no-such-flag", "--", "true"), ("--memory",),
                                   ("--profile", "no-such-profile", "--", "true"),
                                   ("--driver", "no-such", "--", "true")])
def test_bad_usage_is_2(sandbox: Program, words: tuple[str, ...]) -> None:
    done = sandbox.other("run", *words)
    assert done.code == 2
    assert done.err.startswith("sandbox: ")
    assert len(done.err.splitlines()) == 1


def test_misspelled_flag_is_suggested(sandbox: Program) -> None:
    assert "--memory" in sandbox.other("run", "--memroy", "1g", "--", "true").err


def test_flags_of_the_command_are_not_ours(sandbox: Program) -> None:
    assert sandbox("echo", "--memory", "-v", report=False).out == b"--memory -v\n"


def test_arguments_arrive_byte_for_byte(sandbox: Program) -> None:
    words = ["", " ", "a b", "\udcff\udcfe", "é", "--", "-x", "\n", "x" * 100_000]
    done = sandbox(*python("import os, sys; sys.stdout.buffer.write(b'\\0'.join(map(os.fsencode, sys.argv[1:])))"),
                   *words)
    assert done.out == b"\0".join(map(os.fsencode, words))
