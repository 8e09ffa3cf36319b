"""sandbox-init as a program: real processes, real namespaces, real cgroups, no library in between.

Each test runs with the program as it is shipped and, where there is a compiler, with one that uses the C library, and
under ASan and UBSan.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from bare_launcher import (
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    ENTER,
    SIGNALS,
    Run,
    children,
    pipe,
    plan,
    shell,
    step,
    wait_gone,
)

from sandbox.init import wire
from sandbox.steps import Arg, Step

pytestmark = pytest.mark.requires("root")

SLEEP = ("/bin/sleep", "1000")
TERM = int(signal.SIGTERM)
Start = Callable[..., Run]


@contextmanager
def new_cgroup(*kinds: str) -> Iterator[Path]:
    """A cgroup of ours in the first tree of one of these kinds: cgroup2, or cgroup for v1's pids."""
    mounts = [line.split(" ") for line in Path("/proc/self/mounts").read_text().splitlines()]
    trees = [mount for _, mount, kind, options, *_ in mounts
             if kind in kinds and (kind == "cgroup2" or "pids" in options.split(","))]
    if not trees:
        pytest.skip(f"nothing of {kinds} is mounted")
    path = Path(trees[0], f"sandbox-test-{os.getpid()}-{os.urandom(4).hex()}")
    path.mkdir()
    yield path
    for directory, _, _ in os.walk(path, topdown=False):
        with suppress(FileNotFoundError):
            os.rmdir(directory)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    with new_cgroup("cgroup", "cgroup2") as path:
        yield path


@pytest.fixture
def cgroup2() -> Iterator[Path]:
    with new_cgroup("cgroup2") as path:
        yield path


def open_files(pid: int) -> list[str]:
    return [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]


# --- how it ends


@pytest.mark.parametrize("code", [0, 1, 7, 124, 127, 255])
def test_exit_code(run: Callable[..., Run], code: int) -> None:
    one = run(plan(shell(f"exit {code}")))
    assert one.exit_code() == code
    assert one.kinds() == ["ready", "started", "exited", "done"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGRTMAX])
def test_death_by_signal(run: Callable[..., Run], number: int) -> None:
    assert run(plan(shell(f"kill -{int(number)} $$"))).exit_code() == -number


def test_exited_says_what_was_used(run: Callable[..., Run]) -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    one = run(plan((sys.executable, "-S", "-I", "-c", burn)))
    _, time, user, system, rss, minor, *_ = map(int, one.record("exited"))
    assert user + system >= 200_000
    assert 1000 < rss < 1_000_000
    assert minor > 100
    assert time > 0


def test_started_comes_before_exited(run: Callable[..., Run]) -> None:
    one = run(plan(("/bin/true",)))
    assert 0 < int(one.record("started")[0]) < int(one.record("exited")[1])


def test_started_brings_the_workloads_pidfd(start: Start) -> None:
    one = start(plan(SLEEP))
    one.go()
    one.until("started")
    signal.pidfd_send_signal(one.workload, signal.SIGTERM)
    assert one.finish() == 0
    assert one.exit_code() == -TERM


# --- execve


