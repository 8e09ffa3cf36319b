"""The ops that isolate, one by one and together, in plans made by hand: what the kernel then says inside."""

from __future__ import annotations

import ctypes
import errno
import io
import os
import shutil
import signal
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from bare_launcher import (
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    SIGNALS,
    Run,
    children,
    pipe,
    plan,
    shell,
    wait_gone,
)
from conftest import Start
from machine import SLOWER

from sandbox.host import probe
from sandbox.isolation.paths import may_shift
from sandbox.steps import Arg, Step

pytestmark = pytest.mark.requires("root")

CLONE_NEWTIME, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x80, 0x0200_0000, 0x0400_0000
CLONE_NEWIPC, CLONE_NEWNET = 0x0800_0000, 0x4000_0000
RDONLY, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8
BASE = 1_000_000_000
MAP = f"0 {BASE} 65536"
HELD = CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
CAP_CHOWN, CAP_KILL, CAP_NET_RAW = 1 << 0, 1 << 5, 1 << 13
SECUREBITS = 0x2F
"""NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE, the first two and KEEP_CAPS locked."""

Row = tuple[Arg, ...]
Output = Callable[..., str]
RunIt = Callable[..., Run]


def held(*enter: Row, flags: int = HELD) -> list[Row]:
    """As root: the namespaces are a holder's, and so are the ids."""
    return [("namespaces", CLONE_NEWUSER | flags), ("id_map", "", MAP, MAP), ("clone3", CLONE_NEWPID | CLONE_NEWNS),
            ("private",), *([("setns", flags)] if flags else []), *enter]


def plain(*enter: Row) -> list[Row]:
    return [("clone3", CLONE_NEWPID | CLONE_NEWNS), ("private",), *enter]


def rootless(*enter: Row, flags: int = 0) -> list[Row]:
    """What somebody without root can have; here 0 is 0, and the capabilities are the namespace's alone."""
    return [("clone3", CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUSER | flags), ("id_map", "deny", "0 0 1", "0 0 1"),
            ("private",), *enter]


def tree(source: str | Path, *, slot: int = 0, attributes: int = 0, recursive: int = 1, id_mapped: int = 0) -> Row:
    return ("tree", slot, str(source), attributes, recursive, id_mapped)


PYTHON = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
"""One that everybody may run."""
MAPPED = int(may_shift(probe().mount("/")[1], probe()))
"""The host's / can be mounted with other ids; if not, the inside has what everybody may read."""
HOST: tuple[Row, ...] = (tree("/", attributes=RDONLY | NOSUID | NODEV, id_mapped=MAPPED), ("root", 0),
                         ("mount", "proc", "/proc", NOSUID | NODEV | NOEXEC, ""))
PIVOT: Row = ("pivot",)
"""The host's / as the inside, read-only."""
ROOT: tuple[Row, ...] = (("enter_userns",), ("setgroups",), ("setresgid", 0), ("setresuid", 0), *SIGNALS)
"""The workload becomes root of the inside."""


def python(code: str) -> tuple[str, ...]:
    return (PYTHON, "-S", "-I", "-c", code)


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    """A tree with the host's programs and nothing else: links, and directories for mounts."""
    root = tmp_path / "rootfs"
    for name in ("proc", "sys", "dev", "tmp", "usr", "etc", "root"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / name).symlink_to(f"usr/{name}")
    tmp_path.chmod(0o755)
    return root


def in_rootfs(rootfs: Path, *steps: Row, id_mapped: int = 1, attributes: int = NOSUID) -> list[Row]:
    """A rootfs with the host's /usr in it."""
    enter = (tree(rootfs, attributes=attributes, id_mapped=id_mapped), ("root", 0), tree("/usr", slot=1),
             ("place", 1, "/usr"), *steps)
    return held(*enter) if id_mapped else plain(*enter)


# --- the namespaces of the holder


