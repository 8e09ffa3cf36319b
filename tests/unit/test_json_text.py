"""Our JSON text is that of the standard library."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.json_text import dumps
from sandbox.report import Outcome

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner), max_leaves=20)


@given(PLAIN)
def test_it_is_what_json_writes(value: object) -> None:
    assert dumps(value) == json.dumps(value, indent=2)


def test_records_of_ours() -> None:
    class Pair(NamedTuple):
        a: int
        b: str

    assert dumps([Outcome.OOM, Pair(1, "x"), {}, []]) == json.dumps(["oom", [1, "x"], {}, []], indent=2)


def test_anything_else_is_refused() -> None:
    with pytest.raises(TypeError, match="JSON has no set"):
        dumps({"a": {1}})
