"""Somebody freezes or stops processes of a run: it ends all the same, or says why it cannot."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.machine import SLOWER, alive, cgroup_mounts, children, eventually
from support.sandbox_run import Program, Running, names
from support.warm_program import warm

pytestmark = pytest.mark.matter("remains")

sandbox = warm

TREE = ("--", "sh", "-c", "trap '' TERM; sleep 1000 & echo up; wait; wait; sleep 1000")
SOON = ("--timeout", f"{0.5 * SLOWER:g}", "--stop-timeout", "0.1")
"""A time limit that is not over before the test has frozen or stopped a process."""
Freeze = Callable[..., Path]


def cgroup_tree(controller: str) -> Path:
    """Return the mount point of the cgroup v1 tree with this controller; of the cgroup v2 tree if it is empty."""
    return Path(next(point for point, kind, options in cgroup_mounts()
                     if (controller in options.split(",") if controller else kind == "cgroup2")))


@pytest.fixture
def freeze() -> Iterator[Freeze]:
    """Moves processes into a cgroup below a frozen one, and returns the frozen one, which may be left thawed. It is
    thawed at the end."""
    made: list[Path] = []

    def thaw(cgroup: Path) -> None:
        write = {"freezer.state": "THAWED", "cgroup.freeze": "0"}
        for file, value in write.items():
            if (cgroup / file).exists():
                (cgroup / file).write_text(value)

    def freeze(controller: str, *pids: int, frozen: bool = True) -> Path:
        cgroup = cgroup_tree(controller) / names("frozen")
        (cgroup / "below").mkdir(parents=True)
        made.append(cgroup)
        for pid in pids:
            (cgroup / "below/cgroup.procs").write_text(str(pid))
        if not frozen:
            return cgroup
        if controller:
            (cgroup / "freezer.state").write_text("FROZEN")
            assert eventually(lambda: (cgroup / "below/freezer.state").read_text() == "FROZEN\n")
        else:
            (cgroup / "cgroup.freeze").write_text("1")
            assert eventually(lambda: "frozen 1" in (cgroup / "below/cgroup.events").read_text())
        return cgroup

    yield freeze
    for cgroup in made:
        thaw(cgroup)
        for directory in (cgroup / "below", cgroup):
            assert eventually(lambda directory=directory: not (directory / "cgroup.procs").read_text())
            directory.rmdir()


def within(freezer: Path) -> tuple[str, ...]:
    """Words that move into the cgroup below ``freezer`` and then exec the rest."""
    return ("sh", "-c", f"echo $$ > {freezer}/below/cgroup.procs; exec \"$@\"", "sh")


def freeze_without(freezer: Path, *pids: int) -> None:
    """Freeze what is in ``freezer``, without these processes, which are moved to the root of the tree."""
    for pid in pids:
        (cgroup_tree("freezer") / "cgroup.procs").write_text(str(pid))
    (freezer / "freezer.state").write_text("FROZEN")


def processes(running: Running) -> dict[str, int]:
    """Return the processes of :data:`TREE`, by name.

    By then the init sleeps, so that the time of the run is counted, and the child has executed ``sleep``: a child that
    is frozen before that would keep the shell's streams open.
    """
    running.read_line()
    found = {"guard": running.guard()}
    for name, parent in (("init", "guard"), ("command", "init"), ("child", "command")):
        assert eventually(lambda parent=parent: len(children(found[parent])) == 1)
        found[name], = children(found[parent])
    assert eventually(lambda: Path(f"/proc/{found['init']}/stat").read_text().rpartition(")")[2].split()[0] == "S")
    assert eventually(lambda: Path(f"/proc/{found['child']}/comm").read_text() == "sleep\n")
    return found


@pytest.mark.requires("root", "cgroup1")
@pytest.mark.drivers("none")
@pytest.mark.parametrize("who", ["command child", "child", "init command child"])
def test_frozen_by_version_1(sandbox: Program, freeze: Freeze, who: str) -> None:
    """On cgroup v1 SIGKILL has no effect on what is frozen."""
    with sandbox.start(*SOON, *TREE) as running:
        found = processes(running)
        freezer = freeze("freezer", *(found[name] for name in who.split()))
        done = running.finish()
        assert (done.code, done.report["outcome"], done.report["frozen"]) == (124, "wall_time", None)
        assert (freezer / "freezer.state").read_text() == "FROZEN\n", "other people's processes were thawed"
        assert running.gone()
        assert not any(map(alive, found.values()))


@pytest.mark.once
@pytest.mark.requires("root", "cgroup1")
def test_frozen_without_a_pid_namespace(sandbox: Program, freeze: Freeze) -> None:
    with sandbox.start("--pid", "host", *SOON, *TREE) as running:
        found = processes(running)
        freeze("freezer", found["init"], found["command"], found["child"])
        assert running.finish().code == 124
        assert not any(map(alive, found.values()))


@pytest.mark.requires("root", "cgroup1")
@pytest.mark.drivers("none")
@pytest.mark.parametrize("pid", ["private", "host"])
def test_frozen_and_the_runner_killed(sandbox: Program, freeze: Freeze, pid: str) -> None:
    """After the runner's death, only the guard can thaw the processes."""
    with sandbox.start("--pid", pid, *TREE) as running:
        found = processes(running)
        freeze("freezer", found["command"], found["child"])
        running.process.kill()
    assert eventually(lambda: running.gone() and not any(map(alive, found.values())))