def test_the_init_and_the_workload_are_in_the_holders_namespaces(output: Output) -> None:
    script = "for one in user net ipc uts pid mnt cgroup; do readlink /proc/self/ns/$one; done; id -u; id -G"
    inside = output(plan(shell(script), enter=held(*HOST, PIVOT), workload=ROOT)).split()
    outside = [os.readlink(f"/proc/self/ns/{name}") for name in ("user", "net", "ipc", "uts", "pid", "mnt", "cgroup")]
    assert [a == b for a, b in zip(inside, outside, strict=False)] == [False] * 6 + [True]
    assert inside[-2:] == ["0", "0"]


def test_a_time_namespace(output: Output) -> None:
    enter = held(*HOST, PIVOT, flags=CLONE_NEWTIME)
    assert output(plan(shell("readlink /proc/self/ns/time"), enter=enter, workload=ROOT)).strip() != os.readlink(
        "/proc/self/ns/time")


def test_the_user_namespace_owns_the_others(output: Output) -> None:
    """NS_GET_USERNS of each is the workload's own."""
    code = """
import fcntl, os
own = os.stat("/proc/self/ns/user").st_ino
for name in ("net", "ipc", "uts"):
    fd = os.open(f"/proc/self/ns/{name}", os.O_RDONLY)
    assert os.fstat(fcntl.ioctl(fd, 0xb701)).st_ino == own, name
"""
    output(plan(python(code), enter=held(*HOST, PIVOT), workload=ROOT))


def test_the_workload_has_the_holders_ids_outside(start: Start) -> None:
    one = start(plan(("/bin/sleep", "1000"), enter=held(*HOST, PIVOT), workload=ROOT))
    one.go()
    one.until("started")
    (workload,) = children(one.init)
    assert os.stat(f"/proc/{workload}").st_uid == BASE
    assert Path(f"/proc/{workload}/uid_map").read_text().split() == ["0", str(BASE), "65536"]
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{one.init}/status").read_text().splitlines())
    assert {int(status[f"Cap{name}"], 16) for name in ("Prm", "Eff")} == {CAP_KILL}
    assert int(status["CapInh"], 16) == 0


@pytest.mark.parametrize("flags", [HELD, 0])
def test_the_holder_is_gone_when_the_init_is_ready(start: Start, flags: int) -> None:
    """And reaped: it would count against a limit of tasks. What it had is reached by fds."""
    one = start(plan(("/bin/sleep", "1000"), workload=ROOT,
                     enter=[*held(flags=flags)[:2], ("tell_namespaces",), *held(*HOST, PIVOT, flags=flags)[2:]]))
    one.until("ready")
    (init,) = children(one.pid)
    assert [init] != list(map(int, one.record("namespaces")))
    assert os.path.samestat(os.fstat(one.network), os.stat(f"/proc/{init}/ns/net"))
    one.go()
    one.until("started")
    (workload,) = children(init)
    assert Path(f"/proc/{workload}/uid_map").read_text().split() == ["0", str(BASE), "65536"]
    assert len(os.listdir(f"/proc/{init}/fd")) <= 4  # two sockets, a pidfd, a signalfd if it has come to that
    assert len(os.listdir(f"/proc/{one.pid}/fd")) == 4  # two sockets, pidfds of launcher and init


@pytest.fixture
def waiting(start: Start, tmp_path: Path) -> Callable[[], tuple[Run, int, int]]:
    """A plan whose init waits for a writer of a pipe: the guard's run, the init, and the pidfd of the holder."""

    def waiting() -> tuple[Run, int, int]:
        os.mkfifo(tmp_path / "pipe")
        one = start(plan(("/bin/true",), workload=ROOT, enter=[
            *held()[:2], ("tell_namespaces",), *held()[2:-1], ("join_ns", str(tmp_path / "pipe"), CLONE_NEWNET)]))
        one.until("namespaces")
        (pid,) = map(int, one.record("namespaces"))
        holder = os.pidfd_open(pid)
        while os.listdir(f"/proc/{pid}/fd") != ["0"] or len(found := children(one.pid)) < 2:
            pass  # it has hardly begun
        return one, next(child for child in found if child != pid), holder

    return waiting


