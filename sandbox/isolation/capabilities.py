"""Capabilities: the workload has none, unless ``--cap-add`` gives it some within its own user namespace.

They are taken away in five places, because each alone leaves a way back: the bounding set (no file gives any), the
inheritable and the ambient set, permitted and effective, and the locked securebits (uid 0 is a user like any other).
"""

from __future__ import annotations

from ..errors import SpecError
from ..spec import Spec
from ..spelling import spelled
from ..stdlib import TYPE_CHECKING
from ..steps import Arg, Phase, Step, Where

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

NAMES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
    "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)
"""By number, from ``<linux/capability.h>``. python-prctl ends at CAP_BPF, and knows no ambient set."""
BITS = {name: 1 << number for number, name in enumerate(NAMES)}
ALL = "ALL"
NESTING = ("CAP_SETFCAP",)

# <linux/securebits.h>; a bit's lock is the next one.
NOROOT, NO_SETUID_FIXUP, KEEP_CAPS, NO_CAP_AMBIENT_RAISE = 0x1, 0x4, 0x10, 0x40


def parse(text: str, field: str) -> str:
    """``NET_RAW``, ``cap_net_raw`` or ``ALL`` as the kernel's own name.

    :raises SpecError: there is no such capability.
    """
    name = text.upper()
    if name == ALL or name in BITS:
        return name
    if f"CAP_{name}" in BITS:
        return f"CAP_{name}"
    from ..options import suggest

    words = NAMES if name.startswith("CAP_") else [one[4:] for one in NAMES]
    raise SpecError(f"{spelled(field)}: there is no capability {text!r}", field=field,
                    hint=suggest(name, words) or "see capabilities(7)")


def wanted(spec: Spec) -> tuple[str, ...]:
    """The capabilities the workload has: docker's rules for adding and dropping, from an empty set.

    ``--cap-drop ALL`` leaves those that are added by name; one that is both added and dropped is dropped.
    """
    if ALL in spec.cap_drop:
        return tuple(name for name in NAMES if name in spec.cap_add)
    added = NAMES if ALL in spec.cap_add else spec.cap_add
    return tuple(name for name in NAMES if name in added and name not in spec.cap_drop)


def held(spec: Spec, uid: int) -> tuple[str, ...]:
    """The capabilities the workload has, with what ``--nest`` takes.

    A process whose user id is 0 needs CAP_SETFCAP to map that id into a new user namespace (user_namespaces(7), Linux
    5.12). With it, the command can give files capabilities. Without it, uid 0 could leave set-uid programs in the same
    places. Other users get none.

    :param uid: its user id inside.
    """
    names = wanted(spec)
    nested = NESTING if spec.nest and uid == 0 else ()
    return tuple(name for name in NAMES if name in names or name in nested)


def mask(names: Iterable[str]) -> int:
    """The set as capset(2) has it."""
    return sum(BITS[name] for name in names)


def before(names: Sequence[str]) -> Iterator[Step]:
    """What takes CAP_SETPCAP, and so comes before the ids change.

    The bounding set and the locked securebits are the command's alone: in a new user namespace the kernel begins anew
    with all capabilities and no securebits (user_namespaces(7)), so ``--nest`` changes neither.

    :param names: the capabilities that the workload has, see :func:`held`.
    """
    if names:
        # KEEP_CAPS carries them over the change of the ids; execve clears it.
        # Who is given CAP_SETUID may give up all others with its uid, as usual: that "fixup" stays on.
        bits, locks = NOROOT | KEEP_CAPS, NOROOT
    else:
        # KEEP_CAPS is not locked. It gives no capability that the process lacks, and programs that drop privileges
        # (ping, setpriv, man-db) end if prctl(PR_SET_KEEPCAPS) fails.
        bits = locks = NOROOT | NO_SETUID_FIXUP | NO_CAP_AMBIENT_RAISE
    yield _step(names, "securebits", bits | locks << 1)
    yield _step(names, "bounding", mask(names))


def after(names: Sequence[str]) -> Iterator[Step]:
    """The sets themselves. Ambient ones are what survives an execve, for root too: NOROOT makes it a plain user."""
    bits = mask(names)
    yield _step(names, "capset", bits, bits, bits)
    yield _step(names, "ambient", bits)


def _step(names: Sequence[str], op: str, *args: Arg) -> Step:
    return Step(op=op, args=args, phase=Phase.EXEC, where=Where.WORKLOAD, realises=_realises(names))


def _realises(names: Sequence[str]) -> str:
    return "" if not names else "nest" if tuple(names) == NESTING else "cap_add"
