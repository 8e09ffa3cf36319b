"""The slow part of a probe: what ``sandbox info`` shows and no plan needs. Unknown is None or empty, never a guess."""

from __future__ import annotations

import os

from ..facts import Docker
from ..host import Host, small_file
from ..spec import Spec

DOCKER_PARTS = ("Engine", "containerd", "docker-init", "tini")
"""What ``docker version`` lists beside the runtime (moby's ``fillPlatformVersion()``)."""


def add(host: Host, root: str = "") -> Host:
    """``host`` with the fields of a detailed probe filled in."""
    import psutil

    from ..io_weights import probe
    from ..isolation import secrets

    host = probe(host, root)
    selinux, apparmor = selinux_mode(root), apparmor_enabled(root)
    return host._replace(
        memory_total=psutil.virtual_memory().total,
        swap_total=psutil.swap_memory().total,
        docker=docker(),
        systemd_version=systemd_version() if host.systemd_running else None,
        lsm=security_modules(root, host.landlock_abi, selinux, apparmor),
        selinux=selinux,
        selinux_context=own_label(f"{root}/proc/self/attr/current") if selinux in ("enforcing", "permissive") else None,
        apparmor=apparmor,
        apparmor_profile=own_label(f"{root}/proc/self/attr/apparmor/current") if apparmor else None,
        apparmor_profiles=apparmor_profiles(root),
        seccomp=tuple(small_file(f"{root}/proc/sys/kernel/seccomp/actions_avail").split()),
        distribution=distribution(),
        secrets=secrets.probe(Spec(argv=("true",)), host, root),
    )


def systemd_version() -> str | None:
    """``252`` of ``systemd 252 (252.39-1~deb12u1)``.

    The running manager says the same in the property ``Version`` of ``org.freedesktop.systemd1.Manager``, on the
    system bus or, for root, on ``/run/systemd/private``. They differ only between an upgrade and ``systemctl
    daemon-reexec``.
    """
    import subprocess
    try:
        done = subprocess.run(("systemctl", "--version"), capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    words = done.stdout.split()
    return words[1] if words[:1] == ["systemd"] and len(words) > 1 else None


def docker() -> Docker:
    """Return the versions of docker and of its daemon's default OCI runtime, by ``docker version``.

    Only the daemon knows which runtime it starts, and it asks that for its version. If the daemon does not answer, only
    the version of the command is known. podman's ``docker`` answers in another form and does not count as docker.
    """
    import json
    import subprocess
    try:
        done = subprocess.run(("docker", "version", "--format", "{{json .}}"), capture_output=True, text=True,
                              timeout=5, check=False)
        told = json.loads(done.stdout)
        client, server = told["Client"], told.get("Server") or {}
        known = client["Version"] if "ApiVersion" in client else ""
        parts = [one for one in server.get("Components") or () if one["Name"] not in DOCKER_PARTS]
        return Docker(str(known), *(str(parts[0][key]) for key in ("Name", "Version") if known and parts))
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError, AttributeError):
        return Docker()


def security_modules(root: str, abi: int | None, selinux: str | None, apparmor: bool | None) -> tuple[str, ...]:
    """The kernel's list where securityfs is mounted, ``capability`` among it; else those that show elsewhere."""
    listed = small_file(f"{root}/sys/kernel/security/lsm")
    if listed:
        return tuple(listed.split(","))
    signs = (("landlock", bool(abi)), ("yama", os.path.exists(f"{root}/proc/sys/kernel/yama")),
             ("apparmor", bool(apparmor)), ("selinux", selinux in ("enforcing", "permissive")))
    return tuple(name for name, shows in signs if shows)


def selinux_mode(root: str = "") -> str | None:
    """By selinuxfs(5); None when the kernel has it and it is not mounted to be asked."""
    enforce = small_file(f"{root}/sys/fs/selinux/enforce")
    if enforce:
        return "enforcing" if enforce == "1" else "permissive"
    # The file system is registered only when SELinux is on (security/selinux/selinuxfs.c).
    known = small_file(f"{root}/proc/filesystems")
    return "disabled" if known and "selinuxfs" not in known.split() else None


def apparmor_enabled(root: str = "") -> bool | None:
    """None when sysfs is not there to be asked."""
    enabled = small_file(f"{root}/sys/module/apparmor/parameters/enabled")
    if enabled:
        return enabled == "Y"
    return False if os.path.isdir(f"{root}/sys/module") else None


def own_label(path: str) -> str | None:
    """The launcher's label in a file of proc_pid_attr(5)."""
    return small_file(path).rstrip("\0\n") or None


def apparmor_profiles(root: str = "") -> tuple[str, ...]:
    """``3 enforce``, ``1 complain``: how many profiles are loaded in each mode. Only root may list them."""
    from collections import Counter

    try:
        with open(f"{root}/sys/kernel/security/apparmor/profiles", encoding="utf-8", errors="replace") as profiles:
            modes = Counter(line.rpartition("(")[2].strip().removesuffix(")") for line in profiles)
    except OSError:
        return ()
    return tuple(f"{number} {mode}" for mode, number in modes.most_common())


def distribution() -> str | None:
    """``PRETTY_NAME`` of os-release(5)."""
    import platform
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return None
