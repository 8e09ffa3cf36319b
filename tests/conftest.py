"""What all tests share: what a test needs of the machine, and what happens when the machine has it not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

MUST_WORK = os.environ.get("SANDBOX_MUST_WORK") == "1"
"""In the lab, and wherever the machine is known to have everything, a skip is a failure."""


def _mounted(kind: str) -> bool:
    return any(f" - {kind} " in line for line in Path("/proc/self/mountinfo").read_text().splitlines())


def _controllers_of_version_1() -> bool:
    return any(" - cgroup " in line and "memory" in line.rpartition(" - ")[2]
               for line in Path("/proc/self/mountinfo").read_text().splitlines())


def _disk() -> bool:
    device = os.stat("/").st_dev
    return os.path.exists(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")


def _command(name: str) -> Callable[[], bool]:
    import shutil

    return lambda: shutil.which(name) is not None


REQUIREMENTS: dict[str, tuple[str, Callable[[], bool]]] = {
    "root": ("not root", lambda: os.geteuid() == 0),
    "cgroup1": ("no cgroup v1 tree has the memory controller", _controllers_of_version_1),
    "cgroup2": ("the memory controller is not on cgroup v2",
                lambda: _mounted("cgroup2") and not _controllers_of_version_1()),
    "swap": ("no swap", lambda: len(Path("/proc/swaps").read_text().splitlines()) > 1),
    "disk": ("the root file system is not on a disk", _disk),
    "cpus2": ("fewer than two CPUs", lambda: len(os.sched_getaffinity(0)) >= 2),
    "strace": ("no strace", _command("strace")),
    "bash": ("no bash", _command("bash")),
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("requires"):
        for name in marker.args:
            reason, there = REQUIREMENTS[name]
            if there():
                continue
            if MUST_WORK:
                pytest.fail(f"{reason}, and SANDBOX_MUST_WORK=1", pytrace=False)
            pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = len(terminalreporter.stats.get("skipped", []))
    if skipped and os.geteuid() != 0:
        terminalreporter.write_sep("!", f"NOT ROOT: {skipped} tests were skipped, most of them for that", red=True)
