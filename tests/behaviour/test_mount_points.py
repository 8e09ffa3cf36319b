"""Where volumes go: behind links, in directories of other owners, and beside mounts that nobody sees."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.sandbox_run import Program

pytestmark = [pytest.mark.matter("isolation"), pytest.mark.drivers("none")]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.write_text("what it holds\n")
    return file


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "directory"
    directory.mkdir()
    return directory


def test_a_link_on_the_way(sandbox: Program, file: Path) -> None:
    """crun#1463. Fails where the mount point is looked for beside the link: / is read-only."""
    assert os.readlink("/var/run") == "/run"
    done = sandbox("-v", f"{file}:/var/run/service/there", "--", "cat", "/run/service/there")
    assert done.out == b"what it holds\n", done


@pytest.mark.parametrize("target, made", [("missing", "/mnt/missing"), ("/tmp/missing", "/tmp/missing"),
                                          ("/../../tmp/missing", "/tmp/missing")])
def test_a_link_to_nothing_as_the_target(sandbox: Program, file: Path, directory: Path, target: str,
                                         made: str) -> None:
    (directory / "link").symlink_to(target)
    done = sandbox("-v", f"{directory}:/mnt", "-v", f"{file}:/mnt/link", "--", "cat", "/mnt/link", made)
    assert done.out == 2 * b"what it holds\n", done
    assert not Path("/tmp/missing").exists()


def test_a_link_to_itself_as_the_target(sandbox: Program, file: Path, directory: Path) -> None:
    (directory / "link").symlink_to("link")
    done = sandbox("-v", f"{directory}:/mnt", "-v", f"{file}:/mnt/link", "--", "true")
    assert done.code == 125
    assert "/mnt/link" in done.err


@pytest.mark.requires("root", "idmap")
@pytest.mark.parametrize("flags", [("-v", "{file}:/mnt/there"), ("-v", "{file}:/mnt/new/there"),
                                   ("--tmpfs", "/mnt/there")])
@pytest.mark.parametrize("user", [(), ("-u", "1000:1000")], ids=["root inside", "its owner"])
def test_a_mount_point_in_a_directory_of_another_owner(sandbox: Program, file: Path, directory: Path,
                                                       user: tuple[str, ...], flags: tuple[str, ...]) -> None:
    """Fails where the init makes it without CAP_DAC_OVERRIDE: permission denied."""
    directory.chmod(0o755)
    os.chown(directory, 1000, 1000)
    flags = tuple(word.format(file=file) for word in flags)
    where = flags[1].rpartition(":")[2]
    done = sandbox(*user, "-v", f"{directory}:/mnt", *flags, "--", "stat", "-c", "%F", where)
    assert done.code == 0, done


@pytest.mark.only("none")
@pytest.mark.requires("root")
@pytest.mark.parametrize("flags", [("--overlay",), ()], ids=["overlay", "read-only"])
def test_a_mount_that_another_hides_does_not_count(sandbox: Program, directory: Path, flags: tuple[str, ...]) -> None:
    """Fails where every line of mountinfo is taken for a mount that a path leads to."""
    hide = ("mkdir $0/a $0/a/b && mount --bind /usr $0/a/b && mount -t tmpfs none $0/a && mkdir $0/a/b && "
            "touch $0/a/b/seen && exec \"$@\"")
    wrap = ("unshare", "-m", "sh", "-c", hide, str(directory))
    done = sandbox(*flags, "-v", f"{directory}/a/b:/mnt", "--", "ls", "/mnt", wrap=wrap)
    assert done.out == b"seen\n", done
