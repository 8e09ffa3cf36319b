"""What the Spec says of isolation, its defaults included, in terms that other tools have words for.

Each tool's own words are in ``isolation_flags``, ``isolation_unit``, ``isolation_oci`` and ``isolation_pod``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from ...isolation import filesystem, landlock, nodes, paths, seccomp, security, volumes
from ...records import Tmpfs, Volume
from ...spec import Spec
from ...spelling import flag_of
from .values import Lost, Values

ELSEWHERE = frozenset((
    "argv", "limits", "env", "cwd", "user", "tty", "driver", "name", "cgroup_parent", "systemd_user", "unit_type",
    "unit", "slice", "property", "best_effort", "stop_signal", "stop_timeout",
    "oom_score_adj", "nice", "ionice"))
"""Fields of the Spec that are no matter of isolation."""
TRANSLATED = frozenset((
    "network", "publish", "net_rate", "net_delay", "pid", "ipc", "uts", "userns", "cgroupns", "ns", "hostname",
    "rootfs", "read_only", "overlay", "commit", "volume", "tmpfs", "cap_add", "cap_drop", "security_opt",
    "device", "gpu", "protect_home", "unmask"))
"""Those that the tools are told of, or are said to lack."""


def given(spec: Spec) -> tuple[str, ...]:
    """The fields about isolation that are not as they are without any flag."""
    plain = Spec(argv=spec.argv)
    return tuple(one.name for one in fields(Spec)
                 if one.name not in ELSEWHERE and getattr(spec, one.name) != getattr(plain, one.name))


def unknown(values: Values, tool: str) -> Iterator[Lost]:
    """Whatever no tool has a word for is said to be missing."""
    spec = values.spec
    yield from (Lost(f"{flag_of(name)}: {tool} is not told of it.") for name in given(spec) if name not in TRANSLATED)
    if landlock.scopes(values.plan) and "host" in (spec.network, spec.pid):  # private namespaces do the same
        yield Lost(f"Landlock: {tool} has nothing to keep the command from the host's abstract sockets and processes, "
                   "which --network or --pid share.")


def of_host(spec: Spec) -> Iterator[Lost]:
    """What is about the host's files, for tools that start from an image."""
    yield from (Lost(f"{flag_of(name)}: it is about homes and secrets of the host, and an image has none of them.")
                for name in given(spec) if name in ("protect_home", "unmask"))


def joined(spec: Spec, kind: str) -> str:
    """The file of a namespace that is joined; empty when it is not."""
    return next((one.path for one in spec.ns if one.kind == kind), "")


def root_is_read_only(spec: Spec) -> bool:
    """Nothing in the root file system itself can be written to."""
    return not spec.overlay and (spec.read_only or not spec.rootfs)


def empty(values: Values) -> tuple[Tmpfs, ...]:
    """Empty file systems in memory: those that were asked for, and those in place of the host's own directories."""
    spec = values.spec
    taken = {*(one.target for one in spec.tmpfs), *(one.target for one in spec.volume)}
    private = () if spec.rootfs else tuple(
        Tmpfs(path, mode=mode, executable=True) for path, mode in paths.PRIVATE.items()
        if path in values.host.present and path not in taken)
    return (*private, *spec.tmpfs)


def tmpfs_options(one: Tmpfs) -> list[str]:
    """As mount(8) has them."""
    return ["ro" if one.read_only else "rw", "nosuid", "nodev", "exec" if one.executable else "noexec",
            f"mode={one.mode:o}", *([] if one.size is None else [f"size={one.size}"])]


def shown(values: Values) -> tuple[Volume, ...]:
    """Files and directories of the host that are asked for, by absolute paths."""
    return tuple(one._replace(source=values.host.absolute(one.source)) for one in values.spec.volume)


def directory(values: Values) -> tuple[Volume, ...]:
    """The working directory, where something empty would hide it."""
    spec = values.spec
    path = filesystem.working_directory(spec, values.host)
    hidden = any(paths.is_below(path, one) for one in volumes.WRITABLE)
    return () if spec.rootfs or not hidden or volumes.covers(spec, path) else (Volume(path, path, read_only=True),)


def devices(values: Values) -> tuple[nodes.Given, ...]:
    """Those that are given, the GPUs that this machine has among them."""
    return nodes.given(values.spec, values.host)


def profile(values: Values) -> str:
    """The file of the filter of system calls; empty when there is to be none."""
    source = security.profile(values.spec)
    if source == security.UNCONFINED:
        return ""
    return seccomp.shipped(source) if source in seccomp.SHIPPED else values.host.absolute(source)


def has_core_limit(spec: Spec) -> bool:
    """It was asked for; else there are no core dumps."""
    return any(item.name == "core" for item in spec.limits.ulimit)


def shaped(spec: Spec) -> Iterator[str]:
    """Flags of the rate and the delay of the network, which hardly any tool has."""
    yield from (flag_of(name) for name in ("net_rate", "net_delay") if getattr(spec, name))
