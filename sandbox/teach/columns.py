"""The columns of ``sandbox compare`` and ``sandbox bench``: each driver, that of systemd once for each type of unit."""

from __future__ import annotations

from ..errors import SpecError
from ..options import suggest

COLUMNS: dict[str, dict[str, str]] = {
    "cgroupfs": {"driver": "cgroupfs"},
    "delegated": {"driver": "delegated"},
    "systemd": {"driver": "systemd"},
    "systemd-service": {"driver": "systemd", "unit_type": "service"},
    "none": {"driver": "none"},
}
"""What ``--drivers`` may name, and the wishes that make it."""


def named(drivers: str) -> tuple[str, ...]:
    """The columns that ``--drivers`` names, with commas between, each once; none when it is empty.

    :raises SpecError: there is no such column; the hint has a similar one.
    """
    names = tuple(dict.fromkeys(name for part in drivers.split(",") if (name := part.strip())))
    for name in names:
        if name not in COLUMNS:
            raise SpecError(f"--drivers: there is no driver {name!r}", field="drivers",
                            hint=suggest(name, list(COLUMNS)) or f"use {', '.join(COLUMNS)}")
    return names
