"""The steps that make the file system inside, in plans made by hand: trees, places, masks, overlays, devices."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from support.bare_launcher import plan, shell
from support.isolation_plans import (
    HOST,
    NODEV,
    NOEXEC,
    NOSUID,
    PIVOT,
    RDONLY,
    ROOT,
    Output,
    Row,
    RunIt,
    held,
    in_rootfs,
    plain,
    python,
    rootless,
    tree,
)

pytestmark = pytest.mark.requires("root")


@pytest.mark.requires("idmap")
def test_the_hosts_files_look_as_they_do_outside(output: Output) -> None:
    """Root's files are root's, and what only root may read can be read; none of it can be written."""
    script = "stat -c '%u %g %a' / /etc/shadow /root; cat /etc/shadow >/dev/null; ! touch /etc/x /etc/shadow 2>&1"
    wanted = [f"{status.st_uid} {status.st_gid} {status.st_mode & 0o7777:o}"
              for status in map(os.stat, ("/", "/etc/shadow", "/root"))]
    text = output(plan(shell(script), enter=held(*HOST, PIVOT), workload=ROOT)).splitlines()
    assert text[:3] == wanted
    assert ["Read-only file system" in line for line in text[3:]] == [True, True]


def test_nothing_of_the_old_root_is_left(output: Output, rootfs: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    enter = in_rootfs(rootfs, ("mount", "proc", "/proc", 0, ""), PIVOT)
    text = output(plan(shell("cat /proc/self/mountinfo; ls /; cd /; cd ..; pwd"), enter=enter, workload=ROOT))
    mounts = [line.split() for line in text.splitlines() if " - " in line]
    assert [mount[4] for mount in mounts] == ["/", "/usr", "/proc"]
    assert text.split()[-1] == "/"
    assert "boot" not in text.split()
    assert Path("/proc/self/mountinfo").read_text() == before


def test_pivot_twice_or_without_a_root_is_refused(run: RunIt) -> None:
    assert run(plan(("/bin/true",), enter=plain(PIVOT))).record("failed")[1:] == [str(errno.EBADF), "init"]
    again = plain(tree("/"), ("root", 0), PIVOT, PIVOT)
    assert run(plan(("/bin/true",), enter=again)).record("failed")[0] == "7"


def test_what_is_missing_is_made_for_the_root_of_the_inside(output: Output, rootfs: Path, tmp_path: Path) -> None:
    """On an id-mapped tree, in which the host's root is nobody."""
    (tmp_path / "file").write_text("content")
    enter = in_rootfs(rootfs, tree(tmp_path / "file", slot=2), ("place", 2, "/a/b/file"),
                      tree("/etc", slot=3), ("place", 3, "/a/etc"), ("mkdir_in", "/made", 0o1777),
                      ("mkdir_in", "/made", 0o700), PIVOT)
    assert output(plan(shell("cat /a/b/file; ls -d /a/etc/passwd; stat -c %u.%a /made /a /a/b"), enter=enter,
                       workload=ROOT)).split() == ["content/a/etc/passwd", "0.1777", "0.755", "0.755"]
    for path in (rootfs / "a" / "b", rootfs / "a" / "b" / "file", rootfs / "made"):
        assert path.stat().st_uid == 0


def test_a_read_only_root_gets_no_new_directory(run: RunIt, rootfs: Path, tmp_path: Path) -> None:
    steps = plan(("/bin/true",), enter=in_rootfs(rootfs, tree(tmp_path, slot=2), ("place", 2, "/new/place"),
                                                 attributes=RDONLY))
    assert run(steps).record("failed")[1:] == [str(errno.EROFS), "init"]
    assert not (rootfs / "new").exists()


def test_mkdir_in_minds_no_umask(output: Output) -> None:
    old = os.umask(0o077)
    try:
        enter = held(*HOST, ("mount", "tmpfs", "/tmp", 0, "mode=1777,size=64k"), ("mkdir_in", "/tmp/x", 0o1777),
                     ("symlink_in", "x", "/tmp/y"))
        script = "stat -c %u.%a /tmp/x/ /tmp/y/; readlink /tmp/y; umask"
        assert output(plan(shell(f"cd /; {script}"), enter=[*enter, PIVOT], workload=ROOT)).split() == [
            "0.1777", "0.1777", "x", "0077"]
    finally:
        os.umask(old)


def test_mount_options_and_attributes_arrive(output: Output) -> None:
    enter = plain(("mount", "tmpfs", "/mnt", NOSUID | NODEV | NOEXEC, "size=64k,mode=0751,nr_inodes=100"),
                  ("mount", "proc", "/proc", 0, ""))
    line = output(plan(shell("grep ' /mnt ' /proc/self/mounts"), enter=enter)).split()
    assert {"nosuid", "nodev", "noexec", "size=64k", "mode=751", "nr_inodes=100"} <= set(line[3].split(","))


