"""The report names the cgroup whose limit ended or hindered the command, also when that is a parent cgroup."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.hogs import HOG
from support.sandbox_run import Program, Result, names, python
from support.systemctl import systemctl

pytestmark = pytest.mark.matter("limits")

FORKS = ("--", "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 60 & done; wait")
"""A shell with nine children; it exits with 2 when it cannot fork."""
SPIN = ("--timeout", "1", "--cpu-weight", "100", "--", "sh", "-c", "while :; do :; done")
"""A busy loop of one second. The weight gives the command a CPU cgroup of its own on cgroup v1."""
HOLD = 'b = bytearray(b"x") * (56 << 20); print("up", flush=True); input()'


def is_logged(done: Result) -> bool:
    """Whether the kernel's log is readable, has pids of this pid namespace, and has a line about this sandbox.

    The kernel logs at most ten such lines in five seconds, and other tests run out of memory at the same time.
    """
    first = os.readlink("/proc/self/ns/pid") == "pid:[4026531836]"
    if not first or os.geteuid() != 0 or not os.access("/dev/kmsg", os.R_OK):
        return False
    log = subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout
    return any("oom-kill:" in line and f"/sandbox-{done.name}" in line for line in log.splitlines())


def is_v2() -> bool:
    """Whether the kernel counts refused forks in the cgroup with the limit (Linux 6.12)."""
    return any(Path("/sys/fs/cgroup").glob("*.slice/pids.events.local"))


def blamed(done: Result) -> str:
    """The part of ``why`` that names the limit. The rest prints a counter's path, which has the slice's name in it."""
    why: str = done.report["why"].partition(", and the kernel killed")[0]
    assert "its memory limit" not in why
    return why


@pytest.mark.only("systemd", "service", "delegated")
def test_the_limit_of_its_slice(sandbox: Program, slice_with: Callable[..., str]) -> None:
    above = slice_with("MemoryMax=40M", "MemorySwapMax=0")
    done = sandbox("-m", "80m", "--slice", above, *python(HOG))
    assert (done.code, done.report["outcome"]) == (137, "oom"), done.err
    assert f"/{above}" in blamed(done)


@pytest.mark.only("systemd", "service", "delegated")
@pytest.mark.requires("root")
def test_a_looser_limit_of_its_slice_that_others_have_used_up(sandbox: Program,
                                                              slice_with: Callable[..., str]) -> None:
    above = slice_with("MemoryMax=96M", "MemorySwapMax=0")
    with sandbox.start("--slice", above, "-m", "90m", *python(HOLD)) as other:
        other.read_line()
        done = sandbox("-m", "80m", "--slice", above, "--oom-score-adj", "1000", *python(HOG))
        assert other.finish(b"\n").code == 0
    assert (done.code, done.report["outcome"]) == (137, "oom"), done.err
    assert blamed(done).endswith(f"/{above} was hit") if is_logged(done) else f"/{above}/memory." in blamed(done)


@pytest.mark.requires("root")
def test_a_command_that_kills_itself_after_its_child_was_out_of_memory(sandbox: Program) -> None:
    done = sandbox("-m", "24m", "--", "sh", "-c", '"$@"; kill -9 $$', "sh", *python(HOG)[1:])
    assert done.code == 137
    assert done.usage["oom_kill"] == 1
    # Without the kernel's log, the verdict cannot tell this SIGKILL from the OOM killer's.
    assert done.report["outcome"] in (("signaled",) if is_logged(done) else ("signaled", "oom"))


def test_its_own_task_limit(sandbox: Program) -> None:
    done = sandbox("--pids-limit", "5", *FORKS)
    assert done.code == 2
    assert "; its task limit of 5 refused 1 fork(s)" in done.report["why"]


@pytest.mark.only("systemd", "service", "delegated")
@pytest.mark.parametrize("flags", [(), pytest.param(("--pids-limit", "50"), marks=pytest.mark.long_in_vm)],
                         ids=["alone", "looser"])
def test_the_task_limit_of_its_slice(sandbox: Program, slice_with: Callable[..., str], flags: tuple[str, ...]) -> None:
    above = slice_with("TasksMax=8")
    done = sandbox("--slice", above, *flags, *FORKS)
    assert done.code == 2
    why = done.report["why"]
    if is_v2():
        assert re.search(rf"the task limit of \S+/{above} refused 1 fork\(s\) below it", why), why
    else:  # in a container, a cgroup above is not seen
        assert re.search(rf"with 2; the task limit in \S+/{above}/pids\.max( or the task limit in a cgroup above \S+)? "
                         r"refused 1 fork\(s\)", why), why


@pytest.mark.only("systemd", "service", "delegated")
def test_the_cpu_quota_of_its_slice(sandbox: Program, slice_with: Callable[..., str]) -> None:
    above = slice_with("CPUQuota=20%")
    done = sandbox("--slice", above, *SPIN)
    assert (done.code, done.report["outcome"]) == (124, "wall_time")
    assert f"/{above} ran out in " in done.report["why"]
    assert [row["value"] > 0 for row in done.report["evidence"] if row["file"].endswith(f"/{above}/cpu.stat")] == [True]


def test_its_own_cpu_quota(sandbox: Program) -> None:
    done = sandbox("--cpus", "0.2", *SPIN)
    assert done.report["outcome"] == "wall_time"
    assert "; its CPU quota ran out in " in done.report["why"]


@pytest.mark.only("systemd", "service")
def test_a_property_of_its_unit_that_no_option_asked_for(sandbox: Program) -> None:
    done = sandbox("--property", "TasksMax=6", "--property", "MemoryMax=64M", *FORKS)
    assert f"the task limit {'of' if is_v2() else 'in'} /" in done.report["why"]
    assert f"/sandbox-{done.name}." in done.report["why"]


@pytest.mark.only("systemd", "service")
def test_the_cpu_quota_of_its_unit_that_no_option_asked_for(sandbox: Program) -> None:
    done = sandbox("--property", "CPUQuota=20%", *SPIN)
    assert "CPU quota" in done.report["why"]


@pytest.fixture
def oomd() -> Iterator[None]:
    """systemd-oomd, which kills after one second of pressure."""
    settings = Path("/run/systemd/oomd.conf.d/test.conf")
    settings.parent.mkdir(exist_ok=True)
    settings.write_text("[OOM]\nDefaultMemoryPressureDurationSec=1s\n")
    assert systemctl("start", "systemd-oomd.service").returncode == 0
    yield
    assert systemctl("stop", "systemd-oomd.service", "systemd-oomd.socket").returncode == 0
    settings.unlink()


@pytest.mark.only("systemd", "service", "delegated")
@pytest.mark.requires("cgroup2", "root", "oomd")
@pytest.mark.usefixtures("oomd")
@pytest.mark.alone
@pytest.mark.long_in_vm
def test_what_systemd_oomd_kills(sandbox: Program, slice_with: Callable[..., str]) -> None:
    above = slice_with("ManagedOOMMemoryPressure=kill", "ManagedOOMMemoryPressureLimit=1%")
    done = sandbox("--slice", above, "--memory-high", "16m", "--swap-max", "0", *python(HOG))
    assert (done.code, done.report["outcome"]) == (137, "oom"), done.err
    assert done.report["why"].startswith("systemd-oomd killed it, for pressure on memory or swap (user.oomd_ooms of /")


@pytest.mark.only("cgroupfs")
@pytest.mark.requires("cgroup2", "root")
def test_the_limits_of_a_parent_cgroup(sandbox: Program) -> None:
    parent = Path("/sys/fs/cgroup", names("parent"))
    parent.mkdir()
    try:
        (parent / "memory.max").write_text("40M")
        (parent / "memory.swap.max").write_text("0")
        (parent / "pids.max").write_text("8")
        hog = sandbox("--cgroup-parent", f"/{parent.name}", "-m", "80m", *python(HOG))
        assert (hog.report["outcome"], blamed(hog)) == ("oom", f"the memory limit of {parent} was hit")
        forks = sandbox("--cgroup-parent", f"/{parent.name}", *FORKS)
        assert f"; the task limit of {parent} refused 1 fork(s) below it" in forks.report["why"]
    finally:
        parent.rmdir()
