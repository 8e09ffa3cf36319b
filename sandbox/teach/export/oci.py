"""The run as a ``config.json`` of the OCI runtime specification, for ``crun run -b DIR`` and ``runc run -b DIR``.

Source: the runtime specification 1.1, config-linux.md. Its swap is memory plus swap. On cgroup v2 ``unified`` takes any
file as it is, so that no weight goes through a runtime's formula.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ...drivers.cgroupfs import PREFIX
from ...knobs import shares_from_weight
from ...records import UNLIMITED, Ulimit
from ...wishes import Wish
from . import isolation, isolation_oci
from .values import (
    Lost,
    Values,
    as_utf8,
    environment,
    file_text,
    flag,
    is_finite,
    mangled,
    once_per_file,
    rlimit,
    sort,
)

VERSION = "1.0.2"
INFINITY = 2**64 - 1
IO_CLASSES = {"realtime": "IOPRIO_CLASS_RT", "best-effort": "IOPRIO_CLASS_BE", "idle": "IOPRIO_CLASS_IDLE"}
UNIFIED = ("cpu_weight", "cpu_idle", "cpu_burst", "memory_high", "memory_min", "oom_group", "io_weight",
           "blkio_weight_device", "cgroup_conf")
"""Limits that go into the map of raw cgroup v2 files, after all others."""
THROTTLES = {"device_read_bps": "throttleReadBpsDevice", "device_write_bps": "throttleWriteBpsDevice",
             "device_read_iops": "throttleReadIOPSDevice", "device_write_iops": "throttleWriteIOPSDevice"}

Entry = tuple[str, Any]
"""A key below ``linux.resources``, as ``memory.limit``, and its value."""


def config(values: Values) -> tuple[str, list[str]]:
    """``config.json``."""
    entries, lost = sort(_resources(values))
    resources: dict[str, Any] = {"devices": isolation_oci.device_rules(values)}
    for key, value in entries:
        section, _, name = key.partition(".")
        place = resources.setdefault(section, {}) if name else resources
        name = name or section
        place[name] = [*place.get(name, []), *value] if isinstance(value, list) else value
    process, more = sort(_process(values))
    spec = values.spec
    parent = (spec.cgroup_parent or "/").rstrip("/")
    whole = {
        "ociVersion": VERSION,
        "process": dict(process),
        **({"hostname": spec.hostname} if spec.hostname else {}),
        "root": isolation_oci.root(values),
        "mounts": list(isolation_oci.mounts(values)),
        "linux": {"cgroupsPath": f"{parent}/{PREFIX}{values.plan.name}", "resources": resources,
                  **dict(isolation_oci.linux(values))},
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n", [*lost, *more, *_surroundings(values),
                                                                  *isolation_oci.lost(values)]


# -- limits --------------------------------------------------------------------------------------------------------

def _resources(values: Values) -> Iterator[Entry | Lost]:
    yield from _cpu(values)
    yield from _memory(values)
    for wish in values.all("pids_limit"):
        yield "pids.limit", -1 if wish.value == UNLIMITED else wish.value
    for wish in filter(is_finite, values.all(*THROTTLES)):
        yield f"blockIO.{THROTTLES[wish.knob.field]}", [_device(wish) | {"rate": wish.value[1]}]
    for wish in values.all("hugetlb"):
        if wish.value != UNLIMITED:
            yield "hugepageLimits", [{"pageSize": wish.knob.v2[0].split(".")[1], "limit": wish.value}]
    for one in once_per_file(values.all(*UNIFIED)):
        if isinstance(one, Lost):
            yield one
        else:
            yield from _unified(one) if values.version == 2 else _legacy(one, values)


def _cpu(values: Values) -> Iterator[Entry]:
    for wish in values.all("cpus"):
        quota, period = wish.value
        yield "cpu.quota", -1 if quota == UNLIMITED else quota
        yield "cpu.period", period
    for wish in values.all("cpuset_cpus", "cpuset_mems"):
        yield f"cpu.{wish.knob.field.removeprefix('cpuset_')}", wish.value


def _memory(values: Values) -> Iterator[Entry | Lost]:
    for wish in values.all("memory"):
        yield "memory.limit", -1 if wish.value == UNLIMITED else wish.value
    for wish in values.all("memory_low"):
        yield "memory.reservation", -1 if wish.value == UNLIMITED else wish.value
    memory = values.number("memory")
    for wish in values.all("swap_max"):
        if memory is None:
            yield from (_unified(wish) if values.version == 2 else
                        [Lost(f"{flag(wish)}: memory.swap is memory plus swap and needs --memory.")])
        else:
            yield "memory.swap", -1 if wish.value == UNLIMITED else memory + wish.value
            yield Lost(f"memory.swap counts memory plus swap, for memory.swap.max {wish.value}; with --systemd-cgroup "
                       "crun hands the sum to systemd as MemorySwapMax, and runc no swap at all to it when there is "
                       "to be none.")
    if (swappiness := values.spec.limits.memory_swappiness) is not None:
        if values.version == 1:
            yield "memory.swappiness", swappiness
        else:
            yield Lost("--memory-swappiness: cgroup v2, which this machine has, knows no memory.swappiness.")


def _unified(wish: Wish) -> Iterator[Entry]:
    file, text = file_text(wish)
    yield f"unified.{file}", text


def _legacy(wish: Wish, values: Values) -> Iterator[Entry | Lost]:
    """What the specification has fields for on cgroup v1."""
    limits = values.spec.limits
    match wish.knob.field:
        case "cpu_weight":
            yield "cpu.shares", limits.cpu_shares or shares_from_weight(wish.value)
        case "cpu_idle" | "cpu_burst":
            yield f"cpu.{wish.knob.field.removeprefix('cpu_')}", wish.value
        case "io_weight" if limits.blkio_weight is not None:
            yield "blockIO.weight", limits.blkio_weight
        case _:
            yield Lost(f"{flag(wish)}: the specification passes raw files on to cgroup v2 only.")


def _device(wish: Wish) -> dict[str, int]:
    major, _, minor = wish.value[0].partition(":")
    return {"major": int(major), "minor": int(minor)}


# -- everything else -----------------------------------------------------------------------------------------------

def _process(values: Values) -> Iterator[Entry | Lost]:
    spec = values.spec
    shown, hidden = environment(spec)
    yield "terminal", spec.tty
    if spec.user is None:
        yield "user", {"uid": values.host.uid, "gid": values.host.gid}
    else:
        groups = [group for group in spec.user.groups if group != spec.user.gid]
        yield "user", {"uid": spec.user.uid, "gid": spec.user.gid, **({"additionalGids": groups} if groups else {})}
    yield "args", [as_utf8(word) for word in spec.argv]
    yield "env", [as_utf8(f"{name}={value}") for name, value in shown]
    yield from (Lost(f"The value of {name} is not printed: add it to process.env.") for name in hidden)
    yield "cwd", as_utf8(spec.cwd or "/")
    if spec.cwd is None:
        yield Lost("process.cwd has to be absolute, and the caller's directory is not known here: give --workdir.")
    yield from isolation_oci.process(values)
    core = () if isolation.has_core_limit(spec) else (Ulimit("core", 0, 0),)
    yield "rlimits", [{"type": f"RLIMIT_{rlimit(item)}", "soft": INFINITY if item.soft is None else item.soft,
                       "hard": INFINITY if item.hard is None else item.hard} for item in (*core, *spec.limits.ulimit)]
    if spec.oom_score_adj is not None:
        yield "oomScoreAdj", spec.oom_score_adj
    if spec.nice is not None:
        yield "scheduler", {"policy": "SCHED_OTHER", "nice": spec.nice}
    if spec.ionice is not None:
        yield "ioPriority", {"class": IO_CLASSES[spec.ionice.kind], "priority": spec.ionice.level}
    if spec.nice is not None or spec.ionice is not None:
        yield Lost("--nice, --ionice: a runtime of an older version of the specification than 1.1 ignores them.")
    yield from mangled(spec, "JSON")


def _surroundings(values: Values) -> list[str]:
    limits = values.spec.limits
    name = f"{PREFIX}{values.plan.name}"
    lost = [
        f"cgroupsPath is for the cgroupfs manager; for --systemd-cgroup write {values.spec.slice or 'system.slice'}:"
        f"{PREFIX.rstrip('-')}:{values.plan.name}, which becomes {name}.scope.",
    ]
    if limits.timeout is not None:
        lost.append("--timeout: the specification has none; timeout(1) before the runtime ends the runtime alone.")
    if limits.cpu_time is not None:
        lost.append("--cpu-time: the specification has no such limit; RLIMIT_CPU is of each process.")
    if values.version == 2:
        lost.append("linux.resources.unified is of cgroup v2: elsewhere the runtime refuses it.")
    return lost
