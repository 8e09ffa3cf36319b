"""The foreground loop and the pty relay, around a plain child process in place of a sandbox."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios

import pytest

# The loop needs no more of a Process than this; the child stands for the workload.
RUNNER = """
import os, signal, subprocess, sys
from sandbox_cli.foreground import Foreground
from sandbox_cli.signals import ENDING, JOB_CONTROL, PASSED, Signals
from sandbox_cli.terminal import Terminal

class Child:
    stopped = None
    def __init__(self, argv, **files):
        self.popen = subprocess.Popen(argv, preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, []), **files)
        self.fd = os.pidfd_open(self.popen.pid)
    def fileno(self): return self.fd
    def poll(self): return self.popen.poll()
    def send_signal(self, number): self.popen.send_signal(number)
    def signal_group(self, number): os.killpg(self.popen.pid, number)
    def kill(self): self.popen.kill()
    def stop(self): self.popen.send_signal(signal.SIGUSR1)

signals = Signals(ENDING | PASSED | JOB_CONTROL)
kind, grace, *argv = sys.argv[1:]
if kind == "pty":
    with Terminal() as terminal:
        slave = terminal.slave
        child = Child(argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        Foreground(child, signals, terminal, float(grace)).wait()
else:
    child = Child(argv, start_new_session=kind == "apart")
    Foreground(child, signals, None, float(grace)).wait()
sys.exit(child.popen.returncode % 256)
"""


@contextlib.contextmanager
def runner(kind, *argv, grace=30.0, **settings):
    settings = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE} | settings
    with subprocess.Popen([sys.executable, "-c", RUNNER, kind, str(grace), *argv], **settings) as process:
        try:
            yield process
        finally:
            process.kill()


def python(script):
    return sys.executable, "-S", "-c", script


def test_the_end_is_seen():
    with runner("plain", "sh", "-c", "exit 7") as process:
        assert process.wait(20) == 7


@pytest.mark.parametrize("kind", ["plain", "pty"])
@pytest.mark.parametrize(("number", "seen"), [(signal.SIGUSR2, signal.SIGUSR2), (signal.SIGINT, signal.SIGINT),
                                              (signal.SIGHUP, signal.SIGHUP), (signal.SIGQUIT, signal.SIGQUIT),
                                              (signal.SIGTERM, signal.SIGUSR1)])
def test_signals_from_others_reach_the_workload_and_term_is_a_soft_stop(kind, number, seen):
    script = (f"import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [{seen:d}]); print('ready', flush=True);"
              f"signal.sigwait([{seen:d}]); raise SystemExit(42)")
    with runner(kind, *python(script)) as process:
        assert process.stdout.readline().strip() == b"ready"
        process.send_signal(number)
        assert process.wait(20) == 42


STUBBORN = python("import signal; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 3, 10, 15)];"
                  "print('ready', flush=True); signal.pause()")


def test_the_second_signal_kills():
    with runner("plain", *STUBBORN) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == -signal.SIGKILL % 256


def test_a_workload_that_ignores_the_signal_is_killed_after_the_grace():
    with runner("plain", *STUBBORN, grace=0.1) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == -signal.SIGKILL % 256


def test_the_terminals_signals_are_passed_on():
    """Ctrl-C on a terminal whose session the workload is not in: it gets it once and goes on to its end."""
    script = ("import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [2]); print('ready', flush=True);"
              "signal.sigwait([2]); print('again', signal.sigtimedwait([2], 0.3)); raise SystemExit(5)")
    with on_terminal("apart", *python(script)) as (process, master):
        read_until(master, b"ready")
        os.write(master, b"\x03")
        output = read_to_end(master)
        assert process.wait(20) == 5
    assert b"again None" in output


@contextlib.contextmanager
def on_terminal(kind, *argv):
    """The runner on a terminal of its own, 77 by 33; the master end is ours."""
    master, slave = os.openpty()
    resize(master, 77, 33)
    with subprocess.Popen(
            [sys.executable, "-c", RUNNER, kind, "30", *argv], stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)) as process:
        os.close(slave)
        try:
            yield process, master
        finally:
            process.kill()
            os.close(master)


def resize(fd, columns, rows):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))


def read_until(fd, text):
    data = b""
    while text not in data:
        assert select.select([fd], [], [], 20)[0], data
        data += os.read(fd, 4096)
    return data


def read_to_end(fd):
    data = b""
    try:
        while select.select([fd], [], [], 20)[0]:
            chunk = os.read(fd, 4096)
            if not chunk:
                break
            data += chunk
    except OSError:  # EIO: nobody has the terminal any more
        pass
    return data


def test_a_terminal_is_one_with_the_size_of_ours_and_ctrl_c_is_a_byte():
    script = ("import fcntl, os, signal, termios\n"
              "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
              "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH, signal.SIGINT])\n"
              "print(os.isatty(0), *os.get_terminal_size(), flush=True)\n"
              "signal.sigwait([signal.SIGWINCH])\n"
              "print('now', *os.get_terminal_size(), flush=True)\n"
              "signal.sigwait([signal.SIGINT])\n"
              "raise SystemExit(9)")
    with on_terminal("pty", *python(script)) as (process, master):
        read_until(master, b"True 77 33")
        resize(master, 20, 10)
        read_until(master, b"now 20 10")
        os.write(master, b"\x03")
        assert process.wait(20) == 9


def test_our_terminal_is_restored():
    with on_terminal("pty", "echo", "hello") as (process, master):
        assert b"hello" in read_to_end(master)
        assert process.wait(20) == 0
        cooked = termios.ICANON | termios.ECHO | termios.ISIG
        assert termios.tcgetattr(master)[3] & cooked == cooked


def test_stdin_need_not_be_a_terminal():
    with runner("pty", "cat") as process:
        output, _ = process.communicate(b"one\ntwo", 20)
        assert process.returncode == 0
        assert output.replace(b"\r\n", b"\n").count(b"one\n") == 2  # the echo, and cat


def test_stdin_may_be_a_file_and_stdout_too(tmp_path):
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(b"text\n")
    target.write_bytes(b"before\n")
    with source.open("rb") as stdin, target.open("ab") as stdout, \
            runner("pty", "cat", stdin=stdin, stdout=stdout) as process:
        assert process.wait(20) == 0
    assert target.read_bytes() == b"before\ntext\r\ntext\r\n"


def test_all_output_arrives_at_a_slow_reader():
    with runner("pty", *python("import sys; sys.stdout.write('x' * 300_000)"), stdin=subprocess.DEVNULL) as process:
        select.select([process.stdout], [], [], 20)
        assert process.stdout.read().count(b"x") == 300_000
        assert process.wait(20) == 0


def test_a_gone_reader_hangs_the_terminal_up():
    with runner("pty", "yes", stdin=subprocess.DEVNULL) as process:
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait(20) == -signal.SIGHUP % 256 or process.returncode == 1


def test_a_reader_that_never_reads_does_not_keep_us_from_ending():
    with runner("pty", "yes", stdin=subprocess.DEVNULL) as process:
        select.select([process.stdout], [], [], 20)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == -signal.SIGUSR1 % 256


def test_the_callers_stdout_stays_blocking():
    read, write = os.pipe()
    with runner("pty", "true", stdin=subprocess.DEVNULL, stdout=write) as process:
        process.wait(20)
    assert os.get_blocking(write)
    os.close(read)
    os.close(write)
