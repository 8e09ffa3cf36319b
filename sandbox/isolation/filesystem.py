"""The file system inside: the host's own, read-only, with the kernel's file systems and a few directories made anew.

Everything that comes from the host is taken first, while its paths still mean what they say outside. Then the new root
is attached and filled; places in it are found by openat2(2) beneath it, whatever links are planted there. With
pivot_root(2) the rest of the host is gone.
"""

from __future__ import annotations

from ..errors import SpecError, Unsupported
from ..host import Host
from ..records import Tmpfs
from ..spec import Spec
from ..spelling import spelled
from ..stdlib import TYPE_CHECKING
from ..steps import Step
from . import cgroup_view, devices, namespaces, paths, secrets, volumes
from .mounts import INERT, KERNEL, RDONLY, Tree, extra_tmpfs, place, step, take, tmpfs
from .namespaces import BASE, is_lent, is_rootless, is_shifted, private

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..facts import Hierarchy

SLOTS = 64
"""How many trees the init holds at a time."""
SCRATCH = "/tmp"
"""Where the layers of an overlay are put together, on top of the host's own, which is taken by then."""
RESOLVER = "/etc/resolv.conf"
ANEW = ("/proc", "/sys", "/dev", *paths.PRIVATE)
"""Directories of the host's root in whose place something is mounted."""


def wanted_places(spec: Spec) -> tuple[str, ...]:
    """Paths of which the Host should know what they lead to."""
    found = [path for volume in spec.volume for path in (volume.source, volume.target)]
    found += [path for path in (spec.cwd, spec.rootfs, spec.commit) if path]
    found += [path for one in spec.device for path in (one.source, one.target)]
    return (*found, RESOLVER) if spec.network == "host" and not spec.rootfs else tuple(found)


def enter(spec: Spec, host: Host, cgroups: Sequence[Hierarchy] = ()) -> Iterator[Step]:
    """Build it and go there.

    :param cgroups: the cgroup trees in which the command has a cgroup of its own.
    :raises SpecError: something that is asked for is not there.
    """
    owner = BASE if is_shifted(spec, host) else 0 if is_lent(spec, host) else None
    layers, kernel, nodes = tuple(_layers(spec, host)), tuple(_kernel_trees(spec, host)), devices.trees(spec, host)
    seen, extra = (*nodes, *_seen(spec, host)), tuple(volumes.trees(spec, host))
    made: tuple[Tree, ...] = ()
    if spec.device or spec.gpu:
        from . import nodes as given

        more = tuple(given.trees(spec, host))
        made = tuple(tree for tree in more if tree.node)
        seen = (*seen, *(tree for tree in more if paths.is_below(tree.target, "/dev")))
        extra = (*extra, *(tree for tree in more if not paths.is_below(tree.target, "/dev")))
    slots = {tree: slot for slot, tree in enumerate((*layers, *kernel, *seen, *extra), 1)}
    if len(slots) >= SLOTS:
        raise SpecError(f"{len(slots)} parts of the host cannot be shown inside, only {SLOTS - 1}", field="volume",
                        hint="give a directory that holds several of them")
    # A child of the init makes what is missing in a tree of other owners: no task too many if the holder has gone.
    early = bool(spec.rootfs or layers)
    if early:
        yield from namespaces.enter(spec, host)
    if not layers:
        yield take(0, _root(spec, host))
    yield from (take(slot, tree) for tree, slot in slots.items() if not tree.node)
    if layers:
        yield from _overlay(spec, [place(slots[tree], tree) for tree in layers])
    yield step("root", 0, realises="rootfs" if spec.rootfs else "")
    if layers:
        yield step("attr", "/", INERT)
    elif not spec.rootfs and not is_rootless(spec, host):  # without root, the kernel locks mounts in their places
        points = {point for point, _ in host.mounts}
        yield from (step("discard", path) for path in ANEW if path in points)
    if spec.rootfs and not spec.read_only:
        yield from (step("mkdir_in", path, 0o755) for path in ("/proc", "/sys", "/dev"))
    yield from (place(slots[tree], tree) for tree in kernel)
    yield from _proc(spec, host)
    yield from devices.make(spec, host, owner)
    yield from (take(slots[tree], tree) for tree in made)
    if not spec.rootfs:
        yield from (tmpfs(Tmpfs(path, mode=mode, executable=True), owner) for path, mode in paths.PRIVATE.items()
                    if path in host.present)
    yield from (place(slots[tree], tree) for tree in seen)
    yield from secrets.masks(spec, host, owner)
    if not early:
        # A network namespace takes longer to make than all of the above: only now is it waited for.
        yield from namespaces.enter(spec, host)
    yield from _sys(spec, host)
    yield from _masks(spec, host)  # a mask for a file is made of the /dev/null inside
    yield from cgroup_view.places(cgroups, spec, host)
    yield from devices.queues(spec, host)
    yield devices.close(host)
    wanted: list[Tree | Tmpfs] = [*extra, *spec.tmpfs]
    for item in sorted(wanted, key=volumes.by_depth):
        yield from extra_tmpfs(item, owner) if isinstance(item, Tmpfs) else (place(slots[item], item),)
    # Last of all: without root, the kernel mounts a sysfs only where one is seen already.
    yield step("pivot")


