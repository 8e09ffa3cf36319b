"""Which devices a run is given, what its policy says, and what is refused before anything starts."""

from __future__ import annotations

from dataclasses import replace
from struct import iter_unpack, pack, unpack_from
from typing import Any

import pytest

from sandbox import verify
from sandbox.box import compile_plan
from sandbox.errors import SandboxError, SpecError, Unsupported
from sandbox.facts import Hierarchy, Manager, Node, Place
from sandbox.host import Host, from_json, to_json
from sandbox.isolation import device_filter, device_policy
from sandbox.options import make_spec
from sandbox.records import Device
from sandbox.steps import Plan
from sandbox.teach import explain, shell

FUSE = Node("/dev/fuse", "c", 10, 229, 0o600, 0, 0)
SDA = Node("/dev/sda", "b", 8, 0, 0o660, 0, 6)
SDB = Node("/dev/disks/sdb", "b", 8, 16, 0o660, 0, 6)
CARD, RENDER = (Node(f"/dev/dri/{name}", "c", 226, minor, 0o660, 0, 44) for name, minor in (("card0", 0),
                                                                                           ("renderD128", 128)))
V1 = Hierarchy(1, ("devices",), "/sys/fs/cgroup/devices", usable=("devices",))
V2 = Hierarchy(2, ("memory",), "/sys/fs/cgroup", usable=("memory",))
HOST = Host(kernel="6.12.0", ids=True, userns=True, mknod=True, hierarchies=(V1,), nodes=(FUSE, SDA, SDB),
            mounts=(("/", "ext4"), ("/dev", "devtmpfs")),
            namespaces=("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"),
            places=tuple(Place(path, kind, path) for path, kind in (
                ("/dev/fuse", "file"), ("/dev/sda", "file"), ("/dev/disks", "directory"), ("/etc/motd", "file"),
                ("/srv", "directory"), ("/dev/gone", ""), ("/mnt", "directory"), ("/mnt/x", ""))))
UNIFIED = HOST._replace(hierarchies=(V2,), cgroup_mode="v2")
SYSTEM = Manager(version=257, problem="")
USER = HOST._replace(uid=1000, gid=1000, ids=False, mknod=False)
BOUND = HOST._replace(mknod=False)
ALWAYS = tuple(f"{number} {access}" for number, access in device_policy.ALWAYS.items())


def plan(host: Host, driver: str = "cgroupfs", **wishes: Any) -> Plan:
    return compile_plan(replace(make_spec(["true"], driver=driver, **wishes), env=()), host, name="x")[0]


def steps(made: Plan, *ops: str) -> list[tuple[Any, ...]]:
    return [step.args for step in made.steps if step.op in ops]


# -- the flag

@pytest.mark.parametrize(("text", "device"), [
    ("/dev/fuse", Device("/dev/fuse", "/dev/fuse")), ("/dev/fuse:r", Device("/dev/fuse", "/dev/fuse", "r")),
    ("/dev/fuse:/dev/x", Device("/dev/fuse", "/dev/x")), ("/dev/sda:/x//y/:wr", Device("/dev/sda", "/x/y", "rw")),
    ("/dev/sda:/dev/sdb:mwr", Device("/dev/sda", "/dev/sdb", "rwm")),
])
def test_dockers_words(text: str, device: Device) -> None:
    assert make_spec(["true"], device=text).device == make_spec(["true"], device=[device]).device == (device,)


@pytest.mark.parametrize("text", [
    "", ":", "fuse", "dev/fuse", "/", "/dev/fuse:", "/dev/fuse:x", "/dev/fuse:rr", "/dev/fuse:rwx", "/dev/fuse::r",
    "/dev/fuse:/dev/x:", "/dev/fuse:/dev/x:r:w", "/dev/fuse:/dev/x:/dev/y", "/dev/fuse:r:/dev/x", "/dev/../x",
    "/dev/fuse:/../x", "/dev/fuse:/", "/dev/fuse:/proc/x", "/dev/fuse:/sys", "/dev/fu\0se", "/dev/fuse:RW",
    "/dev/fuse:rw ", "/dev/fuse:/dev//../x", "\uff0fdev/fuse", "/dev/fuse:./x",
])
def test_wrong_ones_are_refused(text: str) -> None:
    with pytest.raises(SpecError, match="device="):
        make_spec(["true"], device=text)


def test_one_place_is_given_once() -> None:
    for wishes in ({"device": ["/dev/sda:/x", "/dev/fuse:/x"]}, {"device": "/dev/sda:/x", "tmpfs": "/x"}):
        with pytest.raises(SpecError, match="the same place inside"):
            make_spec(["true"], **wishes)


# -- which nodes

