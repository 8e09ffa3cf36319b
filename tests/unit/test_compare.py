"""Comparisons as data and as text: what is told, what is the same, and why not; without a kernel."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from sandbox_cli.compare import compare

from sandbox.box import compile_plan
from sandbox.bus import Bus
from sandbox.errors import SpecError
from sandbox.host import Host, from_json
from sandbox.options import make_spec
from sandbox.report import LimitReport
from sandbox.teach import compare_defaults, compare_page, compare_plan, compare_rows, compare_text, compare_view
from sandbox.teach.compare import (
    Belief,
    Column,
    Comparison,
    Event,
    Figure,
    Kept,
    Machine,
    Node,
    Phase,
    Reload,
    Run,
    Series,
    Snapshot,
    from_data,
    to_data,
)
from sandbox.teach.compare_collect import flags
from sandbox.teach.compare_rows import Row, tables

HOST: Host = from_json((Path(__file__).parent / "hosts" / "debian13-v2.json").read_text())
WISHES = {"memory": "64m", "swap_max": "0", "cpus": "0.33333", "pids_limit": "20", "oom_group": True, "timeout": "5",
          "ulimit": ["nofile=64"]}


def column(driver: str, **wishes: object) -> Column:
    spec = replace(make_spec(["true"], best_effort=True, **wishes), driver=driver)
    plan, _ = compile_plan(spec, HOST, name="x")
    return Column(driver=driver, wishes=compare_plan.wishes(plan), besides=compare_plan.besides(plan),
                  reach=compare_plan.reach(plan), isolation=compare_plan.isolation(plan, spec), notes=plan.notes)


def comparison(*columns: Column, ran: bool = False) -> Comparison:
    return Comparison(argv=("true",), flags=("--memory", "64m"), machine=Machine("6.12", "v2", 2, "257"), ran=ran,
                      columns=columns)


def rows(found: Comparison, caption: str) -> dict[str, Row]:
    table = next(table for table in tables(found) if caption in table.caption)
    return {row.label: row for row in table.rows}


@pytest.fixture(scope="module")
def compiled() -> Comparison:
    return comparison(column("cgroupfs", **WISHES), column("systemd", **WISHES), column("delegated", **WISHES))


def ran() -> Comparison:
    """Two short runs; made up, with each kind of event."""
    def told(driver: str) -> Column:
        return column(driver, memory="64m", cpus="0.5")._replace(
            run=Run(outcome="oom", why="its memory limit was hit", exit_code=137,
                    usage=(Figure("wall_time", 1.0), Figure("cpu_time", 0.5), Figure("memory_peak", 65 << 20),
                           Figure("throttled_time", 0.883), Figure("oom_kill", 1)),
                    events=(Event("started", 0.0), Event("exited", 1.0, "-9")),
                    series=Series((0.0, 0.3, 0.6, 0.9), (0, 30 << 20, 60 << 20, 64 << 20), (0.0, 0.15, 0.3, 0.45),
                                  (0.0, 0.1, 0.2, 0.2), (0, 0, 0, 1))),
            snapshot=Snapshot(0.2, "/a.slice/x", "a.slice" if driver == "cgroupfs" else "x.scope", beliefs=(
                Belief("cgroup", "memory limit", "x.scope", "MemoryMax",
                       "infinity" if driver == "cgroupfs" else str(64 << 20), "/sys/x/memory.max", str(64 << 20),
                       "it has no unit" if driver == "cgroupfs" else ""),
                Belief("root", "memory", "-.slice", "MemoryCurrent", str(1 << 30), "/sys/memory.current",
                       str((1 << 30) + 4096))),
                tree=Node("/", "systemd", children=(Node("x", driver, 30 << 20, 64 << 20, True),))),
            reload=Reload((Kept("/sys/x/memory.max", "67108864", None if driver == "cgroupfs" else "67108864"),)),
            phases=(Phase("start", 0.001), Phase("create", 0.0005)))
    return comparison(told("cgroupfs"), told("systemd"), ran=True)


def test_json_brings_everything_back() -> None:
    assert from_data(json.loads(json.dumps(to_data(ran())))) == ran()


def test_each_wish_is_told_in_each_managers_words(compiled: Comparison) -> None:
    told = rows(compiled, "What is told")
    assert told["--memory 64M"].cells == ("memory.max = 67108864",
                                          "MemoryMax = 67108864 (t)\nfor the kernel: memory.max = 67108864",
                                          "memory.max = 67108864")
    assert told["--swap-max 0"].cells[1].startswith("MemorySwapMax = 0 (t)")
    assert told["--memory 64M"].mark == told["--swap-max 0"].mark == "same"


def test_differences_have_a_reason(compiled: Comparison) -> None:
    told = rows(compiled, "What is told")
    assert (told["--cpus 0.33333"].mark, told["--pids-limit 20"].mark) == ("different", "different")
    assert "systemd: systemd 257 keeps hundredths of a percent" in told["--cpus 0.33333"].why
    assert "1 more than asked" in told["--pids-limit 20"].why
    assert told["--oom-group 1"].mark == "same"


def test_what_is_no_matter_of_cgroups_is_the_same(compiled: Comparison) -> None:
    told = rows(compiled, "What is told")
    assert told["--timeout 5 s"].cells == ("deadline 5000",) * 3
    assert {told["--timeout 5 s"].mark, told["--ulimit nofile=64:64"].mark} == {"same"}


def test_several_limits_of_one_wish_stay_apart() -> None:
    """``--memory`` limits swap too where there is some; each takes its own property."""
    spec = replace(make_spec(["true"], memory="64m"), driver="systemd")
    plan, _ = compile_plan(spec, HOST._replace(swap_total=1 << 30), name="x")
    assert [(one.knob, one.words) for one in compare_plan.wishes(plan)] == [
        ("memory", ("MemoryMax = 67108864 (t)",)), ("swap_max", ("MemorySwapMax = 67108864 (t)",))]


def test_what_one_cannot_do_stays_in_its_column() -> None:
    able, unable = column("cgroupfs", memory="64m"), column("none", memory="64m")
    found = rows(comparison(able, unable), "What is told")
    row = next(row for label, row in found.items() if label.startswith("--memory"))
    assert row.mark == "unmet"
    assert row.cells[1].startswith("cannot: ")


def test_a_driver_that_cannot_be_used_keeps_its_column() -> None:
    gone = Column("systemd", problem="it is not running", remedy="start it")
    found = comparison(column("cgroupfs", memory="64m"), gone)
    assert rows(found, "What is told")["driver"].cells == ("works", "cannot: it is not running\n(start it)")


def test_file_only_is_said() -> None:
    found = comparison(column("cgroupfs", memory_low="1m", cpu_burst="5000", cpus="1"),
                       column("systemd", memory_low="1m", cpu_burst="5000", cpus="1"),
                       column("delegated", memory_low="1m", cpu_burst="5000", cpus="1"))
    told = rows(found, "What is told")
    assert told["--cpu-burst 5000"].mark == "same"
    assert all(cell.startswith("cpu.max.burst = 5000") for cell in told["--cpu-burst 5000"].cells)


def test_isolation_is_one_row_and_the_same(compiled: Comparison) -> None:
    row = rows(compiled, "isolated")["isolation"]
    assert row.mark == "same"
    assert "sandbox-init" in row.why
    assert len({*row.cells}) == 1
    opened = column("cgroupfs", network="host", cap_add=["net_raw"]).isolation
    closed = compiled.columns[0].isolation
    assert opened and closed
    assert opened.score > closed.score
    service = column("systemd", unit_type="service").isolation
    assert service == column("none").isolation


def test_isolation_that_is_not_the_same_is_seen(compiled: Comparison) -> None:
    other = compiled.columns[1]._replace(isolation=column("systemd", pid="host").isolation)
    row = rows(comparison(compiled.columns[0], other), "isolated")["isolation"]
    assert (row.mark, row.why) == ("different", "")


def test_how_it_is_reached(compiled: Comparison) -> None:
    cells = rows(compiled, "How it is reached")["systemd"].cells
    assert cells[0] == "is not asked"
    assert all("StartTransientUnit" in cell and "JobRemoved" in cell for cell in cells[1:])


def test_beliefs_that_differ_are_marked() -> None:
    found = rows(ran(), "believes")
    assert found["memory limit"].mark == "different"
    assert found["memory limit"].why == "cgroupfs: it has no unit"
    assert found["memory of the root cgroup"].mark == "same"  # two readings, a page apart


def test_nothing_is_held_where_nothing_was_read(compiled: Comparison) -> None:
    columns: list[dict[str, list[dict[str, object]]]] = json.loads(json.dumps(to_data(compiled)))["columns"]
    assert {(one["held"], one["read_back"]) for column in columns for one in column["wishes"]} == {(None, None)}
    for text in (compare_text.markdown(compiled), compare_page.document(compiled, made="now")):
        assert "is to hold" in text
        assert "kernel holds" not in text
        assert "during the run" not in text


@pytest.mark.parametrize(("read", "enforced", "held"), [
    (None, True, None), ("67108864", True, True), ("1", False, False)])
def test_what_a_run_found_is_held_only_if_it_was_read(read: str | None, enforced: bool, held: bool | None) -> None:
    told = column("cgroupfs", memory="64m").wishes[0]
    limit = LimitReport("limits.memory", "--memory", "64M", "67108864", None, (), read, enforced, None, "")
    assert compare_plan.seen(told, limit)[-3:-1] == (read, held)


def test_what_was_not_read_is_not_the_same() -> None:
    able, failed = ran().columns[0], ran().columns[1]._replace(problem="it failed", run=None)
    read = able._replace(wishes=tuple(one._replace(read_back=one.applied, held=True) for one in able.wishes))
    row = rows(comparison(read, failed, ran=True), "What is told")["--memory 64M"]
    assert "kernel: memory.max = not read" in row.cells[1]
    assert row.mark == ""


V1 = {"CPUAccounting": False, "IOAccounting": False, "MemoryAccounting": True, "TasksAccounting": True,
      "CollectMode": "inactive", "Delegate": False, "TimeoutStopUSec": 90_000_000}
"""What systemd 252 shows of a unit that is not there, on cgroup v1."""


@pytest.mark.parametrize(("driver", "begins", "differ"), [
    ("systemd", V1, {"CPUAccounting", "CollectMode", "TimeoutStopUSec", "OOMPolicy"}),
    ("systemd", V1 | {"CPUAccounting": True}, {"CollectMode", "TimeoutStopUSec", "OOMPolicy"}),
    ("delegated", V1 | {"CPUAccounting": True}, {"CollectMode", "TimeoutStopUSec", "Delegate"})])
def test_only_what_differs_from_systemd_s_default_is_said_to(driver: str, begins: dict[str, object], differ: set[str]
                                                             ) -> None:
    made = column(driver, cpus="0.5")
    defaults = compare_defaults.settle(made.besides, begins, user=False, oom_policy="stop")
    found = rows(comparison(made._replace(defaults=defaults)), "What else")
    shown = {line for label, row in found.items() if label != compare_rows.SAME for line in row.cells[0].splitlines()}
    assert {line.partition(" = ")[0] for line in shown} == differ
    assert all("(" in line and ", default " in line for line in shown)
    assert found[compare_rows.SAME].cells[0].startswith("Slice = system.slice (s)\n")


def test_nothing_is_said_of_defaults_that_systemd_does_not_tell(compiled: Comparison) -> None:
    assert "default " not in "".join(cell for row in rows(compiled, "What else").values() for cell in row.cells)
    assert compare_rows.SAME not in rows(compiled, "What else")


class Manager:
    """systemd, as far as it is asked: the units that own cgroups, and whether they are delegated."""

    control_group = "/"

    def __init__(self, **delegated: bool) -> None:
        self._delegated = {name.replace("_", "."): one for name, one in delegated.items()}

    def unit_of(self, cgroup: str) -> str:
        return next((name for name in reversed(cgroup.split("/")) if name in self._delegated), "")

    def get(self, unit: str, interface: str, name: str) -> object:
        assert interface == unit.rpartition(".")[2].capitalize()
        return self._delegated.get(unit, False) if name == "Delegate" else 2**64 - 1


def seen(root: Path, parent: str, bus: Manager | None) -> Snapshot:
    """What is seen of a sandbox in a cgroup of a cgroup v2 tree that is made for it."""
    tree = HOST.hierarchies[0]._replace(mount=str(root), parent=parent, files=())
    host = HOST._replace(hierarchies=(tree,))
    spec = replace(make_spec(["true"], memory="64m"), driver="cgroupfs")
    plan, _ = compile_plan(spec, host, name="x")
    cgroup = root / parent.strip("/") / "sandbox-x"
    cgroup.mkdir(parents=True)
    for place in (cgroup, *cgroup.parents[:len(cgroup.relative_to(root).parts)]):
        (place / "memory.max").write_text("67108864" if place == cgroup else "max")
        (place / "memory.current").write_text("4096")
    found = compare_view.snapshot(plan, host, cast("Bus", bus), 0.1)
    assert found is not None
    return found


@pytest.mark.parametrize(("parent", "levels", "unit", "why"), [
    ("/docker", {"cgroup", "parent", "root"}, "none", "cgroupfs: systemd has no unit for /docker/sandbox-x"),
    ("/", {"cgroup", "root"}, "none", "cgroupfs: systemd has no unit for /sandbox-x"),
    ("/a.slice/b.service", {"cgroup", "slice", "root"}, "none; it is below b.service, which is delegated",
     "cgroupfs: systemd was not told: it has delegated what is below b.service"),
    ("/a.slice/c.scope", {"cgroup", "slice", "root"}, "none; it is below c.scope, the nearest unit above",
     "cgroupfs: systemd was not told: it has no unit for /a.slice/c.scope/sandbox-x, the nearest above is c.scope")])
def test_a_cgroup_has_the_owner_that_systemd_finds(tmp_path: Path, parent: str, levels: set[str], unit: str, why: str
                                                   ) -> None:
    found = seen(tmp_path, parent, Manager(a_slice=False, b_service=True, c_scope=False))
    assert {one.level for one in found.beliefs if one.figure == "memory"} == levels
    shown = comparison(column("cgroupfs", memory="64m")._replace(snapshot=found), ran=True)
    assert rows(shown, "How it is reached")["its unit, by GetUnitByControlGroup"].cells == (unit,)
    assert (rows(shown, "believes")["memory limit"].mark, rows(shown, "believes")["memory limit"].why) == (
        "different", why)
    assert ("memory of the slice" in rows(shown, "believes")) == ("slice" in levels)


def test_nothing_is_systemd_s_where_it_does_not_run(tmp_path: Path) -> None:
    found = seen(tmp_path, "/docker", None)
    assert {found.tree.owner, found.tree.children[0].owner} == {""}
    shown = comparison(column("cgroupfs", memory="64m")._replace(snapshot=found), ran=True)
    assert {(row.mark, row.why) for row in rows(shown, "believes").values()} == {("", "")}


def test_a_lost_limit_is_seen() -> None:
    row = rows(ran(), "daemon-reload")["memory.max"]
    assert row.cells == ("LOST: 67108864 -> the file is gone", "held: 67108864")
    assert row.mark == "different"


@pytest.mark.parametrize("width", [80, 130, 200])
def test_tables_fit(width: int, compiled: Comparison, capsys: pytest.CaptureFixture[str]) -> None:
    for found in (compiled, ran()):
        compare_text.show(found, width=width)
        lines = capsys.readouterr().out.splitlines()[2:]
        assert max(map(len, lines)) <= width
        text = " ".join(lines)
        assert all(one.driver in text for one in found.columns)
        assert "67108864" in text


def test_nothing_of_the_command_drives_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from sandbox_cli.messages import escaped

    evil = "\x1b[31m[bold]"
    columns = tuple(one._replace(besides=(f"Slice = {evil} (s)",), notes=(evil,)) for one in ran().columns)
    compare_text.show(ran()._replace(argv=(evil,), columns=columns), width=80, escape=escaped)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.count("[bold]") >= 3  # the command, the slice, the note


def test_markdown_rows_are_whole(compiled: Comparison) -> None:
    lines = compare_text.markdown(compiled).splitlines()
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines if re.match(r"\| --\w", line)} == {6}


def test_the_page_has_both_runs_and_stands_alone() -> None:
    text = compare_page.document(ran(), made="now")
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", text)
    assert "<script" not in text
    assert text.count("killed for memory") >= 2
    assert "Under cgroupfs" in text
    assert len(text) < 100_000


def test_a_figure_is_the_same_in_the_table_and_in_the_key() -> None:
    """The samples have other figures: 0.2 s throttled, 64 MiB, 0.45 s of CPU time."""
    used = rows(ran(), "What the run used")
    text = compare_page.document(ran(), made="now")
    key = [re.sub(r"<[^>]+>", "", item) for item in re.findall(r"<li class=\"k-.*?</li>", text)]
    for label, name in (("throttled for", "throttled"), ("memory peak", "memory peak"), ("CPU time", "CPU time")):
        assert len([item for item in key if item.endswith(f"{name} {used[label].cells[0]}")]) == 2
    assert "200 ms" not in "".join(key)


def test_the_page_of_plans_alone(compiled: Comparison) -> None:
    assert "MemoryMax = 67108864 (t)" in compare_page.document(compiled, made="now")


def test_values_of_variables_are_masked() -> None:
    assert list(flags({"memory": "64m", "env": ["TOKEN=secret", "HOME=/x", "COPIED"], "oom_group": False})) == [
        "--memory", "64m", "--env", "TOKEN=***", "--env", "HOME=/x", "--env", "COPIED", "--no-oom-group"]


@pytest.mark.parametrize(("settings", "text"), [
    ({"drivers": "cgroupfs,systemdd"}, "systemdd"), ({"json": True, "markdown": True}, "--markdown"),
    ({"html": "/no/such/directory/x.html"}, "--html")])
def test_what_cannot_be_is_refused_before_anything_runs(settings: dict[str, object], text: str) -> None:
    default = {"drivers": "", "run": True, "lab": True, "json": False, "markdown": False, "html": None}
    with pytest.raises(SpecError, match=text):
        compare(["true"], {}, **(default | settings))  # type: ignore[arg-type]
