"""Golden plans: the whole plan of a plain run for each saved host, and every other plan as its difference from one.

golden/HOST/plain.txt has the plan for a Spec without options: the lines of ``sandbox explain`` without the numbers of
steps and slots. A file that ends in ``.diff`` has the differences of one case: a section for each host or driver, one
section for all that differ in the same lines. Lines that begin with ``-`` are in the plain plan only, lines with ``+``
in the plan of the case only, and the line above them says where.
``UPDATE_GOLDEN=1 pytest tests/unit/test_golden.py`` writes all files anew; git then shows what has changed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from difflib import SequenceMatcher, unified_diff
from pathlib import Path
from typing import Any

import pytest

from sandbox.box import compile_plan
from sandbox.errors import SandboxError
from sandbox.facts import Lent, Network, Node, Place
from sandbox.host import Host
from sandbox.spec import Spec
from sandbox.spelling import as_flag, speaking
from sandbox.teach import explain
from support.saved_hosts import HOSTS, SPECS, by, spec, ways

GOLDEN = Path(__file__).parent / "golden"
STEP = re.compile(r"(?P<phase>[A-Z]*) +(?P<number>\d+) (?P<rest>(host|guard|init|workload) .*)")
"""A line of explain's text that stands for a step; only the first step of a phase has the phase."""
SLOT = re.compile(r"(?P<head>\w+ +(?P<op>tree|overlay|node|root|place) +)(?P<slot>\d+) ?(?P<rest>.*)")
"""A step that fills a slot with a mount or attaches what is in a slot."""


def show(wanted: Spec, host: Host) -> str:
    """Return the plan as ``sandbox explain`` prints it, or the error that refuses it."""
    try:
        with speaking(as_flag):
            return explain.text(compile_plan(wanted, host, name="golden")[0], wanted, host)
    except SandboxError as error:
        return f"refused: {error}"


def comparable(text: str) -> list[str]:
    """Return the lines of a plan with the phase in each, and without the numbers of steps and slots.

    A step that comes or goes then changes no line but its own.
    """
    lines, phase, slots = [], "", dict[str, str]()
    for line in text.splitlines():
        if step := STEP.fullmatch(line):
            phase = step["phase"] or phase
            line = f"{phase:<8} {_with_source(step['rest'], slots)}"
        lines.append(re.sub(r"; \d+ steps$", "", line).rstrip())
    return lines


def _with_source(step: str, slots: dict[str, str]) -> str:
    """Return a step with what its slot holds instead of the slot's number; ``slots`` has what each holds."""
    found = SLOT.fullmatch(step)
    if not found:
        return step
    if found["op"] in ("root", "place"):
        return f"{found['head']}({slots[found['slot']]}) {found['rest']}"
    slots[found["slot"]] = found["rest"].partition(" ")[0] if found["op"] == "tree" else found["op"]
    return found["head"] + found["rest"]


def difference(old: str, new: str) -> str:
    """Return what changes from one plan to another: each change below as many lines as make its place unique."""
    before, after, found = comparable(old), comparable(new), []
    if len(after) == 1:
        return f"{new}\n"
    for tag, low, high, start, end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag != "equal":
            found += [f"  {line}" for line in above(after, start)]
            found += [f"- {line}" for line in before[low:high]] + [f"+ {line}" for line in after[start:end]]
    return "".join(f"{line}\n" for line in found) or "no difference\n"


def above(lines: list[str], place: int) -> list[str]:
    """Return the fewest lines that end at a place and are nowhere else in this order."""
    for size in range(1, place + 1):
        block = lines[place - size:place]
        if sum(lines[at:at + size] == block for at in range(len(lines))) == 1:
            return block
    return []


def sections(differences: Iterable[tuple[str, str]]) -> str:
    """Return a text with a section for each difference; places with the same difference share one."""
    places: dict[str, list[str]] = {}
    for place, changes in differences:
        places.setdefault(changes, []).append(place)
    return "\n".join(f"== {', '.join(names)}\n{changes}" for changes, names in places.items())


def check(file: str, text: str) -> None:
    """Fail unless a golden file says this text; with UPDATE_GOLDEN, write the text to the file.

    :param file: a path below golden/.
    """
    golden = GOLDEN / file
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(text)
    wanted = golden.read_text() if golden.exists() else ""
    if wanted != text:
        changes = unified_diff(wanted.splitlines(), text.splitlines(), f"golden/{file}", "the plan now", lineterm="")
        pytest.fail("\n".join([*changes, f"If that is as it should be: UPDATE_GOLDEN=1 pytest {__file__}"]), False)


@pytest.mark.parametrize("host", HOSTS)
def test_whole_plan(host: str) -> None:
    check(f"{host}/plain.txt", "".join(f"{line}\n" for line in comparable(show(SPECS["plain"], HOSTS[host]))))


def test_steps_are_numbered_and_counted() -> None:
    """What the golden files leave out."""
    head, *lines = show(SPECS["plain"], HOSTS["hybrid"]).splitlines()
    steps = [step for line in lines if (step := STEP.fullmatch(line))]
    assert [int(step["number"]) for step in steps] == list(range(1, len(steps) + 1))
    assert head.endswith(f"; {len(steps)} steps")
    assert [step["phase"] for step in steps if step["phase"]] == ["SPAWN", "PREPARE", "ENTER", "ATTACH", "EXEC",
                                                                  "CLEANUP"]


