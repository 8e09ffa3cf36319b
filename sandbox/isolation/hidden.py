"""Why the command was not found: its file is on the host, in a directory that is empty inside."""

from __future__ import annotations

import os

from ..stdlib import TYPE_CHECKING
from . import paths

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..steps import Plan

HIDING = (*paths.PRIVATE, "/dev")
"""Directories of the host in whose place there is a file system in memory."""
MOST_LINE = 256
"""Bytes of a script's first line that the kernel reads (BINPRM_BUF_SIZE)."""


def remark(plan: Plan, candidates: tuple[str, ...], script: str = "") -> str:
    """Return a clause that names the hidden file and the flag that shows it; empty if no file is hidden.

    :param candidates: the paths at which the command was looked for.
    :param script: a script of which only the interpreter was not found.
    """
    directories = tuple(_hiding(plan))
    sources = {step.args[0]: str(step.args[1]) for step in plan.steps if step.op == "tree"}
    shown = {str(step.args[1]): sources.get(step.args[0], "") for step in plan.steps if step.op == "place"}
    here = next(str(step.args[0]) for step in plan.steps if step.op == "chdir")
    wanted = (_interpreter(_outside(os.path.join(here, script), shown)),) if script else candidates
    inside = (os.path.normpath(os.path.join(here, one)) for one in wanted)
    found = next((path for path in inside if os.path.exists(_outside(path, shown))), "")
    for path in dict.fromkeys((found, os.path.realpath(_outside(found, shown)))) if found else ():
        directory = next((one for one in directories if paths.is_below(path, one)), "")
        if directory and not _place(path, shown):
            first = f"{directory}/{path[len(directory) + 1:].partition('/')[0]}"
            return (f": the sandbox's own {directory} hides the host's {path}; to show it, add "
                    f"-v {first}:{first}:ro")
    return ""


def _hiding(plan: Plan) -> Iterator[str]:
    """What the plan covers, so that the host's files in it are not seen."""
    if any(step.op == "root" and step.realises == "rootfs" for step in plan.steps):
        return
    for step in plan.steps:
        if step.op == "mask" or (step.op == "mount" and step.args[0] == "tmpfs" and step.args[1] in HIDING):
            yield str(step.args[0 if step.op == "mask" else 1])


def _place(path: str, shown: Mapping[str, str]) -> str:
    """What is bound inside at this path or above it; empty if nothing is."""
    return max((one for one in shown if paths.is_within(path, one)), key=len, default="")


def _outside(path: str, shown: Mapping[str, str]) -> str:
    """The host's name for a path inside.

    :param shown: what is bound inside: its place, and its path on the host, empty if it has none.
    """
    place = _place(path, shown)
    return shown[place] + path[len(place):] if place else path


def _interpreter(script: str) -> str:
    """The interpreter that the first line of a script names; the script itself if it names none."""
    try:
        with open(script, "rb") as file:
            line = file.readline(MOST_LINE)
    except OSError:
        return script
    words = line.removeprefix(b"#!").split() if line.startswith(b"#!") else []
    return os.fsdecode(words[0]) if words else script
