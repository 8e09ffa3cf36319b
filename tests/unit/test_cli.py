"""The command line up to the point where something would be started."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys

import pytest
from sandbox_cli import application as cli
from sandbox_cli import commands, messages, quick
from sandbox_cli.flags import with_flags

from sandbox.options import TABLE

gc.enable()  # the command line does without, the tests shall not


@pytest.fixture
def sandbox(monkeypatch, capfd, tmp_path):
    """Runs ``sandbox ARGS`` in this process; returns exit code, stdout, stderr."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["sandbox", *arguments])
        work = quick.command_of(arguments)
        code = cli.run_typer() if work is None else commands.exit_code(work)
        return code, *capfd.readouterr()

    return call


@pytest.fixture
def parsed(monkeypatch, sandbox):
    """What ``sandbox run ARGS`` would run."""
    import sandbox_cli

    seen = {}

    class Foreground:
        @staticmethod
        def run(spec, **settings):
            seen.update(settings, spec=spec)
            return 7

    monkeypatch.setitem(sys.modules, "sandbox_cli.foreground", Foreground)
    monkeypatch.setattr(sandbox_cli, "foreground", Foreground, raising=False)

    def call(*arguments):
        code, _, error = sandbox("run", *arguments)
        assert (code, error) == (7, "")
        return seen

    return call


@pytest.mark.parametrize(("arguments", "words"), [
    (["run", "--mem-limit", "5m", "true"], ["there is no flag --mem-limit (hint: write --memory)"]),
    (["run", "--wall-time=5", "true"], ["there is no flag --wall-time (hint: write --timeout)"]),
    (["run", "--rm", "true"], ["there is no flag --rm (hint: leave it out: nothing of a run stays)"]),
    (["run", "-it", "true"], ["there is no flag -i (hint: leave it out: ", "; --tty is for a terminal)"]),
    (["lab", "down", "--name", "x"], ["there is no flag --name (hint: give the value without --name)"]),
    (["run", "--cwd", "/", "true"], ["there is no flag --cwd (hint: write --workdir)"]),
    (["run", "--memroy", "5m", "true"], ["there is no flag --memroy (hint: did you mean --memory?)"]),
    (["run", "--"], ["no command given (hint: sandbox run [flags] -- COMMAND"]),
    (["run", "--", ""], ["no command given (hint: sandbox run [flags] -- COMMAND"]),
    (["run", "--memory", "1e3", "true"], ["--memory", "'1e3'", "512m"]),
    (["run", "-m", "٦٤m", "true"], ["--memory"]),
    (["run", "--cpus", "-1", "true"], ["--cpus", "'-1'"]),
    (["run", "--pids-limit", "0", "true"], ["--pids-limit"]),
    (["run", "--memry", "1", "true"], ["--memry", "did you mean --memory?"]),
    (["run", "--xyzzy", "true"], ["--xyzzy", "sandbox run --help"]),
    (["run", "-m"], ["-m"]),
    (["run"], ["no command"]),
    (["run", "--"], ["no command"]),
    (["run", "--name", "a/b", "true"], ["--name"]),
    (["run", "--profile", "none", "true"], ["--profile"]),
    (["run", "--cpus", "1", "--cpu-quota", "5000", "true"], ["--cpus", "--cpu-quota"]),
    (["rnu", "true"], ["rnu"]),
    (["explain", "--format", "xml", "true"], ["--format"]),
    (["explain", "--host", "/nowhere", "true"], ["--host", "/nowhere"]),
    (["explain", "--host", os.devnull, "true"], ["--host"]),
    (["info", "extra"], ["extra"]),
    (["run", "--memory", "\x1b[31m", "true"], ["--memory"]),
])
def test_bad_usage_is_one_line_and_exit_2(sandbox, arguments, words):
    code, output, error = sandbox(*arguments)
    assert (code, output) == (2, "")
    assert error.startswith("sandbox: ")
    assert error.count("\n") == 1
    assert "\x1b" not in error
    for word in words:
        assert word in error


def test_the_first_word_that_is_no_flag_begins_the_command(parsed):
    assert parsed("-m", "64m", "ls", "-m", "1", "--help", "--")["spec"].argv == ("ls", "-m", "1", "--help", "--")
    assert parsed("--", "-x", "--")["spec"].argv == ("-x", "--")
    assert parsed("a\udcff", "")["spec"].argv == ("a\udcff", "")