@pytest.mark.parametrize(("wishes", "message"), [
    ({"device": "/dev/gone"}, "there is no /dev/gone"), ({"device": "/dev/unknown"}, "there is no /dev/unknown"),
    ({"device": "/etc/motd"}, "is no device"), ({"device": "/srv"}, "has no device in it"),
    ({"device": "/dev/fuse:/dev/null"}, "in any case"), ({"device": "/dev/fuse:/dev/pts/7"}, "in any case"),
    ({"device": "/dev/fuse:/mnt"}, "one is a file, the other a directory"),
    ({"device": "/dev/fuse:/mnt/x"}, "/ is read-only and has no /mnt/x"),
    ({"device": ["/dev/sda:r", "/dev/sda:/dev/b:rw"]}, "it is the device b 8:0"),
    ({"gpu": True}, "no GPU: none of"),
])
def test_what_cannot_be(wishes: dict[str, Any], message: str) -> None:
    with pytest.raises(SandboxError, match=message) as caught:
        plan(HOST, **wishes)
    assert caught.value.hint


def test_a_card_alone_is_no_gpu() -> None:
    with pytest.raises(Unsupported, match="no GPU"):
        plan(HOST._replace(nodes=(CARD,)), gpu=True)


def test_a_gpu_is_all_its_nodes() -> None:
    made = plan(HOST._replace(nodes=(CARD, RENDER)), gpu=True)
    assert [args[1] for args in steps(made, "place") if "dri" in str(args[1])] == [CARD.path, RENDER.path]
    assert steps(made, "read_back") and {step.realises for step in made.steps if step.op == "node"} == {"gpu"}
    assert made.limits[0].applied.endswith("c 226:0 rw, c 226:128 rw")


def test_a_directory_and_a_node_of_its_own() -> None:
    made = plan(HOST, device=["/dev/disks:/dev/d:r", "/dev/fuse"])
    assert [args[1:] for args in steps(made, "node")] == [
        (11, 0o60660, 8, 16, 1_000_000_000, 1_000_000_006), (11, 0o20600, 10, 229, 1_000_000_000, 1_000_000_000)]
    assert {"/dev/d/sdb", "/dev/fuse"} <= {args[1] for args in steps(made, "place")}


@pytest.mark.parametrize("host", [USER, BOUND])
def test_the_hosts_node_where_none_can_be_made(host: Host) -> None:
    made = plan(host, "none", device="/dev/fuse")
    assert not steps(made, "node")
    assert [args[1:] for args in steps(made, "tree") if args[1] == "/dev/fuse"] == [("/dev/fuse", 11, 0, 0)]
    shown = host._replace(mounts=(("/", "ext4"), ("/dev", "tmpfs")))
    assert [args[4] for args in steps(plan(shown, "none", device="/dev/fuse"), "tree")
            if args[1] == "/dev/fuse"] == [int(host.uid == 0)]


@pytest.mark.parametrize(("host", "wishes", "told"), [
    (HOST, {}, False), (HOST, {"user": "1234:0"}, True), (HOST, {"user": "0:1234"}, False),
    (USER._replace(nodes=(FUSE._replace(access="r"),)), {}, True),
    (USER._replace(nodes=(FUSE._replace(access="rw"),)), {}, False),
    (BOUND, {}, True),
])
def test_who_cannot_open_it_is_told(host: Host, wishes: dict[str, Any], told: bool) -> None:
    notes = plan(host, "none", device="/dev/fuse", **wishes).notes
    assert any("cannot" in note and "0600" in note for note in notes) is told


# -- the policy

def test_none_unless_something_is_given() -> None:
    made = plan(HOST)
    assert not steps(made, "write", "device_filter") and not steps(made, "mkdir")


def test_the_file_of_version_1() -> None:
    made = plan(HOST, device="/dev/sda:r")
    cgroup = "/sys/fs/cgroup/devices/sandbox-x"
    rules = (*ALWAYS, "b 8:0 r")
    assert steps(made, "write") == [(f"{cgroup}/devices.deny", "a"), *((f"{cgroup}/devices.allow", rule)
                                                                        for rule in rules)]
    assert steps(made, "read_back") == [(0, f"{cgroup}/devices.list")]
    limit = made.limits[0]
    assert (limit.files, limit.applied) == ((f"{cgroup}/devices.list",), ", ".join(rules))
    verify.check(limit, ("\n".join(reversed(rules)) + "\n",))
    for wrong in ("a *:* rwm", "", "\n".join((*ALWAYS, "b 8:0 rw")), "\n".join((*rules, "c 1:1 r"))):
        with pytest.raises(SandboxError, match="does not hold"):
            verify.check(limit, (wrong,))


