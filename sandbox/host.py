"""What this machine is: :class:`Host`, a frozen record of facts, taken by :func:`probe`.

Drivers compile against a Host and never look at the machine themselves, so a plan can be made for another machine
from its saved ``sandbox info --json``.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from .units import show_cpu_list

SCHEMA_VERSION = 1
"""Of :func:`to_json`; raised when a field changes its meaning or goes."""
UNIT_CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")
"""The v2 controllers that systemd hands on to units."""


class Hierarchy(NamedTuple):
    """One mounted cgroup tree and the place in it where we may work.

    :param version: 1 or 2.
    :param controllers: kernel names; on v1 those it is mounted with, on v2 what the root's ``cgroup.controllers`` says.
    :param mount: where it is mounted, e.g. ``/sys/fs/cgroup/memory`` (symlinks such as ``cpu`` are not followed).
    :param own: the caller's cgroup as a path below ``mount``, starting with ``/``.
    :param parent: the cgroup that new ones are made in, below ``mount``; None when there is none we may use.
    :param reason: why ``parent`` is not ``own``, or why there is none; empty when they are the same.
    :param usable: controllers that a child of ``parent`` has or can be given.
    :param enable: v2: the cgroups from the top down, below ``mount``, in whose ``cgroup.subtree_control`` the usable
        controllers may have to be enabled, each with the controllers that are on there already.
    :param files: names of the kernel files a non-root cgroup of it has, as far as could be seen.
    """

    version: int
    controllers: tuple[str, ...]
    mount: str
    own: str = "/"
    parent: str | None = "/"
    reason: str = ""
    usable: tuple[str, ...] = ()
    enable: tuple[tuple[str, tuple[str, ...]], ...] = ()
    files: tuple[str, ...] = ()


class Disk(NamedTuple):
    """What a path was resolved to for I/O limits.

    :param path: as the user gave it.
    :param device: ``MAJ:MIN`` of the whole disk; empty when there is none.
    :param chain: what was gone through, e.g. ``("/var/tmp", "254:1 vda1", "254:0 vda")``.
    :param reason: why there is no disk; empty when there is one.
    """

    path: str
    device: str = ""
    chain: tuple[str, ...] = ()
    reason: str = ""


class Property(NamedTuple):
    """One property of a systemd unit.

    :param name: as on D-Bus, e.g. ``CPUQuotaPerSecUSec``.
    :param signature: its D-Bus type.
    :param words: the value: one word, or the members of an array one after another.
    """

    name: str
    signature: str
    words: tuple[str, ...]


class Manager(NamedTuple):
    """The systemd manager that is asked for units: the system's, or the user's own.

    :param version: of systemd, e.g. 252; 0 when there is no manager to ask.
    :param user: it is the user's.
    :param control_group: the cgroup that its units are in, as ``/`` or ``/user.slice/.../user@1000.service``.
    :param controllers: v2: those that its units can be given.
    :param delegated: the cgroup below which the launcher may do as it likes, because a unit was delegated to it; empty
        when there is none.
    :param properties: what the texts of ``--property`` mean, each as name, D-Bus type and words.
    :param problem: why it cannot be asked; empty when it can.
    :param remedy: what to do about that.
    """

    version: int = 0
    user: bool = False
    control_group: str = "/"
    controllers: tuple[str, ...] = ()
    delegated: str = ""
    properties: tuple[Property, ...] = ()
    problem: str = "systemd is not running"
    remedy: str = "use --driver cgroupfs"


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
    :param systemd_version: e.g. ``252``, only from a detailed probe, like all that follow.
    :param lsm: active Linux security modules.
    :param selinux: ``enforcing``, ``permissive`` or ``disabled``.
    :param apparmor: AppArmor is enabled.
    :param landlock_abi: version of the Landlock ABI, 0 when it is off.
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
    systemd_version: str | None = None
    lsm: tuple[str, ...] = ()
    selinux: str | None = None
    apparmor: bool | None = None
    landlock_abi: int | None = None
    seccomp: tuple[str, ...] = ()
    distribution: str | None = None

    def hierarchy(self, controller: str) -> Hierarchy | None:
        """The tree that has ``controller``, or None."""
        return next((tree for tree in self.hierarchies if controller in tree.controllers), None)

    def disk(self, path: str) -> Disk | None:
        """What ``path`` resolved to, or None when this record does not know it."""
        return next((disk for disk in self.disks if disk.path == path), None)


def probe(*, detail: bool = False, paths: tuple[str, ...] = (), cgroup_parent: str | None = None,
          root: str = "") -> Host:
    """Look at this machine. Reads only, starts no process unless ``detail``.

    :param detail: learn also what only people want to know; takes milliseconds, see :mod:`sandbox.teach.facts`.
    :param paths: resolve the disks behind these, for I/O limits.
    :param cgroup_parent: the cgroup to work in, a path below the roots of the cgroup trees.
    :param root: a directory that stands for ``/`` where files are read, for tests.
    :raises OSError: ``/proc`` is not mounted.
    """
    from .cgroup.hierarchy import find

    uname, namespaces = os.uname(), _namespaces(root)
    mode, trees = find(root, cgroup_parent=cgroup_parent)
    # psutil knows these totals too and serves the detailed probe, but importing it costs several times this function.
    memory = _fields(f"{root}/proc/meminfo")
    host = Host(
        kernel=uname.release,
        machine=uname.machine,
        uid=os.geteuid(),
        gid=os.getegid(),
        cpus=os.cpu_count() or 1,
        cpuset_cpus=show_cpu_list(os.sched_getaffinity(0)),
        cpuset_mems=_fields(f"{root}/proc/self/status").get("Mems_allowed_list", ""),
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
    )
    if detail:
        from .teach.facts import add
        host = add(host, root)
    return host


def systemd_runs(root: str = "") -> bool:
    """PID 1 is systemd, as sd_booted(3) finds it; ``root`` as for :func:`probe`."""
    return os.path.isdir(f"{root}/run/systemd/system")


def to_json(host: Host) -> str:
    """The record as JSON text that :func:`from_json` reads back equal."""
    import json

    record = host._asdict() | {"hierarchies": [tree._asdict() for tree in host.hierarchies],
                               "disks": [disk._asdict() for disk in host.disks],
                               "manager": host.manager._asdict() | {
                                   "properties": [one._asdict() for one in host.manager.properties]}}
    return json.dumps({"schema_version": SCHEMA_VERSION, **record}, indent=2)


def from_json(text: str) -> Host:
    """A saved record, e.g. of another machine.

    :raises SpecError: it is not JSON, or a key is unknown, missing or of the wrong type; the key is named.
    """
    from .saved import load
    return load(text, Host, SCHEMA_VERSION)


def _fields(path: str) -> dict[str, str]:
    """A file of ``Key:  value`` lines."""
    pairs = (line.partition(":") for line in small_file(path).splitlines())
    return {key: value.strip() for key, _, value in pairs}


def _bytes(kibibytes: str) -> int:
    number = kibibytes.removesuffix(" kB")
    return int(number) * 1024 if number.isdigit() else 0


def _runtime_dir(uid: int) -> str:
    if uid == 0:
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
        return os.read(descriptor, 1 << 16).decode("ascii", "replace").strip()
    except OSError:  # e.g. EOPNOTSUPP of /proc/pressure with psi=0
        return ""
    finally:
        os.close(descriptor)
