"""The limit on tasks, and the rlimits."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.machine import SLOWER
from support.sandbox_run import Program, python
from support.warm_program import warm

pytestmark = pytest.mark.matter("limits")

sandbox = warm

BOMB = """
import os, signal
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True:
    try:
        os.fork()
    except OSError:
        pass
"""


@pytest.mark.matter("enforcement")
def test_fork_bomb_is_over_in_time(sandbox: Program) -> None:
    """It has grown to its limit by the time of the kill, or it gets more time. A kill that does not reach those that
    fork has no end."""
    limit = 200 if SLOWER == 1 else 50
    for seconds in (1, 3, 9, 27):
        done = sandbox("--pids-limit", str(limit), "--timeout", str(seconds), "--stop-timeout", "0.2", *python(BOMB))
        assert (done.code, done.report["outcome"]) == (124, "wall_time")
        if done.usage["pids_failures"]:
            break
    assert done.usage["pids_failures"] > 0
    assert done.usage["pids_peak"] == limit


@pytest.mark.matter("values")
def test_fork_fails_at_the_limit(sandbox: Program) -> None:
    count = "import os\nn = 1\ntry:\n  while os.fork(): n += 1\nexcept BlockingIOError: print(n, flush=True)\n" \
            "import signal; signal.pause()"
    with sandbox.start("--pids-limit", "10", "--stop-timeout", "0", *python(count)) as running:
        assert int(running.read_line()) == 10
        running.process.terminate()
        done = running.finish()
    assert done.usage["pids_peak"] == 10


@pytest.mark.requires("root")
def test_a_limit_of_one_is_for_the_command_alone(sandbox: Program, tmp_path: Path) -> None:
    """Whoever prepares the start is gone by then: here, a child of the init makes what the volume is mounted on."""
    volume = ("-v", f"{tmp_path}:/mnt", "-v", f"{tmp_path}:/mnt/below/directory")
    done = sandbox("--pids-limit", "1", *volume, *python("import os\ntry: os.fork()\nexcept BlockingIOError: print(1)"))
    assert done.out == b"1\n", done.err
    assert done.usage["pids_peak"] == 1


@pytest.mark.drivers("none")
def test_ulimits(sandbox: Program) -> None:
    done = sandbox("--ulimit", "nofile=64:128", "--ulimit", "core=0", "--ulimit", "stack=1m:2m",
                   *python("import resource as r; print(r.getrlimit(r.RLIMIT_NOFILE), r.getrlimit(r.RLIMIT_CORE),"
                           "r.getrlimit(r.RLIMIT_STACK))"))
    assert done.out == b"(64, 128) (0, 0) (1048576, 2097152)\n"
    assert done.limit("--ulimit")["enforced"]
