"""Namespaces: each is the sandbox's own unless its flag says otherwise, and root inside is nobody outside.

There are three ways into them:

- As root, a *holder* is started in a new user namespace, and the namespaces for network, IPC, host name and time with
  it, so that they belong to that user namespace. The init stays root of the host, for it has mounts to make; it joins
  the others with setns(2), and the workload the user namespace last of all. Ids inside are :data:`BASE` less than
  outside: no process has an id that owns anything of the host.
- As root with ``--userns host``, one clone3(2) makes them, and root inside is root.
- Without root, one clone3(2) makes them with a user namespace in which we stay who we are. For ``--user`` it has the
  ids that subuid(5) lends as well, see :mod:`sandbox.isolation.lent`.
"""

from __future__ import annotations

from ..errors import Unsupported
from ..host import FREE_IDS, Host
from ..records import User
from ..spec import Spec
from ..spelling import spelled
from ..stdlib import TYPE_CHECKING
from ..steps import Arg, Phase, Step, Where

if TYPE_CHECKING:
    from collections.abc import Iterator

BASE = FREE_IDS[0]
"""What id 0 inside is outside."""
RANGE = 65_536
"""How many ids are mapped as they are; what is above gets a place behind them when it is asked for."""

# <linux/sched.h>: the kernel's own numbers, which Python's os module lacks before 3.12.
CLONE_NEWTIME = 0x0000_0080
CLONE_NEWNS = 0x0002_0000
CLONE_NEWCGROUP = 0x0200_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000
FLAGS = {"net": CLONE_NEWNET, "ipc": CLONE_NEWIPC, "uts": CLONE_NEWUTS, "time": CLONE_NEWTIME,
         "cgroup": CLONE_NEWCGROUP}
"""Those that can be joined, by the name they have in ``/proc/PID/ns``."""
SPARE = ("time", "cgroup")
"""Nobody asked for these by name: a kernel without them gets by."""


def is_shifted(spec: Spec, host: Host) -> bool:
    """Ids inside are others outside: root runs it, and has ids to give."""
    return host.uid == 0 and host.ids and host.userns and spec.userns == "private"


def is_rootless(spec: Spec, host: Host) -> bool:
    """Everything rests on a user namespace of our own user's.

    :raises Unsupported: there can be none, or ``--userns host`` forbids it.
    """
    if is_shifted(spec, host) or (host.uid == 0 and (spec.userns == "host" or not host.userns)):
        return False
    if spec.userns == "host":
        wish = spelled("userns", "host")
        raise Unsupported(f"{wish}: without root, every other namespace needs a user namespace",
                          hint=f"run it as root, or leave {wish} out")
    return True


def private(spec: Spec, host: Host) -> dict[str, int]:
    """The clone flags of the namespaces that are made, of those in :data:`FLAGS`."""
    shared = {one.kind for one in spec.ns}
    shared |= {kind for kind, word in (("net", spec.network), ("ipc", spec.ipc), ("uts", spec.uts),
                                       ("cgroup", spec.cgroupns)) if word == "host"}
    return {kind: flag for kind, flag in FLAGS.items()
            if kind not in shared and not (kind in SPARE and kind not in host.namespaces)}


def spawn(spec: Spec, host: Host) -> Iterator[Step]:
    """Start the holder, if there is one, and the init.

    :raises Unsupported: they cannot be made by this user.
    """
    if spec.nest:
        _check_nest(spec, host)
    flags = sum(flag for kind, flag in private(spec, host).items() if kind != "cgroup")
    own = CLONE_NEWNS | (0 if spec.pid == "host" else CLONE_NEWPID)
    if host.chroot and not is_rootless(spec, host):
        yield _guard("leave_chroot")
    if is_shifted(spec, host):
        yield _guard("namespaces", CLONE_NEWUSER | flags)
        yield _guard("id_map", "", *_maps(spec, host))
        yield _guard("clone3", own)
    elif is_rootless(spec, host):
        lent_ids = _lent_ids(spec, host)
        yield _guard("clone3", CLONE_NEWUSER | own | flags)
        if lent_ids is not None:
            yield _guard("new_id_map", *lent_ids, phase=Phase.MAP)._replace(realises="user")
        else:
            yield _guard("id_map", "deny", f"{host.uid} {host.uid} 1", f"{host.gid} {host.gid} 1", phase=Phase.MAP)
    else:
        yield _guard("clone3", own | flags)


def _check_nest(spec: Spec, host: Host) -> None:
    """Refuse ``--nest`` where an unmasked /proc would be root's of the machine, or could not be seen whole.

    :raises Unsupported: with a sentence for each case.
    """
    wish = spelled("nest", True)
    if host.uid == 0 and not is_shifted(spec, host):
        if spec.userns == "host":
            raise Unsupported(f"{wish}: with {spelled('userns', 'host')}, root inside could change the kernel's "
                              "settings in the unmasked /proc", hint=f"leave {spelled('userns', 'host')} out")
        raise Unsupported(f"{wish}: root is in a container, sandbox or user namespace here and has no ids to give, so "
                          "root inside could change the kernel's settings in the unmasked /proc",
                          hint="start it as another user, or outside")
    if is_rootless(spec, host) and "net" not in private(spec, host):
        raise Unsupported(f"{wish}: without root, a sandbox inside could mount no /sys beside a shared network",
                          hint=f"leave {spelled('network', 'host')} and {spelled('ns', 'net:')} out, or run it as root")


