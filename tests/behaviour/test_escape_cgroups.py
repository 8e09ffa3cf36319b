"""Limits that the command can neither change nor leave: S10 and S11."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.machine import cgroup_mounts, cgroups, charged, named
from support.probes import REFUSED, command, probe
from support.sandbox_run import Program, names
from support.warm_program import warm_bare

pytestmark = pytest.mark.matter("enforcement")

sandbox = warm_bare

CLOSED = REFUSED | {"EROFS", "ENOENT", "EINVAL"}
MEMBERS = ("cgroup.procs", "tasks")
LIMITS = ("memory.max", "memory.limit_in_bytes", "memory.swap.max", "memory.memsw.limit_in_bytes", "pids.max",
          "cpu.max", "cpu.cfs_quota_us", "notify_on_release", "cgroup.subtree_control", "cgroup.freeze")


def agents() -> dict[str, str]:
    """What the host's ``release_agent`` files hold."""
    paths = [Path(mount, "release_agent") for mount, kind, _ in cgroup_mounts() if kind == "cgroup"]
    return {str(path): path.read_text() for path in paths if path.exists()}


@pytest.mark.drivers("none")
def test_s10_release_agent(sandbox: Program) -> None:
    """CVE-2022-0492. Each step must fail by itself. Fails without the filter (namespaces), and with a cgroup tree that
    can be written."""
    before = agents()
    given = dict.fromkeys(before, "/tmp/agent")
    given |= {f"{mount}/notify_on_release": "1" for mount, *_ in cgroup_mounts()}
    seen = probe(sandbox, "cgroups", given=given)
    assert set(seen["unshare"].values()) <= REFUSED, seen["unshare"]
    assert seen["mount"] in CLOSED
    assert {path: error for path, error in seen["paths"].items() if error not in CLOSED} == {}
    assert agents() == before


def test_s11_limits_stay_and_nobody_leaves(sandbox: Program) -> None:
    """Fails when a cgroup tree inside can be written: without the read-only /sys, or its fresh instance."""
    script = 'echo up; read line; "$@"; echo over; read line'
    with sandbox.start("-m", "64m", "--pids-limit", "20", "--", "sh", "-c", script, "sh",
                       *command("cgroups")[1:]) as running:
        running.read_line()
        groups = cgroups(running.name)
        before, members = limits(groups), processes(groups)
        assert before
        assert members
        assert running.process.stdin is not None
        running.process.stdin.write(b"\n" + json.dumps(ways_out(groups)).encode() + b"\n")
        running.process.stdin.flush()
        seen = json.loads(running.read_line())
        assert running.read_line() == b"over\n"
        after = limits(groups)
        assert {path: after[path] for path in before.keys() & after.keys() if after[path] != before[path]} == {}
        assert processes(groups) == members
        done = running.finish(b"\n")
    assert {path: error for path, error in seen["paths"].items() if error not in CLOSED} == {}
    assert (seen["writable"], seen["made"]) == ([], [])
    assert done.limit("--memory")["read_back"] == str((64 << 20) + charged(sandbox.driver))


def ways_out(groups: set[str]) -> dict[str, str]:
    """What is to be written where: the paths of the host, those that might be inside, and those above them."""
    trees = [f"{group}{above}" for group in groups for above in ("", "/..", "/../..")]
    trees += [f"/sys/fs/cgroup{tree}" for tree in ("", "/memory", "/pids", "/unified", "/..", "/memory/..")]
    return {f"{tree}/{file}": "0" if file in MEMBERS else "max" for tree in trees for file in (*LIMITS, *MEMBERS)}


def limits(groups: set[str]) -> dict[str, str]:
    """The limits as the host sees them. systemd turns a controller on or off for all units of a slice when one that
    needs it starts or ends, so files such as ``cpu.max`` come and go while other tests run."""
    paths = [Path(group, file) for group in groups for file in LIMITS]
    return {str(path): path.read_text() for path in paths if path.exists()}


def processes(groups: set[str]) -> set[int]:
    """The shells in the cgroups: those of ours that hold a unit come and go."""
    pids = {int(pid) for group in groups for pid in Path(group, "cgroup.procs").read_text().split()}
    return named(pids, "sh")


@pytest.mark.drivers("none")
def test_s11_its_own_cgroup_is_the_root_to_it(sandbox: Program) -> None:
    """Fails without the cgroup namespace."""
    done = sandbox("--", "cut", "-d:", "-f3-", "/proc/self/cgroup")
    assert set(done.out.split()) == {b"/"}, done.out


@pytest.mark.drivers("none")
def test_s11_the_cgroups_of_the_host_do_not_show(sandbox: Program) -> None:
    """Fails when the host's cgroup mounts come along with the root."""
    seen = probe(sandbox, "cgroups", given={})
    assert seen["writable"] == []
    name = names()
    done = sandbox("--", "sh", "-c", "find /sys/fs/cgroup; cat /proc/self/mountinfo", name=name)
    assert done.code == 0, done.err
    assert f"sandbox-{name}".encode() not in done.out, "the path of its cgroup on the host"
