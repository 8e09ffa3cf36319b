"""The filters of system calls that docker and podman load, and ours with the same profile: call by call the same.

Both programs are read from the kernel and interpreted, so that no call is made.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest

from sandbox.isolation import seccomp
from sandbox.isolation.capabilities import NAMES
from support import loaded_filter
from support.labs import Lab
from support.seccomp_programs import ALLOW, run

pytestmark = pytest.mark.tools
X86_64, I386, X32 = (0xC000_003E, 0), (0x4000_0003, 0), (0xC000_003E, 0x4000_0000)
"""``AUDIT_ARCH_*``, and what is added to the number of each call."""
VALUES = (*range(48), *(1 << bit for bit in range(6, 64)), 0x2_0008, 0x5412, 0x541C, 1 << 32 | 40, 0xFFFF_FFFF)
"""Families of sockets, flags of clone, personalities, requests of ioctl, and single bits of all 64."""
ARGUMENTS = (*((value,) for value in VALUES), *((0, value) for value in VALUES), *product((2, 16), (2, 3), (0, 9)))
"""The last ones are of socket(2): NETLINK_AUDIT (9), for one, has a rule of its own in podman's profile."""
COMPARED = frozenset((16, 41, 53, 56, 135, 54, 120, 136, 359, 360))
"""Numbers of ioctl, socket, socketpair, clone and personality on x86-64, then on i386: a rule may look at arguments."""
CALLS = tuple((number, arguments) for number in range(580)  # the tables end before
              for arguments in (ARGUMENTS if number in COMPARED else ((), (40,), (2**64 - 1, 2**64 - 1))))
IOCTL = 16
NO_TYPING = {(IOCTL, (0, request)) for request in (0x5412, 0x541C)}
"""TIOCSTI and TIOCLINUX type into terminals: ours refuses them with every profile."""
MENTIONED = sorted({name for entry in json.loads(Path(seccomp.shipped("moby")).read_text())["syscalls"]
                    for key in ("includes", "excludes") for name in entry.get(key, {}).get("caps", ())})
GIVEN = tuple(f"CAP_{name}" for name in (
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW",
    "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"))
"""What a container of docker's has without a flag (docker-run(1))."""
CASES = {"none": (), "given": GIVEN, "unmentioned": tuple(sorted({*NAMES} - {*MENTIONED})), "all": tuple(NAMES),
         **{name: (name,) for name in MENTIONED}}
TOOLS = {"docker": (["docker", "run", "--rm", "-i", "--network=none"], ["shell"], "moby"),
         "podman": (["podman", "run", "--rm", "-i", "--network=none"], ["--rootfs", "/:O"],
                    "/usr/share/containers/seccomp.json")}
"""Command line, image, and the profile with which ours loads the same."""


def _loaded(lab: Lab, *tool: str) -> bytes:
    """The filter that a tool loads for a command."""
    return bytes.fromhex(lab.out("python3", "-c", Path(loaded_filter.__file__).read_text(), *tool))


def _add(names: tuple[str, ...]) -> list[str]:
    return [f"--cap-add={name}" for name in names]


def _different(one: bytes, other: bytes, abi: tuple[int, int]) -> set[tuple[int, tuple[int, ...]]]:
    """Return the calls that two filters answer differently, as numbers with arguments."""
    arch, base = abi
    return {(number, arguments) for number, arguments in CALLS
            if run(one, base + number, *arguments, arch=arch) != run(other, base + number, *arguments, arch=arch)}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("tool", TOOLS)
def test_the_kernel_answers_the_same(machine: Lab, tool: str, case: str) -> None:
    """Fails if one name is missing in ``moby.json``, or stands under another capability.

    The profile is that of docker 26.1.5, which the lab has. Fails when a newer one has other rules.
    """
    command, image, profile = TOOLS[tool]
    theirs = _loaded(machine, *command, "--cap-drop=ALL", *_add(CASES[case]), *image)
    ours = _loaded(machine, "sandbox", "run", *_add(CASES[case]), f"--security-opt=seccomp={profile}", "--")
    assert _different(theirs, ours, X86_64) == NO_TYPING, machine.out(tool, "--version")


def test_docker_reads_our_file_as_its_own(machine: Lab) -> None:
    """It is what ``--export docker`` names; 32-bit calls, which end our commands, are let through by ``archMap``."""
    command, image, _ = TOOLS["docker"]
    file = machine.out("python3", "-c", "from sandbox.isolation.seccomp import shipped; print(shipped('moby'))")
    own, read = _loaded(machine, *command, *image), _loaded(machine, *command, f"--security-opt=seccomp={file}", *image)
    assert [_different(own, read, abi) for abi in (X86_64, I386, X32)] == [set(), set(), set()]
    assert run(own, 20, arch=I386[0]) == ALLOW
