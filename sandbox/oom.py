"""Out-of-memory kills in the kernel's log: which processes were killed, and which cgroup's limit was hit.

The cgroup's counters tell neither. Sources: ``mm/oom_kill.c``, and ``Documentation/ABI/testing/dev-kmsg`` for records.
"""

from __future__ import annotations

import os
import re
import stat

from .stdlib import TYPE_CHECKING, NamedTuple, suppress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FIRST_PID_NAMESPACE = 0xEFFFFFFC
"""Inode of the initial pid namespace (``PROC_PID_INIT_INO`` in ``include/linux/proc_ns.h``). The log has its pids."""
DEVICE = os.makedev(1, 11)
"""Device number of ``/dev/kmsg``. In a container another file may have that name."""
RECORD = 8192
"""Buffer size for one record, in bytes. The kernel's records are shorter."""
CHOSEN = re.compile(r"oom-kill:constraint=(\w+),.*?(?:oom_memcg=(.*?)|global_oom),task_memcg=(.*?),task=.*,pid=(\d+),"
                    r"uid=\d+")
KILLED = re.compile(r"(?:Memory cgroup out|Out) of memory: Killed process (\d+) ")
ESCAPE = re.compile(r"\\x([0-9a-f]{2})")


class Kills(NamedTuple):
    """Out-of-memory kills in one cgroup.

    :param command: whether the OOM killer killed the command itself; None if unknown.
    :param limit: directory of the cgroup whose memory limit was hit, or its path in the host's hierarchy if it is not
        visible here; empty if no cgroup's limit was hit; None if unknown.
    :param constraint: the kernel's name for what was out of memory, such as ``CONSTRAINT_MEMCG``.
    """

    command: bool | None
    limit: str | None
    constraint: str


def kills(directory: str, count: int, pid: int | None) -> Kills | None:
    """Return what the kernel's log says about a cgroup; None if the log is not readable or does not mention the cgroup.

    :param directory: directory of the cgroup.
    :param count: number of killed processes by the cgroup's own counter.
    :param pid: pid of the command in the caller's pid namespace; None if it never ran.
    """
    mount = directory
    while not os.path.ismount(mount):
        mount = os.path.dirname(mount)
    try:
        if os.stat("/proc/self/ns/pid").st_ino != FIRST_PID_NAMESPACE:
            pid = None
        return find(_messages(), mount, directory[len(mount):], count, pid)
    except OSError:
        return None


def find(messages: Iterable[str], mount: str, cgroup: str, count: int, pid: int | None) -> Kills | None:
    """Find the last ``count`` kills in a cgroup; earlier ones are of an earlier sandbox with the same name. Pure.

    :param messages: the log, oldest first.
    :param cgroup: path below ``mount``. In a container the log's path has a prefix that is not visible there.
    """
    chosen: list[tuple[str, str, str, int]] = []
    killed: list[int] = []
    lines = 0
    for message in messages:
        if found := CHOSEN.fullmatch(message):
            constraint, limit, path, victim = found.groups()
            if cgroup and path.endswith(cgroup):
                chosen.append((constraint, limit or "", path[:-len(cgroup)], len(killed)))
                killed.append(int(victim))
        elif found := KILLED.match(message):
            killed.append(int(found[1]))
            lines += 1
    # If it kills many processes in a short time, the kernel skips "oom-kill:" lines, but no "Killed process" line.
    spared = pid is not None and pid not in killed and lines >= count
    if not chosen:
        return Kills(False, None, "") if spared else None
    chosen = chosen[-count:]
    was_killed = pid in killed[chosen[0][-1]:]
    # The log names the cgroup of only one process of a memory.oom.group.
    known = pid is not None and (was_killed or len(chosen) == count or spared)
    constraint, limit, hidden, _ = chosen[-1]
    if limit and limit.startswith(hidden):
        limit = (mount + limit[len(hidden):]).rstrip("/")
    return Kills(was_killed if known else None, limit, constraint)


def _messages() -> Iterator[str]:
    """Yield the messages of the kernel itself from its log, oldest first.

    :raises OSError: there is no log, or this user may not read it.
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
                    continue  # the record was overwritten; the next read returns the oldest that is left
                priority, _, message = record.partition(b"\n")[0].decode(errors="replace").partition(",")
                if int(priority) < 8:  # facility 0 (kernel), which no program can write
                    yield ESCAPE.sub(lambda found: chr(int(found[1], 16)), message.partition(";")[2])
    finally:
        os.close(fd)
