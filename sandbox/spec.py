"""What the user wants: :class:`Spec` and :class:`Limits`, plain immutable data, checked without any I/O.

"No limit" is None, never 0 or -1. Bytes and seconds everywhere. A :class:`~sandbox.records.Percent` is resolved
against the :class:`~sandbox.host.Host` when a plan is compiled.
"""

from __future__ import annotations

from .errors import SpecError
from .records import (
    UNLIMITED,
    Bytes,
    Device,
    DeviceRate,
    FileValue,
    Hugetlb,
    IoPriority,
    Joined,
    NetRate,
    Publish,
    Tmpfs,
    Ulimit,
    User,
    Volume,
)
from .spelling import spelled
from .stdlib import dataclass, field, signal

AS_LIST = "give a list: [program, argument, ...]"
MAX_NAME = 100
UNIT_SUFFIXES = (".service", ".scope", ".slice", ".socket", ".mount", ".swap", ".target", ".device",
                 ".automount", ".timer", ".path")
# A cgroup's directory shares its name space with the kernel's files; systemd escapes these too (cg_needs_escape).
KERNEL_PREFIXES = ("cgroup.", "cpu.", "cpuacct.", "cpuset.", "memory.", "io.", "blkio.", "pids.", "hugetlb.",
                   "rdma.", "misc.", "devices.", "freezer.", "net_cls.", "net_prio.", "perf_event.", "dmem.",
                   "irq.")
