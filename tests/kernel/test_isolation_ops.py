"""The steps that isolate: each that fails is named, and all of them work together."""

from __future__ import annotations

import errno

import pytest

from sandbox.steps import Step
from support.bare_launcher import CLONE_NEWPID, CLONE_NEWUSER, SIGNALS, plan
from support.isolation_plans import (
    CAP_CHOWN,
    CLONE_NEWCGROUP,
    CLONE_NEWNET,
    HOST,
    KILL,
    MAP,
    PIVOT,
    ROOT,
    SECUREBITS,
    Row,
    RunIt,
    bpf,
    held,
    plain,
)

pytestmark = pytest.mark.requires("root")


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


@pytest.fixture
def everything() -> list[Step]:
    return plan(("/bin/true",), enter=held(("hostname", "x"), ("lo_up",), *HOST, PIVOT), workload=[
        ("unshare", CLONE_NEWCGROUP), ("chdir", "/"), ("enter_userns",), ("securebits", SECUREBITS), *ROOT[1:4],
        ("bounding", 0), ("capset", 0, 0, 0), ("setpgid",), *SIGNALS, ("no_new_privs",), ("seccomp", bpf(KILL), 0)])


def test_everything_together(run: RunIt, everything: list[Step]) -> None:
    one = run(everything)
    assert one.exit_code() == 0
    assert one.kinds() == ["ready", "started", "exited", "done"]