@pytest.mark.parametrize(("files", "error", "index", "exists", "allowed"), [
    (["missing"], errno.ENOENT, 0, 0, 0),
    (["missing", "directory/missing"], errno.ENOENT, 0, 0, 0),
    (["file/below"], errno.ENOTDIR, 0, 0, 0),
    (["not-executable"], errno.EACCES, 0, 1, 0),
    (["directory"], errno.EISDIR, 0, 1, 1),
    (["directory", "not-executable"], errno.EACCES, 1, 1, 0),
    (["missing", "not-executable", "missing"], errno.EACCES, 1, 1, 0),
    (["missing", "bad-interpreter", "missing"], errno.ENOENT, 1, 1, 1),
    (["bad-interpreter", "not-executable"], errno.EACCES, 1, 1, 0),
    (["missing", "no-format", "good"], errno.ENOEXEC, 1, 1, 1),
])
def test_exec_failure(run: Callable[..., Run], tmp_path: Path, files: list[str], error: int, index: int,
                      exists: int, allowed: int) -> None:
    (tmp_path / "directory").mkdir()
    for name, content, mode in (("file", "", 0o644), ("not-executable", "#!/bin/sh\n", 0o644),
                                ("bad-interpreter", "#!/no/such\n", 0o755), ("no-format", "exit 0\n", 0o755),
                                ("good", "#!/bin/sh\nexit 5\n", 0o755)):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(mode)
    steps = plan(("command",), candidates=[str(tmp_path / name) for name in files])
    one = run(steps)
    assert one.kinds() == ["ready", "exec_failed", "done"]
    assert list(map(int, one.record("exec_failed"))) == [len(steps), error, index, exists, allowed]


def test_exec_goes_on_to_the_next_candidate(run: Callable[..., Run], tmp_path: Path) -> None:
    (tmp_path / "not-executable").write_text("#!/bin/sh\n")
    candidates = [str(tmp_path / "missing"), str(tmp_path / "not-executable"), "/bin/sh"]
    assert run(plan(("sh", "-c", "exit 5"), candidates=candidates)).exit_code() == 5


# --- steps that fail


@pytest.mark.parametrize(("op", "args", "where", "error"), [
    ("mount", ("nonsense", "/tmp", 0, ""), "init", errno.ENODEV),
    ("chdir", ("/no/such",), "workload", errno.ENOENT),
    ("rlimit", (7, 10, 5), "workload", errno.EINVAL),
    ("join", (0,), "workload", errno.EBADF),
    ("ctty", (2,), "workload", None),
    ("clone3", (CLONE_NEWNS,), "guard", errno.EINVAL),
    ("clone3", (CLONE_NEWPID | 0x100,), "guard", errno.EINVAL),
    ("stop", (65, 0), "guard", errno.EINVAL),
    ("deadline", (0,), "guard", errno.EINVAL),
    ("watch", ("name", "/file", "", 0, 0), "guard", errno.EINVAL),
    ("claim", ("/no/such/claim", ""), "guard", errno.ENOENT),
])
def test_a_step_that_fails_is_named(run: Callable[..., Run], op: str, args: tuple[Arg, ...], where: str,
                                    error: int | None) -> None:
    steps = plan(("/bin/true",))
    place = next(i for i, one in enumerate(steps) if one.where == where and one.op != "launcher")
    steps.insert(place, step(op, *args))
    with pipe() as (reader, writer):
        one = run(steps, stdio=(0, 1, reader.fileno()))  # never a terminal
        writer.close()
    number, code, place_said = one.record("failed")
    assert (int(number), place_said) == (place + 1, where)
    assert error is None or int(code) == error
    assert not {"started", "exited"} & set(one.kinds())
    assert one.kinds()[-1] == "done"


@pytest.mark.parametrize("data", [b"", b"SBX1", bytes(range(256)), wire.encode([(1, step("setsid"))])[:-1]])
def test_bad_plan(program: Path, data: bytes) -> None:
    one = Run(program, data)
    try:
        assert one.receive() == ["failed", "0", str(errno.EINVAL), "wire"]
        assert one.receive() == []
        assert one.reap() == 2
    finally:
        one.close()


def test_nothing_starts_without_go(start: Start, tmp_path: Path) -> None:
    one = start(plan(shell(f"touch {tmp_path}/started")))
    one.until("ready")
    one.send("kill")
    assert one.finish() == 0
    assert "started" not in one.kinds()
    assert not (tmp_path / "started").exists()


def test_anything_else_than_go_starts_nothing(start: Start) -> None:
    one = start(plan(("/bin/true",)))
    one.go_on.send(b"gone")
    assert one.finish() == 0
    assert one.kinds() == ["ready", "done"]


