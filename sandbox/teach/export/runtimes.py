"""What OCI runtimes and docker make of weights on cgroup v2, by their versions.

The OCI specification has the shares and block I/O weights of cgroup v1. A runtime converts them for cgroup v2, and some
formulas have changed. The version of the runtime decides which one an export tells; if it is not known, the export
tells both results. On cgroup v1 nothing is converted.

Sources: runc's CHANGELOG (1.3.2) and ``fs2/io.go``; crun#1767, crun's NEWS (1.5) and ``cgroup-resources.c``;
docker/cli#5321.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ...facts import Docker
from ...knobs import weight_from_shares

CURVE_SINCE = {"runc": (1, 3, 2), "crun": (1, 23, 0)}
"""First version of each runtime that converts shares to ``cpu.weight`` by :func:`~sandbox.knobs.weight_from_shares`.
Versions before it convert by :func:`linear`. The formulas of other runtimes are not known."""
CURVE, BEFORE = "runc 1.3.2 and crun 1.23 or later", "older ones"
IO_WEIGHT_SINCE = {"crun": (1, 5, 0)}
"""The first version that writes ``io.weight`` where there is no ``io.bfq.weight``."""
DROPPED_RATES = (((25, 0, 0), (25, 0, 7)), ((26, 0, 0), (27, 1, 2)))
"""Versions of the docker command that silently drop ``--device-read-bps`` and the like: from the first of each pair up
to, but not including, the second."""
MAX_SHARES = 262144

Version = tuple[int, int, int]


def version_of(text: str) -> Version | None:
    """``(1, 1, 15)`` of ``1.1.15+ds1-2``; None when it is no version."""
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", text)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def linear(shares: int) -> int:
    """The weight (1 to 10000) that runc before 1.3.2 and crun before 1.23 make of shares (2 to 262144)."""
    return 1 + (shares - 2) * 9999 // 262142


def formula(docker: Docker) -> Callable[[int], int] | None:
    """Return the formula by which docker's runtime converts shares to a weight; None if it is not known."""
    version, since = version_of(docker.runtime_version), CURVE_SINCE.get(docker.runtime)
    if version is None or since is None:
        return None
    return weight_from_shares if version >= since else linear


def fewest_shares(weight: int, convert: Callable[[int], int] = weight_from_shares) -> int:
    """The fewest shares that ``convert`` turns into ``weight``, or the next weight above."""
    import bisect

    return bisect.bisect_left(range(MAX_SHARES + 1), weight, lo=2, key=convert)


def both(shares: int) -> str:
    """Return the text with the results of both formulas, for a runtime whose version is not known."""
    new, old = weight_from_shares(shares), linear(shares)
    return f"cpu.weight {new}" if new == old else f"cpu.weight {new} by {CURVE}, but {old} by {BEFORE}"


def has_io_weight(docker: Docker) -> bool | None:
    """Whether docker's runtime writes ``io.weight`` where there is no ``io.bfq.weight``; None when it is not known."""
    version = version_of(docker.runtime_version)
    if version is None or docker.runtime not in CURVE_SINCE:
        return None
    return version >= IO_WEIGHT_SINCE.get(docker.runtime, (0, 0, 0))


def drops_rates(docker: Docker) -> bool | None:
    """True if the docker command silently drops ``--device-read-bps`` and the like; None if its version is unknown."""
    version = version_of(docker.client)
    return None if version is None else any(first <= version < fixed for first, fixed in DROPPED_RATES)
