"""``sandbox compare`` where systemd runs: both sides are really looked at, and nothing is left."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.labs import Lab, sandbox_lab
from support.machine import charged
from support.sandbox_run import SANDBOX

pytestmark = pytest.mark.long_in_vm

ROOT = Path(__file__).resolve().parents[2]
LIMITS = ("-m", "64m", "--cpus", "0.333", "--pids-limit", "20")
BUSY = ("sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done")
DRIVERS = ("cgroupfs", "systemd", "systemd-service", "delegated")


@pytest.fixture(scope="module")
def found(lab: Lab) -> dict[str, Any]:
    """One comparison of all drivers in each lab."""
    program = SANDBOX if lab.engine == "container" else ["sandbox"]
    done = lab.run(*program, "compare", "--json", "--drivers", ",".join(DRIVERS), *LIMITS, "--", *BUSY, cwd=ROOT)
    assert done.returncode == 0, done.stderr.decode()
    comparison: dict[str, Any] = json.loads(done.stdout)
    comparison["columns"] = {column["driver"]: column for column in comparison["columns"]}
    return comparison


def belief(column: dict[str, Any], figure: str) -> dict[str, Any]:
    beliefs: list[dict[str, Any]] = column["snapshot"]["beliefs"]
    return next(one for one in beliefs if (one["level"], one["figure"]) == ("cgroup", figure))


def test_every_driver_ran(found: dict[str, Any]) -> None:
    ends = {driver: (column["problem"], column["run"]["exit_code"]) for driver, column in found["columns"].items()}
    assert ends == dict.fromkeys(DRIVERS, ("", 0))
    assert all(len(column["run"]["series"]["times"]) > 3 for column in found["columns"].values())


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_kernel_holds_the_limits(found: dict[str, Any], driver: str) -> None:
    wishes = {one["knob"]: one for one in found["columns"][driver]["wishes"]}
    assert wishes["memory"]["read_back"] == str((64 << 20) + charged(driver.removeprefix("systemd-")))
    assert all(one["held"] and one["read_back"] == one["applied"] for one in wishes.values())


@pytest.mark.parametrize("driver", ["systemd", "systemd-service"])
def test_what_systemd_is_told_it_knows(found: dict[str, Any], driver: str) -> None:
    column = found["columns"][driver]
    assert column["snapshot"]["unit"] == column["snapshot"]["cgroup"].rpartition("/")[2]
    for figure in ("memory limit", "CPU quota", "task limit"):
        one = belief(column, figure)
        assert one["says"] == one["holds"] != "infinity", one


@pytest.mark.parametrize("driver", ["cgroupfs", "delegated"])
def test_what_is_written_behind_its_back_it_does_not(found: dict[str, Any], driver: str) -> None:
    one = belief(found["columns"][driver], "memory limit")
    assert (one["says"], one["holds"]) == ("infinity", "67108864")
    assert one["unlike"].startswith("systemd was not told")


def test_defaults_are_those_of_a_unit_that_is_told_nothing(lab: Lab, found: dict[str, Any]) -> None:
    column = found["columns"]["delegated"]
    names = [text.partition(" = ")[0] for text in column["besides"]]
    defaults = dict(zip(names, column["defaults"], strict=True))
    compared = {"Slice", "CollectMode", "Delegate", *(name for name in names if name.endswith("Accounting"))}
    shown = lab.sh(f"systemd-run --scope --quiet --unit=untold systemctl show untold.scope -p {','.join(compared)}")
    words = {"yes": "1", "no": "0"}
    real = {name: words.get(value, value) for name, _, value in (line.partition("=") for line in shown.splitlines())}
    assert {name: defaults[name] for name in compared} == real


@pytest.mark.parametrize("driver", ["systemd", "systemd-service", "delegated"])
def test_a_reload_changes_nothing(found: dict[str, Any], driver: str) -> None:
    reload = found["columns"][driver]["reload"]
    assert reload["problem"] == ""
    assert reload["files"]
    assert all(one["before"] == one["after"] is not None for one in reload["files"])


def test_the_isolation_is_the_same_under_every_driver(found: dict[str, Any]) -> None:
    made = [column["isolation"] for column in found["columns"].values()]
    assert made[0]["steps"] > 50
    assert all(one == made[0] for one in made)


def test_launches_were_timed(found: dict[str, Any]) -> None:
    seconds = {driver: {one["name"]: one["seconds"] for one in column["phases"]}
               for driver, column in found["columns"].items()}
    assert all({"create", "exec", "teardown"} <= {*one} for one in seconds.values())
    assert seconds["cgroupfs"]["create"] < seconds["systemd"]["create"]  # a mkdir, and a call that waits for an answer


def test_nothing_is_left(lab: Lab, found: dict[str, Any]) -> None:
    assert lab.sh("systemctl list-units --all --plain --no-legend 'sandbox-compare-*'") == ""
    assert lab.sh("find /sys/fs/cgroup -name 'sandbox-compare-*'") == ""


def test_a_driver_that_cannot_keeps_its_column(lab: Lab) -> None:
    program = SANDBOX if lab.engine == "container" else ["sandbox"]
    done = lab.run(*program, "compare", "--json", "--drivers", "none,systemd", "-m", "64m", "--", "true", cwd=ROOT)
    assert done.returncode == 125, done.stderr.decode()
    columns = {column["driver"]: column for column in json.loads(done.stdout)["columns"]}
    assert "--memory cannot be enforced here" in columns["none"]["problem"]
    assert columns["systemd"]["run"]["exit_code"] == 0


def test_in_a_lab_of_its_own(tmp_path: Path) -> None:
    """As on a machine without systemd: the lab is booted, ended, and the page is written out here."""
    page = tmp_path / "page.html"
    before = sandbox_lab("ls").stdout
    done = subprocess.run([*SANDBOX, "compare", "--lab", "--drivers", "cgroupfs,systemd", "--html", str(page), *LIMITS,
                           "--", *BUSY], capture_output=True, cwd=tmp_path, check=False, timeout=120,
                          env=os.environ | {"COLUMNS": "80"})
    assert done.returncode == 0, done.stderr.decode()
    text = done.stdout.decode()
    assert "MemoryMax = 67108864 (t)" in text
    assert max(map(len, text.splitlines()[2:])) <= 80
    assert "Under cgroupfs" in page.read_text()
    assert b"compare-" not in sandbox_lab("ls").stdout.replace(before, b"")
