"""What a run can reach: from the plan, item by item, with the score, the report's section, and the warnings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import sandbox
from sandbox.isolation import capabilities, exposure, seccomp
from sandbox.isolation.exposure import Exposure, sensitive, warnings
from sandbox.records import Device, Joined, User, Volume
from sandbox.report import Outcome, Report
from sandbox.spec import Spec
from sandbox.steps import Phase, Plan, Step, Where

SCHEMA = json.loads((Path(sandbox.__file__).parent / "report.schema.json").read_text())
ALL = 0x80 | 0x2_0000 | 0x200_0000 | 0x400_0000 | 0x800_0000 | 0x1000_0000 | 0x2000_0000 | 0x4000_0000


def wish(**fields: Any) -> Spec:
    return Spec(argv=("work",), **fields)


def plan(spec: Spec, *, without: int = 0, leave_out: str = "") -> Plan:
    """The steps that matter here, as the drivers order them."""
    names = capabilities.held(spec, spec.user.uid if spec.user else 0)
    steps = (Step("namespaces", Phase.SPAWN, (ALL & ~0x2202_0000 & ~without,), Where.GUARD),
             Step("clone3", Phase.SPAWN, (0x2002_0000 & ~without,), Where.GUARD),
             *(() if spec.nest else (Step("mask", Phase.ENTER, ("/proc/kcore",), Where.INIT),)),
             Step("pivot", Phase.ENTER, (), Where.INIT),
             Step("unshare", Phase.EXEC, (0x200_0000 & ~without,), Where.WORKLOAD),
             Step("enter_userns", Phase.EXEC, (), Where.WORKLOAD),
             *capabilities.before(names), *capabilities.after(names), *seccomp.steps(spec))
    return Plan(driver="none", name="box", steps=tuple(step for step in steps if step.op != leave_out))


def opened(found: Exposure) -> set[str]:
    return {one.item for one in found.items if one.open}


def default() -> Exposure:
    return exposure.exposure(wish(), plan(wish()))


def test_what_is_open_by_default() -> None:
    """The host's files can be read, sockets in them reached, and memory may be executable; nothing else."""
    assert opened(default()) == {"ProtectHome", "UnixSockets", "MemoryDenyWriteExecute"}
    assert (default().score, default().band) == (0.4, "SAFE")


def test_a_command_that_may_undo_its_mounts() -> None:
    """Without root there is one user namespace, and CAP_SYS_ADMIN in it is over the mounts."""
    spec = wish(cap_add=("CAP_SYS_ADMIN",))
    found = opened(exposure.exposure(spec, plan(spec, leave_out="enter_userns")))
    assert {"Secrets", "ReadWritePaths", "ProtectSystem"} <= found
    assert not {"Secrets", "ReadWritePaths"} & opened(exposure.exposure(spec, plan(spec)))


def test_landlock_closes_the_sockets() -> None:
    closing = Step("landlock", Phase.EXEC, (3, 0x1_0000, ()), Where.WORKLOAD)
    with_it = plan(wish())._replace(steps=(*plan(wish()).steps, closing))
    assert opened(exposure.exposure(wish(), with_it)) == {"ProtectHome", "MemoryDenyWriteExecute"}


@pytest.mark.parametrize(("fields", "is_open"), [
    ({"protect_home": "off"}, True), ({"unmask": ("/etc/shadow",)}, True), ({"protect_home": "tmpfs"}, False),
    ({"volume": (Volume("/home/anna", "/mnt", True),)}, True),
    ({"volume": (Volume("/home/anna/.ssh/id", "/id"),)}, True),
    ({"volume": (Volume("/home/anna/work", "/mnt"),)}, False), ({"volume": (Volume("/etc", "/mnt"),)}, True),
    ({"volume": (Volume("/", "/mnt", True),)}, True), ({"rootfs": "/srv/root"}, False)])
