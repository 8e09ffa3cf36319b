"""The run as a Pod manifest for Kubernetes.

Sources: the API reference of Pod v1; kubelet's ``helpers_linux.go``: shares are thousandths of a CPU times 1024, at
least 2, and on cgroup v2 the node's runtime, which is not known here, makes a weight of them. A Pod knows little:
limits of CPU, memory and huge pages, and requests, which place it on a node and only then become weights.
"""

from __future__ import annotations

import json
import math
import re
import signal
from collections.abc import Iterator
from typing import Any

from ...drivers.cgroupfs import PREFIX
from ...knobs import shares_from_weight
from ...records import UNLIMITED
from ...spec import Spec
from ...units import show_bytes
from ...wishes import DEFAULT_PERIOD, Wish
from . import isolation_pod, runtimes
from .values import Lost, Values, as_utf8, environment, file_text, flag, mangled, sort

TOLD = ("cpus", "cpu_weight", "memory", "memory_low", "oom_group", "hugetlb")
"""Limits that a Pod has a place for."""
NODE_SETTINGS = {"pids_limit": "the number of tasks is up to the kubelet's podPidsLimit",
                 "swap_max": "swap is up to the kubelet's memorySwap.swapBehavior",
                 "memory_high": "only the MemoryQoS feature sets memory.high, from limit and request",
                 "memory_min": "only the MemoryQoS feature sets memory.min, from the request",
                 "cpuset_cpus": "the kubelet's static CPU manager chooses the CPUs",
                 "cpuset_mems": "the kubelet's memory manager chooses the nodes"}

Entry = tuple[str, Any]
"""A key such as ``container.resources.limits.cpu``, and its value."""


def pod(values: Values) -> tuple[str, list[str]]:
    """A Pod that runs the command once; the word ``IMAGE`` stands for the image."""
    entries, lost = sort(_entries(values))
    tree: dict[str, Any] = {}
    for key, value in entries:
        *way, name = key.split(".")
        place = tree
        for step in way:
            place = place.setdefault(step, {})
        place[name] = value
    container = {"name": "main", "image": "IMAGE", **tree.pop("container")}
    whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": _name(values)},
             "spec": {"restartPolicy": "Never", **tree, "containers": [container]}}
    return "\n".join(_yaml(whole)) + "\n", lost


def _entries(values: Values) -> Iterator[Entry | Lost]:
    spec = values.spec
    yield "container.command", [_literal(word) for word in spec.argv]
    yield from _environment(spec)
    if spec.cwd is not None:
        yield "container.workingDir", as_utf8(spec.cwd)
    yield "container.stdin", True
    if spec.tty:
        yield "container.tty", True
    yield from _limits(values)
    yield from _times(spec)
    if spec.user is not None:
        yield "securityContext.runAsUser", spec.user.uid
        yield "securityContext.runAsGroup", spec.user.gid
        if groups := [group for group in spec.user.groups if group != spec.user.gid]:
            yield "securityContext.supplementalGroups", groups
    if spec.limits.ulimit:
        yield Lost("--ulimit: a Pod cannot set resource limits of processes; they are the runtime's defaults.")
    yield from isolation_pod.entries(values)
    yield from mangled(spec, "A manifest")
    yield Lost("The command runs in an image's file system, on another machine: put a name for IMAGE.")
    yield Lost("The command is pid 1 there: signals it has no handler for are ignored.")


def _environment(spec: Spec) -> Iterator[Entry | Lost]:
    shown, hidden = environment(spec)
    secret = {"name": f"{PREFIX}secrets"}
    yield "container.env", [*({"name": name, "value": _literal(value)} for name, value in shown),
                            *({"name": name, "valueFrom": {"secretKeyRef": secret | {"key": name}}} for name in hidden)]
    yield from (Lost(f"The value of {name} is not printed: put it into the Secret {secret['name']} (kubectl create "
                     f"secret generic {secret['name']} --from-literal={name}=...).") for name in hidden)


def _limits(values: Values) -> Iterator[Entry | Lost]:
    for wish in values.all("cpus"):
        yield from _quota(wish)
    yield from _weight(values)
    for wish in values.all("memory"):
        if wish.value != UNLIMITED:
            yield "container.resources.limits.memory", str(wish.value)
    for wish in values.all("memory_low"):
        yield "container.resources.requests.memory", str(wish.value)
        yield Lost(f"{flag(wish)}: requests.memory places the Pod; only the MemoryQoS feature makes memory.low of it.")
    for wish in values.all("hugetlb"):
        if wish.value != UNLIMITED:
            yield f"container.resources.limits.hugepages-{show_bytes(_page_size(wish))}i", str(wish.value)
            yield Lost("--hugetlb: huge pages are reserved on the node, and need a request of CPU or memory beside.")
    yield Lost(f"{'--oom-group: o' if 'oom_group' in values.wishes else 'O'}n cgroup v2 the kubelet sets "
               "memory.oom.group by itself (singleProcessOOMKill: false): all processes of the container die together.")
    for wish in (wish for wishes in values.wishes.values() for wish in wishes):
        if wish.knob.field not in TOLD:
            why = NODE_SETTINGS.get(wish.knob.field, f"a Pod has no field for {file_text(wish)[0]}")
            yield Lost(f"{flag(wish)}: {why}.")
    for name in ("memory_swappiness", "cpu_time"):
        if getattr(values.spec.limits, name) is not None:
            yield Lost(f"--{name.replace('_', '-')}: a Pod has no such limit.")


