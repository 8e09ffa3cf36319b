"""What this machine is: :class:`Host`, a frozen record of facts, taken by :func:`probe`.

Drivers compile against a Host and never look at the machine themselves, so a plan can be made for another machine
from its saved ``sandbox info --json``.
"""

from __future__ import annotations

import os

from .errors import Unsupported
from .facts import Disk, Docker, Hierarchy, Lent, Manager, Network, Node, Place
from .stdlib import TYPE_CHECKING, NamedTuple
from .units import show_cpu_list

if TYPE_CHECKING:
    from .cgroup.hierarchy import Mount

SCHEMA_VERSION = 1
"""Of :func:`to_json`; raised when a field changes its meaning or goes."""
STANDARD = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/tmp", "/var/tmp",
            "/run", "/proc/sys/fs/mqueue", "/sys/devices/system/cpu/cpu0/thermal_throttle")
"""Paths that not every machine has, and that the inside is made after."""
FREE_IDS = range(1_000_000_000, 1_000_131_072)
"""User and group ids that no user has: in the range that systemd sets aside for containers (UIDS-GIDS.md), far above
what subuid(5) is given by default."""
CAP_MKNOD = 27
CAPS_TO_SHIFT = sum(1 << number for number in (6, 7, 18, 19, 21))
"""CAP_SETGID, CAP_SETUID, CAP_SYS_CHROOT, CAP_SYS_PTRACE and CAP_SYS_ADMIN: what root needs to give a user namespace
ids, to look into it, and to mount outside it. Docker gives the root of a container neither of the last two."""
UNIT_CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")
"""The v2 controllers that systemd hands on to units."""


