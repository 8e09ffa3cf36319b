"""Finds the mounted cgroup trees and the place in each where new cgroups can go.

Everything is read from ``/proc/self/mountinfo`` (proc_pid_mountinfo(5)), ``/proc/self/cgroup`` (cgroups(7)) and the
trees themselves; nothing is written. Each function takes ``root``, a directory that stands for ``/``.
"""

from __future__ import annotations

import os

from ..facts import Hierarchy
from ..spelling import spelled
from ..stdlib import TYPE_CHECKING
from .names import file_names

if TYPE_CHECKING:
    from collections.abc import Iterator

CGROUP_MOUNT = "/sys/fs/cgroup"
OUTSIDE = "/.."
"""How the kernel begins a path that is above the root of the reader's cgroup namespace (cgroup_namespaces(7))."""

Level = tuple[str, tuple[str, ...]]
"""A cgroup, and the controllers that are on in its ``cgroup.subtree_control``."""

BESIDE = ("{own} has processes, so it cannot enable controllers for children; new cgroups are made beside it, "
          "below {parent}, and limits set on {own} itself do not bind them")
POPULATED = "has processes, so it cannot enable {missing} for children"
MAKE_ROOM = ("move its processes into a child first: mkdir {path}/init && "
             "xargs -rn1 < {path}/cgroup.procs > {path}/init/cgroup.procs")


class Mount:
    """A line of ``/proc/self/mountinfo``. Not a dataclass: making one costs every launch half a millisecond.

    :ivar number: of the mount, unique while it exists.
    :ivar parent: number of the mount it is mounted on.
    :ivar device: ``MAJ:MIN`` of the superblock.
    :ivar root: what of the file system is mounted here; for cgroups as seen from our cgroup namespace.
    :ivar point: where it is mounted.
    :ivar kind: type of the file system, e.g. ``cgroup2``.
    :ivar source: e.g. ``/dev/sda1``.
    :ivar options: of the superblock, where v1 lists its controllers.
    :ivar read_only: the mount or the superblock is.
    """

    __slots__ = ("device", "kind", "number", "options", "parent", "point", "read_only", "root", "source")

    def __init__(self, line: str) -> None:
        left, _, right = line.partition(" - ")
        self.number, self.parent, self.device, inner, point, flags, *_ = left.split(" ")
        self.kind, source, options = right.split(" ", 2)
        self.root, self.point, self.source = _unescape(inner), _unescape(point), _unescape(source)
        self.options = tuple(options.split(","))
        self.read_only = "ro" in flags.split(",") or "ro" in self.options


def mounts(root: str = "") -> tuple[Mount, ...]:
    """The mounts that a path can reach: those that a later mount hides are left out.

    :raises OSError: ``/proc`` is not there.
    """
    return _visible([Mount(line) for line in _read(f"{root}/proc/self/mountinfo").splitlines()])


def _visible(mounted: list[Mount]) -> tuple[Mount, ...]:
    """Leave out hidden mounts. A mount is hidden if another one is mounted on its root, if another one has the same
    parent and a mount point that is a directory above its own, or if its parent is hidden."""
    numbers = {mount.number for mount in mounted}
    children: dict[str, list[Mount]] = {}
    for mount in mounted:
        children.setdefault(mount.parent, []).append(mount)
    # The parent of the first mount is one that this process does not see, or that mount itself.
    reached = [mount for mount in mounted if mount.parent == mount.number or mount.parent not in numbers]
    for mount in reached:
        reached += _uppermost([child for child in children.get(mount.number, ()) if child is not mount])
    found = {mount.number for mount in reached}
    covered = {(mount.parent, mount.point) for mount in mounted if mount.parent != mount.number}
    return tuple([mount for mount in mounted
                  if mount.number in found and (mount.number, mount.point) not in covered])


def _uppermost(siblings: list[Mount]) -> Iterator[Mount]:
    """Those of the mounts on one parent whose mount point is not in a directory where another one is mounted."""
    above = ""
    for point, index in sorted([(f"{mount.point.rstrip('/')}/", index) for index, mount in enumerate(siblings)]):
        if not above or point == above or not point.startswith(above):
            above = point
            yield siblings[index]


