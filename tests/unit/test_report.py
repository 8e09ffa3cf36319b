"""The verdict and the report: outcome, exit code, the sentence, the JSON and its schema."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import sandbox
from sandbox.ancestors import Rise
from sandbox.cgroup.files import read_all
from sandbox.errors import ExecError, LimitExceeded, SandboxError
from sandbox.oom import Kills
from sandbox.options import make_spec
from sandbox.report import Frozen, Outcome, Report, json_text
from sandbox.spec import Limits, Spec
from sandbox.steps import Limit, Plan, Read, Unmet
from sandbox.usage import DiskUsage, Usage
from sandbox.verdict import Ending, judge
from sandbox.verify import Reading, reading

SCHEMA = json.loads((Path(sandbox.__file__).parent / "report.schema.json").read_text())
SPEC = Spec(argv=("work",), limits=Limits(memory=64 << 20, timeout=5.0, cpu_time=2.0))
KILLED, SEGV = int(signal.SIGKILL), int(signal.SIGSEGV) | 0x80


def plan(tmp_path: Path) -> Plan:
    file = tmp_path / "memory.max"
    file.write_text(f"{64 << 20}\n")
    return Plan(driver="cgroupfs", name="box", steps=(), notes=("a note",),
                unmet=(Unmet(realises="limits.memory_high", reason="no such file"),),
                limits=(Limit(realises="limits.memory", asked="64m", applied=str(64 << 20), files=(str(file),),
                              knob="memory", value=64 << 20, version=2, ancestors=(str(tmp_path / "above"),)),),
                reads=(Read(figure="oom_kill", file="/c/memory.events.local", key="oom_kill"),
                       Read(figure="memory_failures", file="/c/memory.events.local", key="max")))


def readings(made: Plan) -> list[Reading]:
    return [reading(limit, read_all(limit.files)) for limit in made.limits]


def report(tmp_path: Path, ending: Ending, **usage: Any) -> Report:
    made = plan(tmp_path)
    return judge(SPEC, made, ending, Usage(sources={"oom_kill": "/c/memory.events.local oom_kill"}, **usage),
                 readings(made), driver_reason="because", done=(), unmet=())


def test_the_schema_is_one() -> None:
    jsonschema.validators.validator_for(SCHEMA).check_schema(SCHEMA)


@pytest.mark.parametrize(("ending", "usage", "outcome", "code", "number", "runner"), [
    (Ending(status=0), {}, "exited", 0, None, 0),
    (Ending(status=7 << 8), {}, "exited", 7, None, 7),
    (Ending(status=124 << 8), {}, "exited", 124, None, 124),
    (Ending(status=SEGV), {}, "signaled", None, 11, 139),
    (Ending(status=KILLED), {}, "signaled", None, 9, 137),
    (Ending(status=KILLED), {"oom_kill": 1, "memory_failures": 9}, "oom", None, 9, 137),
    (Ending(status=137 << 8), {"oom_kill": 1}, "exited", 137, None, 137),
    (Ending(), {"oom_kill": 1, "memory_failures": 9}, "oom", None, 9, 137),
    (Ending(), {}, "failed", None, None, 125),
    (Ending(lost=True), {"oom_kill": 1}, "failed", None, None, 125),
    (Ending(lost=True, reason="wall_time"), {"oom_kill": 1}, "wall_time", None, None, 124),
    (Ending(lost=True, reason="killed"), {}, "killed", None, None, 125),
    (Ending(status=0), {"oom_kill": 1}, "exited", 0, None, 0),
    (Ending(status=KILLED, reason="wall_time", hard=True), {}, "wall_time", None, 9, 124),
    (Ending(status=0, reason="wall_time"), {}, "wall_time", 0, None, 124),
    (Ending(status=15, reason="cpu_time"), {}, "cpu_time", None, 15, 152),
    (Ending(status=15, reason="killed"), {}, "killed", None, 15, 143),
    (Ending(exec_error=(2, "work", False)), {}, "failed", None, None, 127),
    (Ending(exec_error=(2, "/x/work", True)), {}, "failed", None, None, 126),
    (Ending(exec_error=(13, "/x/work", True)), {}, "failed", None, None, 126),
    (Ending(lost=True), {}, "failed", None, None, 125),
])
def test_verdict(tmp_path: Path, ending: Ending, usage: dict[str, int], outcome: str, code: int | None,
                 number: int | None, runner: int) -> None:
    found = report(tmp_path, ending, **usage)
    assert (found.outcome, found.code, found.signal, found.exit_code) == (outcome, code, number, runner)
    data = json.loads(json.dumps(found.to_json()))
    jsonschema.validate(data, SCHEMA)
    assert (data["outcome"], data["exit_code"], data["runner_exit_code"]) == (outcome, code, runner)


def test_its_own_limit_is_blamed_when_nothing_else_can_be(tmp_path: Path) -> None:
    ending = Ending(status=KILLED)
    hit = report(tmp_path, ending, oom_kill=1, memory_failures=3).why
    assert hit.startswith("its memory limit of 67108864 bytes was hit, and the kernel killed 1 process")
    assert "memory.events.local" in hit
    assert report(tmp_path, ending, oom_kill=1, memory_peak=64 << 20).why.startswith("its memory limit")
    assert report(tmp_path, ending, oom_kill=1).why.startswith("a memory limit above this sandbox was hit, or")


@pytest.mark.parametrize(("above", "usage", "why"), [
    ("32M", {"oom": 1, "memory_failures": 3}, "its memory limit of 67108864 bytes was hit"),
    ("32M", {"oom": 0, "memory_failures": 3}, "the memory limit in ABOVE was hit, or the machine was out of memory"),
    ("32M", {"memory_failures": 3}, "its memory limit of 67108864 bytes or that in ABOVE was hit"),
    ("128M", {"memory_failures": 3}, "its memory limit of 67108864 bytes or that in ABOVE was hit"),
    ("128M", {}, "the memory limit in ABOVE was hit, or the machine was out of memory"),
])
def test_an_ancestor_that_has_a_limit_is_named(tmp_path: Path, above: str, usage: dict[str, int], why: str) -> None:
    file = tmp_path / "above" / "memory.max"
    file.parent.mkdir()
    file.write_text(f"{int(above[:-1]) << 20}\n")
    found = report(tmp_path, Ending(status=KILLED), oom_kill=1, **usage)
    assert found.why.startswith(f"{why.replace('ABOVE', str(file))}, and the kernel killed")
    assert (found.limits[0].binding == str(file)) == (above == "32M")
    assert found.limits[0].enforced


@pytest.mark.parametrize(("limit", "why"), [
    ("OWN", "its memory limit of 67108864 bytes was hit"),
    ("/sys/fs/cgroup/a", "the memory limit of /sys/fs/cgroup/a was hit"),
    ("", "the machine was out of memory")])
def test_the_kernels_log_decides(tmp_path: Path, limit: str, why: str) -> None:
    made = plan(tmp_path)
    own = str(Path(made.limits[0].files[0]).parent)
    found = judge(SPEC, made, Ending(status=KILLED), Usage(oom_kill=1, memory_failures=9), readings(made),
                  Kills(True, own if limit == "OWN" else limit, "CONSTRAINT_NONE"), driver_reason="", done=(), unmet=())
    assert found.why.startswith(f"{why}, and the kernel killed")


def test_a_command_that_somebody_killed_after_its_child_was_out_of_memory(tmp_path: Path) -> None:
    made = plan(tmp_path)
    found = judge(SPEC, made, Ending(status=KILLED), Usage(oom_kill=1, memory_failures=9), readings(made),
                  Kills(False, "/x", "CONSTRAINT_MEMCG"), driver_reason="", done=(), unmet=())
    assert found.outcome == "signaled"
    assert found.why == ("work was killed by SIGKILL; the kernel killed 1 process(es) in it for memory, as the memory "
                         "limit of /x was hit")


def test_a_log_that_names_no_cgroup(tmp_path: Path) -> None:
    made = plan(tmp_path)
    found = judge(SPEC, made, Ending(status=KILLED), Usage(oom_kill=1, memory_failures=9), readings(made),
                  Kills(False, None, ""), driver_reason="", done=(), unmet=())
    assert found.outcome == "signaled"
    found = judge(SPEC, made, Ending(), Usage(oom_kill=1, oom=1), readings(made),
                  Kills(False, None, ""), driver_reason="", done=(), unmet=())
    assert found.why.startswith("its memory limit of 67108864 bytes was hit, and the kernel killed")


@pytest.mark.parametrize(("number", "ulimit", "usage", "clause"), [
    (signal.SIGXFSZ, "fsize=10", {}, "; a file would have grown beyond --ulimit fsize=10:10"),
    (signal.SIGXCPU, "cpu=1:3", {}, "; it had used up --ulimit cpu=1:3"),
    (signal.SIGKILL, "cpu=1", {"cpu_time": 1.02}, "; all processes together used 1.02 s of CPU time, and "
     "--ulimit cpu=1:1 ends one that uses so much"),
    (signal.SIGKILL, "cpu=1", {"cpu_time": 0.5}, ""),
    (signal.SIGKILL, "cpu=1:unlimited", {"cpu_time": 5.0}, ""),
    (signal.SIGXFSZ, "cpu=1", {}, ""),
])
def test_a_signal_by_a_resource_limit(tmp_path: Path, number: int, ulimit: str, usage: dict[str, float],
                                      clause: str) -> None:
    made = plan(tmp_path)
    found = judge(make_spec(["work"], ulimit=[ulimit]), made, Ending(status=int(number)), Usage(**usage),  # type: ignore[arg-type]
                  readings(made), driver_reason="", done=(), unmet=())
    assert found.why == f"work was killed by {signal.Signals(number).name}{clause}"


@pytest.mark.parametrize("ending", [Ending(status=15, reason=reason) for reason in ("wall_time", "cpu_time", "killed")])
def test_kills_for_memory_beside_another_end(tmp_path: Path, ending: Ending) -> None:
    assert report(tmp_path, ending, oom_kill=2, oom=1).why.endswith(
        "; the kernel killed 2 process(es) in it for memory, as its memory limit of 67108864 bytes was hit")


def test_an_init_whose_counters_went_with_its_cgroup(tmp_path: Path) -> None:
    assert "or by the kernel for memory" in report(tmp_path, Ending()).why
    assert report(tmp_path, Ending(), oom_kill=0).why == "sandbox-init was killed from outside, and the command with it"


def test_an_init_that_was_killed_while_it_ended_what_the_command_left(tmp_path: Path) -> None:
    found = report(tmp_path, Ending(status=3 << 8, lost=True))
    assert (found.outcome, found.exit_code) == ("exited", 3)
    assert found.why == "work exited with 3; sandbox-init was killed, and what the command had left with it"


@pytest.mark.parametrize(("status", "outcome", "code", "why"), [
    (3 << 8, "exited", 3, "work exited with 3; /f keeps process 7 frozen, "),
    (None, "signaled", 137, "work was killed by SIGKILL; /f keeps process 7 frozen, "),
])
def test_what_nobody_could_thaw(tmp_path: Path, status: int | None, outcome: str, code: int, why: str) -> None:
    found = report(tmp_path, Ending(status=status, frozen=Frozen(7, ("/f",), "Permission denied")))
    assert (found.outcome, found.exit_code) == (outcome, code)
    assert found.why.startswith(why)


RISES = (Rise("/a.slice", "/a.slice/memory.events.local", "oom", 1),
         Rise("/a.slice", "/a.slice/pids.events.local", "max", 2),
         Rise("/a.slice", "/a.slice/cpu.stat", "nr_throttled", 3))
FORKS = "; the task limit of /a.slice refused 2 fork(s) below it"


@pytest.mark.parametrize(("ending", "usage", "why"), [
    (Ending(status=0), {}, f"work exited with 0{FORKS}"),
    (Ending(status=KILLED), {"oom_kill": 1, "oom": 0}, "the memory limit of /a.slice was hit, and the kernel killed 1 "
     f"process(es) for memory (/c/memory.events.local oom_kill is 1){FORKS}"),
    (Ending(status=KILLED), {"oom_kill": 1, "oom": 1}, "its memory limit of 67108864 bytes was hit, and the kernel "
     f"killed 1 process(es) for memory (/c/memory.events.local oom_kill is 1){FORKS}"),
    (Ending(status=KILLED), {}, "work was killed by SIGKILL; the memory limit of /a.slice was hit meanwhile, and the "
     f"kernel killed processes below it{FORKS}"),
    (Ending(status=15, reason="wall_time"), {"throttled_periods": 4, "periods": 5}, "the wall time limit of 5 s was "
     f"over; its CPU quota ran out in 4 of 5 periods; the CPU quota of /a.slice ran out in 3 periods{FORKS}"),
])
def test_what_happened_in_a_cgroup_above(tmp_path: Path, ending: Ending, usage: dict[str, int], why: str) -> None:
    made = plan(tmp_path)
    found = judge(SPEC, made, ending, Usage(sources={"oom_kill": "/c/memory.events.local oom_kill"}, **usage),
                  readings(made), driver_reason="", done=(), unmet=(), rises=RISES)
    assert found.why == why
    assert [(row.key, row.value) for row in found.evidence][-3:] == [("oom", 1), ("max", 2), ("nr_throttled", 3)]


@pytest.mark.parametrize("ending", [Ending(status=KILLED), Ending(), Ending(lost=True)],
                         ids=["the command", "the init, too", "the guard, too"])
def test_what_systemd_oomd_killed(tmp_path: Path, ending: Ending) -> None:
    made, chosen = plan(tmp_path), Rise("/a.slice", "/a.slice", "user.oomd_ooms", 1)
    found = judge(SPEC, made, ending, Usage(), readings(made), driver_reason="", done=(), unmet=(), rises=(chosen,))
    assert (found.outcome, found.exit_code) == ("oom", 137)
    assert found.why.startswith("systemd-oomd killed it, for pressure on memory or swap (user.oomd_ooms of /a.slice ")


@pytest.mark.parametrize(("asked", "source", "peak", "task_limits", "whose"), [
    ("5", "pids.events.local", 3, (), "its task limit of 5"),
    ("5", "pids.events", 5, ("/p/c/pids.max", "/p/pids.max"), "its task limit of 5"),
    ("5", "pids.events", 3, ("/p/c/pids.max", "/p/pids.max"), "its task limit of 5 or the task limit in /p/pids.max"),
    ("", "pids.events.local", 3, (), "the task limit of /p/c"),
    ("", "pids.events", 3, ("/p/c/pids.max", "/p/pids.max"),
     "the task limit in /p/c/pids.max or the task limit in /p/pids.max"),
])
def test_whose_task_limit_refused_a_fork(tmp_path: Path, asked: str, source: str, peak: int,
                                         task_limits: tuple[str, ...], whose: str) -> None:
    rows = (Limit(realises="limits.pids_limit", asked=asked, applied=asked, knob="pids_limit"),) if asked else ()
    made = plan(tmp_path)._replace(limits=rows)
    usage = Usage(pids_failures=2, pids_peak=peak, sources={"pids_failures": f"/p/c/{source} max"})
    found = judge(SPEC, made, Ending(status=0), usage, [Reading("5", True, "") for _ in rows], driver_reason="",
                  done=(), unmet=(), task_limits=task_limits)
    assert found.why == f"work exited with 0; {whose} refused 2 fork(s)"


def test_a_limit_that_was_changed_during_the_run_is_not_enforced(tmp_path: Path) -> None:
    made = plan(tmp_path)
    Path(made.limits[0].files[0]).write_text("max\n")
    found = judge(SPEC, made, Ending(status=0), Usage(), readings(made), driver_reason="",
                  done=(), unmet=())
    assert not found.limits[0].enforced
    assert found.limits[0].read_back == "max"


def test_check_raises_what_happened(tmp_path: Path) -> None:
    report(tmp_path, Ending(status=0)).check()
    with pytest.raises(ExecError) as caught:
        report(tmp_path, Ending(exec_error=(2, "work", False))).check()
    assert caught.value.exit_code == 127
    with pytest.raises(LimitExceeded):
        report(tmp_path, Ending(status=0), oom_kill=1).check()
    with pytest.raises(SandboxError, match="exited with 3"):
        report(tmp_path, Ending(status=3 << 8)).check()


def test_summary_names_what_matters(tmp_path: Path) -> None:
    text = report(tmp_path, Ending(status=0), memory_peak=1 << 20, periods=9, throttled_periods=3, throttled_time=0.5,
                  io=[DiskUsage(device="254:0", write_bytes=8 << 20)]).summary(verbose=True)
    for part in ("1.0 MiB", "3 of 9 periods", "254:0", "8.0 MiB", "--memory-high", "a note"):
        assert part in text


def test_json_keeps_to_the_schema(tmp_path: Path) -> None:
    jsonschema.validate(json.loads(json_text(report(tmp_path, Ending(status=0)))), SCHEMA)


def test_every_outcome_and_figure_is_in_the_schema() -> None:
    assert set(SCHEMA["properties"]["outcome"]["enum"]) == {str(one) for one in Outcome}
    assert set(SCHEMA["properties"]["usage"]["properties"]) == set(Usage.__dataclass_fields__)
