"""The report names the cgroup whose memory limit was hit, also when that is a parent cgroup."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest

from support.hogs import HOG
from support.sandbox_run import Program, Result, python

pytestmark = pytest.mark.matter("limits")

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
    assert done.report["outcome"] == ("signaled" if is_logged(done) else "oom")
