"""What the workload of sandbox-init finds: parent, streams, signals, ids, limits, mounts and its user namespace."""

from __future__ import annotations

import errno
import os
import pty
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.steps import Arg
from support.bare_launcher import (
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    ENTER,
    SIGNALS,
    Run,
    Start,
    pipe,
    plan,
    shell,
)

pytestmark = pytest.mark.requires("root")


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
    steps = plan(shell("echo here >/dev/tty"), enter=[*ENTER, ("setsid",), ("ctty", 0)],
                 workload=[("setpgid",), ("foreground", 0), *SIGNALS])
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
