"""Isolation as the properties of a systemd service; a scope isolates nothing.

Source: systemd.exec(5). Its namespaces belong to the host's user namespace, whatever ``PrivateUsers=`` says; its filter
of system calls knows names and groups, but no arguments.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...isolation import capabilities, paths, secrets, security
from ...records import Tmpfs, Volume
from ...spec import Spec
from ...spelling import flag_of
from . import isolation
from .quoting import unit_word
from .values import Lost, Values

PIDS_SINCE = 257
"""systemd's version with ``PrivatePIDs=``."""
JOINABLE = {"net": "NetworkNamespacePath", "ipc": "IPCNamespacePath"}
UNWANTED = "~@keyring io_uring_setup io_uring_enter io_uring_register"
"""What systemd lets services call, and sandbox does not."""
FAMILIES = "AF_UNIX AF_INET AF_INET6 AF_NETLINK"

Settings = Iterator[tuple[str, str] | Lost]


def scope(spec: Spec) -> Lost:
    """All of it in a line."""
    flags = ", ".join(map(flag_of, isolation.given(spec)))
    return Lost("A scope isolates nothing, neither network, processes and files nor capabilities and system calls: the "
                "command reaches what its caller does; a service (--unit-type service) has properties for most of it."
                + (f" Lost are {flags}." if flags else ""))


def service(values: Values, version: int, *, file: bool) -> Settings:
    """What a service can have of it.

    :param version: of systemd.
    :param file: for a unit file, where ``%`` stands for something.
    """
    yield from _network(values.spec, file)
    yield from _namespaces(values.spec, version, file)
    yield from _files(values, file)
    yield from _privileges(values.spec)
    yield from _calls(values.spec)


def _network(spec: Spec, file: bool) -> Settings:
    path = isolation.joined(spec, "net")
    if path:
        yield JOINABLE["net"], _path(path, file)
    elif spec.network != "host":
        yield "PrivateNetwork", "yes"
    if spec.network == "veth":
        yield Lost("--network veth: systemd makes no device for a service, which has lo alone here; a namespace that "
                   "has one can be joined by NetworkNamespacePath=.")
    if spec.publish:
        yield Lost("--publish: systemd passes ports on with a unit of its own, see systemd-socket-proxyd(8).")
    yield from (Lost(f"{flag}: systemd has no property for it; tc(8) does it.") for flag in isolation.shaped(spec))


def _namespaces(spec: Spec, version: int, file: bool) -> Settings:
    path = isolation.joined(spec, "ipc")
    if path:
        yield JOINABLE["ipc"], _path(path, file)
    elif spec.ipc == "private":
        yield "PrivateIPC", "yes"
    yield from (Lost(f"--ns {one.kind}: systemd cannot join {one.path}.") for one in spec.ns
                if one.kind not in JOINABLE)
    if spec.uts == "private":
        yield "ProtectHostname", "yes"
    if spec.hostname:
        yield Lost("--hostname: the service has the machine's name, which it cannot change.")
    if spec.pid == "private" and version >= PIDS_SINCE:
        yield "PrivatePIDs", "yes"
    elif spec.pid == "private":
        yield Lost(f"The command sees all processes, where sandbox gives it a PID namespace: PrivatePIDs= is of "
                   f"systemd {PIDS_SINCE}.")
    if spec.userns == "private":
        yield "PrivateUsers", "yes"
        yield Lost("PrivateUsers=: root and the service's user stay who they are outside, and capabilities of "
                   "--cap-add do not reach its other namespaces; sandbox maps all ids to unused ones.")
    if spec.cgroupns == "private":
        yield Lost("The command sees the host's cgroup paths, where sandbox gives it a cgroup namespace.")
    yield "ProtectControlGroups", "yes"