@pytest.mark.once
@pytest.mark.requires("root", "cgroup1")
@pytest.mark.parametrize("pid", ["private", "host"])
def test_what_the_command_leaves_is_frozen(sandbox: Program, freeze: Freeze, pid: str) -> None:
    with sandbox.start("--pid", pid, "--", "sh", "-c", "sleep 1000 & echo up; read line; exit 3") as running:
        freeze("freezer", processes(running)["child"])
        done = running.finish(b"\n")
    assert (done.code, done.report["outcome"], done.usage["left_behind"]) == (3, "exited", 1)


@pytest.mark.once
@pytest.mark.requires("root", "cgroup1")
@pytest.mark.parametrize("pid", ["private", pytest.param("host", marks=pytest.mark.long)])
def test_what_cannot_be_thawed_is_named(sandbox: Program, freeze: Freeze, pid: str) -> None:
    """The freezer cgroup that the run came from is frozen, with the command in it; runner and guard have left it."""
    freezer = freeze("freezer", frozen=False)
    with sandbox.start("--pid", pid, *SOON, *TREE, wrap=within(freezer)) as running:
        found = processes(running)
        freeze_without(freezer, running.pid, found["guard"], found["init"])
        assert running.process.stderr
        assert running.process.wait(60) == 124
        # The command has the pipe, too: it has no end yet.
        said = next(line for line in map(bytes.decode, running.process.stderr) if "wall_time" in line)
        assert f"{freezer} keeps process {found['command']} frozen" in said
        assert f"echo THAWED > {freezer}/freezer.state" in said
        report = running.take_report()
    assert report["outcome"] == "wall_time"
    assert report["frozen"]["cgroups"] == [str(freezer)]
    assert alive(found["command"])
    (freezer / "freezer.state").write_text("THAWED")
    assert eventually(lambda: running.gone() and not any(map(alive, found.values())))


@pytest.mark.once
@pytest.mark.requires("root", "cgroup1")
def test_what_the_command_leaves_cannot_be_thawed(sandbox: Program, freeze: Freeze) -> None:
    """A run without a time limit ends although a process that its command has left stays frozen."""
    freezer = freeze("freezer", frozen=False)
    with sandbox.start("--", "sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo up; read line; exit 3",
                       wrap=within(freezer)) as running:
        found = processes(running)
        freeze_without(freezer, running.pid, *(found[name] for name in ("guard", "init", "command")))
        assert running.finish(b"\n").code == 3
    assert alive(found["child"])
    (freezer / "freezer.state").write_text("THAWED")
    assert eventually(lambda: running.gone() and not any(map(alive, found.values())))


@pytest.mark.once
@pytest.mark.requires("root", "cgroup1")
def test_frozen_when_the_init_is_killed(sandbox: Program, freeze: Freeze) -> None:
    with sandbox.start(*TREE) as running:
        found = processes(running)
        freeze("freezer", found["command"], found["child"])
        os.kill(found["init"], signal.SIGKILL)
        assert running.finish().code == 125
        assert not any(map(alive, found.values()))


