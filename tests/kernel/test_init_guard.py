"""What the guard of sandbox-init leaves, whoever dies first: cgroups, the claim, processes; and what it costs."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sandbox.init import wire
from sandbox.steps import Arg
from support.bare_launcher import SIGNALS, SLEEP, TERM, Run, Start, children, pipe, plan, shell, step, wait_gone

pytestmark = pytest.mark.requires("root")


def open_files(pid: int) -> list[str]:
    return [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]


def test_the_workload_joins_and_the_cgroup_is_removed(output: Callable[..., str], cgroup: Path) -> None:
    (cgroup / "left" / "behind").mkdir(parents=True)
    procs = os.open(cgroup / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
    try:
        steps = plan(shell("cat /proc/self/cgroup"), guard=[("remove", str(cgroup))], workload=[("join", 0), *SIGNALS])
        assert cgroup.name in output(steps, procs)
    finally:
        os.close(procs)
    assert not cgroup.exists()


def test_the_workload_is_born_in_its_cgroup(output: Callable[..., str], cgroup2: Path) -> None:
    directory = os.open(cgroup2, os.O_PATH | os.O_CLOEXEC)
    try:
        steps = plan(shell("cat /proc/self/cgroup"), guard=[("remove", str(cgroup2))],
                     workload=[("clone_into_cgroup", 0), *SIGNALS])
        assert cgroup2.name in output(steps, directory)
    finally:
        os.close(directory)
    assert not cgroup2.exists()


@pytest.mark.parametrize(("op", "where"), [("join", "workload"), ("clone_into_cgroup", "init")])
def test_an_fd_that_is_no_cgroup_is_named(run: Callable[..., Run], op: str, where: str) -> None:
    fd = os.open("/", os.O_RDONLY | os.O_CLOEXEC)
    try:
        one = run(plan(("/bin/true",), workload=[(op, 0), *SIGNALS]), fd)
    finally:
        os.close(fd)
    assert one.record("failed") == ["5", str(errno.EBADF), where]


def test_what_cannot_be_removed_is_told(start: Start, tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    one = start(plan(("/bin/true",), guard=[("remove", str(tmp_path / "kept")), ("unlink", str(tmp_path)),
                                            ("unlink", str(tmp_path / "never"))]))
    one.go()
    assert one.finish() == 1
    assert [record for record in one.records if record[0] == "left"] == [
        ["left", str(errno.ENOTDIR), str(tmp_path / "kept")], ["left", str(errno.EISDIR), str(tmp_path)]]


def test_a_busy_cgroup_is_removed_when_it_is_empty(start: Start, cgroup: Path) -> None:
    """Somebody else is in it for a while: `remove` waits."""
    with pipe() as (reader, writer):
        if not (pid := os.fork()):
            writer.close()
            reader.read(1)
            os._exit(0)
        (cgroup / "cgroup.procs").write_text(str(pid))
        one = start(plan(("/bin/true",), guard=[("remove", str(cgroup))]))
        one.go()
        one.until("done")
        one.send("bye")
    os.waitpid(pid, 0)
    assert one.reap() == 0
    assert not cgroup.exists()


def test_the_claim_is_locked_as_long_as_the_guard_lives(start: Start, tmp_path: Path) -> None:
    claim = tmp_path / "claim"
    one = start(plan(SLEEP, guard=[("claim", str(claim), "/a\n/b\n"), ("unlink", str(claim))]))
    one.go()
    one.until("started")
    init = os.pidfd_open(one.init)
    assert claim.read_text() == "/a\n/b\n"
    assert claim.stat().st_mode & 0o777 == 0o600
    with claim.open() as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert str(claim) not in open_files(one.init)
        signal.pidfd_send_signal(one.pidfd, signal.SIGKILL)
        wait_gone(one.pidfd)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    wait_gone(init, one.workload)
    os.close(init)


def test_the_claim_of_another_run_is_respected(run: Callable[..., Run], tmp_path: Path, cgroup: Path) -> None:
    """Same name: what is called by it is not ours to remove."""
    claim = tmp_path / "claim"
    claim.touch()
    one = run(plan(("/bin/true",), guard=[("claim", str(claim), ""), ("remove", str(cgroup)), ("unlink", str(claim))]))
    assert one.record("failed") == ["2", str(errno.EEXIST), "guard"]
    assert claim.exists()
    assert cgroup.exists()


def test_guard_and_init_hold_nothing_of_the_host(start: Start) -> None:
    """Sockets, pidfds and the like; the streams and the cgroup's files are the workload's alone."""
    fd = os.open("/dev/zero", os.O_RDONLY | os.O_CLOEXEC)
    one = start(plan(SLEEP, guard=[("stop", int(signal.SIGURG), 100_000), ("deadline", 100_000)]))
    one.go(fd)
    os.close(fd)
    one.until("started")
    one.send("stop")  # the signal does nothing, but the answer says that the guard is at rest
    one.until("stopping")
    files = [*open_files(one.pid), *open_files(one.init)]
    assert {file.partition(":")[0] for file in files} == {"socket", "anon_inode"}
    assert len([file for file in open_files(one.init) if file.startswith("socket")]) == 2


# --- deaths


@pytest.fixture
def launcher(program: Path, tmp_path: Path, cgroup: Path) -> Iterator[tuple[int, list[int], Path]]:
    """A launcher in a process of its own: its pid, pidfds of guard, init and workload, and the claim.

    We hold its control socket too, as its other children might: that the socket is open says nothing about it.
    """
    claim = tmp_path / "claim"
    ours, its = socket.socketpair()
    with ours, its:
        if not (pid := os.fork()):
            try:
                guard: list[tuple[Arg, ...]] = [
                    ("claim", str(claim), f"{cgroup}\n"), ("remove", str(cgroup)), ("unlink", str(claim))]
                one = Run(program, wire.encode(list(enumerate(plan(
                    SLEEP, guard=guard, workload=[("join", 0), *SIGNALS]), 1))), env={"ASAN_OPTIONS": "detect_leaks=0"})
                one.go(os.open(cgroup / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))
                one.until("started")
                (workload,) = children(one.init)
                socket.send_fds(its, [f"{one.pid} {one.init} {workload}".encode()], [one.control.fileno()])
                signal.pause()
            finally:
                os._exit(1)
        words, (control,), _, _ = socket.recv_fds(ours, 100, 1)
        pidfds = [os.pidfd_open(int(word)) for word in words.split()]
    yield pid, pidfds, claim
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)
    for pidfd in pidfds:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        wait_gone(pidfd)
        os.close(pidfd)
    os.close(control)


def test_the_launchers_death_ends_it_all(launcher: tuple[int, list[int], Path], cgroup: Path) -> None:
    pid, pidfds, claim = launcher
    os.kill(pid, signal.SIGKILL)
    wait_gone(*reversed(pidfds))
    assert not cgroup.exists()
    assert not claim.exists()


@pytest.mark.parametrize("who", [0, 1])
def test_the_death_of_guard_or_init_ends_the_tree(launcher: tuple[int, list[int], Path], who: int) -> None:
    _, pidfds, _ = launcher
    signal.pidfd_send_signal(pidfds[who], signal.SIGKILL)
    wait_gone(*pidfds[1:])


def test_the_init_does_not_wait_for_go_without_a_guard(start: Start) -> None:
    """The launcher's own end of the socket is still open: it is no sign of life of the guard."""
    one = start(plan(SLEEP))
    one.until("ready")
    init = os.pidfd_open(one.init)
    signal.pidfd_send_signal(one.pidfd, signal.SIGKILL)
    wait_gone(init)
    os.close(init)


