"""Wall time, and the soft stop before the hard kill."""

from __future__ import annotations

import pytest

from support.machine import undisturbed
from support.sandbox_run import Program, python
from support.warm_program import warm

sandbox = warm
pytestmark = pytest.mark.drivers("none")


def test_timeout(sandbox: Program) -> None:
    done = undisturbed(lambda: sandbox("--timeout", "0.5", "--", "sleep", "1000"),
                       lambda done: done.usage["wall_time"] > 0.8)
    assert (done.code, done.report["outcome"], done.report["signal"]) == (124, "wall_time", 15)
    assert done.usage["wall_time"] == pytest.approx(0.5, abs=0.3)
    assert "0.5 s" in done.err
    assert done.limit("--timeout")["enforced"]


def test_timeout_is_not_reached(sandbox: Program) -> None:
    done = sandbox("--timeout", "60", "--", "sh", "-c", "exit 4")
    assert (done.code, done.report["outcome"]) == (4, "exited")


def test_soft_stop_lets_the_command_finish(sandbox: Program) -> None:
    done = sandbox("--timeout", "0.3", "--stop-timeout", "20", "--", "sh", "-c",
                   "trap 'echo bye; exit 0' TERM; sleep 1000 & wait")
    assert (done.code, done.out, done.report["outcome"]) == (124, b"bye\n", "wall_time")
    assert done.report["exit_code"] == 0


def test_stop_signal(sandbox: Program) -> None:
    done = sandbox("--timeout", "0.3", "--stop-signal", "USR1", "--", "sh", "-c",
                   "trap 'echo usr1; exit 0' USR1; trap 'echo term; exit 1' TERM; sleep 1000 & wait")
    assert done.out == b"usr1\n"


def test_hard_kill_comes_after(sandbox: Program) -> None:
    done = sandbox("--timeout", "0.3", "--stop-timeout", "0.4", "--", "sh", "-c",
                   "trap '' TERM; echo up; sleep 1000")
    assert (done.code, done.report["outcome"], done.report["signal"]) == (124, "wall_time", 9)
    assert 0.7 <= done.usage["wall_time"] < 9, "not after the 10 s that a stop may take if nothing is said"
    assert "SIGKILL" in done.report["why"]


def test_no_soft_stop(sandbox: Program) -> None:
    done = sandbox("--timeout", "0.3", "--stop-timeout", "0", "--", "sh", "-c",
                   "trap 'echo bye' TERM; sleep 1000")
    assert (done.out, done.report["signal"]) == (b"", 9)


def test_stopped_process_is_killed(sandbox: Program) -> None:
    done = sandbox("--timeout", "0.5", "--stop-timeout", "0.3", "--", "sh", "-c", "kill -STOP $$")
    assert done.code == 124


def test_orphans_do_not_outlive_the_timeout(sandbox: Program) -> None:
    done = sandbox("--timeout", "0.5", "--stop-timeout", "0", *python(
        "import os, time\nif os.fork():\n  os._exit(0) if os.fork() else time.sleep(1000)\ntime.sleep(1000)"))
    assert done.code == 0, "the command itself ended in time"
