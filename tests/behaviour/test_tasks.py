"""The limit on tasks, and the rlimits."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from support.machine import SLOWER, cgroups
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


@pytest.mark.requires("root")
def test_a_limit_that_somebody_lifts_is_told(sandbox: Program) -> None:
    with sandbox.start("--pids-limit", "9", "--", "sh", "-c", "echo up; read line") as running:
        running.read_line()
        file = next(path for group in cgroups(running.name) if (path := Path(group, "pids.max")).exists()
                    and path.read_text() in ("9\n", "10\n", "11\n"))
        file.write_text("max")
        done = running.finish(b"\n")
    assert done.code == 0
    assert f"sandbox: warning: not enforced: --pids-limit 9: {file} is max" in done.err


@pytest.mark.drivers("none")
def test_a_signal_by_a_resource_limit_is_told(sandbox: Program) -> None:
    done = sandbox("--ulimit", "fsize=1000", "--tmpfs", "/mnt", "--", "dd", "if=/dev/zero", "of=/mnt/file", "count=9")
    assert done.code == 128 + signal.SIGXFSZ
    assert "dd was killed by SIGXFSZ; a file would have grown beyond --ulimit fsize=1000:1000" in done.err


@pytest.mark.drivers("none")
def test_ulimits(sandbox: Program) -> None:
    done = sandbox("--ulimit", "nofile=64:128", "--ulimit", "core=0", "--ulimit", "stack=1m:2m",
                   *python("import resource as r; print(r.getrlimit(r.RLIMIT_NOFILE), r.getrlimit(r.RLIMIT_CORE),"
                           "r.getrlimit(r.RLIMIT_STACK))"))
    assert done.out == b"(64, 128) (0, 0) (1048576, 2097152)\n"
    assert done.limit("--ulimit")["enforced"]


def test_a_limit_of_tasks_that_was_hit_is_told(sandbox: Program) -> None:
    """Also when the command goes on, and without --verbose."""
    fork = "import os\ntry:\n  while os.fork(): pass\nexcept BlockingIOError: print('full')\nelse: os._exit(0)"
    done = sandbox("--pids-limit", "1", *python(fork))
    assert (done.code, done.out) == (0, b"full\n")
    assert "exited with 0; its task limit of 1 refused 1 fork(s)" in done.err
    assert "task limit" not in sandbox("--pids-limit", "9", *python("print(1)")).err


@pytest.mark.requires("root")
@pytest.mark.once
def test_a_limit_of_processes_with_the_hosts_ids(sandbox: Program) -> None:
    flags = ("--userns", "host", "--ulimit", "nproc=100")
    shared = sandbox(*flags, "-u", "4321:4321", "--", "true")
    assert shared.code == 0
    assert "sandbox: warning: --ulimit nproc counts all processes of user 4321 on this machine" in shared.err
    assert any(note.startswith("--ulimit nproc") for note in shared.report["notes"])
    root = sandbox(*flags, "--", "true")
    assert root.code == 125
    assert "--ulimit cannot be enforced here: nproc: the kernel holds root of the host to no such limit" in root.err
    assert "warning" not in sandbox("--ulimit", "nproc=100", "--", "true").err