@pytest.mark.once
@pytest.mark.requires("root", "cgroup1")
def test_frozen_where_a_part_of_the_tree_is_mounted(sandbox: Program, freeze: Freeze) -> None:
    """Docker mounts a container's own freezer cgroup, and /proc/PID/cgroup counts from the root of the tree."""
    mount = cgroup_tree("freezer")
    freezer = freeze("freezer", frozen=False)
    enter = ("unshare", "-m", "sh", "-c", f"echo $$ > {freezer}/cgroup.procs; mount --bind {freezer} /mnt; "
             f"umount -l {mount}; mount --move /mnt {mount}; exec \"$@\"", "sh")
    with sandbox.start(*SOON, *TREE, wrap=enter) as running:
        found = processes(running)
        for name in ("command", "child"):
            (freezer / "below/cgroup.procs").write_text(str(found[name]))
        (freezer / "below/freezer.state").write_text("FROZEN")
        assert running.finish().code == 124
        (freezer / "below/freezer.state").write_text("THAWED")
        assert not any(map(alive, found.values()))


@pytest.mark.requires("root", "cgroup2_tree")
@pytest.mark.drivers("none")
def test_frozen_by_version_2(sandbox: Program, freeze: Freeze) -> None:
    """On cgroup v2 SIGKILL ends what is frozen."""
    with sandbox.start(*SOON, *TREE) as running:
        found = processes(running)
        freeze("", found["command"], found["child"])
        assert running.finish().code == 124
        assert not any(map(alive, found.values()))


@pytest.mark.only("cgroupfs")  # systemd would forget a unit that all processes have left
@pytest.mark.requires("root", "cgroup2_tree")
@pytest.mark.parametrize("who", [pytest.param("init command child", marks=pytest.mark.long),
                                 pytest.param("guard init command child", marks=pytest.mark.long_in_vm)])
def test_guard_or_init_frozen_by_version_2(sandbox: Program, freeze: Freeze, who: str) -> None:
    """The kernel sends SIGKILL to a guard that is frozen when the time is over."""
    with sandbox.start(*SOON, *TREE) as running:
        found = processes(running)
        freeze("", *(found[name] for name in who.split()))
        done = running.finish()
        assert (done.code, done.report["outcome"]) == (124, "wall_time")
        assert running.gone()
        assert not any(map(alive, found.values()))


@pytest.mark.long_in_vm
@pytest.mark.requires("root", "cgroup2_tree")
def test_own_cgroup_is_frozen_by_version_2(sandbox: Program) -> None:
    """In a service, the guard is in the cgroup that is frozen."""
    with sandbox.start(*SOON, *TREE) as running:
        command = processes(running)["command"]
        path = next(line[3:] for line in Path(f"/proc/{command}/cgroup").read_text().splitlines()
                    if line.startswith("0::"))
        (cgroup_tree("") / path[1:] / "cgroup.freeze").write_text("1")
        assert running.finish().code == 124
        assert running.gone()


@pytest.mark.drivers("none")
def test_the_guard_is_stopped(sandbox: Program) -> None:
    """The guard keeps the time limit, so a guard that is stopped must be continued."""
    with sandbox.start(*SOON, *TREE) as running:
        os.kill(processes(running)["guard"], signal.SIGSTOP)
        assert running.finish().code == 124


@pytest.mark.drivers("none")
def test_the_guard_is_stopped_and_the_end_asked_for(sandbox: Program) -> None:
    with sandbox.start("--stop-timeout", "0.1", *TREE) as running:
        os.kill(processes(running)["guard"], signal.SIGSTOP)
        running.process.terminate()
        assert running.finish().code == 137


@pytest.mark.drivers("none")
def test_the_guard_is_stopped_when_the_command_ends(sandbox: Program) -> None:
    with sandbox.start("--", "sh", "-c", "sleep 1000 & echo up; read line; exit 3") as running:
        os.kill(processes(running)["guard"], signal.SIGSTOP)
        assert running.finish(b"\n").code == 3


@pytest.mark.drivers("none")
def test_the_init_is_stopped(sandbox: Program) -> None:
    with sandbox.start(*SOON, *TREE) as running:
        os.kill(processes(running)["init"], signal.SIGSTOP)
        done = running.finish()
    assert (done.code, done.report["signal"]) == (124, signal.SIGKILL), "what the init knows of the end was lost"


@pytest.mark.drivers("none")
def test_the_guard_is_stopped_and_the_runner_killed(sandbox: Program) -> None:
    with sandbox.start(*TREE) as running:
        found = processes(running)
        os.kill(found["guard"], signal.SIGSTOP)
        running.process.kill()
    assert eventually(lambda: running.gone() and not any(map(alive, found.values())))
