"""The keys of a terminal and the jobs of its shell: with ``sandbox run`` in front, they do what they do without it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.console import Console
from support.sandbox_run import SANDBOX, Program

pytestmark = [pytest.mark.matter("process"), pytest.mark.drivers("none"), pytest.mark.requires("bash")]

PROMPT = b"shell> "
# These programs look again and again: Python begins a sleep or a pause although a signal came right before it.
WORK = """import time
try:
    print('up', flush=True)
    while True: time.sleep(0.02)
except KeyboardInterrupt:
    print('cleaned')
"""

# These programs start no others: a shell that is inside vfork(2) when Ctrl-Z comes does not stop.
TICK = "import time\nwhile True: print('tick', flush=True); time.sleep(0.02)\n"
WHILE_GO = """import os, time
print('up', flush=True)
while os.path.exists('go'): time.sleep(0.02)
print('over', flush=True)
"""
SAYS = """import os, signal, time
def caught(*_):
    os.write(1, b'caught\\n')
    {then}
signal.signal(signal.{signal}, caught)
print('up', flush=True)
while True: time.sleep(0.02)
"""
PYTHON = f"{sys.executable} -S"


class Shell:
    """An interactive bash on a console."""

    def __init__(self, console: Console, directory: Path) -> None:
        self.console = console
        self.directory = directory
        environment = {"PATH": os.environ["PATH"], "PS1": PROMPT.decode(), "TERM": "dumb", "LC_ALL": "C"}
        self.process = subprocess.Popen(["bash", "--norc", "--noediting", "-i"], stdin=console.slave,
                                        stdout=console.slave, stderr=console.slave, cwd=directory, env=environment,
                                        preexec_fn=self._begin)
        console.expect(PROMPT)

    def _begin(self) -> None:
        # A shell without job control starts its background jobs with SIGQUIT ignored, and pytest may be one of those. A
        # shell cannot trap a signal that was ignored when it started.
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
        self.console._take_over()

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def enter(self, line: str, until: bytes = PROMPT) -> bytes:
        """Type a line; return what the terminal showed after its echo, up to ``until``."""
        self.console.type(line.encode() + b"\n")
        self.console.expect(line.encode() + b"\r\n")
        return self.expect(until)

    def expect(self, until: bytes) -> bytes:
        """What the terminal showed, but for what the inner one of ``-t`` adds: the late echo of Ctrl-Z, and a second
        \\r at the end of a line while the outer one is the shell's."""
        return self.console.expect(until).replace(b"\r\r\n", b"\r\n").replace(b"^Z", b"")

    def press(self, key: bytes, until: bytes = PROMPT) -> bytes:
        """Type a key; return what the terminal showed, up to ``until``."""
        self.console.type(key)
        return self.expect(until)


@pytest.fixture
def shell(sandbox: Program) -> Iterator[Shell]:
    with Console() as console, Shell(console, sandbox.directory) as shell:
        yield shell


@pytest.fixture(params=["without", "run", "run -t"])
def prefix(request: pytest.FixtureRequest, sandbox: Program) -> str:
    """What is in front of the command: nothing, or the program."""
    _, *words = request.param.split()
    return "" if request.param == "without" else f"{shlex.join([*SANDBOX, 'run', *words, *sandbox.flags()])} -- "


def test_ctrl_z_gives_the_terminal_back_and_fg_goes_on(shell: Shell, prefix: str) -> None:
    """bubblewrap#369 and #147. Fails where the command goes on reading: the shell would not get its line."""
    shell.enter(f"{prefix}sh -c 'echo up; while read x; do echo \"IN:$x\"; done; echo over'", until=b"up\r\n")
    shell.console.type(b"one\n")
    shell.console.expect(b"IN:one\r\n")
    assert b"Stopped" in shell.press(b"\x1a")
    assert shell.enter("echo from the shell") == b"from the shell\r\n" + PROMPT
    shell.enter("fg", until=b"\r\n")
    shell.console.type(b"two\n")
    shell.console.expect(b"IN:two\r\n")
    assert b"over\r\n" in shell.press(b"\x04")
    assert shell.enter("echo $?") == b"0\r\n" + PROMPT


