"""Devices of the host that are given to a run: ``--device`` and ``--gpu``.

Who runs as root gets a node of its own: with the numbers and permissions of the host's and, as ids inside are others
outside, an owner that is shifted as they are; devtmpfs cannot be mounted with other ids. Without root, with
``--userns host``, or where root has no CAP_MKNOD, as in most containers, it is the host's node. The mount is
read-only, so that permissions and times of the host's node stay as they are: that keeps nobody from writing to the
device, which is for :mod:`sandbox.isolation.device_policy`.

By default there is no such device, and nothing guards against one: a run can make no node (no CAP_MKNOD, a user
namespace), and no file system inside has others that work (nodev, or, as /dev, read-only). That is why a run without
these flags has no device policy: it would cost a cgroup, and stop nothing.
"""

from __future__ import annotations

import os
import stat

from ..errors import SpecError, Unsupported
from ..facts import Node
from ..host import Host
from ..records import Device
from ..spec import Spec
from ..spelling import flag_of, spelled
from ..stdlib import TYPE_CHECKING, NamedTuple
from . import devices, namespaces, paths, volumes
from .mounts import NOEXEC, NOSUID, RDONLY, Tree

if TYPE_CHECKING:
    from collections.abc import Iterator

OWN = (*devices.DEVICES, *(path for _, path in devices.LINKS), "/dev/console")
"""What each sandbox has in its /dev anyway."""
OWN_DIRECTORIES = ("/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd")
GPUS = ("/dev/dri", "/dev/kfd", "/dev/nvidia")
"""Directories and beginnings of names: Direct Rendering, AMD's and NVIDIA's computing."""
DISPLAY = "/dev/dri/card"
"""It shows pictures; there is one without any computing behind it in most virtual machines."""


class Given(NamedTuple):
    """One node that is given.

    :param node: the host's.
    :param target: its path inside.
    :param access: of ``rwm``.
    :param field: of the Spec, ``device`` or ``gpu``.
    :param source: path that was given as the device; empty for a GPU.
    """

    node: Node
    target: str
    access: str
    field: str
    source: str = ""

    @property
    def spelled(self) -> str:
        """The option that gave the device, as an error names it."""
        return spelled(self.field, *([self.source] if self.source else []))


def probe(spec: Spec, root: str = "") -> tuple[Node, ...]:
    """The nodes that the Spec may mean, as they are on this machine.

    :param root: a directory that stands for ``/``, for tests.
    """
    sources = [one.source for one in spec.device]
    if spec.gpu:
        names = sorted(os.listdir(f"{root}/dev"))
        sources += [f"/dev/{name}" for name in names if is_gpu(f"/dev/{name}")]
    return tuple({node.path: node for source in sources for node in _below(source, root, follow=True)}.values())


def is_gpu(path: str) -> bool:
    """By its name."""
    return path in GPUS or path.startswith((f"{GPUS[0]}/", GPUS[2]))


def _below(path: str, root: str, *, follow: bool = False) -> Iterator[Node]:
    """The node, or those in the directory at any depth; symbolic links are followed at the top only, as by docker."""
    try:
        status = os.stat(root + path, follow_symlinks=follow)
        names = sorted(os.listdir(root + path)) if stat.S_ISDIR(status.st_mode) else []
    except OSError:
        return
    if path not in OWN_DIRECTORIES:
        for name in names:
            yield from _below(f"{path.rstrip('/')}/{name}", root)
    if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        access = "".join(letter for letter, mode in (("r", os.R_OK), ("w", os.W_OK))
                         if os.access(root + path, mode, effective_ids=True))
        yield Node(path, "c" if stat.S_ISCHR(status.st_mode) else "b", os.major(status.st_rdev),
                   os.minor(status.st_rdev), stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, access)


