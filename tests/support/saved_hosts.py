"""Saved hosts, and Specs to compile for them: what the tests of plans share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sandbox.facts import Disk
from sandbox.host import from_json
from sandbox.options import make_spec
from sandbox.spec import Spec

DIRECTORY = Path(__file__).parent.parent / "unit" / "hosts"
DISKS = (Disk(path="/data", device="254:0", chain=("/data", "254:1 vda1", "254:0 vda")),
         Disk(path="/dev/null", reason="not a block device"))
HOSTS = {path.stem: from_json(path.read_text())._replace(disks=DISKS, bfq=("254:0",), iocost=("254:0",))
         for path in sorted(DIRECTORY.glob("*.json"))}
"""Every host of tests/unit/hosts by the name of its file, with the disks of the Specs below, which honour weights."""
WAYS = {"auto": {}, "cgroupfs": {}, "delegated": {}, "service": {"driver": "systemd", "unit_type": "service"}}
"""Ways to choose a driver, each with the fields of the Spec besides ``driver``."""


def spec(**options: object) -> Spec:
    """Return a Spec with these options and the environment of the golden plans, one variable of it a secret."""
    made = make_spec(["sh", "-c", "echo $HOME"], best_effort=True, **options)
    return replace(made, env=(("PATH", "/usr/bin:/bin"), ("SECRET", "hunter2")))


SPECS: dict[str, Spec] = {
    "plain": spec(),
    "limits": spec(memory="64m", memory_swap="96m", cpus="0.333", pids_limit="20", timeout="5", cpu_time="2",
                   cpuset_cpus="0", device_write_bps=["/data:1m"], ulimit=["nofile=64:128"], oom_group=True),
    "weights": spec(cpu_shares="512", blkio_weight="100", cpu_burst="5000", memory_high="48m", memory_low="8m",
                    swap_max="0", hugetlb=["2M:64M"], cgroup_conf=["memory.swap.high=16777216"]),
}


def by(way: str, wanted: Spec) -> Spec:
    """Return ``wanted`` with the driver of a way."""
    return replace(wanted, **({"driver": way} | WAYS[way]))


def ways(host: str) -> list[str]:
    """Return the ways that a host has a driver for."""
    return [way for way in WAYS if way == "auto" or HOSTS[host].systemd_running]


def hosts_and_ways() -> list[tuple[str, str]]:
    """Return the name of each host with each of its ways."""
    return [(host, way) for host in HOSTS for way in ways(host)]
