"""Drivers: who makes the cgroup and writes the limits. A driver is a compiler from ``(Spec, Host)`` to a Plan."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Protocol, cast

from ..errors import DriverUnavailable, SpecError
from ..host import Host
from ..spec import Spec
from ..steps import Plan

NAMES = ("cgroupfs", "none")
"""Every driver, in the order ``auto`` tries them."""


class Driver(Protocol):
    """What a driver offers. It is a module-level object of its module, found by name through :func:`get`."""

    name: str

    def problems(self, host: Host) -> tuple[str, ...]:
        """Why it cannot be used on ``host``, a sentence each; empty is fine. Pure."""

    def compile(self, spec: Spec, host: Host, *, name: str) -> Plan:
        """The plan for ``spec``. Pure: no I/O, no clock, no randomness.

        :param name: the sandbox's name, unique on the host.
        """


@cache
def get(name: str) -> Driver:
    """The driver called ``name``; its module is imported on first use.

    :raises SpecError: when there is none.
    """
    if name not in NAMES:
        raise SpecError(f"--driver: there is no driver {name!r}", field="driver", hint=f"use auto, {', '.join(NAMES)}")
    return cast(Driver, import_module(f".{name}", __name__).driver)


def choose(name: str, host: Host) -> tuple[Driver, str]:
    """The driver to use for the wish ``name`` (``auto`` or a driver's name), and the reason.

    :raises SpecError: unknown name.
    :raises DriverUnavailable: the named driver cannot be used here.
    """
    if name != "auto":
        driver = get(name)
        problems = driver.problems(host)
        if problems:
            raise DriverUnavailable(f"the {name} driver cannot be used here: {problems[0]}",
                                    hint="see `sandbox info`, or leave --driver out")
        return driver, "asked for by --driver"
    cgroupfs = get("cgroupfs")
    problems = cgroupfs.problems(host)
    if problems:
        return get("none"), f"no cgroup can be made here: {problems[0]}"
    if host.systemd_running:
        return cgroupfs, "systemd is running, but this version has no driver for it yet"
    return cgroupfs, "systemd is not running, so nobody else manages the cgroups"
