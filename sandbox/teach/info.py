"""What ``sandbox info`` prints: a Host in the manner of ``docker info``."""

from __future__ import annotations

from ..drivers import unit
from ..facts import Hierarchy
from ..host import Host

UNKNOWN = "unknown"


def text(host: Host, driver_name: str, reason: str) -> str:
    """Lines of ``Key: value``, what belongs to a key indented below it. Unknown is printed as ``unknown``.

    :param driver_name: the driver that is used by default here.
    :param reason: why it is.
    """
    lines = [f" Cgroup Driver: {driver_name}", f"  Reason: {reason or UNKNOWN}", *_cgroups(host, driver_name),
             *_machine(host), *_security(host)]
    return "\n".join(lines) + "\n"


def _cgroups(host: Host, driver_name: str) -> list[str]:
    lines = [f" Cgroup Version: {_version(host)}", f" Cgroup Mode: {host.cgroup_mode}",
             " Controllers:" if host.hierarchies else " Controllers: none"]
    for tree, used in zip(host.hierarchies, _used(host, driver_name), strict=True):
        lines += _tree(tree, used)
    return [*lines, f" Systemd: {_systemd(host)}", *_docker(host)]


def _version(host: Host) -> str:
    return {"v2": "2", "v1": "1", "hybrid": "1 (and 2 for what no v1 tree has)"}.get(host.cgroup_mode, "none")


def _used(host: Host, driver_name: str) -> tuple[Hierarchy, ...]:
    """Return the cgroup trees, each with the parent cgroup that the driver uses in it. systemd makes units in a slice,
    whatever cgroup the launcher may write to."""
    if driver_name == "none":
        return tuple(tree if tree.parent is None else tree._replace(parent=None, reason="the driver makes no cgroup")
                     for tree in host.hierarchies)
    if driver_name == "systemd" or (driver_name == "delegated" and not host.manager.delegated):
        return unit.placed(host, unit.slice_cgroup(unit.default_slice(user=host.manager.user), host)).hierarchies
    return host.hierarchies


def _tree(tree: Hierarchy, used: Hierarchy) -> list[str]:
    """Return the lines about one cgroup tree.

    :param tree: its ``parent`` is where the cgroupfs driver would make cgroups.
    :param used: the same tree; its ``parent`` is where the driver in use makes them.
    """
    lines = [f"  {', '.join(tree.controllers) or '(none)'}:", f"   Version: {tree.version}", f"   Mount: {tree.mount}",
             f"   Own Cgroup: {tree.own}"]
    if used.parent is None:
        lines += ["   Usable: no", f"   Reason: {used.reason or UNKNOWN}"]
    else:
        lines += [f"   New Cgroups In: {used.parent}", f"   Usable: {_usable(used, is_systemds=used != tree)}"]
        lines += [f"   Reason: {used.reason}"] if used.reason else []
    return [*lines, f"   With --driver cgroupfs: {tree.parent}"] if tree.parent not in (None, used.parent) else lines


def _usable(tree: Hierarchy, *, is_systemds: bool) -> str:
    missing = ", ".join(name for name in tree.controllers if name not in tree.usable)
    if not missing:
        return "yes"
    why = "systemd does not give its units" if is_systemds else f"not delegated to {tree.parent}"
    return f"{', '.join(tree.usable) or 'none'} ({why}: {missing})"


def _systemd(host: Host) -> str:
    if not host.systemd_running:
        return "not running"
    manager = host.manager
    if manager.problem:
        return f"{host.systemd_version or 'running'}, cannot be asked: {manager.problem}"
    whose = "of this user" if manager.user else "of the system"
    given = f"; units can be given {', '.join(manager.controllers)}" if manager.controllers else ""
    return f"{manager.version}, the manager {whose}{given}"


def _docker(host: Host) -> list[str]:
    if not host.docker.client:
        return []
    runtime = f"{host.docker.runtime} {host.docker.runtime_version}".strip()
    return [f" Docker: {host.docker.client}, OCI runtime: {runtime or f'{UNKNOWN}, the daemon does not answer'}"]


def _machine(host: Host) -> list[str]:
    return [f" Namespaces: {', '.join(host.namespaces) or UNKNOWN}",
            f" User Namespaces Allowed: {_yes(host.userns)}",
            f" Kernel Version: {host.kernel}",
            f" Operating System: {host.distribution or UNKNOWN}",
            f" Architecture: {host.machine}",
            f" CPUs: {host.cpus}",
            f"  Allowed: {host.cpuset_cpus or UNKNOWN}",
            f"  Memory Nodes: {host.cpuset_mems or UNKNOWN}",
            f" Total Memory: {_size(host.memory_total) if host.memory_total else UNKNOWN}",
            f" Swap: {_size(host.swap_total) if host.swap_total else 'none'}",
            f" Pressure Stall Information: {_yes(host.psi)}"]


def _security(host: Host) -> list[str]:
    return [f" Security Modules: {_modules(host.lsm)}",
            *_selinux(host), *_apparmor(host),
            f" Landlock ABI: {_abi(host.landlock_abi)}",
            f" Seccomp: {', '.join(host.seccomp) or UNKNOWN}"]


def _selinux(host: Host) -> list[str]:
    binds = {"permissive": " (it only logs what it would forbid)"}.get(host.selinux or "", "")
    lines = [f" SELinux: {host.selinux or UNKNOWN}{binds}"]
    return [*lines, f"  Own Context: {host.selinux_context}"] if host.selinux_context else lines


def _apparmor(host: Host) -> list[str]:
    lines = [f" AppArmor: {UNKNOWN if host.apparmor is None else _yes(host.apparmor)}"]
    if host.apparmor_profile:
        lines.append(f"  Own Profile: {host.apparmor_profile}")
    return [*lines, f"  Profiles: {', '.join(host.apparmor_profiles)}"] if host.apparmor_profiles else lines


def _modules(names: tuple[str, ...]) -> str:
    if not names:
        return UNKNOWN
    # The kernel's own list always has capability in it; without it, the list was pieced together.
    complete = "capability" in names
    return ", ".join(names) + ("" if complete else " (securityfs is not mounted: there may be more)")


def _abi(abi: int | None) -> str:
    if abi is None:
        return UNKNOWN
    return str(abi) if abi else "off"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _size(count: int) -> str:
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.4g} {unit}"