class Host(NamedTuple):
    """Facts about one machine, as one user sees them. Unknown is None or empty, never a guess.

    :param kernel: release, as ``uname -r`` prints it.
    :param machine: architecture, as ``uname -m`` prints it.
    :param uid: effective user id of the launcher.
    :param gid: effective group id of the launcher.
    :param cpus: CPUs that are online.
    :param cpuset_cpus: CPUs the launcher may use, as ``0-3``.
    :param cpuset_mems: NUMA nodes it may use.
    :param page_size: bytes.
    :param memory_total: bytes of RAM.
    :param swap_total: bytes of swap.
    :param cgroup_mode: ``v2``, ``hybrid``, ``v1`` or ``none``, by the file system that is at ``/sys/fs/cgroup``.
    :param hierarchies: every mounted cgroup tree.
    :param systemd_running: PID 1 is systemd (sd_booted(3)).
    :param manager: the systemd manager to ask for units.
    :param runtime_dir: where state of running sandboxes is kept.
    :param psi: pressure stall information is there.
    :param userns: user namespaces may be made by this user.
    :param disks: what the paths of I/O limits resolve to.
    :param namespaces: names in ``/proc/self/ns`` that can be made, e.g. ``mnt``.
    :param ids: user namespaces may be given :data:`FREE_IDS`: by root with :data:`CAPS_TO_SHIFT`, unless it is in a
        user namespace itself.
    :param chroot: root is in a chroot(2), where the kernel makes no user namespace.
    :param around: the container, chroot or sandbox around the launcher, see :mod:`sandbox.surroundings`; only where no
        cgroup file system is mounted.
    :param mknod: device nodes may be made: with CAP_MKNOD, and in no user namespace (mknod(2)), which takes ``ids``.
    :param program: the executable file that the launcher is, the Python interpreter.
    :param directory: the launcher's working directory; empty when it was removed.
    :param mounts: where file systems are mounted and their types, without those that others hide, in the order of
        ``/proc/self/mountinfo``.
    :param places: what the paths of volumes and the like lead to.
    :param present: those of :data:`STANDARD` that are there.
    :param secrets: what is masked by default and exists.
    :param nodes: the devices behind the paths of ``--device`` and ``--gpu``, only when there are such flags.
    :param network: only when a Spec has ``--network veth``.
    :param bfq: ``MAJ:MIN`` of the disks whose scheduler is bfq, only when a Spec has an I/O weight.
    :param iocost: ``MAJ:MIN`` of the disks on which ``io.cost.qos`` has switched iocost on, likewise.
    :param lent: only when a Spec has ``--user`` for another than the launcher, who is not root.
    :param docker: only for an export to docker, and from a detailed probe.
    :param landlock_abi: version of the Landlock ABI, 0 when it is off.
    :param systemd_version: e.g. ``252``, only from a detailed probe, like all that follow.
    :param lsm: active Linux security modules.
    :param selinux: ``enforcing``, ``permissive`` or ``disabled``.
    :param selinux_context: SELinux context of the launcher; None when SELinux is off.
    :param apparmor: AppArmor is enabled.
    :param apparmor_profile: AppArmor profile of the launcher with its mode, or ``unconfined``; None when it is off.
    :param apparmor_profiles: how many AppArmor profiles are loaded in each mode, e.g. ``3 enforce``; empty when there
        are none, or the launcher may not list them.
    :param seccomp: actions the kernel offers, empty when there is no seccomp.
    :param distribution: ``PRETTY_NAME`` of os-release(5).
    """

    kernel: str
    machine: str = "x86_64"
    uid: int = 0
    gid: int = 0
    cpus: int = 1
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    page_size: int = 4096
    memory_total: int = 0
    swap_total: int = 0
    cgroup_mode: str = "none"
    hierarchies: tuple[Hierarchy, ...] = ()
    systemd_running: bool = False
    manager: Manager = Manager()
    runtime_dir: str = "/run/sandbox"
    psi: bool = False
    userns: bool = False
    disks: tuple[Disk, ...] = ()
    namespaces: tuple[str, ...] = ()
    ids: bool = False
    chroot: bool = False
    around: str = ""
    mknod: bool = False
    program: str = ""
    directory: str = "/"
    mounts: tuple[tuple[str, str], ...] = ()
    places: tuple[Place, ...] = ()
    present: tuple[str, ...] = STANDARD
    secrets: tuple[str, ...] = ()
    nodes: tuple[Node, ...] = ()
    network: Network = Network()
    bfq: tuple[str, ...] = ()
    iocost: tuple[str, ...] = ()
    lent: Lent = Lent()
    docker: Docker = Docker()
    landlock_abi: int | None = None
    systemd_version: str | None = None
    lsm: tuple[str, ...] = ()
    selinux: str | None = None
    selinux_context: str | None = None
    apparmor: bool | None = None
    apparmor_profile: str | None = None
    apparmor_profiles: tuple[str, ...] = ()
    seccomp: tuple[str, ...] = ()
    distribution: str | None = None

    def hierarchy(self, controller: str) -> Hierarchy | None:
        """The tree that has ``controller``, or None."""
        return next((tree for tree in self.hierarchies if controller in tree.controllers), None)

    def disk(self, path: str) -> Disk | None:
        """What ``path`` resolved to, or None when this record does not know it."""
        return next((disk for disk in self.disks if disk.path == path), None)

    def absolute(self, path: str) -> str:
        """``path`` of the launcher as an absolute one."""
        return path if path.startswith("/") else f"{self.directory.rstrip('/')}/{path.removeprefix('./')}"

    def place(self, path: str) -> Place | None:
        """What ``path`` leads to, or None when this record does not know it."""
        return next((place for place in self.places if place.path == path), None)

    def mount(self, path: str) -> tuple[str, str]:
        """Mount point and type of the file system that ``path`` is on, a path without symbolic links."""
        found = ("/", "")
        for point, kind in self.mounts:
            if len(point) >= len(found[0]) and (path == point or path.startswith(point.rstrip("/") + "/")):
                found = (point, kind)
        return found


