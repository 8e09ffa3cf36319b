"""From limits to values: percents, pages, quota rounding, swap in both units, and what cannot be done."""

from __future__ import annotations

import pytest

from sandbox.errors import SpecError
from sandbox.facts import Disk, Hierarchy
from sandbox.host import Host
from sandbox.options import make_spec
from sandbox.steps import Unmet
from sandbox.wishes import Wish, wishes

V1_FILES = ("cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.shares", "memory.limit_in_bytes",
            "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes", "pids.max", "blkio.bfq.weight")
V1 = Host(kernel="6.18", cgroup_mode="v1", memory_total=1 << 30, swap_total=1 << 30, bfq=("254:0",), hierarchies=(
    Hierarchy(version=1, controllers=("cpu", "memory", "pids", "blkio"), mount="/c",
              usable=("cpu", "memory", "pids", "blkio"), files=V1_FILES),))
V2 = Host(kernel="6.12", cgroup_mode="v2", memory_total=1 << 30, swap_total=1 << 30, hierarchies=(
    Hierarchy(version=2, controllers=("cpu", "memory", "pids", "io"), mount="/c", usable=("cpu", "memory", "pids")),))


def values(host: Host, **limits: object) -> dict[str, object]:
    found, _ = wishes(make_spec(["true"], **limits).limits, host)
    return {wish.knob.field: wish.value for wish in found}


def only(host: Host, **limits: object) -> Wish | Unmet:
    found, unmet = wishes(make_spec(["true"], **limits).limits, host)
    (one,) = (*found, *unmet)
    return one


@pytest.mark.parametrize(("cpus", "quota", "period"), [
    ("0.5", 50000, 100000), ("1.5", 150000, 100000), ("0.333", 33300, 100000), ("0.01", 1000, 100000),
    ("0.005", 1000, 200000), ("0.001", 1000, 1000000),
])
def test_quota(cpus: str, quota: int, period: int) -> None:
    assert values(V2, cpus=cpus) == {"cpus": (quota, period)}


