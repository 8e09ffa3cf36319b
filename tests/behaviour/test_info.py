"""``sandbox info`` and the report as people and programs read them."""

from __future__ import annotations

import json
import os

import pytest

from support.sandbox_run import Program

pytestmark = pytest.mark.matter("process")


def test_info_names_the_driver_first(sandbox: Program) -> None:
    lines = sandbox.other("info").out.decode().splitlines()
    [line] = [line for line in lines if "Cgroup Driver:" in line]
    default = sandbox.under("")
    assert line.strip() == f"Cgroup Driver: {default('--', 'true').report['driver']}"
    text = "\n".join(lines)
    for word in ("Reason:", "Cgroup Version:", "Kernel Version: " + os.uname().release, "Namespaces:", "Seccomp:",
                 "Landlock", "SELinux", "AppArmor", "Swap", "Pressure", "Systemd"):
        assert word in text, word


def test_new_cgroups_are_where_info_says(sandbox: Program) -> None:
    places: dict[str, str] = {}
    mount = ""
    for line in sandbox.other("info").out.decode().splitlines():
        key, _, value = line.strip().partition(": ")
        mount = value if key == "Mount" else mount
        if key == "New Cgroups In":
            places[mount] = value.rstrip("/")
    files = [file for file in sandbox.under("")("--", "true").usage["sources"].values() if "/cgroup/" in file]
    for file in files:
        mount = max((one for one in places if file.startswith(f"{one}/")), key=len)
        assert file.startswith(f"{mount}{places[mount]}/sandbox-"), file
    assert bool(files) == bool(places)


def test_info_as_json(sandbox: Program) -> None:
    host = json.loads(sandbox.other("info", "--json").out)
    assert host["kernel"] == os.uname().release
    assert host["cgroup_mode"] in ("v1", "hybrid", "v2")


def test_info_to_a_reader_that_goes_away(sandbox: Program) -> None:
    read, write = os.pipe()
    os.close(read)
    import subprocess

    from support.sandbox_run import SANDBOX

    with open(write, "wb") as out:
        done = subprocess.run([*SANDBOX, "info"], stdout=out, stderr=subprocess.PIPE, check=False, timeout=60)
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("words", [("--help",), ("run", "--help"), ("explain", "--help"), ("--version",)])
def test_help(sandbox: Program, words: tuple[str, ...]) -> None:
    done = sandbox.other(*words)
    assert done.code == 0
    assert done.err == ""
    assert done.out


def test_verbose_summary(sandbox: Program) -> None:
    done = sandbox("--verbose", "-m", "64m", "--pids-limit", "20", "--", "true")
    assert done.code == 0
    for word in ("exited", "wall time", "CPU time", "memory peak", "--memory", "--pids-limit", "enforced"):
        assert word in done.err, word


def test_figures_are_there_or_null(sandbox: Program) -> None:
    usage = sandbox("-m", "64m", "--", "sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done").usage
    assert usage["wall_time"] > 0
    assert usage["cpu_time"] > 0
    assert usage["memory_peak"] > 0
    assert usage["page_faults"] > 0
    assert usage["pids_peak"] in (1, 2, None)
    for figure, value in usage.items():
        if value is None and figure != "sources":
            absent = ("swap_peak", "swap_failures", "memory_high", "oom", "periods", "throttled_periods",
                      "throttled_time", "pids_peak")
            assert figure in usage["sources"] or figure in absent or figure.startswith("net_"), figure
