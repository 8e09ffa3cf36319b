"""What the kernel's log says of processes that it killed for memory: which they were, and whose limit was hit.

No counter tells either. Sources: ``mm/oom_kill.c``, and ``Documentation/ABI/testing/dev-kmsg`` for the records.
"""

from __future__ import annotations

import os
import re
import stat

from .stdlib import TYPE_CHECKING, NamedTuple, suppress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FIRST_PID_NAMESPACE = 0xEFFFFFFC
"""Its inode, ``PROC_PID_INIT_INO`` in ``include/linux/proc_ns.h``: the pids in the log are those in there."""
DEVICE = os.makedev(1, 11)
"""Of ``/dev/kmsg``; a container may have put something else there."""
RECORD = 8192
"""Bytes: more than the kernel makes of one record."""
CHOSEN = re.compile(r"oom-kill:constraint=(\w+),.*?(?:oom_memcg=(.*?)|global_oom),task_memcg=(.*?),task=.*,pid=(\d+),"
                    r"uid=\d+")
KILLED = re.compile(r"(?:Memory cgroup out|Out) of memory: Killed process (\d+) ")
ESCAPE = re.compile(r"\\x([0-9a-f]{2})")


class Kills(NamedTuple):
    """What is known of the processes of one cgroup that the kernel killed for memory.

    :param command: whether the command itself was among them; None when that cannot be told.
    :param limit: the directory of the cgroup whose limit was hit; below the root of the whole tree if that is not to be
        seen here; empty when it was none.
    :param constraint: the kernel's word for what was out of memory, such as ``CONSTRAINT_MEMCG``.
    """

    command: bool | None
    limit: str
    constraint: str


def kills(directory: str, count: int, pid: int | None) -> Kills | None:
    """What the log has of a cgroup; None when it cannot be read, or says nothing of it.

    :param directory: of the cgroup.
    :param count: how many processes the cgroup's own counter says were killed.
    :param pid: of the command, in the caller's pid namespace.
    """
    mount = directory
    while not os.path.ismount(mount):
        mount = os.path.dirname(mount)
    try:
        messages = [*_messages()]
        known = os.stat("/proc/self/ns/pid").st_ino == FIRST_PID_NAMESPACE
    except OSError:
        return None
    return find(messages, mount, directory[len(mount):], count, pid if known else None)


def find(messages: Iterable[str], mount: str, cgroup: str, count: int, pid: int | None) -> Kills | None:
    """See :func:`kills`. Pure; names of sandboxes may come again, so only the last ``count`` kills are of this one.

    :param cgroup: path below ``mount``. In a container, the log's paths begin with what is hidden there.
    """
    chosen: list[tuple[str, str, str, int]] = []
    killed: list[int] = []
    for message in messages:
        if found := CHOSEN.fullmatch(message):
            constraint, limit, path, victim = found.groups()
            if cgroup and path.endswith(cgroup):
                chosen.append((constraint, limit or "", path[:-len(cgroup)], len(killed)))
                killed.append(int(victim))
        elif found := KILLED.match(message):
            killed.append(int(found[1]))
    if not chosen:
        return None
    chosen = chosen[-count:]
    was_killed = pid in killed[chosen[0][-1]:]
    # Of a group that is killed together, only one is told with its cgroup; of many kills in a row, not every one.
    known = pid is not None and (was_killed or len(chosen) == count)
    constraint, limit, hidden, _ = chosen[-1]
    if limit and limit.startswith(hidden):
        limit = (mount + limit[len(hidden):]).rstrip("/")
    return Kills(was_killed if known else None, limit, constraint)


def _messages() -> Iterator[str]:
    """The kernel's own, oldest first.

    :raises OSError: there is no log, or it is not for us.
    """
    fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        status = os.fstat(fd)
        if not stat.S_ISCHR(status.st_mode) or status.st_rdev != DEVICE:
            raise FileNotFoundError
        with suppress(BlockingIOError):
            while True:
                try:
                    record = os.read(fd, RECORD)
                except BrokenPipeError:
                    continue  # it was overwritten; the next read has the one after it
                priority, _, message = record.partition(b"\n")[0].decode(errors="replace").partition(",")
                if int(priority) < 8:  # facility 0; programs can only write others
                    yield ESCAPE.sub(lambda found: chr(int(found[1], 16)), message.partition(";")[2])
    finally:
        os.close(fd)