def test_secrets_that_a_wish_shows(fields: dict[str, Any], is_open: bool) -> None:
    found = exposure.exposure(wish(**fields), plan(wish(**fields)))
    assert ("Secrets" in opened(found)) is is_open
    assert any("keys" in line or "every file" in line or "password" in line for line in warnings(wish(**fields))) is (
        is_open)


def test_everything_open() -> None:
    found = exposure.exposure(wish(preserve_fds=1), Plan(driver="none", name="box", steps=()))
    assert [one.item for one in found.items if not one.open] == []
    assert (found.score, found.band) == (10.0, "DANGEROUS")


@pytest.mark.parametrize(("fields", "flags", "items", "warned"), [
    ({"network": "host"}, 0x4000_0000, {"PrivateNetwork", "IPAddressDeny"}, "--network host"),
    ({"pid": "host"}, 0x2000_0000, {"ProtectProc"}, "--pid host"),
    ({"ipc": "host"}, 0x800_0000, {"PrivateIPC"}, "--ipc host"),
    ({"uts": "host"}, 0x400_0000, {"ProtectHostname"}, "--uts host"),
    ({"cgroupns": "host"}, 0x200_0000, {"CgroupNamespace"}, "--cgroupns host"),
    ({"userns": "host"}, 0x1000_0000, {"PrivateUsers", "User"}, "--userns host"),
    ({"userns": "host", "user": User(uid=7, gid=7)}, 0x1000_0000, {"PrivateUsers"}, "--userns host"),
    ({"ns": (Joined("net", "/run/netns/blue"),)}, 0, {"PrivateNetwork", "IPAddressDeny"}, "--ns net:/run/netns/blue"),
    ({"cap_add": ("CAP_NET_RAW",)}, 0,
     {"CapabilityBoundingSet NET_RAW and 2 more", "RestrictAddressFamilies AF_PACKET"}, "--cap-add"),
    ({"cap_add": ("CAP_SYS_ADMIN",)}, 0, {"CapabilityBoundingSet SYS_ADMIN", "RestrictNamespaces"}, "--cap-add"),
    ({"nest": True}, 0, {"RestrictNamespaces", "SystemCallFilter @mount", "ProcSubset",
                         "CapabilityBoundingSet CHOWN and 2 more"}, "--nest"),
    ({"nest": True, "user": User(uid=7, gid=7)}, 0,
     {"RestrictNamespaces", "SystemCallFilter @mount", "ProcSubset"}, "--nest"),
    ({"device": (Device("/dev/fuse", "/dev/fuse", "r"),)}, 0, {"DeviceAllow"}, "--device /dev/fuse: it can read this"),
    ({"device": (Device("/dev/sda", "/dev/sda"),)}, 0, {"DeviceAllow"}, "--device /dev/sda: it can read and write"),
    ({"gpu": True}, 0, {"DeviceAllow GPU"}, "--gpu: it reaches the GPU's driver"),
    ({"volume": (Volume("/srv/data", "/data", True),)}, 0, set(), ""),
    ({"volume": (Volume("/srv/data", "/data"),)}, 0, {"ReadWritePaths", "RestrictSUIDSGID"}, ""),
    ({"volume": (Volume("/proc", "/p", True),)}, 0, {"ProtectKernelTunables"}, "-v /proc: it can read"),
    ({"volume": (Volume("/dev/../dev", "/d", True),)}, 0, {"PrivateDevices"}, "-v /dev/../dev"),
    ({"volume": (Volume("/run/docker.sock", "/s"),)}, 0,
     {"HostSockets", "ReadWritePaths", "RestrictSUIDSGID", "ProtectSystem"}, "-v /run/docker.sock: it can reach"),
    ({"rootfs": "/srv/root"}, 0, {"-ProtectHome", "-UnixSockets"}, ""),
])
def test_each_hole(fields: dict[str, Any], flags: int, items: set[str], warned: str) -> None:
    spec = wish(**fields)
    found = exposure.exposure(spec, plan(spec, without=flags))
    assert opened(found) ^ opened(default()) == {one.removeprefix("-") for one in items}
    lines = warnings(spec)
    assert len(lines) == bool(warned)
    assert all(line.startswith(warned) and "\n" not in line for line in lines)


