"""Process attributes that the command inherits from the caller, and those that it does not: the table in the README."""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import pytest

from support.sandbox_run import Program, python

pytestmark = pytest.mark.matter("process")

CALLER = """
import ctypes, os, resource, signal, sys
prctl = ctypes.CDLL(None).prctl
os.nice(3)
os.umask(0o027)
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
resource.setrlimit(resource.RLIMIT_NOFILE, (500, 600))
ctypes.CDLL(None).personality(0x0040000)  # ADDR_NO_RANDOMIZE
prctl(29, 70_000, 0, 0, 0)  # PR_SET_TIMERSLACK
prctl(1, signal.SIGTERM, 0, 0, 0)  # PR_SET_PDEATHSIG
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
os.environ["SECRET"] = "x"
os.chdir("/usr")
os.execvp(sys.argv[1], sys.argv[1:])
"""
COMMAND = """
import ctypes, json, os, resource, signal
KEYCTL = {"x86_64": 250}.get(os.uname().machine, 219)
death = ctypes.c_int()
prctl = ctypes.CDLL(None).prctl
prctl(2, ctypes.byref(death), 0, 0, 0)
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status"))
umask = os.umask(0)
print(json.dumps({
    "nice": os.nice(0), "umask": umask, "affinity": sorted(os.sched_getaffinity(0)),
    "nofile": resource.getrlimit(resource.RLIMIT_NOFILE), "core": resource.getrlimit(resource.RLIMIT_CORE),
    "personality": ctypes.CDLL(None).personality(0xffffffff) & 0x0040000, "slack": prctl(30, 0, 0, 0, 0),
    "death": death.value, "ignored": int(status["SigIgn"], 16) & 1, "blocked": int(status["SigBlk"], 16),
    "secret": "SECRET" in os.environ, "cwd": os.getcwd(), "session": os.getsid(0) == os.getppid(),
    "securebits": prctl(27, 0, 0, 0, 0) & 3, "keyring": ctypes.CDLL(None).syscall(KEYCTL, 0, -3, 0),
    "policy": os.sched_getscheduler(0)}))
"""
MANAGER = ("nice", "umask", "affinity", "nofile", "personality", "slack")
"""Attributes that a service inherits from systemd, not from the caller."""


def of(sandbox: Program, *flags: str, wrap: tuple[str, ...] = (sys.executable, "-c", CALLER)) -> dict[str, Any]:
    done = sandbox(*flags, *python(COMMAND), wrap=wrap)
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_the_table(sandbox: Program) -> None:
    found = of(sandbox)
    inherited = {"nice": 3, "umask": 0o027, "affinity": [max(os.sched_getaffinity(0))], "nofile": [500, 600],
                 "personality": 0x40000, "slack": 70_000, "cwd": "/usr"}
    never = {"core": [1, 1], "death": 0, "ignored": 0, "blocked": 0, "secret": False, "session": True, "securebits": 3,
             "keyring": -1, "policy": os.SCHED_OTHER}
    if sandbox.driver == "service":
        for name in MANAGER:
            del inherited[name], found[name]
    assert found == inherited | never


@pytest.mark.only("cgroupfs")  # in the container lab's unit, v1 of the CPU controller takes no such process
@pytest.mark.requires("root")
@pytest.mark.parametrize("policy", ["f", "r"])
def test_a_real_time_policy_is_none_of_the_commands(sandbox: Program, policy: str) -> None:
    assert of(sandbox, "--cpus", "0.5", wrap=("chrt", f"-{policy}", "1"))["policy"] == os.SCHED_OTHER


@pytest.mark.only("none", "cgroupfs", "systemd", "delegated")
@pytest.mark.parametrize(("flag", "policy"), [("-b", os.SCHED_BATCH), ("-i", os.SCHED_IDLE)])
def test_a_policy_that_takes_less_is_left(sandbox: Program, flag: str, policy: int) -> None:
    assert of(sandbox, wrap=("chrt", flag, "0"))["policy"] == policy


def test_nice_and_ionice(sandbox: Program) -> None:
    done = sandbox("--nice", "7", "--ionice", "best-effort:6", "--", "sh", "-c", "nice; ionice")
    assert done.out == b"7\nbest-effort: prio 6\n", done.err
    assert sandbox("--ionice", "idle", "--", "ionice").out == b"idle\n"


@pytest.mark.matter("isolation")
@pytest.mark.once
@pytest.mark.parametrize(("flags", "shown", "needed"), [
    (("--nice", "-5"), ("nice", b"-5\n"), "RLIMIT_NICE"),
    (("--ionice", "realtime:0"), ("ionice", b"realtime: prio 0\n"), "CAP_SYS_NICE"),
], ids=["nice", "ionice"])
def test_what_only_few_may_ask_for(sandbox: Program, flags: tuple[str, str], shown: tuple[str, bytes],
                                   needed: str) -> None:
    done = sandbox(*flags, "--", shown[0])
    if os.geteuid() == 0:
        assert done.out == shown[1], done.err
    else:
        assert done.code == 125
        assert done.err.startswith(f"sandbox: {flags[0]}: cannot set the ")
        assert needed in done.err


@pytest.mark.drivers("none")
def test_a_caller_that_allows_no_core(sandbox: Program) -> None:
    """Many shell profiles have `ulimit -c 0`. Fails where the command itself raises its hard limit to 1: EPERM."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    if pattern.startswith("|") and os.geteuid() != 0:
        pytest.skip("nobody but root keeps the kernel from starting the program of core_pattern")
    done = sandbox("--", "sh", "-c", "ulimit -c", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)))
    assert (done.out, done.code) == (b"0\n", 0)