def test_nobody_in_the_user_namespace_may_look_into_the_holder(waiting: Callable[[], tuple[Run, int, int]]) -> None:
    """It is the host's root still, and so is who has just come in: the most that there can be."""
    one, _, holder = waiting()
    (pid,) = map(int, one.record("namespaces"))
    assert Path(f"/proc/{pid}/comm").read_text() == "sandbox-holder\n"
    if not (child := os.fork()):
        try:
            assert ctypes.CDLL(None).setns(holder, CLONE_NEWUSER) == 0
            os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR))
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or 1)
        finally:
            os._exit(2)
    os.close(holder)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == errno.EACCES


@pytest.mark.parametrize("who", ["guard", "init"])
def test_the_holder_dies_with_guard_and_init(waiting: Callable[[], tuple[Run, int, int]], who: str) -> None:
    one, init, holder = waiting()
    os.kill(one.pid if who == "guard" else init, signal.SIGKILL)
    wait_gone(holder)
    os.close(holder)
    if who == "init":
        assert one.finish() == 0


@pytest.mark.parametrize("started", [False, True])
def test_the_init_dies_with_the_guard(start: Start, started: bool) -> None:
    """Neither the namespaces that it joined nor the capabilities that it gave up have untied it."""
    one = start(plan(("/bin/sleep", "1000"), enter=held(*HOST, PIVOT), workload=ROOT))
    one.until("ready")
    init = os.pidfd_open(max(children(one.pid)))
    if started:
        one.go()
        one.until("started")
    os.kill(one.pid, signal.SIGKILL)
    wait_gone(init, *([one.workload] if started else []))
    os.close(init)


def test_a_holder_without_an_init_does_not_stay(start: Start) -> None:
    one = start(plan(("/bin/true",), enter=[("namespaces", CLONE_NEWUSER), ("tell_namespaces",), ("clone3", 0)]))
    one.until("done")
    (pid,) = map(int, one.record("namespaces"))
    assert not Path(f"/proc/{pid}").exists()
    assert one.finish() == 0


def test_signals_and_kills_reach_the_other_user_namespace(start: Start) -> None:
    """CAP_KILL is enough, for the workload and for what it leaves behind."""
    with pipe() as (reader, writer):
        script = "trap '' TERM HUP INT; sleep 1000 & sleep 1000 & trap 'exit 42' USR1; echo; while :; do wait; done"
        enter = held(("mount", "proc", "/proc", 0, ""))  # with a /dev/null, the stdin of what is in the background
        one = start(plan(shell(script), enter=enter, workload=ROOT), stdio=(0, writer.fileno(), 2))
        writer.close()
        one.go()
        assert reader.read(1) == b"\n"
        one.until("started")
        one.send(f"signal {int(signal.SIGUSR1)}")
        assert one.finish() == 0
    assert one.exit_code() == 42
    assert one.record("exited")[-1] == "2"


def test_the_network_is_lo_alone_and_it_is_up(output: Output) -> None:
    code = """
import socket
names = [name for _, name in socket.if_nameindex() if not open(f"/sys/class/net/{name}/flags").read() == "0x0"]
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname()).close()
print(socket.gethostname(), *[name for name in names if name == "lo"])
"""
    enter = held(("hostname", "elsewhere"), ("lo_up",), *HOST,
                 ("mount", "sysfs", "/sys", RDONLY | NOSUID | NODEV | NOEXEC, ""), PIVOT)
    assert output(plan(python(code), enter=enter, workload=ROOT)).split() == ["elsewhere", "lo"]


def test_join_a_namespace_of_the_host(output: Output, start: Start) -> None:
    """Found by its path while the host's files can be seen; of the network namespace of another sandbox."""
    other = start(plan(("/bin/sleep", "1000"), enter=held()))
    other.go()
    other.until("started")
    path = f"/proc/{max(children(other.pid))}/ns/net"
    enter = plain(("join_ns", path, CLONE_NEWNET), ("mount", "proc", "/proc", 0, ""))
    assert output(plan(shell("readlink /proc/self/ns/net"), enter=enter)).strip() == os.readlink(path)


