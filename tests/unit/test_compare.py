"""Comparisons as data and as text: what is told, what is the same, and why not; without a kernel."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from sandbox_cli.compare import compare

from sandbox.box import compile_plan
from sandbox.errors import SpecError
from sandbox.host import Host, from_json
from sandbox.options import make_spec
from sandbox.teach import compare_page, compare_plan, compare_text
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
                    usage=(Figure("wall_time", 1.0), Figure("memory_peak", 64 << 20), Figure("oom_kill", 1)),
                    events=(Event("started", 0.0), Event("exited", 1.0, "-9")),
                    series=Series((0.0, 0.3, 0.6, 0.9), (0, 30 << 20, 60 << 20, 64 << 20), (0.0, 0.15, 0.3, 0.45),
                                  (0.0, 0.1, 0.2, 0.2), (0, 0, 0, 1))),
            snapshot=Snapshot(0.2, "/a.slice/x", "a.slice" if driver == "cgroupfs" else "x.scope", beliefs=(
                Belief("cgroup", "memory limit", "x.scope", "MemoryMax",
                       "infinity" if driver == "cgroupfs" else str(64 << 20), "/sys/x/memory.max", str(64 << 20)),
                Belief("machine", "memory", "-.slice", "MemoryCurrent", str(1 << 30), "/sys/memory.current",
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
                                          "MemoryMax = 67108864 (t)\nkernel: memory.max = 67108864",
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
    assert found["memory limit"].why == "cgroupfs: systemd was not told"
    assert found["memory of the machine"].mark == "same"  # two readings, a page apart


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
    assert "throttled" in text
    assert len(text) < 100_000


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
