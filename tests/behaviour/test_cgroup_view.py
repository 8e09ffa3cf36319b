"""The sandbox's own cgroups at /sys/fs/cgroup inside, where programs look for the limits they run under."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.machine import cgroup_mounts
from support.sandbox_run import Program
from support.warm_program import warm

pytestmark = pytest.mark.matter("values")

sandbox = warm

ROOT = "/sys/fs/cgroup"
VERSION2 = any((mount, kind) == (ROOT, "cgroup2") for mount, kind, _ in cgroup_mounts())


def files(values: dict[str, str]) -> dict[str, str]:
    """What the files of a v2 tree, or of one v1 tree each, must hold."""
    return {f"{ROOT}/{name.partition('/')[2] if VERSION2 else name}": value for name, value in values.items()}


@pytest.mark.requires("root")
def test_the_limits_are_seen_inside(sandbox: Program) -> None:
    """Fails without the step ``mount_cgroup``."""
    tasks = "pids.max"
    wanted = (files({"memory/memory.max": str(64 << 20), f"pids/{tasks}": "20"}) if VERSION2 else
              files({"memory/memory.limit_in_bytes": str(64 << 20), f"pids/{tasks}": "20"}))
    done = sandbox("-m", "64m", "--pids-limit", "20", "--", "cat", *wanted)
    got = dict(zip(wanted, done.out.decode().split(), strict=True))
    # The limits in the report are not always those of the flags: a unit of systemd also holds the sandbox's init.
    rows = {row["file"]: row["read_back"] for row in done.report["limits"]}
    seen = {Path(path).name: value for path, value in got.items()}
    assert seen == {Path(path).name: value for path, value in rows.items() if Path(path).name in seen}


@pytest.mark.requires("root")
def test_only_its_own_cgroups_are_seen(sandbox: Program) -> None:
    """Nothing of the host's trees: neither a cgroup beside or above, nor its name in the mount table."""
    script = f"find {ROOT} -mindepth 1 -type d; echo and; cat /proc/self/mountinfo"
    directories, _, mounts = sandbox("-m", "64m", "--", "sh", "-c", script).out.decode().partition("and\n")
    beside = {Path(mount).name for mount, *_ in cgroup_mounts()} | {"cpu", "cpuacct", "net_cls", "net_prio", "unified"}
    assert {line.removeprefix(f"{ROOT}/") for line in directories.split()} <= beside
    cgroups = [line.split() for line in mounts.splitlines() if " - cgroup" in line]
    assert cgroups
    assert {words[3] for words in cgroups} == {"/"}
    assert all("ro" in words[5].split(",") for words in cgroups)


@pytest.mark.drivers("none")
@pytest.mark.only("none")
def test_without_a_cgroup_of_its_own_nothing_is_seen(sandbox: Program) -> None:
    """The launcher's cgroup is the host's, and so are the names of those below it."""
    assert sandbox("--", "ls", ROOT).out == b""


@pytest.mark.requires("root")
def test_a_shared_cgroup_namespace_has_nothing_mounted(sandbox: Program) -> None:
    """Mounted there, the v2 tree would show the whole host, and take its mount options from it."""
    assert sandbox("--cgroupns", "host", "--", "ls", ROOT).out == b""
