"""Which tests run where: one rule for every place, driver and tier.

A behaviour is tested wherever it can differ, and once elsewhere. Each behaviour test says by the marker ``matter`` what
its behaviour depends on; a test without one is an error, so that none is left out by accident. ``make test`` runs the
selection of :data:`QUICK`, ``make test-all`` everything everywhere. ``tests/suite.py --table`` prints the result.
"""

from __future__ import annotations

import os

import pytest

MATTERS = {
    "limits": "a limit, its effect or its counters: differs by cgroup version, by driver, and by who may set it",
    "units": "what systemd is told and knows: differs by driver and by systemd",
    "process": "how a run starts, gets signals and streams, and ends: differs by driver",
    "isolation": "what the command can reach: differs by kernel and by who runs it, hardly by driver",
    "program": "command line, configuration and messages: differs nowhere",
}
PLACES = {
    "host": ("cgroupfs",),
    "container": ("systemd", "service", "delegated"),
    "vm": ("systemd", "delegated", "service", "cgroupfs"),
    "rootless": ("systemd",),
}
"""The drivers that make cgroups in each place: this machine; systemd in a container on this kernel; a VM with systemd
and cgroup v2; the same VM as a normal user."""

ALL, ONE, NOT = "all", "one", "-"
"""With each driver of the place, with the first of them, not at all."""
QUICK = {
    "limits": {"host": ALL, "container": ALL, "vm": ALL, "rootless": ALL},
    "units": {"host": ALL, "container": ALL, "vm": ALL, "rootless": ALL},
    "process": {"host": ALL, "container": ALL, "vm": ONE, "rootless": ONE},
    "isolation": {"host": ALL, "container": ONE, "vm": ONE, "rootless": ONE},
    "program": {"host": ALL, "container": NOT, "vm": NOT, "rootless": NOT},
}
"""By matter and place."""

WITH_KERNEL_TESTS = ("host", "vm")
"""The places in which ``make test`` runs tests/kernel: once for each kernel."""

PLACE = os.environ.get("SANDBOX_TEST_PLACE", "host")
TIER = os.environ.get("SANDBOX_TEST_TIER", "all")
"""``quick`` or ``all``."""


def chosen(test: pytest.Item | pytest.Function, drivers: tuple[str, ...], *, place: str = PLACE, tier: str = TIER
           ) -> tuple[str, ...]:
    """The drivers that a test runs with; none at all when it does not run here.

    :param test: whose markers count.
    :param drivers: those of the place that make cgroups.
    :raises pytest.UsageError: it does not say what it is a matter of.
    """
    matter = test.get_closest_marker("matter")
    if matter is None or matter.args[0] not in MATTERS:
        raise pytest.UsageError(f"{test.nodeid} needs a marker matter(NAME), one of: {', '.join(MATTERS)}")
    only, also = test.get_closest_marker("only"), test.get_closest_marker("drivers")
    own = tuple(name for name in drivers if only is None or name in only.args)
    found = (*own, *(also.args if also else ()))
    if test.get_closest_marker("once"):
        found = found[:1]
    if tier == "all":
        return found
    extent = NOT if test.get_closest_marker("long") else QUICK[matter.args[0]][place]
    if extent == ALL and place != "host":
        # Without a cgroup there is nothing that differs from the host.
        found = own
    return found if extent == ALL else found[:1] if extent == ONE else ()