def probe(*, detail: bool = False, paths: tuple[str, ...] = (), cgroup_parent: str | None = None,
          places: tuple[str, ...] = (), root: str = "") -> Host:
    """Look at this machine. Reads only, starts no process unless ``detail``.

    :param detail: learn also what only people want to know; takes milliseconds, see :mod:`sandbox.teach.facts`.
    :param paths: resolve the disks behind these, for I/O limits.
    :param places: look where these lead to; relative ones count from the working directory.
    :param cgroup_parent: the cgroup to work in, a path below the roots of the cgroup trees.
    :param root: a directory that stands for ``/`` where files are read, for tests.
    :raises Unsupported: ``/proc`` is not mounted.
    """
    from .cgroup.hierarchy import find
    from .isolation.landlock import abi

    uname, namespaces = os.uname(), _namespaces(root)
    mounted = _mounted(root)
    mode, trees = find(root, mounted=mounted, cgroup_parent=cgroup_parent)
    # psutil knows these totals too and serves the detailed probe, but importing it costs several times this function.
    memory, status = fields(f"{root}/proc/meminfo"), fields(f"{root}/proc/self/status")
    capabilities = int(status.get("CapEff", "0"), 16)
    ids = capabilities & CAPS_TO_SHIFT == CAPS_TO_SHIFT and _may_give_ids(root)
    host = Host(
        kernel=uname.release,
        machine=uname.machine,
        uid=os.geteuid(),
        gid=os.getegid(),
        cpus=os.cpu_count() or 1,
        cpuset_cpus=show_cpu_list(os.sched_getaffinity(0)),
        cpuset_mems=status.get("Mems_allowed_list", ""),
        page_size=os.sysconf("SC_PAGE_SIZE"),
        memory_total=_bytes(memory.get("MemTotal", "")),
        swap_total=_bytes(memory.get("SwapTotal", "")),
        cgroup_mode=mode,
        hierarchies=trees,
        systemd_running=systemd_runs(root),
        runtime_dir=_runtime_dir(os.geteuid()),
        psi=bool(small_file(f"{root}/proc/pressure/memory")),
        userns=_may_make_userns(namespaces, root),
        disks=_disks(paths, root),
        namespaces=namespaces,
        ids=ids,
        chroot=os.geteuid() == 0 and is_chroot(root),
        mknod=ids and bool(capabilities >> CAP_MKNOD & 1) and _owns_all_ids(root),
        program=os.path.realpath(f"{root}/proc/self/exe"),
        mounts=tuple([(mount.point, mount.kind) for mount in mounted]),
        present=tuple([path for path in STANDARD if os.access(root + path, os.F_OK)]),
        landlock_abi=abi(),
    )
    host = here(host, places, root)
    if not trees:
        from .surroundings import kind

        host = host._replace(around=kind(root))
    if detail:
        from .teach.facts import add
        host = add(host, root)
    return host


def _mounted(root: str) -> tuple[Mount, ...]:
    """What is mounted.

    :raises Unsupported: ``/proc`` is not.
    """
    from .cgroup.hierarchy import mounts

    try:
        return mounts(root)
    except OSError as error:
        raise Unsupported("/proc is not mounted", hint="mount -t proc proc /proc; for a chroot, before entering it: "
                          "mount -t proc proc NEWROOT/proc") from error


def systemd_runs(root: str = "") -> bool:
    """PID 1 is systemd, as sd_booted(3) finds it; ``root`` as for :func:`probe`."""
    return os.path.isdir(f"{root}/run/systemd/system")


def is_chroot(root: str = "") -> bool:
    """True if ``/`` is another directory than that of process 1, or is not where a file system is mounted.

    Only root may look where the ``/`` of process 1 is; in a container that is no chroot the two are one. ``root`` is as
    for :func:`probe`.
    """
    try:
        return not os.path.samefile(f"{root}/proc/1/root", f"{root}/")
    except OSError:
        lines = small_file(f"{root}/proc/self/mountinfo").splitlines()
        return bool(lines) and all(line.split(" ", 5)[4] != "/" for line in lines)


def to_json(host: Host) -> str:
    """The record as JSON text that :func:`from_json` reads back equal."""
    import json

    record = host._asdict() | {"hierarchies": [tree._asdict() for tree in host.hierarchies],
                               "disks": [disk._asdict() for disk in host.disks],
                               "places": [place._asdict() for place in host.places],
                               "nodes": [node._asdict() for node in host.nodes],
                               "network": host.network._asdict(), "lent": host.lent._asdict(),
                               "docker": host.docker._asdict(),
                               "manager": host.manager._asdict() | {
                                   "properties": [one._asdict() for one in host.manager.properties]}}
    return json.dumps({"schema_version": SCHEMA_VERSION, **record}, indent=2)


