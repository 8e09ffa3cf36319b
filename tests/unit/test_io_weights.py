"""I/O weights: the file that counts, in its own unit, and the disks on which it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox import io_weights
from sandbox.drivers.properties import properties
from sandbox.facts import Disk, Hierarchy, Property
from sandbox.host import Host
from sandbox.knobs import bfq_from_io_weight, io_weight_from_bfq
from sandbox.options import make_spec
from sandbox.steps import Unmet
from sandbox.wishes import Wish, wishes

DISKS = (Disk("/data", "254:0"), Disk("/scratch", "254:16"))
V2 = Host(kernel="6.12", cgroup_mode="v2", disks=DISKS, hierarchies=(
    Hierarchy(2, ("io",), "/c", usable=("io",), files=("io.max", "io.weight", "io.bfq.weight")),))
V1 = Host(kernel="6.12", cgroup_mode="v1", disks=DISKS, hierarchies=(
    Hierarchy(1, ("blkio",), "/c", usable=("blkio",), files=("blkio.bfq.weight", "blkio.bfq.weight_device")),))
OLD = V1._replace(hierarchies=(V1.hierarchies[0]._replace(files=("blkio.weight", "blkio.weight_device")),))
BFQ, IOCOST = {"bfq": ("254:0",)}, {"iocost": ("254:0",)}


def made(host: Host, **limits: object) -> Wish | Unmet:
    found, unmet = wishes(make_spec(["true"], **limits).limits, host)
    (one,) = (*found, *unmet)
    return one


@pytest.mark.parametrize(("host", "limits", "file", "value"), [
    (V2._replace(**IOCOST), {"io_weight": "304"}, "io.weight", 304),
    (V2._replace(**IOCOST), {"blkio_weight": "500"}, "io.weight", 4950),
    (V2._replace(**BFQ), {"io_weight": "304"}, "io.bfq.weight", 118),
    (V2._replace(**BFQ), {"io_weight": "10000"}, "io.bfq.weight", 1000),
    (V2._replace(**BFQ), {"blkio_weight": "500"}, "io.bfq.weight", 500),
    (V2._replace(**BFQ, **IOCOST), {"blkio_weight": "500"}, "io.bfq.weight", 500),
    (V2._replace(**BFQ), {"blkio_weight_device": ["/data:500"]}, "io.bfq.weight", ("254:0", 500)),
    (V2._replace(**IOCOST), {"blkio_weight_device": ["/data:500"]}, "io.weight", ("254:0", 4950)),
    (V1._replace(**BFQ), {"io_weight": "200"}, "blkio.bfq.weight", 1000),
    (V1._replace(**BFQ), {"blkio_weight_device": ["/data:500"]}, "blkio.bfq.weight_device", ("254:0", 500)),
    (OLD, {"blkio_weight": "500"}, "blkio.weight", 500),
    (OLD, {"blkio_weight_device": ["/data:500"]}, "blkio.weight_device", ("254:0", 500)),
])
def test_the_file_that_counts(host: Host, limits: dict[str, object], file: str, value: object) -> None:
    wish = made(host, **limits)
    assert isinstance(wish, Wish)
    assert (wish.file, wish.value) == (file, value)


@pytest.mark.parametrize("host", [V1, V2])
@pytest.mark.parametrize("limits", [{"io_weight": "50"}, {"blkio_weight": "50"}, {"blkio_weight_device": ["/data:50"]}])
def test_disks_that_know_no_weights(host: Host, limits: dict[str, object]) -> None:
    unmet = made(host, **limits)
    assert isinstance(unmet, Unmet)
    assert "bfq" in unmet.reason
    assert "/sys/block/DISK/queue/scheduler" in unmet.remedy


def test_another_disk_honours_it() -> None:
    unmet = made(V2._replace(**BFQ), blkio_weight_device=["/scratch:50"])
    assert isinstance(unmet, Unmet)
    assert "this disk" in unmet.reason


def test_systemd_makes_of_its_weight_what_was_asked_for_in_that_of_bfq() -> None:
    assert all(bfq_from_io_weight(io_weight_from_bfq(weight)) == weight for weight in range(1, 1001))
    for_all, for_one = (made(V2._replace(**BFQ), **limits) for limits in (
        {"blkio_weight": "500"}, {"blkio_weight_device": ["/data:500"]}))
    assert isinstance(for_all, Wish)
    assert isinstance(for_one, Wish)
    assert properties(for_all, 257) == (Property("IOWeight", "t", ("4500",)),)
    assert properties(for_one, 257) == (Property("IODeviceWeight", "a(st)", ("/dev/block/254:0", "4500")),)


def test_probe(tmp_path: Path) -> None:
    for name, number, scheduler in (("vda", "254:0", "none mq-deadline [bfq]"), ("vdb", "254:16", "[none] bfq")):
        (tmp_path / "sys/block" / name / "queue").mkdir(parents=True)
        (tmp_path / "sys/block" / name / "dev").write_text(f"{number}\n")
        (tmp_path / "sys/block" / name / "queue/scheduler").write_text(f"{scheduler}\n")
    (tmp_path / "c").mkdir()
    (tmp_path / "c/io.cost.qos").write_text("254:0 enable=0 ctrl=auto\n254:16 enable=1 ctrl=user rpct=95.00\n")
    bare = V2._replace(hierarchies=(V2.hierarchies[0]._replace(files=("io.max",)),))
    found = io_weights.probe(bare, str(tmp_path))
    assert (found.bfq, found.iocost) == (("254:0",), ("254:16",))
    assert found.hierarchies[0].files == ("io.max", "io.bfq.weight")
    nothing = io_weights.probe(V2, str(tmp_path / "none"))
    assert (nothing.bfq, nothing.iocost) == ((), ())
