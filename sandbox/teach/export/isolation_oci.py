"""Isolation in the words of the OCI runtime specification: namespaces, mounts, privileges, the filter of system calls.

Source: config.md and config-linux.md of version 1.0.2, which has no time namespaces, and no mounts with other ids.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

from ...facts import Node
from ...isolation import capabilities, namespaces, paths, rules, seccomp, secrets, security
from ...isolation.devices import TTY_GROUP
from ...records import Tmpfs
from . import isolation
from .values import Lost, Values, as_utf8

KINDS = {"net": "network", "ipc": "ipc", "uts": "uts", "cgroup": "cgroup"}
"""The specification's names of the namespaces that may be joined."""
DIRECTORIES = ("/bin", "/etc", "/home", "/lib", "/opt", "/root", "/sbin", "/srv", "/usr", "/var")
"""Of the machine's root; all at once cannot be done: runtimes do not pivot from ``/`` to ``/``."""
SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")
INERT = ["nosuid", "nodev"]
KERNEL = [*INERT, "noexec"]
"""Options of the kernel's own file systems."""

Mount = dict[str, Any]
Entry = tuple[str, Any]


def process(values: Values) -> Iterator[Entry | Lost]:
    """Keys of ``process``."""
    spec, names = values.spec, capabilities.wanted(values.spec)
    yield "capabilities", {name: list(names) for name in SETS}
    yield "noNewPrivileges", True
    for value in security.values(spec, "apparmor"):
        yield "apparmorProfile", value
    if whole := security.context(spec):
        yield "selinuxLabel", whole
    elif security.has_label(spec):
        yield Lost("--security-opt label: process.selinuxLabel wants a whole context, from user: to level:.")


def root(values: Values) -> dict[str, Any]:
    """The root file system."""
    spec = values.spec
    return {"path": as_utf8(values.host.absolute(spec.rootfs)) if spec.rootfs else "rootfs",
            "readonly": isolation.root_is_read_only(spec) or not spec.rootfs}


def linux(values: Values) -> Iterator[Entry]:
    """Keys of ``linux``."""
    spec, host = values.spec, values.host
    yield "namespaces", list(_namespaces(values))
    if has_own_users(values):
        shifted = namespaces.is_shifted(spec, host)
        pairs = ((0, namespaces.BASE, namespaces.RANGE),) * 2 if shifted else ((host.uid, host.uid, 1),
                                                                              (host.gid, host.gid, 1))
        for key, (inside, outside, size) in zip(("uidMappings", "gidMappings"), pairs, strict=True):
            yield key, [{"containerID": inside, "hostID": outside, "size": size}]
    if found := isolation.devices(values):
        yield "devices", [{"path": as_utf8(one.target), **_number(one.node), "fileMode": one.node.mode,
                           "uid": one.node.uid, "gid": one.node.gid} for one in found]
    yield "maskedPaths", [*paths.masked(host), *map(as_utf8, secrets.masked(spec, host))]
    yield "readonlyPaths", list(paths.READ_ONLY)
    if isolation.profile(values):
        yield "seccomp", _seccomp(values)


def device_rules(values: Values) -> list[dict[str, Any]]:
    """The device policy; there is none unless devices are given. Runtimes add what each container has."""
    found = isolation.devices(values)
    given = [{"allow": True, **_number(one.node), "access": one.access} for one in found]
    return [{"allow": not found, "access": "rwm"}, *given]


def _number(node: Node) -> dict[str, Any]:
    return {"type": node.kind, "major": node.major, "minor": node.minor}


def has_own_users(values: Values) -> bool:
    """There is a user namespace."""
    return values.spec.userns == "private" and (values.host.userns or values.host.uid != 0)


def _namespaces(values: Values) -> Iterator[dict[str, str]]:
    spec = values.spec
    yield {"type": "mount"}
    if spec.pid == "private":
        yield {"type": "pid"}
    if has_own_users(values):
        yield {"type": "user"}
    shared = {"net": spec.network == "host", "ipc": spec.ipc == "host", "uts": spec.uts == "host",
              "cgroup": spec.cgroupns == "host"}
    for kind, word in KINDS.items():
        path = isolation.joined(spec, kind)
        if path:
            yield {"type": word, "path": as_utf8(path)}
        elif not shared[kind]:
            yield {"type": word}


# -- files

def mounts(values: Values) -> Iterator[Mount]:
    """The machine's directories, the kernel's file systems, and what was asked for."""
    spec = values.spec
    if not spec.rootfs:
        yield from (_bind(path, path, read_only=True) for path in _system(values))
    yield from _kernel(values)
    extra: list[tuple[str, Mount]] = [(one.target, _tmpfs(one)) for one in isolation.empty(values)]
    extra += [(one.target, _bind(one.source, one.target, read_only=one.read_only))
              for one in (*(isolation.directory(values) if spec.cwd is not None else ()), *isolation.shown(values))]
    yield from (made for _, made in sorted(extra, key=lambda pair: pair[0].count("/")))


def _system(values: Values) -> Iterator[str]:
    """With the directories of the command and where it works."""
    spec = values.spec
    used = [f"/{path.split('/')[1]}" for path in (spec.argv[0], spec.cwd or "") if path.startswith("/")]
    system = [*DIRECTORIES, *(["/lib64"] if values.host.machine == "x86_64" else []), *used]
    anew = {"/", "/proc", "/sys", "/dev", *paths.PRIVATE}
    yield from (path for path in dict.fromkeys(system) if path not in anew)


