"""``--seccomp-log``: the report lists what the filter refused, and refused it is all the same."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from support.machine import alive, eventually
from support.probes import probe, python
from support.sandbox_run import Program
from support.warm_program import warm_bare

sandbox = warm_bare
pytestmark = [pytest.mark.matter("isolation"), pytest.mark.drivers("none")]
LOG = "--seccomp-log"
AS_OTHERS = [(), *([("-u", "nobody")] if os.geteuid() == 0 else [])]
CALLS = """
import ctypes, os, threading
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    ctypes.set_errno(0)
    result = libc.syscall(*map(ctypes.c_long, (number, *args)))
    return result, ctypes.get_errno()
"""
MOUNT, CLONE3, NEVER = ("165", "435", "9999") if os.uname().machine == "x86_64" else ("40", "435", "9999")


def refused(report: dict[str, object]) -> dict[tuple[str, str], int]:
    rows = report["refused_calls"]
    assert isinstance(rows, list)
    return {(row["call"], row["errno"]): row["count"] for row in rows}


@pytest.mark.parametrize("user", AS_OTHERS, ids=" ".join)
def test_refused_calls_are_listed(sandbox: Program, user: tuple[str, ...]) -> None:
    """By name or number, with the error of the filter's own: ENOSYS where that is what it says."""
    code = f"{CALLS}for _ in range(3): print(call({MOUNT}, 0, 0, 0, 0, 0))\nprint(call({CLONE3}, 0, 0), call({NEVER}))"
    done = sandbox(LOG, *user, *python(code))
    assert done.out.decode().split("\n")[:4] == [*3 * ["(-1, 1)"], "(-1, 38) (-1, 38)"]
    assert refused(done.report) == {("mount", "EPERM"): 3, ("clone3", "ENOSYS"): 1, (NEVER, "ENOSYS"): 1}
    assert done.report["refused_calls"][0]["call"] == "mount", "the most frequent first"
    assert "refused by the filter: mount EPERM x3, " in done.err


def test_nothing_else_changes(sandbox: Program) -> None:
    """Every call of the table gets the answer that it gets without the flag. Fails if one is let through."""
    assert probe(sandbox, "denied", flags=(LOG,)) == probe(sandbox, "denied")


def test_without_the_flag_nobody_counts(sandbox: Program) -> None:
    assert sandbox("--", "true").report["refused_calls"] is None
    done = sandbox(LOG, "--", "true")
    assert done.report["refused_calls"] == []
    assert "refused by the filter: nothing" in done.err


def test_many_threads(sandbox: Program) -> None:
    code = f"""{CALLS}
def work():
    for _ in range(50):
        assert call({MOUNT}, 0, 0, 0, 0, 0) == (-1, 1)
threads = [threading.Thread(target=work) for _ in range(16)]
[one.start() for one in threads]
[one.join() for one in threads]"""
    done = sandbox(LOG, *python(code))
    assert (done.code, refused(done.report)[("mount", "EPERM")]) == (0, 800), done.err


def test_children_count_too(sandbox: Program) -> None:
    done = sandbox(LOG, *python(f"{CALLS}\nif os.fork(): os.wait()\nprint(call({MOUNT}, 0, 0, 0, 0, 0)[1])"))
    assert (done.out, refused(done.report)) == (b"1\n1\n", {("mount", "EPERM"): 2})


def test_signals_do_not_disturb(sandbox: Program) -> None:
    """Handlers run while calls wait for their answer; each call is refused in the end, never let through."""
    code = f"""{CALLS}
import signal
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, False)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
print({{call({MOUNT}, 0, 0, 0, 0, 0) for _ in range(300)}} - {{(-1, 4)}})"""
    assert sandbox(LOG, *python(code)).out == b"{(-1, 1)}\n"


def test_a_filter_of_its_own_lets_nothing_through(sandbox: Program) -> None:
    """It may not have a listener as well, which could say that the call is to go on; without one it is ENOSYS."""
    code = f"""{CALLS}
import struct
lines = [(0x20, 0, 0, 0), (0x15, 0, 1, {MOUNT}), (6, 0, 0, 0x7fc00000), (6, 0, 0, 0x7fff0000)]
program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in lines))
head = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", 4, ctypes.addressof(program)))
libc.prctl(38, 1, 0, 0, 0)
number = {317 if MOUNT == "165" else 277}
for flags in (8, 0):
    print(call(number, 1, flags, ctypes.addressof(head)))
print(call({MOUNT}, 0, 0, 0, 0, 0))"""
    assert sandbox(LOG, *python(code)).out == b"(-1, 16)\n(0, 0)\n(-1, 38)\n"


def profile(path: Path, *rules: dict[str, object]) -> str:
    path.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": list(rules)}))
    return f"seccomp={path}"


def rule(name: str, action: str, **more: object) -> dict[str, object]:
    return {"names": [name], "action": f"SCMP_ACT_{action}", **more}


