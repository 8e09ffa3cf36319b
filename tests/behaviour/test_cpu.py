"""CPU limits: the quota, the set of CPUs, and the time of the whole tree."""

from __future__ import annotations

import os

import pytest

from support.machine import undisturbed
from support.sandbox_run import Program, Result, python

BUSY = "while :; do :; done"


def held_up(done: Result) -> bool:
    """Something else took CPU time away."""
    return bool(done.usage["throttled_periods"] < 20 or done.usage["wall_time"] > 3.15)


@pytest.mark.requires("cpus2")
def test_two_loops_share_half_a_cpu(sandbox: Program) -> None:
    words = ("--cpus", "0.5", "--timeout", "3", "--stop-timeout", "0", "--", "sh", "-c", f"({BUSY}) & {BUSY}")
    done = undisturbed(lambda: sandbox(*words), held_up)
    assert done.code == 124
    assert done.usage["wall_time"] == pytest.approx(3.0, rel=0.05)
    # Where they are throttled they had all of a period's 50 ms, also on a machine that has little to give.
    throttled = done.usage["throttled_periods"]
    assert 0.9 * 0.05 * throttled <= done.usage["cpu_time"] <= 1.65
    assert 20 <= throttled <= done.usage["periods"]
    assert done.usage["throttled_time"] > 1
    assert any("throttled" in row["key"] for row in done.report["evidence"])


def test_cpuset(sandbox: Program) -> None:
    cpu = max(os.sched_getaffinity(0))
    done = sandbox("--cpuset-cpus", str(cpu), *python("import os; print(*os.sched_getaffinity(0))"))
    assert done.out.decode().split() == [str(cpu)]


@pytest.mark.parametrize("loop", [BUSY, "while :; do (i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done); done"],
                         ids=["one process", "many short ones"])
def test_cpu_time_of_the_tree(sandbox: Program, loop: str) -> None:
    done = undisturbed(lambda: sandbox("--cpu-time", "0.5", "--timeout", "20", "--", "sh", "-c", loop),
                       lambda done: done.code == 152 and done.usage["cpu_time"] >= 0.8)
    assert (done.code, done.report["outcome"]) == (152, "cpu_time")
    assert 0.5 <= done.usage["cpu_time"] < 0.8
    assert "CPU time" in done.err


def test_sleeping_uses_no_cpu_time(sandbox: Program) -> None:
    done = sandbox("--cpu-time", "0.5", "--", "sleep", "0.7")
    assert (done.code, done.report["outcome"]) == (0, "exited")


def test_user_and_system_time(sandbox: Program) -> None:
    done = sandbox("--cpu-time", "0.3", "--", "sh", "-c", BUSY)
    assert done.usage["cpu_user"] + done.usage["cpu_system"] == pytest.approx(done.usage["cpu_time"], abs=0.05)
    assert done.usage["cpu_user"] > 0.1