def find(root: str = "", *, mounted: tuple[Mount, ...] | None = None, device: str | None = None,
         cgroup_parent: str | None = None) -> tuple[str, tuple[Hierarchy, ...]]:
    """The cgroup mode and the trees, v1 before v2, as :class:`~sandbox.host.Host` documents them.

    :param mounted: what :func:`mounts` returned, when it was read already.
    :param device: ``MAJ:MIN`` of what is at ``/sys/fs/cgroup``; asked from the kernel by default.
    :param cgroup_parent: work there in place of our own cgroup, a path below the roots of the trees.
    :raises OSError: ``/proc`` is not there.
    """
    mounted = mounts(root) if mounted is None else mounted
    owns = _own_cgroups(root)
    groups: dict[tuple[str, ...], list[Mount]] = {}
    for mount in mounted:
        if mount.kind == "cgroup2":
            groups.setdefault((), []).append(mount)
        elif mount.kind == "cgroup" and (controllers := tuple(name for name in mount.options if name in owns)):
            groups.setdefault(controllers, []).append(mount)
    at_mount = next((mount.kind for mount in mounted if mount.device == (device or _device(root))), "")
    trees = tuple(_tree(names, choices, owns, root, cgroup_parent)
                  for names, choices in sorted(groups.items(), key=lambda group: not group[0]))
    return _mode(at_mount, trees), trees


def _mode(at_mount: str, trees: tuple[Hierarchy, ...]) -> str:
    versions = {tree.version for tree in trees}
    if at_mount == "cgroup2" or versions == {2}:
        return "v2"
    if versions == {1, 2}:
        return "hybrid"
    return "v1" if versions else "none"


def _device(root: str) -> str:
    # What systemd decides by statfs(2)'s f_type. Python's os.statvfs has no f_type, and importing ctypes for it costs
    # every launch 1.3 to 2.7 ms; st_dev names the same superblock, and mountinfo names its type.
    try:
        number = os.stat(f"{root}{CGROUP_MOUNT}").st_dev
    except OSError:
        return ""
    return f"{os.major(number)}:{os.minor(number)}"


def _unescape(text: str) -> str:
    """The kernel writes space, tab, newline and backslash as octal escapes."""
    if "\\" not in text:
        return text
    import re

    raw = re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), os.fsencode(text))
    return os.fsdecode(raw)


