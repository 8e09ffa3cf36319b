"""Landlock (landlock(7)): the workload's signals and abstract sockets end at the sandbox's edge, where the kernel can.

Namespaces do the same unless they are shared: under ``--network host`` this keeps the host's abstract sockets closed,
and under ``--pid host`` its processes from being signalled or traced, also those of the same user, and other
sandboxes likewise. The init stays outside and signals the workload as before.

What can be read and written is for the mounts to say: a ruleset that handles files forbids every mount(2), so
``--cap-add SYS_ADMIN`` or ``--nest`` would be of no use. For any other workload it handles sockets that have a path.
"""

from __future__ import annotations

from errno import ENOSYS, EOPNOTSUPP

from ..host import Host
from ..spec import Spec
from ..stdlib import TYPE_CHECKING, cache
from ..steps import Phase, Plan, Step, Where
from . import capabilities

if TYPE_CHECKING:
    from collections.abc import Iterator

SCOPED = 6
"""The version of the ABI that has scopes: Linux 6.12."""
RESOLVING = 9
"""The version of the ABI that has ``LANDLOCK_ACCESS_FS_RESOLVE_UNIX``: Linux 7.1."""
# <linux/landlock.h>
SCOPES = {0x1: "abstract_unix_socket", 0x2: "signal"}
RESOLVE_UNIX = 0x1_0000
CREATE_RULESET = 444  # the same on every architecture
CREATE_RULESET_VERSION = 1


def steps(spec: Spec, host: Host) -> Iterator[Step]:
    """The workload restricts itself, for good, as far as the kernel can.

    It may connect to a socket with a path only if the socket was made in the sandbox, or is in a volume or unmasked.
    """
    version = host.landlock_abi or 0
    if version < SCOPED:
        return
    may_mount = spec.nest or "CAP_SYS_ADMIN" in capabilities.wanted(spec)
    with_sockets = version >= RESOLVING and not spec.rootfs and not may_mount
    shown = (*(volume.target for volume in spec.volume), *map(host.absolute, spec.unmask)) if with_sockets else ()
    yield Step(op="landlock", args=(sum(SCOPES), RESOLVE_UNIX if with_sockets else 0, shown), phase=Phase.EXEC,
               where=Where.WORKLOAD)


def scopes(plan: Plan) -> tuple[str, ...]:
    """The names of the scopes that the plan puts in force."""
    bits = sum(int(str(step.args[0])) for step in plan.steps if step.op == "landlock")
    return tuple(name for bit, name in SCOPES.items() if bits & bit)


def closes_sockets(plan: Plan) -> bool:
    """Sockets of the host that have a path are closed by the plan."""
    return any(step.args[1] for step in plan.steps if step.op == "landlock")


@cache
def abi() -> int | None:
    """The version of the kernel's Landlock ABI; 0 when it is not built in or not switched on, None when that cannot be
    known, e.g. because a container's filter refuses the question."""
    from ..libc import call

    version = call("syscall", CREATE_RULESET, None, 0, CREATE_RULESET_VERSION)
    return version if version >= 0 else _why_not()


def _why_not() -> int | None:
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    library.syscall(ctypes.c_long(CREATE_RULESET), None, ctypes.c_size_t(0), ctypes.c_uint32(CREATE_RULESET_VERSION))
    return 0 if ctypes.get_errno() in (ENOSYS, EOPNOTSUPP) else None
