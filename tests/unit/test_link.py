"""Signals of systemd are read by hand; jeepney writes them here."""

from __future__ import annotations

import pytest
from jeepney import DBusAddress, new_signal

from sandbox.link import MANAGER, ROOT, ending

JOB = f"{ROOT}/job/4711"


def signal(member: str, signature: str, *body: object, path: str = ROOT) -> bytes:
    return bytes(new_signal(DBusAddress(path, interface=MANAGER), member, signature, body).serialise(7))


@pytest.mark.parametrize("unit", ["a.scope", "ab.scope", "abc.scope", "abcd.scope", "\u00e4-\\x2d.service"])
@pytest.mark.parametrize("result", ["done", "failed", "timeout"])
def test_the_end_of_a_job(unit: str, result: str) -> None:
    assert ending(signal("JobRemoved", "uoss", 4711, JOB, unit, result)) == (JOB, result)


@pytest.mark.parametrize("unit", ["a.scope", "ab.scope", "abc.scope", "abcd.scope"])
def test_the_end_of_a_unit(unit: str) -> None:
    assert ending(signal("UnitRemoved", "so", unit, f"{ROOT}/unit/x")) == (unit, "removed")


@pytest.mark.parametrize("member", ["UnitNew", "UnitFilesRemoved", "NotJobRemoved", "JobRemovedNot"])
def test_other_signals(member: str) -> None:
    assert ending(signal(member, "so", "a.scope", f"{ROOT}/unit/x")) is None


@pytest.mark.parametrize("member", ["JobRemoved", "UnitRemoved"])
def test_only_the_header_says_which_signal_it_is(member: str) -> None:
    """A unit's description can be anything."""
    another = signal(member, "so", "a.scope", f"{ROOT}/unit/x")
    assert ending(signal("PropertiesChanged", "ay", another)) is None
