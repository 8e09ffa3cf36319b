"""The same Spec holds the same values in the kernel's files, whoever writes them; what differs was announced before."""

from __future__ import annotations

import json

import pytest

from support.sandbox_run import Program
from support.warm_program import warm

sandbox = warm
pytestmark = [pytest.mark.matter("units"), pytest.mark.requires("systemd", "root")]

MANAGERS = ("systemd", "service", "delegated")
SPECS = {
    "odd": "-m 100000001 --cpus 0.333 --cpu-weight 50 --pids-limit max",
    "swap": "-m 64m --memory-swap 96m --cpus 1.5 --cpu-shares 512",
    "max": "-m max --pids-limit 42",
    "tiny": "--cpus 0.004",
    "file": "--cpus 0.5 --cpu-burst 20000 --cgroup-conf pids.max=43",
}
"""Each with values that only one way of writing them may round; those that none rounds are in test_kernel_values.py."""


@pytest.mark.only("systemd")
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.long] * (name == "tiny")) for name in SPECS])
def test_the_kernel_holds_the_same(sandbox: Program, name: str) -> None:
    words = [*SPECS[name].split(), "--", "true"]
    # Not in system.slice: systemd removes its cgroup in a v1 tree, and all below, when no unit there needs the tree.
    plain = sandbox.under("cgroupfs")("--cgroup-parent", "/", *words)
    assert plain.code == 0, plain.err
    for manager in MANAGERS:
        other = sandbox.under(manager)
        plan = other.other("explain", *other.flags(), "--json", *words)
        announced = {row["realises"]: row["note"] for row in json.loads(plan.out)["limits"]}
        done = other(*words)
        assert done.code == 0, (manager, done.err)
        ours, others = ({row["realises"]: row["read_back"] for row in one.report["limits"]} for one in (plain, done))
        assert ours.keys() == others.keys(), manager
        different = {field: (ours[field], others[field], announced[field]) for field in ours
                     if ours[field] != others[field]}
        assert all("percent" in note or "more than asked" in note for *_, note in different.values()), (
            manager, different)


@pytest.mark.only("systemd")
@pytest.mark.requires("disk")
def test_disk_limits(sandbox: Program) -> None:
    words = ["--device-write-bps", "/:1m", "--device-read-iops", "/:500", "--", "true"]
    found = {driver: sandbox.under(driver)(*words) for driver in ("cgroupfs", *MANAGERS)}
    assert {driver: one.code for driver, one in found.items()} == dict.fromkeys(found, 0)
    values = [{row["realises"]: sorted(row["read_back"].split()) for row in one.report["limits"]}
              for one in found.values()]
    assert all(one == values[0] for one in values)
