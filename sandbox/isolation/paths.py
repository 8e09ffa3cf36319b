"""Which paths are hidden or made read-only inside, and which file systems can be mounted with other ids.

Masked and read-only paths are docker's (moby ``daemon/pkg/oci/defaults.go``) with podman's additions.
"""

from __future__ import annotations

from ..host import Host
from ..stdlib import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PRIVATE = {"/tmp": 0o1777, "/var/tmp": 0o1777, "/run": 0o755}
"""Directories of the host's root in whose place there is an empty file system, with the mode of its root."""
MASKED = ("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
          "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
          "/sys/devices/virtual/powercap", "/sys/firmware")
"""They tell of the machine, or of what others do on it."""
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/pressure", "/proc/sys", "/proc/sysrq-trigger")
"""They change the machine, or have it work for whoever writes there."""
MASKED_SHARED = ("/sys/fs/cgroup", "/sys/fs/selinux", "/sys/fs/bpf", "/sys/kernel/debug", "/sys/kernel/tracing",
                 "/sys/kernel/security")
"""What the host has mounted on its own /sys; a fresh one has nothing there."""
THERMAL = "/sys/devices/system/cpu/cpu{number}/thermal_throttle"

IDMAPPED = {"ext4": (5, 12), "vfat": (5, 12), "xfs": (5, 12), "btrfs": (5, 15), "ntfs3": (5, 15), "f2fs": (5, 18),
            "erofs": (5, 19), "squashfs": (6, 2), "tmpfs": (6, 3), "ceph": (6, 7), "hugetlbfs": (6, 9)}
"""File systems that can be mounted with other ids, since which Linux (mount_setattr(2))."""
IDMAPPED_LAYERS = (5, 19)
"""Since when overlayfs takes such mounts for its layers."""
NO_LAYER = frozenset(("9p", "cifs", "erofs", "exfat", "iso9660", "msdos", "nfs", "nfs4", "overlay", "smb3", "squashfs",
                      "vfat"))
"""File systems that overlayfs writes nothing to: they cannot mark what was removed, or are an overlay themselves."""
VIRTUAL = frozenset(("autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs",
                     "efivarfs", "fusectl", "hugetlbfs", "mqueue", "nsfs", "proc", "pstore", "ramfs", "securityfs",
                     "selinuxfs", "sysfs", "tmpfs", "tracefs"))
"""File systems that hold none of the files that programs are made of."""


def kernel(host: Host) -> tuple[int, int]:
    """Major and minor number: 6.12 of ``6.12.38+deb13-amd64``."""
    major, _, rest = host.kernel.partition(".")
    minor = rest[:len(rest) - len(rest.lstrip("0123456789"))]
    return (int(major), int(minor)) if major.isdecimal() and minor else (0, 0)


def may_shift(kind: str, host: Host) -> bool:
    """File systems of this kind can be mounted with other ids on ``host``."""
    return kind in IDMAPPED and kernel(host) >= IDMAPPED[kind]


def masked(host: Host) -> Iterator[str]:
    """Paths in whose place there is nothing to see."""
    yield from MASKED
    if THERMAL.format(number=0) in host.present:
        yield from (THERMAL.format(number=number) for number in range(host.cpus))


def is_below(path: str, directory: str) -> bool:
    """``path`` is in ``directory``, at any depth."""
    return path.startswith(directory.rstrip("/") + "/")


def is_within(path: str, directory: str) -> bool:
    """``path`` is ``directory`` itself, or in it."""
    return path == directory or is_below(path, directory)
