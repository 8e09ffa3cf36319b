"""The knob table: every row round-trips, every conversion has the value that the other tools give."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.knobs import (
    KNOBS,
    V1_UNLIMITED,
    Knob,
    blkio_from_io_weight,
    hugetlb,
    io_weight_from_blkio,
    other,
    shares_from_weight,
    weight_from_shares,
)
from sandbox.records import UNLIMITED

VALUES: dict[str, list[Any]] = {
    "cpus": [(50000, 100000), (UNLIMITED, 100000), (1000, 1000000)],
    "cpuset_cpus": ["0-2,4"],
    "cpuset_mems": ["0"],
    "io_weight": [100, 10, 1000],
    "blkio_weight_device": [("254:0", 300)],
    **{f"device_{way}_{what}": [("254:0", 1048576), ("254:0", UNLIMITED)]
       for way in ("read", "write") for what in ("bps", "iops")},
}
RESERVED = ("hugetlb.2MB.rsvd.max", "hugetlb.2MB.rsvd.limit_in_bytes")
ROWS = [(knob, version, value)
        for knob in (*KNOBS.values(), hugetlb(2 << 20), hugetlb(2 << 20, RESERVED)) for version in (1, 2)
        for value in VALUES.get(knob.field, [1, 4096]) if knob.files(version)]


def as_the_kernel_prints(knob: Knob, version: int, texts: tuple[str, ...]) -> tuple[str, ...]:
    """What is read after writing ``texts``, in the kernel's own layout (read off Linux 6.18 and 6.12)."""
    text = texts[0]
    if knob.field.startswith("device_") and version == 2:
        device, setting = text.split()
        others = [key for key in ("rbps", "wbps", "riops", "wiops") if not setting.startswith(key)]
        return (f"8:0 rbps=1 wbps=2 riops=3 wiops=4\n{device} {setting} " + " ".join(f"{key}=7" for key in others),)
    if knob.field.startswith("device_") and text.endswith(" 0"):
        return ("",)  # cgroup v1: 0 removes the line
    if text == "-1" and "memory" in knob.files(version)[0]:
        return (str(V1_UNLIMITED),)
    return tuple(f"{text}\n" for text in texts)


@pytest.mark.parametrize(("knob", "version", "value"), ROWS, ids=lambda one: getattr(one, "field", str(one)))
def test_round_trip(knob: Knob, version: int, value: Any) -> None:
    texts = knob.encode(value, version)
    assert len(texts) == len(knob.files(version))
    assert knob.decode(as_the_kernel_prints(knob, version, texts), version, value) == value


@pytest.mark.parametrize("knob", KNOBS.values(), ids=lambda knob: knob.field)
def test_a_different_value_is_seen(knob: Knob) -> None:
    version = 2 if knob.v2 else 1
    value = VALUES.get(knob.field, [4096])[0]
    texts = tuple(text.replace("1", "3").replace("5", "7").replace("0", "9").replace("4", "6").replace("8", "2")
                  if knob.field not in ("device_read_bps", "device_write_bps", "device_read_iops",
                                        "device_write_iops", "blkio_weight_device") else text + "3"
                  for text in knob.encode(value, version))
    assert knob.decode(texts, version, value) != value


def test_unlimited_memory_of_v1_is_a_huge_number() -> None:
    assert KNOBS["memory"].decode((f"{V1_UNLIMITED}\n",), 1, None) == UNLIMITED
    assert KNOBS["memory"].encode(UNLIMITED, 1) == ("-1",)


@pytest.mark.parametrize(("shares", "weight"), [
    (2, 1), (10, 4), (102, 17), (256, 35), (512, 59), (1024, 100), (2048, 174), (4096, 303), (8192, 532),
    (22000, 1204), (102400, 4429), (262144, 10000),
])
def test_shares_as_runc_converts_them(shares: int, weight: int) -> None:
    assert weight_from_shares(shares) == weight


@pytest.mark.parametrize(("weight", "shares"), [(1, 10), (100, 1024), (200, 2048), (10000, 102400)])
def test_weight_as_systemd_converts_it(weight: int, shares: int) -> None:
    assert shares_from_weight(weight) == shares


def test_io_weights() -> None:
    assert [io_weight_from_blkio(weight) for weight in (10, 100, 500, 1000)] == [1, 910, 4950, 10000]
    assert [blkio_from_io_weight(weight) for weight in (1, 100, 200, 10000)] == [10, 500, 1000, 1000]


@pytest.mark.parametrize(("size", "file"), [(2 << 20, "hugetlb.2MB.max"), (1 << 30, "hugetlb.1GB.max"),
                                            (64 << 10, "hugetlb.64KB.max")])
def test_huge_page_sizes_are_named_as_the_kernel_does(size: int, file: str) -> None:
    assert hugetlb(size).v2 == (file,)


def test_other_files_know_their_controller() -> None:
    assert other("memory.swap.high").controller == "memory"
    assert other("blkio.bfq.weight").controller_in(1) == "blkio"


@pytest.mark.parametrize("version", [1, 2])
def test_reservations_of_huge_pages_are_limited_too(version: int) -> None:
    knob = hugetlb(2 << 20, RESERVED)
    assert [file for file in knob.files(version) if "rsvd" in file] == [RESERVED[0 if version == 2 else 1]]
    with pytest.raises(ValueError, match="not the same"):
        knob.decode(("4194304\n", "8388608\n"), version, 4 << 20)