KERNEL_NAMES = ("tasks", "notify_on_release", "release_agent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the workload may use. Each field is one flag of ``sandbox run`` (``memory_high`` is ``--memory-high``).

    :param cpus: CPU time per second of wall time, in CPUs: 1.5, 0.25.
    :param cpu_quota: microseconds of CPU time per period; excludes ``cpus``.
    :param cpu_period: length of the period in microseconds, 1000 to 1000000.
    :param cpu_weight: share among siblings, 1 to 10000, kernel default 100.
    :param cpu_shares: the same in docker's and cgroup v1's unit, 2 to 262144, default 1024.
    :param cpu_idle: run only when nobody else wants the CPU.
    :param cpu_burst: microseconds that unused quota may pile up to.
    :param cpuset_cpus: CPUs that may be used, as ``0-2,4``.
    :param cpuset_mems: NUMA nodes that memory may come from.
    :param memory: hard limit; beyond it the kernel reclaims, then kills.
    :param memory_high: throttling starts here.
    :param memory_low: best-effort protection (docker's ``--memory-reservation``).
    :param memory_min: hard protection.
    :param memory_swap: docker's meaning: memory *plus* swap; needs ``memory``.
    :param swap_max: swap alone.
    :param memory_swappiness: 0 to 100, cgroup v1 only.
    :param oom_group: when the kernel kills for memory, kill all of it.
    :param pids_limit: number of tasks (processes and threads).
    :param device_read_bps: bytes per second read from a disk; the three others likewise.
    :param blkio_weight: share of the disk, 10 to 1000 (docker, bfq).
    :param io_weight: share of the disk, 1 to 10000 (cgroup v2).
    :param blkio_weight_device: ``blkio_weight`` for one disk.
    :param hugetlb: limits for huge pages.
    :param cgroup_conf: any other kernel file, written last.
    :param ulimit: resource limits of each process.
    :param timeout: wall time in seconds, counted from the execve.
    :param cpu_time: CPU time of the whole tree in seconds.
    """

    cpus: float | None = None
    cpu_quota: int | str | None = None
    cpu_period: int | None = None
    cpu_weight: int | None = None
    cpu_shares: int | None = None
    cpu_idle: bool = False
    cpu_burst: int | None = None
    cpuset_cpus: str | None = None
    cpuset_mems: str | None = None
    memory: Bytes | None = None
    memory_high: Bytes | None = None
    memory_low: Bytes | None = None
    memory_min: Bytes | None = None
    memory_swap: Bytes | None = None
    swap_max: Bytes | None = None
    memory_swappiness: int | None = None
    oom_group: bool = False
    pids_limit: int | str | None = None
    device_read_bps: tuple[DeviceRate, ...] = ()
    device_write_bps: tuple[DeviceRate, ...] = ()
    device_read_iops: tuple[DeviceRate, ...] = ()
    device_write_iops: tuple[DeviceRate, ...] = ()
    blkio_weight: int | None = None
    io_weight: int | None = None
    blkio_weight_device: tuple[DeviceRate, ...] = ()
    hugetlb: tuple[Hugetlb, ...] = ()
    cgroup_conf: tuple[FileValue, ...] = ()
    ulimit: tuple[Ulimit, ...] = ()
    timeout: float | None = None
    cpu_time: float | None = None

    @property
    def has_io_weight(self) -> bool:
        """Whether there is a weight for a disk, or for all disks."""
        return bool(self.blkio_weight_device) or self.io_weight is not None or self.blkio_weight is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One wish: a command and its limits.

    Text may carry undecodable bytes as surrogate escapes, as :func:`os.fsdecode` makes them.

    :param argv: the command; the first word is looked up in the ``PATH`` of ``env`` unless it has a slash.
    :param limits: what it may use.
    :param env: its whole environment.
    :param cwd: its working directory; None keeps the launcher's.
    :param user: who it runs as; None keeps the launcher's identity.
    :param tty: stdin is a terminal that becomes its controlling terminal, in a session of its own.
    :param preserve_fds: how many fds from 3 on are passed to it. Those that are closed or close-on-exec in the launcher
        are left out, but the last one must be open and not close-on-exec.
    :param driver: ``auto`` or a driver's name.
    :param name: part of each cgroup's name; empty for a random one.
    :param cgroup_parent: cgroup to make ours in, from the hierarchy's root; None for the launcher's own.
    :param systemd_user: ask the user's own systemd manager, also as root.
    :param unit_type: ``scope`` or ``service``, what the systemd driver makes.
    :param unit: the unit's name; empty for one after ``name``.
    :param slice: the slice it goes to; empty for the manager's own choice.
    :param property: any other properties of the unit, as ``NAME=VALUE``.
    :param best_effort: run even if a limit cannot be enforced; the report lists it as unmet.
    :param stop_signal: what a soft stop sends.
    :param stop_timeout: seconds from the soft stop to the hard kill.
    :param oom_score_adj: -1000 to 1000, how readily the kernel kills it for memory; None for 0.
    :param nice: -20 to 19, its share of a CPU among processes of one cgroup; None for the caller's.
    :param ionice: its priority for the disks; None for the caller's.
    :param network: ``none`` for the loopback device alone, ``host`` to share the host's, ``veth`` for one of its own.
    :param publish: ports of the host that lead inside.
    :param net_rate: bandwidth of that device, each way.
    :param net_delay: seconds that a packet is held back, each way.
    :param pid: ``private``, or ``host`` to share the host's process ids; likewise ``ipc``, ``uts``, ``userns`` and
        ``cgroupns``.
    :param ns: existing namespaces to join.
    :param hostname: the name of the machine inside; empty to keep the host's.
    :param rootfs: a directory of the host that becomes ``/``; empty for the host's own ``/``, read-only.
    :param read_only: nothing in the root file system can be written to.
    :param overlay: what is written goes into a layer on top of the root file system.
    :param commit: a directory of the host for that layer; empty to throw it away.
    :param volume: files and directories of the host that are seen inside.
    :param tmpfs: empty file systems in memory.
    :param cap_add: capabilities of the workload within its own namespaces, as ``CAP_NET_RAW``, or ``ALL``.
    :param cap_drop: those to take away again.
    :param protect_home: ``ro``: homes can be read, but what is secret in them is masked; ``tmpfs``: they are empty;
        ``off``: nothing in them is masked.
    :param unmask: paths that are masked by default and are to be seen.
    :param security_opt: docker's ``seccomp=FILE``, ``label=TYPE``, ``apparmor=PROFILE``.
    :param device: devices of the host that it may use.
    :param gpu: it may use the host's GPUs.
    :param nest: it may start one more level of sandboxes.
    :param seccomp_log: the report lists the system calls that the filter refused.
    :raises SpecError: when something is malformed or contradictory.
    """

    argv: tuple[str, ...]
    limits: Limits = field(default_factory=Limits)
    env: tuple[tuple[str, str], ...] = ()
    cwd: str | None = None
    user: User | None = None
    tty: bool = False
    preserve_fds: int = 0
    driver: str = "auto"
    name: str = ""
    cgroup_parent: str | None = None
    systemd_user: bool = False
    unit_type: str = "scope"
    unit: str = ""
    slice: str = ""
    property: tuple[str, ...] = ()
    best_effort: bool = False
    stop_signal: int = int(signal.SIGTERM)
    stop_timeout: float = 1.5
    oom_score_adj: int | None = None
    nice: int | None = None
    ionice: IoPriority | None = None
    network: str = "none"
    publish: tuple[Publish, ...] = ()
    net_rate: NetRate | None = None
    net_delay: float | None = None
    pid: str = "private"
    ipc: str = "private"
    uts: str = "private"
    userns: str = "private"
    cgroupns: str = "private"
    ns: tuple[Joined, ...] = ()
    hostname: str = ""
    rootfs: str = ""
    read_only: bool = False
    overlay: bool = False
    commit: str = ""
    volume: tuple[Volume, ...] = ()
    tmpfs: tuple[Tmpfs, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    protect_home: str = "ro"
    unmask: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    device: tuple[Device, ...] = ()
    gpu: bool = False
    nest: bool = False
    seccomp_log: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.argv, tuple):
            raise SpecError(f"the command {self.argv!r} is no tuple", field="argv", hint="make_spec() takes any list")
        if not self.argv or not self.argv[0]:
            raise SpecError("no command given", field="argv", hint=AS_LIST)
        for word in self.argv:
            if "\0" in word:
                raise SpecError(f"the command has a NUL byte in {word!r}", field="argv")
        for key, value in self.env:
            if not key or "=" in key or "\0" in key or "\0" in value:
                raise SpecError(f"not an environment variable: {key!r}", field="env", hint="use NAME=VALUE")
        if self.name:
            check_name(self.name)
        other = {"scope": ".service", "service": ".scope"}.get(self.unit_type)
        if other is None or self.unit.endswith(other):
            raise SpecError(f"{spelled('unit', self.unit)}: {spelled('unit_type')} is {self.unit_type}", field="unit",
                            hint=f"give the {spelled('unit_type')} that the name says, or leave its suffix off")
        if self.oom_score_adj == -1000 and self.limits.memory not in (None, UNLIMITED):
            raise SpecError(f"{spelled('oom_score_adj', -1000)}: {spelled('memory')} could not end a command that the "
                            "kernel may not kill", field="oom_score_adj",
                            hint=f"use -999, or leave {spelled('memory')} out")
        _check_limits(self.limits)
        _check_isolation(self)


def check_name(name: str) -> None:
    """Refuse a name that cannot be a cgroup's directory.

    :raises SpecError: unless ``[A-Za-z0-9][A-Za-z0-9_.-]*``, at most 100 characters, and neither the name of a
        kernel file nor that of a systemd unit (a directory made under a unit's name hangs systemd 257's PID 1).
    """
    letters = name.replace("_", "").replace(".", "").replace("-", "")
    if not (letters.isalnum() and name.isascii() and name[0].isalnum() and len(name) <= MAX_NAME):
        raise SpecError(f"{spelled('name')}: {name!r} is not a usable name", field="name",
                        hint="letters, digits, '_', '.' and '-', starting with a letter or digit, at most 100")
    if name in KERNEL_NAMES or name.startswith(KERNEL_PREFIXES):
        raise SpecError(f"{spelled('name')}: {name!r} is the name of a kernel file in a cgroup", field="name")
    if name.endswith(UNIT_SUFFIXES):
        raise SpecError(f"{spelled('name')}: {name!r} would look like a systemd unit", field="name",
                        hint="leave the suffix off")


def _check_limits(limits: Limits) -> None:
    if limits.cpus is not None and limits.cpu_quota is not None:
        raise SpecError(f"{spelled('cpus')} and {spelled('cpu_quota')} set the same limit", field="limits.cpus",
                        hint="give one of them")
    if limits.cpu_weight is not None and limits.cpu_shares is not None:
        raise SpecError(f"{spelled('cpu_weight')} and {spelled('cpu_shares')} set the same limit",
                        field="limits.cpu_weight", hint="give one of them")
    idle = [spelled("cpu_idle", True)] if limits.cpu_idle else [
        spelled("cgroup_conf", f"{conf.file}={conf.value}") for conf in limits.cgroup_conf
        if conf.file == "cpu.idle" and conf.value.strip() != "0"]
    if idle and (limits.cpu_weight is not None or limits.cpu_shares is not None):
        raise SpecError(f"{idle[0]} has no weight", field="limits.cpu_idle",
                        hint=f"leave {spelled('cpu_weight')} and {spelled('cpu_shares')} out")
    if limits.memory_swap is not None and limits.swap_max is not None:
        raise SpecError(f"{spelled('memory_swap')} and {spelled('swap_max')} set the same limit",
                        field="limits.memory_swap", hint="give one of them")
    if limits.memory_swap is not None and limits.memory is None:
        raise SpecError(f"{spelled('memory_swap')} is memory plus swap and needs {spelled('memory')}",
                        field="limits.memory_swap", hint=f"use {spelled('swap_max')} to limit swap alone")
    if isinstance(limits.memory_swap, int) and isinstance(limits.memory, int) and limits.memory_swap < limits.memory:
        raise SpecError(f"{spelled('memory_swap', limits.memory_swap)} is memory plus swap and below "
                        f"{spelled('memory', limits.memory)}", field="limits.memory_swap",
                        hint=f"use {spelled('swap_max')} to limit swap alone")
    ulimits: dict[str, Ulimit] = {}
    for item in limits.ulimit:
        other = ulimits.setdefault("nofile" if item.name == "ofile" else item.name, item)
        if other[1:] != item[1:]:
            first, second = (spelled("ulimit", f"{one.name}={one.bounds}") for one in (other, item))
            raise SpecError(f"{first} and {second} are two values for one limit", field="limits.ulimit",
                            hint="give one of them")
    if limits.blkio_weight is not None and limits.io_weight is not None:
        raise SpecError(f"{spelled('blkio_weight')} and {spelled('io_weight')} set the same limit",
                        field="limits.io_weight", hint="give one of them")


def _check_isolation(spec: Spec) -> None:
    if spec.commit and not spec.overlay:
        raise SpecError(f"{spelled('commit')} keeps what {spelled('overlay')} writes", field="commit",
                        hint=f"add {spelled('overlay', True)}")
    if spec.overlay and spec.read_only:
        raise SpecError(f"{spelled('overlay')} is for writing, and {spelled('read_only')} forbids it",
                        field="overlay", hint="give one of them")
    if spec.hostname and (spec.uts == "host" or any(one.kind == "uts" for one in spec.ns)):
        raise SpecError(f"{spelled('hostname')} would rename the machine, whose name is shared",
                        field="hostname", hint=f"leave {spelled('uts', 'host')} and {spelled('ns', 'uts:')} out")
    for name in ("publish", "net_rate", "net_delay"):
        if getattr(spec, name) and spec.network != "veth":
            raise SpecError(f"{spelled(name)} is about a device of its own, and {spelled('network')} is "
                            f"{spec.network}", field=name, hint=f"add {spelled('network', 'veth')}")
    if spec.seccomp_log and "seccomp=unconfined" in spec.security_opt:
        raise SpecError(f"{spelled('seccomp_log')} lists what the filter refused, and with seccomp=unconfined "
                        "there is none", field="seccomp_log", hint="leave one of them out")
    if spec.nest and spec.pid == "host":
        raise SpecError(f"{spelled('nest', True)}: with {spelled('pid', 'host')} the /proc inside is the host's, and a "
                        "sandbox inside could mount none of its own", field="nest", hint="give one of them")
    if spec.nest and "seccomp=moby" in spec.security_opt:
        raise SpecError(f"{spelled('nest', True)}: docker's filter, seccomp=moby, refuses new namespaces", field="nest",
                        hint="leave one of them out")
    shared = {"net": spec.network != "none", "ipc": spec.ipc == "host", "uts": spec.uts == "host",
              "cgroup": spec.cgroupns == "host"}
    kinds = [one.kind for one in spec.ns]
    for kind in kinds:
        if kinds.count(kind) > 1 or shared.get(kind):
            raise SpecError(f"{spelled('ns', f'{kind}:')} and another wish are about the same namespace", field="ns",
                            hint="give one of them")
    taken: dict[str, str] = {}
    for typed, target in (*((spelled("volume", f"{one.source}:{one.target}"), one.target) for one in spec.volume),
                          *((spelled("tmpfs", one.target), one.target) for one in spec.tmpfs),
                          *((spelled("device", f"{one.source}:{one.target}"), one.target) for one in spec.device)):
        if target in taken:
            raise SpecError(f"{taken[target]} and {typed} have the same place inside", field="volume",
                            hint="give one of them")
        taken[target] = typed