@pytest.mark.parametrize("host", [host for host in HOSTS if len(ways(host)) > 1])
def test_drivers(host: str) -> None:
    """The same run by each other driver, as the difference from ``--driver auto``."""
    plain, machine = SPECS["plain"], HOSTS[host]
    check(f"{host}/drivers.diff", sections((way, difference(show(plain, machine), show(by(way, plain), machine)))
                                           for way in ways(host) if way != "auto"))


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("name", [name for name in SPECS if name != "plain"])
def test_limits(name: str, host: str) -> None:
    """By each driver, as the difference from a run without limits by the same driver."""
    check(f"{host}/{name}.diff", sections(
        (way, difference(show(by(way, SPECS["plain"]), HOSTS[host]), show(by(way, SPECS[name]), HOSTS[host])))
        for way in ways(host)))


NODES = (Node("/dev/fuse", "c", 10, 229, 0o666, 0, 0), Node("/dev/dri/renderD128", "c", 226, 128, 0o660, 0, 44))
PLACES = tuple(Place(path, "directory", path) for path in ("/data", "/scratch", "/images/debian", "/layers")) + tuple(
    Place(path, "file", path) for path in ("/dev/fuse", "/dev/dri/renderD128", "/etc/motd"))
NETWORK = Network(taken=("192.0.2.0/24",), uplink="ens3", mtu=1450, forwarding=True, ipv6=True,
                  resolv_conf="/etc/resolv.conf", nameservers=("192.0.2.1",))
LENT = Lent("user", ((100000, 65536),), ((100000, 65536),), "/usr/bin/newuidmap", "/usr/bin/newgidmap")
ISOLATED = {name: HOSTS[name]._replace(nodes=NODES, places=PLACES, network=NETWORK) for name in (
    "bookworm-v1", "hybrid", "debian13-v2")} | {
    "rootless-v2": HOSTS["rootless-v2"]._replace(nodes=NODES, places=PLACES, network=NETWORK, lent=LENT)}
"""A root host with cgroup v1, one with v2, and one without root: with the devices, files and networks of the cases."""

ISOLATION: dict[str, dict[str, Any]] = {
    "network-host": {"network": "host"},
    "network-veth": {"network": "veth"},
    "publish": {"network": "veth", "publish": ["8080:80", "127.0.0.1:5353:53/udp"]},
    "net-rate": {"network": "veth", "net_rate": "8mbit:64k", "net_delay": "20ms"},
    "pid-host": {"pid": "host"},
    "ipc-host": {"ipc": "host"},
    "uts-host": {"uts": "host"},
    "userns-host": {"userns": "host"},
    "cgroupns-host": {"cgroupns": "host"},
    "ns": {"ns": ["net:/run/netns/blue"]},
    "hostname": {"hostname": "inside"},
    "rootfs": {"rootfs": "/images/debian"},
    "rootfs-read-only": {"rootfs": "/images/debian", "read_only": True},
    "overlay": {"overlay": True},
    "commit": {"overlay": True, "commit": "/layers/one"},
    "volume": {"volume": ["/data:/mnt/data", "/etc/motd:/mnt/motd:ro"]},
    "mount": {"mount": ["type=bind,source=/data,target=/mnt/data,readonly", "type=tmpfs,target=/mnt/t,tmpfs-size=1m"]},
    "tmpfs": {"tmpfs": ["/scratch:size=64k,mode=755,exec"]},
    "device": {"device": ["/dev/fuse:r"]},
    "gpu": {"gpu": True},
    "cap-add": {"cap_add": ["NET_RAW", "SYS_PTRACE"]},
    "cap-drop": {"cap_add": ["ALL"], "cap_drop": ["SYS_ADMIN"]},
    "seccomp-unconfined": {"security_opt": ["seccomp=unconfined"]},
    "seccomp-moby": {"security_opt": ["seccomp=moby"]},
    "nest": {"nest": True},
    "seccomp-log": {"seccomp_log": True},
    "label": {"security_opt": ["apparmor=mine"]},
    "user": {"user": "1234:5678"},
    "tty": {"tty": True},
}


@pytest.mark.parametrize("name", ISOLATION)
def test_isolation(name: str) -> None:
    """Each flag that isolates, or that takes isolation away, as the difference from a run without it."""
    wanted = spec(**ISOLATION[name])
    check(f"isolation/{name}.diff", sections((name, difference(show(SPECS["plain"], host), show(wanted, host)))
                                   for name, host in ISOLATED.items()))


def test_every_file_is_read() -> None:
    """A file whose case is gone would be taken for a plan that is tested."""
    files = {f"{host}/{name}" for host in HOSTS for name in ("plain.txt", "limits.diff", "weights.diff")}
    files |= {f"{host}/drivers.diff" for host in HOSTS if len(ways(host)) > 1}
    files |= {f"isolation/{name}.diff" for name in ISOLATION}
    assert {str(path.relative_to(GOLDEN)) for path in GOLDEN.rglob("*.*")} == files
