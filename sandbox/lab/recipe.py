"""What the images are made of."""

from __future__ import annotations

from ..errors import SpecError
from ..stdlib import dataclass

SYSTEM = ("systemd", "systemd-sysv", "dbus", "udev", "kmod", "python3", "iproute2", "procps", "util-linux", "e2fsprogs")
LOGIN = ("libpam-systemd", "dbus-user-session", "passwd", "uidmap")
"""A normal user's session: a user manager and its bus, and ranges of user ids."""
USER = "user"
"""A normal user, the first one: id 1000."""
TESTS = ("python3-prctl", "python3-psutil", "python3-pyroute2", "python3-pytest", "python3-pytest-timeout",
         "python3-pytest-xdist", "python3-hypothesis", "python3-jsonschema", "python3-jeepney", "python3-rich",
         "strace", "stress-ng")
PEERS = ("crun", "runc", "bubblewrap", "podman", "docker.io", "containerd")
LABELS = ("apparmor", "policycoreutils", "selinux-policy-default", "selinux-utils")
"""AppArmor's parser, SELinux's policy, and the tools of both."""
KERNEL = "linux-image-cloud-amd64"
WHEELS = ("typer>=0.17,<0.29", "annotated-doc", "shellingham", "cgroupspy>=0.2.3")
"""What the project needs and Debian has not, or too old; pure Python, and complete without what they depend on."""
MASKED = ("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer",
          "e2scrub_reap.service", "getty@tty1.service", "serial-getty@ttyS0.service", "systemd-binfmt.service",
          "proc-sys-fs-binfmt_misc.automount", "systemd-random-seed.service", "systemd-boot-update.service",
          "systemd-pcrphase.service", "systemd-network-generator.service", "tmp.mount", "systemd-firstboot.service",
          "ldconfig.service", "systemd-journal-catalog-update.service", "systemd-hwdb-update.service",
          "systemd-update-utmp.service")
"""Of no use in a lab: with an emulated CPU each costs a tenth of a second or more at boot."""
DISABLED = ("docker.service", "docker.socket", "containerd.service", "netavark-dhcp-proxy.socket", "podman.socket",
            "podman.service", "podman-auto-update.timer", "podman-restart.service", "systemd-oomd.service",
            "systemd-oomd.socket")
"""Only started by hand."""
DISABLED_LABELS = ("apparmor.service", "selinux-autorelabel-mark.service")
"""Of the packages of :data:`LABELS`: loading a hundred profiles takes seconds at boot, and the disk is labelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A Debian system as a disk image.

    :param name: what it is called in the cache.
    :param suite: Debian's name of the release.
    :param python: version of its Python.
    :param packages: what is installed, with what it depends on.
    :param wheels: Python packages that are added, as pip wants them.
    """

    name: str
    suite: str
    python: str = ""
    packages: tuple[str, ...]
    wheels: tuple[str, ...] = ()

    @property
    def labelled(self) -> bool:
        """The disk has an SELinux policy, and each of its files the label that the policy gives it."""
        return not set(LABELS) - set(self.packages)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What a VM is started from.

    :param recipe: of its disk.
    :param options: for the kernel's command line.
    :param audit: the kernel's log tells what a security module refuses.
    :param summary: for ``sandbox lab images``.
    """

    recipe: Recipe
    options: str = ""
    audit: bool = False
    summary: str = ""


TOOLS = Recipe(name="tools", suite="trixie", packages=("qemu-system-x86", "virtiofsd"))
"""QEMU: that of Debian 12 (7.2) panics guests with more than one CPU, so it comes from the newer release."""
DISK = (*SYSTEM, *LOGIN, KERNEL, *TESTS, *PEERS)
TRIXIE = Recipe(name="trixie", suite="trixie", python="3.13", packages=(*DISK, "docker-cli", "systemd-oomd"),
                wheels=WHEELS)
"""Here docker's command is a package of its own; in Debian 12 it comes with ``docker.io``."""
BOOKWORM = Recipe(name="bookworm", suite="bookworm", python="3.11", packages=DISK, wheels=WHEELS)
SID = Recipe(name="sid", suite="sid", python="3.14", packages=(*DISK, "docker-cli"), wheels=WHEELS)
"""Debian's unstable distribution: the newest systemd and kernel. What its Python is changes with time."""
TRIXIE_LABELS = Recipe(name="trixie-labels", suite="trixie", python="3.13", wheels=WHEELS,
                       packages=(*SYSTEM, *LOGIN, KERNEL, *TESTS, *LABELS))
"""Apart from ``trixie``: docker and podman put containers under AppArmor as soon as its parser is installed."""

TREE = Recipe(name="tree", suite="bookworm", python="3.11", packages=(*SYSTEM, *TESTS), wheels=WHEELS)
"""A root for containers on machines without systemd. That of Debian 12, as newer ones give up cgroup v1."""

IMAGES = {
    "trixie": Image(recipe=TRIXIE, summary="Debian 13, kernel 6.12, systemd 257, cgroup v2"),
    "bookworm": Image(recipe=BOOKWORM, summary="Debian 12, kernel 6.1, systemd 252, cgroup v2"),
    "bookworm-legacy": Image(
        recipe=BOOKWORM, options="systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1",
        summary="Debian 12 with the cgroup v1 trees that old articles show"),
    "bookworm-hybrid": Image(
        recipe=BOOKWORM, options="systemd.unified_cgroup_hierarchy=0",
        summary="Debian 12 with controllers in cgroup v1 and an empty v2 tree beside"),
    # Nobody answers on the console when systemd asks the terminal for its name and size.
    "sid": Image(
        recipe=SID, options="systemd.tty.term.console=dumb systemd.tty.rows.console=24 systemd.tty.columns.console=80",
        summary="Debian unstable, kernel 7.2, systemd 262, which has no cgroup v1 any more"),
    "trixie-selinux": Image(
        recipe=TRIXIE_LABELS, options="security=selinux selinux=1 enforcing=1", audit=True,
        summary="Debian 13 with SELinux, enforcing; permissive after setenforce 0"),
    "trixie-apparmor": Image(
        recipe=TRIXIE_LABELS, audit=True,
        summary="Debian 13 with AppArmor and its parser; systemctl start apparmor loads Debian's profiles"),
}
DEFAULT = "trixie"


def image(name: str) -> Image:
    """The image called ``name``.

    :raises SpecError: there is none.
    """
    if name not in IMAGES:
        raise SpecError(f"--image: there is no image {name!r}", field="image", hint=f"use {', '.join(IMAGES)}")
    return IMAGES[name]
