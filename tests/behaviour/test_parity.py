"""The same Spec holds the same values in the kernel's files, whoever writes them; what differs was announced before."""

from __future__ import annotations

import json

import pytest

from support.sandbox_run import Program
from support.warm_program import warm

sandbox = warm
# systemd takes controllers back from a cgroup that is made behind its back whenever an unrelated unit ends.
pytestmark = [pytest.mark.matter("units"), pytest.mark.requires("systemd", "root"), pytest.mark.alone]

MANAGERS = ("systemd", "service", "delegated")
SPECS = {
    "memory": "-m 64m",
    "memory-odd": "-m 100000001",
    "memory-percent": "-m 50%",
    "memory-max": "-m max",
    "memory-low": "--memory-reservation 32m",
    "memory-and-swap": "-m 64m --memory-swap 96m",
    "cpus": "--cpus 0.5",
    "cpus-third": "--cpus 0.333",
    "cpus-many": "--cpus 1.5",
    "cpus-tiny": "--cpus 0.004",
    "quota-and-period": "--cpu-quota 30000 --cpu-period 50000",
    "burst": "--cpus 0.5 --cpu-burst 20000",
    "weight": "--cpu-weight 50",
    "shares": "--cpu-shares 512",
    "idle": "--cpu-idle",
    "cpuset": "--cpuset-cpus 0",
    "pids": "--pids-limit 42",
    "pids-max": "--pids-limit max",
    "conf": "--cgroup-conf pids.max=43",
    "several": "-m 128m --cpus 0.25 --pids-limit 16 --cpu-weight 200 --cpuset-cpus 0",
}


@pytest.mark.only("systemd")
@pytest.mark.parametrize("manager", MANAGERS)
@pytest.mark.parametrize("name", SPECS)
def test_the_kernel_holds_the_same(sandbox: Program, name: str, manager: str) -> None:
    words = [*SPECS[name].split(), "--", "true"]
    ours, other = map(sandbox.under, ("cgroupfs", manager))
    plain = ours(*words)
    plan = other.other("explain", *other.flags(), "--json", *words)
    announced = {row["realises"]: row["note"] for row in json.loads(plan.out)["limits"]}
    done = other(*words)
    assert (plain.code, done.code) == (0, 0), (plain.err, done.err)
    values = [{row["realises"]: row["read_back"] for row in one.report["limits"]} for one in (plain, done)]
    assert values[0].keys() == values[1].keys()
    different = {field: (values[0][field], values[1][field], announced[field]) for field in values[0]
                 if values[0][field] != values[1][field]}
    assert all("whole percent" in note or "more than asked" in note for *_, note in different.values()), different


@pytest.mark.only("systemd")
@pytest.mark.requires("disk")
@pytest.mark.parametrize("manager", MANAGERS)
def test_disk_limits(sandbox: Program, manager: str) -> None:
    words = ["--device-write-bps", "/:1m", "--device-read-iops", "/:500", "--", "true"]
    found = [sandbox.under(driver)(*words) for driver in ("cgroupfs", manager)]
    assert [one.code for one in found] == [0, 0], [one.err for one in found]
    values = [{row["realises"]: sorted(row["read_back"].split()) for row in one.report["limits"]} for one in found]
    assert values[0] == values[1]
