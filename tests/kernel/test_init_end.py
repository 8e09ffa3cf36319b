"""How a run of sandbox-init ends: exit codes, orphans, signals, stops, deadlines and watches."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.steps import Arg, Step
from support.bare_launcher import SLEEP, TERM, Run, Start, pipe, plan, shell, wait_gone

pytestmark = pytest.mark.requires("root")


@pytest.mark.parametrize("code", [0, 1, 7, 124, 127, 255])
def test_exit_code(run: Callable[..., Run], code: int) -> None:
    one = run(plan(shell(f"exit {code}")))
    assert one.exit_code() == code
    assert one.kinds() == ["ready", "started", "exited", "done"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGRTMAX])
def test_death_by_signal(run: Callable[..., Run], number: int) -> None:
    assert run(plan(shell(f"kill -{int(number)} $$"))).exit_code() == -number


def test_exited_says_what_was_used(run: Callable[..., Run]) -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    one = run(plan((sys.executable, "-S", "-I", "-c", burn)))
    _, moment, user, system, rss, minor, *_ = map(int, one.record("exited"))
    assert user + system >= 200_000
    assert 1000 < rss < 1_000_000
    assert minor > 100
    assert moment > 0


def test_started_comes_before_exited(run: Callable[..., Run]) -> None:
    one = run(plan(("/bin/true",)))
    assert 0 < int(one.record("started")[0]) < int(one.record("exited")[1])


def test_started_brings_the_workloads_pidfd(start: Start) -> None:
    one = start(plan(SLEEP))
    one.go()
    one.until("started")
    signal.pidfd_send_signal(one.workload, signal.SIGTERM)
    assert one.finish() == 0
    assert one.exit_code() == -TERM


# --- pid 1


def test_orphans_are_reaped(run: Callable[..., Run]) -> None:
    """A hundred daemons, and no zombie of them stays."""
    script = """
import os, time
for _ in range(100):
    if not (pid := os.fork()):
        os.fork()
        os._exit(0)
    os.waitpid(pid, 0)
end = time.monotonic() + 60
while set(filter(str.isdigit, os.listdir("/proc"))) != {"1", str(os.getpid())}:
    if time.monotonic() > end:
        os._exit(1)
