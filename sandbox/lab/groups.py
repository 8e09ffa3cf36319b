"""The cgroups a container lab lives in: one in each tree of this machine, made below a place that is ours."""

from __future__ import annotations

import os

from ..cgroup import files
from ..cgroup.hierarchy import Mount, mounts
from ..errors import SandboxError
from ..host import probe
from ..stdlib import TYPE_CHECKING
from .remains import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator


def make(name: str) -> tuple[str, ...]:
    """Make the cgroups of the lab called ``name`` and give them all controllers there are.

    :returns: their directories, the v2 one last.
    :raises CgroupError: the kernel refuses.
    :raises SandboxError: there is no place for them.
    """
    made = [path for _, path in _version_1(f"{PREFIX}{name}")]
    for path in made:
        os.makedirs(path, exist_ok=True)
        _inherit_cpuset(path)
    _leave_unit(name)
    second = _version_2(f"{PREFIX}{name}")
    if second:
        os.makedirs(second, exist_ok=True)
        made.append(second)
    return tuple(made)


def _leave_unit(name: str) -> None:
    """Out of the scope that was delegated to us, so that controllers can be enabled in it (v2)."""
    own = _own().get("", "")
    tree = next((mount.point for mount in _mounts("cgroup2")), "")
    if tree and own.endswith(f"/{PREFIX}{name}.scope"):
        os.mkdir(f"{tree}{own}/keeper")
        files.write(f"{tree}{own}/keeper/cgroup.procs", "0")


def enter(directories: tuple[str, ...]) -> None:
    """Move the calling process into them."""
    for directory in directories:
        files.write(f"{directory}/cgroup.procs", "0")


def way_back() -> int | None:
    """The ``cgroup.procs`` of our cgroup in the v2 tree, opened for writing; None without such a tree.

    From inside a cgroup namespace it could not be opened with any effect (cgroup_namespaces(7), ``nsdelegate``).
    """
    for mount in _mounts("cgroup2"):
        own = _own().get("", "/").rstrip("/")
        return os.open(f"{mount.point}{own}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
    return None


def trees() -> list[tuple[str, str]]:
    """Name and mount options of each v1 tree, as :func:`mount_inside` wants them."""
    return [(os.path.basename(mount.point), ",".join(_identity(mount))) for mount in _mounts("cgroup")]


def is_unified() -> bool:
    """There is nothing but v2."""
    return not _mounts("cgroup")


def _version_1(name: str) -> Iterator[tuple[Mount, str]]:
    own = _own()
    for mount in _mounts("cgroup"):
        key = next(word for word in _identity(mount) if word != "none")
        yield mount, f"{mount.point}{own.get(key, '/').rstrip('/')}/{name}"


def _version_2(name: str) -> str:
    tree = next((tree for tree in probe().hierarchies if tree.version == 2), None)
    if tree is None:
        return ""
    if tree.parent is None:
        raise SandboxError(f"no cgroup can be made in {tree.mount}: {tree.reason}")
    for path, on in tree.enable:
        missing = [controller for controller in tree.usable if controller not in on]
        if missing:
            files.write(f"{tree.mount}{path.rstrip('/')}/cgroup.subtree_control",
                        " ".join(f"+{controller}" for controller in missing))
    return f"{tree.mount}{tree.parent.rstrip('/')}/{name}"


def _mounts(kind: str) -> list[Mount]:
    """One mount of each tree of that kind."""
    found: dict[str, Mount] = {}
    for mount in mounts():
        if mount.kind == kind:
            found.setdefault(mount.device, mount)
    return list(found.values())


def _identity(mount: Mount) -> list[str]:
    """What a v1 tree is known by, as mount options: its controllers, or ``none`` and its name."""
    own = _own()
    words = [word for word in mount.options if word and word in own]
    return ["none", *words] if any(word.startswith("name=") for word in words) else words


def _own() -> dict[str, str]:
    """Our cgroup in each v1 tree, by controller or ``name=...``; in the v2 tree by the empty name."""
    own = {}
    with open("/proc/self/cgroup") as lines:
        for line in lines:
            _, names, path = line.strip().split(":", 2)
            own.update(dict.fromkeys(names.split(","), path))
    return own


def _inherit_cpuset(path: str) -> None:
    """A new cpuset group of v1 has no CPUs, and nobody can enter it."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if os.path.exists(f"{path}/{name}"):
            files.write(f"{path}/{name}", files.read(f"{os.path.dirname(path)}/{name}").strip())
