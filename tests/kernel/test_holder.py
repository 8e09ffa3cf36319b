"""The holder: whose the namespaces of a root's sandbox are, and how init, workload and cgroup come into them."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from support.bare_launcher import CLONE_NEWUSER, SIGNALS, Run, Start, children, pipe, plan, shell, wait_gone
from support.isolation_plans import (
    BASE,
    CAP_KILL,
    CLONE_NEWCGROUP,
    CLONE_NEWNET,
    CLONE_NEWTIME,
    HELD,
    HOST,
    NODEV,
    NOEXEC,
    NOSUID,
    PIVOT,
    RDONLY,
    ROOT,
    Output,
    held,
    plain,
    python,
)
from support.machine import eventually

pytestmark = pytest.mark.requires("root")


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
    # Two sockets, pidfds of launcher and init; the init may be ready before the guard has closed all others.
    assert eventually(lambda: len(os.listdir(f"/proc/{one.pid}/fd")) == 4)


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
    shown = [("mount_cgroup", place, "cgroup2", "") for place in ("/sys/fs/cgroup", "/no/such")]
    text = output(plan(shell("ls /sys/fs/cgroup; ! mkdir /sys/fs/cgroup/x 2>&1"), enter=enter, workload=[
        ("unshare", CLONE_NEWCGROUP), *shown, *SIGNALS]))
    if "cgroup2" in Path("/proc/filesystems").read_text():
        assert "cgroup.controllers" in text
        assert "Read-only file system" in text
