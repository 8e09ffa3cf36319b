"""``sandbox conflict``: experiments with two managers of one cgroup tree, in a VM that may be spoiled."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from sandbox.errors import SandboxError, SpecError

from .messages import emit, say

EXPERIMENTS = ("vanishing-limit",)
UNDELEGATE = """
mkdir -p /run/systemd/system/sandbox-lab.service.d
printf '[Service]\\nDelegate=no\\n' >/run/systemd/system/sandbox-lab.service.d/conflict.conf
systemctl daemon-reload
exec sandbox conflict "$@" --here --json
"""
"""The lab's own unit is delegated, which keeps every controller on for all of the machine. Few machines have that."""


def conflict(
    experiment: Annotated[str, typer.Argument(metavar="vanishing-limit", show_default=False)] = "vanishing-limit",
    image: Annotated[str, typer.Option(metavar="NAME", show_default=False,
                                       help="of the VM: trixie (systemd 257), bookworm (systemd 252)")] = "trixie",
    json: Annotated[bool, typer.Option("--json", help="machine-readable, on stdout", show_default=False)] = False,
    html: Annotated[str | None, typer.Option(metavar="FILE", help="write a page with the plot", show_default=False
                                             )] = None,
    here: Annotated[bool, typer.Option("--here", show_default=False, help=(
        "on this machine: changes what controllers its cgroups have"))] = False,
) -> int:
    """Show a limit that is lost because systemd does not know of it, and the same one held; 0 if it goes as predicted.

    In a VM lab, because it changes the whole machine's cgroups.
    """
    if experiment not in EXPERIMENTS:
        raise SpecError(f"there is no experiment {experiment!r}", hint=f"use {', '.join(EXPERIMENTS)}")
    from sandbox.output import Target
    from sandbox.teach.conflict import from_json, text, to_json, vanishing_limit

    target = None if html is None else Target(html, "--html")
    found = vanishing_limit(lambda what: say(f"sandbox: {what}")) if here else from_json(_in_lab(experiment, image))
    emit(to_json(found) if json else text(found))
    if target is not None:
        from sandbox.teach.conflict_page import html as page

        target.write(page(found))
    return 0 if found.confirmed else 1


def _in_lab(experiment: str, image: str) -> str:
    """What the same command prints inside a VM."""
    from sandbox import lab as labs

    from .lab_session import Progress
    from .signals import ENDING, PASSED, Signals, end_in_order

    end_in_order()
    with Progress() as progress:
        lab = labs.up(f"conflict-{os.getpid()}", engine="vm", image=image, progress=progress.tell)
    try:
        code, told = labs.output(lab, ["sh", "-c", UNDELEGATE, "sh", experiment], signals=Signals(ENDING | PASSED))
    finally:
        labs.down(lab.name)
    if code not in (0, 1):
        raise SandboxError(f"the experiment in the lab ended with {code}", hint="see what is printed above")
    return told.decode()