# --- what the workload finds


def test_the_workload_is_a_plain_child_of_pid_1(output: Callable[..., str]) -> None:
    pid, parent, init = output(plan(shell("echo $$ $PPID; cat /proc/1/comm"))).split()
    assert int(pid) > 1
    assert (parent, init) == ("1", "sandbox-init")


def test_only_the_standard_streams_are_open(output: Callable[..., str]) -> None:
    listing = "import os; print(*(fd for fd in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{fd}')))"
    fd = os.open("/dev/null", os.O_RDONLY)
    try:
        os.set_inheritable(fd, True)
        assert output(plan((sys.executable, "-S", "-I", "-c", listing))).split() == ["0", "1", "2"]
    finally:
        os.close(fd)


def test_signals_are_as_new_whatever_the_caller_had(start: Start) -> None:
    ignored = (signal.SIGCHLD, signal.SIGINT, signal.SIGPIPE, signal.SIGUSR2, signal.SIGRTMAX)
    old = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM, signal.SIGCHLD})
    with pipe() as (reader, writer):
        try:
            one = start(plan(shell("cat /proc/self/status; exit 3")), stdio=(0, writer.fileno(), 2))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, set())
            for number, handler in old.items():
                signal.signal(number, handler)
        writer.close()
        one.go()
        masks = dict(line.split(":\t", 1) for line in reader.readall().decode().splitlines())
    assert one.finish() == 0
    assert one.exit_code() == 3
    assert {int(masks[name], 16) for name in ("SigBlk", "SigIgn", "SigCgt")} == {0}


@pytest.mark.parametrize("closed", [{0}, {1}, {2}, {0, 1, 2}])
def test_closed_streams_become_dev_null(run: Callable[..., Run], closed: set[int]) -> None:
    with pipe() as (reader, writer):
        stdio = [-1 if fd in closed else (reader, writer, writer)[fd].fileno() for fd in range(3)]
        tests = " && ".join(f"{'' if fd in closed else '!'} [ /proc/self/fd/{fd} -ef /dev/null ]" for fd in range(3))
        assert run(plan(shell(tests)), stdio=stdio).exit_code() == 0


def test_identity_limits_and_directory(output: Callable[..., str]) -> None:
    steps = plan(shell("id -u; id -G; ulimit -n; ulimit -Hn; ulimit -c; pwd"), workload=[
        ("rlimit", 7, 100, 200), ("rlimit", 4, 0, -1), ("setgroups", 1234, 5678), ("setresgid", 4321),
        ("setresuid", 12345), ("chdir", "/usr"), *SIGNALS])
    assert output(steps).split() == ["12345", "4321", "1234", "5678", "100", "200", "0", "/usr"]


def test_a_terminal_becomes_the_controlling_one(run: Callable[..., Run]) -> None:
    ours, theirs = pty.openpty()
    steps = plan(shell("echo here >/dev/tty"), workload=[("setsid",), ("ctty", 0), *SIGNALS])
    try:
        assert run(steps, stdio=(theirs, theirs, theirs)).exit_code() == 0
        assert os.read(ours, 100) == b"here\r\n"
    finally:
        os.close(ours)
        os.close(theirs)