def working_directory(spec: Spec, host: Host) -> str:
    """Where the command starts: where it was asked to, else where the launcher is, in a --rootfs at its root."""
    if spec.rootfs:
        return f"/{(spec.cwd or '').lstrip('/')}"
    if spec.cwd is None:
        return host.directory if host.directory and not _hides(spec, host, host.directory) else "/"
    wanted = host.absolute(spec.cwd)
    if secrets.hides(spec, host, wanted):
        raise SpecError(f"{spelled('cwd', spec.cwd)}: it is masked inside", field="cwd",
                        hint=f"to show it, add {spelled('volume', f'{wanted}:{wanted}')}")
    return wanted


def _hides(spec: Spec, host: Host, directory: str) -> bool:
    """The directory is masked, or a ``--tmpfs`` covers it."""
    covered = any(paths.is_below(directory, one.target) for one in spec.tmpfs)
    shown = any(paths.is_within(directory, one.target) for one in spec.volume)
    return secrets.hides(spec, host, directory) or (covered and not shown)


def notes(spec: Spec, host: Host) -> Iterator[str]:
    """What cannot be seen or written as it could outside."""
    root = spec.rootfs or "/"
    if is_shifted(spec, host):
        sources = [root, *(volume.source for volume in spec.volume)]
        plain = {path: volumes.file_system(path, host) for path in sources if not volumes.shifted(path, spec, host)}
        for path, kind in plain.items():
            yield (f"{path} is on a file system ({kind or 'unknown'}) that this kernel cannot mount with other ids: "
                   "inside, only what everybody may read or write can be")
    if spec.device or spec.gpu:
        from . import nodes

        yield from nodes.notes(spec, host)
    if not spec.rootfs and spec.cwd is None and not host.directory:
        yield "the working directory was removed: the command starts in /"
    if not spec.rootfs and spec.cwd is None and _hides(spec, host, host.directory):
        shown = spelled("volume", f"{host.directory}:{host.directory}")
        yield f"the working directory {host.directory} is hidden inside: the command starts in /; {shown} shows it"
    command = spec.argv[0]
    hidden = next((one for one in paths.PRIVATE if paths.is_below(command, one)), "")
    if hidden and not spec.rootfs and not volumes.covers(spec, command) and not _shows(spec, host, command):
        yield f"{command} is not seen inside, where {hidden} is empty; -v {command}:{command}:ro shows it"


def _shows(spec: Spec, host: Host, path: str) -> bool:
    return any(paths.is_within(path, tree.target) for tree in _seen(spec, host))


