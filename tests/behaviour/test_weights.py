"""Weights: how two commands share one CPU, and the weights that are refused because they would change nothing."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from support.machine import cgroups, eventually
from support.sandbox_run import Program, Running, python
from support.warm_program import warm

pytestmark = pytest.mark.matter("limits")

sandbox = warm

LOOP = """import os
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
print("up", flush=True)
while True:
    pass
"""
SECONDS = 1.5
"""CPU time that the other command uses up: many times what one turn of the scheduler is."""


def cpu_time(running: Running) -> float:
    """Seconds of CPU time that its deepest cgroup has used up, by the tree that counts it."""
    for group in sorted(cgroups(running.name), key=len, reverse=True):
        usage, stat = Path(group, "cpuacct.usage"), Path(group, "cpu.stat")
        if usage.exists():
            return int(usage.read_text()) / 1e9
        found = dict(line.split() for line in stat.read_text().splitlines()) if stat.exists() else {}
        if "usage_usec" in found:
            return int(found["usage_usec"]) / 1e6
    pytest.fail("no tree counts CPU time")


def share(sandbox: Program, *flags: str) -> float:
    """Run a command with these flags and one with the default weight on the same CPU; return the ratio of CPU times.

    The second command is given its weight, too: on cgroup v1 it would stay in the CPU cgroup of the test without it.
    """
    with (sandbox.start(*flags, *python(LOOP)) as one,
          sandbox.start("--cpu-weight", "100", *python(LOOP)) as other):
        for running in (one, other):
            running.read_line()
        before = cpu_time(one), cpu_time(other)
        assert eventually(lambda: cpu_time(other) > before[1] + SECONDS, seconds=60)
        after = cpu_time(one), cpu_time(other)
        for running in (other, one):  # beside the other, one that is idle would get too little CPU time to end
            running.process.send_signal(signal.SIGTERM)
            assert running.finish().report["outcome"] == "killed"
    return (after[0] - before[0]) / (after[1] - before[1])


@pytest.mark.matter("values")
def test_a_quarter_of_the_weight_is_a_quarter_of_the_time(sandbox: Program) -> None:
    assert 0.2 < share(sandbox, "--cpu-weight", "25") < 0.3


@pytest.mark.only("cgroupfs", "systemd", "service", "delegated")
@pytest.mark.requires("cgroup2")
def test_idle_gets_what_is_left_over(sandbox: Program) -> None:
    assert share(sandbox, "--cpu-idle") < 0.05


@pytest.mark.only("cgroupfs")
@pytest.mark.requires("cgroup1")
def test_idle_gets_what_is_left_over_on_v1(sandbox: Program) -> None:
    assert share(sandbox, "--cpu-idle") < 0.05


@pytest.mark.only("systemd", "service", "delegated")
@pytest.mark.requires("cgroup1")
def test_without_a_property_idle_would_compete_with_nobody(sandbox: Program, tmp_path: Path) -> None:
    done = sandbox("--cpu-idle", "--", "touch", str(tmp_path / "ran"))
    assert done.code == 125
    assert "--cpu-idle cannot be enforced here: cpu.idle: systemd " in done.err
    assert "hint: use --driver cgroupfs" in done.err
    assert not (tmp_path / "ran").exists()


@pytest.mark.only("systemd", "service", "delegated")
@pytest.mark.requires("cgroup2")
def test_a_file_for_which_there_is_a_flag(sandbox: Program) -> None:
    done = sandbox("--cgroup-conf", "cpu.weight=1", "--", "true")
    assert done.code == 125
    assert "hint: use --cpu-weight" in done.err


@pytest.mark.matter("values")
def test_between_whom_the_time_is_shared(sandbox: Program) -> None:
    done = sandbox("--cpu-weight", "25", "--", "true")
    rows = [row for row in done.report["limits"] if row["flag"] == "--cpu-weight"]
    for row in rows:
        assert f"relative to the other cgroups in {Path(row['file']).parent.parent}" in row["note"]
    assert len(rows) == (2 if sandbox.driver == "delegated" else 1)


def test_disks_that_know_no_weights(sandbox: Program) -> None:
    if any("[bfq]" in path.read_text() for path in Path("/sys/block").glob("*/queue/scheduler")):
        pytest.skip("a disk has the scheduler bfq")
    done = sandbox("--io-weight", "50", "--", "true")
    assert done.code == 125
    assert "--io-weight cannot be enforced here" in done.err
    assert "bfq" in done.err