def given(spec: Spec, host: Host) -> tuple[Given, ...]:
    """All that is given, each place inside once. Pure.

    :raises SpecError: there is no such device, or its place inside cannot be.
    :raises Unsupported: there is no GPU.
    """
    found = {one.target: one for device in spec.device for one in _given(device, spec, host)}
    if spec.gpu:
        gpus = [node for node in host.nodes if is_gpu(node.path)]
        if all(node.path.startswith(DISPLAY) for node in gpus):
            raise Unsupported("no GPU: none of /dev/dri/renderD*, /dev/nvidia*, /dev/kfd exists",
                              hint=f"load its driver, or leave {spelled('gpu')} out")
        for node in gpus:
            found.setdefault(node.path, Given(node, node.path, "rw", "gpu"))
    return tuple(found.values())


def _given(device: Device, spec: Spec, host: Host) -> Iterator[Given]:
    wish = spelled("device", device.source)
    if device.target in OWN or any(paths.is_within(device.target, one) for one in OWN_DIRECTORIES):
        raise SpecError(f"{wish}: {device.target} is there in any case, of the sandbox's own", field="device",
                        hint="leave it out, or choose another place: "
                        f"{spelled('device', f'{device.source}:/dev/other')}")
    place = host.place(device.source)
    if place is None or not place.kind:
        raise SpecError(f"{wish}: there is no {device.source}", field="device", hint="ls -l /dev shows what there is")
    nodes = [node for node in host.nodes if node.path == device.source
             or paths.is_below(node.path, device.source)]
    if not nodes:
        what = "has no device in it" if place.kind == "directory" else "is no device"
        raise SpecError(f"{wish}: {device.source} {what}", field="device",
                        hint=f"use {spelled('volume')} to show files inside")
    for node in nodes:
        target = device.target + node.path[len(device.source.rstrip("/")):] if node.path != device.source \
            else device.target
        if target not in OWN:
            if not paths.is_below(target, "/dev"):
                volumes.check_target("device", device.source, "file", target, spec, host)
            yield Given(node, target, device.access, "device", device.source)


def trees(spec: Spec, host: Host) -> Iterator[Tree]:
    """The nodes as they come inside."""
    for one in given(spec, host):
        node = one.node
        made: tuple[int, ...] = ()
        if is_made(one, spec, host):
            kind = stat.S_IFCHR if node.kind == "c" else stat.S_IFBLK
            made = (kind | node.mode, node.major, node.minor, _shifted(node.uid), _shifted(node.gid))
        yield Tree(node.path, one.target, RDONLY | NOSUID | NOEXEC, not made and volumes.shifted(node.path, spec, host),
                   recursive=False, realises=one.field, node=made)


def is_made(one: Given, spec: Spec, host: Host) -> bool:
    """It is a node of the sandbox's own. A terminal is nothing outside of the devpts that it is in."""
    return (namespaces.is_shifted(spec, host) and host.mknod
            and volumes.file_system(one.node.path, host) != "devpts")


def _shifted(number: int) -> int:
    """An id that is not mapped stays: nobody inside has it."""
    return namespaces.BASE + number if number < namespaces.RANGE else number


def notes(spec: Spec, host: Host) -> Iterator[str]:
    """Nodes that are there and cannot be opened."""
    user = namespaces.identity(spec, host)
    for one in given(spec, host):
        allowed = _allowed(one, user.uid, {user.gid, *user.groups}, spec, host)
        lacking = [word for letter, word in (("r", "read"), ("w", "write")) if letter in one.access
                   and letter not in allowed]
        if lacking:
            node = one.node
            remedy = "run it as its owner" if host.uid else f"-u {node.uid}:{node.gid} could, or open its mode"
            flag = f"{flag_of(one.field)} {one.source}".rstrip()
            yield (f"{flag}: {node.path} has mode {node.mode:04o} and owner {node.uid}:{node.gid}: the command, "
                   f"{user.uid}:{user.gid}, cannot {' or '.join(lacking)} it; {remedy}")


def _allowed(one: Given, uid: int, groups: set[int], spec: Spec, host: Host) -> str:
    """What the permissions let the command do."""
    node = one.node
    if host.uid:
        return node.access
    if namespaces.is_shifted(spec, host) and not (is_made(one, spec, host)
                                                  or volumes.shifted(node.path, spec, host)):
        uid, groups = -1, set()
    bits = node.mode >> (6 if uid == node.uid else 3 if node.gid in groups else 0)
    return "r" * bool(bits & 4) + "w" * bool(bits & 2)
