"""The run as a ``docker run`` and as a ``podman run`` command line.

Sources: docker-run(1) and moby's ``daemon_unix.go``, podman-run(1). Both count swap as docker does, memory plus swap,
and hand the rest to an OCI runtime, which turns shares and block I/O weights into those of cgroup v2
(:mod:`~sandbox.teach.export.runtimes`). podman passes any cgroup v2 file on (``--cgroup-conf``), so that nothing need
be converted there.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator

from ...knobs import bfq_from_io_weight, io_weight_from_blkio, shares_from_weight
from ...records import UNLIMITED
from ...spec import Spec
from ...wishes import DEFAULT_PERIOD, Wish
from . import isolation_flags, runtimes
from .quoting import shell_lines, shell_word
from .values import (
    Lost,
    Values,
    bound,
    disk_path,
    environment,
    file_text,
    flag,
    is_finite,
    mangled,
    once_per_file,
    rlimit,
    sort,
)

MIN_MEMORY = 6 << 20
"""Bytes: docker refuses less (linuxMinMemory)."""
DEVICE_FIELDS = ("device_read_bps", "device_write_bps", "device_read_iops", "device_write_iops")
FILE_ONLY = ("cpu_burst", "cpu_idle", "memory_high", "memory_min", "oom_group", "hugetlb", "cgroup_conf")
"""Limits without a flag of their own."""

Pieces = Iterator[str | Lost]


def docker(values: Values) -> tuple[str, list[str]]:
    """``docker run``; the word ``IMAGE`` stands for the image."""
    words, lost = sort(_docker(values))
    return shell_lines(words), lost


def podman(values: Values) -> tuple[str, list[str]]:
    """``podman run`` on the machine's own root file system."""
    words, lost = sort(_podman(values))
    return shell_lines(words), lost


def _docker(values: Values) -> Pieces:
    spec = values.spec
    yield from _start("docker", spec)
    yield from _cpu(values)
    if values.version == 2:
        yield from _docker_weight(values)
    yield from _memory(values)
    yield _pids(values)
    if values.number("pids_limit") is None:
        yield Lost("--pids-limit: no limit is no setting for docker; where systemd makes its scopes, DefaultTasksMax= "
                   "holds then.")
    yield from _disks(values)
    yield from _docker_rates(values)
    yield from _docker_io_weight(values)
    for wish in values.all(*FILE_ONLY):
        yield Lost(f"{flag(wish)}: docker has no flag for {file_text(wish)[0]}.")
    yield from _times(values, "docker")
    yield from _process(values)
    yield from isolation_flags.docker(values)
    source = spec.rootfs and shell_word(values.host.absolute(spec.rootfs))
    yield Lost(f"--rootfs: docker takes images: `tar -C {source} -c . | docker import - IMAGE`."
               if source else
               "The command runs in an image's file system, not in this one: put a name for IMAGE; variables and "
               "an entry point of the image add to the command.")
    yield "IMAGE " + " ".join(map(shell_word, spec.argv))


def _podman(values: Values) -> Pieces:
    spec = values.spec
    yield from _start("podman", spec)
    yield from _cpu(values)
    if values.version == 2:
        yield from map(_conf, values.all("cpu_weight"))
    yield from _memory(values)
    if "swap_max" in values.wishes and "memory" not in values.wishes and values.version == 2:
        yield _conf(values.wishes["swap_max"][0])
    yield _pids(values)
    yield from _disks(values)
    for wish in once_per_file(values.all("io_weight", "blkio_weight_device", *FILE_ONLY)):
        if isinstance(wish, Lost):
            yield wish
        else:
            yield (_conf(wish) if values.version == 2 else
                   Lost(f"{flag(wish)}: podman passes files of cgroup v2 on, and this machine has cgroup v1."))
    yield from _times(values, "podman")
    yield from _process(values)
    yield from isolation_flags.podman(values)
    layer = "" if spec.rootfs and not spec.overlay else ":O"
    root = f"{values.host.absolute(spec.rootfs or '/')}{layer}"
    if layer:
        yield Lost(f"--rootfs {root}: the :O is a layer of podman's, which makes places for mounts in it.")
    yield f"--rootfs {shell_word(root)} " + " ".join(map(shell_word, spec.argv))


def _conf(wish: Wish) -> str:
    return f"--cgroup-conf={shell_word('='.join(file_text(wish)))}"