def test_percent_of_memory_in_whole_pages() -> None:
    assert values(V2, memory="10%", swap_max="max") == {"memory": (1 << 30) // 10 // 4096 * 4096, "swap_max": "max"}


@pytest.mark.parametrize(("limits", "v1", "v2"), [
    ({"memory": "64m", "memory_swap": "96m"}, 96 << 20, 32 << 20),
    ({"memory": "64m", "memory_swap": "64m"}, 64 << 20, 0),
    ({"memory": "64m", "memory_swap": "-1"}, "max", "max"),
    ({"memory": "64m", "swap_max": "0"}, 64 << 20, 0),
    ({"memory": "64m", "swap_max": "16m"}, 80 << 20, 16 << 20),
    ({"memory": "64m"}, 128 << 20, 64 << 20),
])
def test_swap_means_the_same_on_both_versions(limits: dict[str, str], v1: object, v2: object) -> None:
    assert values(V1, **limits)["swap_max"] == v1
    assert values(V2, **limits)["swap_max"] == v2


def test_no_swap_limit_is_invented_where_there_is_no_swap() -> None:
    assert "swap_max" not in values(V2._replace(swap_total=0), memory="64m")


@pytest.mark.parametrize(("host", "limits", "words"), [
    (V1, {"memory_high": "64m"}, ("memory.high", "memory", "v1")),
    (V1, {"swap_max": "1m"}, ("memory.memsw.limit_in_bytes",)),
    (V1, {"cpu_burst": "1000"}, ("cpu.cfs_burst_us", "kernel")),
    (V1, {"cpuset_cpus": "0"}, ("cpuset",)),
    (V2, {"memory_swappiness": "10"}, ("memory.swappiness",)),
    (V2, {"io_weight": "100"}, ("io.weight", "io controller", "/c/")),
    (V2, {"device_read_bps": ["/x:1m"]}, ("/x",)),
    (V2, {"hugetlb": ["2M:4M"]}, ("hugetlb.2MB.max",)),
])
def test_what_cannot_be_done_names_file_and_remedy(host: Host, limits: dict[str, object],
                                                   words: tuple[str, ...]) -> None:
    unmet = only(host, **limits)
    assert isinstance(unmet, Unmet)
    assert unmet.remedy
    for word in words:
        assert word in unmet.reason


def test_shares_and_weights_convert_and_say_so() -> None:
    shares = only(V2, cpu_shares="512")
    assert isinstance(shares, Wish)
    assert (shares.value, shares.realises) == (59, "limits.cpu_shares")
    assert "512" in shares.note
    assert values(V1, cpu_shares="512") == {"cpu_weight": 512}
    assert values(V1, cpu_weight="100") == {"cpu_weight": 1024}
    assert values(V1, io_weight="100") == {"io_weight": 500}


DISK = V2._replace(hierarchies=(V2.hierarchies[0]._replace(usable=("cpu", "memory", "pids", "io", "hugetlb"),
                                                          controllers=("cpu", "memory", "pids", "io", "hugetlb")),),
                   iocost=("254:0",), disks=tuple(Disk(path, "254:0") for path in ("/", "/dev/vda")))


@pytest.mark.parametrize(("limits", "words"), [
    ({"device_write_bps": ["/dev/vda:1m", "/:2m"]}, ("/dev/vda:1048576", "/:2097152", "io.max of disk 254:0")),
    ({"blkio_weight_device": ["/dev/vda:100", "/:200"]}, ("/dev/vda:100", "/:200", "io.weight of disk 254:0")),
    ({"hugetlb": ["2M:4M", "2048k:8M"]}, ('hugetlb="2M:4M"', 'hugetlb="2M:8M"', "hugetlb.2MB.max")),
    ({"cgroup_conf": ["pids.max=3", "pids.max=4"]}, ("pids.max=3", "pids.max=4")),
    ({"pids_limit": "4", "cgroup_conf": ["pids.max=30"]}, ('pids_limit="4"', 'cgroup_conf="pids.max=30"')),
    ({"cpus": "1", "cgroup_conf": ["cpu.max=50000 100000"]}, ('cpus="1"', 'cgroup_conf="cpu.max=50000 100000"')),
])
def test_two_values_for_one_thing(limits: dict[str, object], words: tuple[str, ...]) -> None:
    with pytest.raises(SpecError, match="are two values for") as raised:
        wishes(make_spec(["true"], **limits).limits, DISK)
    for word in words:
        assert word in raised.value.message


def test_values_beyond_what_the_kernel_counts() -> None:
    assert values(V1, memory=str(2**63 - 1)) == {"memory": "max"}
    with pytest.raises(SpecError, match=r'device_read_iops="/:4294967296" is more than the kernel can count'):
        wishes(make_spec(["true"], device_read_iops=["/:4294967296"]).limits, DISK)


@pytest.mark.parametrize(("limits", "note"), [
    ({"memory_low": "64m"}, "a soft limit on cgroup v1"), ({"cpu_burst": "1000"}, "no effect"),
    ({"cpu_period": "50000"}, "no effect"), ({"cpu_burst": "1000", "cpu_quota": "max"}, "no effect"),
    ({"cpu_burst": "1000", "cpus": "1"}, ""),
])
def test_what_a_value_does_not_do(limits: dict[str, object], note: str) -> None:
    found = wishes(make_spec(["true"], **limits).limits, V1 if "memory_low" in limits else V2)[0]
    assert any(note in wish.note for wish in found) if note else not any("effect" in wish.note for wish in found)


@pytest.mark.parametrize("limits", [{"cpu_idle": True}, {"cgroup_conf": ["cpu.idle=1"]}])
@pytest.mark.parametrize("weight", [{"cpu_weight": "5"}, {"cpu_shares": "5"}])
def test_an_idle_command_has_no_weight(limits: dict[str, object], weight: dict[str, object]) -> None:
    with pytest.raises(SpecError, match="has no weight"):
        make_spec(["true"], **limits, **weight)


@pytest.mark.parametrize("limits", [
    {"device_write_bps": ["/:1m"], "device_read_bps": ["/:2m"]},
    {"device_write_bps": ["/:1m", "/dev/vda:1m"]},
    {"cgroup_conf": ["io.max=254:0 rbps=1", "io.max=254:16 rbps=2"]},
    {"io_weight": "50", "blkio_weight_device": ["/:200"]},
])
def test_values_for_several_things(limits: dict[str, object]) -> None:
    assert wishes(make_spec(["true"], **limits).limits, DISK)[1] == []
