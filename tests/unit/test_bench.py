"""What ``sandbox bench`` makes of its measurements: orders, percentiles, ratios, phases, tables, command lines."""

from __future__ import annotations

import errno
import itertools
import json
import statistics
from collections import Counter
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sandbox_cli import bench as command

from sandbox.drivers import get
from sandbox.errors import SandboxError, SpecError, StepError
from sandbox.facts import Hierarchy, Manager, Node, Place
from sandbox.host import Host
from sandbox.options import make_spec
from sandbox.report import StepReport
from sandbox.steps import Phase, Where
from sandbox.teach import bench, bench_programs, bench_table
from sandbox.teach.bench_phases import OPS, PHASES, by_phase
from sandbox.teach.bench_rounds import WARM_UP, Contender, Missing, Sample, measure, orders, percentile, ratio
from sandbox.teach.columns import COLUMNS, named

V1 = Host(kernel="6.1", cgroup_mode="hybrid", memory_total=1 << 34, swap_total=1 << 30, hierarchies=tuple(
    Hierarchy(version=1, controllers=(name,), mount=f"/sys/fs/cgroup/{name}", usable=(name,))
    for name in ("cpu", "memory", "pids")))
V2 = V1._replace(systemd_running=True, manager=Manager(version=257, problem=""), cgroup_mode="v2", hierarchies=(
    Hierarchy(version=2, controllers=("cpu", "io", "memory", "pids"), mount="/sys/fs/cgroup",
              usable=("cpu", "io", "memory", "pids")),), iocost=("254:0",))
LIMITS = make_spec(["true"], **bench.DEFAULT_LIMITS).limits


def sample(total: float, phases: tuple[float, ...] = ()) -> Sample:
    return Sample(total, 0.25, 0.5, 0, phases)


def result(*, programs: bool = True) -> bench.Result:
    phases = tuple(0.001 * (number + 1) for number in range(len(PHASES)))
    library = bench.Group("Launches through the library", tuple(
        bench.Row(name, f"sandbox.Launcher: {name}", [sample(scale * 0.036, tuple(scale * one for one in phases))
                                                      for scale in (1, 2, 3, 4)])
        for name in ("cgroupfs", "systemd-service")))
    others = (bench.Row("sandbox run, systemd-service", "sandbox run true", [sample(0.1)] * 4),
              bench.Row("systemd-run --scope", "systemd-run --scope true", [sample(0.0123)] * 4))
    return bench.Result(argv=("true",), rounds=4, limits=("--memory", "512M"), library=library,
                        programs=bench.Group("Whole programs", others if programs else ()),
                        machine=bench.Machine("6.18.44-a-rather-long-name-of-a-kernel", 2, "hybrid", "252", 0.5, 11.5),
                        missing=(Missing("crun run, cgroupfs", "cgroups in hybrid mode not supported, " * 3),),
                        untold=("--io-weight",))


# -- orders and turns

@pytest.mark.parametrize("count", range(1, 8))
def test_orders_are_balanced(count):
    found = list(itertools.islice(orders(count), 2 * count))
    assert all(sorted(order) == list(range(count)) for order in found)
    assert all(set(Counter(order[place] for order in found).values()) == {2} for place in range(count))
    followers = Counter(pair for order in found for pair in itertools.pairwise(order))
    assert len(followers) == count * (count - 1)
    assert set(followers.values()) <= {2}


def test_the_first_rounds_are_thrown_away_and_everyone_takes_a_turn_in_each():
    log = []

    def contender(name):
        def launch():
            log.append(name)
            return sample(len([one for one in log if one == name]))
        return Contender(name, name, launch)

    found = measure([contender("a"), contender("b"), contender("c")], 5)
    assert {name: [one.total for one in row] for name, row in found.items()} == {
        name: [WARM_UP + turn for turn in range(1, 6)] for name in "abc"}
    assert all(sorted(turn) == ["a", "b", "c"] for turn in zip(*[iter(log)] * 3, strict=True))


# -- numbers

@given(st.lists(st.floats(0, 1e6), min_size=1), st.integers(1, 100))
def test_percentile_is_a_value_that_so_many_do_not_exceed(values, percent):
    found = percentile(values, percent)
    assert found in values
    assert sum(one <= found for one in values) * 100 >= percent * len(values)
    assert sum(one < found for one in values) * 100 < percent * len(values)


def test_percentiles_of_a_hundred():
    values = list(range(100, 0, -1))
    assert [percentile(values, percent) for percent in (25, 50, 95, 99, 100)] == [25, 50, 95, 99, 100]


def test_ratio_is_taken_round_by_round():
    """A round in which the machine is ten times as slow changes nothing."""
    reference = [sample(total) for total in (1, 10, 1, 10)]
    found = ratio([sample(total) for total in (2, 20, 3, 30)], reference)
    assert found == (2.5, 2, 3)