def _start(tool: str, spec: Spec) -> Pieces:
    yield f"{tool} run --rm {'-it' if spec.tty else '-i'}"
    if spec.name:
        yield f"--name={spec.name}"
    if spec.slice or spec.cgroup_parent:
        yield f"--cgroup-parent={shell_word(spec.slice or spec.cgroup_parent or '')}"
        yield Lost(f"{'--slice' if spec.slice else '--cgroup-parent'}: {tool} wants a slice with its systemd cgroup "
                   "driver, a path with its cgroupfs one.")
    yield Lost(f"The command is pid 1 there: signals it has no handler for are ignored; `{tool} run --init` helps.")


# -- limits --------------------------------------------------------------------------------------------------------

def _cpu(values: Values) -> Pieces:
    for wish in values.all("cpus"):
        quota, period = wish.value
        if period == DEFAULT_PERIOD and quota != UNLIMITED and quota <= values.host.cpus * period:
            yield f"--cpus={quota / period:g}" if quota < 10**6 else f"--cpus={quota / period:.5f}"
        else:  # docker refuses more --cpus than the machine has, and has no period for them
            yield f"--cpu-period={period}"
            if quota != UNLIMITED:
                yield f"--cpu-quota={quota}"
    for wish in values.all("cpuset_cpus", "cpuset_mems"):
        yield f"--{wish.knob.field.replace('_', '-')}={wish.value}"
    if values.version == 1:
        for wish in values.all("cpu_weight"):
            shares = values.spec.limits.cpu_shares or shares_from_weight(wish.value)
            yield f"--cpu-shares={shares}"


def _docker_weight(values: Values) -> Pieces:
    """docker knows shares alone, and its runtime makes a weight of them."""
    docker = values.host.docker
    convert = runtimes.formula(docker)
    for wish in values.all("cpu_weight"):
        shares = values.spec.limits.cpu_shares or runtimes.fewest_shares(wish.value, *([convert] if convert else []))
        yield f"--cpu-shares={shares}"
        if convert is None:
            yield Lost(f"{flag(wish)}: {shares} shares become {runtimes.both(shares)}; sandbox writes {wish.value}.")
        elif convert(shares) != wish.value:
            yield Lost(f"{flag(wish)}: {shares} shares become cpu.weight {convert(shares)} by {docker.runtime} "
                       f"{docker.runtime_version}, docker's runtime here; sandbox writes {wish.value}.")


def _memory(values: Values) -> Pieces:
    memory, swap = values.number("memory"), values.wishes.get("swap_max")
    if memory is not None:
        yield f"--memory={memory}"
        if memory < MIN_MEMORY:
            yield Lost(f"--memory: docker refuses less than {MIN_MEMORY} bytes.")
    if swap and memory is not None:
        total = swap[0].value if swap[0].value == UNLIMITED else memory + swap[0].value
        yield f"--memory-swap={-1 if total == UNLIMITED else total}"
        yield Lost(f"--memory-swap counts memory plus swap: it is {total} for memory.swap.max {swap[0].value}.")
    elif memory is not None:
        yield Lost("Without --memory-swap they allow as much swap as memory; sandbox leaves memory.swap.max alone "
                   "on a machine without swap.")
    elif swap and swap[0].value != UNLIMITED:
        yield Lost(f"{flag(swap[0])}: --memory-swap needs --memory.")
    if (low := values.number("memory_low")) is not None:
        yield f"--memory-reservation={low}"
        if low < MIN_MEMORY:
            yield Lost(f"{flag(values.wishes['memory_low'][0])}: docker refuses less than {MIN_MEMORY} bytes.")
    if (swappiness := values.spec.limits.memory_swappiness) is not None:
        yield (f"--memory-swappiness={swappiness}" if values.version == 1 else
               Lost("--memory-swappiness: cgroup v2, which this machine has, knows no memory.swappiness."))


def _pids(values: Values) -> str:
    """Also when there is to be none: podman's own is 2048."""
    limit = values.number("pids_limit")
    return f"--pids-limit={-1 if limit is None else limit}"


def _disks(values: Values) -> Pieces:
    for wish in values.all(*DEVICE_FIELDS):
        if is_finite(wish):
            path = f"{disk_path(wish, values.host)}:{wish.value[1]}"
            yield f"--{wish.knob.field.replace('_', '-')}={shell_word(path)}"


def _docker_rates(values: Values) -> Pieces:
    drops = runtimes.drops_rates(values.host.docker)
    for wish in filter(is_finite, values.all(*DEVICE_FIELDS) if drops is not False else ()):
        which = (f"{values.host.docker.client}, which is here," if drops else
                 "from 25.0 to 25.0.6 and from 26.0 to 27.1.1")
        yield Lost(f"{flag(wish)}: the docker command {which} drops it without a word (docker/cli#5321).")


