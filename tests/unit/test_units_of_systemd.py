"""Limits as properties, and where a unit's cgroup is: pure conversions, each with its source in systemd."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sandbox.box import compile_plan
from sandbox.drivers import choose
from sandbox.drivers.properties import INFINITY, properties, rounded
from sandbox.drivers.systemd import SERVICE_MEMORY
from sandbox.drivers.unit import placed, slice_path
from sandbox.errors import DriverUnavailable, SpecError
from sandbox.facts import Disk, Hierarchy, Manager, Property
from sandbox.host import Host, from_json, to_json
from sandbox.options import make_spec
from sandbox.spec import Spec
from sandbox.steps import Plan
from sandbox.wishes import Wish, wishes
from support.saved_hosts import HOSTS, SPECS

CONTROLLERS = ("cpuset", "cpu", "io", "memory", "pids")
MANAGER = Manager(version=257, controllers=CONTROLLERS, problem="", remedy="")
HOST = Host(kernel="6.12", cgroup_mode="v2", systemd_running=True, manager=MANAGER, memory_total=1 << 30,
            hierarchies=(Hierarchy(version=2, controllers=CONTROLLERS, mount="/sys/fs/cgroup", usable=CONTROLLERS),),
            disks=(Disk(path="/data", device="254:0", chain=("/data", "254:0 vda")),))
ANY = Spec(argv=("true",))


def wish(**flags: object) -> Wish:
    found, unmet = wishes(make_spec(["true"], **flags).limits, placed(HOST, "/system.slice/x.scope"))
    assert not unmet
    return found[0]


@pytest.mark.parametrize(("cpus", "quota", "per_second"), [
    ("0.5", (50000, 100000), 500000), ("0.333", (34000, 100000), 340000), ("1.2346", (124000, 100000), 1240000),
    ("4.096", (410000, 100000), 4100000), ("0.01", (1000, 100000), 10000), ("0.001", (10000, 1000000), 10000)])
def test_whole_percent(cpus: str, quota: tuple[int, int], per_second: int) -> None:
    """runc#4622, #4982: what systemd keeps and what the file holds must be the same value."""
    fit = rounded(wish(cpus=cpus), 252)
    assert fit.value == quota
    assert properties(fit, 257)[0] == Property("CPUQuotaPerSecUSec", "t", (str(per_second),))
    assert rounded(fit, 252) == fit, "rounded once"
    assert ("whole percent" in fit.note) == (wish(cpus=cpus).value != quota)


@pytest.mark.parametrize(("flags", "told"), [
    ({"memory": "64m"}, [("MemoryMax", "t", ("67108864",))]),
    ({"memory": "max"}, [("MemoryMax", "t", (INFINITY,))]),
    ({"swap_max": "0"}, [("MemorySwapMax", "t", ("0",))]),
    ({"pids_limit": "max"}, [("TasksMax", "t", (INFINITY,))]),
    ({"cpu_idle": True}, [("CPUWeight", "t", ("0",))]),
    ({"cpuset_cpus": "0-2,9"}, [("AllowedCPUs", "ay", ("7", "2"))]),
    ({"cpu_quota": "30000", "cpu_period": "50000"},
     [("CPUQuotaPerSecUSec", "t", ("600000",)), ("CPUQuotaPeriodUSec", "t", ("50000",))]),
    ({"device_write_bps": ["/data:1m"]}, [("IOWriteBandwidthMax", "a(st)", ("/dev/block/254:0", "1048576"))]),
    ({"cpu_burst": "1000"}, []),
    ({"oom_group": True}, []),
])
def test_what_systemd_is_told(flags: dict[str, object], told: list[tuple[str, str, tuple[str, ...]]]) -> None:
    assert [tuple(one) for one in properties(rounded(wish(**flags), 252), 252)] == told


def test_an_old_systemd_has_no_idle() -> None:
    assert properties(wish(cpu_idle=True), 251) == ()


@pytest.mark.parametrize(("name", "path"), [
    ("system.slice", "/system.slice"), ("a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice"), ("-.slice", "")])
def test_slices(name: str, path: str) -> None:
    assert slice_path(name) == path


