"""However the runner ends, nothing stays: no process, cgroup, mount or state file."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from sandbox.box import Sandbox
from sandbox.options import make_spec
from support.machine import SLOWER, STATE, alive, cgroups, children, descendants, eventually, status
from support.sandbox_run import Program, Running, names
from support.warm_program import warm

pytestmark = pytest.mark.matter("remains")

sandbox = warm

TREE = ("--", "sh", "-c", "trap '' TERM INT HUP; sleep 1000 & setsid sleep 1000 & echo up; wait")


@pytest.mark.drivers("none")
def test_runner_is_killed_at_any_moment(sandbox: Program) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    moments = random.Random(seed)
    for _ in range(max(5, 20 // SLOWER)):
        with sandbox.start("--pids-limit", "50", "--best-effort", *TREE) as running:
            time.sleep(moments.uniform(0, 0.1 * SLOWER))  # a run is up by then, on an idle machine
            below = descendants(running.pid)
            running.process.kill()
        assert eventually(running.gone), (cgroups(running.name), seed)
        assert eventually(lambda pids=below: not any(map(alive, pids))), seed


@pytest.mark.alone
@pytest.mark.only("systemd", "delegated")
@pytest.mark.requires("strace", "root")
@pytest.mark.parametrize("call", [6, 7, 8, 9])
def test_runner_is_killed_while_systemd_starts_the_unit(sandbox: Program, call: int) -> None:
    """systemd gets the request when the processes for the unit are dead. It must not keep an empty unit."""
    with sandbox.start(*TREE, wrap=("strace", "-o", os.devnull, "-e", "trace=recvfrom", "-e",
                                    f"inject=recvfrom:signal=KILL:when={call}"), report=False) as running:
        running.process.wait()
    assert eventually(running.gone), cgroups(running.name)


@pytest.mark.drivers("none")
def test_runner_is_killed_while_the_tree_runs(sandbox: Program) -> None:
    with sandbox.start(*TREE) as running:
        running.read_line()
        below = running.tree()
        assert len(below) >= 4
        running.process.kill()
    assert eventually(lambda: running.gone() and not any(map(alive, below)))


@pytest.mark.drivers("none")
def test_guard_is_killed(sandbox: Program) -> None:
    with sandbox.start(*TREE) as running:
        running.read_line()
        below = running.tree()
        os.kill(running.guard(), signal.SIGKILL)
        done = running.finish()
    assert done.code == 125
    assert done.report["outcome"] == "failed"
    assert eventually(lambda: running.gone() and not any(map(alive, below)))


@pytest.mark.once
def test_guard_is_killed_and_the_launcher_looks_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher reads the guard's death after the time limit. The time limit did not end the command."""
    monkeypatch.setattr("sandbox.process.GUARD_MAY_TAKE", -60.0)
    before = children(os.getpid())
    with Sandbox(make_spec(["sleep", "1000"], timeout=50)) as box:
        process = box.start()
        guard, = set(children(os.getpid())) - set(before)
        os.kill(guard, signal.SIGKILL)
        process.wait()
    assert (box.report.outcome, box.report.lost) == ("failed", True)


def kill_runner_and_guard(running: Running) -> set[int]:
    """Both at once: neither has the time to clean up after the other."""
    below = running.tree()
    guard = running.guard()
    os.kill(running.pid, signal.SIGSTOP)
    os.kill(guard, signal.SIGSTOP)
    os.kill(running.pid, signal.SIGKILL)
    os.kill(guard, signal.SIGKILL)
    return below


@pytest.mark.alone
def test_gc_cleans_what_nobody_else_could(sandbox: Program) -> None:
    with sandbox.start("--pids-limit", "50", *TREE) as live, sandbox.start("--pids-limit", "50", *TREE) as running:
        live.read_line()
        running.read_line()
        below = kill_runner_and_guard(running)
        running.process.wait()
        assert eventually(lambda: not any(map(alive, below))), "the tree outlives its guard"
        groups = cgroups(running.name)
        assert groups or sandbox.driver != "cgroupfs", "this test is about what stays; systemd may have removed it"
        done = sandbox.other("gc")
        assert done.code == 0, done.err
        assert running.gone()
        assert all(group in done.out.decode() for group in groups) or sandbox.driver != "cgroupfs"
        assert running.name in done.out.decode()
        assert cgroups(live.name), "gc took what is alive"
        assert alive(live.guard())
        assert live.process.poll() is None
        live.process.kill()
    assert eventually(live.gone)


@pytest.mark.alone
def test_gc_is_part_of_the_next_run(sandbox: Program) -> None:
    with sandbox.start("--pids-limit", "50", *TREE) as running:
        running.read_line()
        kill_runner_and_guard(running)
        running.process.wait()
    assert cgroups(running.name) or sandbox.driver != "cgroupfs"
    try:
        assert sandbox("--pids-limit", "50", "--", "true").code == 0
        assert eventually(running.gone)
    finally:
        sandbox.other("gc")


@pytest.mark.requires("root")
def test_gc_leaves_foreign_groups_alone(sandbox: Program) -> None:
    from support.machine import new_cgroups

    foreign = new_cgroups("pids") / f"sandbox-{names('foreign')}"
    foreign.mkdir()
    try:
        process = os.posix_spawn("/bin/sleep", ["sleep", "1000"], {})
        (foreign / "cgroup.procs").write_text(str(process))
        assert sandbox.other("gc").code == 0
        assert foreign.exists()
        assert alive(process)
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        eventually(lambda: not (foreign / "cgroup.procs").exists() or not (foreign / "cgroup.procs").read_text())
        if foreign.exists():
            foreign.rmdir()


