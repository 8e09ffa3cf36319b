"""The file system of a container lab: a throw-away layer over this machine's own, and fresh kernel file systems."""

from __future__ import annotations

import os

from ..cgroup.hierarchy import Mount, mounts
from ..stdlib import suppress
from . import groups, inside
from .inside.place import HOST, UPPERS
from .kernel import (
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    bind,
    make_read_only,
    mount,
    pivot_root,
)
from .recipe import MASKED

OWN = ("/proc", "/sys", "/dev", "/run", HOST)
"""Made anew inside; what is mounted below them on the host stays out."""
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "fuse", "net/tun")
LINKS = (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2"), ("ptmx", "pts/ptmx"))
TARGET = """\
[Unit]
Description=Lab
Requires=dbus.socket systemd-journald.socket sandbox-lab.service
After=dbus.socket sandbox-lab.service
AllowIsolate=yes
"""
SERVICE = """\
[Unit]
Description=Runs the commands of sandbox lab
DefaultDependencies=no
After=dbus.socket
FailureAction=poweroff-immediate

[Service]
WorkingDirectory={home}
ExecStart={python} -S -B -m inside /run/lab-agent/agent.sock
Delegate=yes
KillMode=process
OOMPolicy=continue
TasksMax=infinity
StandardError=append:/run/lab-agent/agent.log
"""


def assemble(directory: str, *, lower: str, python: str) -> None:
    """Build the tree and make it ``/``. Runs in namespaces of its own, before systemd.

    :param directory: the lab's; ``inside`` in it becomes ``/run/lab-agent``.
    :param lower: what is below the throw-away layer: ``/``, or a Debian tree. This machine's root is at ``/host`` too.
    :param python: path inside of the interpreter for the agent.
    :raises OSError: a mount failed.
    """
    mount("", "/", "", MS_REC | MS_PRIVATE)
    base = f"{directory}/layers"
    os.makedirs(base, exist_ok=True)
    mount("sandbox-lab", base, "tmpfs", 0, "mode=755")
    root = f"{base}/root"
    os.mkdir(root)
    _overlay(base, "0", lower, root)
    os.makedirs(root + HOST, exist_ok=True)
    bind("/", root + HOST, read_only=True)
    for number, one in enumerate(_foreign(directory), 1):
        with suppress(OSError):  # it may not be reachable by its path
            bind(one.point, root + HOST + one.point, read_only=True)
        if lower == "/":
            _cover(base, str(number), one.point, root + one.point)
    for path in (f"{base}/uppers", root + UPPERS):  # an overlay cannot be the upper layer of another
        os.makedirs(path, exist_ok=True)
    bind(f"{base}/uppers", root + UPPERS)
    _kernel_file_systems(root)
    _devices(root)
    os.makedirs(f"{root}/run/lab-agent")
    bind(f"{directory}/inside", f"{root}/run/lab-agent")
    _configure(root, python, "" if lower == "/" else HOST)
    pivot_root(root)


def _overlay(base: str, name: str, lower: str, target: str) -> None:
    for layer in ("upper", "work"):
        os.makedirs(f"{base}/{name}/{layer}")
    os.chmod(f"{base}/{name}/upper", os.stat(lower).st_mode & 0o7777)
    mount("overlay", target, "overlay", 0,
          f"lowerdir={_escaped(lower)},upperdir={base}/{name}/upper,workdir={base}/{name}/work")


def _escaped(path: str) -> str:
    return path.replace("\\", "\\\\").replace(",", "\\,").replace(":", "\\:")


def _cover(base: str, name: str, lower: str, target: str) -> None:
    """An overlay shows one file system, so each that is mounted below ``/`` gets its own."""
    if not os.path.lexists(target):
        return
    try:
        _overlay(base, name, lower, target)
    except OSError:  # a file, or a file system that cannot be a lower layer
        with suppress(OSError):
            bind(lower, target, read_only=True)


def _foreign(directory: str) -> list[Mount]:
    """The host's mounts below ``/`` that are neither the kernel's nor ours."""
    own = (*OWN, directory)
    return [one for one in mounts()
            if one.point != "/" and not any(one.point == path or one.point.startswith(f"{path}/") for path in own)]


def _kernel_file_systems(root: str) -> None:
    strict = MS_NOSUID | MS_NODEV | MS_NOEXEC
    for path in ("proc", "sys", "run", "dev"):
        os.makedirs(f"{root}/{path}", exist_ok=True)
    mount("proc", f"{root}/proc", "proc", strict)
    # What is below is the whole machine's, not ours; the network's part is.
    bind(f"{root}/proc/sys", f"{root}/proc/sys")
    bind(f"{root}/proc/sys/net", f"{root}/proc/sys/net")
    make_read_only(f"{root}/proc/sys")
    if os.path.exists(f"{root}/proc/sysrq-trigger"):
        bind(f"{root}/proc/sysrq-trigger", f"{root}/proc/sysrq-trigger", read_only=True)
    mount("sysfs", f"{root}/sys", "sysfs", strict | MS_RDONLY)
    mount("tmpfs", f"{root}/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    # A user namespace may mount proc only where a whole one is visible: systemd-nspawn has it here, too.
    os.makedirs(f"{root}/run/host/proc")
    mount("proc", f"{root}/run/host/proc", "proc", strict)
    _cgroups(f"{root}/sys/fs/cgroup", strict)


def _cgroups(target: str, flags: int) -> None:
    """The roots of these are the cgroups we are in, by the cgroup namespace."""
    if groups.is_unified():
        mount("cgroup2", target, "cgroup2", flags)
        return
    mount("tmpfs", target, "tmpfs", flags, "mode=755")
    for name, options in groups.trees():
        os.mkdir(f"{target}/{name}")
        mount("cgroup", f"{target}/{name}", "cgroup", flags, options)
    os.mkdir(f"{target}/unified")
    mount("cgroup2", f"{target}/unified", "cgroup2", flags)


def _devices(root: str) -> None:
    mount("tmpfs", f"{root}/dev", "tmpfs", MS_NOSUID, "mode=755")
    for name in DEVICES:
        if os.path.exists(f"/dev/{name}"):
            os.makedirs(os.path.dirname(f"{root}/dev/{name}"), exist_ok=True)
            _node(f"/dev/{name}", f"{root}/dev/{name}")
    for name, target in LINKS:
        os.symlink(target, f"{root}/dev/{name}")
    for name, kind, options in (("pts", "devpts", "newinstance,ptmxmode=0666,mode=620,gid=5"),
                                ("shm", "tmpfs", "mode=1777"), ("mqueue", "mqueue", "")):
        os.mkdir(f"{root}/dev/{name}")
        mount(kind, f"{root}/dev/{name}", kind, MS_NOSUID | MS_NOEXEC, options)


def _node(source: str, target: str) -> None:
    """A device file of our own: its owner and mode are in the inode, which a bind mount shares with the host."""
    status = os.stat(source)
    try:
        os.mknod(target, status.st_mode, status.st_rdev)
        os.chmod(target, status.st_mode & 0o7777)
    except PermissionError:  # we are in somebody's container ourselves
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
        bind(source, target)


def _configure(root: str, python: str, host: str) -> None:
    """Nothing this machine enables or mounts is started inside, only our target."""
    units = f"{root}/etc/systemd/system"
    os.makedirs(units, exist_ok=True)
    _empty(units)
    for unit in (*MASKED, "systemd-udevd.service", "systemd-modules-load.service"):
        os.symlink("/dev/null", f"{units}/{unit}")
    texts = {
        f"{units}/sandbox-lab.target": TARGET,
        f"{units}/sandbox-lab.service": SERVICE.format(
            python=python, home=host + os.path.dirname(os.path.dirname(os.path.realpath(inside.__file__)))),
        f"{root}/etc/tmpfiles.d/tmp.conf": "",  # else all of the host's /tmp seems to be deleted at boot
        f"{root}/etc/fstab": "",
        f"{root}/etc/hostname": "lab\n",
        f"{root}/etc/machine-id": "5a4db0c1ab4e4d6f8f1d5a4db0c1ab4e\n",
    }
    for path, text in texts.items():
        with suppress(FileNotFoundError):
            os.unlink(path)
        with open(path, "w") as file:
            file.write(text)


def _empty(directory: str) -> None:
    import shutil

    for entry in list(os.scandir(directory)):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)
