"""Protections of memory that the cgroups above make void, or bound."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.errors import CgroupError
from sandbox.knobs import KNOBS
from sandbox.steps import Limit
from sandbox.verify import binding, check_protection


def below(root: Path, *levels: dict[str, str], file: str = "memory.low", value: object = 8 << 20) -> Limit:
    """A limit in the last of these cgroups, each in the one before, with these files."""
    place, chain = root, []
    for files in levels:
        place /= "g"
        place.mkdir()
        chain.insert(0, str(place))
        for name, text in files.items():
            (place / name).write_text(f"{text}\n")
    return Limit(realises="limits.memory_low", asked="8M", applied=str(value), files=(f"{chain[0]}/{file}",),
                 knob="memory_low" if file in KNOBS["memory_low"].files(2) else "cgroup_conf", value=value, version=2,
                 ancestors=tuple(chain[1:]))


OPEN = {"memory.max": "max", "memory.high": "max"}


@pytest.mark.parametrize("levels", [
    [],
    [{**OPEN, "memory.low": "16777216"}],
    [{**OPEN, "memory.low": "4096"}],
    [{**OPEN, "memory.low": "0", "memory.max": "104857600"}],
    [{**OPEN, "memory.low": "0", "memory.high": "104857600"}],
    [{**OPEN, "memory.low": "0"}, {**OPEN, "memory.low": "0", "memory.max": "104857600"}],
    [{**OPEN, "memory.low": "0"}, {**OPEN, "memory.low": "4096", "memory.max": "104857600"},
     {**OPEN, "memory.low": "4096"}],
    [{}],
])
def test_it_protects_from_somebody(tmp_path: Path, levels: list[dict[str, str]]) -> None:
    """Within the first cgroup above that has a limit, or up to the root."""
    check_protection(below(tmp_path, *levels, {"memory.low": "8388608"}))


@pytest.mark.parametrize("levels", [
    [{**OPEN, "memory.low": "0"}],
    [{**OPEN, "memory.low": "0"}, {**OPEN, "memory.low": "4096"}],
    [{**OPEN, "memory.max": "104857600", "memory.low": "4096"}, {**OPEN, "memory.low": "0"}],
])
@pytest.mark.parametrize(("file", "value"), [("memory.low", 8 << 20), ("memory.min", "8M")])
def test_it_protects_from_nobody(tmp_path: Path, levels: list[dict[str, str]], file: str, value: object) -> None:
    named = [{key.replace("memory.low", file): text for key, text in level.items()} for level in levels]
    with pytest.raises(CgroupError, match=r"g/memory\.\w+ is 0"):
        check_protection(below(tmp_path, *named, {file: "8388608"}, file=file, value=value))


def test_no_protection_asked_for(tmp_path: Path) -> None:
    check_protection(below(tmp_path, {**OPEN, "memory.low": "0"}, {"memory.low": "0"}, value=0))


@pytest.mark.parametrize(("above", "bounded"), [("4194304", True), ("16777216", False), ("max", False)])
def test_what_bounds_it(tmp_path: Path, above: str, bounded: bool) -> None:
    limit = below(tmp_path, {"memory.low": above}, {"memory.low": "8388608"})
    assert binding(limit) == (f"{tmp_path}/g/memory.low" if bounded else limit.files[0], ())