def test_mounts_stay_inside(output: Callable[..., str], tmp_path: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    mount: tuple[Arg, ...] = ("mount", "tmpfs", str(tmp_path), 0, "size=64k")
    assert str(tmp_path) in output(plan(shell("cat /proc/self/mounts"), enter=(*ENTER, mount)))
    assert Path("/proc/self/mountinfo").read_text() == before


def test_id_maps_are_written_before_the_init_goes_on(output: Callable[..., str]) -> None:
    enter: list[tuple[Arg, ...]] = [
        ("clone3", CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUSER), ("id_map", "deny", "1000 0 1", "2000 0 1"),
        ("private",), ("mount", "proc", "/proc", 0, "")]
    text = output(plan(shell("id -u; id -g; cat /proc/self/setgroups"), enter=enter))
    assert text.split() == ["1000", "2000", "deny"]


def test_a_bad_id_map_is_named_and_the_init_ends(run: Callable[..., Run]) -> None:
    enter: list[tuple[Arg, ...]] = [("clone3", CLONE_NEWPID | CLONE_NEWUSER), ("id_map", "", "nonsense", "")]
    one = run(plan(("/bin/true",), enter=enter))
    assert one.record("failed") == ["3", str(errno.EINVAL), "guard"]
    assert "ready" not in one.kinds()


MAPPER = """#!/bin/sh
file=${0##*/new}; file=${file%map}_map; pid=$1; shift
echo "$@" >/proc/$pid/$file
"""
"""What newuidmap and newgidmap do, for root, who needs no leave."""


def mapper(directory: Path, name: str, script: str = MAPPER) -> str:
    path = directory / name
    path.write_text(script)
    path.chmod(0o755)
    return str(path)


def test_tools_write_the_id_maps(output: Callable[..., str], tmp_path: Path) -> None:
    """By the real pid, before the init goes on; setgroups(2) is left alone."""
    enter: list[tuple[Arg, ...]] = [
        ("clone3", CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUSER),
        ("new_id_map", (mapper(tmp_path, "newuidmap"), "{init}", "1000", "0", "1"),
         (mapper(tmp_path, "newgidmap"), "{init}", "2000", "0", "1")),
        ("private",), ("mount", "proc", "/proc", 0, "")]
    text = output(plan(shell("id -u; id -g; cat /proc/self/setgroups"), enter=enter))
    assert text.split() == ["1000", "2000", "allow"]


@pytest.mark.parametrize(("script", "words"), [
    ("#!/bin/sh\necho no, not you >&2\necho more >&2\nexit 1\n", ["0", "guard", "no,", "not", "you"]),
    ("#!/bin/sh\nhead -c 100000 /dev/zero | tr '\\0' x >&2\nexit 1\n", ["0", "guard", "x" * 255]),
    ("#!/bin/sh\nexit 1\n", [str(errno.ECHILD), "guard"]),
    ("#!/bin/sh\nkill -9 $$\n", [str(errno.ECHILD), "guard"])])
def test_a_tool_that_fails_is_heard(run: Callable[..., Run], tmp_path: Path, script: str, words: list[str]) -> None:
    tool = mapper(tmp_path, "newuidmap", script)
    one = run(plan(("/bin/true",), enter=[("clone3", CLONE_NEWPID | CLONE_NEWUSER),
                                          ("new_id_map", (tool, "{init}"), (tool, "{init}"))]))
    assert one.record("failed") == ["3", *words]
    assert "ready" not in one.kinds()


@pytest.mark.parametrize("argvs", [((), ()), (("/bin/true",), ("/bin/true",))])
def test_a_tool_without_a_place_for_the_pid_is_refused(run: Callable[..., Run], argvs: tuple[Arg, Arg]) -> None:
    one = run(plan(("/bin/true",), enter=[("clone3", CLONE_NEWPID | CLONE_NEWUSER), ("new_id_map", *argvs)]))
    assert one.record("failed") == ["3", str(errno.EINVAL), "guard"]


def test_streams_are_given(start: Start) -> None:
    """The pipes that are named, and no others."""
    with pipe() as (reader, writer), pipe() as (other, kept):
        one = start(plan(("/bin/true",), enter=[*ENTER, ("give_streams", 5, 6, 1)]),
                    stdio=(0, writer.fileno(), kept.fileno()))
        one.go()
        assert one.finish() == 0
        found = [(os.fstat(end.fileno()).st_uid, os.fstat(end.fileno()).st_gid) for end in (reader, other)]
    assert found == [(5, 6), (0, 0)]


# --- pid 1


def test_orphans_are_reaped(run: Callable[..., Run]) -> None:
    """A hundred daemons, and no zombie of them stays."""
    script = """
import os, time
for _ in range(100):
    if not (pid := os.fork()):
        os.fork()
        os._exit(0)
    os.waitpid(pid, 0)
end = time.monotonic() + 60
while set(filter(str.isdigit, os.listdir("/proc"))) != {"1", str(os.getpid())}:
    if time.monotonic() > end:
        os._exit(1)
"""
    one = run(plan((sys.executable, "-S", "-I", "-c", script)))
    assert one.exit_code() == 0
    assert one.record("exited")[-1] == "0"


def test_what_is_left_behind_is_killed_and_counted(run: Callable[..., Run]) -> None:
    one = run(plan(shell("sleep 1000 & sleep 1000 & (sleep 1000 & exec sleep 1000) & exit 3")))
    assert one.exit_code() == 3
    assert 3 <= int(one.record("exited")[-1]) <= 4  # the last of them may not have been forked yet


def test_nothing_of_the_tree_lives_when_it_is_done(start: Start) -> None:
    with pipe() as (reader, writer):
        one = start(plan(shell("trap '' TERM INT HUP; setsid sleep 1000 & echo")), stdio=(0, writer.fileno(), 2))
        writer.close()
        one.go()
        one.until("done")
        assert reader.readall().decode() == "\n"  # the sleep held the other end
    assert one.finish() == 0


def test_signals_are_passed_on(start: Start) -> None:
    with pipe() as (reader, writer):
        one = start(plan(shell("trap 'exit 42' USR1; echo; while :; do sleep 1000 & wait; done")),
                    stdio=(0, writer.fileno(), 2))
        writer.close()
        one.go()
        one.until("started")
        assert reader.read(1) == b"\n"
        one.send(f"signal {int(signal.SIGUSR1)}")
        assert one.finish() == 0
    assert one.exit_code() == 42


@pytest.mark.parametrize("command", ["signal 0", "signal 65", "signal", "signal 9x", "signals 9", "x", "x" * 200])
def test_nonsense_from_the_launcher_does_nothing(start: Start, command: str) -> None:
    one = start(plan(SLEEP))
    one.go()
    one.until("started")
    one.send(command)
    one.send("signal 15")
    assert one.finish() == 0
    assert one.exit_code() == -TERM


# --- stopping


def stubborn(*guard: tuple[Arg, ...]) -> list[Step]:
    """A workload in which every signal is blocked, and what the guard does about it."""
    return plan(SLEEP, guard=guard, workload=())


def test_stop_asks_first(start: Start) -> None:
    one = start(plan(SLEEP, guard=[("stop", int(signal.SIGINT), 60_000)]))
    one.go()
    one.until("started")
    one.send("stop")
    assert one.finish() == 0
    assert one.record("stopping")[0] == "killed"
    assert one.exit_code() == -signal.SIGINT
    assert "killing" not in one.kinds()


def test_stop_kills_when_asking_does_not_help(start: Start) -> None:
    one = start(stubborn(("stop", TERM, 50)))
    one.go()
    one.until("started")
    one.send("stop")
    assert one.finish() == 0
    assert one.kinds() == ["ready", "started", "stopping", "killing", "exited", "done"]
    (_, asked), (reason, killed) = one.record("stopping"), one.record("killing")
    assert int(killed) - int(asked) >= 50_000_000
    assert reason == "killed"
    assert one.exit_code() == -signal.SIGKILL


def test_kill_does_not_wait_for_a_stop(start: Start) -> None:
    one = start(stubborn(("stop", TERM, 1_000_000)))
    one.go()
    one.until("started")
    one.send("stop")
    one.send("kill")
    assert one.finish() == 0
    assert one.exit_code() == -signal.SIGKILL


def test_an_init_that_does_not_answer_is_killed_from_outside(start: Start) -> None:
    one = start(plan(SLEEP))
    one.go()
    one.until("started")
    os.kill(one.init, signal.SIGSTOP)
    one.send("kill")
    assert one.finish() == 0
    assert one.kinds() == ["ready", "started", "killing", "done"]
    wait_gone(one.workload)


def test_deadline_stops_softly(run: Callable[..., Run]) -> None:
    one = run(plan(SLEEP, guard=[("stop", TERM, 60_000), ("deadline", 50)]))
    assert one.record("stopping")[0] == "wall_time"
    assert int(one.record("stopping")[1]) - int(one.record("started")[0]) >= 50_000_000
    assert one.exit_code() == -TERM


@pytest.mark.parametrize("timeout", [0, 20])
def test_deadline_kills(run: Callable[..., Run], timeout: int) -> None:
    one = run(stubborn(("stop", TERM, timeout), ("deadline", 50)))
    assert ("stopping" in one.kinds()) == (timeout > 0)
    assert one.record("killing")[0] == "wall_time"
    assert one.exit_code() == -signal.SIGKILL


def test_a_deadline_that_is_not_reached_is_not_heard_of(run: Callable[..., Run]) -> None:
    one = run(plan(("/bin/true",), guard=[("stop", TERM, 0), ("deadline", 60_000)]))
    assert one.kinds() == ["ready", "started", "exited", "done"]


def test_watch_stops_at_its_limit(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "stat"
    file.write_text("user 5000\nusage 10\n")
    one = start(plan(SLEEP, guard=[("stop", TERM, 60_000), ("watch", "cpu_time", str(file), "usage", 1000, 5)]))
    one.go()
    one.until("started")
    with file.open("r+") as changed:
        changed.write("user 5000\nusage 1000\n")
    assert one.finish() == 0
    assert one.record("stopping")[0] == "cpu_time"
    assert one.record("sample") == ["cpu_time", "1000"]
    assert one.exit_code() == -TERM


@pytest.mark.parametrize(("content", "key", "sample"), [
    ("7\n", "", ["one", "7"]),
    ("9223372036854775807", "", ["one", str((1 << 63) - 1)]),
    ("99999999999999999999999", "", ["one", str((1 << 63) - 1)]),
    ("a 1\nab 2\nb 3\n", "ab", ["one", "2"]),
    ("a 1\nab 2\n", "b", None),
    ("ab 2\na 1\n", "a", ["one", "1"]),
    ("max\n", "", None),
    ("", "", None),
    (None, "", None),
    ("x 1\n" * 4000 + "y 2\n", "x", ["one", "1"]),
])
def test_watch_reads(run: Callable[..., Run], tmp_path: Path, content: str | None, key: str,
                     sample: list[str] | None) -> None:
    if content is not None:
        (tmp_path / "file").write_text(content)
    one = run(plan(("/bin/true",), guard=[("watch", "one", str(tmp_path / "file"), key, 0, 1000)]))
    assert [record[1:] for record in one.records if record[0] == "sample"] == ([sample] if sample else [])
    assert one.kinds()[-1] == "done"


def test_watch_keeps_the_highest(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "peak"
    file.write_text("30")
    steps = plan(SLEEP, guard=[("stop", TERM, 0), ("watch", "peak", str(file), "", 0, 1),
                               ("watch", "other", str(tmp_path / "other"), "", 1, 1)])
    one = start(steps)
    one.go()
    one.until("started")
    with file.open("r+") as changed:
        changed.write("40")
        changed.flush()
        (tmp_path / "other").write_text("1")  # is seen after the 40 has been, and ends it
        one.until("killing")
        changed.seek(0)
        changed.write("20")
    assert one.finish() == 0
    assert [record for record in one.records if record[:2] == ["sample", "peak"]] == [["sample", "peak", "40"]]


# --- the cgroup, the claim, and what becomes of them


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