def test_ctrl_z_stops_every_process_of_the_group(shell: Shell, prefix: str) -> None:
    (shell.directory / "tick.py").write_text(TICK)
    shell.enter(f"{prefix}sh -c '{PYTHON} tick.py; echo over'", until=b"tick\r\n")
    assert b"Stopped" in shell.press(b"\x1a")
    shell.console.text = b""
    assert b"tick" not in shell.enter("sleep 0.2; echo quiet")
    shell.enter("fg", until=b"tick\r\n")
    shell.press(b"\x03")


def test_bg_lets_it_go_on(shell: Shell, prefix: str) -> None:
    (shell.directory / "go").touch()
    (shell.directory / "work.py").write_text(WHILE_GO)
    shell.enter(f"{prefix}{PYTHON} work.py", until=b"up\r\n")
    assert b"Stopped" in shell.press(b"\x1a")
    shell.enter("bg")
    assert b"over\r\n" in shell.enter("rm go; wait")


def test_bg_and_fg(shell: Shell, prefix: str) -> None:
    """In the background, the shell reads what is typed. After fg, the command does."""
    (shell.directory / "go").touch()
    (shell.directory / "work.py").write_text(WHILE_GO + "print('IN:' + input())\n")
    shell.enter(f"{prefix}{PYTHON} work.py", until=b"up\r\n")
    shell.press(b"\x1a")
    shell.enter("bg")
    assert shell.enter("echo from the shell") == b"from the shell\r\n" + PROMPT
    shell.enter("fg", until=b"\r\n")
    (shell.directory / "go").unlink()
    shell.expect(b"over")
    shell.console.type(b"one\n")
    assert b"IN:one\r\n" in shell.expect(PROMPT)


def test_in_the_background_from_the_start(shell: Shell, prefix: str) -> None:
    (shell.directory / "go").touch()
    if b"up" not in shell.enter(f"{prefix}sh -c 'echo up; while [ -e go ]; do sleep 0.02; done; echo over' &"):
        shell.expect(b"up")
    assert b"over\r\n" in shell.enter("rm go; wait")


def test_ctrl_c_reaches_what_make_started(shell: Shell, prefix: str) -> None:
    """bubblewrap#369. Fails where only make gets SIGINT: Python would not clean up."""
    (shell.directory / "work.py").write_text(WORK)
    (shell.directory / "Makefile").write_text(f"all:\n\t@{PYTHON} work.py\n")
    shell.enter(f"{prefix}make", until=b"up\r\n")
    shown = shell.press(b"\x03")
    assert b"cleaned\r\n" in shown
    # Now and then the handler of make's SIGINT reaps the child that its main loop then waits for.
    code = 2 if b"wait: No child processes" in shown else 130
    assert shell.enter("echo $?") == b"%d\r\n" % code + PROMPT


def test_ctrl_c_ends_the_loop_of_the_shell(shell: Shell, prefix: str) -> None:
    """A shell ends its loop when a command died of SIGINT, not when it exited with 130."""
    shell.enter(f"for i in 1 2 3; do {prefix}sh -c 'echo up; exec sleep 1000'; done", until=b"up\r\n")
    assert b"up" not in shell.press(b"\x03")


def test_ctrl_backslash_reaches_the_group(shell: Shell, prefix: str) -> None:
    (shell.directory / "child.py").write_text(SAYS.format(signal="SIGQUIT", then="os._exit(0)"))
    (shell.directory / "parent.sh").write_text(f"trap 'echo parent' QUIT; {PYTHON} child.py; exit 7")
    shell.enter(f"{prefix}sh parent.sh", until=b"up\r\n")
    shown = shell.press(b"\x1c")
    assert shown.replace(b"^\\", b"").replace(b"Quit\r\n", b"").split() == [b"caught", b"parent", b"shell>"]
    assert shell.enter("echo $?") == b"7\r\n" + PROMPT


@pytest.mark.parametrize("prefix", ["run"], indirect=True)
def test_a_second_ctrl_c_kills(shell: Shell, prefix: str) -> None:
    (shell.directory / "work.py").write_text(SAYS.format(signal="SIGINT", then="pass"))
    shell.enter(f"{prefix}{PYTHON} work.py", until=b"up\r\n")
    shell.press(b"\x03", until=b"caught\r\n")
    shell.press(b"\x03")
    assert shell.enter("echo $?") == b"137\r\n" + PROMPT
