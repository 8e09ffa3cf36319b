"""Names, and files that somebody planted where we write."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from support.machine import alive, cgroups, holders
from support.sandbox_run import Program
from support.warm_program import warm

pytestmark = pytest.mark.matter("process")

sandbox = warm


def test_a_name_is_used_once_at_a_time(sandbox: Program) -> None:
    with sandbox.start("--pids-limit", "9", "--", "sh", "-c", "echo up; read line; exit 5") as first:
        first.read_line()
        groups = cgroups(first.name)
        with sandbox.start("--pids-limit", "8", "--", "true", name=first.name) as second:
            done = second.finish()
        assert done.code == 125
        assert first.name in done.err
        assert cgroups(first.name) == groups, "the second run touched the first one's cgroups"
        assert alive(first.guard())
        done = first.finish(b"\n")
    assert done.code == 5
    assert done.limit("--pids-limit")["read_back"] == str(9 + holders(sandbox.driver))


@pytest.mark.only("cgroupfs")
def test_a_foreign_directory_of_that_name(sandbox: Program) -> None:
    from support.machine import new_cgroups
    from support.sandbox_run import names

    name = names()
    foreign = new_cgroups("pids") / f"sandbox-{name}"
    foreign.mkdir()
    try:
        with sandbox.start("--pids-limit", "8", "--", "true", name=name) as running:
            done = running.finish()
        assert done.code == 125
        assert str(foreign) in done.err
        assert cgroups(name) == {str(foreign)}, "theirs must stay, ours must go"
    finally:
        if foreign.exists():
            foreign.rmdir()


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "..", "tasks", "cgroup.procs", "memory.max", "x.service",
                                  "a\nb", "\u00e4", "a" * 101, "-x", "a b", "x.scope", "a\udcff", "release_agent"])
def test_hostile_names(sandbox: Program, name: str) -> None:
    done = sandbox.other("run", f"--name={name}", "--pids-limit", "9", "--", "true")
    assert (done.code, len(done.err.splitlines())) == (2, 1), done.err
    assert "--name" in done.err


def test_symlink_at_the_reports_path(sandbox: Program, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    link = tmp_path / "report.json"
    link.symlink_to(victim)
    done = sandbox("--json", str(link), "--", "true", report=False)
    assert victim.read_text() == "precious"
    assert done.code == 0
    assert json.loads(link.read_bytes())["exit_code"] == 0
    assert not link.is_symlink()


def test_report_is_whole_or_not_there(sandbox: Program, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    sandbox("--json", str(path), "--", "true", report=False)
    assert os.listdir(tmp_path) == ["report.json"]
    assert json.loads(path.read_bytes())


@pytest.mark.parametrize("target", ["/dev/null", "/no/such/directory/report.json", "/tmp", "/proc/self/report.json"])
def test_report_that_cannot_be_written(sandbox: Program, tmp_path: Path, target: str) -> None:
    done = sandbox("--json", target, "--", "touch", str(tmp_path / "ran"), report=False)
    assert done.code in (2, 125)
    assert "--json" in done.err


def test_terminal_commands_in_arguments_are_not_passed_on(sandbox: Program) -> None:
    done = sandbox("--verbose", "--", "no-such\x1b]0;owned\x07command")
    assert done.code == 127
    assert "\x1b" not in done.err