# -- phases

def step(op: str, seconds: float | None, phase: Phase = Phase.PREPARE) -> StepReport:
    return StepReport(1, phase, Where.HOST, op, (), seconds)


def test_steps_are_counted_to_their_phase():
    found = by_phase([step("spawn", 1), step("clone3", None), step("mkdir", 2), step("mkdir", 3), step("enable", 4),
                      step("write", 5), step("read_back", 6), step("go", 7), step("stop_unit", 8, Phase.CLEANUP)])
    assert list(found.items()) == [("start", 1), ("create", 5), ("enable", 4), ("limit", 11), ("attach", 7),
                                   ("exec", 0), ("wait", 0), ("teardown", 0)]


@pytest.mark.parametrize("host", [V1, V2, V2._replace(userns=True, ids=True), V2._replace(uid=1000, userns=True)])
@pytest.mark.parametrize("wishes", [wishes for name, wishes in COLUMNS.items() if name != "none"])
def test_every_step_of_a_plan_has_a_phase(host, wishes):
    if host.uid == 0:
        wishes = {**wishes, "network": "veth", "publish": ["80:80"], "net_rate": "1mbit", "net_delay": "1ms"}
    host = host._replace(nodes=(Node("/dev/fuse", "c", 10, 229, 0o600, 0, 0),),
                         places=(Place("/dev/fuse", "file", "/dev/fuse"),))
    spec = make_spec(["true"], **bench.DEFAULT_LIMITS, cpu_burst=1000, device="/dev/fuse", **wishes)
    plan = get(spec.driver).compile(spec, host._replace(systemd_running=True, manager=V2.manager), name="box")
    ops = {one.op for one in plan.steps if one.where is Where.HOST and one.phase is not Phase.CLEANUP}
    assert ops
    assert ops <= OPS.keys()
    assert set(OPS.values()) <= PHASES.keys()


# -- the limits of others

def test_limits_for_others_on_cgroup_v1():
    told = bench_programs.values(LIMITS, V1)
    assert told == {"memory": 512 << 20, "swap": 512 << 20, "quota": 100_000, "period": 100_000, "pids": 64}
    assert list(bench_programs.properties(told, 1)) == ["-pCPUQuota=100%", "-pMemoryMax=536870912", "-pTasksMax=64"]
    assert bench_programs.resources(told) == {"memory": {"limit": 512 << 20, "swap": 1 << 30}, "pids": {"limit": 64},
                                              "cpu": {"quota": 100_000, "period": 100_000}}


def test_limits_for_others_on_cgroup_v2():
    limits = make_spec(["true"], cpus="0.25", memory="64M", swap_max="16M").limits
    told = bench_programs.values(limits, V2)
    assert list(bench_programs.properties(told, 2)) == ["-pCPUQuota=25%", "-pMemoryMax=67108864",
                                                        "-pMemorySwapMax=16777216"]
    assert bench_programs.resources(told)["memory"] == {"limit": 64 << 20, "swap": 80 << 20}


def test_no_limit_is_none_for_others_either():
    limits = make_spec(["true"], memory="max", pids_limit="max").limits
    assert bench_programs.values(limits, V2) == {}
    assert bench_programs.resources({}) == {}


def test_what_others_are_not_given_is_named():
    limits = make_spec(["true"], memory="64M", io_weight=50, memory_high="32M").limits
    assert bench_programs.untold(limits, V2) == ["--io-weight", "--memory-high"]


def test_wishes_as_flags():
    wishes = {"memory": "64M", "cpu_idle": True, "oom_group": False, "ulimit": ["nofile=9", "core=0"]}
    assert list(bench_programs.flags(wishes)) == ["--memory", "64M", "--cpu-idle", "--no-oom-group",
                                                  "--ulimit", "nofile=9", "--ulimit", "core=0"]


def test_limits_of_ones_own_replace_the_default_ones():
    assert bench.with_limits({"memory_high": "1G"}) == {"memory_high": "1G"}
    assert bench.with_limits({"cwd": "/"}) == {**bench.DEFAULT_LIMITS, "cwd": "/"}


# -- who takes part

def test_who_cannot_is_left_out_with_the_reason():
    def fail():
        raise SandboxError("cgroups in hybrid mode not supported")

    good = Contender("good", "good", lambda: sample(1))
    absent = Missing("absent", "it is not installed")
    contenders, missing = bench.able([Contender("bad", "bad", fail), absent, good])
    assert contenders == [good]
    assert missing == [("bad", "cgroups in hybrid mode not supported"), absent]