def _quota(wish: Wish) -> Iterator[Entry | Lost]:
    quota, period = wish.value
    if quota != UNLIMITED:
        thousandths = max(-(-quota * 1000 // period), 1)
        yield "container.resources.limits.cpu", f"{thousandths}m"
        if thousandths * period != quota * 1000:
            yield Lost(f"{flag(wish)}: {quota} us of {period} us are rounded up to {thousandths} thousandths of a CPU.")
        if thousandths * DEFAULT_PERIOD < 1000 * 1000:
            yield Lost(f"{flag(wish)}: the kubelet's shortest quota is 1000 us of {DEFAULT_PERIOD} us, 10m.")
    if period != DEFAULT_PERIOD:
        yield Lost(f"{flag(wish)}: the period is the kubelet's cpuCFSQuotaPeriod ({DEFAULT_PERIOD} us), "
                   f"not {period} us.")


def _weight(values: Values) -> Iterator[Entry | Lost]:
    limit = next((wish.value[0] * 1000 // wish.value[1] for wish in values.all("cpus")
                  if wish.value[0] != UNLIMITED), None)
    for wish in values.all("cpu_weight"):
        wanted = values.spec.limits.cpu_shares or (
            runtimes.fewest_shares(wish.value) if values.version == 2 else shares_from_weight(wish.value))
        request = -(-wanted * 1000 // 1024)
        if limit is not None and request > limit:
            yield Lost(f"{flag(wish)}: requests.cpu {request}m would be above limits.cpu, which Kubernetes refuses.")
            continue
        yield "container.resources.requests.cpu", f"{request}m"
        shares = max(request * 1024 // 1000, 2)
        becomes = f", {runtimes.both(shares)}; sandbox writes {wish.value}" if values.version == 2 else ""
        yield Lost(f"{flag(wish)}: requests.cpu {request}m places the Pod and is {shares} shares{becomes}.")
        return
    if limit is not None:
        shares = max(limit * 1024 // 1000, 2)
        becomes = f"{runtimes.both(shares)}; the kernel's default is 100" if values.version == 2 else (
            "cpu.shares of cgroup v1; the kernel's default is 1024")
        yield Lost(f"Without requests.cpu Kubernetes takes limits.cpu for it, which is {shares} shares, {becomes}.")


def _page_size(wish: Wish) -> int:
    size = wish.knob.v2[0].split(".")[1]
    return int(size[:-2]) << {"KB": 10, "MB": 20, "GB": 30}[size[-2:]]


def _times(spec: Spec) -> Iterator[Entry | Lost]:
    if spec.limits.timeout is not None:
        yield "activeDeadlineSeconds", math.ceil(spec.limits.timeout)
        yield Lost("--timeout: activeDeadlineSeconds are whole ones, rounded up here, and count from the Pod's start, "
                   "pulling the image included; the status is DeadlineExceeded, not exit code 124.")
    if spec.stop_timeout != Spec(argv=("true",)).stop_timeout:
        yield "terminationGracePeriodSeconds", math.ceil(spec.stop_timeout)
        yield Lost("--stop-timeout: terminationGracePeriodSeconds are whole ones, rounded up here.")
    if spec.oom_score_adj is not None:
        yield Lost("--oom-score-adj: the kubelet sets it by the Pod's class of service.")
    if spec.nice is not None or spec.ionice is not None:
        yield Lost("--nice, --ionice: a Pod has neither; nice(1) and ionice(1) in front of the command set them.")
    if spec.stop_signal != signal.SIGTERM:
        yield Lost("--stop-signal: it is the image's STOPSIGNAL; a Pod can name one since Kubernetes 1.33 only.")


def _literal(text: str) -> str:
    """``$(NAME)`` is replaced in commands and values, ``$$`` is a dollar."""
    return as_utf8(text).replace("$", "$$")


def _name(values: Values) -> str:
    """As RFC 1123 wants it: lower case, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", f"{PREFIX}{values.plan.name}".lower()).strip("-")[:63].strip("-")


def _yaml(value: Any, indent: str = "") -> Iterator[str]:
    """Block style; every scalar is JSON, which is YAML too."""
    for key, item in value.items():
        if isinstance(item, dict) and item:
            yield f"{indent}{key}:"
            yield from _yaml(item, indent + "  ")
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            yield f"{indent}{key}:"
            for one in item:
                first, *rest = _yaml(one, indent + "    ")
                yield f"{indent}  - {first.strip()}"
                yield from rest
        else:
            yield f"{indent}{key}: {json.dumps(item, ensure_ascii=False)}"
