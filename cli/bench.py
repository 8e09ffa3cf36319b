"""``sandbox bench``: launches measured, on the command line."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from sandbox.errors import SpecError
from sandbox.teach.bench_phases import PHASES

from .commands import with_defaults
from .messages import emit

Argv = Annotated[list[str] | None, typer.Argument(metavar="[COMMAND [ARG]...]", show_default=False)]


def bench(
    argv: Argv = None,
    drivers: Annotated[str, typer.Option(metavar="NAME,...", rich_help_panel="Measurement", show_default=False, help=(
        "cgroupfs, delegated, systemd, systemd-service, none; else all that can be used here"))] = "",
    rounds: Annotated[int, typer.Option("--rounds", "-n", metavar="N", min=1, rich_help_panel="Measurement",
                                        help="launches of each (100)", show_default=False)] = 100,
    peers: Annotated[bool, typer.Option("--peers", rich_help_panel="Measurement", show_default=False, help=(
        "also whole programs: sandbox run, systemd-run, crun, runc, bwrap"))] = False,
    json: Annotated[str | None, typer.Option("--json", metavar="FILE|-", rich_help_panel="Report", show_default=False,
                                             help="write every time there, as hyperfine does; - is stdout")] = None,
    **wishes: Any,
) -> int:
    """Measure what launching COMMAND (true) costs under each driver, part by part. Takes the flags of `run`."""
    for name in ("driver", "unit_type"):
        if wishes.get(name):
            raise SpecError(f"--{name.replace('_', '-')}: a benchmark compares them all", field=name,
                            hint="choose with --drivers, e.g. --drivers cgroupfs,systemd-service")
    from json import dumps

    from sandbox.output import STDOUT, Target
    from sandbox.teach import bench, bench_table, columns

    # A configured driver does not count either.
    given = {name: value for name, value in with_defaults(wishes).items() if name != "driver"}
    target = None if json is None else Target(json, "--json")
    result = bench.bench(argv or ["true"], given, drivers=columns.named(drivers), rounds=rounds,
                         program=_program() if peers else ())
    if json != STDOUT:
        emit(bench_table.text(result))
    if target is not None:
        target.write(dumps(bench_table.data(result), indent=1) + "\n")
    return 0


bench.__doc__ = "\n".join([f"{bench.__doc__}\n\n\b", *(f"{name:<9} {text}" for name, text in PHASES.items())])


def _program() -> list[str]:
    """How we were started ourselves."""
    script = sys.argv[0]
    return [script] if os.access(script, os.X_OK) else [sys.executable, "-m", "sandbox_cli"]
