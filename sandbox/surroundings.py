"""What is around this process, and the option with which it lets sandboxes be made: docker, podman, Kubernetes, ours.

Only messages ask. A container's filter, its masks in /proc and its read-only cgroups each end in an error that does not
name them, so the message names the whole set of options at once.
"""

from __future__ import annotations

import os

from .host import fields, is_chroot, small_file
from .isolation.capabilities import BITS

SANDBOX, DOCKER, PODMAN, KUBERNETES, CHROOT = "sandbox", "docker", "podman", "kubernetes", "chroot"
INIT = "sandbox-init"
"""The name that our init gives itself: it is process 1 in a sandbox with process ids of its own."""
NAMESPACES = {
    SANDBOX: "this is a sandbox itself: start the outer one with `sandbox run --nest`",
    DOCKER: "in docker, a sandbox takes `docker run --security-opt seccomp=unconfined --security-opt "
            "systempaths=unconfined --security-opt apparmor=unconfined`, or --privileged",
    PODMAN: "in podman, a sandbox takes `podman run --security-opt unmask=ALL`, where SELinux is on with "
            "`--security-opt label=disable`, or --privileged",
    KUBERNETES: "in Kubernetes, a sandbox takes a pod with `hostUsers: false` and a container whose securityContext "
                "has `procMount: Unmasked`, `seccompProfile: {type: Unconfined}` and `appArmorProfile: {type: "
                "Unconfined}`, or `privileged: true`",
    CHROOT: "in a chroot the kernel makes no user namespace (EPERM in unshare(2)): run it as root, or enter the "
            "directory by `sandbox run --rootfs` or `unshare --map-root-user --root` instead of chroot",
}
"""What lets a process there make namespaces and mounts."""
CGROUPS = {
    SANDBOX: "this is a sandbox itself: give the limit to the outer one",
    DOCKER: "`docker run --privileged` mounts it read-write",
    PODMAN: "`podman run --security-opt unmask=ALL` mounts it read-write",
    KUBERNETES: "a container with `privileged: true` has it read-write",
}
"""What lets a process there make cgroups."""
MOUNT = ("mount one: mount -t cgroup2 cgroup2 /sys/fs/cgroup; for a chroot, before entering it: "
         "mount --rbind --make-rslave /sys NEWROOT/sys")
"""What is said where no cgroup file system is mounted, and nothing is known to be around."""
ELSEWHERE = "mount it read-write"
"""What is said of a read-only cgroup file system where nothing is known to be around."""


def kind(root: str = "") -> str:
    """Return what is around this process: one of the names above, the innermost, or nothing at all.

    :param root: a directory that stands for ``/``.
    """
    if small_file(f"{root}/proc/1/comm") == INIT:
        return SANDBOX
    if os.path.isdir(f"{root}/run/secrets/kubernetes.io") or "KUBERNETES_SERVICE_HOST" in os.environ:
        return KUBERNETES
    if os.path.exists(f"{root}/run/.containerenv"):
        return PODMAN
    if os.path.exists(f"{root}/.dockerenv") and " /etc/hostname " in small_file(f"{root}/proc/self/mountinfo"):
        return DOCKER  # an image that docker exported has the first file, but only a container has that mount
    return CHROOT if is_chroot(root) else ""


def for_namespaces() -> str:
    """What lets this process make namespaces and mounts; empty where nothing is known to be around."""
    if not small_file("/proc/self/uid_map"):
        return "no user is mapped into this user namespace: make it with `unshare --map-root-user`"
    return NAMESPACES.get(kind(), "")


def holds_setfcap() -> bool:
    """True if this process has CAP_SETFCAP."""
    return bool(int(fields("/proc/self/status").get("CapEff", "0"), 16) & BITS["CAP_SETFCAP"])


def for_cgroups(root: str = "") -> str:
    """What lets this process make cgroups where they are mounted read-only."""
    return CGROUPS.get(kind(root), ELSEWHERE)


def for_no_cgroups(around: str) -> str:
    """What lets a process make cgroups where no cgroup file system is mounted.

    :param around: what :func:`kind` returned.
    """
    return CGROUPS.get(around, MOUNT)