def test_a_launcher_that_was_never_there(start: Start, tmp_path: Path, cgroup: Path) -> None:
    """The guard was spawned, and meanwhile its launcher has died: nothing starts, everything goes."""
    claim = str(tmp_path / "claim")
    steps = plan(shell(f"touch {tmp_path}/started"),
                 guard=[("claim", claim, ""), ("remove", str(cgroup)), ("unlink", claim)])
    steps[0] = step("launcher", 1, 1)
    one = start(steps)
    one.go()
    assert one.reap() == 0
    assert not cgroup.exists()
    assert os.listdir(tmp_path) == []


def test_the_launcher_may_just_close_its_socket(start: Start, cgroup: Path) -> None:
    one = start(plan(SLEEP, guard=[("remove", str(cgroup))]))
    one.go()
    one.until("started")
    one.control.close()
    assert one.reap() == 0
    wait_gone(one.workload)
    assert not cgroup.exists()


# --- what it costs


@pytest.mark.parametrize("program", ["shipped"], indirect=True)
def test_guard_and_init_together_are_small(start: Start) -> None:
    one = start(plan(SLEEP, guard=[("stop", TERM, 0), ("deadline", 100_000)]))
    one.go()
    one.until("started")
    total = 0
    for pid in (one.pid, one.init):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    assert total <= 300, f"{total} KiB"
