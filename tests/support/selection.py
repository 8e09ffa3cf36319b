"""Which tests run where: one rule for every place, driver and tier.

A behaviour is tested wherever it can differ, and once elsewhere. Each behaviour test says by the marker ``matter`` what
its behaviour depends on; a test without one is an error, so that none is left out by accident. ``make test`` runs the
selection of :data:`QUICK`, ``make test-all`` everything everywhere, except in the place ``user``: nobody can make a
cgroup there, and its selection is the same in both. The tests in tests/kernel use no driver, and ``make test`` runs
them on this machine only. ``tests/suite.py --table`` prints the result.
"""

from __future__ import annotations

import os

import pytest

MATTERS = {
    "values": "that a limit binds, set by each driver in its own way: differs by cgroup version, driver and who",
    "limits": "what the kernel counts and ends by a value, and how it is told: differs by cgroup version and who; by "
              "driver only for systemd in the container",
    "enforcement": "that nothing gets round a limit: differs by cgroup version and by who owns the cgroup",
    "units": "what systemd is told and knows: differs by driver and by systemd",
    "process": "how a run starts, gets signals and streams, and ends: differs by driver",
    "remains": "that nothing is left, however it ends: differs by cgroup version, by driver, and by who runs it",
    "isolation": "what the command can reach: differs by who runs it and by kernel, not by driver",
    "program": "command line, configuration and messages: differs nowhere",
}
PLACES = {
    "host": ("cgroupfs",),
    "container": ("systemd", "service", "delegated"),
    "vm": ("systemd", "delegated", "service", "cgroupfs"),
    "rootless": ("systemd",),
    "user": ("none",),
}
"""The drivers that make cgroups in each place: this machine; systemd in a container on this kernel; a VM with systemd
and cgroup v2; the same VM as a normal user; this machine as a normal user, who may make no cgroup."""

PLACES_IN_VM = ("vm", "rootless")

ALL, ONE, STARTS, NOT = "all", "one", "starts", "-"
"""With each driver of the place, with the first of them, with each that is in STARTING, not at all."""
STARTING = ("cgroupfs", "none", "systemd", "service")
"""Not ``delegated``: inside its unit, it starts a run as ``cgroupfs`` does."""
QUICK = {
    "values": {"host": ALL, "container": ALL, "vm": ALL, "rootless": ALL, "user": NOT},
    "limits": {"host": ALL, "container": ALL, "vm": ONE, "rootless": ALL, "user": NOT},
    "enforcement": {"host": ALL, "container": ONE, "vm": ONE, "rootless": ONE, "user": NOT},
    "units": {"host": ALL, "container": ALL, "vm": ALL, "rootless": ALL, "user": NOT},
    "process": {"host": ALL, "container": STARTS, "vm": NOT, "rootless": NOT, "user": NOT},
    "remains": {"host": ALL, "container": ALL, "vm": ONE, "rootless": ONE, "user": NOT},
    "isolation": {"host": ALL, "container": NOT, "vm": NOT, "rootless": NOT, "user": ALL},
    "program": {"host": ALL, "container": NOT, "vm": NOT, "rootless": NOT, "user": NOT},
}
"""By matter and place."""

PLACE = os.environ.get("SANDBOX_TEST_PLACE", "host")
DRIVERS = tuple(os.environ.get("SANDBOX_TEST_DRIVERS", "cgroupfs").split(","))
"""The cgroup drivers that this test run uses. Tests that need no cgroup use the driver ``none`` as well."""
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
        own, found = own[:1], found[:1]
    if tier == "all" and place != "user":
        return found
    extent = QUICK[matter.args[0]][place]
    if tier == "quick" and is_long(test, in_vm=place in PLACES_IN_VM):
        extent = NOT
    if extent == ALL and place != "host":
        # Without a cgroup there is nothing that differs from the host.
        found = own
    if extent == STARTS:
        return tuple(name for name in own if name in STARTING)
    return found if extent == ALL else found[:1] if extent == ONE else ()


def is_long(test: pytest.Item, *, in_vm: bool) -> bool:
    """Whether only ``make test-all`` runs the test."""
    return any(map(test.get_closest_marker, ("long", "long_in_vm") if in_vm else ("long",)))