def _kernel(values: Values) -> Iterator[Mount]:
    """Of namespaces that are shared, the machine's own: a new user namespace may not mount those anew."""
    spec, users = values.spec, has_own_users(values)
    if spec.pid == "host" and users:
        yield _bind("/proc", "/proc", *KERNEL, read_only=True)
    else:
        yield _mount("proc", "/proc", *KERNEL)
    group = TTY_GROUP if namespaces.is_shifted(spec, values.host) or not users else values.host.gid
    # Not the machine's own: runtimes make links and nodes in it.
    yield _mount("tmpfs", "/dev", "nosuid", "strictatime", "mode=755", "size=65536k")
    yield _mount("devpts", "/dev/pts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", f"gid={group}")
    if spec.ipc == "host":
        yield _bind("/dev/shm", "/dev/shm", *KERNEL, read_only=False)
    else:
        yield _mount("tmpfs", "/dev/shm", *KERNEL, "mode=1777")
    if spec.ipc == "private" and not isolation.joined(spec, "ipc"):
        yield _mount("mqueue", "/dev/mqueue", *KERNEL)
    if users and (spec.network == "host" or isolation.joined(spec, "net")):
        yield _bind("/sys", "/sys", *KERNEL, read_only=True)
        return
    yield _mount("sysfs", "/sys", *KERNEL, "ro")
    if values.version == 2:
        yield _mount("cgroup", "/sys/fs/cgroup", *KERNEL, "ro")


def _mount(kind: str, target: str, *options: str) -> Mount:
    return {"destination": target, "type": kind, "source": kind, "options": list(options)}


def _tmpfs(one: Tmpfs) -> Mount:
    return _mount("tmpfs", as_utf8(one.target), *isolation.tmpfs_options(one))


def _bind(source: str, target: str, *options: str, read_only: bool) -> Mount:
    words = ["rbind", *(options or INERT), "ro" if read_only else "rw"]
    return {"destination": as_utf8(target), "type": "bind", "source": as_utf8(source), "options": words}


# -- system calls

def _seccomp(values: Values) -> dict[str, Any]:
    """The profile, with only those rules whose conditions hold on the machine."""
    source, host = security.profile(values.spec), values.host
    machine = rules.Machine(capabilities.wanted(values.spec), host.kernel, host.machine)
    settled = rules.settle(seccomp.profile(isolation.profile(values)), source, machine)
    groups: dict[tuple[int, tuple[rules.Comparison, ...]], list[str]] = {}
    for rule in settled.rules:
        groups.setdefault((rule.action, rule.comparisons), []).append(rule.name)
    calls = [{"names": names, **_action(action, "action", "errnoRet"),
              **({"args": [_argument(one) for one in comparisons]} if comparisons else {})}
             for (action, comparisons), names in groups.items()]
    return {**_action(settled.default, "defaultAction", "defaultErrnoRet"), "syscalls": calls}


def _action(action: int, key: str, number: str) -> dict[str, Any]:
    """EPERM is what refusing means without a number."""
    for base in (rules.ERRNO, rules.TRACE):
        if action & 0xFFFF_0000 == base:
            name = {rules.ERRNO: "SCMP_ACT_ERRNO", rules.TRACE: "SCMP_ACT_TRACE"}[base]
            value = action & 0xFFFF
            return {key: name, **({number: value} if value != errno.EPERM else {})}
    return {key: next(name for name, value in rules.ACTIONS.items() if value == action)}


def _argument(one: rules.Comparison) -> dict[str, Any]:
    return {"index": one.argument, "op": rules.OPERATORS[one.operator - 1], "value": one.value,
            **({"valueTwo": one.value_two} if one.value_two or "MASKED" in rules.OPERATORS[one.operator - 1] else {})}


# -- what is lost

def lost(values: Values) -> Iterator[str]:
    """A sentence each."""
    spec = values.spec
    if has_own_users(values):
        outside = namespaces.BASE if namespaces.is_shifted(spec, values.host) else values.host.uid
        whose, place = ("--rootfs", "it") if spec.rootfs else ("Ids", f"the directory rootfs (chown {outside} rootfs)")
        yield (f"{whose}: root inside is {outside} outside, has to be able to make places for mounts in {place}, and "
               "files are nobody's, where sandbox maps owners too.")
    if spec.network == "veth":
        yield ("--network veth: the specification makes no devices: there is lo alone; a namespace that has one goes "
               "into linux.namespaces with its path.")
    if spec.publish:
        yield "--publish: the specification knows no ports."
    yield from (f"{flag}: the specification knows nothing of it; tc(8) does it." for flag in isolation.shaped(spec))
    yield from (f"--ns {one.kind}: runtimes of version 1.0.2 cannot join it." for one in spec.ns
                if one.kind not in KINDS)
    if spec.overlay:
        yield "--overlay: mount one and name it in root.path; here the root is read-only."
    if spec.commit:
        yield "--commit: it is the upperdir of that overlay."
    if not spec.rootfs:
        yield ("The bundle needs an empty directory rootfs; in it the machine's own directories appear, those in "
               "mounts: runtimes refuse / itself as the root.")
