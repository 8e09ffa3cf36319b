"""The probe against this machine's kernel, told apart by independent readers."""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from cgroupspy import nodes

from sandbox.disk import resolve
from sandbox.host import Host, from_json, probe, to_json

CGROUP2_SUPER_MAGIC = 0x63677270


@pytest.fixture(scope="module")
def host() -> Host:
    return probe(detail=True, paths=("/", "/dev/null", "999:0"))


def test_mode_agrees_with_statfs(host: Host) -> None:
    """statfs(2)'s ``f_type``, the first long of the structure, is what systemd goes by."""
    if not os.path.isdir("/sys/fs/cgroup"):
        pytest.skip("no /sys/fs/cgroup")
    structure = ctypes.create_string_buffer(512)
    assert ctypes.CDLL(None).statfs(b"/sys/fs/cgroup", structure) == 0
    magic = ctypes.c_long.from_buffer(structure).value
    assert (magic == CGROUP2_SUPER_MAGIC) == (host.cgroup_mode == "v2")


def test_every_own_cgroup_really_has_us(host: Host) -> None:
    for tree in host.hierarchies:
        if tree.reason:
            continue
        members = Path(tree.mount + tree.own, "cgroup.procs").read_text(encoding="ascii").split()
        assert str(os.getpid()) in members, tree.mount


@pytest.mark.requires("cgroup1")
def test_a_v1_tree_is_a_tree_to_cgroupspy_too(host: Host) -> None:
    memory = host.hierarchy("memory")
    assert memory is not None and memory.version == 1
    node = nodes.Node(f"{memory.own.lstrip('/')}".encode(), parent=nodes.Node(memory.mount.encode()))
    reader = nodes.Node.CONTROLLERS[b"memory"](node)
    assert reader.limit_in_bytes == int(Path(memory.mount + memory.own, "memory.limit_in_bytes").read_text("ascii"))
    assert "memory.limit_in_bytes" in memory.files


def test_a_child_has_the_files_that_were_promised(host: Host) -> None:
    """Makes one empty cgroup of its own in each tree, looks, and removes it.

    On v2 nothing is enabled for it, since that would change the parent, so only the core files are compared.
    """
    for tree in host.hierarchies:
        if tree.parent is None:
            continue
        promised = {name for name in tree.files if tree.version == 1 or name.startswith("cgroup.")}
        place = Path(tree.mount + tree.parent.rstrip("/"), f"sandbox-test-probe-{os.getpid()}")
        place.mkdir()
        try:
            missing = promised - set(os.listdir(place))
        finally:
            place.rmdir()
        assert not missing, tree.mount


def test_totals_agree_with_psutil() -> None:
    host = probe()
    assert host.memory_total == psutil.virtual_memory().total
    assert host.swap_total == psutil.swap_memory().total
    assert host.cpus == psutil.cpu_count()
    assert host.page_size == os.sysconf("SC_PAGE_SIZE")


def test_detail_only_adds(host: Host) -> None:
    quick = probe()
    assert (quick.lsm, quick.distribution) == ((), None)
    assert (host.kernel, host.namespaces) == (quick.kernel, quick.namespaces)
    # probe() takes the names of the files from a child cgroup, and a test beside this one may have just created one.
    seen = [[tree._replace(files=()) for tree in one.hierarchies] for one in (host, quick)]
    assert seen[0] == seen[1]
    assert from_json(to_json(host)) == host


def test_root_directory_is_on_a_whole_disk_or_says_why(host: Host) -> None:
    disk = host.disk("/")
    assert disk is not None
    if disk.reason:
        assert os.major(os.stat("/").st_dev) == 0 or "several" in disk.reason
    else:
        assert not Path(f"/sys/dev/block/{disk.device}/partition").exists()
    for wrong in ("/dev/null", "999:0"):
        refused = host.disk(wrong)
        assert refused is not None and refused.device == "" and refused.reason


@pytest.fixture
def partitioned(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A loop device and one partition of it, which addpart(8) makes even where the kernel reads no partition table."""
    if shutil.which("losetup") is None or shutil.which("addpart") is None:
        pytest.skip("no losetup or addpart")
    image, part = tmp_path / "disk", tmp_path / "part"
    with open(image, "wb") as file:
        file.truncate(4 << 20)
    done = subprocess.run(("losetup", "--find", "--show", str(image)), capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no loop device: {done.stderr.strip()}")
    disk = done.stdout.strip()
    try:
        subprocess.run(("addpart", disk, "1", "2048", "2048"), check=True)
        number = Path(f"/sys/class/block/{Path(disk).name}p1/dev").read_text(encoding="ascii")
        major, minor = map(int, number.split(":"))
        os.mknod(part, stat.S_IFBLK | 0o600, os.makedev(major, minor))  # no udev needed
        yield disk, str(part)
    finally:
        subprocess.run(("delpart", disk, "1"), check=False)
        subprocess.run(("losetup", "--detach", disk), check=True)


@pytest.mark.requires("root")
def test_a_partition_resolves_to_its_disk(partitioned: tuple[str, str]) -> None:
    disk, part = partitioned
    number = os.stat(disk).st_rdev
    found = resolve(part)
    assert (found.device, found.reason) == (f"{os.major(number)}:{os.minor(number)}", "")
    assert len(found.chain) == 3 and found.chain[1].endswith("p1")