def test_the_cgroup_namespace_is_new(output: Output) -> None:
    enter = plain(("mount", "proc", "/proc", 0, ""))
    text = output(plan(shell("readlink /proc/self/ns/cgroup; cat /proc/self/cgroup"), enter=enter,
                       workload=[("unshare", CLONE_NEWCGROUP), *SIGNALS])).split()
    assert text[0] != os.readlink("/proc/self/ns/cgroup")
    assert {line.rpartition(":")[2] for line in text[1:]} == {"/"}


def test_its_own_cgroup_is_mounted_read_only_or_not_at_all(output: Output) -> None:
    enter = plain(("mount", "tmpfs", "/sys/fs/cgroup", 0, ""))
    text = output(plan(shell("ls /sys/fs/cgroup; ! mkdir /sys/fs/cgroup/x 2>&1"), enter=enter, workload=[
        ("unshare", CLONE_NEWCGROUP), ("mount_cgroup", "/sys/fs/cgroup"), ("mount_cgroup", "/no/such"), *SIGNALS]))
    if "cgroup2" in Path("/proc/filesystems").read_text():
        assert "cgroup.controllers" in text
        assert "Read-only file system" in text


# --- the file system


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


@pytest.mark.parametrize(("step", "error"), [
    (("mount", "tmpfs", "/tmp", 0, "size=nonsense"), errno.EINVAL),
    (("mount", "tmpfs", "/tmp", 0, "nonsense"), errno.EINVAL),
    (("mount", "nonsense", "/tmp", 0, ""), errno.ENODEV),
    (("mount", "tmpfs", "/proc/self/x", 0, ""), errno.ELOOP),
    (("mount", "tmpfs", "relative", 0, ""), errno.EINVAL),
    (("tree", 0, "/no/such", 0, 1, 0), errno.ENOENT),
    (("tree", 64, "/", 0, 1, 0), errno.EBADF),
    (("tree", -1, "/", 0, 1, 0), errno.EBADF),
    (("tree", 0, "/", 0, 1, 1), errno.EBADF),
    (("tree", 0, "/", 1 << 40, 1, 0), errno.EINVAL),
    (("root", 0), errno.EBADF),
    (("place", 0, "/mnt"), errno.EBADF),
    (("place", 64, "/mnt"), errno.EBADF),
    (("attr", "/no/such", 1), errno.ENOENT),
    (("attr", "/etc/passwd", 1), errno.EINVAL),
    (("mkdir_in", "/no/such/directory", 0o755), errno.ENOENT),
    (("mkdir_in", "/", 0o755), errno.EINVAL),
    (("mkdir_in", "/tmp/..", 0o755), errno.EINVAL),
    (("mkdir_in", "/" + "x" * 5000, 0o755), errno.ENAMETOOLONG),
    (("symlink_in", "x", "/etc"), errno.EEXIST),
    (("setns", CLONE_NEWNET), errno.EBADF),
    (("join_ns", "/no/such", CLONE_NEWNET), errno.ENOENT),
    (("join_ns", "/etc/passwd", CLONE_NEWNET), errno.EINVAL),
    (("hostname", "x" * 65), errno.EINVAL),
    (("overlay", 0, "/no/such", "/tmp", "/tmp"), errno.ENOENT),
])
def test_a_step_of_the_init_that_fails_is_named(run: RunIt, step: Row, error: int | None) -> None:
    one = run(plan(("/bin/true",), enter=plain(step)))
    number, code, where = one.record("failed")
    assert (number, where) == ("4", "init")
    assert error is None or int(code) == error


@pytest.mark.parametrize(("step", "error"), [
    (("namespaces", CLONE_NEWNET), errno.EINVAL),
    (("namespaces", CLONE_NEWUSER | CLONE_NEWPID), errno.EINVAL),
    (("tell_namespaces",), errno.EINVAL),
    (("id_map", "", MAP, MAP), errno.EINVAL),
])
def test_a_step_of_the_guard_that_fails_is_named(run: RunIt, step: Row, error: int) -> None:
    assert run(plan(("/bin/true",), enter=[step, *plain()])).record("failed") == ["2", str(error), "guard"]


