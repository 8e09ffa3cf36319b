"""I/O limits: a path becomes the whole disk, and direct writes are as slow as they should be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.machine import cgroup_file
from support.sandbox_run import Program
from support.warm_program import warm

sandbox = warm
pytestmark = [pytest.mark.matter("limits"), pytest.mark.requires("disk")]


@pytest.fixture
def disk(tmp_path: Path) -> str:
    """``MAJ:MIN`` of the whole disk under the temporary directory."""
    device = os.stat(tmp_path).st_dev
    link = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
    if (link / "partition").exists():
        link = link.parent
    if (link / "dm").exists():
        pytest.skip("the disk is behind a device mapper")
    return (link / "dev").read_text().strip()


@pytest.mark.matter("values")
@pytest.mark.alone
def test_direct_writes_are_limited(sandbox: Program, tmp_path: Path, disk: str) -> None:
    """2 MiB at 1 MiB/s take 2 s, on a busy machine more, never less. Four writers: one always waits for the limit."""
    write = f"dd if=/dev/zero of={tmp_path}/$n bs=128k count=4 oflag=direct"
    words = ("--device-write-bps", f"{tmp_path}:1m", "--", "sh", "-c", f"for n in 1 2 3 4; do {write} & done; wait")
    done = sandbox(*words)
    assert done.code == 0, done.err
    assert done.usage["wall_time"] >= 0.85 * 2
    limit = done.limit("--device-write-bps")
    assert limit["enforced"] and f"{disk} " in limit["read_back"] and str(1 << 20) in limit["read_back"]
    row = next(row for row in done.usage["io"] if row["device"] == disk)
    assert row["write_bytes"] == 2 << 20
    assert row["write_operations"] >= 16


@pytest.mark.requires("cgroup1")
def test_report_says_what_v1_does_not_limit(sandbox: Program, tmp_path: Path) -> None:
    done = sandbox("--device-write-bps", f"{tmp_path}:100m", "--", "true")
    assert any("buffered" in note for note in done.report["notes"])


def _paths(tmp_path: Path) -> list[str]:
    (tmp_path / "file").touch()
    device = os.stat(tmp_path).st_dev
    name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
    return [str(tmp_path), str(tmp_path / "file"), f"/dev/{name}", f"{os.major(device)}:{os.minor(device)}"]


@pytest.mark.once
@pytest.mark.parametrize("which", range(4), ids=["directory", "file", "device or partition", "number"])
def test_path_becomes_the_disk(sandbox: Program, tmp_path: Path, disk: str, which: int) -> None:
    path = _paths(tmp_path)[which]
    if path.startswith("/dev/") and not os.path.exists(path):
        pytest.skip(f"no {path}")
    with sandbox.start("--device-read-iops", f"{path}:1000", "--", "sh", "-c", "echo up; read line") as running:
        assert running.read_line() == b"up\n"
        try:
            text = cgroup_file(running.name, "blkio.throttle.read_iops_device").read_text()
            assert text.split() == [disk, "1000"]
        except StopIteration:
            assert f"{disk} " in (text := cgroup_file(running.name, "io.max").read_text())
            assert "riops=1000" in text
        assert running.finish(b"\n").code == 0


@pytest.mark.once
@pytest.mark.parametrize("path", ["/dev/null", "999:0", "/proc", "/no/such/file"])
def test_what_has_no_disk_is_refused(sandbox: Program, tmp_path: Path, path: str) -> None:
    done = sandbox("--device-write-bps", f"{path}:1m", "--", "touch", str(tmp_path / "ran"))
    assert done.code == 125
    assert path in done.err
    assert "--device-write-bps" in done.err
    assert not (tmp_path / "ran").exists()
