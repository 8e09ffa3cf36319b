"""A caller who is in a cgroup of its own gets its sandboxes below it, and hears whose limit binds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.machine import cgroups, eventually, own_cgroup
from support.sandbox_run import Program, names, python

pytestmark = [pytest.mark.matter("limits"), pytest.mark.requires("cgroup1")]
MIB = 1 << 20


@pytest.fixture
def outer() -> Iterator[dict[str, Path]]:
    """A cgroup in some v1 trees, as a container manager would make one."""
    groups = {controller: own_cgroup(controller) / names("outer") for controller in ("memory", "pids", "cpu")}
    for path in groups.values():
        path.mkdir()
    yield groups
    for path in groups.values():
        assert eventually(lambda path=path: not (path / "cgroup.procs").read_text())
        path.rmdir()


def within(outer: dict[str, Path]) -> tuple[str, ...]:
    """Words that move into the groups and then exec the rest."""
    moves = "".join(f"echo $$ >{path}/cgroup.procs; " for path in outer.values())
    return ("sh", "-c", f'{moves} exec "$@"', "sh")


@pytest.mark.only("cgroupfs")
def test_sandboxes_are_made_below_the_caller(sandbox: Program, outer: dict[str, Path]) -> None:
    with sandbox.start("-m", "64m", "--pids-limit", "20", "--cpus", "1", "--", "sh", "-c", "echo up; read line",
                       wrap=within(outer)) as running:
        running.read_line()
        found = cgroups(running.name)
        for controller in ("memory", "pids", "cpu"):
            assert f"{outer[controller]}/sandbox-{running.name}" in found
        assert running.finish(b"\n").code == 0


@pytest.mark.only("cgroupfs")
def test_binding_ancestor_is_named(sandbox: Program, outer: dict[str, Path]) -> None:
    (outer["memory"] / "memory.limit_in_bytes").write_text(str(48 * MIB))
    (outer["pids"] / "pids.max").write_text("10")
    done = sandbox("-m", "64m", "--pids-limit", "9", *python("b = bytearray(b\"x\") * (256 << 20)"), wrap=within(outer))
    assert done.report["outcome"] == "oom"
    tighter = str(outer["memory"] / "memory.limit_in_bytes")
    assert done.limit("--memory")["binding"] == tighter
    assert str(outer["memory"]) in done.report["why"].partition(", and the kernel killed")[0]
    row = done.limit("--pids-limit")
    assert row["binding"] in (None, row["file"])


@pytest.mark.only("cgroupfs")
def test_a_quota_above_that_of_the_parent(sandbox: Program, outer: dict[str, Path]) -> None:
    (outer["cpu"] / "cpu.cfs_quota_us").write_text("20000")
    done = sandbox("--cpus", "0.5", "--", "true", wrap=within(outer), report=False)
    assert (done.code, done.err.splitlines()[-1]) == (
        125, f"hint: {outer['cpu']}/cpu.cfs_quota_us allows 0.2: give --cpus that much or less")


@pytest.mark.only("cgroupfs")
def test_an_ancestor_that_refuses_forks_or_time_is_named(sandbox: Program, outer: dict[str, Path]) -> None:
    (outer["pids"] / "pids.max").write_text("4")
    (outer["cpu"] / "cpu.cfs_quota_us").write_text("20000")
    done = sandbox("--pids-limit", "9", "--", "sh", "-c", "for i in 1 2 3 4 5; do sleep 60 & done; wait",
                   wrap=within(outer))
    # Linux 6.1 and newer tell by pids.peak that its own limit was not reached.
    own = "" if (outer["pids"] / "pids.peak").exists() else "its task limit of 9 or "
    assert f"; {own}the task limit in {outer['pids']}/pids.max refused 1 fork(s)" in done.report["why"]
    done = sandbox("--cpu-weight", "100", "--timeout", "1", "--", "sh", "-c", "while :; do :; done", wrap=within(outer))
    assert f"; the CPU quota of {outer['cpu']} ran out in " in done.report["why"]


@pytest.mark.only("cgroupfs")
def test_cgroup_parent(sandbox: Program, outer: dict[str, Path]) -> None:
    """``--cgroup-parent`` counts from the root of each tree, whatever cgroup we are in."""
    parent = names("parent")
    made = [root / parent for root in sorted({_root(name) for name in outer})]
    for path in made:
        path.mkdir()
    try:
        with sandbox.start("--cgroup-parent", f"/{parent}", "-m", "64m", "--pids-limit", "9", "--cpus", "1",
                           "--best-effort", "--", "sh", "-c", "echo up; read line") as running:
            running.read_line()
            assert {os.path.dirname(path) for path in cgroups(running.name)} >= set(map(str, made))
            assert running.finish(b"\n").code == 0
    finally:
        for path in made:
            path.rmdir()


@pytest.mark.only("cgroupfs")
def test_cgroup_parent_holds_in_every_tree(sandbox: Program) -> None:
    """A CPU quota of the parent binds a run that asks for no CPU limit."""
    made = _root("cpu") / names("parent")
    made.mkdir()
    try:
        (made / "cpu.cfs_quota_us").write_text("20000")
        done = sandbox("--cgroup-parent", f"/{made.name}", "--best-effort", "--timeout", "1", "--", "sh", "-c",
                       "while :; do :; done")
        assert f"; the CPU quota of {made} ran out in " in done.report["why"]
    finally:
        made.rmdir()


def _root(controller: str) -> Path:
    """The mount point of the controller's tree."""
    return Path(str(own_cgroup(controller)).removesuffix(_own(controller)))


def _own(controller: str) -> str:
    return next(path for line in Path("/proc/self/cgroup").read_text().splitlines()
                for _, controllers, path in [line.split(":", 2)] if controller in controllers.split(","))