@pytest.mark.parametrize("place", ["proc", "sys", "dev"])
@pytest.mark.parametrize("id_mapped", [0, 1])
def test_a_rootfs_cannot_send_the_fixed_places_elsewhere(run: RunIt, rootfs: Path, tmp_path: Path, place: str,
                                                         id_mapped: int) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (rootfs / place).rmdir()
    (rootfs / place).symlink_to(outside)
    for target in (f"/{place}", f"/{place}/below"):
        one = run(plan(("/bin/true",), enter=in_rootfs(
            rootfs, ("mount", "tmpfs", target, 0, ""), id_mapped=id_mapped)))
        assert one.record("failed")[1:] == [str(errno.ELOOP), "init"]
    for step in (("mask", f"/{place}/x"), ("read_only", f"/{place}"), ("mkdir_in", f"/{place}/x", 0o755),
                 ("symlink_in", "x", f"/{place}/x")):
        one = run(plan(("/bin/true",), enter=in_rootfs(rootfs, step, id_mapped=id_mapped)))
        assert one.record("failed")[1:] == [str(errno.ELOOP), "init"]
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("link", ["/outside", "../../../../outside", "/proc/self/cwd", "/proc/1/root"])
def test_links_in_a_rootfs_stay_in_it(run: RunIt, rootfs: Path, tmp_path: Path, link: str) -> None:
    """A volume whose place is a link: it leads to somewhere in the rootfs, or nowhere."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (rootfs / "data").symlink_to(link.replace("/outside", str(outside)) if "proc" not in link else link)
    enter = in_rootfs(rootfs, ("mount", "proc", "/proc", 0, ""), tree("/etc", slot=2), ("place", 2, "/data/x/y"),
                      id_mapped=0)
    one = run(plan(("/bin/true",), enter=enter))
    assert one.kinds()[-1] == "done"
    assert list(outside.iterdir()) == []
    assert not Path("/x").exists()


NULL: tuple[Row, ...] = (tree("/dev/null", slot=3), ("place", 3, "/dev/null"))
"""What masks for files are made of."""


def test_masks(output: Output, rootfs: Path) -> None:
    """Files become /dev/null, directories an empty one that nobody can write to; what is missing is no failure."""
    for name in ("one", "two"):
        (rootfs / name).mkdir()
        (rootfs / name / "secret").write_text("secret")
    script = """
