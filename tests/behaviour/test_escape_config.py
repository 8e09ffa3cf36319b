"""Configuration files that somebody broke: R26."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from sandbox.config import defaults
from sandbox.errors import SpecError
from sandbox.options import make_spec
from support.machine import SLOWER
from support.sandbox_run import Program
from support.warm_program import warm_bare

pytestmark = pytest.mark.matter("program")

sandbox = warm_bare

GOOD = """
driver = "cgroupfs"
[limits]
memory = "64m"
pids-limit = 20
cpus = 1.5
timeout = "10s"
ulimit = ["nofile=64:128", "core=0"]
[profile.x]
memory = "1g"
env = ["A=1"]
volume = ["/srv:/mnt:ro"]
cap-add = ["NET_RAW"]
network = "none"
tmpfs = ["/scratch:size=1m"]
hostname = "box"
mount = ["type=bind,src=/srv,dst=/media"]
"""
PIECES = ("[" * 10000, "{", "]]",
          '"""', "\0", "\udcff", "=", "[[limits]]", "\ufeff", '"" = 1\n', "limits = 3\n", "[x]\n",
          "a." * 1000 + "b = 1\n", "name = '../../x'\n", "pid = 1\n", "\r", "#")
VALUES = ("18446744073709551616", "-1", "0", "nan", "-inf", "1e400", "9" * 400, "true", "1979-05-27", "07:32:00", "[]",
          "{}", "[[[['a']]]]", "{a = {b = 1}}", '""', '"\\u0000"', '"\\u0664"', '"\u0664"', '"64 "', '"::::"', '[":/"]',
          '["/etc:"]', '["..:/x"]', '"/etc"', "[1, 'a', {}]", f'"{"x" * 100000}"', '"host:1"', '"%s%n"', '["=", "A"]')


def broken(chance: random.Random) -> bytes:
    """A file like the good one, changed in some places: mostly values, so that it is still TOML."""
    lines = GOOD.splitlines(keepends=True)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(lines))
        key, equals, _ = lines[at].partition(" = ")
        if equals and chance.random() < 0.8:
            lines[at] = f"{key} = {chance.choice(VALUES)}\n"
        else:
            cut = chance.randrange(len(lines[at]) + 1)
            lines[at] = lines[at][:cut] + chance.choice((*PIECES, *lines, "")) + lines[at][cut:]
    return "".join(lines).encode(errors="surrogateescape")


@pytest.mark.once
def test_r26_broken_files_are_refused_in_one_line(sandbox: Program, tmp_path: Path) -> None:
    """2000 of them. Fails when any other exception gets out, or one file takes seconds of the CPU."""
    assert sandbox is not None
    seed = random.randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    path = tmp_path / "system.toml"
    for _ in range(2000 // SLOWER):
        path.write_bytes(broken(chance))
        begin = time.thread_time()
        error = refusal(path, chance.choice((None, "x")))
        assert "\n" not in error, error
        assert time.thread_time() - begin < 5 * SLOWER, path.read_bytes()[:200]


def refusal(path: Path, profile: str | None) -> str:
    """Why the file will not do; empty when it will."""
    try:
        make_spec(["true"], **defaults({"HOME": str(path.parent)}, profile, system_file=str(path)))
    except SpecError as error:
        return str(error)
    return ""


@pytest.mark.once
def test_r26_the_file_that_is_broken_is_good(sandbox: Program, tmp_path: Path) -> None:
    assert sandbox is not None
    (tmp_path / "system.toml").write_text(GOOD)
    assert refusal(tmp_path / "system.toml", "x") == ""


@pytest.mark.drivers("none")
def test_r26_the_program_says_so_in_one_line(sandbox: Program, tmp_path: Path) -> None:
    (tmp_path / "sandbox").mkdir()
    for text in ("[" * 10000, "[limits]\nulimit = " + "[" * 10000, "[limits]\nmemory = \"lots\"", "\xff"):
        (tmp_path / "sandbox" / "config.toml").write_text(text, encoding="latin-1")
        done = sandbox.other("run", *sandbox.flags(), "--", "true",
                             env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path)})
        assert done.code in (2, 125)
        assert "Traceback" not in done.err
        assert "config.toml" in done.err
