"""The plan is what happens: ``explain`` equals the trace, and the kernel sees nothing that is not in it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from support.sandbox_run import Program, names
from support.warm_program import warm

pytestmark = pytest.mark.matter("limits")

sandbox = warm

FLAGS = ("-m", "64m", "--cpus", "0.5", "--pids-limit", "20", "--cpuset-cpus", "0", "--ulimit", "nofile=99",
         "--timeout", "50", "--cpu-time", "9", "-w", "/", "-e", "X=1",
         *(("-u", "nobody") if os.geteuid() == 0 else ()))  # one id is all there is in a user namespace of one's own
CALLS = "mount,umount2,move_mount,fsmount,open_tree,mount_setattr,mkdir,mkdirat,rmdir,unlink,unlinkat,rename," \
        "renameat2,write,pwrite64,writev,pivot_root,chroot,sethostname"
STRING = r'"((?:[^"\\]|\\.)*)"'
CGROUPS = "/sys/fs/cgroup"


def explained(sandbox: Program, name: str, *words: str) -> dict[str, Any]:
    """The plan, as ``explain`` prints it."""
    done = sandbox.other("explain", "--json", "--show-env", *sandbox.flags(), "--name", name, *words)
    assert done.code == 0, done.err
    plan: dict[str, Any] = json.loads(done.out)
    return plan


@pytest.mark.drivers("none")
def test_executed_trace_is_the_plan(sandbox: Program) -> None:
    name = names()
    words = ("--best-effort", *FLAGS, "--", "true")
    plan = explained(sandbox, name, *words)
    report = sandbox(*words, name=name).report

    def shown(steps: list[dict[str, Any]]) -> list[tuple[object, ...]]:
        return [(step["number"], step["phase"], step["where"], step["op"], step["args"]) for step in steps]

    assert _masked(shown(report["steps"])) == _masked(shown(plan["steps"]))


def _masked(steps: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Values of the environment may be masked in either."""
    return [(*step[:4], step[4][:2]) if step[3] == "execve" else step for step in steps]  # type: ignore[index]


@pytest.mark.requires("strace", "root")  # strace reads no memory of a process that gave up its dump
@pytest.mark.only("cgroupfs", "systemd", "delegated")  # a service is not our child: strace does not see it
def test_kernel_sees_only_the_plan(sandbox: Program, tmp_path: Path) -> None:
    name = names()
    words = (*FLAGS, "--", "true")
    plan = explained(sandbox, name, *words)
    # One log for each process: in a common one, calls that overlap are torn apart.
    done = sandbox(*words, name=name, wrap=("strace", "-ff", "-y", "-s", "4096", "-e", f"trace={CALLS}",
                                            "-o", str(tmp_path / "strace")))
    assert done.code == 0, done.err
    logs = sorted(tmp_path.glob("strace.*"), key=lambda log: int(log.suffix[1:]))  # by birth: the init, then its child
    calls = [match for log in logs for line in log.read_text().splitlines()
             if (match := re.match(r"(\w+)\((.*)\) += (\d+)", line))]
    steps = plan["steps"]
    made = {step["args"][0] for step in steps if step["op"] == "mkdir"}
    made |= {step["args"][1] for step in steps if step["op"] == "split"}
    inside = {step["args"][0] for step in steps if step["op"] == "mkdir_in" and step["args"][0].startswith(CGROUPS)}
    assert made or sandbox.driver == "systemd"
    _check_mounts([(match[1], match[2]) for match in calls], steps)
    _check_writes([match[2] for match in calls if "write" in match[1]], steps)
    _check_directories([(match[1], match[2]) for match in calls], made, inside)


def _check_mounts(calls: list[tuple[str, str]], steps: list[dict[str, Any]]) -> None:
    """What is taken of the host is in the plan, and so is each place where something is mounted."""
    assert not [name for name, _ in calls if name in ("mount", "chroot")]
    assert [call for name, call in calls if name in ("pivot_root", "umount2")] == ['".", "."', '".", MNT_DETACH']
    taken = [match[1] for name, call in calls if name == "open_tree"
             and (match := re.match(rf"AT_FDCWD[^,]*, {STRING}, ", call))]
    masks = [step["args"][0] for step in steps if step["op"] == "mask"]
    trees = [step["args"][1] for step in steps if step["op"] == "tree"]
    assert [path for path in taken if path != "/dev/null"] == [path for path in trees if path != "/dev/null"]
    seen = [match[1] or match[2] for name, call in calls if name == "move_mount"
            and (match := re.search(rf"\d+<([^>]*)>, \"\", MOVE|AT_FDCWD[^,]*, {STRING}, MOVE", call))]
    place = {"root": lambda _: "/", "mount": lambda args: args[1], "place": lambda args: args[1],
             "mask": lambda args: args[0], "read_only": lambda args: args[0], "mount_cgroup": lambda args: args[0],
             "discard": lambda args: args[0]}
    planned = [place[step["op"]](step["args"]) for step in steps if step["op"] in place]
    absent = {path for path in (*masks, "/proc/sysrq-trigger") if not os.path.lexists(path)}
    assert seen == [path for path in planned if path not in absent]


