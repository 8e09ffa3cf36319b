"""What the flags write: read from the kernel's files while the command runs, not from our own report."""

from __future__ import annotations

import os

import pytest

from support.machine import cgroup_file, charged, holders
from support.sandbox_run import Program
from support.warm_program import warm

pytestmark = pytest.mark.matter("values")

sandbox = warm

MIB = 1 << 20
PAGE = os.sysconf("SC_PAGE_SIZE")
HALF = os.sysconf("SC_PHYS_PAGES") * PAGE // 2 // PAGE * PAGE
CASES: list[tuple[str, dict[str, str], dict[str, str]]] = [
    # Flags, files on v1, files on v2. A run takes an emulated CPU a second, so each has several limits. No run has two
    # limits in one tree of v1 of which only one is a property of systemd: the other would be in a cgroup of its own.
    ("-m 64m --cpus 0.5 --cpu-burst 20000 --cpuset-cpus 0 --pids-limit 42",
     {"memory.limit_in_bytes": str(64 * MIB), "cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000",
      "cpu.cfs_burst_us": "20000", "cpuset.cpus": "0", "pids.max": "42"},
     {"memory.max": str(64 * MIB), "cpu.max": "50000 100000", "cpu.max.burst": "20000", "cpuset.cpus": "0",
      "pids.max": "42"}),
    ("--memory 2.5MiB --cpus 150% --cpu-weight 100 --cpuset-mems 0 --pids-limit max",
     {"memory.limit_in_bytes": str(5 * MIB // 2), "cpu.cfs_quota_us": "150000", "cpu.shares": "1024",
      "cpuset.mems": "0", "pids.max": "max"},
     {"memory.max": str(5 * MIB // 2), "cpu.max": "150000 100000", "cpu.weight": "100", "cpuset.mems": "0",
      "pids.max": "max"}),
    ("-m 50% --cpus 250m", {"memory.limit_in_bytes": str(HALF), "cpu.cfs_quota_us": "25000"},
     {"memory.max": str(HALF), "cpu.max": "25000 100000"}),
    ("-m 100000001 --cpu-quota 30000 --cpu-period 50000",
     {"memory.limit_in_bytes": str(100000001 // PAGE * PAGE), "cpu.cfs_quota_us": "30000",
      "cpu.cfs_period_us": "50000"},
     {"memory.max": str(100000001 // PAGE * PAGE), "cpu.max": "30000 50000"}),
    ("--memory-reservation 32m --cgroup-conf pids.max=43",
     {"memory.soft_limit_in_bytes": str(32 * MIB), "pids.max": "43"}, {}),
    ("--cpu-idle --cgroup-conf pids.max=43", {}, {"cpu.idle": "1", "pids.max": "43"}),
    ("--memory-swappiness 10 --cpu-shares 512", {"memory.swappiness": "10", "cpu.shares": "512"}, {}),
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
            files = files | {"pids.max": str(int(files["pids.max"]) + holders(sandbox.driver))}
        files = files | {file: str(int(files[file]) + charged(sandbox.driver))
                         for file in ("memory.max", "memory.limit_in_bytes") if file in files}
        assert {file: cgroup_file(running.name, file).read_text().strip() for file in files} == files
        done = running.finish(b"go on\n")
    assert done.code == 0
    assert all(row["enforced"] for row in done.report["limits"])
    assert done.report["unmet"] == []


def test_conversion_is_shown(sandbox: Program) -> None:
    row = sandbox("--cpu-weight", "50", "--cpuset-cpus", "0", "--", "true").limit("--cpu-weight")
    assert row["asked"] == "50"
    assert row["read_back"] == ("512" if row["file"].endswith("cpu.shares") else "50")
