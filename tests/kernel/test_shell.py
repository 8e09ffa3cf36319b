"""What ``explain --format sh`` prints is typed by learners: it has to work."""

from __future__ import annotations

import os
import subprocess

import pytest

import sandbox
from sandbox.teach import shell

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes cgroups: needs root")


def test_the_script_does_what_run_does() -> None:
    name = f"test-{os.urandom(4).hex()}"
    spec = sandbox.make_spec(["sh", "-c", "echo pid $$; ulimit -n; exit 3"], name=name, pids_limit=20, memory="64m",
                             driver="cgroupfs", timeout=31.25, cpu_time=30, ulimit=["nofile=64"], cwd="/tmp")
    plan = sandbox.plan(spec)
    done = subprocess.run(["sh"], input=shell.script(plan), capture_output=True, text=True, timeout=60, check=False)
    lines = done.stdout.splitlines()
    assert done.returncode == 3, done.stderr
    assert str(64 << 20) in lines  # read back
    assert lines[lines.index("64") - 1] == "pid 1"
    assert "31.25" not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    made = [str(step.args[0]) for step in plan.steps if step.op == "mkdir"]
    assert made
    assert not any(map(os.path.exists, made))