def _check_writes(calls: list[str], steps: list[dict[str, Any]]) -> None:
    """Each write to a cgroup file is a step, and each such step is a write."""
    planned = {(step["args"][0], step["args"][1]) for step in steps if step["op"] == "write"}
    planned |= {(f"{directory}/cgroup.subtree_control", f"+{controller}")
                for step in steps if step["op"] == "enable" for directory, *controllers in [step["args"]]
                for controller in controllers}
    copied = {step["args"][0] for step in steps if step["op"] == "inherit"}
    joined = {step["args"][0] for step in steps if step["op"] == "open"}
    moved = {f"{step['args'][1]}/cgroup.procs" for step in steps if step["op"] == "split"}
    assert joined or any(step["op"] in ("clone_into_cgroup", "start_unit") for step in steps)
    seen = set()
    for call in calls:
        match = re.match(rf"\d+<(/sys/fs/cgroup/[^>]*)>, {STRING}", call)
        if match and match[1] not in copied:
            seen.add((match[1], match[2].removesuffix("\\n")))
    planned = {one for one in planned if one[0] not in copied}
    assert {path for path, _ in seen} >= moved
    assert {one for one in seen if one[0] not in joined | moved} == planned
    assert {one for one in seen if one[0] in joined} == {(path, "0") for path in joined}


def _check_directories(calls: list[tuple[str, str]], made: set[str], inside: set[str]) -> None:
    found = [match for name, call in calls if name.startswith("mkdir") and CGROUPS in call
             and (match := re.match(rf"(?:\d+<([^>]*)>, )?{STRING}", call))]
    assert {os.path.join(match[1] or "", match[2]) for match in found} == made | inside
    for name, call in calls:
        if name in ("rmdir", "unlink", "unlinkat") and "/sys/fs/cgroup" in call:
            assert any(path in call or path.rpartition("/")[0] in call for path in made), (name, call)
        assert not (name.startswith("rename") and "/sys/fs/cgroup" in call)


@pytest.mark.drivers("none")
@pytest.mark.matter("program")
def test_explain_touches_nothing(sandbox: Program, tmp_path: Path) -> None:
    done = sandbox.other("explain", *sandbox.flags(), "--best-effort", "-m", "64m", "--",
                         "touch", str(tmp_path / "ran"))
    assert done.code == 0
    assert not (tmp_path / "ran").exists()


def test_explain_names_each_flag(sandbox: Program) -> None:
    out = sandbox.other("explain", *sandbox.flags(), *FLAGS, "--", "true").out.decode()
    for flag in ("--memory", "--cpus", "--pids-limit", "--cpuset-cpus", "--ulimit", "--timeout", "--cpu-time"):
        assert flag in out, flag


@pytest.mark.matter("program")
def test_explain_hides_secrets(sandbox: Program) -> None:
    words = ("-e", "TOKEN=hunter2", "--", "true")
    for form in ((), ("--json",), ("--format", "sh")):
        assert b"hunter2" not in sandbox.other("explain", *form, *words).out
        assert b"hunter2" in sandbox.other("explain", "--show-env", *form, *words).out


@pytest.mark.requires("cgroup1")
@pytest.mark.matter("program")
def test_explain_says_what_cannot_be_done(sandbox: Program) -> None:
    done = sandbox.other("explain", "--memory-high", "1g", "--", "true")
    assert done.code == 0
    assert b"memory.high" in done.out


@pytest.mark.matter("program")
def test_explain_for_another_machine(sandbox: Program, tmp_path: Path) -> None:
    saved = tmp_path / "host.json"
    saved.write_bytes(sandbox.other("info", "--json").out)
    here = sandbox.other("explain", "--name", "x", *FLAGS, "--", "true")
    there = sandbox.other("explain", "--host", str(saved), "--name", "x", *FLAGS, "--", "true")
    assert there.code == here.code == 0, there.err
    assert there.out == here.out


def test_shell_commands_do_the_same(sandbox: Program, tmp_path: Path) -> None:
    """What ``--format sh`` prints, typed by hand, sets the same limits and removes them again."""
    import subprocess

    name = names()
    script = tmp_path / "script"
    done = sandbox.other("explain", "--format", "sh", "--show-env", *sandbox.flags(), "--name", name,
                         "--pids-limit", "31", "-m", "64m", "--", "sh", "-c", "cat /proc/self/cgroup")
    assert done.code == 0, done.err
    script.write_bytes(done.out)
    typed = subprocess.run(["sh", str(script)], capture_output=True, text=True, timeout=20, check=False)
    assert typed.returncode == 0, typed.stderr
    assert f"/sandbox-{name}" in typed.stdout