def _files(values: Values, file: bool) -> Settings:
    spec = values.spec
    if spec.rootfs:
        yield "RootDirectory", values.host.absolute(spec.rootfs).replace("%", "%%" if file else "%")
        yield "MountAPIVFS", "yes"
    if isolation.root_is_read_only(spec) or not spec.rootfs:
        yield "ProtectSystem", "strict"
        yield "ProtectHome", "tmpfs" if spec.protect_home == "tmpfs" else "read-only"
    if spec.overlay:
        yield Lost("--overlay: a service has none, and cannot write to its root here.")
    if spec.commit:
        yield Lost("--commit: a service has no layer that could be kept.")
    yield from _devices(values, file)
    yield "ProtectKernelTunables", "yes"
    yield "ProtectKernelLogs", "yes"
    prefix = "-+" if spec.rootfs else "-"
    hidden = (*paths.masked(values.host), *(path for path in secrets.masked(spec, values.host)
                                            if path not in secrets.HOMES))
    yield "InaccessiblePaths", " ".join(prefix + _path(path, file) for path in hidden)
    for one in isolation.empty(values):
        yield "TemporaryFileSystem", f"{_path(one.target, file)}:{_options(one)}"
    # A unit file's service starts in / unless it is told otherwise.
    starts = isolation.directory(values) if spec.cwd is not None or not file else ()
    for volume in (*starts, *isolation.shown(values)):
        yield ("BindReadOnlyPaths" if volume.read_only else "BindPaths"), _bind(volume, file)


def _devices(values: Values, file: bool) -> Settings:
    found = isolation.devices(values)
    if not found:
        yield "PrivateDevices", "yes"
        return
    yield "DevicePolicy", "closed"
    yield from (("DeviceAllow", f"{_path(one.node.path, file)} {one.access}") for one in found)
    yield from (("BindPaths", _bind(Volume(one.node.path, one.target), file)) for one in found
                if one.target != one.node.path)
    yield Lost("--device: PrivateDevices= would hide it, so that the service sees the names of all devices, and may "
               "open no other.")


def _options(one: Tmpfs) -> str:
    """Half of the RAM is the kernel's own default, a tenth is systemd's."""
    words = [*isolation.tmpfs_options(one), *(["size=50%"] if one.size is None else [])]
    return ",".join(words)


def _privileges(spec: Spec) -> Settings:
    names = " ".join(capabilities.wanted(spec))
    yield "NoNewPrivileges", "yes"
    yield "CapabilityBoundingSet", names
    yield "AmbientCapabilities", names
    for value in security.values(spec, "apparmor"):
        yield "AppArmorProfile", value
    if whole := security.context(spec):
        yield "SELinuxContext", whole
    elif security.has_label(spec):
        yield Lost("--security-opt label: SELinuxContext= wants a whole context, from user: to level:.")
    if not isolation.has_core_limit(spec):
        yield "LimitCORE", "0"


def _calls(spec: Spec) -> Settings:
    source = security.profile(spec)
    if source == security.UNCONFINED:
        return
    yield "SystemCallArchitectures", "native"
    yield "SystemCallFilter", "@system-service"
    yield "SystemCallFilter", UNWANTED
    yield "SystemCallErrorNumber", "EPERM"
    if "CAP_SYS_ADMIN" not in capabilities.wanted(spec):
        yield "RestrictNamespaces", "yes"
    yield "RestrictAddressFamilies", FAMILIES + (" AF_PACKET" if "CAP_NET_RAW" in capabilities.wanted(spec) else "")
    which = "The default" if source == security.DEFAULT else f"--security-opt seccomp={source}: this"
    yield Lost(f"{which} filter of system calls is in a format that systemd does not read; @system-service is near to "
               "the default one, not the same.")


def _bind(one: Volume, file: bool) -> str:
    return f"{_path(one.source, file)}:{_path(one.target, file)}:rbind"


def _path(path: str, file: bool) -> str:
    """A colon ends a path unless it is quoted."""
    word = unit_word(path)
    if ":" in path and not word.startswith('"'):
        word = f'"{word}"'
    return word if file else word.replace("%%", "%")
