"""memory.low: what it protects when memory is short, and the cgroups above that make it void."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.machine import cgroup_file
from support.sandbox_run import Program, python
from support.warm_program import warm

pytestmark = [pytest.mark.matter("limits"), pytest.mark.requires("cgroup2")]

sandbox = warm

HOLD = 'b = bytearray(b"x") * ({} << 20); print("up", flush=True); input()'
"""Python code that touches so many MiB and keeps them."""


@pytest.mark.matter("values")
@pytest.mark.only("systemd", "service", "delegated")
@pytest.mark.requires("swap")
def test_what_is_protected_stays_when_a_neighbour_needs_memory(sandbox: Program,
                                                               slice_with: Callable[..., str]) -> None:
    above = slice_with("MemoryMax=80M")
    with sandbox.start("--slice", above, "--memory-low", "48m", *python(HOLD.format(32))) as one:
        one.read_line()
        with sandbox.start("--slice", above, *python(HOLD.format(64))) as other:
            other.read_line()
            assert int(cgroup_file(one.name, "memory.current").read_text()) > 32 << 20
            assert other.finish(b"\n").code == 0
        assert one.finish(b"\n").code == 0


def test_a_cgroup_above_without_protection(sandbox: Program, tmp_path: Path) -> None:
    words = ("--memory-low", "8m", "--", "touch", str(tmp_path / "ran"))
    done = sandbox(*words)
    assert done.code == 125
    assert not (tmp_path / "ran").exists()
    assert "--memory-low" in done.err
    assert "/memory.low has no effect, because /sys/fs/cgroup/" in done.err
    assert "/memory.low is 0" in done.err
    done = sandbox("--best-effort", *words)
    assert done.code == 0
    assert "/memory.low is 0" in done.report["unmet"][0]["reason"]


@pytest.mark.only("systemd", "service", "delegated")
@pytest.mark.requires("root")
def test_a_slice_with_less_protection(sandbox: Program, slice_with: Callable[..., str]) -> None:
    above = slice_with("MemoryLow=4M")
    done = sandbox("--slice", above, "--memory-low", "8m", "--", "true")
    assert done.code == 0, done.err
    assert all(row["enforced"] for row in done.report["limits"])
    assert done.limit("--memory-low")["binding"] == f"/sys/fs/cgroup/{above}/memory.low"


@pytest.mark.only("cgroupfs")
def test_below_the_root(sandbox: Program) -> None:
    done = sandbox("--cgroup-parent", "/", "--memory-low", "8m", "--memory-min", "4m", "--", "true")
    assert done.code == 0, done.err
    assert all(row["enforced"] for row in done.report["limits"])
