"""Memory limits: the kernel kills, and we say that it did and how we know."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.hogs import HOG
from support.machine import charged, holders
from support.sandbox_run import Program, python
from support.warm_program import warm

pytestmark = pytest.mark.matter("limits")

sandbox = warm

MIB = 1 << 20


@pytest.mark.matter("values")
def test_memory_limit_ends_the_run(sandbox: Program) -> None:
    done = sandbox("-m", "24m", *python(HOG))
    assert done.code == 137
    assert (done.report["outcome"], done.report["signal"]) == ("oom", 9)
    assert 12 * MIB < done.usage["memory_peak"] <= 24 * MIB
    assert done.usage["oom_kill"] >= 1
    assert "memory limit" in done.report["why"]
    counter = next(row for row in done.report["evidence"] if row["key"] == "oom_kill")
    assert counter["value"] >= 1
    assert counter["file"].startswith("/sys/fs/cgroup/")
    assert "oom" in done.err
    assert "memory" in done.err


@pytest.mark.matter("values")
def test_limit_is_verified(sandbox: Program) -> None:
    row = sandbox("-m", "64m", "--", "true").limit("--memory")
    assert row["enforced"]
    assert row["read_back"] == str(64 * MIB + charged(sandbox.driver))
    assert row["file"].endswith(("/memory.limit_in_bytes", "/memory.max"))


def test_killed_child_is_reported_though_the_command_succeeds(sandbox: Program) -> None:
    done = sandbox("-m", "24m", "--", "sh", "-c", f"{sys.executable} -I -S -c '{HOG}'; exit 0")
    assert done.code == 0
    assert (done.report["outcome"], done.report["exit_code"]) == ("exited", 0)
    assert done.usage["oom_kill"] >= 1
    assert "for memory" in done.err


def test_kill_from_inside_is_no_oom(sandbox: Program) -> None:
    done = sandbox("-m", "64m", "--", "sh", "-c", "kill -9 $$")
    assert done.report["outcome"] == "signaled"
    assert done.usage["oom_kill"] == 0


def test_peak_is_what_was_used(sandbox: Program) -> None:
    done = sandbox("-m", "128m", *python("b = bytearray(40 << 20)"))
    assert done.code == 0
    assert 40 * MIB <= done.usage["memory_peak"] <= 60 * MIB


def test_peak_does_not_count_us(sandbox: Program) -> None:
    """A process of ours that holds a unit is charged to it, and the kernel charges 64 pages at once for each CPU that
    the command has been on (``MEMCG_CHARGE_BATCH``).

    A service begins as systemd-executor (systemd 254), which then becomes our guard: its memory is in the peak, too.
    """
    peak = sandbox("-m", "64m", "--", "true").usage["memory_peak"]
    batches = 0.25 * (os.cpu_count() or 1)
    executor = 1.0 if sandbox.driver == "service" else 0.0
    assert peak <= (0.25 + batches + 0.5 * holders(sandbox.driver) + executor) * MIB


@pytest.mark.requires("swap")
def test_swap_is_limited_too(sandbox: Program) -> None:
    done = sandbox("-m", "24m", "--memory-swap", "36m", *python(HOG))
    assert done.report["outcome"] == "oom"


@pytest.mark.requires("cgroup1")
@pytest.mark.parametrize(("flags", "total"), [
    (("--memory-swap", "128m"), 128 * MIB),
    (("--swap-max", "16m"), 80 * MIB),
    (("--swap-max", "0"), 64 * MIB),
])
def test_memory_plus_swap_on_v1(sandbox: Program, flags: tuple[str, ...], total: int) -> None:
    done = sandbox("-m", "64m", *flags, "--", "true")
    row = done.limit(flags[0])
    assert row["file"].endswith("/memory.memsw.limit_in_bytes")
    assert row["read_back"] == str(total)


def test_swap_flags_exclude_each_other(sandbox: Program) -> None:
    assert sandbox("-m", "64m", "--memory-swap", "128m", "--swap-max", "1m", "--", "true").code == 2


def test_memory_swap_below_memory(sandbox: Program) -> None:
    done = sandbox("-m", "64m", "--memory-swap", "32m", "--", "true")
    assert done.code == 2
    assert "--memory-swap" in done.err


@pytest.mark.requires("cgroup2")
def test_oom_group_kills_all(sandbox: Program) -> None:
    done = sandbox("-m", "24m", "--oom-group", "--", "sh", "-c", f"{sys.executable} -I -S -c '{HOG}'; exit 0")
    assert done.report["outcome"] == "oom"


@pytest.mark.requires("cgroup2", "swap")
def test_what_memory_high_did_is_in_the_report(sandbox: Program) -> None:
    done = sandbox("--memory-high", "16m", *python(f'b = bytearray(b"x") * {24 * MIB}'))
    assert (done.code, done.report["outcome"]) == (0, "exited"), done.err
    assert done.usage["memory_high"] > 0
    assert any(row["key"] == "high" and row["value"] > 0 for row in done.report["evidence"])


@pytest.fixture
def huge_pages() -> Iterator[None]:
    """Sixteen huge pages of 2 MiB, which the machine has for nobody else."""
    setting = Path("/proc/sys/vm/nr_hugepages")
    before = setting.read_text()
    setting.write_text("16")
    assert int(setting.read_text()) >= 8
    yield
    setting.write_text(before)


TAKE = """import mmap, sys
try:
    pages = mmap.mmap(-1, int(sys.argv[1]) << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)  # MAP_HUGETLB
except OSError as error:
    sys.exit(error.errno)
pages[::2 << 20] = b"x" * (len(pages) >> 21)
"""


@pytest.mark.only("cgroupfs")
@pytest.mark.alone
@pytest.mark.requires("cgroup2")
@pytest.mark.usefixtures("huge_pages")
def test_huge_pages_are_refused_when_they_are_asked_for(sandbox: Program) -> None:
    """Without a limit of reservations, the first touch of a page kills by SIGBUS."""
    enough, too_few = (sandbox("--hugetlb", "2M:4M", *python(TAKE), size) for size in ("4", "8"))
    assert (enough.code, enough.usage["hugetlb_failures"].get("2MB")) == (0, 0), enough.err
    assert too_few.code == errno.ENOMEM
    assert too_few.usage["hugetlb_failures"]["2MB"] > 0
    assert any("hugetlb.2MB.events" in row["file"] for row in too_few.report["evidence"])
