"""The system calls a container needs and Python has no function for (before 3.12, or at all)."""

from __future__ import annotations

import ctypes
import os

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1, 2, 4, 8, 32, 4096, 16384, 1 << 18)
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = (
    0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x20000000, 0x40000000)
MNT_DETACH = 2
PR_CAPBSET_DROP = 24
CAPABILITIES = {"CAP_SYS_MODULE": 16, "CAP_SYS_RAWIO": 17, "CAP_SYS_TIME": 25, "CAP_MKNOD": 27}
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2).

    :raises OSError: with the target.
    """
    _check(_libc.mount(source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags),
                       os.fsencode(options)), f"mount {kind or 'bind'}", target)


def bind(source: str, target: str, *, read_only: bool = False) -> None:
    """Show ``source`` at ``target`` too, without what is mounted below it."""
    mount(source, target, "", MS_BIND)
    if read_only:
        make_read_only(target)


def make_read_only(target: str) -> None:
    """Only this mount, not what is mounted below it."""
    mount("", target, "", MS_REMOUNT | MS_BIND | MS_RDONLY)


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags), "unshare", hex(flags))


def pivot_root(root: str) -> None:
    """Make the mount ``root`` our ``/`` and forget the old one (pivot_root(2), "pivot_root('.', '.')")."""
    os.chdir(root)
    _check(_libc.syscall(PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root", root)
    _check(_libc.umount2(b".", MNT_DETACH), "umount2", "the old root")
    os.chdir("/")


def drop_capability(name: str) -> None:
    """Take a capability away from us and all that we become (capabilities(7), bounding set)."""
    _check(_libc.prctl(PR_CAPBSET_DROP, CAPABILITIES[name], 0, 0, 0), "PR_CAPBSET_DROP", name)


def _check(result: int, what: str, where: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}", where)