@pytest.mark.parametrize(("op", "items"), [
    ("no_new_privs", {"NoNewPrivileges"}),
    ("seccomp", {"SystemCallArchitectures", "KeyringMode", "RestrictNamespaces", "SystemCallFilter @mount"}),
    ("capset", {"CapabilityBoundingSet SYS_ADMIN", "CapabilityBoundingSet KILL"}),
    ("pivot", {"ProtectSystem", "PrivateDevices", "HostSockets", "PrivateTmp"}),
    ("clone3", {"ProtectProc", "PrivateMounts"}),
])
def test_a_step_that_is_missing_is_seen(op: str, items: set[str]) -> None:
    assert items <= opened(exposure.exposure(wish(), plan(wish(), leave_out=op)))


def test_a_profile_of_ones_own_counts_as_open() -> None:
    spec = wish(security_opt=("seccomp=/p.json",))
    found = opened(exposure.exposure(spec, plan(spec)))
    assert {"KeyringMode", "SystemCallFilter @debug"} <= found
    assert "SystemCallArchitectures" not in found
    assert warnings(spec) == ("--security-opt seccomp=/p.json: it may call whatever this profile lets through",)


def test_devices_cannot_be_opened_through_a_volume() -> None:
    [line] = warnings(wish(volume=(Volume("/dev/null", "/tmp/x", False),)))
    assert line == "-v /dev/null: it can change the host's device nodes, but open none: that takes --device"
    [line] = warnings(wish(volume=(Volume("/dev/shm/a", "/tmp/x", True),)))
    assert line == "-v /dev/shm/a: it can read the shared memory of the host's processes"


def test_labels_are_shared() -> None:
    lines = warnings(wish(security_opt=("label=type:container_t", "apparmor=mine")))
    assert [line.partition(":")[0] for line in lines] == ["--security-opt label=type", "--security-opt apparmor=mine"]
    assert warnings(wish(security_opt=("label=disable", "apparmor=unconfined", "seccomp=default"))) == ()


def test_every_hole_has_a_line_of_its_own() -> None:
    spec = wish(network="host", pid="host", ipc="host", uts="host", userns="host", cgroupns="host", cap_add=("ALL",),
                security_opt=("seccomp=unconfined",), volume=(Volume("/", "/host"), Volume("/run/user/7", "/r", True)))
    assert len(warnings(spec)) == 10
    assert warnings(wish()) == ()


def test_every_capability_is_in_one_group() -> None:
    names = [name for _, group, _ in exposure.CAPABILITIES for name in group]
    assert sorted(names) == sorted(capabilities.NAMES)


@pytest.mark.parametrize(("source", "bad"), [
    ("/", True), ("/proc/1", True), ("/run/dbus", True), ("/runner", False), ("/home", True), ("/home/me/data", False),
    ("/srv/app.sock", True), ("/etc/../srv", False), ("/etc/", True),
])
def test_sensitive_places(source: str, bad: bool) -> None:
    assert bool(sensitive(source)) is bad


def test_the_report_has_it() -> None:
    report = Report(outcome=Outcome.EXITED, code=0, spec=wish(), plan=plan(wish()))
    data = json.loads(json.dumps(report.to_json()))
    jsonschema.validate(data, SCHEMA)
    assert (data["exposure"]["score"], data["exposure"]["band"]) == (0.4, "SAFE")
    assert "spec" not in data and "plan" not in data
    line = "exposure           0.4 of 10 (SAFE); open: ProtectHome, UnixSockets, MemoryDenyWriteExecute"
    assert line in report.summary(verbose=True)


def test_a_report_without_a_plan_says_nothing_of_it() -> None:
    data = Report(outcome=Outcome.EXITED, code=0).to_json()
    jsonschema.validate(json.loads(json.dumps(data)), SCHEMA)
    assert data["exposure"] is None
