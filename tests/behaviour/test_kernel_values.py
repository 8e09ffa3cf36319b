"""What the flags write: read from the kernel's files while the command runs, not from our own report."""

from __future__ import annotations

import os

import pytest

from support.machine import cgroup_file, holders
from support.sandbox_run import Program
from support.warm_program import warm

pytestmark = pytest.mark.matter("limits")

sandbox = warm

MIB = 1 << 20
PAGE = os.sysconf("SC_PAGE_SIZE")
HALF = os.sysconf("SC_PHYS_PAGES") * PAGE // 2 // PAGE * PAGE
CASES: list[tuple[str, dict[str, str], dict[str, str]]] = [
    # flags, v1, v2
    ("-m 64m", {"memory.limit_in_bytes": str(64 * MIB)}, {"memory.max": str(64 * MIB)}),
    ("--memory 1.5MiB", {"memory.limit_in_bytes": str(3 * MIB // 2)}, {"memory.max": str(3 * MIB // 2)}),
    ("-m 50%", {"memory.limit_in_bytes": str(HALF)}, {"memory.max": str(HALF)}),
    ("-m 100000001", {"memory.limit_in_bytes": str(100000001 // PAGE * PAGE)},
     {"memory.max": str(100000001 // PAGE * PAGE)}),
    ("--memory-reservation 32m", {"memory.soft_limit_in_bytes": str(32 * MIB)}, {"memory.low": str(32 * MIB)}),
    ("--memory-swappiness 10", {"memory.swappiness": "10"}, {}),
    ("--cpus 0.5", {"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000"}, {"cpu.max": "50000 100000"}),
    ("--cpus 150%", {"cpu.cfs_quota_us": "150000"}, {"cpu.max": "150000 100000"}),
    ("--cpus 250m", {"cpu.cfs_quota_us": "25000"}, {"cpu.max": "25000 100000"}),
    ("--cpu-quota 30000 --cpu-period 50000", {"cpu.cfs_quota_us": "30000", "cpu.cfs_period_us": "50000"},
     {"cpu.max": "30000 50000"}),
    ("--cpus 0.5 --cpu-burst 20000", {"cpu.cfs_burst_us": "20000"}, {"cpu.max.burst": "20000"}),
    ("--cpu-shares 512", {"cpu.shares": "512"}, {}),
    ("--cpu-weight 100", {"cpu.shares": "1024"}, {"cpu.weight": "100"}),
    ("--cpu-idle", {"cpu.idle": "1"}, {"cpu.idle": "1"}),
    ("--cpuset-cpus 0", {"cpuset.cpus": "0"}, {"cpuset.cpus": "0"}),
    ("--cpuset-mems 0", {"cpuset.mems": "0"}, {"cpuset.mems": "0"}),
    ("--pids-limit 42", {"pids.max": "42"}, {"pids.max": "42"}),
    ("--pids-limit max", {"pids.max": "max"}, {"pids.max": "max"}),
    ("--cgroup-conf pids.max=43", {"pids.max": "43"}, {"pids.max": "43"}),
]


@pytest.mark.requires("cgroup1")
@pytest.mark.parametrize(("flags", "files"), [(flags, files) for flags, files, _ in CASES if files])
def test_on_v1(sandbox: Program, flags: str, files: dict[str, str]) -> None:
    _holds(sandbox, flags, files)


@pytest.mark.requires("cgroup2")
@pytest.mark.parametrize(("flags", "files"), [(flags, files) for flags, _, files in CASES if files])
def test_on_v2(sandbox: Program, flags: str, files: dict[str, str]) -> None:
    _holds(sandbox, flags, files)


def _holds(sandbox: Program, flags: str, files: dict[str, str]) -> None:
    with sandbox.start(*flags.split(), "--", "sh", "-c", "echo up; read line") as running:
        assert running.read_line() == b"up\n"
        if files.get("pids.max", "max") != "max" and "--pids-limit" in flags:
            files = {"pids.max": str(int(files["pids.max"]) + holders(sandbox.driver))}
        assert {file: cgroup_file(running.name, file).read_text().strip() for file in files} == files
        done = running.finish(b"go on\n")
    assert done.code == 0
    assert all(row["enforced"] for row in done.report["limits"])
    assert done.report["unmet"] == []


def test_conversion_is_shown(sandbox: Program) -> None:
    row = sandbox("--cpu-weight", "50", "--cpuset-cpus", "0", "--", "true").limit("--cpu-weight")
    assert row["asked"] == "50"
    assert row["read_back"] == ("512" if row["file"].endswith("cpu.shares") else "50")
