"""The parts that the time of a launch is made of."""

from __future__ import annotations

from collections.abc import Iterable

from ..report import StepReport

PHASES = {
    "start": "compile the plan and start the guard",
    "create": "make the cgroups, and a network if there is to be one; with systemd one call that makes the unit and "
              "carries the limits",
    "enable": "enable controllers for children (cgroup v2), make room for them in a unit",
    "limit": "write the limits that systemd was not told, and read every one back",
    "attach": "open the cgroups for the command, and let it go",
    "exec": "from there to the execve: namespaces, mounts, joining the cgroups",
    "wait": "the command itself, from its execve to its death",
    "teardown": "read the usage, remove cgroups and unit, until everything is gone",
}
"""The parts of a launch, one after another: together they are the whole of it."""

OPS = {
    "makedirs": "start", "spawn": "start",
    "property": "create", "mkdir": "create", "check_type": "create", "inherit": "create", "start_unit": "create",
    "start_service": "create", "reserve": "create", "nftables": "create", "veth": "create",
    "address": "create", "route": "create", "netem": "create", "tbf": "create",
    "enable": "enable", "split": "enable",
    "write": "limit", "read_back": "limit", "device_filter": "limit", "has_filter": "limit", "read_property": "limit",
    "streams": "attach", "attach": "attach", "open": "attach", "open_directory": "attach", "go": "attach",
}
"""Which phase each step of the host is counted to."""


def by_phase(steps: Iterable[StepReport]) -> dict[str, float]:
    """Seconds of the steps that the launcher itself carried out before the command ran, by phase."""
    found = dict.fromkeys(PHASES, 0.0)
    for step in steps:
        if step.seconds is not None and step.phase != "CLEANUP":
            found[OPS[step.op]] += step.seconds
    return found
