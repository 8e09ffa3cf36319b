"""One suite for every driver: each test runs once per driver that its behaviour makes sense with."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sandbox as package
from support.machine import Snapshot, reap_orphans
from support.sandbox_run import Program, names
from support.selection import DRIVERS, chosen
from support.systemctl import systemctl
from support.warm_program import warm_server

__all__ = ["warm_server"]

PR_SET_CHILD_SUBREAPER = 36


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "driver" in metafunc.fixturenames:
        metafunc.parametrize("driver", chosen(metafunc.definition, DRIVERS) or [NOBODY])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    items[:] = [item for item in items if here not in item.path.parents or _runs_here(item)]
    if os.geteuid() != 0 and "cgroupfs" not in DRIVERS:
        return  # the user's own systemd gives what is needed
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.requires("root"))


NOBODY = "no-driver"
"""Stands in the place of the drivers of a test that runs with none of those that are tested here."""


def _runs_here(item: pytest.Item) -> bool:
    return NOBODY not in item.name and bool(chosen(item, (*DRIVERS, "none")))


@pytest.fixture(scope="session", autouse=True)
def subreaper() -> None:
    """Whatever a killed runner leaves becomes a child of pytest, and so is found."""
    assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


@pytest.fixture(scope="session", autouse=True)
def passable(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where owners cannot be mapped, the command is somebody else, and must get by here to the test's own directory."""
    directory = tmp_path_factory.getbasetemp()
    directory.chmod(0o711)
    if "PYTEST_XDIST_WORKER" in os.environ:  # each worker has a directory of its own in that of the session
        directory.parent.chmod(0o711)


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """The machine is after each test what it was before."""
    if os.geteuid() != 0 and "cgroupfs" in DRIVERS:
        yield
        return
    before = Snapshot.take()
    yield
    reap_orphans()
    assert before.left() == []


@pytest.fixture(scope="session")
def check_report() -> Callable[[dict[str, Any]], None]:
    """Validates a report against the schema that the package ships."""
    import jsonschema

    schema = json.loads(Path(package.__file__).with_name("report.schema.json").read_text())
    validate, known = jsonschema.validators.validator_for(schema)(schema).validate, set[Shape]()

    def unlike(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [row for row in rows if shape(row) not in known]

    def check(report: dict[str, Any]) -> None:
        """Validate a report. Its 100 rows of steps and exposure are much the same in a thousand reports."""
        exposure, steps = report["exposure"], report["steps"]
        seen = exposure and exposure | {"items": unlike(exposure["items"])}
        validate(report | {"steps": unlike(steps), "exposure": seen})
        known.update(map(shape, [*steps, *(exposure["items"] if exposure else ())]))

    return check


Shape = tuple[tuple[str, object], ...]


def shape(row: dict[str, Any]) -> Shape:
    """What the schema can tell of a row: all but the values of its numbers and lists."""
    return tuple((key, value if isinstance(value, str | bool) else type(value)) for key, value in row.items())


@pytest.fixture
def slice_with() -> Iterator[Callable[..., str]]:
    """A function that starts a slice with these properties, and returns the slice's name."""
    made = []

    def make(*properties: str) -> str:
        name = f"{names('test').replace('-', '')}.slice"
        made.append(name)
        for command in (["start", name], ["set-property", "--runtime", name, *properties]):
            assert systemctl(*command).returncode == 0
        return name

    yield make
    for name in made:
        for word in ("stop", "revert"):
            assert systemctl(word, name).returncode == 0


@pytest.fixture
def sandbox(driver: str, tmp_path: Path, check_report: Callable[[dict[str, Any]], None]) -> Program:
    """``sandbox run`` with each driver in turn."""
    return Program(driver, tmp_path, check_report)
