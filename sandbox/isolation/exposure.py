"""What a run can reach of the host: item by item, with a score, and one line for each hole that was asked for.

The score is made as ``systemd-analyze security`` makes it: the weights of what is open as a share of all weights, from
0 to 10; the weights and the bands are its own (systemd, ``analyze-security.c``) where it has such an item. What is open
is read from the plan, so that it is what was done, not what was meant.
"""

from __future__ import annotations

import os

from ..spec import Spec
from ..stdlib import TYPE_CHECKING, NamedTuple
from ..steps import Plan
from . import capabilities, landlock, seccomp, secrets, security

if TYPE_CHECKING:
    from collections.abc import Iterator

BANDS = ((10.0, "DANGEROUS"), (9.0, "UNSAFE"), (7.5, "EXPOSED"), (5.0, "MEDIUM"), (1.0, "OK"), (0.0, "SAFE"))

# <linux/sched.h>
NAMESPACES = {"time": 0x80, "mnt": 0x2_0000, "cgroup": 0x200_0000, "uts": 0x400_0000, "ipc": 0x800_0000,
              "user": 0x1000_0000, "pid": 0x2000_0000, "net": 0x4000_0000}

CALLS = (
    ("@module", 1000, "loading kernel modules"), ("@mount", 1000, "mounting"), ("@raw-io", 1000, "access to I/O ports"),
    ("@reboot", 1000, "rebooting"), ("@swap", 1000, "turning swap on and off"), ("@clock", 1000, "setting the clock"),
    ("@debug", 1000, "the kernel's tracing and performance calls"), ("@privileged", 700, "io_uring, bpf, userfaultfd"),
    ("@obsolete", 250, "calls that nothing needs any more"),
)
"""Groups of system calls that the default filter refuses, each after systemd's set of that name."""
CAPABILITIES = (
    (1500, ("CAP_SYS_ADMIN",), "most of what an administrator may do"),
    (1500, ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"), "taking on any id of its own user namespace"),
    (1500, ("CAP_SYS_PTRACE", "CAP_CHECKPOINT_RESTORE"), "tracing any process of its own"),
    (1000, ("CAP_NET_ADMIN",), "changing network devices, addresses and filters"),
    (1000, ("CAP_SYS_RAWIO",), "access to I/O ports"),
    (1000, ("CAP_SYS_MODULE",), "loading kernel modules"),
    (1000, ("CAP_SYS_TIME",), "setting the clock"),
    (1000, ("CAP_CHOWN", "CAP_FSETID", "CAP_SETFCAP"), "giving files other owners, set-uid bits and capabilities"),
    (1000, ("CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_IPC_OWNER"), "passing over permissions"),
    (500, ("CAP_AUDIT_CONTROL", "CAP_AUDIT_READ", "CAP_AUDIT_WRITE"), "the audit subsystem"),
    (500, ("CAP_SYSLOG", "CAP_PERFMON", "CAP_BPF"), "the kernel's log, counters and programs"),
    (500, ("CAP_NET_RAW", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST"), "raw packets, and ports below 1024"),
    (500, ("CAP_SYS_NICE", "CAP_SYS_RESOURCE"), "priorities and limits above what was set"),
    (500, ("CAP_MKNOD",), "making device files"),
    (500, ("CAP_KILL",), "signals to processes of other users"),
    (100, ("CAP_MAC_ADMIN", "CAP_MAC_OVERRIDE", "CAP_SYS_BOOT"), "security modules, rebooting"),
    (100, ("CAP_LINUX_IMMUTABLE", "CAP_IPC_LOCK", "CAP_SYS_CHROOT", "CAP_BLOCK_SUSPEND", "CAP_WAKE_ALARM",
           "CAP_LEASE", "CAP_SYS_TTY_CONFIG", "CAP_SYS_PACCT"), "smaller privileges"),
)
SENSITIVE = {
    "/": "every file of the host", "/proc": "the kernel's settings and every process of the host",
    "/sys": "the kernel's settings, devices and cgroups", "/dev/shm": "the shared memory of the host's processes",
    "/dev": "the host's device nodes, but open none: that takes --device",
    "/run": "the sockets of the host's services", "/var/run": "the sockets of the host's services",
    "/etc": "the host's configuration and password hashes", "/boot": "the host's kernel",
    "/root": "the home of the host's root", "/home": "the homes of the host's users", "/usr": "the host's programs",
    "/var": "the data of the host's services", "/lib": "the host's programs", "/bin": "the host's programs",
    "/sbin": "the host's programs",
}
"""Directories of the host, with what a volume of one opens."""
THROUGHOUT = ("/proc", "/sys", "/dev/shm", "/dev", "/run", "/var/run")
"""Those where whatever is below is as bad."""
SHARED = {
    "pid": "it sees all processes of the host, and may signal those that run as its user unless Landlock forbids it",
    "ipc": "it shares the host's System V and POSIX message queues, semaphores and shared memory",
    "uts": "it sees the host's name, and changes of it",
    "userns": "its user ids are the host's: root inside is root outside, kept back by the other protections only",
    "cgroupns": "it sees the names of the host's cgroups above its own",
    "network": "it reaches the host's network: all its addresses, services on localhost; abstract sockets "
               "unless Landlock forbids them",
}


class Item(NamedTuple):
    """One thing that can be open.

    :param item: its name, systemd's directive where that has one.
    :param open: the run can reach it.
    :param weight: how much it counts.
    :param opens: what can be reached when it is open.
    :param flag: what opens it; empty when nothing does, or nothing closes it.
    """

    item: str
    open: bool
    weight: int
    opens: str
    flag: str = ""


class Exposure(NamedTuple):
    """The items, and what they come to.

    :param score: 0.0, nothing open, to 10.0.
    :param band: systemd's word for it.
    """

    score: float
    band: str
    items: tuple[Item, ...]


def exposure(spec: Spec, plan: Plan) -> Exposure:
    """What the plan leaves open. Pure."""
    items = (*_namespaces(spec, plan), *_files(spec, plan), *_calls(plan), *_capabilities(plan))
    score = round(10 * sum(one.weight for one in items if one.open) / sum(one.weight for one in items), 1)
    return Exposure(score, next(word for least, word in BANDS if score >= least), items)


def _namespaces(spec: Spec, plan: Plan) -> Iterator[Item]:
    flags = 0
    for step in plan.steps:
        if step.op in ("clone3", "namespaces", "unshare"):
            flags |= int(str(step.args[0]))
    joined = {one.kind for one in spec.ns}

    def shared(kind: str) -> bool:
        return not flags & NAMESPACES[kind] or kind in joined

    root = shared("user") and (spec.user is None or spec.user.uid == 0)
    yield Item("PrivateNetwork", shared("net"), 2500, "the network of others", "--network host")
    yield Item("IPAddressDeny", shared("net") or spec.network != "none", 1000, "other machines", "--network")
    yield Item("User", root, 2000, "uid 0 of the host", "--userns host")
    yield Item("PrivateUsers", shared("user"), 1000, "the host's user ids", "--userns host")
    yield Item("ProtectProc", shared("pid"), 1000, "the host's processes", "--pid host")
    yield Item("PrivateIPC", shared("ipc"), 1000, "the host's shared memory and message queues", "--ipc host")
    yield Item("PrivateMounts", shared("mnt"), 1000, "the host's mounts")
    yield Item("ProtectHostname", shared("uts"), 50, "the host's name", "--uts host")
    yield Item("CgroupNamespace", shared("cgroup"), 50, "the names of the host's cgroups", "--cgroupns host")


def _files(spec: Spec, plan: Plan) -> Iterator[Item]:
    # It has the host's root as it is, or may uncover it: the mounts belong to the user namespace that it is in.
    plain = all(step.op != "pivot" for step in plan.steps) or _may_unmount(plan)
    sources = [path for volume in spec.volume for path in _names(volume.source)]
    writable = plain or any(not volume.read_only for volume in spec.volume)

    def below(*directories: str) -> bool:
        return plain or any(source == "/" or f"{source}/".startswith(f"{one}/")
                            for source in sources for one in directories)

    yield Item("ProtectHome", not spec.rootfs or below("/home", "/root"), 1000,
               "reading the host's files, homes too, as far as its user may", "closed by --rootfs")
    system = plain or any(_opened(volume.source) and not volume.read_only for volume in spec.volume)
    yield Item("ProtectSystem", system, 1000, "changing the host's system", "-v")
    yield Item("ReadWritePaths", writable, 1000, "changing files of the host", "-v")
    yield Item("RestrictSUIDSGID", writable, 1000, "leaving set-uid programs of its user on the host", "-v")
    yield Item("PrivateTmp", below("/tmp", "/var/tmp"), 1000, "the host's temporary files", "-v")
    yield Item("PrivateDevices", below("/dev"), 1000, "the host's devices", "-v")
    yield Item("DeviceAllow", plain or bool(spec.device), 1000, "devices of the host, and their drivers", "--device")
    yield Item("DeviceAllow GPU", plain or spec.gpu, 500, "the GPU, its driver, and memory of others on it", "--gpu")
    yield Item("ProtectKernelTunables", below("/proc", "/sys"), 1000, "the kernel's settings", "-v")
    masked = any(step.op == "mask" and str(step.args[0]).startswith("/proc/") for step in plan.steps)
    yield Item("ProcSubset", not masked, 10, "what /proc and /sys tell of the machine and of its use", "--nest")
    yield Item("OpenFiles", bool(spec.preserve_fds), 500, "files that its caller has open", "--preserve-fds")
    unmasked = not spec.rootfs and (bool(spec.unmask) or spec.protect_home == "off")
    yield Item("Secrets", plain or unmasked or any(map(secrets.reveals, sources)), 1000,
               "keys, passwords and tokens in their usual places", "--unmask")
    closed = bool(spec.rootfs) or landlock.closes_sockets(plan)
    yield Item("UnixSockets", not closed, 1000, "sockets of the host that are outside /run and /tmp and that its user "
               "may write to", "closed by --rootfs, and by Landlock since Linux 7.1")
    yield Item("HostSockets", below("/run", "/var/run"), 1000, "the host's services by their sockets", "-v")


def _may_unmount(plan: Plan) -> bool:
    return "CAP_SYS_ADMIN" in _held(plan) and all(step.op != "enter_userns" for step in plan.steps)


def _calls(plan: Plan) -> Iterator[Item]:
    names, profile, nested = _held(plan), "", False
    for step in plan.steps:
        if step.op == "seccomp" and isinstance(step.args[0], tuple):
            profile, nested = step.args[0][0], seccomp.NEST in step.args[0]
    # What another profile lets through is not looked into: it counts as open.
    loose, admin = profile != security.DEFAULT, "CAP_SYS_ADMIN" in names
    flag = "--security-opt seccomp"
    ops = {step.op for step in plan.steps}
    yield Item("NoNewPrivileges", "no_new_privs" not in ops, 1000, "set-uid programs")
    yield Item("SystemCallArchitectures", not profile, 1000, "32-bit system calls", flag)
    yield Item("KeyringMode", loose, 1000, "the kernel's keys of its user", flag)
    yield Item("RestrictNamespaces", loose or admin or nested, 1500,
               "new user namespaces, and the kernel's code behind them", "--nest" if nested else flag)
    yield Item("RestrictAddressFamilies", loose, 1250, "rare kinds of sockets, AF_ALG and AF_VSOCK among them", flag)
    yield Item("RestrictAddressFamilies AF_PACKET", loose or "CAP_NET_RAW" in names, 1000, "raw packets", flag)
    yield Item("MemoryDenyWriteExecute", True, 100, "memory that is writable and executable, as compilers need it")
    for group, weight, opens in CALLS:
        mounts = nested and group == "@mount"
        yield Item(f"SystemCallFilter {group}", loose or mounts, weight, opens, "--nest" if mounts else flag)


def _held(plan: Plan) -> tuple[str, ...]:
    """The capabilities that the workload is left with; all, when no step takes them away."""
    for step in plan.steps:
        if step.op == "capset":
            bits = int(str(step.args[0]))
            return tuple(name for name, bit in capabilities.BITS.items() if bits & bit)
    return capabilities.NAMES


def _capabilities(plan: Plan) -> Iterator[Item]:
    held = _held(plan)
    for weight, names, opens in CAPABILITIES:
        first, *rest = (name.removeprefix("CAP_") for name in names)
        label = f"CapabilityBoundingSet {first}" + (f" and {len(rest)} more" if rest else "")
        yield Item(label, not set(names).isdisjoint(held), weight, opens, "--cap-add")


def _names(source: str) -> tuple[str, str]:
    """The absolute path of a volume's source, and where it leads."""
    absolute, real = (f"/{path.lstrip('/')}" for path in (os.path.abspath(source), os.path.realpath(source)))
    return absolute, real


def _opened(source: str) -> str:
    return next(filter(None, map(sensitive, _names(source))), "")


def sensitive(source: str) -> str:
    """What a volume of ``source`` opens beyond its own files; empty when that is nothing."""
    path = os.path.normpath(source)
    for one in THROUGHOUT:
        if f"{path}/".startswith(f"{one}/"):
            return SENSITIVE[one]
    if is_socket(path):
        return "the service that listens there"
    return SENSITIVE.get(path) or ("keys, passwords and tokens" if secrets.reveals(path) else "")


def is_socket(path: str) -> bool:
    """Its name says that it is a socket. To connect to one, a mount need not be writable."""
    return path.endswith(".sock")


def warnings(spec: Spec) -> tuple[str, ...]:
    """One line for each hole that the Spec asks for by name, with what it opens. Pure."""
    return tuple(_warnings(spec))


def _warnings(spec: Spec) -> Iterator[str]:
    wishes = {"network": spec.network, "pid": spec.pid, "ipc": spec.ipc, "uts": spec.uts, "userns": spec.userns,
              "cgroupns": spec.cgroupns}
    for name, wish in wishes.items():
        if wish == "host":
            yield f"--{name} host: {SHARED[name]}"
    if spec.network == "veth":
        yield "--network veth: it reaches this machine's services and, where forwarding is on, others"
    for one in spec.ns:
        yield f"--ns {one.kind}:{one.path}: it shares this namespace with whoever is in it"
    for volume in spec.volume:
        opened = _opened(volume.source)
        if opened:
            may = "reach" if is_socket(volume.source) else "read" if volume.read_only else "change"
            yield f"-v {volume.source}: it can {may} {opened}"
    if spec.protect_home == "off":
        yield "--protect-home off: it can read keys, passwords and tokens in the homes that its user may read"
    for path in spec.unmask:
        yield f"--unmask {path}: it can read the keys, passwords or tokens there"
    for device in spec.device:
        may = " and ".join(word for letter, word in (("r", "read"), ("w", "write")) if letter in device.access)
        yield f"--device {device.source}: it can {may or 'see'} this device, and reaches its driver in the kernel"
    if spec.gpu:
        yield "--gpu: it reaches the GPU's driver in the kernel by ioctl, and whatever others left in the GPU's memory"
    if spec.nest:
        yield ("--nest: it may make user namespaces, in which it has all capabilities, and mount there: that reaches "
               "much of the kernel's code; /proc and /sys are not masked")
    names = capabilities.wanted(spec)
    if names:
        within = "on the host itself" if spec.userns == "host" else "within its own namespaces"
        # Without root there is one user namespace, which owns the mounts.
        more = ("can undo its mounts: it can read what is masked and write to what its user may write to on the host"
                if "CAP_SYS_ADMIN" in names and (os.geteuid() or spec.userns == "host")
                else "reaches more of the kernel's code")
        yield f"--cap-add: it has {_list(names)} {within}, and {more}"
    yield from _warnings_of_security(spec)


def _warnings_of_security(spec: Spec) -> Iterator[str]:
    profile = security.profile(spec)
    if profile == security.UNCONFINED:
        yield ("--security-opt seccomp=unconfined: it may call all of the kernel: keys, io_uring, user namespaces, "
               "32-bit calls")
    elif profile == security.MOBY:
        yield ("--security-opt seccomp=moby: it may make sockets of nearly every family, AF_ALG among them, and of "
               "every family by a 32-bit call")
    elif profile != security.DEFAULT:
        yield f"--security-opt seccomp={profile}: it may call whatever this profile lets through"
    for key, module in (("label", "SELinux"), ("apparmor", "AppArmor")):
        for value in security.values(spec, key):
            if value not in ("disable", security.UNCONFINED):
                yield (f"--security-opt {key}={value}: {module} lets it reach whatever has this label, and other "
                       "sandboxes with it")


def _list(names: tuple[str, ...]) -> str:
    return "all capabilities" if len(names) == len(capabilities.NAMES) else " ".join(names)
