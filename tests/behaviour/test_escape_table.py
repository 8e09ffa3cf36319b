"""Each of the forty cases has its tests, and each of these tests has a protection that can be taken away."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from sandbox.init.build import DIRECTORY, STRICT
from support.forty_cases import FORTY
from support.protections_table import ROWS

pytestmark = pytest.mark.matter("program")

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.mark.parametrize("case", FORTY)
def test_every_case_is_a_test(case: str) -> None:
    for place in FORTY[case]:
        file, _, name = place.partition("::")
        assert re.search(rf"^def {name}\(", (HERE / file).read_text(), re.MULTILINE), f"{case}: there is no {place}"


def test_there_are_forty() -> None:
    assert len(FORTY) == 40 + len(("S13", "S05"))


@pytest.mark.parametrize("case", FORTY)
def test_what_protects_it_can_be_taken_away(case: str) -> None:
    """``make test-protections`` does so, and looks whether the tests fail: its table must keep up with the sources."""
    rows = [row for row in ROWS if row.case == case]
    assert rows
    for row in rows:
        assert set(row.tests) <= {*FORTY[case]}
        for edit in row.edits:
            text = (ROOT / edit.file).read_text()
            assert text.count(edit.old) == 1, f"{edit.file}: once, and not {text.count(edit.old)} times: {edit.old}"


@pytest.mark.requires("cc")
@pytest.mark.parametrize("case", FORTY)
def test_what_is_left_of_the_sources_compiles(case: str) -> None:
    for row in (row for row in ROWS if row.case == case):
        texts = {edit.file: (ROOT / edit.file).read_text() for edit in row.edits}
        for edit in row.edits:
            texts[edit.file] = texts[edit.file].replace(edit.old, edit.new)
        for file, text in texts.items():
            if file.endswith(".py"):
                compile(text, file, "exec")
            elif file.endswith(".c"):
                subprocess.run(["cc", *STRICT, "-fsyntax-only", "-I", DIRECTORY, "-x", "c", "-"], input=text.encode(),
                               check=True)
