"""Unit properties: typed, packed for D-Bus, and printed as a unit file spells them."""

from __future__ import annotations

import os
import signal

import pytest

from sandbox.dbus import split
from sandbox.dbus_value import object_path, pack, packed, process, unpack
from sandbox.errors import BusError, SpecError
from sandbox.property import declared, parse, text

INFINITY = 2**64 - 1
SIGNATURES = {
    "CPUQuotaPerSecUSec": "t", "CPUQuotaPeriodUSec": "t", "CPUWeight": "t", "IOWeight": "t", "MemoryMax": "t",
    "MemorySwapMax": "t", "TasksMax": "t", "LimitNOFILE": "t", "LimitAS": "t", "RuntimeMaxUSec": "t",
    "TimeoutStopUSec": "t", "AllowedCPUs": "ay", "AllowedMemoryNodes": "ay", "IOWriteBandwidthMax": "a(st)",
    "IOReadIOPSMax": "a(st)", "IODeviceWeight": "a(st)", "IODeviceLatencyTargetUSec": "a(st)", "DeviceAllow": "a(ss)",
    "DevicePolicy": "s", "Description": "s", "Environment": "as", "Delegate": "b", "PrivateNetwork": "b", "Nice": "i",
    "OOMScoreAdjust": "i", "KillSignal": "i", "UMask": "u", "IPAddressAllow": "a(iayu)", "SystemCallFilter": "(bas)",
}

BOTH_WAYS = [
    ("CPUQuota=20%", ("CPUQuotaPerSecUSec", "t", 200_000)),
    ("CPUQuota=33.33%", ("CPUQuotaPerSecUSec", "t", 333_300)),
    ("CPUQuota=infinity", ("CPUQuotaPerSecUSec", "t", INFINITY)),
    ("CPUQuotaPeriodSec=10ms", ("CPUQuotaPeriodUSec", "t", 10_000)),
    ("MemoryMax=64M", ("MemoryMax", "t", 64 << 20)),
    ("MemoryMax=infinity", ("MemoryMax", "t", INFINITY)),
    ("MemoryMax=50%", ("MemoryMaxScale", "u", 2147483648)),
    ("MemorySwapMax=0", ("MemorySwapMax", "t", 0)),
    ("TasksMax=10%", ("TasksMaxScale", "u", 429496730)),
    ("TasksMax=100", ("TasksMax", "t", 100)),
    ("CPUWeight=idle", ("CPUWeight", "t", 0)),
    ("CPUWeight=100", ("CPUWeight", "t", 100)),
    ("IOWeight=100", ("IOWeight", "t", 100)),
    ("LimitNOFILE=1024", ("LimitNOFILE", "t", 1024)),
    ("LimitAS=1G", ("LimitAS", "t", 1 << 30)),
    ("RuntimeMaxSec=90s", ("RuntimeMaxUSec", "t", 90_000_000)),
    ("TimeoutStopSec=infinity", ("TimeoutStopUSec", "t", INFINITY)),
    ("AllowedCPUs=0-2", ("AllowedCPUs", "ay", ("7",))),
    ("AllowedCPUs=0,9", ("AllowedCPUs", "ay", ("1", "2"))),
    ("AllowedMemoryNodes=0", ("AllowedMemoryNodes", "ay", ("1",))),
    ("IOReadIOPSMax=/dev/sda infinity", ("IOReadIOPSMax", "a(st)", ("/dev/sda", str(INFINITY)))),
    ("IODeviceWeight=/dev/sda 200", ("IODeviceWeight", "a(st)", ("/dev/sda", "200"))),
    ("IODeviceLatencyTargetSec=/dev/sda 25ms", ("IODeviceLatencyTargetUSec", "a(st)", ("/dev/sda", "25000"))),
    ("DeviceAllow=/dev/null rw", ("DeviceAllow", "a(ss)", ("/dev/null", "rw"))),
    ("DevicePolicy=closed", ("DevicePolicy", "s", "closed")),
    ("Description=two words = three", ("Description", "s", "two words = three")),
    ('Environment=A=1 "B=x y"', ("Environment", "as", ("A=1", "B=x y"))),
    ("PrivateNetwork=yes", ("PrivateNetwork", "b", True)),
    ("Delegate=no", ("Delegate", "b", False)),
    ("Delegate=cpu memory", ("DelegateControllers", "as", ("cpu", "memory"))),
    ("Delegate=", ("DelegateControllers", "as", ())),
    ("Nice=-5", ("Nice", "i", -5)),
    ("UMask=0077", ("UMask", "u", 0o77)),
]
ONE_WAY = [
    ("MemoryMax=67108864", ("MemoryMax", "t", 64 << 20)),
    ("MemoryMax=1.5G", ("MemoryMax", "t", 3 << 29)),
    ("RuntimeMaxSec=1min 30s", ("RuntimeMaxUSec", "t", 90_000_000)),
    ("RuntimeMaxSec=1.5", ("RuntimeMaxUSec", "t", 1_500_000)),
    ("RuntimeMaxUSec=2h", ("RuntimeMaxUSec", "t", 7_200_000_000)),
    ("AllowedCPUs=2 0,1", ("AllowedCPUs", "ay", ("7",))),
    ("IOWriteBandwidthMax=/dev/sda 1M", ("IOWriteBandwidthMax", "a(st)", ("/dev/sda", "1000000"))),
    ("IOWriteBandwidthMax=/dev/sda 1500", ("IOWriteBandwidthMax", "a(st)", ("/dev/sda", "1500"))),
    ("DeviceAllow=/dev/null", ("DeviceAllow", "a(ss)", ("/dev/null", "rwm"))),
    ("PrivateNetwork=1", ("PrivateNetwork", "b", True)),
    ("PrivateNetwork=False", ("PrivateNetwork", "b", False)),
    ("KillSignal=SIGINT", ("KillSignal", "i", int(signal.SIGINT))),
    ("Environment=", ("Environment", "as", ())),
]