def test_a_profile_of_ones_own(sandbox: Program, tmp_path: Path) -> None:
    """The errno of each rule, also where it depends on an argument; an errno of 0 is success that does nothing."""
    path = profile(tmp_path / "p.json", rule("mount", "ERRNO", errnoRet=16), rule("getpriority", "ERRNO", errnoRet=0),
                   rule("setpriority", "ERRNO", errnoRet=7, args=[{"index": 0, "value": 2, "op": "SCMP_CMP_EQ"}]))
    code = f"{CALLS}print(call({MOUNT}, 0, 0, 0, 0, 0)[1], call({{0}}, 0, 0)[0])\n" \
           "try: os.setpriority(2, 0, 5)\nexcept OSError as e: print(e.errno)\nos.setpriority(0, 0, 5)"
    done = sandbox(LOG, "--security-opt", path, *python(code.format(140 if MOUNT == "165" else 141)))
    assert done.out == b"16 0\n7\n", done.err
    assert refused(done.report) == {("mount", "EBUSY"): 1, ("getpriority", "0"): 1, ("setpriority", "E2BIG"): 1}


def test_other_actions_stay(sandbox: Program, tmp_path: Path) -> None:
    for action, number in (("KILL_PROCESS", signal.SIGSYS), ("TRAP", signal.SIGSYS)):
        path = profile(tmp_path / "p.json", rule("mount", action))
        done = sandbox(LOG, "--security-opt", path, *python(f"{CALLS}call({MOUNT}, 0, 0, 0, 0, 0)"))
        assert (done.code, done.report["refused_calls"]) == (128 + number, [])


def test_the_execve_itself_may_be_refused(sandbox: Program, tmp_path: Path) -> None:
    """The workload's own calls are answered too: it waits for nobody."""
    path = profile(tmp_path / "p.json", rule("execve", "ERRNO", errnoRet=1))
    done = sandbox(LOG, "--security-opt", path, "--", "true")
    assert done.code == 126 and refused(done.report).keys() == {("execve", "EPERM")}


@pytest.mark.parametrize("action", ["ERRNO", "KILL"])
def test_a_profile_that_keeps_the_listener_back(sandbox: Program, tmp_path: Path, action: str) -> None:
    path = profile(tmp_path / "p.json", rule("sendmsg", action))
    done = sandbox(LOG, "--security-opt", path, "--", "true")
    assert (done.code, len(done.err.strip().splitlines())) == (2, 2)
    assert "does not allow sendmsg" in done.err


def test_unconfined_has_nothing_to_log(sandbox: Program) -> None:
    done = sandbox(LOG, "--security-opt", "seccomp=unconfined", "--", "true")
    assert (done.code, len(done.err.splitlines())) == (2, 1) and "--seccomp-log" in done.err


def test_the_end_does_not_wait(sandbox: Program) -> None:
    """Whoever is refused without end is killed at the deadline like anybody else; a slow machine needs a later one."""
    for seconds in ("0.5", "3", "20"):
        done = sandbox(LOG, "--timeout", seconds, *python(f"{CALLS}\nwhile True: call({MOUNT}, 0, 0, 0, 0, 0)"))
        assert done.code == 124
        if (count := refused(done.report).get(("mount", "EPERM"), 0)) > 10:
            break
    assert count > 10


def test_the_runner_is_killed(sandbox: Program) -> None:
    """Nobody answers any more: the command does not hang, it is gone."""
    code = f"{CALLS}\nprint(1, flush=True)\nwhile True: call({MOUNT}, 0, 0, 0, 0, 0)"
    with sandbox.start(LOG, *python(code)) as running:
        assert running.read_line() == b"1\n"
        tree = running.tree()
        os.kill(running.pid, signal.SIGKILL)
        assert eventually(lambda: not any(map(alive, tree)))
        assert eventually(running.gone)


def test_too_many_to_tell_apart(sandbox: Program) -> None:
    """Any number can be called: they must not fill the launcher's memory."""
    done = sandbox(LOG, *python(f"{CALLS}\nfor number in range(100000, 101500): call(number)"))
    found = refused(done.report)
    assert len(found) <= 1001 and found["others", "ENOSYS"] == 500 and sum(found.values()) == 1500


def test_the_library_answers_while_its_caller_is_busy(sandbox: Program, tmp_path: Path) -> None:
    """The command needs nobody to call ``poll`` or ``wait``."""
    from sandbox.box import Sandbox
    from sandbox.options import make_spec

    words = python(f"{CALLS}\ncall({MOUNT}, 0, 0, 0, 0, 0)\nprint('done', flush=True)")[1:]
    threads = len(os.listdir("/proc/self/task"))
    reader, writer = os.pipe()
    with Sandbox(make_spec(words, seccomp_log=True, **sandbox.wishes())) as box:
        process = box.start(stdout=writer)
        os.close(writer)
        assert os.read(reader, 5) == b"done\n"
        os.close(reader)
        process.wait()
    assert box.report.refused_calls is not None
    assert [tuple(one) for one in box.report.refused_calls] == [("mount", "EPERM", 1)]
    assert len(os.listdir("/proc/self/task")) == threads
