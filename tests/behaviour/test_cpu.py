"""CPU limits: the quota, the set of CPUs, and the time of the whole tree."""

from __future__ import annotations

import os

import pytest

from support.machine import SLOWER
from support.sandbox_run import Program, python
from support.warm_program import warm

pytestmark = pytest.mark.matter("limits")

sandbox = warm

BUSY = "while :; do :; done"


@pytest.mark.matter("values")
@pytest.mark.alone
@pytest.mark.requires("cpus2")
def test_two_loops_share_a_fifth_of_a_cpu(sandbox: Program) -> None:
    """What they get is compared with the kernel's count of periods, not with a clock of ours. The quota is small, and
    the weight leaves others little, so that the loops use it up on a busy machine, too."""
    words = ("--cpus", "0.2", "--cpu-weight", "10000", "--cpu-time", "0.5", "--stop-timeout", "0")
    done = sandbox(*words, "--", "sh", "-c", f"({BUSY}) & {BUSY}")
    assert (done.code, done.report["outcome"]) == (152, "cpu_time")
    periods, throttled = done.usage["periods"], done.usage["throttled_periods"]
    assert 5 <= throttled <= periods
    # A period in which they were throttled gave them all of its 20 ms, and none gave more; the last one is not over.
    assert 0.9 * 0.02 * throttled <= done.usage["cpu_time"] <= 1.1 * 0.02 * (periods + 1)
    assert done.usage["throttled_time"] > 0
    assert any("throttled" in row["key"] for row in done.report["evidence"])


def test_cpuset(sandbox: Program) -> None:
    cpu = max(os.sched_getaffinity(0))
    done = sandbox("--cpuset-cpus", str(cpu), *python("import os; print(*os.sched_getaffinity(0))"))
    assert done.out.decode().split() == [str(cpu)]


@pytest.mark.parametrize("loop", [BUSY, "while :; do (i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done); done"],
                         ids=["one process", "many short ones"])
def test_cpu_time_of_the_tree(sandbox: Program, loop: str) -> None:
    """The CPU time is over before the wall time."""
    done = sandbox("--cpu-time", "0.3", "--timeout", "60", "--", "sh", "-c", loop)
    assert (done.code, done.report["outcome"]) == (152, "cpu_time")
    assert done.usage["cpu_time"] >= 0.3
    assert "CPU time" in done.err


def test_sleeping_uses_no_cpu_time(sandbox: Program) -> None:
    limit = 0.3 if SLOWER == 1 else 3  # what precedes the sleep has taken a busy emulated CPU 0.3 s
    done = sandbox("--cpu-time", str(limit), "--", "sleep", str(limit + 0.1))
    assert (done.code, done.report["outcome"]) == (0, "exited")


def test_user_and_system_time(sandbox: Program) -> None:
    seconds = "0.3" if SLOWER == 1 else "2"  # to start a process, the kernel's work, takes an emulated CPU 0.15 s
    done = sandbox("--cpu-time", seconds, "--", "sh", "-c", BUSY)
    user, system, both = (done.usage[name] for name in ("cpu_user", "cpu_system", "cpu_time"))
    # On v1 these are counted by who is seen at a tick: on a busy machine far from the exact sum.
    assert 0.5 * both < user + system < 2 * both
    assert user > system, "a shell's loop calls the kernel for nothing"