def from_json(text: str) -> Host:
    """A saved record, e.g. of another machine.

    :raises SpecError: it is not JSON, or a key is unknown, missing or of the wrong type; the key is named.
    """
    from .saved import load
    return load(text, Host, SCHEMA_VERSION)


def fields(path: str) -> dict[str, str]:
    """A file of ``Key:  value`` lines."""
    pairs = (line.partition(":") for line in small_file(path).splitlines())
    return {key: value.strip() for key, _, value in pairs}


def _bytes(kibibytes: str) -> int:
    number = kibibytes.removesuffix(" kB")
    return int(number) * 1024 if number.isdigit() else 0


def _runtime_dir(uid: int) -> str:
    """Root of a user namespace may not write to /run of the machine, and /run may be read-only."""
    if uid == 0 and os.access("/run", os.W_OK):
        return "/run/sandbox"
    own = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"
    # Without a session (cron, CI) there is none; whoever makes this one has to check that it is ours and 0700.
    return f"{own}/sandbox" if own.startswith("/") and os.access(own, os.W_OK) else f"/tmp/sandbox-{uid}"


def _may_make_userns(namespaces: tuple[str, ...], root: str) -> bool:
    """The kernel has them, and none of the three switches forbids them to us."""
    if "user" not in namespaces:
        return False
    if os.geteuid() == 0:
        return True
    # Debian's patch, and AppArmor's restriction on Ubuntu, which leaves the namespace without any capability.
    return (small_file(f"{root}/proc/sys/kernel/unprivileged_userns_clone") != "0"
            and small_file(f"{root}/proc/sys/kernel/apparmor_restrict_unprivileged_userns") != "1")


def _may_give_ids(root: str) -> bool:
    """Root may map any ids that its own user namespace has (user_namespaces(7))."""
    if os.geteuid() != 0:
        return False
    lines = (line.split() for line in small_file(f"{root}/proc/self/uid_map").splitlines())
    return any(int(first) <= FREE_IDS[0] and int(first) + int(count) > FREE_IDS[-1] for first, _, count in lines)


def _owns_all_ids(root: str) -> bool:
    """This is the initial user namespace, or as good."""
    return small_file(f"{root}/proc/self/uid_map").split() == ["0", "0", str(2**32 - 1)]


def here(host: Host, places: tuple[str, ...], root: str = "") -> Host:
    """What changes from run to run: the working directory, and what paths lead to."""
    try:
        directory = os.getcwd()
    except OSError:  # it was removed
        directory = ""
    host = host._replace(directory=directory, places=())
    if not places:
        return host
    return host._replace(places=tuple([_place(host.absolute(path), root) for path in dict.fromkeys(places)]))


def _place(path: str, root: str) -> Place:
    try:
        real = os.path.realpath(root + path)
    except OSError:  # a link of /proc that only its process may follow
        return Place(path)
    kind = "directory" if os.path.isdir(real) else "file" if os.path.lexists(real) else ""
    return Place(path, kind, real.removeprefix(root))


def _namespaces(root: str) -> tuple[str, ...]:
    try:
        names = sorted(os.listdir(f"{root}/proc/self/ns"))
    except OSError:
        return ()
    return tuple(name for name in names if not name.endswith("_for_children")
                 and small_file(f"{root}/proc/sys/user/max_{name}_namespaces") != "0")


def _disks(paths: tuple[str, ...], root: str) -> tuple[Disk, ...]:
    if not paths:
        return ()
    from .disk import resolve
    return tuple(resolve(path, root=root) for path in dict.fromkeys(paths))


def small_file(path: str) -> str:
    """What a small file says, stripped; empty when it is not there, not ours to read, or not supported."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(descriptor, 1 << 16).decode("utf-8", "replace").strip()
    except OSError:  # e.g. EOPNOTSUPP of /proc/pressure with psi=0
        return ""
    finally:
        os.close(descriptor)
