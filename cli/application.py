"""``sandbox`` as typer has it: every command with its help, and what becomes of a wrong command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer

from sandbox.errors import SpecError
from sandbox.spelling import as_flag, speaking, spelled

from . import commands
from .commands import exit_code, with_defaults
from .flags import GroupedHelp, with_flags
from .messages import complain, emit, emit_json

# The first word that is no flag begins the command; all flags after it are the command's own.
COMMAND_FIRST = {"allow_interspersed_args": False, "help_option_names": ["--help"]}

Argv = Annotated[list[str] | None, typer.Argument(metavar="COMMAND [ARG]...", show_default=False)]
Profile = Annotated[str | None, typer.Option(metavar="NAME", help="take the profile of this name from the config",
                                             rich_help_panel="Placement", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="machine-readable, on stdout", show_default=False)]


def _version(wanted: bool) -> None:
    if wanted:
        from sandbox import __version__

        emit(f"sandbox {__version__}")
        raise typer.Exit


def root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, show_default=False,
                                               help="print the version")] = False) -> None:
    """Run a command under limits, and say what happened."""


def run(
    argv: Argv = None,
    profile: Profile = None,
    json: Annotated[str | None, typer.Option("--json", metavar="FILE|-", rich_help_panel="Report", show_default=False,
                                             help="write the report there; - is stdout")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", rich_help_panel="Report", show_default=False,
                                          help="print the report's summary in any case")] = False,
    die_with_parent: Annotated[bool, typer.Option("--die-with-parent/--no-die-with-parent", rich_help_panel="Time",
                                                  help="stop when the caller dies", show_default=False)] = True,
    **wishes: Any,
) -> int:
    """Run COMMAND under limits. The exit code is its own, 128+n for a signal, 124 for --timeout, 125 for our errors."""
    return commands.run(argv or [], wishes, profile=profile, json=json, verbose=verbose,
                        die_with_parent=die_with_parent)


def explain(
    argv: Argv = None,
    profile: Profile = None,
    json: Json = False,
    host: Annotated[str | None, typer.Option(metavar="FILE", show_default=False,
                                             help="for another machine: its saved `sandbox info --json`")] = None,
    format: Annotated[str, typer.Option(metavar="text|sh", show_default=False,
                                        help="sh: as commands to type by hand")] = "text",
    export: Annotated[str | None, typer.Option(metavar="TOOL", show_default=False, help=(
        "the same for systemd-run, unit, docker, podman, oci, k8s or sh"))] = None,
    show_env: Annotated[bool, typer.Option("--show-env", show_default=False,
                                           help="print the variables' values too")] = False,
    **wishes: Any,
) -> int:
    """Print each step `run` would take. Touches nothing; takes the flags of `run`."""
    return commands.explain(argv or [], wishes, profile=profile, json=json, host=host, format=format, export=export,
                            show_env=show_env)


def compare(
    argv: Argv = None,
    profile: Profile = None,
    drivers: Annotated[str, typer.Option(metavar="NAME,...", rich_help_panel="Comparison", show_default=False, help=(
        "which ones: cgroupfs, systemd, systemd-service, delegated, none"))] = "",
    no_run: Annotated[bool, typer.Option("--no-run", rich_help_panel="Comparison", show_default=False,
                                         help="compare the plans only")] = False,
    lab: Annotated[bool, typer.Option("--lab", rich_help_panel="Comparison", show_default=False,
                                      help="in a container lab, as where no systemd runs")] = False,
    json: Annotated[bool, typer.Option("--json", rich_help_panel="Report", show_default=False,
                                       help="machine-readable, on stdout")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", rich_help_panel="Report", show_default=False,
                                           help="as Markdown tables")] = False,
    html: Annotated[str | None, typer.Option(metavar="FILE", rich_help_panel="Report", show_default=False,
                                             help="write a page with tables, trees and plots")] = None,
    **wishes: Any,
) -> int:
    """Run COMMAND under several drivers, and show side by side what each is told, what holds, and what it believes.

    Takes the flags of `run`. The command's output is thrown away; systemd is reloaded once for each driver. The exit
    code is 0 when the command ran under each, however it ended.
    """
    if wishes.get("driver"):
        raise SpecError("--driver names one driver", field="driver", hint="sandbox compare --drivers cgroupfs,systemd")
    from .compare import compare

    return compare(argv or [], with_defaults(wishes, profile), drivers=drivers, run=not no_run, lab=lab, json=json,
                   markdown=markdown, html=html)


def info(json: Json = False) -> int:
    """Print what this machine offers for limits."""
    return commands.info(json=json)


def gc(json: Json = False) -> int:
    """Remove what killed runners left."""
    from sandbox import lab
    from sandbox.gc import collect

    removed = (*collect(), *lab.collect())
    if json:
        emit_json({"removed": list(removed)})
    elif removed:
        emit("\n".join(removed))
    return 0


COMMANDS: dict[str, Callable[..., int]] = {"run": run, "explain": explain, "compare": compare, "info": info, "gc": gc}
WITH_FLAGS = (run, explain, compare)


def application(word: str) -> typer.Typer:
    """The typer application; of its commands just ``word`` when it is one of them, for each costs start-up time."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback()(root)
    for name in (word,) if word in COMMANDS else COMMANDS:
        command = COMMANDS[name]
        if command in WITH_FLAGS:
            app.command(name, cls=GroupedHelp, context_settings=COMMAND_FIRST)(with_flags(command))
        else:
            app.command(name)(command)
    if word not in COMMANDS:
        from . import bench, conflict, lab

        app.command("bench", cls=GroupedHelp, context_settings=COMMAND_FIRST)(with_flags(bench.bench))
        app.command("conflict")(conflict.conflict)
        app.add_typer(lab.app, name="lab")
    return app


def run_typer() -> int:
    """Have typer read the command line and run the command; the exit code."""
    app = application(next(iter(sys.argv[1:]), ""))
    try:
        return exit_code(partial(typer.main.get_command(app).main, prog_name="sandbox", standalone_mode=False))
    except Exception as error:
        # typer vendors click from 0.26 on and depends on it before, so its classes have no one name to import.
        if not hasattr(error, "format_message"):
            raise
        complain(*_usage_error(error), one_line=True)
        return 2


def _usage_error(error: Any) -> tuple[str, str]:
    name = getattr(error, "option_name", None)
    if type(error).__name__ != "NoSuchOption" or not name:
        return error.format_message().rstrip("."), "see sandbox --help"
    from sandbox.foreign_words import answer
    from sandbox.options import KEYS, suggest

    word = name.lstrip("-").replace("-", "_")
    known = [word for parameter in error.ctx.command.params for word in parameter.opts + parameter.secondary_opts]
    if word in known:  # that of an argument, which is no flag
        return f"there is no flag {name}", f"give the value without {name}"
    with speaking(as_flag):  # a keyword of Python may have another name as a flag
        flag = spelled(KEYS[word].name) if word in KEYS else ""
        ours = f"write {flag}" if flag in known else answer(word)
    return f"there is no flag {name}", ours or suggest(name, known) or f"see {error.ctx.command_path} --help"

