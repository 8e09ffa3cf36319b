"""The flags of ``run`` and ``explain``, made from the table in :mod:`sandbox.options`, and what they wish for."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from sandbox.options import TABLE, Option


def with_flags(function: Callable[..., int]) -> Callable[..., int]:
    """``function`` with a keyword for each option in place of its ``**wishes``; typer reads the signature.

    :param function: takes the command, keywords of its own, and ``**wishes``.
    """
    signature = inspect.signature(function, eval_str=True)
    command, *own, _ = signature.parameters.values()
    parameters = [command, *map(_parameter, TABLE), *(one.replace(kind=one.KEYWORD_ONLY) for one in own)]

    def with_all(**values: Any) -> int:
        return function(**values)

    with_all.__doc__ = function.__doc__
    with_all.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    with_all.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return with_all


def _parameter(option: Option) -> inspect.Parameter:
    """Every value stays text here: :mod:`sandbox.units` reads it, whatever way it came."""
    spellings = [option.flag, *option.short]
    if option.parse is None:
        spellings[0] += "/--no-" + option.flag.removeprefix("--")
    setting = typer.Option(*spellings, metavar=option.metavar or None, help=option.help, show_default=False,
                           rich_help_panel=option.group)
    value: Any = bool if option.parse is None else list[str] if option.repeatable else str
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=None,
                             annotation=Annotated[value | None, setting])


class GroupedHelp(TyperCommand):
    """A command whose ``--help`` lists the flags under the headings of the table, without needing rich."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record and parameter.param_type_name == "option":
                groups.setdefault(getattr(parameter, "rich_help_panel", None) or "Options", []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)