"""
    one = run(plan((sys.executable, "-S", "-I", "-c", script)))
    assert one.exit_code() == 0
    assert one.record("exited")[-1] == "0"


def test_what_is_left_behind_is_killed_and_counted(run: Callable[..., Run]) -> None:
    one = run(plan(shell("sleep 1000 & sleep 1000 & (sleep 1000 & exec sleep 1000) & exit 3")))
    assert one.exit_code() == 3
    assert 3 <= int(one.record("exited")[-1]) <= 4  # the last of them may not have been forked yet


def test_nothing_of_the_tree_lives_when_it_is_done(start: Start) -> None:
    with pipe() as (reader, writer):
        one = start(plan(shell("trap '' TERM INT HUP; setsid sleep 1000 & echo")), stdio=(0, writer.fileno(), 2))
        writer.close()
        one.go()
        one.until("done")
        assert reader.readall().decode() == "\n"  # the sleep held the other end
    assert one.finish() == 0


def test_signals_are_passed_on(start: Start) -> None:
    with pipe() as (reader, writer):
        one = start(plan(shell("trap 'exit 42' USR1; echo; while :; do sleep 1000 & wait; done")),
                    stdio=(0, writer.fileno(), 2))
        writer.close()
        one.go()
        one.until("started")
        assert reader.read(1) == b"\n"
        one.send(f"signal {int(signal.SIGUSR1)}")
        assert one.finish() == 0
    assert one.exit_code() == 42


@pytest.mark.parametrize("command", ["signal 0", "signal 65", "signal", "signal 9x", "signals 9", "x", "x" * 200])
def test_nonsense_from_the_launcher_does_nothing(start: Start, command: str) -> None:
    one = start(plan(SLEEP))
    one.go()
    one.until("started")
    one.send(command)
    one.send("signal 15")
    assert one.finish() == 0
    assert one.exit_code() == -TERM


# --- stopping


def stubborn(*guard: tuple[Arg, ...]) -> list[Step]:
    """A workload in which every signal is blocked, and what the guard does about it."""
    return plan(SLEEP, guard=guard, workload=())


def test_stop_asks_first(start: Start) -> None:
    one = start(plan(SLEEP, guard=[("stop", int(signal.SIGINT), 60_000)]))
    one.go()
    one.until("started")
    one.send("stop")
    assert one.finish() == 0
    assert one.record("stopping")[0] == "killed"
    assert one.exit_code() == -signal.SIGINT
    assert "killing" not in one.kinds()


def test_stop_kills_when_asking_does_not_help(start: Start) -> None:
    one = start(stubborn(("stop", TERM, 50)))
    one.go()
    one.until("started")
    one.send("stop")
    assert one.finish() == 0
    assert one.kinds() == ["ready", "started", "stopping", "killing", "exited", "done"]
    (_, asked), (reason, killed) = one.record("stopping"), one.record("killing")
    assert int(killed) - int(asked) >= 50_000_000
    assert reason == "killed"
    assert one.exit_code() == -signal.SIGKILL


def test_kill_does_not_wait_for_a_stop(start: Start) -> None:
    one = start(stubborn(("stop", TERM, 1_000_000)))
    one.go()
    one.until("started")
    one.send("stop")
    one.send("kill")
    assert one.finish() == 0
    assert one.exit_code() == -signal.SIGKILL


def test_an_init_that_is_stopped_goes_on_to_obey(start: Start) -> None:
    one = start(plan(SLEEP))
    one.go()
    one.until("started")
    os.kill(one.init, signal.SIGSTOP)
    one.send("kill")
    assert one.finish() == 0
    assert one.exit_code() == -signal.SIGKILL


PTRACE_SEIZE, PTRACE_INTERRUPT, WALL = 0x4206, 0x4207, 0x40000000  # <linux/ptrace.h>, <linux/wait.h>


@pytest.mark.requires("cc")
@pytest.mark.parametrize("program", ["impatient"], indirect=True)
def test_an_init_that_does_not_answer_is_killed_from_outside(start: Start) -> None:
    """A debugger has stopped it: SIGCONT does not continue a traced process."""
    one = start(plan(SLEEP))
    one.go()
    one.until("started")
    for request in (PTRACE_SEIZE, PTRACE_INTERRUPT):
        assert ctypes.CDLL(None, use_errno=True).ptrace(request, one.init, None, None) == 0, ctypes.get_errno()
    os.waitpid(one.init, WALL)
    begin = time.monotonic()
    one.send("kill")
    os.waitpid(one.init, WALL)  # the kernel reports the death to the debugger first, then to the parent
    assert one.finish() == 0
    assert time.monotonic() - begin >= 0.1
    assert one.kinds() == ["ready", "started", "killing", "done"]
    wait_gone(one.workload)


def test_deadline_stops_softly(run: Callable[..., Run]) -> None:
    one = run(plan(SLEEP, guard=[("stop", TERM, 60_000), ("deadline", 50)]))
    assert one.record("stopping")[0] == "wall_time"
    assert int(one.record("stopping")[1]) - int(one.record("started")[0]) >= 50_000_000
    assert one.exit_code() == -TERM


@pytest.mark.parametrize("timeout", [0, 20])
def test_deadline_kills(run: Callable[..., Run], timeout: int) -> None:
    one = run(stubborn(("stop", TERM, timeout), ("deadline", 50)))
    assert ("stopping" in one.kinds()) == (timeout > 0)
    assert one.record("killing")[0] == "wall_time"
    assert one.exit_code() == -signal.SIGKILL


def test_a_deadline_that_is_not_reached_is_not_heard_of(run: Callable[..., Run]) -> None:
    one = run(plan(("/bin/true",), guard=[("stop", TERM, 0), ("deadline", 60_000)]))
    assert one.kinds() == ["ready", "started", "exited", "done"]


def test_watch_stops_at_its_limit(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "stat"
    file.write_text("user 5000\nusage 10\n")
    one = start(plan(SLEEP, guard=[("stop", TERM, 60_000), ("watch", "cpu_time", str(file), "usage", 1000, 5)]))
    one.go()
    one.until("started")
    with file.open("r+") as changed:
        changed.write("user 5000\nusage 1000\n")
    assert one.finish() == 0
    assert one.record("stopping")[0] == "cpu_time"
    assert one.record("sample") == ["cpu_time", "1000"]
    assert one.exit_code() == -TERM


@pytest.mark.parametrize(("content", "key", "sample"), [
    ("7\n", "", ["one", "7"]),
    ("9223372036854775807", "", ["one", str((1 << 63) - 1)]),
    ("99999999999999999999999", "", ["one", str((1 << 63) - 1)]),
    ("a 1\nab 2\nb 3\n", "ab", ["one", "2"]),
    ("a 1\nab 2\n", "b", None),
    ("ab 2\na 1\n", "a", ["one", "1"]),
    ("max\n", "", None),
    ("", "", None),
    (None, "", None),
    ("x 1\n" * 4000 + "y 2\n", "x", ["one", "1"]),
])
def test_watch_reads(run: Callable[..., Run], tmp_path: Path, content: str | None, key: str,
                     sample: list[str] | None) -> None:
    if content is not None:
        (tmp_path / "file").write_text(content)
    one = run(plan(("/bin/true",), guard=[("watch", "one", str(tmp_path / "file"), key, 0, 1000)]))
    assert [record[1:] for record in one.records if record[0] == "sample"] == ([sample] if sample else [])
    assert one.kinds()[-1] == "done"


def test_watch_keeps_the_highest(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "peak"
    file.write_text("30")
    steps = plan(SLEEP, guard=[("stop", TERM, 0), ("watch", "peak", str(file), "", 0, 1),
                               ("watch", "other", str(tmp_path / "other"), "", 1, 1)])
    one = start(steps)
    one.go()
    one.until("started")
    with file.open("r+") as changed:
        changed.write("40")
        changed.flush()
        (tmp_path / "other").write_text("1")  # is seen after the 40 has been, and ends it
        one.until("killing")
        changed.seek(0)
        changed.write("20")
    assert one.finish() == 0
    assert [record for record in one.records if record[:2] == ["sample", "peak"]] == [["sample", "peak", "40"]]
