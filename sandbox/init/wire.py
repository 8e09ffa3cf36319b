"""The plan on its way to ``sandbox-init``: what this writes, ``wire.c`` reads back, strictly.

::

    plan := "SBX1" u32 length-of-all u32 count step*          all numbers little-endian
    step := u8 where ('g' 'i' 'w')  u8 nargs  u16 number  str op  arg*
    str  := u32 length, bytes, NUL                            length without the NUL, no NUL among the bytes
    arg  := 'i' i64 | 's' str | 'l' u32 count str* | 'b' u32 length, bytes
"""

from __future__ import annotations

import os

from ..errors import SpecError
from ..stdlib import TYPE_CHECKING
from ..steps import Arg, Step, Where

if TYPE_CHECKING:
    from collections.abc import Iterable

MAGIC = b"SBX1"
KEPT = 512
"""Encoded steps that are kept, by identity: the plans that come of one draft have most of their steps in common."""
LETTERS = {Where.GUARD: b"g", Where.INIT: b"i", Where.WORKLOAD: b"w"}

OPS: dict[str, tuple[Where, str]] = {
    "launcher": (Where.GUARD, "ii"),
    "claim": (Where.GUARD, "ss"),
    "stop": (Where.GUARD, "ii"),
    "oom_exempt": (Where.GUARD, "i"),
    "reset_realtime": (Where.GUARD, ""),
    "no_core": (Where.GUARD, ""),
    "deadline": (Where.GUARD, "i"),
    "watch": (Where.GUARD, "sssii"),
    "leave_chroot": (Where.GUARD, ""),
    "namespaces": (Where.GUARD, "i"),
    "tell_namespaces": (Where.GUARD, ""),
    "clone3": (Where.GUARD, "i"),
    "tell_init": (Where.GUARD, ""),
    "id_map": (Where.GUARD, "sss"),
    "new_id_map": (Where.GUARD, "ll"),
    "thaw": (Where.GUARD, "ssss"),
    "remove": (Where.GUARD, "s"),
    "systemctl": (Where.GUARD, "lls"),
    "unlink": (Where.GUARD, "s"),
    "give_streams": (Where.INIT, "i*"),
    "setsid": (Where.INIT, ""),
    "ctty": (Where.INIT, "i"),
    "subreaper": (Where.INIT, ""),
    "private": (Where.INIT, ""),
    "setns": (Where.INIT, "i"),
    "join_ns": (Where.INIT, "si"),
    "hostname": (Where.INIT, "s"),
    "lo_up": (Where.INIT, ""),
    "sysctl": (Where.INIT, "ss"),
    "tree": (Where.INIT, "isiii"),
    "overlay": (Where.INIT, "isss"),
    "node": (Where.INIT, "iiiiiii"),
    "root": (Where.INIT, "i"),
    "discard": (Where.INIT, "s"),
    "place": (Where.INIT, "is"),
    "mount": (Where.INIT, "ssis"),
    "mkdir_in": (Where.INIT, "si"),
    "mknod_in": (Where.INIT, "siiiii"),
    "symlink_in": (Where.INIT, "ss"),
    "mask": (Where.INIT, "s"),
    "read_only": (Where.INIT, "s"),
    "attr": (Where.INIT, "si"),
    "pivot": (Where.INIT, ""),
    "hold": (Where.INIT, ""),
    "clone_into_cgroup": (Where.WORKLOAD, "i"),
    "join": (Where.WORKLOAD, "i"),
    "in_cgroup": (Where.WORKLOAD, "s"),
    "unshare": (Where.WORKLOAD, "i"),
    "mount_cgroup": (Where.WORKLOAD, "sss"),
    "enter_userns": (Where.WORKLOAD, ""),
    "securebits": (Where.WORKLOAD, "i"),
    "bounding": (Where.WORKLOAD, "i"),
    "capset": (Where.WORKLOAD, "iii"),
    "ambient": (Where.WORKLOAD, "i"),
    "label": (Where.WORKLOAD, "ssi"),
    "no_new_privs": (Where.WORKLOAD, ""),
    "landlock": (Where.WORKLOAD, "iil"),
    "seccomp": (Where.WORKLOAD, "bi"),
    "oom_score_adj": (Where.WORKLOAD, "iii"),
    "nice": (Where.WORKLOAD, "i"),
    "ionice": (Where.WORKLOAD, "ii"),
    "rlimit": (Where.WORKLOAD, "iii"),
    "setgroups": (Where.WORKLOAD, "i*"),
    "setresgid": (Where.WORKLOAD, "i"),
    "setresuid": (Where.WORKLOAD, "i"),
    "chdir": (Where.WORKLOAD, "s"),
    "setpgid": (Where.WORKLOAD, ""),
    "foreground": (Where.WORKLOAD, "i"),
    "reset_signals": (Where.WORKLOAD, ""),
    "close_fds": (Where.WORKLOAD, "i"),
    "preserve_fds": (Where.WORKLOAD, "i*"),
    "execve": (Where.WORKLOAD, "lll"),
}
"""Every op that ``sandbox-init`` knows: who carries it out, and its arguments: ``i`` a number, ``s`` a text, ``l`` a
list of texts, ``b`` bytes, ``i*`` any number of numbers."""


def encode(steps: Iterable[tuple[int, Step]]) -> bytes:
    """The steps of the guard, the init and the workload, as ``sandbox-init`` reads them.

    :param steps: each with its number in the whole plan, from 1.
    :raises SpecError: an argument has a NUL byte or does not fit into 64 bits.
    :raises TypeError: a step that ``sandbox-init`` does not know, or its arguments are not what :data:`OPS` says.
    """
    records = []
    for number, step in steps:
        kept = _kept.get(id(step))
        records.append(kept[2] if kept is not None and kept[0] is step and kept[1] == number else _step(number, step))
    body = b"".join(records)
    return MAGIC + _u32(len(body) + 12) + _u32(len(records)) + body


_kept: dict[int, tuple[Step, int, bytes]] = {}


def _step(number: int, step: Step) -> bytes:
    record = _record(number, step)
    if len(_kept) >= KEPT:
        _kept.clear()
    _kept[id(step)] = step, number, record
    return record


def _record(number: int, step: Step) -> bytes:
    where, signature = OPS.get(step.op, (None, ""))
    if where is not step.where:
        raise TypeError(f"sandbox-init has no {step.where} step {step.op}")
    args = [_arg(value) for value in step.args]
    types = "".join([chr(arg[0]) for arg in args])
    if types != (len(args) * "i" if signature == "i*" else signature) or len(args) > 255:
        raise TypeError(f"sandbox-init has no step {step.op} with arguments {step.args!r}")
    return b"".join([LETTERS[where], bytes([len(args)]), number.to_bytes(2, "little"), _text(step.op), *args])


def _arg(arg: Arg | bytes) -> bytes:
    """The argument, with the letter of its type in front."""
    if isinstance(arg, int):
        try:
            return b"i" + arg.to_bytes(8, "little", signed=True)
        except OverflowError:
            raise SpecError(f"{arg} does not fit into 64 bits") from None
    if isinstance(arg, str):
        return b"s" + _text(arg)
    if isinstance(arg, bytes):
        return b"b" + _u32(len(arg)) + arg
    return b"".join([b"l", _u32(len(arg)), *map(_text, arg)])


def _text(text: str) -> bytes:
    data = os.fsencode(text)
    if 0 in data:
        raise SpecError(f"{text!r} has a NUL byte")
    return b"%b%b\0" % (_u32(len(data)), data)


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "little")
