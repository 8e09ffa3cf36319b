"""Many at once: nothing hangs, nothing is mixed up, nothing stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.machine import SLOWER, STATE, cgroups, eventually
from support.sandbox_run import Program, names

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


@pytest.mark.parametrize("turns", [50 // SLOWER])
def test_32_threads(sandbox: Program, turns: int) -> None:
    prefix = names("many")
    done = subprocess.run([sys.executable, "-c", THREADS, json.dumps(sandbox.wishes()), prefix, str(turns)],
                          capture_output=True, text=True, timeout=100, check=False)
    assert (done.stdout, done.stderr) == ("0 [] 0\n", "")
    assert not [path for path in cgroups() if prefix in path]


@pytest.mark.parametrize("number", [200 // SLOWER])
def test_concurrent_runs(sandbox: Program, tmp_path: Path, number: int) -> None:
    prefix = names("crowd")
    script = f"ulimit -n 256; i=0; while [ $i -lt {number} ]; do " \
             f'("$@" --name {prefix}-$i --pids-limit 20 -- sh -c "sleep 0.5; exit $i"; echo $i $? >>results) & ' \
             "i=$((i+1)); done; wait"
    command = sandbox.argv(name="unused")
    command = command[:command.index("--name")]
    done = subprocess.run(["sh", "-c", script, "sh", *command], cwd=tmp_path, capture_output=True, text=True,
                          timeout=110, check=False)
    assert done.stderr == ""
    results = sorted(tuple(map(int, line.split())) for line in (tmp_path / "results").read_text().splitlines())
    assert results == [(one, one) for one in range(number)]
    assert eventually(lambda: not [path for path in cgroups() if prefix in path])
    assert not [name for name in os.listdir(STATE) if name.startswith(prefix)]
