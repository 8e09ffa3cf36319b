"""Figures from kernel files, whose layout was read off real machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.cgroup.files import read_all
from sandbox.steps import Read
from sandbox.usage import Usage, add_samples, collect, kept

PSI = "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=250000\n"
BLKIO = "254:0 Read 4096\n254:0 Write 8388608\n254:0 Sync 1\n254:0 Total 8392704\nTotal 8392704\n"


def read(directory: Path, figure: str, name: str, text: str, key: str = "", unit: str = "1") -> Read:
    path = directory / name
    path.write_text(text)
    return Read(figure=figure, file=str(path), key=key, unit=unit)


def gather(reads: list[Read]) -> Usage:
    return collect(reads, read_all(kept(reads)))


def test_units(tmp_path: Path) -> None:
    usage = gather([
        read(tmp_path, "cpu_time", "cpuacct.usage", "1500000000\n", unit="ns"),
        read(tmp_path, "throttled_time", "cpu.stat", "nr_periods 30\nthrottled_usec 250000\n", "throttled_usec", "us"),
        read(tmp_path, "memory_peak", "memory.peak", "67108864\n"),
    ])
    assert (usage.cpu_time, usage.throttled_time, usage.memory_peak) == (1.5, 0.25, 67108864)


def test_disks_of_both_versions(tmp_path: Path) -> None:
    one = gather([read(tmp_path, "io", "blkio.throttle.io_service_bytes_recursive", BLKIO, unit="blkio"),
                   read(tmp_path, "io", "blkio.throttle.io_serviced_recursive", BLKIO.replace("8388608", "9"),
                        unit="blkio")]).io
    two = gather([read(tmp_path, "io", "io.stat", "254:0 rbytes=4096 wbytes=8388608 rios=4096 wios=9 dbytes=0\n",
                        unit="io.stat")]).io
    assert one == two
    (disk,) = one
    assert (disk.device, disk.read_bytes, disk.write_bytes, disk.write_operations) == ("254:0", 4096, 8 << 20, 9)


def test_pressure(tmp_path: Path) -> None:
    usage = gather([read(tmp_path, "pressure", "memory.pressure", PSI, unit="psi")])
    assert usage.pressure == {"memory": {"some": 1.5, "full": 0.25}}


@pytest.mark.parametrize("text", ["", "garbage\n", "nr_throttled 3\n"])
def test_what_is_not_there_is_null_and_says_why(tmp_path: Path, text: str) -> None:
    usage = gather([read(tmp_path, "periods", "cpu.stat", text, "nr_periods"),
                     Read(figure="memory_peak", file=str(tmp_path / "memory.peak"))])
    assert usage.periods is None
    assert usage.memory_peak is None
    assert "nr_periods" in usage.sources["periods"]
    assert "memory.peak" in usage.sources["memory_peak"]


def test_a_sampled_figure_says_so() -> None:
    peak = Read(figure="pids_peak", file="/cgroup/pids.current", watch="pids_peak")
    usage = gather([peak])
    add_samples(usage, [peak], {"pids_peak": 7})
    assert usage.pids_peak == 7
    assert "samples" in usage.sources["pids_peak"]


def test_a_run_too_short_to_be_sampled_has_no_figure() -> None:
    peak = Read(figure="pids_peak", file="/cgroup/pids.current", watch="pids_peak")
    usage = gather([peak])
    add_samples(usage, [peak], {"pids_peak": 0})
    assert usage.pids_peak is None
    assert "too short" in usage.sources["pids_peak"]