def _docker_io_weight(values: Values) -> Pieces:
    """docker's weights go from 10 to 1000. On cgroup v2 a runtime may make 1 to 10000 of the one for all devices."""
    for wish in values.all("io_weight"):
        told = values.spec.limits.blkio_weight or _blkio(wish.value, values.version)
        yield f"--blkio-weight={told}"
        if values.version == 2:
            yield _converted(wish, told, values)
        elif values.spec.limits.blkio_weight is None:
            yield Lost(f"{flag(wish)}: docker's weights go from 10 to 1000, and cgroup v1 gets {told} as it is.")
    for wish in values.all("blkio_weight_device"):
        told = int(wish.asked.rpartition(":")[2])
        yield f"--blkio-weight-device={shell_word(disk_path(wish, values.host))}:{told}"
        if values.version == 2:
            yield Lost(f"{flag(wish)}: weight {told} goes to io.bfq.weight; where the kernel has no such file, runc "
                       f"drops it, and crun starts no container; sandbox writes io.weight {wish.value[1]} there.")


def _blkio(weight: int, version: int) -> int:
    """docker's block I/O weight for an ``io.weight``."""
    told = round((weight - 1) * 990 / 9999) + 10 if version == 2 else bfq_from_io_weight(weight)
    return min(max(told, 10), 1000)


def _converted(wish: Wish, told: int, values: Values) -> Lost:
    docker = values.host.docker
    becomes = f"{flag(wish)}: weight {told} becomes io.bfq.weight {told} where the kernel has that file"
    known, weight = runtimes.has_io_weight(docker), io_weight_from_blkio(told)
    if known is False:
        return Lost(f"{becomes}; where it has not, {docker.runtime} {docker.runtime_version}, docker's runtime here, "
                    "starts no container.")
    by = "" if known else " by runc and crun 1.5 or later"
    return Lost(f"{becomes}, else io.weight {weight}{by}; sandbox writes io.weight {wish.value}.")


# -- everything else -----------------------------------------------------------------------------------------------

def _times(values: Values, tool: str) -> Pieces:
    spec, limits = values.spec, values.spec.limits
    if limits.timeout is not None and tool == "podman":
        yield f"--timeout={math.ceil(limits.timeout)}"
        yield Lost("--timeout: podman counts whole seconds, rounded up here, from its own start, and kills at once; "
                   "the exit code is not 124.")
    elif limits.timeout is not None:
        yield Lost("--timeout: docker limits no wall time; timeout(1) in front of the command does, if it is there.")
    if limits.cpu_time is not None:
        yield Lost(f"--cpu-time: {tool} does not limit the CPU time of a container; --ulimit cpu= is of each process.")
    if spec.stop_signal != signal.SIGTERM:
        yield f"--stop-signal={int(spec.stop_signal)}"
    if spec.stop_timeout != Spec(argv=("true",)).stop_timeout:
        yield f"--stop-timeout={math.ceil(spec.stop_timeout)}"
        yield Lost(f"--stop-timeout: whole seconds, and only of `{tool} stop`.")


def _process(values: Values) -> Pieces:
    spec = values.spec
    for item in spec.limits.ulimit:
        if item.name == "as":
            yield Lost("--ulimit: they know no limit called as (RLIMIT_AS).")
        else:
            yield f"--ulimit={rlimit(item).lower()}={bound(item.soft, '-1')}:{bound(item.hard, '-1')}"
    if spec.oom_score_adj is not None:
        yield f"--oom-score-adj={spec.oom_score_adj}"
    if spec.nice is not None:
        yield Lost("--nice: they have no such flag; nice(1) in front of the command sets it, if the image has it.")
    if spec.ionice is not None:
        yield Lost("--ionice: they have no such flag; ionice(1) in front of the command sets it, if the image has it.")
    if spec.user is not None:
        yield f"--user={spec.user.uid}:{spec.user.gid}"
        yield from (f"--group-add={group}" for group in spec.user.groups if group != spec.user.gid)
    if spec.cwd is not None:
        yield f"--workdir={shell_word(spec.cwd)}"
    else:
        yield Lost("The command starts in the directory the image or / says, not in the caller's: give --workdir.")
    shown, hidden = environment(spec)
    yield from (f"--env={shell_word(f'{name}={value}')}" for name, value in shown)
    yield from (f"--env={shell_word(name)}" for name in hidden)
    yield from (Lost(f"The value of {name} is not printed: it is taken from your shell.") for name in hidden)
    yield from mangled(spec, "The container's config.json")
