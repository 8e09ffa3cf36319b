"""A terminal that is the caller's: nothing may be typed into it from inside. S15."""

from __future__ import annotations

import fcntl
import json
import struct
import termios
from collections.abc import Iterator

import pytest

from support.console import Console
from support.probes import bare, command
from support.sandbox_run import Program

sandbox = bare
pytestmark = [pytest.mark.matter("isolation"), pytest.mark.drivers("none")]


@pytest.fixture
def console() -> Iterator[Console]:
    with Console() as console:
        yield console


def test_s15_nothing_is_typed_into_the_callers_terminal(sandbox: Program, console: Console) -> None:
    """CVE-2017-5226. Fails without ``setsid``: then the terminal is the command's controlling one, and TIOCSTI works
    where ``dev.tty.legacy_tiocsti`` is 1."""
    with console.start(sandbox, *command("inject")) as running:
        seen = json.loads(console.expect(b"}\r\n"))
        running.finish()
        assert seen["terminal"]
        assert "ok" not in (*seen["TIOCSTI"], seen["TIOCLINUX"], seen["again"], seen["TIOCSCTTY"],
                            seen["TIOCSCTTY steal"]), seen
        assert seen["/dev/tty"] in ("ENXIO", "ENOENT", "EIO")
        queued = struct.unpack("i", fcntl.ioctl(console.slave, termios.FIONREAD, bytes(4)))[0]
        assert queued == 0, "characters wait for the next reader"
    assert b"injected" not in console.text


def test_s15_a_terminal_of_its_own_is_all_it_can_type_into(sandbox: Program, console: Console) -> None:
    """With ``-t`` what it pushes is its own input, and never reaches ours."""
    with console.start(sandbox, "-t", *command("inject")) as running:
        console.expect(b"}\r\n")
        running.finish()
        queued = struct.unpack("i", fcntl.ioctl(console.slave, termios.FIONREAD, bytes(4)))[0]
        assert queued == 0