@pytest.mark.parametrize(("spelled", "told"), BOTH_WAYS)
def test_spelled_as_in_a_unit_file(spelled: str, told: tuple[str, str, object]) -> None:
    assert text(*told) == spelled
    assert parse(spelled, SIGNATURES) == told


@pytest.mark.parametrize(("spelled", "told"), ONE_WAY)
def test_read(spelled: str, told: tuple[str, str, object]) -> None:
    assert parse(spelled, SIGNATURES) == told
    packed(*told)


@pytest.mark.parametrize("spelled", [
    "CPUQuota=20", "CPUQuota=-1%", "CPUQuota=%", "MemoryMax=lots", "MemoryMax=101%", "MemoryMax=", "TasksMax=many",
    "TasksMax=18446744073709551616", "CPUWeight=-1", "RuntimeMaxSec=1 fortnight", "RuntimeMaxSec=",
    "RuntimeMaxSec=1.2.3", "AllowedCPUs=3-1", "AllowedCPUs=x", "IOWriteBandwidthMax=/dev/sda",
    "IOWriteBandwidthMax=/dev/sda 1Q",
    "DeviceAllow=/dev/null rwx", "DeviceAllow=", "Environment='open", "PrivateNetwork=maybe", "Nice=low", "UMask=9",
    "KillSignal=SIGNOT"])
def test_a_wrong_value_is_refused(spelled: str) -> None:
    name, _, _ = spelled.partition("=")
    with pytest.raises(SpecError) as caught:
        parse(spelled, SIGNATURES)
    assert caught.value.field == "property"
    assert name in caught.value.message
    assert "D-Bus type" in caught.value.message
    assert f'property="{name}=' in caught.value.hint
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spelled", ["IPAddressAllow=10.0.0.0/8", "SystemCallFilter=@system-service"])
def test_what_cannot_be_typed_is_refused_with_its_type(spelled: str) -> None:
    name, _, _ = spelled.partition("=")
    with pytest.raises(SpecError, match=name) as caught:
        parse(spelled, SIGNATURES)
    assert SIGNATURES[name] in caught.value.message
    assert "for example" in caught.value.hint


@pytest.mark.parametrize("spelled", ["NoSuchThing=1", "memorymax=1", "MemoryMax", "=5"])
def test_no_such_property(spelled: str) -> None:
    with pytest.raises(SpecError):
        parse(spelled, SIGNATURES)


PACKED = [
    ("t", 5, 5), ("x", -5, -5), ("b", True, True), ("s", "", ""), ("d", 1.5, 1.5), ("as", ("a", ""), ["a", ""]),
    ("au", ("1", "2"), [1, 2]), ("ay", ("3", "0"), b"\3\0"), ("a(st)", ("/a", "1", "/b", "2"), [("/a", 1), ("/b", 2)]),
    ("(bas)", ("1", ("x", "y")), (True, ["x", "y"])), ("a(st)", (), []),
    ("a(sasb)", ("/bin/true", ("true", "-x"), "0"), [("/bin/true", ["true", "-x"], False)]),
]


@pytest.mark.parametrize(("signature", "plain", "wire"), PACKED)
def test_packed_and_unpacked(signature: str, plain: object, wire: object) -> None:
    assert pack(signature, plain) == wire
    assert unpack(signature, wire) == plain


@pytest.mark.parametrize(("signature", "plain"), [
    ("t", -1), ("t", 2**64), ("i", 2**31), ("i", -2**31 - 1), ("u", 2**32), ("t", "many"), ("s", 5), ("s", "a\0b"),
    ("s", "\udcff"), ("as", "word"), ("a(st)", ("/a", "1", "/b")), ("(bas)", ("1",)), ("ay", ("256",)),
    ("b", "perhaps")])
def test_what_is_not_of_the_type_is_refused(signature: str, plain: object) -> None:
    with pytest.raises(BusError, match="Some"):
        packed("Some", signature, plain)


def test_the_limits_of_the_integers() -> None:
    for signature, numbers in {"i": (2**31 - 1, -2**31), "t": (0, INFINITY), "y": (255,)}.items():
        assert [pack(signature, number) for number in numbers] == list(numbers)


def test_split() -> None:
    assert split("sa(st)baaya{sv}") == ["s", "a(st)", "b", "aay", "a{sv}"]


def test_object_paths() -> None:
    assert object_path("") == "/org/freedesktop/systemd1"
    assert object_path("a-b@1.scope").endswith("/unit/a_2db_401_2escope")
    assert object_path("0.slice").endswith("/unit/_30_2eslice")


def test_the_process_of_a_unit() -> None:
    assert process([("Description", "s", "x")]) == 0
    assert process([("PIDs", "au", ("77", "78"))]) == 77
    fd = os.pidfd_open(os.getpid())
    try:
        assert process([("PIDFDs", "ah", (str(fd),))]) == os.getpid()
    finally:
        os.close(fd)


def test_declared() -> None:
    xml = """<node><interface name="org.freedesktop.systemd1.Unit"><property name="Slice" type="s" access="read"/>
      </interface><interface name="org.freedesktop.systemd1.Scope">
       <property name="MemoryMax" type="t" access="read">
       </property></interface><interface name="org.freedesktop.DBus.Peer"><property name="Not" type="s" access="read"/>
      </interface></node>"""
    assert declared(xml, "scope") == {"Slice": "s", "MemoryMax": "t"}
    assert declared(xml, "service") == {"Slice": "s"}
