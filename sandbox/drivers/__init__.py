"""Drivers: who makes the cgroup and writes the limits. A driver is a compiler from ``(Spec, Host)`` to a Plan."""

from __future__ import annotations

from ..errors import DriverUnavailable, SpecError
from ..host import Host
from ..spec import Spec
from ..spelling import spelled
from ..stdlib import Protocol, cache
from ..steps import Plan

NAMES = ("systemd", "delegated", "cgroupfs", "none")
"""Every driver."""
ASKING = ("auto", "systemd", "delegated")
"""The wishes for which systemd is asked about itself."""
PLACES: dict[str, frozenset[str]] = {
    "systemd": frozenset(("unit_type", "unit", "slice", "property", "systemd_user")),
    "delegated": frozenset(("unit", "slice", "property", "systemd_user")),
    "cgroupfs": frozenset(("cgroup_parent",)),
    "none": frozenset(),
}
"""The wishes about the place of the cgroup that each driver can fulfil."""


class Driver(Protocol):
    """What a driver offers. It is a module-level object of its module, found by name through :func:`get`."""

    name: str

    def problems(self, host: Host) -> tuple[str, ...]:
        """Why it cannot be used on ``host``, a sentence each; empty is fine. Pure."""

    def compile(self, spec: Spec, host: Host, *, name: str) -> Plan:
        """The plan for ``spec``. Pure: no I/O, no clock, no randomness.

        :param name: the sandbox's name, unique on the host.
        """


def check_name(name: str, source: str) -> None:
    """Refuse a name that no driver has.

    :param source: where the user gave it, such as ``--driver``.
    :raises SpecError: naming ``source``.
    """
    if name not in NAMES:
        raise SpecError(f"{source}: there is no driver {name!r}", field="driver", hint=f"use auto, {', '.join(NAMES)}")


@cache
def get(name: str) -> Driver:
    """The driver called ``name``; its module is imported on first use.

    :raises SpecError: when there is none.
    """
    check_name(name, spelled("driver"))
    module = __import__(f"{__name__}.{name}", fromlist=("driver",))  # importlib's own function costs 2 ms to load
    driver: Driver = module.driver
    return driver


def choose(spec: Spec, host: Host) -> tuple[Driver, str]:
    """The driver for ``spec`` on ``host``, and the reason.

    :raises SpecError: there is no driver of that name.
    :raises DriverUnavailable: the named driver cannot be used here, or not with these flags.
    """
    asked = _asked(spec)
    name, reason = _automatic(asked, host) if spec.driver == "auto" else (
        spec.driver, f"asked for by {spelled('driver')}")
    driver = get(name)
    problems = driver.problems(host)
    if problems:
        raise DriverUnavailable(f"the {name} driver cannot be used here: {problems[0]}",
                                hint=_instead(name, spec, host))
    strange = sorted(asked - PLACES[name])
    if strange:
        able = [other for other in NAMES if strange[0] in PLACES[other] and other != "none"]
        raise DriverUnavailable(f"{spelled(strange[0])} means nothing to the {name} driver, which is used because: "
                                f"{reason}", hint=f"it is for {spelled('driver', *able)}")
    return driver, reason


def _instead(name: str, spec: Spec, host: Host) -> str:
    """What to do when the driver ``name`` cannot be used."""
    if name not in ASKING:
        return "see `sandbox info`" + (f", or leave {spelled('driver')} out" if spec.driver == name else "")
    return host.manager.remedy or f"use {spelled('driver', 'cgroupfs')}"


def _asked(spec: Spec) -> frozenset[str]:
    """The wishes about the cgroup's place."""
    wishes = {"unit_type": spec.unit_type != "scope", "unit": spec.unit, "slice": spec.slice,
              "property": spec.property, "systemd_user": spec.systemd_user, "cgroup_parent": spec.cgroup_parent}
    return frozenset(name for name, wish in wishes.items() if wish)


def _automatic(asked: frozenset[str], host: Host) -> tuple[str, str]:
    """What ``auto`` means here. With systemd, it is asked, so that one manager has the cgroups; never behind its
    back: a group of ours in its tree loses its limits when an unrelated unit stops."""
    manager = host.manager
    if not host.systemd_running:
        problems = get("cgroupfs").problems(host)
        if problems and "cgroup_parent" not in asked:
            return "none", f"no cgroup can be made here: {problems[0]}"
        return "cgroupfs", "systemd is not running, so nobody else manages the cgroups"
    if "cgroup_parent" in asked:
        return "cgroupfs", f"{spelled('cgroup_parent')} names a place that systemd does not make"
    if manager.delegated:
        return "delegated", f"systemd has delegated {manager.delegated} to the launcher"
    if manager.problem:
        return "none", f"systemd manages the cgroups, but cannot be asked: {manager.problem}"
    return "systemd", "systemd is running, and manages the cgroups"