@pytest.mark.drivers("none")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=["TERM", "INT", "HUP"])
def test_signal_ends_the_tree(sandbox: Program, number: signal.Signals) -> None:
    with sandbox.start("--", "sh", "-c", "sleep 1000 & echo up; exec sleep 1000") as running:
        running.read_line()
        below = running.tree()
        running.process.send_signal(number)
        done = running.finish()
    assert done.code == 128 + number
    assert running.gone()
    assert not any(map(alive, below))


@pytest.mark.drivers("none")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=["TERM", "INT", "HUP"])
def test_tree_that_ignores_the_signal_is_killed(sandbox: Program, number: signal.Signals) -> None:
    with sandbox.start("--stop-timeout", "0.3", *TREE) as running:
        running.read_line()
        begin = time.monotonic()
        running.process.send_signal(number)
        done = running.finish()
    assert done.code == 137
    assert time.monotonic() - begin >= 0.3
    assert done.report["outcome"] in ("killed", "signaled")


@pytest.mark.drivers("none")
def test_second_signal_does_not_wait(sandbox: Program) -> None:
    with sandbox.start("--stop-timeout", "60", *TREE) as running:
        running.read_line()
        running.process.terminate()
        # Two that wait to be read would be one.
        assert eventually(lambda: not int(status(running.pid)["ShdPnd"], 16) >> signal.SIGTERM - 1 & 1)
        running.process.terminate()
        assert running.finish().code == 137


@pytest.mark.drivers("none")
def test_user_signals_are_passed_on(sandbox: Program) -> None:
    with sandbox.start("--", "sh", "-c", "trap 'echo one' USR1; trap 'echo two; exit 4' USR2; echo up;"
                       " while :; do sleep 0.05; done") as running:
        running.read_line()
        running.process.send_signal(signal.SIGUSR1)
        assert running.read_line() == b"one\n"
        running.process.send_signal(signal.SIGUSR2)
        assert running.read_line() == b"two\n"
        assert running.finish().code == 4


def _child_of_a_shell(sandbox: Program, *flags: str) -> tuple[Running, int]:
    """A runner that is a shell's child, not ours; the shell stays until it is killed."""
    running = sandbox.start(*flags, *TREE, wrap=("sh", "-c", '"$@" & wait', "sh"))
    running.read_line()
    [runner] = children(running.pid)
    return running, runner


@pytest.mark.drivers("none")
def test_runner_dies_with_its_parent(sandbox: Program) -> None:
    running, _ = _child_of_a_shell(sandbox, "--stop-timeout", "0.2")
    with running:
        below = descendants(running.pid)
        running.process.kill()
        assert eventually(lambda: running.gone() and not any(map(alive, below)))


@pytest.mark.drivers("none")
def test_runner_outlives_its_parent_if_asked(sandbox: Program) -> None:
    running, runner = _child_of_a_shell(sandbox, "--no-die-with-parent", "--stop-timeout", "0.2")
    with running:
        below = descendants(running.pid)
        running.process.kill()
        running.process.wait()
        assert not eventually(lambda: not alive(runner), seconds=0.5)
        os.kill(runner, signal.SIGTERM)
        assert eventually(lambda: running.gone() and not any(map(alive, below)))


def test_library_process_that_dies_leaves_nothing(sandbox: Program) -> None:
    name = names()
    code = (f"import sandbox, threading; box = sandbox.Sandbox(sandbox.make_spec(['sleep', '1000'], name={name!r},"
            " pids_limit=9)); box.__enter__(); box.start(); print('up', flush=True); import os; os._exit(1)")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).stdout == b"up\n"
    assert eventually(lambda: not cgroups(name) and not (STATE / name).exists())


DIES_WHILE_STARTING = """
import os, signal, sys, time
from sandbox import run
from sandbox.unit import Unit

def state(pid):
    return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()

def dying(self, bus, unit, *properties, start=Unit._start):
    init = self._process("init")
    guard = int(state(init)[1])
    os.kill(guard, signal.SIGSTOP)  # it must not reap the init yet
    os.kill(init, signal.SIGKILL)
    while state(init)[0] != "Z":
        time.sleep(0.001)
    start(self, bus, unit, *properties)
    print(guard, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

Unit._start = dying
run(["true"], driver="systemd", pids_limit=9, name=sys.argv[1])
"""


@pytest.mark.only("systemd")
def test_a_unit_that_never_had_a_living_process_goes(sandbox: Program) -> None:
    """systemd makes a scope around an init that is dead and not yet reaped; on cgroup v2 it never hears of its end."""
    name = names()
    with subprocess.Popen([sys.executable, "-c", DIES_WHILE_STARTING, name], stdout=subprocess.PIPE) as process:
        assert process.stdout
        guard = int(process.stdout.readline())
        assert process.wait() == -signal.SIGKILL
        assert cgroups(name)
        os.kill(guard, signal.SIGCONT)
    assert eventually(lambda: not cgroups(name) and not (STATE / name).exists() and not alive(guard))
