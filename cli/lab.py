"""``sandbox lab``: labs on the command line."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from sandbox import lab as labs
from sandbox.errors import SpecError
from sandbox.lab.record import Lab

from . import commands
from .lab_session import Progress
from .lab_session import run as run_in_lab
from .messages import emit, emit_json, escaped

COMMAND_FIRST = {"allow_interspersed_args": False, "help_option_names": ["--help"]}

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True,
                  help="Boot a machine of its own to break: a real systemd, in a container or a VM.")

Engine = Annotated[str, typer.Option(metavar="container|vm", show_default=False,
                                     help="container: namespaces of this kernel; vm: QEMU, cgroup v2 anywhere")]
Image = Annotated[str, typer.Option(metavar="NAME", show_default=False,
                                    help="of the VM: trixie, bookworm, bookworm-legacy (see `sandbox lab images`)")]
Name = Annotated[str, typer.Option(metavar="NAME", show_default=False, help="which lab; by default the one that is up")]
Argv = Annotated[list[str] | None, typer.Argument(metavar="COMMAND [ARG]...", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="machine-readable, on stdout", show_default=False)]


@app.command()
def up(engine: Engine = "", image: Image = "", name: Name = "") -> int:
    """Boot a lab, if it is not up."""
    with Progress() as progress:
        lab = labs.up(name, engine=engine, image=image, progress=progress.tell)
    emit(lab.name)
    return 0


@app.command(context_settings=COMMAND_FIRST)
def run(argv: Argv = None, engine: Engine = "", image: Image = "", name: Name = "",
        terminal: Annotated[bool, typer.Option("--tty", "-t", help="give it a terminal", show_default=False)] = False
        ) -> int:
    """Run COMMAND in a lab, which is booted first if need be. The exit code is the command's own.

    The current directory is visible inside; what is changed in it stays in the lab.
    """
    return commands.lab_run(argv or [], engine=engine, image=image, name=name, tty=terminal)


@app.command(context_settings=COMMAND_FIRST)
def shell(argv: Argv = None, engine: Engine = "", image: Image = "", name: Name = "") -> int:
    """A terminal in a lab, with a shell or COMMAND."""
    return run_in_lab(argv or ["bash", "-l"], engine=engine, image=image, name=name, tty=True)


@app.command()
def ls(json: Json = False) -> int:
    """List the labs that are up."""
    from dataclasses import asdict

    found = labs.running()
    if json:
        emit_json([asdict(lab) for lab in found])
    elif found:
        rows = [("NAME", "ENGINE", "IMAGE", "UP", ""), *(_row(lab) for lab in found)]
        emit(_table(rows))
    return 0


@app.command()
def down(name: Annotated[str, typer.Argument(metavar="[NAME]", show_default=False)] = "",
         all: Annotated[bool, typer.Option("--all", help="every lab", show_default=False)] = False) -> int:
    """End a lab: nothing of it stays."""
    found = [lab.name for lab in labs.running()]
    if not name and not all and len(found) > 1:
        raise SpecError(f"there are {len(found)} labs: {', '.join(found)}", hint="name one, or use --all")
    if name and not labs.down(name):
        raise SpecError(f"there is no lab {name!r}", hint="see sandbox lab ls")
    for one in [] if name else found:
        labs.down(one)
    return 0


@app.command()
def images(action: Annotated[str, typer.Argument(metavar="[list|build|prune]", show_default=False)] = "list",
           names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", show_default=False)] = None,
           all: Annotated[bool, typer.Option("--all", help="prune: those in use by this version too",
                                             show_default=False)] = False) -> int:
    """The disks VMs are started from: list what is in the cache, build, or remove what no version needs any more."""
    from sandbox.lab import image, recipe

    if action == "build":
        with Progress() as progress:
            for name in names or [recipe.DEFAULT]:
                image.ensure(recipe.TOOLS, progress.tell)
                image.ensure(recipe.image(name).recipe, progress.tell)
    elif action == "prune":
        for one in image.prune(everything=all):
            emit(f"{one.path} {_size(one.size)}")
    elif action == "list":
        sizes = {one.path: _size(one.size) for one in image.built()}
        emit(_table([("NAME", "SIZE", ""), *((name, sizes.get(image.path_of(one.recipe), "not built"), one.summary)
                                            for name, one in recipe.IMAGES.items())]))
    else:
        raise SpecError(f"lab images: there is no action {action!r}", hint="use list, build or prune")
    return 0


def _row(lab: Lab) -> tuple[str, ...]:
    return lab.name, lab.engine, lab.image, f"{time.time() - lab.since:.0f} s", lab.detail


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, map(escaped, row), widths)).rstrip() for row in rows)


def _size(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"
