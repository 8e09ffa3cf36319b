"""A plugin of pytest that prints which behaviour tests run where in ``make test``, instead of running them."""

from __future__ import annotations

import pytest

from support.selection import PLACES, chosen


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Print a row for each file and matter: how many tests of it run in each place, and with which drivers."""
    tests = {(item.path.stem, getattr(item, "originalname", item.name)): item for item in items}
    rows: dict[tuple[str, str], list[pytest.Item]] = {}
    for (file, _), item in tests.items():
        matter = item.get_closest_marker("matter")
        rows.setdefault((file, matter.args[0] if matter else ""), []).append(item)
    print(f"{'file':<26}{'matter':<12}{'tests':>5}  " + "".join(f"{place:<41}" for place in PLACES))
    for (file, name), found in sorted(rows.items()):
        cells = "".join(f"{_cell(found, place):<41}" for place in PLACES)
        print(f"{file.removeprefix('test_'):<26}{name:<12}{len(found):>5}  {cells}".rstrip())
    items.clear()


def _cell(tests: list[pytest.Item], place: str) -> str:
    drivers = PLACES[place]
    found = [used for test in tests if (used := chosen(test, drivers, place=place, tier="quick"))]
    names = dict.fromkeys(name for used in found for name in used)
    return f"{len(found)}: {' '.join(name[:9] for name in names)}" if found else "-"
