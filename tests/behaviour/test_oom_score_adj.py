"""oom_score_adj: the command does not inherit the caller's, and the OOM killer chooses the command before the init."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support import hogs
from support.hogs import HOG
from support.machine import charged
from support.sandbox_run import Program, python

pytestmark = pytest.mark.matter("limits")

SCORE = ("--", "cat", "/proc/self/oom_score_adj")
UNIT = ("systemd", "service")
"""Drivers whose init is in the cgroup with the limit."""


def scored(score: int) -> tuple[str, ...]:
    """Words that set the shell's own oom_score_adj and then exec the rest, which inherits it."""
    return ("sh", "-c", f'echo {score} >/proc/self/oom_score_adj && exec "$@"', "sh")


def may_lower() -> bool:
    """Whether these tests may lower an oom_score_adj: they run as root with CAP_SYS_RESOURCE."""
    with open("/proc/self/status") as file:
        status = dict(line.split(":\t", 1) for line in file)
    return os.geteuid() == 0 and bool(int(status["CapEff"], 16) & 1 << 24)


def usual(driver: str) -> int:
    return 300 if driver in UNIT and not may_lower() else 0


def test_the_callers_score_is_not_inherited(sandbox: Program) -> None:
    assert sandbox(*SCORE, wrap=scored(500)).out == b"%d\n" % usual(sandbox.driver)


@pytest.mark.long_in_vm
@pytest.mark.parametrize("score", [0, 7, 1000])
def test_a_score_that_is_asked_for(sandbox: Program, score: int) -> None:
    assert sandbox("--oom-score-adj", str(score), *SCORE, wrap=scored(5)).out == b"%d\n" % score


@pytest.mark.matter("isolation")
@pytest.mark.once
def test_only_who_may_lower_it_can_ask_for_less(sandbox: Program) -> None:
    done = sandbox("--oom-score-adj", "-500", *SCORE)
    if may_lower():
        assert done.out == b"-500\n"
        assert sandbox(*SCORE, wrap=scored(-1000)).out == b"%d\n" % usual(sandbox.driver)
    else:
        assert done.code == 125
        assert done.err.startswith("sandbox: --oom-score-adj: cannot set oom_score_adj to -500: ")
        assert "hint: " in done.err


@pytest.mark.matter("isolation")
@pytest.mark.once
def test_the_score_where_proc_is_read_only(sandbox: Program) -> None:
    assert sandbox("--pid", "host", *SCORE, wrap=scored(500)).out == b"%d\n" % usual(sandbox.driver)


@pytest.mark.matter("values")
def test_a_tiny_limit_ends(sandbox: Program) -> None:
    """If every process in the cgroup were exempt from the OOM killer, the kernel would retry a page fault for ever."""
    done = sandbox("-m", "2m", "--timeout", "60", "--", "true")
    assert done.report["outcome"] in ("exited", "oom"), done.err


@pytest.mark.once
def test_a_limit_under_which_nothing_starts_is_refused(sandbox: Program) -> None:
    done = sandbox("-m", "64k", "--", "true")
    assert done.code == 2
    assert done.err == "sandbox: --memory 64K is too little to start any command (hint: give 2M or more)\n"


@pytest.mark.only("systemd", "service")
def test_a_service_makes_up_for_what_is_ours(sandbox: Program) -> None:
    """A service is charged for its guard and for the namespaces, 360 KiB more than a scope (Linux 6.18)."""
    done = sandbox("-m", "64m", "--", "true")
    more = charged(sandbox.driver)
    assert int(done.limit("--memory")["read_back"].split()[0]) == (64 << 20) + more
    assert ("more than asked: the guard and the init" in done.limit("--memory")["note"]) == bool(more)


@pytest.mark.long_in_vm
@pytest.mark.once
def test_what_the_kernel_may_not_kill_has_no_memory_limit(sandbox: Program) -> None:
    done = sandbox("-m", "64m", "--oom-score-adj", "-1000", "--", "true")
    assert done.code == 2
    assert "--oom-score-adj -1000" in done.err


def test_a_limit_ends_what_inherits_that_it_is_never_killed(sandbox: Program) -> None:
    wrap = scored(-1000) if may_lower() else ()
    done = sandbox("-m", "24m", "--timeout", "60", *python(HOG), wrap=wrap)
    assert (done.code, done.report["outcome"]) == (137, "oom"), done.err


@pytest.mark.matter("values")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the program is written for x86-64")
@pytest.mark.parametrize("flags", [(), pytest.param(("--oom-group",), marks=[pytest.mark.requires("cgroup2"),
                                                                            pytest.mark.long_in_vm])],
                         ids=["one", "group"])
def test_memory_that_belongs_to_no_process(sandbox: Program, tmp_path: Path, flags: tuple[str, ...]) -> None:
    """The OOM killer compares resident memory. A memfd is in none, so the init looks as large as the command."""
    program = tmp_path / "fill"
    hogs.write(program, hogs.FILL_A_FILE)
    done = sandbox("-m", "20m", *flags, "-v", f"{program}:/tmp/fill:ro", "--", "/tmp/fill")
    assert (done.code, done.report["outcome"]) == (137, "oom"), done.err
    assert "memory limit" in done.report["why"]


@pytest.mark.long_in_vm
def test_who_passes_137_on_was_not_killed(sandbox: Program) -> None:
    done = sandbox("-m", "24m", "--", "sh", "-c", '"$@"; exit $?', "sh", *python(HOG)[1:])
    assert (done.code, done.report["outcome"]) == (137, "exited"), done.err
    assert done.usage["oom_kill"] == 1
    assert "exited with 137; the kernel killed 1 process" in done.report["why"]


@pytest.mark.requires("cgroup1")
def test_a_limit_that_is_both_of_memory_and_of_memory_plus_swap(sandbox: Program) -> None:
    done = sandbox("-m", "24m", "--swap-max", "0", *python(HOG))
    assert done.report["outcome"] == "oom"
    assert "its memory limit of 25165824 bytes was hit" in done.report["why"]