def test_the_program_of_version_2() -> None:
    made = plan(UNIFIED, device="/dev/sda:r")
    assert steps(made, "device_filter") == [("/sys/fs/cgroup/sandbox-x", *ALWAYS, "b 8:0 r")]
    assert "BPF program" in shell.script(made)


@pytest.mark.parametrize("kind", ["scope", "service"])
def test_systemd_is_told(kind: str) -> None:
    made = plan(HOST._replace(manager=SYSTEM), "systemd", device="/dev/fuse:r", unit_type=kind)
    told = [args for args in steps(made, "property") if str(args[0]).startswith("Device")]
    assert told[0] == ("DevicePolicy", "s", "strict")
    assert told[-1] == ("DeviceAllow", "a(ss)", "/dev/char/10:229", "rm")  # m: the init in it makes the node
    assert next(str(args[1]) for args in steps(made, "read_back")).endswith(f"/sandbox-x.{kind}/devices.list")
    made = plan(UNIFIED._replace(manager=SYSTEM), "systemd", device="/dev/fuse:r", unit_type=kind)
    assert [args[2] for args in steps(made, "read_property")] == ["DevicePolicy", "DeviceAllow"]
    assert steps(made, "has_filter") == [(f"/sys/fs/cgroup/system.slice/sandbox-x.{kind}",)]
    assert explain.text(made, make_spec(["true"], device="/dev/fuse:r"), UNIFIED)


@pytest.mark.parametrize(("host", "driver"), [
    (HOST, "none"), (USER, "cgroupfs"), (UNIFIED._replace(uid=1000, ids=False), "cgroupfs"),
    (UNIFIED._replace(uid=1000, ids=False, manager=SYSTEM._replace(user=True)), "systemd"),
    (UNIFIED._replace(manager=SYSTEM._replace(user=True)), "delegated"),
    (HOST._replace(ids=False), "cgroupfs"),
])
def test_what_nothing_keeps_is_refused(host: Host, driver: str) -> None:
    for access in ("r", "wm"):
        with pytest.raises(Unsupported, match="nothing would keep its permission"):
            plan(host, driver, device=f"/dev/fuse:{access}", best_effort=True)
    for access in ("rw", "rwm"):
        made = plan(host, driver, device=f"/dev/fuse:{access}")
        assert any("only the permissions of its node" in note for note in made.notes)
        assert not [args for args in steps(made, "write", "property", "device_filter") if "evice" in str(args)]


def run(program: bytes, kind: str, major: int, minor: int, access: str) -> bool:
    """What the kernel would make of the program: an interpreter of the few instructions that it has."""
    wanted = sum(device_filter.ACCESS[letter] for letter in access)
    context = pack("=III", wanted << 16 | device_filter.TYPES[kind], major, minor)
    codes, at, registers = list(iter_unpack("=BBhi", program)), 0, {1: -1}
    while True:
        operation, pair, skip, value = codes[at]
        target, source = pair & 15, pair >> 4
        at += 1
        if operation == 0x95:
            return bool(registers[0])
        if operation == 0x61:
            assert registers[source] == -1  # the context
            registers[target], = unpack_from("=I", context, skip)
        elif operation in (0x55, 0x5D):
            at += skip * (registers[target] != (value if operation == 0x55 else registers[source]))
        elif operation == 0x54:
            registers[target] &= value
        elif operation == 0x74:
            registers[target] >>= value
        else:
            registers[target] = {0xBC: registers.get(source, 0), 0xB7: value}[operation]


@pytest.mark.parametrize(("asked", "allowed"), [
    (("c", 1, 3, "r"), True), (("c", 1, 3, "rw"), True), (("c", 1, 3, "m"), False), (("c", 1, 3, "rm"), False),
    (("b", 1, 3, "r"), False), (("c", 1, 1, "r"), False), (("c", 3, 1, "r"), False), (("c", 136, 7, "w"), True),
    (("c", 137, 7, "w"), False), (("b", 8, 0, "r"), True), (("b", 8, 0, "w"), False), (("b", 8, 0, "rw"), False),
    (("b", 8, 1, "r"), False), (("c", 10, 229, "rwm"), True), (("c", 10, 229, "m"), True), (("b", 259, 1_048_575, "w"),
                                                                                         True),
])
def test_what_the_program_says(asked: tuple[str, int, int, str], allowed: bool) -> None:
    rules = ("c 1:3 rw", "c 136:* rw", "b 8:0 r", "c 10:229 rwm", "b 259:1048575 w")
    assert run(device_filter.program(rules), *asked) is allowed
    assert not run(device_filter.program(()), *asked)


def test_a_saved_host_keeps_its_nodes() -> None:
    assert from_json(to_json(HOST)) == HOST
