"""What starts a workload, what keeps sandbox-init from it, and how it is told: execve, steps that fail, bad plans."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.init import wire
from sandbox.steps import Arg
from support.bare_launcher import CLONE_NEWNS, CLONE_NEWPID, Run, Start, pipe, plan, shell, step

pytestmark = pytest.mark.requires("root")


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


@pytest.mark.parametrize(("op", "args", "where", "error"), [
    ("mount", ("nonsense", "/tmp", 0, ""), "init", errno.ENODEV),
    ("chdir", ("/no/such",), "workload", errno.ENOENT),
    ("rlimit", (7, 10, 5), "workload", errno.EINVAL),
    ("join", (0,), "workload", errno.EBADF),
    ("ctty", (2,), "init", None),
    ("foreground", (2,), "workload", None),
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
