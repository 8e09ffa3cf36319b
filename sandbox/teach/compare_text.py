"""A comparison for a terminal, by rich, and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from .compare import Comparison
from .compare_rows import NOTHING, Table, heading, notes, place, tables

if TYPE_CHECKING:
    from rich.console import RenderableType

SIGNS = {"same": "=", "different": "≠", "unmet": "✗", "": " "}
STYLES = {"same": "green", "different": "yellow", "unmet": "red", "": ""}
LABEL, CELL, WHY = 20, 36, 20
"""Columns of text for a row's label, a driver and the reason, with which it can be read in lines that are broken."""


def show(comparison: Comparison, *, width: int | None = None, escape: Callable[[str], str] = str) -> None:
    """Print the tables to standard output.

    :param width: of the terminal; its own when None, 80 where there is none.
    :param escape: makes text harmless for a terminal, which arguments need not be.
    """
    from rich.console import Console

    console = Console(width=width, highlight=False, markup=False, emoji=False)
    unbroken = console.options.update(max_width=10_000)
    for text in (heading(comparison), place(comparison)):
        console.print(escape(text), soft_wrap=True)
    drivers = [column.driver for column in comparison.columns]
    for table in tables(comparison):
        console.print()
        console.print(table.caption, style="bold")
        console.print(table.explained, style="dim")
        beside = _beside(table, drivers, escape)
        wrapped = LABEL + CELL * len(drivers) + (WHY if table.has_why else 0)
        room = min(max(wrapped, 100), console.measure(beside, options=unbroken).maximum)
        console.print(beside if console.width >= room else _stacked(table, drivers, escape))
    for note in notes(comparison):
        console.print(f"\nnote: {escape(note)}")


def markdown(comparison: Comparison) -> str:
    """The tables as GitHub's Markdown."""
    drivers = [column.driver for column in comparison.columns]
    parts = [f"`{heading(comparison)}`", place(comparison)]
    for table in tables(comparison):
        head = ["", *drivers, *([" "] if table.has_why else [])]
        rows = [[row.label, *row.cells, *([f"{SIGNS[row.mark]} {row.why}"] if table.has_why else [])]
                for row in table.rows]
        lines = _markdown_rows([head, ["---"] * len(head), *rows])
        parts += [f"### {table.caption}", table.explained, "\n".join(lines)]
    return "\n\n".join([*parts, *(f"- {note}" for note in notes(comparison))])


def _markdown_rows(rows: list[list[str]]) -> Iterator[str]:
    for row in rows:
        cells = (cell.replace("|", "\\|").replace("<", "&lt;").replace("\n", "<br>") for cell in row)
        yield f"| {' | '.join(cells)} |"


def _beside(content: Table, drivers: list[str], escape: Callable[[str], str]) -> RenderableType:
    """A column for each driver."""
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    several = any("\n" in cell for row in content.rows for cell in row.cells)
    grid = Grid(box=box.SIMPLE, show_lines=several, pad_edge=False)
    for name in ("", *drivers, *(["why"] if content.has_why else [])):
        grid.add_column(name, overflow="fold", max_width=None if name else 34)
    for row in content.rows:
        why = [Text(f"{SIGNS[row.mark]} {_escaped(row.why, escape)}", STYLES[row.mark])] if content.has_why else []
        grid.add_row(Text(escape(row.label)), *(Text(_escaped(cell, escape)) for cell in row.cells), *why)
    return grid


def _stacked(content: Table, drivers: list[str], escape: Callable[[str], str]) -> RenderableType:
    """The drivers below each other, for narrow terminals; once for all where they do not differ."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table as Grid
    from rich.text import Text

    parts: list[RenderableType] = []
    for row in content.rows:
        sign = f"{SIGNS[row.mark]} " if row.mark else ""
        parts.append(Text.assemble((sign, STYLES[row.mark]), (escape(row.label), "bold")))
        grid = Grid.grid(padding=(0, 1, 0, 0))
        grid.add_column(min_width=max(map(len, (*drivers, "all"))), no_wrap=True)
        grid.add_column(overflow="fold")
        alike = len(drivers) > 1 and len(set(row.cells)) == 1
        for driver, cell in [("all", row.cells[0])] if alike else zip(drivers, row.cells, strict=True):
            if cell != NOTHING:
                grid.add_row(driver, Text(_escaped(cell, escape)))
        if row.why:
            grid.add_row("", Text(_escaped(row.why, escape), STYLES[row.mark]))
        parts.append(Padding(grid, (0, 0, 0, 4), expand=False))
    return Group(*parts)


def _escaped(text: str, escape: Callable[[str], str]) -> str:
    """Its line breaks are ours."""
    return "\n".join(map(escape, text.split("\n")))
