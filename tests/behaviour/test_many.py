"""Many at once: nothing hangs, nothing is mixed up, nothing stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.machine import SLOWER, STATE, cgroups, eventually
from support.sandbox_run import BESIDE_SYSTEMD, Program, names
from support.warm_program import warm

pytestmark = pytest.mark.matter("process")

__all__ = ["warm"]

THREADS = """
import json, os, sandbox, sys, threading
wishes, prefix, turns = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3])
wrong = []
fds = []
def work(number):
    for turn in range(turns):
        code = (number * turns + turn) % 120
        report = launcher.run(["sh", "-c", f"exit {code}"], **wishes, name=f"{prefix}-{number}-{turn}",
                              memory="64M", pids_limit=20)
        if report.exit_code != code or report.outcome != "exited" or not all(row.enforced for row in report.limits):
            wrong.append((number, turn, report.exit_code, report.why))
with sandbox.Launcher() as launcher:
    launcher.run(["true"], **wishes)
    before = len(os.listdir("/proc/self/fd"))
    threads = [threading.Thread(target=work, args=(number,)) for number in range(32)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    after = len(os.listdir("/proc/self/fd"))
print(len(wrong), wrong[:3], after - before)
"""


@pytest.mark.alone
@pytest.mark.timeout(400)
@pytest.mark.parametrize("turns", [20 // SLOWER])
def test_32_threads(sandbox: Program, turns: int) -> None:
    """A service takes several times as long as a scope, and goes over the same connection: fewer will do."""
    prefix = names("many")
    turns = max(1, turns // 5) if sandbox.driver == "service" else turns
    done = subprocess.run([sys.executable, "-c", THREADS, json.dumps(sandbox.wishes()), prefix, str(turns)],
                          capture_output=True, text=True, timeout=300, check=False)
    assert (done.stdout, done.stderr) == ("0 [] 0\n", "")
    assert not [path for path in cgroups() if prefix in path]


@pytest.mark.parametrize("number", [100 // SLOWER])
def test_concurrent_runs(warm: Program, tmp_path: Path, number: int) -> None:
    """All of them are up before the first may end."""
    prefix = names("crowd")
    with ExitStack() as stack, open(tmp_path / "err", "w+b") as err:
        (wait, go), (read, write) = (map(stack.enter_context, map(os.fdopen, os.pipe(), ("rb", "wb"))) for _ in "io")
        runs = [stack.enter_context(warm.start(
            "--pids-limit", "20", "--", "sh", "-c", f"echo up; read line; exit {one}", name=f"{prefix}-{one}",
            report=False, stdin=wait, stdout=write, stderr=err)) for one in range(number)]
        assert [read.readline() for _ in runs] == [b"up\n"] * number
        go.close()
        assert [one.process.wait(60) for one in runs] == [*range(number)]
        err.seek(0)
        assert err.read().replace(BESIDE_SYSTEMD.encode(), b"") == b""
    assert eventually(lambda: not [path for path in cgroups() if prefix in path])
    assert not [name for name in os.listdir(STATE) if name.startswith(prefix)]


def test_a_runner_opens_few_files(sandbox: Program) -> None:
    done = sandbox("--pids-limit", "20", "--", "true", wrap=("sh", "-c", 'ulimit -n 64; exec "$@"', "sh"))
    assert (done.code, done.err) == (0, "")
