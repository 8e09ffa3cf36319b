"""From paths to whole disks, on a sysfs made of plain files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox.disk import of_file_system, resolve


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    """sda with two partitions, sdb, nvme0n1 with one partition, loop0, zram0, md0 and four mapped devices."""
    for name, number in (("sda", "8:0"), ("sdb", "8:16"), ("nvme0n1", "259:0"), ("loop0", "7:0"), ("zram0", "253:0"),
                         ("md0", "9:0"), ("dm-0", "252:0"), ("dm-1", "252:1"), ("dm-2", "252:2"), ("dm-3", "252:3")):
        _device(tmp_path, f"sys/devices/block/{name}", number)
    for disk, part, number in (("sda", "sda1", "8:1"), ("sda", "sda2", "8:2"), ("nvme0n1", "nvme0n1p1", "259:1")):
        place = _device(tmp_path, f"sys/devices/block/{disk}/{part}", number)
        (place / "partition").write_text("1\n")
    for mapped, slaves in (("dm-0", ["sda/sda2"]), ("dm-1", ["dm-0"]), ("dm-2", ["sda/sda1", "sdb"]),
                           ("dm-3", ["sda/sda1", "sda/sda2"])):
        place = tmp_path / "sys/devices/block" / mapped
        (place / "dm").mkdir()
        (place / "slaves").mkdir()
        for slave in slaves:
            (place / "slaves" / os.path.basename(slave)).symlink_to(tmp_path / "sys/devices/block" / slave)
    return tmp_path


def _device(root: Path, path: str, number: str) -> Path:
    place = root / path
    place.mkdir(parents=True)
    (place / "dev").write_text(f"{number}\n")
    for link in (root / "sys/dev/block" / number, root / "sys/class/block" / place.name):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(place)
    return place


@pytest.mark.parametrize(("number", "disk", "steps"), [
    ("8:0", "8:0", ["8:0 sda"]),
    ("8:1", "8:0", ["8:1 sda1", "8:0 sda"]),
    ("259:1", "259:0", ["259:1 nvme0n1p1", "259:0 nvme0n1"]),
    ("7:0", "7:0", ["7:0 loop0"]),
    ("253:0", "253:0", ["253:0 zram0"]),
    ("9:0", "9:0", ["9:0 md0"]),
    ("252:1", "8:0", ["252:1 dm-1", "252:0 dm-0", "8:2 sda2", "8:0 sda"]),
    ("252:3", "8:0", ["252:3 dm-3", "8:1 sda1", "8:0 sda"]),
])
def test_devices_lead_to_the_whole_disk(sysfs: Path, number: str, disk: str, steps: list[str]) -> None:
    found = resolve(number, root=str(sysfs))
    assert (found.device, found.reason) == (disk, "")
    assert found.chain == (number, *steps)


def test_a_mapped_device_over_several_disks_is_not_one(sysfs: Path) -> None:
    found = resolve("252:2", root=str(sysfs))
    assert found.device == ""
    assert "several disks (sda1, sdb)" in found.reason


def test_a_mapped_device_over_nothing(sysfs: Path) -> None:
    (sysfs / "sys/devices/block/dm-0/slaves/sda2").unlink()
    assert "nothing below it" in resolve("252:0", root=str(sysfs)).reason


@pytest.mark.parametrize("number", ["999:0", "8:3"])
def test_unknown_numbers(sysfs: Path, number: str) -> None:
    found = resolve(number, root=str(sysfs))
    assert (found.device, found.reason) == ("", f"there is no block device {number}")


@pytest.mark.parametrize(("path", "words"), [
    ("/dev/null", "/dev/null is not a block device, file or directory"),
    ("/proc/self/status", "is on proc mounted at /proc"),
    ("/no/such/file", "No such file or directory"),
    ("/etc/passwd/x", "Not a directory"),
    ("a\0b", "null"),
    ("", "No such file or directory"),
    ("8:0:1", "No such file or directory"),
    ("\u0668:\u0660", "No such file or directory"),  # digits, but not ASCII ones
])
def test_what_is_no_disk_says_why(path: str, words: str) -> None:
    found = resolve(path)
    assert found.device == ""
    assert words in found.reason
    assert found.chain == (path,)


def _mounts(root: Path, *lines: str) -> None:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text("".join(f"{line}\n" for line in lines))


def test_btrfs_goes_by_the_source_of_the_mount(sysfs: Path) -> None:
    _mounts(sysfs, "27 1 8:1 / / rw - ext4 /dev/sda1 rw", "40 27 0:40 /@home /home rw - btrfs /dev/mapper/home rw")
    (sysfs / "home/me").mkdir(parents=True)
    (sysfs / "dev/mapper").mkdir(parents=True)
    (sysfs / "dev/mapper/home").symlink_to("../dm-0")
    found = of_file_system("/home/me", root=str(sysfs))
    assert found.device == "8:0"
    assert found.chain == ("/home/me", "btrfs on /dev/mapper/home", "252:0 dm-0", "8:2 sda2", "8:0 sda")


def test_btrfs_over_several_devices_is_not_one(sysfs: Path) -> None:
    _mounts(sysfs, "40 27 0:40 / /data rw - btrfs /dev/sda1 rw")
    for name in ("sda1", "sdb"):
        (sysfs / "sys/fs/btrfs/0f1e/devices" / name).mkdir(parents=True)
    assert "several devices (sda1, sdb)" in of_file_system("/data", root=str(sysfs)).reason


def test_btrfs_with_an_unknown_source(sysfs: Path) -> None:
    _mounts(sysfs, "40 27 0:40 / /data rw - btrfs /dev/root rw")
    assert "/dev/root is not in /sys/class/block" in of_file_system("/data", root=str(sysfs)).reason


def test_the_mount_on_top_counts(sysfs: Path) -> None:
    _mounts(sysfs, "40 27 0:40 / /data rw - btrfs /dev/sda1 rw", "41 40 0:41 / /data rw - overlay overlay rw",
            "42 40 0:42 / /dat rw - tmpfs tmpfs rw")
    assert "on overlay mounted at /data" in of_file_system("/data/deep", root=str(sysfs)).reason
