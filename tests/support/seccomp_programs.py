"""Programs of seccomp filters, and what the kernel would make of a call: an interpreter for BPF."""

from __future__ import annotations

import errno
import json
import platform
import struct
from pathlib import Path
from typing import Any

from sandbox.isolation import libseccomp, seccomp
from sandbox.isolation.rules import Machine, settle

ALLOW, KILL_PROCESS, LOG = 0x7FFF_0000, 0x8000_0000, 0x7FFC_0000
EPERM, ENOSYS = 0x5_0000 | errno.EPERM, 0x5_0000 | errno.ENOSYS
PROFILE = Path(seccomp.__file__).parent / "profile" / "default.json"
THREAD = 0x003D_0F00
NEWER = {"file_getattr", "file_setattr", "getxattrat", "listmount", "listxattrat", "lsm_get_self_attr",
         "lsm_list_modules", "mseal", "open_tree_attr", "removexattrat", "setxattrat", "statmount", "riscv_hwprobe"}
"""What libseccomp 2.5 has not heard of."""
HERE = Machine(capabilities=(), kernel="6.1.0-1-amd64", name=platform.machine())


def resolve(name: str) -> int:
    return int(libseccomp._library().seccomp_syscall_resolve_name(name.encode()))


def run(program: bytes, call: str | int, *args: int, arch: int | None = None) -> int:
    """What the kernel would make of a call: an interpreter of the few instructions that such programs have."""
    number = resolve(call) if isinstance(call, str) else call
    native = libseccomp._library().seccomp_arch_native()
    data = struct.pack("=IIQ6Q", number, native if arch is None else arch, 0, *args, *[0] * (6 - len(args)))
    code = list(struct.iter_unpack("=HBBI", program))
    jumps = {0x15: lambda a, k: a == k, 0x25: lambda a, k: a > k, 0x35: lambda a, k: a >= k, 0x45: lambda a, k: a & k}
    at = accumulator = 0
    while True:
        op, yes, no, value = code[at]
        at += 1
        if op == 0x06:
            return int(value)
        if op == 0x20:
            accumulator = struct.unpack_from("=I", data, value)[0]
        elif op == 0x54:
            accumulator &= value
        elif op == 0x05:
            at += value
        else:
            at += yes if jumps[op](accumulator, value) else no


def compiled(**profile: Any) -> bytes:
    return libseccomp.compile_rules(settle(json.dumps(profile), "FILE", HERE), "FILE")


def forget() -> None:
    seccomp._programs.clear()
