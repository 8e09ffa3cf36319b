"""Compiling is pure, and every plan can be explained, written as a shell script and sent to sandbox-init."""

from __future__ import annotations

import builtins
import json
import os
import socket
from collections.abc import Callable
from dataclasses import replace

import pytest

from sandbox.box import compile_plan
from sandbox.draft import Draft
from sandbox.drivers import choose, get
from sandbox.errors import DriverUnavailable, SpecError
from sandbox.facts import Node, Place
from sandbox.init import wire
from sandbox.options import TABLE, make_spec
from sandbox.spec import Spec
from sandbox.spelling import flag_of
from sandbox.steps import Plan, Where
from sandbox.teach import explain, shell
from support.saved_hosts import HOSTS, SPECS, by, hosts_and_ways, spec

ANY = Spec(argv=("true",))


@pytest.mark.parametrize(("host", "way"), hosts_and_ways())
@pytest.mark.parametrize("name", [*SPECS, "devices"])
def test_a_plan_with_a_new_name_is_the_plan_for_that_name(name: str, host: str, way: str) -> None:
    machine = HOSTS[host]._replace(nodes=(Node("/dev/fuse", "c", 10, 229, 0o666, 0, 0),),
                                   places=(Place("/dev/fuse", "file", "/dev/fuse"),))
    wish = SPECS[name] if name in SPECS else spec(device=["/dev/fuse"], network="host", timeout="1")
    wish = by(way, wish)
    first, second = compile_plan(wish, machine), compile_plan(wish, machine)
    assert first[0].name != second[0].name
    for plan, reason in (first, second):
        assert (plan, reason) == compile_plan(wish, machine, name=plan.name)


@pytest.fixture
def ready() -> Draft:
    wish, machine = SPECS["limits"], HOSTS["debian13-v2"]
    draft = Draft(get("cgroupfs").compile(wish, machine, name="0123456789"))
    draft.prepare()
    return draft


def test_a_plan_that_is_ready_is_taken_once(ready: Draft) -> None:
    wish, machine = SPECS["limits"], HOSTS["debian13-v2"]
    first, second = ready.next(), ready.next()
    assert len({"0123456789", first.name, second.name}) == 3
    for plan in (first, second):
        assert plan == get("cgroupfs").compile(wish, machine, name=plan.name)


def test_a_fork_takes_no_plan_that_its_parent_has_ready(ready: Draft) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, ready.next().name.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with open(reader, encoding="ascii") as pipe:
        assert ready.next().name != pipe.read() != ""