def _root(spec: Spec, host: Host) -> Tree:
    """The host's own root is never written to."""
    source = host.absolute(spec.rootfs or "/")
    found = host.place(source)
    if spec.rootfs and (found.real if found else source) == "/":
        raise SpecError(f"{spelled('rootfs', spec.rootfs)}: that is the host's own root", field="rootfs",
                        hint=f"leave it out: the command sees the host's files, and {spelled('overlay', True)} lets it "
                             "write")
    if found is not None and found.kind != "directory":
        raise SpecError(f"{spelled('rootfs')}: {source} is not a directory", field="rootfs",
                        hint="unpack an image there first")
    read_only = spec.read_only or spec.overlay or not spec.rootfs
    return Tree(source, "/", INERT | (RDONLY if read_only else 0), volumes.shifted(source, spec, host),
                realises="rootfs" if spec.rootfs else "")


def _layers(spec: Spec, host: Host) -> Iterator[Tree]:
    """The layers of an overlay; none without --overlay."""
    if not spec.overlay:
        return
    lower = _real(host, host.absolute(spec.rootfs or "/"))
    if is_rootless(spec, host) and any(paths.is_below(point, lower) for point, _ in host.mounts):
        raise Unsupported(f"{spelled('overlay')}: without root, the kernel makes none of {lower}, where other file "
                          "systems are mounted: what they cover would be uncovered",
                          hint=f"run it as root, or give a {spelled('rootfs')} with nothing mounted in it")
    # overlayfs sees one file system only, whatever is mounted on it; but without root it can only be taken whole.
    yield _root(spec, host)._replace(target=f"{SCRATCH}/lower", realises="overlay", shifted=_shifts_layers(spec, host))
    if spec.commit:
        path = host.absolute(spec.commit)
        found = host.place(path)
        if found is not None and found.kind != "directory":
            raise SpecError(f"{spelled('commit')}: {path} is not a directory", field="commit", hint=f"mkdir {path}")
        kind = volumes.file_system(path, host)
        if kind in paths.NO_LAYER:
            raise Unsupported(f"{spelled('commit')}: {path} is on {kind}, to which the kernel writes no layer of an "
                              "overlay",
                              hint="give a directory on another file system; see: findmnt -t ext4,xfs,btrfs,tmpfs")
        # One layer must be able to say what the other says of owners.
        shifted = _shifts_layers(spec, host) and volumes.shifted(path, spec, host)
        yield Tree(path, f"{SCRATCH}/layer", INERT, shifted, recursive=False, realises="commit")


def _shifts_layers(spec: Spec, host: Host) -> bool:
    return volumes.shifted(spec.rootfs or "/", spec, host) and paths.kernel(host) >= paths.IDMAPPED_LAYERS


def _overlay(spec: Spec, layers: list[Step]) -> Iterator[Step]:
    """Put the layers together, in memory unless they are to be kept."""
    field = "commit" if spec.commit else "overlay"
    yield tmpfs(Tmpfs(SCRATCH, mode=0o755, executable=True), None, realises="overlay")
    yield from layers
    layer = f"{SCRATCH}/layer"
    if not spec.commit:
        yield step("mkdir_in", layer, 0o755, realises=field)
    yield step("mkdir_in", f"{layer}/upper", 0o755, realises=field)
    yield step("mkdir_in", f"{layer}/work", 0o700, realises=field)
    yield step("overlay", 0, f"{SCRATCH}/lower", f"{layer}/upper", f"{layer}/work", realises=field)


def _kernel_trees(spec: Spec, host: Host) -> Iterator[Tree]:
    """Those of the kernel's file systems that belong to the host's namespaces and cannot be made anew without root."""
    if is_rootless(spec, host):
        if spec.pid == "host":
            yield Tree("/proc", "/proc", KERNEL | RDONLY, realises="pid")
        if "net" not in private(spec, host):
            yield Tree("/sys", "/sys", KERNEL | RDONLY, realises="network")