def is_lent(spec: Spec, host: Host) -> bool:
    """Without root, the command is to be another than the launcher: that takes ids that are lent to it."""
    return (spec.user is not None and (spec.user.uid, spec.user.gid) != (host.uid, host.gid)
            and is_rootless(spec, host))


def _lent_ids(spec: Spec, host: Host) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """The command lines of newuidmap(1) and newgidmap(1).

    :raises Unsupported: ids are needed that this user has not.
    """
    if not is_lent(spec, host):
        return None
    from . import lent

    return lent.commands(identity(spec, host), host)


def _maps(spec: Spec, host: Host) -> tuple[str, str]:
    """uid_map and gid_map. Ids that are too high to be mapped as they are come behind the others."""
    user = identity(spec, host)
    return _map((user.uid,)), _map((user.gid, *user.groups))


def outside(spec: Spec, host: Host) -> tuple[int, int]:
    """User and group id of the workload as the host sees them."""
    user = identity(spec, host)
    if not is_shifted(spec, host):
        return user.uid, user.gid
    return _shift(user.uid, (user.uid,)), _shift(user.gid, (user.gid, *user.groups))


def _shift(number: int, used: tuple[int, ...]) -> int:
    return BASE + (number if number < RANGE else RANGE + _high(used).index(number))


def _high(used: tuple[int, ...]) -> list[int]:
    return sorted({number for number in used if number >= RANGE})


def _map(used: tuple[int, ...]) -> str:
    lines = [f"{number} {_shift(number, used)} 1" for number in _high(used)]
    return "\n".join([f"0 {BASE} {RANGE}", *lines])


def identity(spec: Spec, host: Host) -> User:
    """Who the workload is inside: who was asked for, else the launcher, without its supplementary groups."""
    return spec.user or User(uid=host.uid, gid=host.gid)


def enter(spec: Spec, host: Host) -> Iterator[Step]:
    """The init goes where the workload is to be, before it mounts what shows it."""
    made = private(spec, host)
    if spec.pid == "host":
        # Orphans come to the init all the same, and it can find whom to kill at the end.
        yield _init("subreaper", realises="pid")
    flags = sum(flag for kind, flag in made.items() if kind != "cgroup")
    if flags and is_shifted(spec, host):
        yield _init("setns", flags)
    for one in spec.ns:
        yield _init("join_ns", one.path, FLAGS[one.kind], realises="ns")
    if spec.hostname:
        yield _init("hostname", spec.hostname, realises="hostname")
    if "net" in made:
        yield _init("lo_up")
        yield from _unprivileged(spec, host)


def settle(spec: Spec, host: Host) -> Iterator[Step]:
    """Make a cgroup namespace: its roots are the cgroups that the workload has joined by now (cgroup_namespaces(7))."""
    if "cgroup" in private(spec, host):
        yield _workload("unshare", CLONE_NEWCGROUP)


def _unprivileged(spec: Spec, host: Host) -> Iterator[Step]:
    """In a network namespace of its own, let the command use ports below 1024 and ping(8) without a capability.

    Docker does the same. The kernel takes only group ids that exist in the init's user namespace (ip-sysctl in the
    kernel's documentation).
    """
    own = identity(spec, host).gid
    groups = (0, 2**31 - 1) if host.ids else (own, own)
    yield _init("sysctl", "net/ipv4/ip_unprivileged_port_start", "0")
    yield _init("sysctl", "net/ipv4/ping_group_range", f"{groups[0]} {groups[1]}")


def enter_userns(spec: Spec, host: Host) -> Iterator[Step]:
    """From here on it is nobody outside, and has every capability inside, to take on its ids with."""
    if is_shifted(spec, host):
        yield _workload("enter_userns")


def ids(spec: Spec, host: Host) -> Iterator[Step]:
    """Take on the ids, if they are not those that we have."""
    if is_rootless(spec, host) and not is_lent(spec, host):
        return
    if spec.user is None and not is_shifted(spec, host):
        return
    user = identity(spec, host)
    realises = "" if spec.user is None else "user"
    yield _workload("setgroups", *user.groups, realises=realises)
    yield _workload("setresgid", user.gid, realises=realises)
    yield _workload("setresuid", user.uid, realises=realises)


def notes(spec: Spec, host: Host) -> Iterator[str]:
    """What is not as it should be."""
    for kind in SPARE:
        if kind not in host.namespaces and not any(one.kind == kind for one in spec.ns):
            yield f"this kernel has no {kind} namespaces: what they hide is seen inside"
    if host.uid == 0 and spec.userns == "private" and not host.userns:
        yield "this kernel has no user namespaces: root inside is root of the host, without capabilities"


def _guard(op: str, *args: Arg, phase: Phase = Phase.SPAWN) -> Step:
    return Step(op=op, args=args, phase=phase, where=Where.GUARD)


def _init(op: str, *args: Arg, realises: str = "") -> Step:
    return Step(op=op, args=args, phase=Phase.ENTER, where=Where.INIT, realises=realises)


def _workload(op: str, *args: Arg, realises: str = "") -> Step:
    return Step(op=op, args=args, phase=Phase.EXEC, where=Where.WORKLOAD, realises=realises)
