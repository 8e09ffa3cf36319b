"""docs/programs.md: the programs that tests/behaviour/test_programs.py runs, with the flags that it gives them."""

from __future__ import annotations

from pathlib import Path

from support.programs_table import ROWS

PAGE = Path(__file__).parents[2] / "docs" / "programs.md"


def test_the_page_has_the_rows_of_the_test() -> None:
    """Fails if a flag changes in one of the two only."""
    table = PAGE.read_text().partition("|---|---|---|\n")[2].partition("\n\n")[0]
    assert table.splitlines() == [row.line for row in ROWS]
