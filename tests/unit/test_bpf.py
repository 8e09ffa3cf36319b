"""Programs of classic BPF made shorter: whatever is called, they answer as before."""

from __future__ import annotations

import json
import platform
import struct
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.errors import SpecError
from sandbox.isolation import bpf, libseccomp, seccomp
from sandbox.isolation.rules import Machine, settle

HERE = platform.machine()
FOREIGN = 0x4000_0003


def both(profile: str, capabilities: tuple[str, ...] = ()) -> tuple[bytes, bytes]:
    """The program as libseccomp makes it, and the shorter one."""
    rules = settle(profile, "FILE", Machine(capabilities, "6.1.0-1-amd64", HERE))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpf, "shorten", lambda program, architectures: program)
        long = libseccomp.compile_rules(rules, "FILE")
    return long, libseccomp.compile_rules(rules, "FILE")


def some_calls(program: bytes) -> Iterator[bytes]:
    """Every number and what is near to one that the program knows, with arguments like those it compares."""
    random = Random(1)
    near = {one.value + more for one in bpf.parse(program) for more in (-1, 0, 1)}
    words = sorted(value for value in near if 0 <= value <= bpf.HIGHEST)
    arguments = [*words, *(value << 32 for value in words), *(value << 32 | 1 for value in words)]
    for number in sorted({*range(600), *words}):
        for architecture in (libseccomp.native(), FOREIGN):
            for _ in range(10):
                yield struct.pack("=IIQ6Q", number, architecture, 0, *random.choices(arguments, k=6))


def assert_same(long: bytes, short: bytes) -> None:
    before, after = bpf.parse(long), bpf.parse(short)
    for call in some_calls(long):
        assert bpf.verdict(before, call) == bpf.verdict(after, call), call.hex()


@pytest.mark.parametrize("capabilities", [(), ("CAP_SYS_ADMIN",), ("CAP_NET_RAW", "CAP_BPF")])
@pytest.mark.parametrize("profile", seccomp.SHIPPED)
def test_the_profiles_that_are_shipped(profile: str, capabilities: tuple[str, ...]) -> None:
    long, short = both(seccomp.profile(profile), capabilities)
    assert len(short) < len(long) / 3
    assert_same(long, short)


COMPARISON = st.fixed_dictionaries({
    "index": st.integers(0, 5),
    "op": st.sampled_from([f"SCMP_CMP_{op}" for op in ("EQ", "NE", "LT", "LE", "GE", "GT", "MASKED_EQ")]),
    "value": st.sampled_from([0, 1, 7, 0xFFFF_FFFF, 1 << 32, 1 << 40 | 7]), "valueTwo": st.sampled_from([0, 1, 7])})
RULE = st.fixed_dictionaries({
    "names": st.lists(st.sampled_from(["read", "write", "openat", "mount", "socket", "clone", "ioctl", "setns"]),
                      min_size=1, max_size=3, unique=True),
    "action": st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_KILL_PROCESS"]),
    "args": st.lists(COMPARISON, max_size=3, unique_by=lambda one: one["index"])})


@given(rules=st.lists(RULE, max_size=6), default=st.sampled_from(["SCMP_ACT_ERRNO", "SCMP_ACT_TRAP"]))
@settings(max_examples=50, deadline=None)
def test_any_profile(rules: list[dict[str, Any]], default: str) -> None:
    try:
        long, short = both(json.dumps({"defaultAction": default, "syscalls": rules}))
    except SpecError:
        return  # libseccomp has no two actions for one call
    assert_same(long, short)


def test_jumps_that_would_be_too_far() -> None:
    entries = json.loads(Path(seccomp.shipped("default")).read_text())["syscalls"]
    names = [name for entry in entries for name in entry["names"]]
    rules = [{"names": [name], "action": "SCMP_ACT_ALLOW",
              "args": [{"index": at % 6, "op": "SCMP_CMP_EQ", "value": at << 30}] if at % 3 == 0 else []}
             for at, name in enumerate(names)]
    long, short = both(json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}))
    assert len(long) > len(short) > 8 * bpf.REACH
    assert_same(long, short)


@pytest.mark.parametrize("strange", [(bpf.AND, 0, 0, 0xFF), (bpf.JUMP_BITS, 0, 0, 1), (0x07, 0, 0, 0)],
                         ids=["bits of the number", "a jump by them", "another instruction"])
def test_what_is_not_understood_stays_as_it_is(strange: tuple[int, int, int, int]) -> None:
    lines = [(bpf.LOAD, 0, 0, bpf.NUMBER), *[(bpf.JUMP_EQUAL, 0, 0, number) for number in range(20)],
             (bpf.RETURN, 0, 0, 1)]
    plain, other = (bpf.pack([bpf.Instruction(*line) for line in found])
                    for found in (lines, [lines[0], strange, *lines[1:]]))
    assert len(bpf.shorten(plain, [libseccomp.native()])) < len(plain)
    assert bpf.shorten(other, [libseccomp.native()]) == other
