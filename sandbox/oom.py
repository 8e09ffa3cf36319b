"""What the kernel's log says of processes that it killed for memory: which they were, and whose limit was hit.

No counter tells either. Source: ``mm/oom_kill.c`` and ``Documentation/ABI/testing/dev-kmsg``.
"""

from __future__ import annotations

import os

from .stdlib import TYPE_CHECKING, NamedTuple, suppress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FIRST_PID_NAMESPACE = 0xEFFFFFFC
"""Its inode, ``PROC_PID_INIT_INO`` in ``include/linux/proc_ns.h``: the pids in the log are those in there."""
CHOSEN, KILLED = "oom-kill:constraint=", ": Killed process "
RECORD = 8192
"""Bytes; longer ones are cut (``PRINTK_MESSAGE_MAX``)."""


class Kills(NamedTuple):
    """What is known of the processes of one cgroup that the kernel killed for memory.

    :param command: whether the command itself was among them; None when that cannot be told.
    :param limit: the directory of the cgroup whose limit was hit; below the root of the whole tree if that is not to be
        seen here; empty when the machine was out of memory.
    """

    command: bool | None
    limit: str


def kills(directory: str, count: int, pid: int | None) -> Kills | None:
    """What the log has of a cgroup; None when it cannot be read, or says nothing of it.

    :param directory: of the cgroup.
    :param count: how many processes the cgroup's own counter says were killed.
    :param pid: of the command, in the caller's pid namespace.
    """
    try:
        messages = list(_messages())
        mount = directory
        while not os.path.ismount(mount):
            mount = os.path.dirname(mount)
        known = os.stat("/proc/self/ns/pid").st_ino == FIRST_PID_NAMESPACE
    except OSError:
        return None
    return find(messages, mount, directory[len(mount):], count, pid if known else None)


def find(messages: Iterable[str], mount: str, cgroup: str, count: int, pid: int | None) -> Kills | None:
    """See :func:`kills`. Pure; names of sandboxes may come again, so only the last ``count`` kills are of this one."""
    chosen: list[tuple[str, str, int]] = []
    killed: list[int] = []
    for message in messages:
        if message.startswith(CHOSEN):
            # The name of the process comes between these, and it may have chosen one with commas.
            words = dict(word.partition("=")[::2] for word in message.partition(",task=")[0].split(","))
            at = f"{words.get('task_memcg', '')}/".find(f"{cgroup}/")
            if at >= 0:
                chosen.append((words.get("oom_memcg", ""), words["task_memcg"][:at], len(killed)))
                killed.append(int(message.rpartition(",pid=")[2].partition(",")[0]))
        elif KILLED in message and chosen:
            killed.append(int(message.partition(KILLED)[2].split()[0]))
    if not chosen:
        return None
    chosen = chosen[-count:]
    was_killed = pid in killed[chosen[0][2]:]
    # Of a group that is killed together, only one is told with its cgroup; of many kills in a row, not every one.
    known = pid is not None and (was_killed or len(chosen) == count)
    limit, outside, _ = chosen[-1]
    seen = limit and limit.startswith(outside)
    return Kills(was_killed if known else None, (mount + limit[len(outside):]).rstrip("/") if seen else limit)


def _messages() -> Iterator[str]:
    """The log, oldest first."""
    fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        with suppress(BlockingIOError):
            while True:
                try:
                    record = os.read(fd, RECORD)
                except BrokenPipeError:
                    continue  # it was overwritten; the next read has the one after it
                yield record.partition(b";")[2].partition(b"\n")[0].decode(errors="replace")
    finally:
        os.close(fd)
