"""``--user`` without root: a user namespace with ids that subuid(5) and subgid(5) lend to the launcher's user.

Inside, the launcher's own id is itself, so that its files are its own, and what is lent is counted from 0 on around
it; an id that is too high for that gets one of the last. With ``--user 0`` root inside is the launcher, as podman has
it, so that it owns a ``--rootfs`` that the launcher has unpacked; what is lent follows from 1 on. Those are the layouts
of ``unshare --map-auto`` with ``--map-current-user`` and ``--map-root-user``. Only the set-uid tools newuidmap(1) and
newgidmap(1) can write them; setgroups(2) is allowed then.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import chain

from ..errors import Unsupported
from ..facts import Lent
from ..host import Host, small_file
from ..records import User
from ..spelling import spelled

Ranges = Sequence[tuple[int, int]]
Line = tuple[int, int, int]
"""Of a map: the first id inside, the first outside, how many."""

INIT = "{init}"
"""Stands for the process id, which the guard puts in."""
SUBUID, SUBGID = "/etc/subuid", "/etc/subgid"
DIRECTORIES = ("/usr/bin", "/usr/local/bin", "/bin")
FEWEST = 6
"""So many at least that there is the group of terminals, 5."""


def probe(uid: int, root: str = "") -> Lent:
    """What is configured for the user ``uid``, who is not root.

    :param root: a directory that stands for ``/``, for tests.
    """
    import pwd

    try:
        names = {str(uid), pwd.getpwuid(uid).pw_name}
    except KeyError:
        names = {str(uid)}
    return Lent(user=max(names), uids=tuple(_ranges(root + SUBUID, names)), gids=tuple(_ranges(root + SUBGID, names)),
                newuidmap=_tool(root, "newuidmap"), newgidmap=_tool(root, "newgidmap"))


def _ranges(path: str, names: set[str]) -> Iterator[tuple[int, int]]:
    """Lines are ``NAME:FIRST:COUNT``, with the name or the number of the user."""
    for line in small_file(path).splitlines():
        name, _, numbers = line.strip().partition(":")
        first, _, count = numbers.partition(":")
        if name in names and first.isdigit() and count.isdigit() and int(count):
            yield int(first), int(count)


def _tool(root: str, name: str) -> str:
    """Its path, if it has the privileges of its file; without them it can do no more than we can."""
    for directory in DIRECTORIES:
        path = f"{directory}/{name}"
        try:
            if os.stat(root + path).st_mode & 0o4000 or "security.capability" in os.listxattr(root + path):
                return path
        except OSError:
            continue
    return ""


def commands(user: User, host: Host) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The command lines of newuidmap and newgidmap that map what ``user`` needs.

    :raises Unsupported: the tools are not there, or too few ids are lent.
    """
    lent = host.lent
    _check(user, host)
    # Root inside has root's group, whatever group the command has: both maps have the same layout.
    own = (0, 0) if user.uid == 0 else (host.uid, host.gid)
    uids = layout(lent.uids, (own[0], host.uid), (user.uid,))
    gids = layout(lent.gids, (own[1], host.gid), (user.gid, *user.groups))
    return _words(lent.newuidmap, uids), _words(lent.newgidmap, gids)


def _words(tool: str, lines: Sequence[Line]) -> tuple[str, ...]:
    return (tool, INIT, *map(str, chain.from_iterable(lines)))


def _check(user: User, host: Host) -> None:
    lent = host.lent
    wish = (f"{spelled('user')}: without root, the command can be {user.uid}:{user.gid} only with ids that are "
            "lent to this user")
    name = lent.user or f"#{host.uid}"
    lacks, remedies = [], []
    if not (lent.newuidmap and lent.newgidmap):
        lacks.append("no set-uid newuidmap and newgidmap")
        remedies.append("apt-get install uidmap")
    short = [path for path, ranges, used in ((SUBUID, lent.uids, {user.uid}),
                                             (SUBGID, lent.gids, {user.gid, *user.groups}))
             if sum(count for _, count in ranges) < max(len(used), FEWEST)]
    if short:
        lacks.append(f"nothing, or too little, for {name} in {' and '.join(short)}")
        remedies.append(f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}")
    if lacks:
        raise Unsupported(f"{wish}; there is {'; '.join(lacks)}", hint=f"as root: {' && '.join(remedies)}")


def layout(ranges: Ranges, own: tuple[int, int], used: Sequence[int]) -> tuple[Line, ...]:
    """The lines of a map, in the order of the ids inside.

    :param ranges: what is lent.
    :param own: the launcher's id inside, and outside.
    :param used: ids inside that are needed.
    """
    inside, _ = own
    total = sum(count for _, count in ranges)
    others = sorted({number for number in used if number != inside})
    low = total - len(others)
    high = [number for number in others if number - (number > inside) >= low]
    if not high or high[-1] - (high[-1] > inside) < total:
        low, high = total, []
    pieces = [(*own, 1), *_low(ranges, inside, low),
              *((number, _nth(ranges, low + place), 1) for place, number in enumerate(high))]
    return tuple(sorted(pieces))


def _low(ranges: Ranges, inside: int, most: int) -> Iterator[Line]:
    """The first of them, from 0 on, around ``inside``."""
    place = 0
    for first, count in ranges:
        count = min(count, most - place)
        before = max(min(inside - place, count), 0)
        if before:
            yield place, first, before
        if count > before:
            yield place + before + 1, first + before, count - before
        place += count


def _nth(ranges: Ranges, place: int) -> int:
    """The id outside that is in this place of all that are lent."""
    for first, count in ranges:
        if place < count:
            return first + place
        place -= count
    raise AssertionError("more ids than are lent")