@pytest.mark.parametrize("driver", ["cgroupfs", "none"])
def test_compiling_touches_nothing(driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = HOSTS["debian13-v2"]
    compiler = get(driver)
    expected = compiler.compile(SPECS["limits"], machine, name="pure")  # imports are done by now

    def poison(name: str) -> Callable[..., object]:
        def touch(*args: object, **kwargs: object) -> object:
            raise AssertionError(f"{name} was called")
        return touch

    for name in ("open", "stat", "lstat", "listdir", "mkdir", "getpid", "urandom", "access", "scandir", "readlink"):
        monkeypatch.setattr(os, name, poison(f"os.{name}"))
    monkeypatch.setattr(builtins, "open", poison("open"))
    monkeypatch.setattr(socket, "socket", poison("socket"))
    assert compiler.compile(SPECS["limits"], machine, name="pure") == expected


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("name", SPECS)
def test_every_step_is_explained_and_crosses_the_wire(name: str, host: str) -> None:
    machine = HOSTS[host]
    for driver in (choose(ANY, machine)[0], get("none")):
        plan = driver.compile(SPECS[name], machine, name="golden")
        assert {step.op for step in plan.steps} <= set(explain.OPS)
        for step in plan.steps:
            if step.where is not Where.HOST:
                assert wire.OPS[step.op][0] is step.where


def test_secrets_are_masked() -> None:
    machine = HOSTS["debian13-v2"]
    plan = get("cgroupfs").compile(SPECS["plain"], machine, name="golden")
    assert "hunter2" not in explain.text(plan, SPECS["plain"], machine)
    assert "hunter2" not in json.dumps(explain.data(plan, SPECS["plain"], machine))
    assert "hunter2" in explain.text(plan, SPECS["plain"], machine, show_env=True) + json.dumps(
        explain.data(plan, SPECS["plain"], machine, show_env=True))


@pytest.mark.parametrize("host", HOSTS)
def test_the_shell_form_is_a_shell_script(host: str) -> None:
    import subprocess

    machine = HOSTS[host]
    script = shell.script(choose(ANY, machine)[0].compile(SPECS["limits"], machine, name="golden"))
    assert subprocess.run(["sh", "-n"], input=script.encode(), check=False).returncode == 0


def test_choosing() -> None:
    assert choose(ANY, HOSTS["hybrid"])[0].name == "cgroupfs"
    assert choose(ANY, HOSTS["none"])[0].name == "none"
    with pytest.raises(DriverUnavailable, match="cgroupfs"):
        choose(replace(ANY, driver="cgroupfs"), HOSTS["none"])
    with pytest.raises(SpecError, match="kubernetes"):
        choose(replace(ANY, driver="kubernetes"), HOSTS["hybrid"])


def test_a_cgroup_parent_that_is_not_there_is_the_error_that_is_told() -> None:
    """And not that the driver for hosts without cgroups knows no parent."""
    machine = HOSTS["hybrid"]
    missing = machine._replace(hierarchies=tuple(
        tree._replace(parent=None, reason="there is no /x") for tree in machine.hierarchies))
    with pytest.raises(DriverUnavailable, match=r"cgroupfs driver cannot be used here: there is no /x") as caught:
        choose(replace(ANY, cgroup_parent="/x"), missing)
    assert caught.value.hint == "see `sandbox info`"  # no driver was asked for that could be left out
    with pytest.raises(DriverUnavailable, match="leave driver out"):
        choose(replace(ANY, cgroup_parent="/x", driver="cgroupfs"), missing)


@pytest.mark.parametrize("driver", ["cgroupfs", "none"])
def test_a_limit_of_processes_that_counts_those_of_the_host(driver: str) -> None:
    """RLIMIT_NPROC counts by user and user namespace, and root of the initial one is exempt from it."""
    def compiled(**wishes: object) -> Plan:
        wanted = make_spec(["true"], ulimit="nproc=5", timeout=5, **wishes)
        return get(driver).compile(wanted, HOSTS["hybrid"], name="x")

    shared = compiled(userns="host", user="4321:4321")
    [note] = [note for note in shared.notes if note.startswith("--ulimit nproc counts all processes of user 4321 ")]
    assert note in explain.text(shared, ANY, HOSTS["hybrid"])
    assert shared.unmet == ()
    root = compiled(userns="host")
    assert [(one.realises, one.remedy) for one in root.unmet] == [
        ("limits.ulimit", 'use pids_limit, or leave userns="host" out')]
    assert [row.realises for row in root.limits] == ["limits.timeout"]
    private = compiled()
    assert (private.unmet, [note for note in private.notes if "nproc" in note]) == ((), [])


def test_what_is_on_the_allow_list_is_no_secret() -> None:
    machine = HOSTS["debian13-v2"]
    plan = get("cgroupfs").compile(SPECS["plain"], machine, name="golden")
    assert "PATH=/usr/bin:/bin" in json.dumps(explain.data(plan, SPECS["plain"], machine))


def test_each_flag_that_a_step_names_is_an_option() -> None:
    flags = {option.flag for option in TABLE} | {""}
    for host, way in hosts_and_ways():
        for wanted in SPECS.values():
            plan = compile_plan(by(way, wanted), HOSTS[host], name="x")[0]
            assert {flag_of(step.realises) for step in plan.steps if step.realises} <= flags


@pytest.mark.parametrize("driver", ["systemd", "delegated"])
def test_a_property_of_a_type_that_the_saved_host_does_not_say_is_not_dropped(driver: str) -> None:
    wanted = spec(driver=driver, property=["CPUQuotaPeriodSec=10ms"])
    unmet, = compile_plan(wanted, HOSTS["debian13-v2"], name="x")[0].unmet
    assert unmet.realises == "property"
    assert "CPUQuotaPeriodSec=10ms" in unmet.reason


@pytest.mark.parametrize(("below", "moves"), [("", True), ("/processes", False)])
def test_who_is_moved_by_a_run_in_a_delegated_unit_is_told(below: str, moves: bool) -> None:
    machine, job = HOSTS["debian13-v2"], "/system.slice/job.scope"
    given = machine._replace(manager=machine.manager._replace(delegated=job), hierarchies=tuple(
        tree._replace(own=job + below) for tree in machine.hierarchies))
    plan = compile_plan(spec(driver="delegated"), given, name="x")[0]
    assert any(step.op == "split" for step in plan.steps) == moves
    assert any(f"moved to {job}/processes and stay there" in note for note in plan.notes) == moves


@pytest.mark.parametrize("wish", [{"unit": "mine"}, {"slice": "mine.slice"}, {"property": ["CPUWeight=5"]}])
def test_what_is_asked_of_a_unit_where_none_is_made_is_not_dropped(wish: dict[str, object]) -> None:
    machine = HOSTS["debian13-v2"]
    given = machine._replace(manager=machine.manager._replace(delegated="/system.slice/job.service"))
    unmet, = compile_plan(spec(driver="delegated", **wish), given, name="x")[0].unmet
    assert unmet.realises == next(iter(wish))
    assert "/system.slice/job.service" in unmet.reason
