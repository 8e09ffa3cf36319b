"""A cgroup's device policy on cgroup v2: a BPF program that is asked whenever one of its processes opens a device.

The program is made here, a few instructions for each rule; the kernel's ``bpf_cgroup_dev_ctx`` has type and access in
one word, and the numbers in two. It goes with the cgroup. Sources: bpf(2), <linux/bpf.h>.
"""

from __future__ import annotations

import ctypes
import os
from errno import EPERM
from struct import pack, unpack_from

from ..errors import CgroupError
from ..spelling import spelled
from ..stdlib import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
PROG_LOAD, PROG_ATTACH, OBJ_GET_INFO_BY_FD, PROG_QUERY = 5, 8, 15, 16
PROG_TYPE_CGROUP_DEVICE, ATTACH_CGROUP_DEVICE, ALLOW_MULTI = 15, 6, 2
MOST = 64
"""Programs of one cgroup; the kernel's ``BPF_CGROUP_MAX_PROGS``."""
TYPES = {"b": 1, "c": 2}
ACCESS = {"m": 1, "r": 2, "w": 4}

LOAD_WORD, AND32, SHIFT_RIGHT32, COPY32, SET = 0x61, 0x54, 0x74, 0xBC, 0xB7
UNLESS, UNLESS_SAME, EXIT = 0x55, 0x5D, 0x95
RESULT, CONTEXT, TYPE, WANTED, MAJOR, MINOR = range(6)
"""Registers: r1 comes with the context, and is free when everything has been loaded from it."""


def program(rules: Sequence[str]) -> bytes:
    """The instructions for rules such as ``c 1:3 rw`` and ``c 136:* rw``: what none allows is refused. Pure."""
    head = (_code(LOAD_WORD, TYPE, CONTEXT), _code(COPY32, WANTED, TYPE), _code(AND32, TYPE, value=0xFFFF),
            _code(SHIFT_RIGHT32, WANTED, value=16), _code(LOAD_WORD, MAJOR, CONTEXT, 4),
            _code(LOAD_WORD, MINOR, CONTEXT, 8))
    return b"".join((*head, *map(_allow, rules), *_end(0)))


def _allow(rule: str) -> bytes:
    kind, number, access = rule.split()
    allowed = sum(ACCESS[letter] for letter in access)
    numbers = zip((MINOR, MAJOR), reversed(number.split(":")), strict=True)
    codes = b"".join(_end(1))
    for register, value in (*((one, int(text)) for one, text in numbers if text != "*"), (TYPE, TYPES[kind])):
        codes = _code(UNLESS, register, skip=len(codes) // 8, value=value) + codes  # else to the next rule
    return b"".join((_code(COPY32, CONTEXT, WANTED), _code(AND32, CONTEXT, value=allowed),
                     _code(UNLESS_SAME, CONTEXT, WANTED, len(codes) // 8), codes))


def _end(result: int) -> Iterator[bytes]:
    yield _code(SET, RESULT, value=result)
    yield _code(EXIT)


def _code(operation: int, target: int = 0, source: int = 0, skip: int = 0, value: int = 0) -> bytes:
    """One instruction: ``struct bpf_insn``."""
    return pack("=BBhi", operation, target | source << 4, skip, value)


def attach(cgroup: str, rules: Sequence[str]) -> None:
    """Have the cgroup at this path ask the program, and see that it does.

    :raises CgroupError: it cannot be loaded or attached.
    """
    instructions, license = ctypes.create_string_buffer(program(rules)), ctypes.create_string_buffer(b"GPL")
    directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        loaded, _ = _bpf(cgroup, PROG_LOAD, pack("=IIQQ", PROG_TYPE_CGROUP_DEVICE, (len(instructions) - 1) // 8,
                                                 ctypes.addressof(instructions), ctypes.addressof(license)))
        try:
            _bpf(cgroup, PROG_ATTACH, pack("=IIII", directory, loaded, ATTACH_CGROUP_DEVICE, ALLOW_MULTI))
            if _number(cgroup, loaded) not in attached(cgroup, directory):
                raise CgroupError(f"{cgroup} does not have the device filter that was attached to it")
        finally:
            os.close(loaded)
    finally:
        os.close(directory)


def check(cgroup: str) -> None:
    """See that there is a device filter, whoever has attached it.

    :raises CgroupError: there is none, or it cannot be known.
    """
    directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not attached(cgroup, directory):
            raise CgroupError(f"{cgroup} has no device filter, although systemd was asked for one",
                              hint="see what systemd says of it: journalctl -n 20 | grep -i bpf")
    finally:
        os.close(directory)


def attached(cgroup: str, directory: int) -> tuple[int, ...]:
    """The numbers of the device filters of an opened cgroup."""
    numbers = ctypes.create_string_buffer(4 * MOST)
    _, answer = _bpf(cgroup, PROG_QUERY, pack("=IIIIQI", directory, ATTACH_CGROUP_DEVICE, 0, 0,
                                              ctypes.addressof(numbers), MOST))
    count, = unpack_from("=I", answer, 24)
    return unpack_from(f"={count}I", numbers.raw)


def _number(cgroup: str, loaded: int) -> int:
    about = ctypes.create_string_buffer(64)
    _bpf(cgroup, OBJ_GET_INFO_BY_FD, pack("=IIQ", loaded, len(about.raw), ctypes.addressof(about)))
    number: int = unpack_from("=I", about.raw, 4)[0]
    return number


def _bpf(cgroup: str, command: int, attributes: bytes) -> tuple[int, bytes]:
    """bpf(2): what it returns, and its attributes afterwards."""
    call = CALL.get(os.uname().machine)
    if call is None:
        raise CgroupError(f"no device filter for {cgroup}: the number of bpf(2) is not known here",
                          hint=f"use {spelled('driver', 'systemd')}")
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"))
    library = ctypes.CDLL(None, use_errno=True)
    result = library.syscall(ctypes.c_long(call), ctypes.c_long(command), ctypes.byref(buffer), ctypes.c_long(128))
    if result < 0:
        error = ctypes.get_errno()
        raise CgroupError(f"cannot attach a device filter to {cgroup}, or see one", errno=error,
                          hint="it takes root of the machine itself" if error == EPERM else
                          f"use {spelled('driver', 'systemd')}")
    return result, buffer.raw