@pytest.mark.parametrize(("first", "second", "raised"), [
    (StepError("step 30 join 2", errno=errno.ENODEV), None, None),
    (StepError("step 30 join 2", errno=errno.ENODEV), StepError("step 30 join 2", errno=errno.ENODEV), "join"),
    (StepError("step 5 write", errno=errno.EINVAL), None, "write"),
    (SandboxError("the command did not end well"), None, "end well"),
])
def test_before_the_measured_launch_a_cgroup_may_be_removed(monkeypatch, first, second, raised):
    outcomes = iter((first, second))

    def launch(*_):
        outcome = next(outcomes)
        if outcome is not None:
            raise outcome
        return sample(1)

    monkeypatch.setattr(bench, "launch", launch)
    contender = bench._column("none", ["true"], {}, None)
    with pytest.raises(SandboxError, match=raised) if raised else nullcontext():
        assert contender.launch() == sample(1)
        assert next(outcomes, "none left") == "none left"


def test_drivers_are_named_with_commas_between_and_each_once():
    assert named("systemd, cgroupfs,,systemd") == ("systemd", "cgroupfs")
    assert named("") == ()


def test_a_driver_that_does_not_exist():
    with pytest.raises(SpecError, match="'systemd-servic'") as caught:
        named("cgroupfs,systemd-servic")
    assert "systemd-service" in caught.value.hint


# -- the command line

@pytest.mark.parametrize("wish", ["driver", "unit_type"])
def test_one_driver_is_no_comparison(wish):
    with pytest.raises(SpecError) as caught:
        command.bench(**{wish: "systemd"})
    assert "--drivers" in caught.value.hint


def test_the_configured_driver_does_not_count(tmp_path, monkeypatch):
    (tmp_path / "sandbox").mkdir()
    (tmp_path / "sandbox" / "config.toml").write_text('driver = "none"\n[limits]\nmemory = "1G"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    seen = {}

    def measured(argv, wishes, **settings):
        seen.update(settings, argv=argv, wishes=wishes)
        return result()

    monkeypatch.setattr(bench, "bench", measured)
    assert command.bench(drivers="cgroupfs, systemd", rounds=7, cpus="2") == 0
    assert seen == {"argv": ["true"], "wishes": {"memory": "1G", "cpus": "2"}, "rounds": 7, "program": (),
                    "drivers": ("cgroupfs", "systemd")}


def test_json_into_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(bench, "bench", lambda *words, **settings: result())
    assert command.bench(json=str(tmp_path / "times.json")) == 0
    assert json.loads((tmp_path / "times.json").read_text())["results"][0]["name"] == "cgroupfs"
    with pytest.raises(SpecError):
        command.bench(json=str(tmp_path / "absent" / "times.json"))


def test_the_help_says_what_each_phase_is():
    assert all(f"{name:<9} {text}" in (command.bench.__doc__ or "") for name, text in PHASES.items())


# -- what is shown

@pytest.mark.parametrize("programs", [True, False])
def test_the_tables_fit_80_columns(programs):
    lines = bench_table.text(result(programs=programs)).splitlines()
    assert max(map(len, lines)) <= 80, max(lines, key=len)
    assert all(line == line.rstrip() for line in lines)


def test_the_tables_say_everything():
    text = bench_table.text(result())
    for word in ("4 rounds", "--memory 512M", "systemd 252", "hybrid", "0.50 before", "left out: crun run, cgroupfs",
                 "only ours have: --io-weight", *PHASES):
        assert word in " ".join(text.split())
    line = next(line for line in text.splitlines() if line.startswith("systemd-run --scope"))
    assert line.split()[2:] == ["12.30", "12.30", "12.30", "0.123", "(0.123", "to", "0.123)"]


def test_phases_in_the_table_add_up():
    lines = bench_table.text(result()).splitlines()
    median = lines[lines.index("cgroupfs") + 1].split()
    assert median[0] == "p50"
    assert float(median[1]) == pytest.approx(sum(map(float, median[2:])))


@pytest.mark.parametrize(("seconds", "shown"), [(0.00000123, "0.00"), (0.0123456, "12.35"), (0.123456, "123.5"),
                                                (12.3456, "12346")])
def test_milliseconds(seconds, shown):
    assert bench_table.show(seconds) == shown


def test_json_has_the_keys_of_hyperfine():
    data = json.loads(json.dumps(bench_table.data(result())))
    row = data["results"][0]
    assert {"command", "mean", "stddev", "median", "user", "system", "min", "max", "times",
            "exit_codes"} <= row.keys()
    assert row["times"] == pytest.approx([0.036, 0.072, 0.108, 0.144])
    assert row["mean"] == pytest.approx(statistics.fmean(row["times"]))
    assert (row["user"], row["system"], row["exit_codes"]) == (0.25, 0.5, [0] * 4)
    assert [sum(parts) for parts in zip(*(part["times"] for part in row["phases"].values()), strict=True)
            ] == pytest.approx(row["times"])
    assert len({one["command"] for one in data["results"]}) == len(data["results"]) == 4
    assert "phases" not in data["results"][2]
    assert data["results"][3]["ratio"]["to"] == "sandbox run, systemd-service"
