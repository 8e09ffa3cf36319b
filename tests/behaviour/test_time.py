"""Wall time, and the soft stop before the hard kill."""

from __future__ import annotations

import pytest

from support.sandbox_run import Program, Result, python
from support.warm_program import warm

sandbox = warm
pytestmark = [pytest.mark.matter("process"), pytest.mark.drivers("none")]


def at_the_deadline(sandbox: Program, *flags: str, script: str) -> Result:
    """A run whose shell has come to the end of ``script``, where it says ``up``, before its time was over: on a busy
    machine that takes more of it."""
    for seconds in (0.2, 0.6, 2, 6, 20):
        done = sandbox("--timeout", str(seconds), *flags, "--", "sh", "-c", f"{script}; echo up; sleep 1000 & wait")
        if done.out.startswith(b"up\n"):
            assert (done.code, done.report["outcome"]) == (124, "wall_time")
            assert done.usage["wall_time"] >= seconds
            return done
    raise AssertionError(f"no up: {done}")


def test_timeout(sandbox: Program) -> None:
    """Not before its time, and before the command ends by itself."""
    done = sandbox("--timeout", "0.3", "--", "sleep", "1000")
    assert (done.code, done.report["outcome"], done.report["signal"]) == (124, "wall_time", 15)
    assert done.usage["wall_time"] >= 0.3
    assert "0.3 s" in done.err
    assert done.limit("--timeout")["enforced"]


def test_timeout_is_not_reached(sandbox: Program) -> None:
    done = sandbox("--timeout", "60", "--", "sh", "-c", "exit 4")
    assert (done.code, done.report["outcome"]) == (4, "exited")


def test_soft_stop_lets_the_command_finish(sandbox: Program) -> None:
    done = at_the_deadline(sandbox, "--stop-timeout", "20", script="trap 'echo bye; exit 0' TERM")
    assert (done.out, done.report["exit_code"]) == (b"up\nbye\n", 0)


def test_stop_signal(sandbox: Program) -> None:
    done = at_the_deadline(sandbox, "--stop-signal", "USR1",
                           script="trap 'echo usr1; exit 0' USR1; trap 'echo term; exit 1' TERM")
    assert done.out == b"up\nusr1\n"


def test_hard_kill_comes_after(sandbox: Program) -> None:
    done = at_the_deadline(sandbox, "--stop-timeout", "0.2", script="trap '' TERM")
    assert done.report["signal"] == 9
    assert done.usage["wall_time"] >= 0.2 + 0.2
    assert ["stop", [15, 200]] in [[step["op"], step["args"]] for step in done.report["steps"]]
    assert "SIGKILL" in done.report["why"]


def test_no_soft_stop(sandbox: Program) -> None:
    done = at_the_deadline(sandbox, "--stop-timeout", "0", script="trap 'echo bye' TERM")
    assert (done.out, done.report["signal"]) == (b"up\n", 9)


def test_stopped_process_is_killed(sandbox: Program) -> None:
    """A process that is stopped does not act on SIGTERM."""
    done = sandbox("--timeout", "0.3", "--stop-timeout", "0.1", "--", "sh", "-c", "kill -STOP $$")
    assert done.code == 124


def test_orphans_do_not_outlive_the_timeout(sandbox: Program) -> None:
    done = sandbox("--timeout", "20", "--stop-timeout", "0", *python(
        "import os, time\nif os.fork():\n  os._exit(0) if os.fork() else time.sleep(1000)\ntime.sleep(1000)"))
    assert (done.code, done.report["outcome"]) == (0, "exited"), "the command itself ended in time"