def _proc(spec: Spec, host: Host) -> Iterator[Step]:
    """/proc of the sandbox's own processes."""
    if all(tree.target != "/proc" for tree in _kernel_trees(spec, host)):
        yield step("mount", "proc", "/proc", KERNEL, "")
        yield from (step("read_only", path) for path in paths.READ_ONLY if not spec.nest)


def _sys(spec: Spec, host: Host) -> Iterator[Step]:
    """/sys of the sandbox's own network."""
    shared = any(tree.target == "/sys" for tree in _kernel_trees(spec, host))
    if not shared:
        yield step("mount", "sysfs", "/sys", KERNEL | RDONLY, "")
    yield from (step("mask", path) for path in paths.MASKED_SHARED if shared)


def _masks(spec: Spec, host: Host) -> Iterator[Step]:
    """Hide what is the machine's in /proc and /sys.

    With ``--nest`` nothing in them is hidden or read-only: in a new user namespace the kernel mounts a proc or a sysfs
    only where one is seen without anything mounted on it (mount_too_revealing() in fs/namespace.c). The machine's
    settings stay closed: they are root's, and no user inside is root outside.
    """
    if not spec.nest:
        yield from (step("mask", path) for path in paths.masked(host))


def _seen(spec: Spec, host: Host) -> Iterator[Tree]:
    """Parts of the host's root that the new one does not have of itself."""
    if spec.rootfs:
        return
    if spec.overlay:
        yield from _submounts(spec, host)
    yield from _program(spec, host)
    directory = _real(host, working_directory(spec, host))
    if not volumes.covers(spec, directory):
        point = _working_tree(spec, host, directory)
        if point:
            yield Tree(point, point, INERT | RDONLY, volumes.shifted(point, spec, host), realises="cwd")
    if spec.network == "veth":
        from .network import resolver as of_network

        found = of_network(spec, host)
    else:
        found = None
    if found:
        source, target = found
        yield Tree(source, target, KERNEL | RDONLY, volumes.shifted(source, spec, host), realises="network")
    resolver = _real(host, RESOLVER)
    if spec.network == "host" and any(paths.is_below(resolver, one) for one in paths.PRIVATE):
        yield Tree(resolver, resolver, KERNEL | RDONLY, volumes.shifted(resolver, spec, host), realises="network")


def _program(spec: Spec, host: Host) -> Iterator[Tree]:
    """The launcher's program as a file of nobody's. A file that is being executed answers a write with ETXTBSY when its
    permissions allow it, before a read-only mount is looked at: on that alone CVE-2019-5736 would hang."""
    hidden = any(paths.is_below(host.program, one) for one in paths.PRIVATE) or secrets.hides(spec, host, host.program)
    if host.program and not hidden and not spec.overlay and volumes.shifted(host.program, spec, host):
        yield Tree(host.program, host.program, INERT | RDONLY, recursive=False)


def _real(host: Host, path: str) -> str:
    found = host.place(path)
    return found.real if found else path


def _working_tree(spec: Spec, host: Host, directory: str) -> str:
    """What has to be taken for the working directory to be there, with its owners right; empty if nothing."""
    if any(paths.is_below(directory, one) for one in volumes.WRITABLE):
        return directory
    point, kind = host.mount(directory)
    separate = point != "/" and not spec.overlay and kind not in paths.VIRTUAL
    return point if separate and volumes.shifted(point, spec, host) else ""


def _submounts(spec: Spec, host: Host) -> Iterator[Tree]:
    """What is mounted in the host's root, which the overlay has not: the file systems with files on them."""
    points = {point: kind for point, kind in host.mounts if point != "/" and kind not in paths.VIRTUAL}
    for point in points:
        if point not in ANEW and not any(paths.is_below(point, one) for one in ANEW):
            yield Tree(point, point, INERT | RDONLY, volumes.shifted(point, spec, host), recursive=False)