@pytest.mark.parametrize(("host", "flags", "driver"), [
    (HOST, {}, "systemd"),
    (HOST, {"slice": "a.slice"}, "systemd"),
    (HOST, {"cgroup_parent": "/x"}, "cgroupfs"),
    (HOST._replace(manager=MANAGER._replace(delegated="/a.scope")), {}, "delegated"),
    (HOST._replace(manager=Manager(problem="no bus", remedy="log in")), {}, "none"),
    (HOST._replace(systemd_running=False, manager=Manager()), {}, "cgroupfs"),
])
def test_auto(host: Host, flags: dict[str, object], driver: str) -> None:
    """With systemd there is one manager: never a cgroup behind its back, unless a place of that kind is asked for."""
    assert choose(replace(ANY, **flags), host)[0].name == driver  # type: ignore[arg-type]


@pytest.mark.parametrize("flags", [{"driver": "cgroupfs", "slice": "a.slice"}, {"driver": "none", "unit": "a"},
                                   {"driver": "delegated", "unit_type": "service"},
                                   {"driver": "systemd", "cgroup_parent": "/x"}])
def test_places_a_driver_does_not_know(flags: dict[str, str]) -> None:
    with pytest.raises(DriverUnavailable, match="means nothing to"):
        choose(replace(ANY, **flags), HOST)  # type: ignore[arg-type]


@pytest.mark.parametrize("flags", [{"unit": "a.mount"}, {"unit": "init"}, {"slice": "a--b"}, {"slice": "-a"},
                                   {"unit_type": "slice"}, {"property": "memorymax=1"}, {"property": "MemoryMax"},
                                   {"unit": "a.service"}, {"slice": "x.service"}])
def test_malformed_places(flags: dict[str, str]) -> None:
    with pytest.raises(SpecError):
        make_spec(["true"], **flags)


def test_a_property_that_contradicts_a_limit() -> None:
    spec = make_spec(["true"], driver="systemd", memory="32m", property=["Nice=5", "MemoryMax=64M"])

    def compiled(size: int) -> Plan:
        words = (Property("Nice", "i", ("5",)), Property("MemoryMax", "t", (str(size << 20),)))
        return compile_plan(spec, HOST._replace(manager=MANAGER._replace(properties=words)), name="x")[0]

    with pytest.raises(SpecError, match=r'memory="32M" and property="MemoryMax=64M" are two values for MemoryMax'):
        compiled(64)
    assert not compiled(32).unmet


def test_a_property_that_repeats_a_limit_of_a_service() -> None:
    """The limit of a service is higher than asked; the property is compared with what was asked, and not set again."""
    spec = make_spec(["true"], driver="systemd", unit_type="service", memory="64m", property=["MemoryMax=64M"])
    words = (Property("MemoryMax", "t", (str(64 << 20),)),)
    plan = compile_plan(spec, HOST._replace(manager=MANAGER._replace(properties=words)), name="x")[0]
    assert [step.args[2] for step in plan.steps if step.op == "property" and step.args[0] == "MemoryMax"] == [
        str((64 << 20) + SERVICE_MEMORY)]


def test_a_saved_host_keeps_its_manager() -> None:
    saved = HOST._replace(manager=MANAGER._replace(properties=(Property("CPUWeight", "t", ("5",)),)))
    assert from_json(to_json(saved)) == saved


@pytest.mark.parametrize(("driver", "unit_type", "version", "told"), [
    ("systemd", "scope", 253, ("OOMPolicy", "s", "continue")), ("systemd", "scope", 252, ("DelegateControllers", "as")),
    ("systemd", "service", 252, ("OOMPolicy", "s", "continue")), ("delegated", "scope", 252, ("Delegate", "b", "1"))])
def test_the_kernels_kill_of_one_process_does_not_stop_the_unit(driver: str, unit_type: str, version: int,
                                                                told: tuple[str, ...]) -> None:
    host = HOSTS["debian12-v2"]
    host = host._replace(manager=host.manager._replace(version=version))
    plan, _ = compile_plan(replace(SPECS["plain"], driver=driver, unit_type=unit_type), host, name="example")
    args = [step.args for step in plan.steps if step.op == "property"]
    assert told in args
    assert sum(words[0] in ("OOMPolicy", "Delegate", "DelegateControllers") for words in args) == 1
    assert not [note for note in plan.notes if "stops the whole scope" in note]


@pytest.mark.parametrize("driver", ["systemd", "delegated"])
def test_a_scope_of_an_old_systemd_ends_with_the_first_kill(driver: str) -> None:
    host = HOSTS["debian12-v2"]
    host = host._replace(manager=host.manager._replace(version=249))
    plan, _ = compile_plan(replace(SPECS["plain"], driver=driver), host, name="example")
    assert "systemd 249 stops the whole scope" in "".join(plan.notes)
    assert 'unit_type="service"' in "".join(plan.notes)
