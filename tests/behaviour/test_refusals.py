"""A limit that cannot be enforced refuses the run; ``--best-effort`` runs and says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.sandbox_run import Program
from support.warm_program import warm

pytestmark = pytest.mark.matter("limits")

sandbox = warm


@pytest.mark.requires("cgroup1")
@pytest.mark.parametrize(("flag", "value", "file"), [("--memory-high", "32m", "memory.high"),
                                                     ("--memory-min", "32m", "memory.min")])
def test_what_v1_lacks_is_refused(sandbox: Program, tmp_path: Path, flag: str, value: str, file: str) -> None:
    done = sandbox(flag, value, "--", "touch", str(tmp_path / "ran"))
    assert done.code == 125
    assert not (tmp_path / "ran").exists()
    assert flag in done.err
    assert file in done.err
    assert "memory controller" in done.err
    assert "hint: " in done.err


@pytest.mark.requires("cgroup1")
def test_best_effort_lists_what_is_unmet(sandbox: Program) -> None:
    done = sandbox("--best-effort", "--memory-high", "32m", "-m", "64m", "--", "true")
    assert done.code == 0
    [unmet] = done.report["unmet"]
    assert unmet["flag"] == "--memory-high"
    assert "memory.high" in unmet["reason"]
    assert unmet["remedy"]
    assert done.err.splitlines() == [f"sandbox: warning: not enforced: --memory-high: {unmet['reason']}"]
    assert [row["flag"] for row in done.report["limits"] if not row["enforced"]] == []
    assert done.limit("--memory")["enforced"]


@pytest.mark.requires("cgroup2")
def test_what_v2_lacks_is_refused(sandbox: Program) -> None:
    done = sandbox("--memory-swappiness", "10", "--", "true")
    assert done.code == 125
    assert "memory.swappiness" in done.err


def test_value_the_kernel_does_not_take(sandbox: Program, tmp_path: Path) -> None:
    done = sandbox("--cgroup-conf", "pids.max=soon", "--", "touch", str(tmp_path / "ran"))
    assert done.code == 125
    assert "pids.max" in done.err
    assert "soon" in done.err
    assert not (tmp_path / "ran").exists()


def test_cpu_that_is_not_there(sandbox: Program, tmp_path: Path) -> None:
    done = sandbox("--cpuset-cpus", "4095", "--", "touch", str(tmp_path / "ran"))
    assert done.code == 125
    assert "cpuset" in done.err
    assert not (tmp_path / "ran").exists()


def test_without_cgroups_a_memory_limit_is_refused(tmp_path: Path, sandbox: Program) -> None:
    done = sandbox.other("run", "--driver", "none", "-m", "64m", "--", "touch", str(tmp_path / "ran"))
    assert done.code == 125
    assert "--memory" in done.err
    assert not (tmp_path / "ran").exists()


@pytest.mark.only("cgroupfs")
def test_parent_that_is_not_there(sandbox: Program) -> None:
    done = sandbox("--cgroup-parent", "/no-such-parent-of-this-test", "-m", "64m", "--", "true")
    assert done.code == 125
    assert "no-such-parent-of-this-test" in done.err


def test_directory_that_is_not_there(sandbox: Program) -> None:
    done = sandbox("-w", "/no/such/directory", "--", "true")
    assert done.code == 125
    assert "/no/such/directory" in done.err


def test_best_effort_says_once_what_failed_as_it_started(sandbox: Program) -> None:
    done = sandbox("--best-effort", "--cpuset-cpus", "4095", "--", "true")
    assert done.code == 0
    [line] = done.err.splitlines()
    assert line.startswith("sandbox: warning: not enforced: --cpuset-cpus: ")
    assert "cpuset.cpus" in line
    assert "4095" in line
    assert [one["flag"] for one in done.report["unmet"]] == ["--cpuset-cpus"]