def test_flags_reach_the_spec(parsed):
    seen = parsed("-m64m", "--memory-reservation", "1m", "-c", "512", "-e", "A=1", "-e", "B=2", "-w", "/", "-t",
                  "--ulimit", "nofile=5", "--oom-group", "--json", "-", "--verbose", "--no-die-with-parent", "x")
    spec = seen["spec"]
    limits = spec.limits
    assert (limits.memory, limits.memory_low, limits.cpu_shares, limits.oom_group) == (64 << 20, 1 << 20, 512, True)
    assert {("A", "1"), ("B", "2")} <= set(spec.env)
    assert (spec.cwd, spec.tty, seen["json"], seen["verbose"], seen["parent"]) == ("/", True, "-", True, None)


def test_flags_lie_over_the_config(parsed, tmp_path):
    (tmp_path / "sandbox").mkdir()
    (tmp_path / "sandbox" / "config.toml").write_text(
        '[limits]\nmemory = "1G"\ncpus = 1\npids-limit = 9\noom-group = true\n[profile.p]\npids-limit = 10\n')
    limits = parsed("--profile", "p", "-m", "2G", "--cpu-quota", "5000", "--no-oom-group", "x")["spec"].limits
    assert (limits.memory, limits.cpus, limits.cpu_quota, limits.pids_limit) == (2 << 30, None, 5000, 10)
    assert limits.oom_group is False


def test_help_lists_every_flag(sandbox):
    for command in ("run", "explain"):
        code, output, error = sandbox(command, "--help")
        assert (code, error) == (0, "")
        for option in TABLE:
            assert option.flag in output
        assert output.index("Memory:") < output.index("--memory")


def test_a_parameter_for_each_option():
    def command(argv: str, own: str = "", **wishes: str) -> int:
        return 0

    assert list(with_flags(command).__annotations__) == ["argv", *(option.name for option in TABLE), "own"]


def test_what_is_echoed_cannot_drive_a_terminal():
    assert messages.escaped("a\x1b[2J\nb\udcff\u202e é") == "a\\x1b[2J\\nb\\xff\\u202e é"
    assert messages.escaped_lines("a\n\x07b") == "a\n\\x07b"


def test_errors_of_ours_put_the_hint_on_its_own_line(capfd):
    messages.complain("it failed", "do this")
    messages.complain("it failed", "do this", one_line=True)
    assert capfd.readouterr().err == "sandbox: it failed\nhint: do this\nsandbox: it failed (hint: do this)\n"


def test_nobody_reading_our_messages_is_no_error():
    read, write = os.pipe()
    os.close(read)
    script = "from sandbox_cli.messages import say; say('x'); print('still here')"
    done = subprocess.run([sys.executable, "-c", script], stderr=write, stdout=subprocess.PIPE, check=False)
    os.close(write)
    assert done.stdout == b"still here\n"


def test_signals_are_read_once():
    script = """
import os, signal
from sandbox_cli.signals import Signals
signals = Signals([signal.SIGTERM, signal.SIGUSR1])
os.kill(os.getpid(), signal.SIGTERM)
os.kill(os.getpid(), signal.SIGUSR1)
print(sorted(signals.read()), signals.read())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"[{signal.SIGUSR1:d}, {signal.SIGTERM:d}] []\n"


def test_closed_standard_files_are_filled():
    script = "import os; from sandbox_cli.start import _open_standard_files as f; f(); " \
             "os._exit(sum(os.path.samestat(os.fstat(n), os.stat(os.devnull)) for n in range(3)))"
    done = subprocess.run(["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, script], check=False)
    assert done.returncode == 3


INTERRUPTED = """
import os, signal, sys
from sandbox_cli import start

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, getattr(signal, sys.argv[1]))
sys.meta_path.insert(0, Interrupts())
sys.argv[1:] = ["--help"]
start.main()
"""


@pytest.mark.parametrize(("handler", "code"), [("default_int_handler", -signal.SIGINT), ("SIG_IGN", 0)])
def test_ctrl_c_while_the_program_loads_ends_it_without_a_word(handler, code):
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, handler], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (code, b"")
