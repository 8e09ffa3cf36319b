"""A real terminal, with ``-t`` and without: job control, window size, Ctrl-C."""

from __future__ import annotations

import os
import signal
import termios
import time
from collections.abc import Iterator

import pytest

from support.console import Console
from support.machine import eventually, named, status
from support.sandbox_run import Program, python

pytestmark = [pytest.mark.matter("process"), pytest.mark.drivers("none")]

COUNT_INTERRUPTS = """
import os, signal, time
count = 0
def interrupted(*_):
    global count
    count += 1
    os.write(1, b'interrupted\\n')
def total(*_):
    os.write(1, b'total %d\\n' % count)
    os._exit(0)
signal.signal(signal.SIGINT, interrupted)
signal.signal(signal.SIGUSR1, total)
os.write(1, b'up\\n')
while True:
    time.sleep(0.02)  # a pause may begin although a signal came right before it
"""


@pytest.fixture
def console() -> Iterator[Console]:
    with Console(rows=33, columns=101) as console:
        yield console


def test_terminal_of_its_own(sandbox: Program, console: Console) -> None:
    code = ("import os; print(*map(os.isatty, range(3)), os.tcgetpgrp(0) == os.getpgrp(), os.getsid(0) == os.getppid(),"
            " 'end')")
    with console.start(sandbox, "-t", *python(code)) as running:
        assert console.expect(b"end\r\n") == b"True True True True True end\r\n"
        assert running.finish().code == 0


def test_without_t_the_terminal_is_the_callers(sandbox: Program, console: Console) -> None:
    with console.start(sandbox, *python("import os; print(os.fstat(0).st_rdev, 'end')")) as running:
        assert console.expect(b"end\r\n").split()[0] == str(os.fstat(console.slave).st_rdev).encode()
        assert running.finish().code == 0


def test_window_size(sandbox: Program, console: Console) -> None:
    code = ("import os, signal\nshow = lambda *_: os.write(1, b'size %d %d\\n' % os.get_terminal_size(0))\n"
            "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGWINCH})\n"
            "show()\nsignal.sigwait({signal.SIGWINCH})\nshow()\nwhile input() != 'end': pass")
    with console.start(sandbox, "-t", *python(code)) as running:
        console.expect(b"size 101 33\r\n")
        console.resize(50, 120)
        console.expect(b"size 120 50\r\n")
        console.type(b"end\n")
        assert running.finish().code == 0


def test_our_terminal_is_restored(sandbox: Program, console: Console) -> None:
    before = termios.tcgetattr(console.slave)
    with console.start(sandbox, "-t", "--", "sh", "-c", "echo up; read line; kill -9 $$") as running:
        console.expect(b"up\r\n")
        assert termios.tcgetattr(console.slave) != before, "raw meanwhile"
        console.type(b"\n")
        assert running.finish().code == 137
    assert termios.tcgetattr(console.slave) == before


@pytest.mark.parametrize("flags", [("-t",), ()], ids=["own terminal", "caller's terminal"])
def test_ctrl_c_arrives_once(sandbox: Program, console: Console, flags: tuple[str, ...]) -> None:
    with console.start(sandbox, *flags, *python(COUNT_INTERRUPTS)) as running:
        console.expect(b"up\r\n")
        console.type(b"\x03")
        console.expect(b"interrupted\r\n")
        time.sleep(0.2)  # a second one would come as fast
        running.process.send_signal(signal.SIGUSR1)
        console.expect(b"total 1\r\n")
        assert running.finish().code == 0


@pytest.mark.parametrize("flags", [("-t",), ()], ids=["own terminal", "caller's terminal"])
def test_ctrl_c_ends_what_does_not_catch_it(sandbox: Program, console: Console, flags: tuple[str, ...]) -> None:
    with console.start(sandbox, *flags, "--", "sh", "-c", "echo up; exec sleep 1000") as running:
        console.expect(b"up\r\n")
        console.type(b"\x03")
        done = running.finish()
    assert done.code == -signal.SIGINT, "by the signal, as the command: a shell ends its loop then, and shows 130"
    assert done.report["signal"] == signal.SIGINT


@pytest.mark.requires("bash")
def test_job_control(sandbox: Program, console: Console) -> None:
    with console.start(sandbox, "-t", "-e", "PS1=ready> ", "--", "bash", "--norc", "--noprofile", "-i") as running:
        console.expect(b"ready> ")
        console.type(b"sleep 1000\n")
        console.expect(b"sleep 1000\r\n")
        assert eventually(lambda: len(named(running.tree(), "sleep")) == 1)
        console.type(b"\x1a")
        console.expect(b"Stopped")
        console.expect(b"ready> ")
        console.type(b"bg; jobs; kill %1; wait; echo done-$((40+2))\n")
        assert b"no job control" not in console.expect(b"done-42\r\n")
        console.type(b"exit 3\n")
        assert running.finish().code == 3


def test_end_of_file(sandbox: Program, console: Console) -> None:
    with console.start(sandbox, "-t", "--", "cat") as running:
        console.type(b"line\n")
        console.expect(b"line\r\nline\r\n")
        console.type(b"\x04")
        assert running.finish().code == 0


def test_terminal_without_one_of_ours(sandbox: Program) -> None:
    done = sandbox("-t", "--", "sh", "-c", "tty >/dev/null && read line && echo got $line", input=b"words\n")
    assert done.code == 0
    assert b"got words\r\n" in done.out


def test_all_output_arrives(sandbox: Program) -> None:
    done = sandbox("-t", "--", "seq", "100000")
    assert done.out.replace(b"\r\n", b"\n") == b"".join(b"%d\n" % number for number in range(1, 100001))


def test_slow_reader_of_a_terminal_costs_no_memory(sandbox: Program) -> None:
    with sandbox.start("-t", "--", "yes") as running:
        running.read_line()
        memory = int(status(running.pid)["VmRSS"].split()[0])
        assert not eventually(lambda: running.process.poll() is not None, seconds=0.5)
        assert int(status(running.pid)["VmRSS"].split()[0]) - memory < 4096
        running.process.stdout.close()  # type: ignore[union-attr]
        running.process.stdout = None
        assert running.finish().code in (1, 129, 141), "1: its write fails before it hears of the SIGHUP"


def test_terminal_hangs_up(sandbox: Program) -> None:
    console = Console()
    with console.start(sandbox, "-t", "--stop-timeout", "0.5", "--", "sh", "-c", "echo up; exec sleep 1000") as running:
        console.expect(b"up\r\n")
        os.close(console.slave)
        os.close(console.master)
        assert running.finish().code in (129, 137)
