"""Rows of plans that isolate, and the file systems and privileges in them, for tests of sandbox-init."""

from __future__ import annotations

import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path

from sandbox.host import probe
from sandbox.isolation.paths import may_shift
from sandbox.steps import Arg
from support.bare_launcher import CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, SIGNALS, Run

CLONE_NEWTIME, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x80, 0x0200_0000, 0x0400_0000
CLONE_NEWIPC, CLONE_NEWNET = 0x0800_0000, 0x4000_0000
RDONLY, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8
BASE = 1_000_000_000
"""Id outside that is 0 inside."""
MAP = f"0 {BASE} 65536"
HELD = CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
CAP_CHOWN, CAP_KILL, CAP_NET_RAW = 1 << 0, 1 << 5, 1 << 13
SECUREBITS = 0x2F
"""NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE, the first two and KEEP_CAPS locked."""

Row = tuple[Arg, ...]
Output = Callable[..., str]
RunIt = Callable[..., Run]


def held(*enter: Row, flags: int = HELD) -> list[Row]:
    """As root: the namespaces are a holder's, and so are the ids."""
    return [("namespaces", CLONE_NEWUSER | flags), ("id_map", "", MAP, MAP), ("clone3", CLONE_NEWPID | CLONE_NEWNS),
            ("private",), *([("setns", flags)] if flags else []), *enter]


def plain(*enter: Row) -> list[Row]:
    return [("clone3", CLONE_NEWPID | CLONE_NEWNS), ("private",), *enter]


def rootless(*enter: Row, flags: int = 0) -> list[Row]:
    """What somebody without root can have; here 0 is 0, and the capabilities are the namespace's alone."""
    return [("clone3", CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUSER | flags), ("id_map", "deny", "0 0 1", "0 0 1"),
            ("private",), *enter]


def tree(source: str | Path, *, slot: int = 0, attributes: int = 0, recursive: int = 1, id_mapped: int = 0) -> Row:
    return ("tree", slot, str(source), attributes, recursive, id_mapped)


PYTHON = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
"""A Python that every user may run."""
MAPPED = int(may_shift(probe().mount("/")[1], probe()))
"""The host's / can be mounted with other ids; if not, the inside has what everybody may read."""
HOST: tuple[Row, ...] = (tree("/", attributes=RDONLY | NOSUID | NODEV, id_mapped=MAPPED), ("root", 0),
                         ("mount", "proc", "/proc", NOSUID | NODEV | NOEXEC, ""))
"""The host's / as the inside, read-only."""
PIVOT: Row = ("pivot",)
ROOT: tuple[Row, ...] = (("enter_userns",), ("setgroups",), ("setresgid", 0), ("setresuid", 0), *SIGNALS)
"""The workload becomes root of the inside."""


def python(code: str) -> tuple[str, ...]:
    return (PYTHON, "-S", "-I", "-c", code)


def in_rootfs(rootfs: Path, *steps: Row, id_mapped: int = 1, attributes: int = NOSUID) -> list[Row]:
    """A rootfs with the host's /usr in it."""
    enter = (tree(rootfs, attributes=attributes, id_mapped=id_mapped), ("root", 0), tree("/usr", slot=1),
             ("place", 1, "/usr"), *steps)
    return held(*enter) if id_mapped else plain(*enter)


KILL, ERRNO, LOG, ALLOW = 0x8000_0000, 0x0005_0000, 0x7FFC_0000, 0x7FFF_0000
USER_NOTIF = 0x7FC0_0000


def bpf(action: int) -> bytes:
    """Return a filter with this action for system call 1000, which does not exist, and SECCOMP_RET_ALLOW for others."""
    rows = [(0x20, 0, 0, 0), (0x15, 0, 1, 1000), (0x06, 0, 0, action), (0x06, 0, 0, ALLOW)]
    return b"".join(struct.pack("<HBBI", *row) for row in rows)
