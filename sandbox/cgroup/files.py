"""The one place that opens cgroup files.

``open(path, "w").write(value)`` is never used: CPython swallows the error that cgroupfs reports on close. Everything
here is one system call per operation, so that the kernel's answer is seen.
"""

from __future__ import annotations

import os
from errno import EACCES, EBUSY, EEXIST, EINVAL, ENODEV, ENOENT, ENOSPC, ENOTSUP, EPERM, ERANGE, EROFS

from ..errors import CgroupError
from ..spelling import spelled
from ..stdlib import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

HINTS = {
    EROFS: "the cgroup file system is mounted read-only",
    ENOENT: "the kernel or the parent cgroup lacks this controller (`sandbox info`)",
    ENODEV: "the kernel has no such disk, or it is a partition",
    EINVAL: "the kernel does not take this value, or a parent cgroup allows less",
    ERANGE: "the kernel does not take this value",
    EBUSY: "processes are in the cgroup that would have to pass the controller on",
    ENOTSUP: "the parent cgroup is threaded",
}
NOT_EVEN_ROOT = "this process lacks a capability, or a security module forbids it: see dmesg"
NOT_ROOT = "this user may not write there; run as root, or have the cgroup delegated (`sandbox info`)"


def read(path: str) -> str:
    """The text of a cgroup file.

    :raises CgroupError: with the path.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise failure("read", path, "", error) from error
    try:
        text = chunk = os.read(fd, 4096)
        # The kernel hands such files out in whole lines, a page at a time: less than half of one was all there is.
        while len(chunk) >= 2048:
            chunk = os.read(fd, 4096)
            text += chunk
        return os.fsdecode(text)
    except OSError as error:
        raise failure("read", path, "", error) from error
    finally:
        os.close(fd)


def read_all(paths: Iterable[str]) -> dict[str, str | CgroupError]:
    """The text of each file, or why it cannot be read.

    Nothing is made of the texts yet: at the end of a run, whoever removes the cgroups waits for this.
    """
    texts: dict[str, str | CgroupError] = {}
    for path in paths:
        if path not in texts:
            try:
                texts[path] = read(path)
            except CgroupError as error:
                texts[path] = error
    return texts


def write(path: str, value: str) -> None:
    """Write ``value`` in a single write(2).

    :raises CgroupError: with the path and the value.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        raise failure("write", path, value, error) from error
    try:
        os.write(fd, os.fsencode(value))
    except OSError as error:
        raise failure("write", path, value, error) from error
    finally:
        os.close(fd)


def failure(verb: str, path: str, value: str, error: OSError) -> CgroupError:
    """The error for people: what was tried, where, with which value, and what to do."""
    what = f"cannot {verb} {path}" + (f" = {value.strip()}" if value else "")
    number = error.errno or 0
    hint = HINTS.get(number, "another program may use the cgroup at the same time; dmesg may tell more")
    if number == EEXIST:
        hint = (f"a sandbox of that name is running, or was killed: choose another {spelled('name')}, or "
                "try `sandbox gc`")
    if number in (EACCES, EPERM):
        hint = NOT_ROOT if os.geteuid() else NOT_EVEN_ROOT
    if os.path.basename(path) in ("cpuset.cpus", "cpuset.mems") and number in (EACCES, EINVAL, ERANGE, ENOSPC):
        # cgroup v1 fails with EACCES, even for root, if the parent cgroup does not have these CPUs or nodes.
        hint = _parents(path) or hint
    if os.path.basename(path) == "cpu.cfs_quota_us" and number == EINVAL:
        hint = _quota_above(path) or hint
    return CgroupError(what, errno=number, hint=hint)


def _quota_above(path: str) -> str:
    """The hint that says how many CPUs the quota of a cgroup above allows; empty if there is none.

    cgroup v1 refuses a quota that is higher than that of a cgroup above (``tg_cfs_schedulable_down()``).
    """
    directory = os.path.dirname(path)
    while (directory := os.path.dirname(directory)) != "/":
        try:
            quota, period = (int(read(f"{directory}/cpu.cfs_{name}_us")) for name in ("quota", "period"))
        except CgroupError:
            break
        if quota > 0:
            return f"{directory}/cpu.cfs_quota_us allows {quota / period:g}: give {spelled('cpus')} that much or less"
    return ""


def _parents(path: str) -> str:
    """The hint that says which CPUs or memory nodes the parent cgroup has; empty if its file cannot be read."""
    directory, name = os.path.split(path)
    parent = os.path.join(os.path.dirname(directory), name)
    try:
        return f"the cgroup above allows only {read(parent).strip() or 'nothing'}: {parent}"
    except CgroupError:
        return ""


def value_of(text: str, key: str) -> str:
    """The value of one key in a flat-keyed file, which has ``nr_periods 3`` and the like per line.

    :raises KeyError: there is no such key.
    """
    _, found, rest = f"\n{text}".partition(f"\n{key} ")
    if not found:
        raise KeyError(key)
    return rest.partition("\n")[0]
