"""Whose limit it was that ended the command, and whether it was a limit at all."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator

import pytest

from support.sandbox_run import Program, Result, names, python

pytestmark = pytest.mark.matter("limits")

MANAGER = [] if os.geteuid() == 0 else ["--user"]
HOG = 'b = bytearray(b"x") * (96 << 20)'
HOLD = 'b = bytearray(b"x") * (56 << 20); print("up", flush=True); input()'


def tells_all() -> bool:
    """The kernel's log is ours to read, and has our pids."""
    first = os.readlink("/proc/self/ns/pid") == "pid:[4026531836]"
    return first and os.geteuid() == 0 and os.access("/dev/kmsg", os.R_OK)


def blamed(done: Result) -> str:
    """The limit, without the counter, whose path has the slice in it as well."""
    why: str = done.report["why"].partition(", and the kernel killed")[0]
    assert "its memory limit" not in why
    return why


@pytest.fixture
def limited_slice() -> Iterator[Callable[[str], str]]:
    """Gives a slice a memory limit, and no swap; returns its name."""
    name = f"{names('test').replace('-', '')}.slice"

    def limit(size: str) -> str:
        words = (f"MemoryMax={size}", "MemorySwapMax=0")
        for command in (["start", name], ["set-property", "--runtime", name, *words]):
            subprocess.run(["systemctl", *MANAGER, *command], check=True)
        return name

    yield limit
    for word in ("stop", "revert"):
        subprocess.run(["systemctl", *MANAGER, word, name], check=True, stderr=subprocess.DEVNULL)


@pytest.mark.only("systemd", "service", "delegated")
def test_the_limit_of_its_slice(sandbox: Program, limited_slice: Callable[[str], str]) -> None:
    above = limited_slice("40M")
    done = sandbox("-m", "80m", "--slice", above, *python(HOG))
    assert (done.code, done.report["outcome"]) == (137, "oom"), done.err
    assert f"/{above}" in blamed(done)


@pytest.mark.only("systemd", "service", "delegated")
@pytest.mark.requires("root")
def test_a_looser_limit_of_its_slice_that_others_have_used_up(sandbox: Program,
                                                              limited_slice: Callable[[str], str]) -> None:
    above = limited_slice("96M")
    with sandbox.start("--slice", above, "-m", "90m", *python(HOLD)) as other:
        other.read_line()
        done = sandbox("-m", "80m", "--slice", above, "--oom-score-adj", "1000", *python(HOG))
        assert other.finish(b"\n").code == 0
    assert (done.code, done.report["outcome"]) == (137, "oom"), done.err
    assert blamed(done).endswith(f"/{above} was hit") if tells_all() else f"/{above}/memory." in blamed(done)


@pytest.mark.requires("root")
def test_a_command_that_kills_itself_after_its_child_was_out_of_memory(sandbox: Program) -> None:
    done = sandbox("-m", "24m", "--", "sh", "-c", '"$@"; kill -9 $$', "sh", *python(HOG)[1:])
    assert done.code == 137
    assert done.usage["oom_kill"] == 1
    # Where the pids in the kernel's log are not ours, a SIGKILL after a kill for memory is taken for it.
    assert done.report["outcome"] == ("signaled" if tells_all() else "oom")