@pytest.mark.parametrize(("step", "error"), [
    (("enter_userns",), errno.EBADF),
    (("unshare", CLONE_NEWCGROUP | 1), errno.EINVAL),
    (("bounding", 0), None),
    (("seccomp", b"", 0), errno.EINVAL),
    (("seccomp", bytes(7), 0), errno.EINVAL),
    (("seccomp", bytes(8), 0), errno.EINVAL),
    (("capset", -1, -1, -1), errno.EPERM),
    (("ambient", CAP_CHOWN), errno.EPERM),
    (("label", "nonsense", "x", 1), errno.EINVAL),
    (("label", "selinux", "", 0), None),
    (("label", "apparmor", "x" * 2000, 0), None),
])
def test_a_step_of_the_workload_that_fails_is_named(run: RunIt, step: Row, error: int | None) -> None:
    before: list[Row] = [("capset", 0, 0, 0)] if step[0] in ("bounding", "capset", "ambient") else []
    one = run(plan(("/bin/true",), enter=plain(), workload=[*before, step]))
    number, code, where, *_ = one.record("failed")
    assert (int(number), where) == (4 + len(before), "workload")
    assert error is None or int(code) == error


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


def test_masks(output: Output, rootfs: Path) -> None:
    """Files become /dev/null, directories an empty one that nobody can write to; what is missing is no failure."""
    for name in ("one", "two"):
        (rootfs / name).mkdir()
        (rootfs / name / "secret").write_text("secret")
    script = """
for file in /one/secret /two/secret; do cat $file; echo x >$file; stat -c %F $file; done
for directory in /etc /root; do ls -A $directory; ! touch $directory/x 2>&1; done
"""
    enter = in_rootfs(rootfs, *[("mask", path) for path in (
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
    enter = in_rootfs(rootfs, ("mask", "/secret"), PIVOT, ("mask", "/etc/secret"), ("mask", "/tmp"))
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


# --- the privileges


STATUS = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status"


def status(text: str) -> dict[str, int]:
    return {key: int(value, 16) for key, value in (line.split(":") for line in text.splitlines())}


@pytest.mark.parametrize("kept", [0, CAP_CHOWN, CAP_CHOWN | CAP_NET_RAW])
def test_capabilities_are_exactly_the_kept_ones(output: Output, kept: int) -> None:
    ids = ROOT[:4]
    enter = held(*HOST, PIVOT)
    workload = [ids[0], ("securebits", 0x2F & ~0x40), *ids[1:], ("bounding", kept), ("capset", kept, kept, kept),
                ("ambient", kept), ("setsid",), *SIGNALS, ("no_new_privs",)]
    found = status(output(plan(shell(STATUS), enter=enter, workload=workload)))
    assert {key: value for key, value in found.items() if key != "Seccomp"} == {
        "CapInh": kept, "CapPrm": kept, "CapEff": kept, "CapBnd": kept, "CapAmb": kept, "NoNewPrivs": 1}


def test_another_user_keeps_ambient_capabilities_alone(output: Output) -> None:
    workload: list[Row] = [("enter_userns",), ("securebits", SECUREBITS & ~0x40), ("setgroups", 7), ("setresgid", 5),
                           ("setresuid", 1234), ("bounding", CAP_NET_RAW),
                           ("capset", CAP_NET_RAW, CAP_NET_RAW, CAP_NET_RAW), ("ambient", CAP_NET_RAW), *SIGNALS]
    text = output(plan(shell(f"id -u; id -G; {STATUS}"), enter=held(*HOST, PIVOT), workload=workload)).split("\n", 2)
    assert text[:2] == ["1234", "5 7"]
    found = status(text[2])
    assert {found[f"Cap{name}"] for name in ("Prm", "Eff", "Bnd", "Amb", "Inh")} == {CAP_NET_RAW}


def test_securebits_hold(output: Output) -> None:
    """Root is nobody special: no capabilities by being 0, and none by a set-user-ID file."""
    code = "import ctypes; print(ctypes.CDLL(None).prctl(27, 0, 0, 0, 0))"
    workload = [("enter_userns",), ("securebits", SECUREBITS), *ROOT[1:4], ("capset", 0, 0, 0), *SIGNALS]
    assert output(plan(python(code), enter=held(*HOST, PIVOT), workload=workload)).strip() == str(SECUREBITS)


# BPF: load the number of the system call; is it 1000, which nobody has? Then what is asked for, else allow it.
KILL, ERRNO, LOG, ALLOW = 0x8000_0000, 0x0005_0000, 0x7FFC_0000, 0x7FFF_0000
USER_NOTIF = 0x7FC0_0000


def bpf(action: int) -> bytes:
    rows = [(0x20, 0, 0, 0), (0x15, 0, 1, 1000), (0x06, 0, 0, action), (0x06, 0, 0, ALLOW)]
    return b"".join(struct.pack("<HBBI", *row) for row in rows)


CALL_1000 = "import ctypes; print(ctypes.CDLL(None, use_errno=True).syscall(1000), ctypes.get_errno())"


@pytest.mark.parametrize("flags", [0, 2, 4])
def test_seccomp_refuses(output: Output, flags: int) -> None:
    workload = [*SIGNALS, ("no_new_privs",), ("seccomp", bpf(ERRNO | errno.EPERM), flags)]
    assert output(plan(python(CALL_1000), enter=plain(), workload=workload)).split() == ["-1", str(errno.EPERM)]


def test_seccomp_kills(run: RunIt) -> None:
    workload = [*SIGNALS, ("no_new_privs",), ("seccomp", bpf(KILL), 0)]
    assert run(plan(python(CALL_1000), enter=plain(), workload=workload)).exit_code() == -signal.SIGSYS


def test_seccomp_needs_no_new_privs_without_capabilities(run: RunIt) -> None:
    for before, error in (([("capset", 0, 0, 0)], errno.EACCES), ([("capset", 0, 0, 0), ("no_new_privs",)], None)):
        one = run(plan(("/bin/true",), enter=plain(), workload=[*before, ("seccomp", bpf(KILL), 0)]))
        failed = [int(record[2]) for record in one.records if record[0] == "failed"]
        assert failed == ([error] if error else [])


def test_a_listener_is_handed_over(run: RunIt) -> None:
    """With the sizes of what is read from it and written to it; the command does not have it."""
    command = shell("ls -l /proc/self/fd | grep -c seccomp; exit 5")
    one = run(plan(command, enter=plain(), workload=[*SIGNALS, ("no_new_privs",), ("seccomp", bpf(KILL), 8)]))
    assert list(map(int, one.record("listener"))) == [80, 24]
    assert one.exit_code() == 5


def test_a_listener_that_is_closed(start: Start) -> None:
    """What would have been asked is ENOSYS, and not let through."""
    workload = [*SIGNALS, ("no_new_privs",), ("seccomp", bpf(USER_NOTIF), 8)]
    with pipe() as (reader, writer):
        one = start(plan(python(CALL_1000), enter=plain(), workload=workload), stdio=(0, writer.fileno(), 2))
        writer.close()
        one.go()
        one.until("listener")
        os.close(one.network)
        one.network = -1
        assert reader.readall().split() == [b"-1", str(errno.ENOSYS).encode()]
        assert one.finish() == 0


@pytest.mark.requires("scopes")
@pytest.mark.parametrize(("scopes", "error"), [(1, None), (3, None), (0, errno.ENOMSG), (1 << 40, errno.EINVAL)])
def test_landlock(run: RunIt, scopes: int, error: int | None) -> None:
    """It needs no capability, and allows what comes after it."""
    workload = [("capset", 0, 0, 0), *SIGNALS, ("no_new_privs",), ("landlock", scopes)]
    one = run(plan(("/bin/true",), enter=plain(), workload=workload))
    assert [int(record[2]) for record in one.records if record[0] == "failed"] == ([error] if error else [])


@pytest.mark.requires("scopes")
def test_landlock_needs_no_new_privs(run: RunIt) -> None:
    one = run(plan(("/bin/true",), enter=plain(), workload=[("capset", 0, 0, 0), *SIGNALS, ("landlock", 3)]))
    assert one.record("failed")[1:] == [str(errno.EPERM), "workload"]


def test_what_fails_behind_the_filter_is_still_told(run: RunIt) -> None:
    workload = [*SIGNALS, ("no_new_privs",), ("seccomp", bpf(KILL), 0)]
    one = run(plan(("/no/such",), enter=plain(), workload=workload))
    assert one.record("exec_failed")[1] == str(errno.ENOENT)


def test_a_label_in_a_false_proc_is_refused(run: RunIt, rootfs: Path) -> None:
    (rootfs / "proc" / "self" / "attr").mkdir(parents=True)
    for name in ("current", "exec"):
        (rootfs / "proc" / "self" / "attr" / name).write_text("harmless")
    one = run(plan(("/bin/true",), enter=in_rootfs(rootfs, PIVOT, id_mapped=0),
                   workload=[("label", "selinux", "type:t", 1)]))
    assert one.record("failed")[1:3] == [str(errno.EXDEV), "workload"]


# --- without root, and without a pid namespace


def test_all_namespaces_without_root(output: Output) -> None:
    enter = rootless(("hostname", "elsewhere"), ("lo_up",), tree("/", attributes=RDONLY | NOSUID | NODEV), ("root", 0),
                     ("mount", "proc", "/proc", NOSUID | NODEV | NOEXEC, ""),
                     ("mount", "sysfs", "/sys", RDONLY | NOSUID | NODEV | NOEXEC, ""),
                     ("mount", "tmpfs", "/tmp", NOSUID | NODEV, "mode=1777"), ("mask", "/proc/kcore"),
                     ("read_only", "/proc/sys"), PIVOT, flags=HELD)
    script = "cat /proc/sys/kernel/hostname; ! touch /etc/x /proc/sys/kernel/hostname 2>&1; ls -A /tmp"
    text = output(plan(shell(script), enter=enter, workload=[("capset", 0, 0, 0), *SIGNALS])).splitlines()
    assert text[0] == "elsewhere"
    assert all("Read-only" in line for line in text[1:])
    assert len(text) == 3


def test_the_init_may_not_be_looked_into(output: Output) -> None:
    """By those who have its ids and all capabilities that there are in its user namespace."""
    code = """
import os
for name, use in (("mem", open), ("environ", open), ("cwd", os.listdir), ("root", os.listdir), ("fd/4", os.readlink)):
    try:
        use(f"/proc/1/{name}")
    except PermissionError:
        print(name)
"""
    enter = rootless(("mount", "proc", "/proc", NOSUID | NODEV | NOEXEC, ""))
    assert len(output(plan(python(code), enter=enter)).split()) == 5


def visible(*enter: Row) -> list[Row]:
    """The host's processes can be seen: --pid host."""
    return [("clone3", CLONE_NEWNS), ("subreaper",), ("private",), *enter]


def test_without_a_pid_namespace_the_tree_still_ends(start: Start) -> None:
    with pipe() as (reader, writer):
        script = "(setsid sh -c 'sleep 1000 & sleep 1001' &) ; sleep 1002 & (sleep 1003 &); echo; exit 5"
        one = start(plan(shell(script), enter=visible()), stdio=(0, writer.fileno(), 2))
        writer.close()
        one.go()
        one.until("done")
        assert reader.readall() == b"\n"  # nobody holds the other end
    assert one.finish() == 0
    assert one.exit_code() == 5
    assert int(one.record("exited")[-1]) >= 3


def kill(one: Run, reader: io.FileIO) -> None:
    """All of it ends at once, and nobody holds the other end of the pipe."""
    one.send("kill")
    assert one.finish() == 0
    assert reader.readall() == b""
    assert one.exit_code() == -signal.SIGKILL


def test_kill_reaches_the_descendants_and_nobody_else(start: Start) -> None:
    with pipe() as (reader, writer):
        steps = plan(shell("setsid sh -c 'sleep 1000 & echo; wait' & exec sleep 1000"), guard=[("stop", 15, 60_000)],
                     enter=visible())
        one = start(steps, stdio=(0, writer.fileno(), 2))
        writer.close()
        one.go()
        one.until("started")
        assert reader.read(1) == b"\n"
        kill(one, reader)


def test_the_guard_ends_what_a_dead_init_has_left(start: Start) -> None:
    with pipe() as (reader, writer):
        one = start(plan(shell("setsid sleep 1000 & sleep 1001 & echo; wait"), enter=visible()),
                    stdio=(0, writer.fileno(), 2))
        writer.close()
        one.go()
        one.until("started")
        assert reader.read(1) == b"\n"
        os.kill(one.init, signal.SIGKILL)
        assert one.finish() == 0
        assert reader.readall() == b""


def test_a_long_chain_and_many_children_end(start: Start) -> None:
    """Deeper than is looked at once, and more than a list has room for."""
    code = f"""
import os, signal, time
ready, told = os.pipe()
for _ in range(40):
    if os.fork():
        signal.pause()
for _ in range({600 // SLOWER}):
    if not os.fork():
        os.write(told, b"x")
        signal.pause()
for _ in range({600 // SLOWER}):
    os.read(ready, 1)
os.write(1, b"y")
signal.pause()
"""
    with pipe() as (reader, writer):
        one = start(plan(python(code), enter=visible(), workload=()), stdio=(0, writer.fileno(), 2))
        writer.close()
        one.go()
        one.until("started")
        assert reader.read(1) == b"y"
        kill(one, reader)


def test_those_who_fork_all_the_time_end(start: Start) -> None:
    """Each is the child of one that is dead already; there is always the next."""
    code = """
import os
if os.fork():
    os.write(1, b"y")
    os._exit(0)
while True:
    if os.fork():
        os._exit(0)
    os.setsid()
"""
    with pipe() as (reader, writer):
        one = start(plan(python(code), enter=visible()), stdio=(0, writer.fileno(), 2))
        writer.close()
        one.go()
        one.until("done")
        assert reader.readall() == b"y"
    assert one.finish() == 0
    assert one.exit_code() == 0


@pytest.mark.parametrize("pid_namespace", [False, True])
def test_without_root_the_init_keeps_what_it_needs(start: Start, pid_namespace: bool) -> None:
    """CAP_KILL in its own user namespace ends what another of its users runs, and nothing else."""
    enter = rootless()
    enter[1] = ("id_map", "", MAP, MAP)  # with ids to choose from, as newuidmap gives them
    if not pid_namespace:
        enter[0] = ("clone3", CLONE_NEWNS | CLONE_NEWUSER)
        enter.insert(2, ("subreaper",))
    with pipe() as (reader, writer):
        one = start(plan(("/bin/sleep", "1000"), guard=[("stop", 15, 60_000)], enter=enter, workload=[
            ("setresgid", 1234), ("setresuid", 1234)]), stdio=(0, writer.fileno(), 2))
        writer.close()
        one.go()
        one.until("started")
        (workload,) = children(one.init)
        assert os.stat(f"/proc/{workload}").st_uid == BASE + 1234
        capabilities = [line.split()[1] for line in Path(f"/proc/{one.init}/status").read_text().splitlines()
                        if line.startswith(("CapPrm", "CapEff"))]
        assert [int(one, 16) for one in capabilities] == [CAP_KILL, CAP_KILL]
        kill(one, reader)


@pytest.mark.parametrize("enter", [
    [("clone3", CLONE_NEWNS)], [("clone3", CLONE_NEWNS | CLONE_NEWPID), ("subreaper",)],
])
def test_a_subreaper_is_for_those_without_a_pid_namespace(run: RunIt, enter: Sequence[Row]) -> None:
    assert run(plan(("/bin/true",), enter=enter)).record("failed") == ["2", str(errno.EINVAL), "guard"]


# --- all together


@pytest.fixture
def everything() -> list[Step]:
    return plan(("/bin/true",), enter=held(("hostname", "x"), ("lo_up",), *HOST, PIVOT), workload=[
        ("unshare", CLONE_NEWCGROUP), ("chdir", "/"), ("enter_userns",), ("securebits", SECUREBITS), *ROOT[1:4],
        ("bounding", 0), ("capset", 0, 0, 0), ("setsid",), *SIGNALS, ("no_new_privs",), ("seccomp", bpf(KILL), 0)])


def test_everything_together(run: RunIt, everything: list[Step]) -> None:
    one = run(everything)
    assert one.exit_code() == 0
    assert one.kinds() == ["ready", "started", "exited", "done"]
