"""Whole programs that run a command under limits: ours, systemd-run, the OCI runtimes, bubblewrap."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from ..errors import SandboxError
from ..host import Host
from ..options import find
from ..records import UNLIMITED
from ..spec import Limits, Spec
from ..wishes import wishes
from .bench_launch import Streams
from .bench_rounds import Contender, Missing, Sample

MANAGERS = {"cgroupfs": (), "systemd": ("--systemd-cgroup",)}
"""Who makes the cgroup for an OCI runtime, and the flags that say so."""
BWRAP = "bwrap --unshare-pid --ro-bind / / --proc /proc --dev /dev"
TOLD = ("cpus", "memory", "swap_max", "pids_limit")
"""The limits that the others are given too."""


def spawn(argv: Sequence[str], streams: Streams, clean_up: Sequence[str] = ()) -> Callable[[], Sample]:
    """A call that runs ``argv`` to its end.

    :param clean_up: a command for what a failed one may leave.
    """
    path = shutil.which(argv[0]) or argv[0]
    ends = (streams.stdin, streams.stdout, streams.stderr)
    actions = [(os.POSIX_SPAWN_DUP2, end, number) for number, end in enumerate(ends)]

    def launch() -> Sample:
        begin = time.monotonic()
        pid = os.posix_spawn(path, list(argv), os.environ, file_actions=actions)
        _, status, used = os.wait4(pid, 0)
        total = time.monotonic() - begin
        code, words = os.waitstatus_to_exitcode(status), streams.last_words()
        if code:
            if clean_up:
                subprocess.run(clean_up, stdin=subprocess.DEVNULL, capture_output=True, check=False)
            raise SandboxError(words or f"it ended with {code}")
        return Sample(total, used.ru_utime, used.ru_stime, code)

    return launch


def ours(program: Sequence[str], columns: Mapping[str, Mapping[str, str]], given: Mapping[str, object],
         argv: Sequence[str], streams: Streams) -> Iterator[Contender]:
    """``sandbox run`` for each column of drivers."""
    for name, place in columns.items():
        command = [*program, "run", *flags({**place, **given}), "--", *argv]
        yield Contender(f"sandbox run, {name}", _shown(["sandbox", *command[len(program):]]), spawn(command, streams))


def flags(given: Mapping[str, object]) -> Iterator[str]:
    """Wishes as they are typed."""
    for name, value in given.items():
        flag = find(name).flag
        if isinstance(value, bool):
            yield flag if value else "--no-" + flag.removeprefix("--")
        else:
            for one in value if isinstance(value, list | tuple) else [value]:
                yield from (flag, str(one))


def untold(limits: Limits, host: Host) -> list[str]:
    """Flags of the limits that the others are not given."""
    return sorted({find(wish.realises.removeprefix("limits.")).flag for wish in wishes(limits, host)[0]
                   if wish.knob.field not in TOLD})


def others(spec: Spec, host: Host, streams: Streams, directory: str) -> Iterator[Contender | Missing]:
    """What else there is, or why it is not there."""
    yield from _systemd_run(spec, host, streams)
    for name in ("crun", "runc"):
        yield from _runtime(name, spec, host, streams, directory)
    if shutil.which("bwrap"):
        command = [*BWRAP.split(), "--", *spec.argv]
        yield Contender("bwrap, no limits", _shown(command), spawn(command, streams))
    else:
        yield Missing("bwrap", "it is not installed")


def values(limits: Limits, host: Host) -> dict[str, int]:
    """The limits that the others are given: ``memory``, ``swap`` (bytes of swap alone), ``pids``, and ``quota`` of
    ``period`` microseconds; without those that are not set."""
    found: dict[str, int] = {}
    for wish in wishes(limits, host)[0]:
        field = wish.knob.field
        if field == "cpus" and wish.value[0] != UNLIMITED:
            found |= {"quota": wish.value[0], "period": wish.value[1]}
        elif field == "swap_max" and wish.value != UNLIMITED:
            found["swap"] = wish.value - (found["memory"] if wish.tree.version == 1 else 0)
        elif field in ("memory", "pids_limit") and wish.value != UNLIMITED:
            found[field.removesuffix("_limit")] = wish.value
    return found


# -- systemd-run ---------------------------------------------------------------------------------------------------

def _systemd_run(spec: Spec, host: Host, streams: Streams) -> Iterator[Contender | Missing]:
    kinds = {"systemd-run --scope": ("--scope",), "systemd-run --wait": ("--wait", "--pipe")}
    memory = host.hierarchy("memory")
    told = tuple(properties(values(spec.limits, host), memory.version if memory else 2))
    for name, kind in kinds.items():
        reason = "it is not installed" if not shutil.which("systemd-run") else _without_systemd(host)
        if reason:
            yield Missing(name, reason)
        else:
            user = ("--user",) if host.uid else ()
            argv = spec.argv if "--scope" in kind else [word.replace("$", "$$") for word in spec.argv]
            command = ["systemd-run", *user, *kind, "--quiet", "--collect", *told, "--", *argv]
            yield Contender(name, _shown(command), spawn(command, streams))


def properties(told: Mapping[str, int], version: int) -> Iterator[str]:
    """The limits as properties of a unit; systemd has none for the swap of cgroup v1.

    :param version: of cgroup, for memory.
    """
    if "quota" in told:
        yield f"-pCPUQuota={told['quota'] * 100 / told['period']:g}%"
    for key, name in (("memory", "MemoryMax"), ("pids", "TasksMax"), ("swap", "MemorySwapMax")):
        if key in told and not (key == "swap" and version == 1):
            yield f"-p{name}={told[key]}"


def _without_systemd(host: Host) -> str:
    return "" if host.systemd_running else "systemd is not running"


# -- crun and runc -------------------------------------------------------------------------------------------------

def _runtime(name: str, spec: Spec, host: Host, streams: Streams, directory: str) -> Iterator[Contender | Missing]:
    for manager, how in MANAGERS.items():
        title = f"{name} run, {manager}"
        reason = _without_systemd(host) if manager == "systemd" else ""
        reason = "it is not installed" if not shutil.which(name) else reason
        if reason:
            yield Missing(title, reason)
            continue
        box = f"sandbox-bench-{name}-{manager}-{os.getpid()}"
        place = f"system.slice:sandbox-bench:{box}" if manager == "systemd" else f"/{box}"
        try:
            where = bundle(name, Path(directory, box), spec.argv, cgroup=place,
                           resources=resources(values(spec.limits, host)))
        except SandboxError as error:
            yield Missing(title, error.message)
            continue
        command = [name, *how, "run", "--bundle", str(where), box]
        yield Contender(title, _shown(command), spawn(command, streams, (name, *how, "delete", "--force", box)))


def resources(told: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """The limits as ``linux.resources`` of the OCI runtime specification, where swap counts the memory too."""
    found: dict[str, dict[str, int]] = {}
    if "memory" in told:
        found["memory"] = {"limit": told["memory"]}
        if "swap" in told:
            found["memory"]["swap"] = told["memory"] + told["swap"]
    if "quota" in told:
        found["cpu"] = {"quota": told["quota"], "period": told["period"]}
    if "pids" in told:
        found["pids"] = {"limit": told["pids"]}
    return found


def bundle(runtime: str, directory: Path, argv: Sequence[str], *, cgroup: str = "",
           resources: Mapping[str, object] | None = None) -> Path:
    """An OCI bundle with the host's own directories, read-only, as its root file system.

    :param runtime: makes the first draft of ``config.json``.
    :param cgroup: its ``cgroupsPath``.
    :raises SandboxError: the runtime cannot even do that.
    """
    root = directory / "root"
    for entry in ("usr", "etc", "proc", "dev", "sys"):
        (root / entry).mkdir(parents=True)
    for entry in ("bin", "sbin", "lib", "lib64"):
        (root / entry).symlink_to(f"usr/{entry}")
    done = subprocess.run([runtime, "spec"], cwd=directory, stdin=subprocess.PIPE, capture_output=True, text=True,
                          check=False)
    if done.returncode:
        raise SandboxError(f"{runtime} spec: {done.stderr.strip()}")
    config = json.loads((directory / "config.json").read_text())
    config["process"] |= {"args": list(argv), "terminal": False, "cwd": "/"}
    config["root"] = {"path": str(root), "readonly": True}
    config["mounts"] += [{"destination": place, "type": "none", "source": place, "options": ["bind", "ro"]}
                         for place in ("/usr", "/etc")]
    config["linux"] |= {"cgroupsPath": cgroup} if cgroup else {}
    if resources is not None:
        config["linux"]["resources"] = resources
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def _shown(command: Sequence[str]) -> str:
    import shlex

    return shlex.join(command)
