"""Isolation in the words of ``docker run`` and ``podman run``, which are nearly the same.

Sources: docker-run(1), podman-run(1), and moby's ``oci_linux.go``: paths are masked there as they are here.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...isolation import capabilities, network, security
from ...records import Volume
from ...spec import Spec
from . import isolation
from .quoting import shell_word
from .values import Lost, Values

JOINABLE = {"net": "network", "ipc": "ipc", "uts": "uts", "cgroup": "cgroupns"}
"""podman's flag for each namespace that it can join by a file; docker joins those of its containers alone."""

Pieces = Iterator[str | Lost]


def docker(values: Values) -> Pieces:
    """Flags of ``docker run``."""
    yield from _namespaces(values.spec, "docker")
    yield from _privileges(values, "docker")
    yield from _files(values, "docker")


def podman(values: Values) -> Pieces:
    """Flags of ``podman run``."""
    yield from _namespaces(values.spec, "podman")
    yield from _privileges(values, "podman")
    yield from _files(values, "podman")


def _namespaces(spec: Spec, tool: str) -> Pieces:
    own = {"net": {"none": "none", "host": "host", "veth": "bridge"}[spec.network], "ipc": spec.ipc,
           "cgroup": spec.cgroupns, "uts": spec.uts, "pid": spec.pid, "userns": spec.userns}
    joined = {one.kind: one.path for one in spec.ns if tool == "podman" and one.kind in JOINABLE}
    words = own | {kind: f"ns:{path}" for kind, path in joined.items()}
    for kind, word in words.items():
        if kind in ("net", "ipc", "cgroup") or word != "private":  # the others are private if nothing is said
            yield f"--{JOINABLE.get(kind, kind)}={shell_word(word)}"
    yield from (Lost(f"--ns {one.kind}: {tool} cannot join {one.path}; the namespace is a new one there.")
                for one in spec.ns if one.kind not in joined)
    yield from (f"--publish={network.show_publish(one)}" for one in spec.publish)
    yield from (Lost(f"{flag}: {tool} has no flag for it; tc(8) on the container's device does it.")
                for flag in isolation.shaped(spec))
    if spec.hostname:
        yield f"--hostname={spec.hostname}"
    elif spec.uts == "private" and "uts" not in joined:
        yield Lost("The host name inside is the container's id; sandbox keeps the machine's name.")
    if spec.userns == "private":
        yield Lost("Ids inside are the same outside, so that a capability given to root is one of the host's root; "
                   + ("--userns=auto or --uidmap change that, and whose the files are." if tool == "podman" else
                      "only dockerd's userns-remap changes that."))


def _privileges(values: Values, tool: str) -> Pieces:
    spec, names = values.spec, capabilities.wanted(values.spec)
    everything = len(names) == len(capabilities.NAMES)
    if not everything:
        yield "--cap-drop=ALL"
    yield from (["--cap-add=ALL"] if everything else (f"--cap-add={name.removeprefix('CAP_')}" for name in names))
    if names and tool == "docker" and spec.user is not None and spec.user.uid:
        yield Lost("--cap-add: docker gives a capability to root alone, or by a program's file; sandbox to any user.")
    yield "--security-opt=no-new-privileges"
    file = isolation.profile(values)
    yield f"--security-opt={shell_word(f'seccomp={file or security.UNCONFINED}')}"
    for key in ("apparmor", "label"):
        yield from (f"--security-opt={shell_word(f'{key}={value}')}" for value in security.values(spec, key))
    if not isolation.has_core_limit(spec):
        yield "--ulimit=core=0:0"


def _files(values: Values, tool: str) -> Pieces:
    spec = values.spec
    if isolation.root_is_read_only(spec):
        yield "--read-only"
    for one in isolation.empty(values):
        options = [*isolation.tmpfs_options(one), *(["notmpcopyup"] if tool == "podman" else [])]
        yield f"--tmpfs={shell_word(one.target)}:{','.join(options)}"
    yield from (f"--mount={shell_word(_bind(one))}" for one in isolation.shown(values))
    yield from (f"--device={shell_word(f'{one.node.path}:{one.target}:{one.access}')}"
                for one in isolation.devices(values))
    yield from isolation.of_host(spec)
    if spec.commit:
        yield Lost(f"--commit: {tool} keeps what is written in a layer of its own until the container is removed: "
                   f"leave --rm out, and see `{tool} diff` and `{tool} cp`.")
    elif spec.overlay:
        yield Lost(f"--overlay: what is written is in a layer on {tool}'s disk, not in memory, and goes with --rm.")


def _bind(one: Volume) -> str:
    """One line of comma-separated values (RFC 4180)."""
    words = ["type=bind", f"source={one.source}", f"target={one.target}", *(["readonly"] if one.read_only else [])]
    return ",".join('"' + word.replace('"', '""') + '"' if {",", '"', "\n"} & set(word) else word for word in words)
