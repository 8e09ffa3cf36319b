"""A run without root, and one that sees the host's processes: the init finds and ends its descendants."""

from __future__ import annotations

import errno
import io
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.bare_launcher import (
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    SIGNALS,
    Run,
    Start,
    children,
    pipe,
    plan,
    shell,
)
from support.isolation_plans import (
    BASE,
    CAP_KILL,
    HELD,
    MAP,
    NODEV,
    NOEXEC,
    NOSUID,
    PIVOT,
    RDONLY,
    Output,
    Row,
    RunIt,
    python,
    rootless,
    tree,
)
from support.machine import SLOWER

pytestmark = pytest.mark.requires("root")


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