def _own_cgroups(root: str) -> dict[str, str]:
    """Our cgroup by controller; by the empty name in the v2 tree."""
    owns = {}
    for line in _lines(f"{root}/proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers.startswith("name="):
            continue  # a tree without controllers, such as systemd's own, is not for us
        for name in controllers.split(","):
            owns[name] = path.removesuffix(" (deleted)")
    return owns


def _tree(controllers: tuple[str, ...], choices: list[Mount], owns: dict[str, str], root: str,
          cgroup_parent: str | None) -> Hierarchy:
    path = owns.get(controllers[0] if controllers else "", "/")
    mount = next((choice for choice in choices if _covers(choice.root, path)), choices[0])
    version = 1 if controllers else 2
    directory = root + mount.point
    controllers = controllers or _words(f"{directory}/cgroup.controllers")
    known = Hierarchy(version=version, controllers=controllers, mount=mount.point, own="/", parent=None,
                      root=mount.root)
    if not _covers(mount.root, path):
        return known._replace(reason=_uncovered(mount, path))
    own = "/" + path[len(mount.root.rstrip("/")):].lstrip("/")
    files = file_names(directory, own, version, controllers, root)
    if "pids_localevents" in mount.options:
        # Both files of pids count the refused forks of the cgroup that forked, as on v1 (cgroup-v2.rst).
        files = tuple([name for name in files if name != "pids.events.local"])
    known = known._replace(own=own, files=files)
    if mount.read_only:
        from ..surroundings import for_cgroups

        return known._replace(reason=f"{mount.point} is mounted read-only; {for_cgroups(root)}")
    place = _place_v1 if version == 1 else _place_v2
    return place(known, directory, cgroup_parent)


def _covers(mount_root: str, path: str) -> bool:
    if mount_root.startswith(OUTSIDE) or path.startswith(OUTSIDE):
        return False
    return mount_root == "/" or path == mount_root or path.startswith(f"{mount_root}/")


def _uncovered(mount: Mount, path: str) -> str:
    if path.startswith(OUTSIDE):
        return f"our cgroup {path} is outside of our cgroup namespace; start from a process that is inside of it"
    if mount.root.startswith(OUTSIDE):
        return (f"{mount.point} shows {mount.root}, which is outside of our cgroup namespace; "
                "unmount it and mount the tree anew in this namespace")
    return f"our cgroup {path} is not below {mount.root}, which is all that is mounted at {mount.point}"


def _place_v1(tree: Hierarchy, directory: str, cgroup_parent: str | None) -> Hierarchy:
    parent, problem = _wanted(tree, directory, cgroup_parent)
    problem = problem or _unwritable(tree, directory, parent)
    if not problem and cgroup_parent is not None:  # its own cgroup has CPUs: it has processes
        problem = _without_cpus(tree, directory, parent)
    if problem:
        return tree._replace(reason=problem)
    return tree._replace(parent=parent, reason=_asked(tree.own, parent), usable=tree.controllers)


def _without_cpus(tree: Hierarchy, directory: str, path: str) -> str:
    """v1: why no process can enter a cpuset below ``path``; empty if one can."""
    if "cpuset" in tree.controllers:
        for file in ("cpuset.cpus", "cpuset.mems"):
            if not _first_line(f"{_join(directory, path)}/{file}"):
                return f"{_join(tree.mount, path)}/{file} is empty, so no process can be below it; write to it first"
    return ""


def _place_v2(tree: Hierarchy, directory: str, cgroup_parent: str | None) -> Hierarchy:
    parent, problem = _wanted(tree, directory, cgroup_parent)
    problem = problem or _unfit(tree, directory, parent)
    if not problem:
        return _settled(tree, directory, parent, _asked(tree.own, parent))
    if cgroup_parent is None:
        for ancestor in reversed(_chain(tree.own)[:-1]):
            if not _unfit(tree, directory, ancestor):
                return _settled(tree, directory, ancestor, BESIDE.format(own=tree.own, parent=ancestor))
    return tree._replace(reason=problem)


def _asked(own: str, parent: str) -> str:
    return "" if parent == own else f"asked for with --cgroup-parent {parent}"


def _wanted(tree: Hierarchy, directory: str, cgroup_parent: str | None) -> tuple[str, str]:
    """The cgroup to look at first, and why it cannot be."""
    if cgroup_parent is None:
        return tree.own, ""
    parts = [part for part in cgroup_parent.split("/") if part]
    parent = "/" + "/".join(parts)
    if any(part in (".", "..") for part in parts) or "\0" in cgroup_parent:
        return parent, f"{spelled('cgroup_parent', cgroup_parent)}: the path must not have . or .. in it"
    path = _join(tree.mount, parent)
    if not os.path.isdir(_join(directory, parent)):
        return parent, f"{spelled('cgroup_parent', cgroup_parent)}: there is no {path}; mkdir it first"
    return parent, ""


def _elsewhere() -> str:
    return f"name a cgroup you may write to with {spelled('cgroup_parent')}, or have one delegated to you"


def _unwritable(tree: Hierarchy, directory: str, path: str) -> str:
    if os.access(_join(directory, path), os.W_OK | os.X_OK, effective_ids=True):
        return ""
    return f"{_join(tree.mount, path)} is not writable by user {os.geteuid()}; {_elsewhere()}"


def _unfit(tree: Hierarchy, directory: str, path: str) -> str:
    """v2: why no cgroup can be made below ``path`` and entered by us; empty when it can."""
    place, shown = _join(directory, path), _join(tree.mount, path)
    kind = _first_line(f"{place}/cgroup.type")
    if kind not in ("", "domain"):
        return f"{shown} is of type {kind!r}, which cannot have children with every controller; {_elsewhere()}"
    problem = _unwritable(tree, directory, path)
    if problem:
        return problem
    # Moving a process needs write access to cgroup.procs of the nearest common ancestor as well (cgroups(7)).
    common = os.path.commonpath((tree.own, path))
    if not os.access(f"{_join(directory, common)}/cgroup.procs", os.W_OK, effective_ids=True):
        return (f"{_join(tree.mount, common)}/cgroup.procs is not writable by user {os.geteuid()}, so nothing of ours "
                f"can move from {tree.own} to below {path}; start from inside a delegated cgroup, for example "
                "with systemd-run --user --scope -p Delegate=yes")
    # Not its own cgroup.controllers: that is empty where nothing was enabled from above yet, but could be.
    offered, _ = _enablable(tree, directory, _chain(path)[:-1])
    missing = [name for name in offered if name not in _enabled(place)]
    if missing and not _splittable(place):
        return f"{shown} {_why_whole(place, missing)}; {MAKE_ROOM.format(path=shown)}"
    return ""


def _why_whole(place: str, missing: list[str]) -> str:
    if _populated(place):
        return POPULATED.format(missing=", ".join(missing))
    return f"does not let user {os.geteuid()} write its cgroup.subtree_control"


def _settled(tree: Hierarchy, directory: str, parent: str, reason: str) -> Hierarchy:
    usable, enable = _enablable(tree, directory, _chain(parent))
    return tree._replace(parent=parent, reason=reason, usable=usable, enable=enable)


def _enablable(tree: Hierarchy, directory: str, chain: list[str]) -> tuple[tuple[str, ...], tuple[Level, ...]]:
    """The controllers that reach the end of ``chain``, and where along it some are not on yet."""
    usable, enable = tree.controllers, []
    for path in chain:
        place = _join(directory, path)
        on = _enabled(place)
        if _splittable(place):
            if set(usable) - set(on):
                enable.append((path, on))
        else:
            usable = tuple(name for name in usable if name in on)
    return usable, tuple(enable)


def _splittable(place: str) -> bool:
    """Controllers may be enabled for its children without turning it threaded or failing with EBUSY."""
    if not os.access(f"{place}/cgroup.subtree_control", os.W_OK, effective_ids=True):
        return False
    return _is_real_root(place) or (not _populated(place) and _first_line(f"{place}/cgroup.type") in ("", "domain"))


def _is_real_root(place: str) -> bool:
    """Only the root of the whole tree lacks this file; the root of a cgroup namespace has it."""
    return not os.path.exists(f"{place}/cgroup.events")


def _populated(place: str) -> bool:
    return bool(_first_line(f"{place}/cgroup.procs"))


def _enabled(place: str) -> tuple[str, ...]:
    return _words(f"{place}/cgroup.subtree_control")


def _chain(path: str) -> list[str]:
    """``/a/b`` gives ``/``, ``/a``, ``/a/b``."""
    chain = ["/"]
    for part in path.split("/"):
        if part:
            chain.append(_join(chain[-1], part))
    return chain


def _join(directory: str, path: str) -> str:
    return f"{directory.rstrip('/')}/{path.lstrip('/')}".rstrip("/") or "/"


def _words(path: str) -> tuple[str, ...]:
    return tuple(_first_line(path).split())


def _first_line(path: str) -> str:
    """Empty when the file is not there or not ours to read."""
    return next(iter(_lines(path)), "")


def _lines(path: str) -> list[str]:
    try:
        return _read(path).splitlines()
    except OSError:
        return []


def _read(path: str) -> str:
    # Plain descriptors: io.open builds three objects per file, and a probe reads dozens on every launch.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = []
        while chunk := os.read(descriptor, 1 << 16):
            chunks.append(chunk)
    finally:
        os.close(descriptor)
    return os.fsdecode(b"".join(chunks))
