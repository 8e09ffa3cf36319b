"""Isolation in the words of a Pod: its ``securityContext``, the namespaces of the host, and volumes.

Sources: the API reference of Pod v1, and the Pod security standards, whose level "restricted" this comes near to.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterator
from typing import Any

from ...isolation import capabilities, security
from ...records import Publish
from . import isolation
from .values import Lost, Values, as_utf8

Entry = tuple[str, Any]
HOSTS = {"network": "hostNetwork", "pid": "hostPID", "ipc": "hostIPC"}
"""The field of a Pod that shares a namespace of the node."""


def entries(values: Values) -> Iterator[Entry | Lost]:
    """Keys below ``spec``, those of the container begin with ``container.``."""
    yield from _namespaces(values)
    yield from _network(values)
    yield from _privileges(values)
    yield from _files(values)


def _namespaces(values: Values) -> Iterator[Entry | Lost]:
    spec = values.spec
    shared = [name for name in HOSTS if getattr(spec, name) == "host"]
    yield from ((HOSTS[name], True) for name in shared)
    if spec.userns == "private" and shared:
        yield Lost("hostUsers: a Pod that shares a namespace of the node can have no user namespace.")
    elif spec.userns == "private":
        yield "hostUsers", False
        yield Lost("hostUsers: without user namespaces (before Kubernetes 1.33, mostly) ids inside are the node's.")
    if spec.hostname:
        yield "hostname", spec.hostname
    yield from (Lost(f"--{name} host: a Pod always has its own, unless it has the node's network (uts)."
                     if name == "uts" else f"--{name} host: it is up to the runtime.")
                for name in ("uts", "cgroupns") if getattr(spec, name) == "host")
    yield from (Lost(f"--ns {one.kind}: a Pod joins no namespace by its file.") for one in spec.ns)


def _network(values: Values) -> Iterator[Entry | Lost]:
    spec = values.spec
    if spec.network == "none":
        yield Lost("A Pod has the cluster's network, where sandbox has lo alone: a NetworkPolicy without rules "
                   "closes it.")
    elif spec.network == "veth":
        yield Lost("--network veth: it is the cluster's network, of which the NetworkPolicy says who may be reached.")
    if spec.publish:
        yield "container.ports", [_port(one) for one in spec.publish]
    if spec.net_rate:
        yield Lost("--net-rate: only the annotations kubernetes.io/ingress-bandwidth and egress-bandwidth, where the "
                   "network has the bandwidth plugin.")
    if spec.net_delay:
        yield Lost("--net-delay: a Pod has nothing for it.")


def _port(one: Publish) -> dict[str, Any]:
    address = {"hostIP": one.address} if one.address else {}
    return {"containerPort": one.port, "hostPort": one.host_port, "protocol": one.protocol.upper(), **address}


def _privileges(values: Values) -> Iterator[Entry | Lost]:
    spec, names = values.spec, capabilities.wanted(values.spec)
    yield "container.securityContext.allowPrivilegeEscalation", False
    sets = {"drop": ["ALL"], **({"add": [name.removeprefix("CAP_") for name in names]} if names else {})}
    yield "container.securityContext.capabilities", sets
    if names and spec.user is not None and spec.user.uid:
        yield Lost("--cap-add: only root has them in a Pod, or a program's file gives them.")
    yield from _profile(values)
    for value in security.values(spec, "apparmor"):
        known = value != security.UNCONFINED
        yield "container.securityContext.appArmorProfile", (
            {"type": "Localhost", "localhostProfile": value} if known else {"type": "Unconfined"})
    parts = [value.partition(":") for value in security.values(spec, "label") if value != "disable"]
    if parts:
        yield "container.securityContext.seLinuxOptions", {key: part for key, _, part in parts}
    if not isolation.has_core_limit(spec):
        yield Lost("Core dumps are as the runtime has them; sandbox has none.")


def _profile(values: Values) -> Iterator[Entry | Lost]:
    """The kubelet reads profiles from a directory of the node's."""
    file, key = isolation.profile(values), "container.securityContext.seccompProfile"
    if not file:
        yield key, {"type": "Unconfined"}
    elif security.profile(values.spec) == security.DEFAULT:
        yield key, {"type": "RuntimeDefault"}
        yield Lost("seccompProfile: the runtime's own filter is wider than sandbox's, which Localhost could name.")
    else:
        name = os.path.basename(as_utf8(file))
        yield key, {"type": "Localhost", "localhostProfile": name}
        yield Lost(f"--security-opt seccomp: copy the file to /var/lib/kubelet/seccomp/{name} on each node.")


def _files(values: Values) -> Iterator[Entry | Lost]:
    spec = values.spec
    yield "container.securityContext.readOnlyRootFilesystem", isolation.root_is_read_only(spec)
    # Else the token of an account of the cluster lies in every container, and variables of its services.
    yield "automountServiceAccountToken", False
    yield "enableServiceLinks", False
    yield from isolation.of_host(spec)
    if spec.rootfs:
        yield Lost("--rootfs: make an image of the directory, and name it for IMAGE.")
    if spec.commit:
        yield Lost("--commit: what is written goes with the Pod; a volume keeps it.")
    elif spec.overlay:
        yield Lost("--overlay: what is written is on the node's disk (ephemeral-storage), not in memory.")
    sources: list[dict[str, Any]] = []
    targets: list[dict[str, Any]] = []
    for one in isolation.empty(values):
        size = {"sizeLimit": str(one.size)} if one.size is not None else {}
        sources.append({"name": f"v{len(sources)}", "emptyDir": {"medium": "Memory", **size}})
        targets.append({"name": sources[-1]["name"], "mountPath": as_utf8(one.target),
                        **({"readOnly": True} if one.read_only else {})})
    for volume in isolation.shown(values):
        sources.append({"name": f"v{len(sources)}", "hostPath": {"path": as_utf8(volume.source)}})
        targets.append({"name": sources[-1]["name"], "mountPath": as_utf8(volume.target),
                        **({"readOnly": True} if volume.read_only else {})})
    if spec.device:
        yield Lost("--device: a Pod gets devices from a device plugin of the node, as a resource of its name.")
    if spec.gpu:
        yield Lost("--gpu: it is a resource of the vendor's device plugin, as nvidia.com/gpu.")
    if sources:
        yield "container.volumeMounts", targets
        yield "volumes", sources
    if spec.volume:
        yield Lost("--volume: hostPath is a path of whichever node the Pod is on.")
    if any(one.mode != 0o777 or not one.executable for one in spec.tmpfs):
        yield Lost("--tmpfs: an emptyDir has mode 777, and programs in it may be run.")
