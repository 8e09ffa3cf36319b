"""The quick path reads a command line as typer does, or leaves it to typer."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

import pytest
import typer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sandbox_cli import application, commands, quick

from sandbox.options import TABLE

COMMANDS = {"run": "run", "explain": "explain", "info": "info", "lab run": "lab_run"}
"""Command lines that the quick path takes, and what they call."""


def record(name: str, seen: list[Any]) -> Callable[..., int]:
    """A stand-in for the function of a command that notes what it was called with."""
    signature = inspect.signature(getattr(commands, name))

    def call(*args: Any, **settings: Any) -> int:
        bound = signature.bind(*args, **settings)
        bound.apply_defaults()
        wishes = bound.arguments.get("wishes", {})
        given = {key: value for key, value in wishes.items() if value not in (None, [])}
        seen.append((name, bound.arguments | {"wishes": given}))
        return 0

    return call


def by_typer(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["sandbox", *words])
    return application.run_typer()


SPELLINGS = sorted({spelling for option in TABLE for spelling in (option.flag, *option.short)}
                   | {f"--no-{option.flag[2:]}" for option in TABLE if option.parse is None}
                   | {flag for flags in (*quick.WITH_WISHES.values(), quick.INFO, quick.LAB_RUN) for flag in flags})
VALUES = st.sampled_from(["64m", "1", "", "-1", "--", "-", "max", "a=b", "true", "ä", "--memory", "-t"])
WORDS = st.one_of(
    st.sampled_from(SPELLINGS), VALUES,
    st.builds("{}={}".format, st.sampled_from(SPELLINGS), VALUES),
    st.builds("{}{}".format, st.sampled_from(["-m", "-t", "-tm", "-tt", "-et", "-x", "-c"]), VALUES),
    st.sampled_from(["--help", "--memry", "true", "ls", "-l"]))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(COMMANDS)), st.lists(WORDS, max_size=6))
@example("run", ["-m", "64m", "--", "true"])
@example("run", ["--", "--", "true"])
@example("run", ["-m", "--", "true"])
@example("run", ["--json", "-", "--no-die-with-parent", "true", "-m", "1"])
@example("explain", ["--json=x", "true"])
@example("lab run", ["-t", "--engine", "vm", "bash", "-l"])
@example("info", ["--json"])
def test_quick_and_typer_call_the_same(command: str, words: list[str]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        seen: list[Any] = []
        for name in COMMANDS.values():
            monkeypatch.setattr(commands, name, record(name, seen))
        line = [*command.split(), *words]
        work = quick.command_of(line)
        if work is None:
            return
        assert work() == 0
        assert by_typer(line, monkeypatch) == 0
        quickly, slowly = seen
        assert quickly == slowly


@pytest.mark.parametrize("line", [
    ["run", "-m", "64m", "--cpus=1.5", "--pids-limit", "20", "--json", "-", "--", "true"],
    ["run", "true", "--help"], ["run"], ["explain", "--format", "sh", "-tm64m", "ls"], ["info"], ["info", "--json"],
    ["lab", "run", "--engine", "vm", "--", "true"]])
def test_ordinary_lines_need_no_typer(line: list[str]) -> None:
    assert quick.command_of(line) is not None


@pytest.mark.parametrize("line", [
    [], ["--help"], ["run", "--help"], ["run", "--memroy", "1"], ["run", "-m"], ["run", "--oom-group=1", "true"],
    ["info", "x"], ["lab"], ["lab", "ls"], ["gc"], ["compare", "true"], ["run", "-x", "true"]])
def test_the_rest_is_for_typer(line: list[str]) -> None:
    assert quick.command_of(line) is None


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_flag_is_in_both(command: str) -> None:
    found = typer.main.get_command(application.application(""))
    for word in command.split():
        found = found.commands[word]  # type: ignore[attr-defined]
    theirs = {}
    for parameter in found.params:
        if parameter.param_type_name == "option" and "--help" not in parameter.opts:
            for switch, spellings in ((True, parameter.opts), (False, parameter.secondary_opts)):
                for spelling in spellings:
                    theirs[spelling] = (switch if parameter.is_flag else None, parameter.multiple)  # type: ignore[attr-defined]
    ours = {"info": quick.INFO, "lab run": quick.LAB_RUN}.get(command) or quick.table() | quick.WITH_WISHES[command]
    assert {spelling: (flag.switch, flag.repeatable) for spelling, flag in ours.items()} == theirs