for file in /one/secret /two/secret; do cat $file; echo x >$file; stat -c %F $file; done
for directory in /etc /root; do ls -A $directory; ! touch $directory/x 2>&1; done
"""
    enter = in_rootfs(rootfs, *NULL, *[("mask", path) for path in (
        "/one/secret", "/etc", "/two/secret", "/root", "/missing", "/etc/below")], PIVOT)
    (rootfs / "etc" / "secret").write_text("secret")
    text = output(plan(shell(script), enter=enter, workload=ROOT)).splitlines()
    assert text[:2] == ["character special file"] * 2
    assert len(text) == 4
    assert all("touch" in line for line in text[2:])
    assert (rootfs / "one" / "secret").read_text() == "secret"


def test_masks_after_the_pivot(output: Output, rootfs: Path) -> None:
    """The first of its kind is what the others are copied from."""
    (rootfs / "etc" / "secret").write_text("secret")
    (rootfs / "secret").write_text("secret")
    enter = in_rootfs(rootfs, *NULL, ("mask", "/secret"), PIVOT, ("mask", "/etc/secret"), ("mask", "/tmp"))
    assert output(plan(shell("cat /secret /etc/secret"), enter=enter, workload=ROOT)) == ""


def test_read_only_places(output: Output, rootfs: Path) -> None:
    script = "! touch /etc/x 2>&1; ! touch /etc/below/x 2>&1; touch /tmp/x && echo fine"
    enter = in_rootfs(rootfs, ("mkdir_in", "/etc/below", 0o777), ("mount", "tmpfs", "/etc/below", 0, ""),
                      ("read_only", "/etc"), ("read_only", "/missing"), PIVOT)
    text = output(plan(shell(script), enter=enter, workload=ROOT)).splitlines()
    assert ["Read-only" in line for line in text] == [True, True, False]


def test_attr_changes_what_is_mounted(output: Output) -> None:
    enter = plain(("mount", "tmpfs", "/mnt", 0, ""), ("mkdir_in", "/mnt/x", 0o755), ("attr", "/mnt", RDONLY))
    assert "Read-only" in output(plan(shell("ls -d /mnt/x; ! touch /mnt/y 2>&1"), enter=enter))


def overlay(lower: Path, scratch: str = "/mnt") -> list[Row]:
    return [("mount", "tmpfs", scratch, 0, "mode=0755"), ("mkdir_in", f"{scratch}/upper", 0o755),
            ("mkdir_in", f"{scratch}/work", 0o755), ("overlay", 0, str(lower), f"{scratch}/upper", f"{scratch}/work"),
            ("root", 0), tree("/usr", slot=1), ("place", 1, "/usr")]


@pytest.mark.parametrize("name", ["plain", "with,comma:and colon", "x" * 200 + "/" + "y" * 200])
def test_an_overlay_takes_the_writes(output: Output, rootfs: Path, name: str) -> None:
    lower = rootfs.parent / name
    lower.parent.mkdir(exist_ok=True)
    rootfs.rename(lower)
    (lower / "etc" / "kept").write_text("old")
    script = "echo new >/etc/kept; rm -r /root; mkdir /more; cat /etc/kept; ls /"
    text = output(plan(shell(script), enter=plain(*overlay(lower), PIVOT))).split()
    assert text[0] == "new"
    assert "more" in text
    assert "root" not in text
    assert (lower / "etc" / "kept").read_text() == "old"
    assert (lower / "root").is_dir()
    assert not (lower / "more").exists()


def test_an_overlay_for_the_root_of_the_inside(output: Output, rootfs: Path) -> None:
    """The lower one is mapped, the upper one is its own: it is the owner of both."""
    enter = held(("mount", "tmpfs", "/mnt", 0, "mode=0755"), tree(rootfs, slot=5, id_mapped=1),
                 ("mkdir_in", "/mnt/lower", 0o755), ("mkdir_in", "/mnt/upper", 0o755), ("mkdir_in", "/mnt/work", 0o755),
                 ("place", 5, "/mnt/lower"), ("overlay", 0, "/mnt/lower", "/mnt/upper", "/mnt/work"), ("root", 0),
                 tree("/usr", slot=1), ("place", 1, "/usr"), PIVOT)
    script = "stat -c %u / /etc; echo x >/new; echo x >/etc/new; stat -c %u /new /etc/new"
    assert output(plan(shell(script), enter=enter, workload=ROOT)).split() == ["0"] * 4
    assert not (rootfs / "new").exists()


@pytest.mark.requires("mknod")
def test_an_overlay_cannot_bring_devices(output: Output, rootfs: Path) -> None:
    os.mknod(rootfs / "zero", 0o020666, os.makedev(1, 5))
    text = output(plan(shell("! head -c1 /zero 2>&1"), enter=plain(*overlay(rootfs), PIVOT)))
    assert "Permission denied" in text


def test_an_overlay_without_root(output: Output, rootfs: Path) -> None:
    script = "echo new >/etc/kept; rm -r /root; mkdir /root; cat /etc/kept; ls -A /root"
    (rootfs / "root" / "old").touch()
    text = output(plan(shell(script), enter=rootless(*overlay(rootfs), PIVOT)))
    assert text.split() == ["new"]


def test_devices_one_by_one(output: Output) -> None:
    """As the plans make /dev: a tmpfs, the host's nodes bound into it, links, read-only at the end."""
    names = ("null", "zero", "full", "random", "urandom", "tty")
    enter = held(*HOST, ("mount", "tmpfs", "/dev", NOSUID | NOEXEC, "mode=0755,size=64k"),
                 *[row for name in names for row in (tree(f"/dev/{name}", slot=1, attributes=NOSUID | NOEXEC,
                                                          recursive=0), ("place", 1, f"/dev/{name}"))],
                 ("symlink_in", "/proc/self/fd", "/dev/fd"), ("symlink_in", "pts/ptmx", "/dev/ptmx"),
                 ("mkdir_in", "/dev/pts", 0o755),
                 ("mount", "devpts", "/dev/pts", NOSUID | NOEXEC, "newinstance,ptmxmode=0666,mode=0620"),
                 ("mkdir_in", "/dev/mqueue", 0o755), ("mount", "mqueue", "/dev/mqueue", NOSUID | NODEV | NOEXEC, ""),
                 ("attr", "/dev", RDONLY | NOSUID | NOEXEC), PIVOT)
    code = """
import os, pty
assert len(os.read(os.open("/dev/zero", os.O_RDONLY), 5)) == 5
assert len(os.read(os.open("/dev/urandom", os.O_RDONLY), 5)) == 5
assert os.write(os.open("/dev/null", os.O_WRONLY), b"x") == 1
try:
    os.write(os.open("/dev/full", os.O_WRONLY), b"x")
except OSError as error:
    print(error.errno)
os.close(os.open("/dev/mqueue/queue", os.O_RDWR | os.O_CREAT))
ours, theirs = pty.openpty()
print(os.ttyname(theirs))
try:
    open("/dev/x", "w")
except OSError as error:
    print(error.errno)
print(*sorted(os.listdir("/dev")))
"""
    assert output(plan(python(code), enter=enter, workload=ROOT)).split() == [
        str(errno.ENOSPC), "/dev/pts/0", str(errno.EROFS), *sorted((*names, "fd", "ptmx", "pts", "mqueue"))]
