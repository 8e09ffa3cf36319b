"""The message for each step that fails, with each errno: it names the option, no number of a step, and has a hint."""

from __future__ import annotations

import errno
import os
import re

import pytest

from sandbox import surroundings
from sandbox.box import compile_plan
from sandbox.cgroup.files import failure
from sandbox.drivers.process import FEW_FILES
from sandbox.failures import WHAT, step_failure
from sandbox.launch import Record
from sandbox.steps import CHILDREN, Phase, Plan, Step, Where
from support.saved_hosts import HOSTS, SPECS, by, hosts_and_ways, spec

ERRORS = (errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSYS, errno.EEXIST, errno.EROFS, errno.ENOENT, errno.ENOMEM,
          errno.EAGAIN, errno.EBUSY, errno.EMFILE, errno.ENOSPC, errno.ENODEV, errno.ELOOP, errno.EUSERS, errno.EIO)
ELSEWHERE = ("label", "execve")
"""Ops whose messages are tested in test_label.py and in the tests of how a run ends."""


def steps() -> list[Step]:
    """A step of each op and flag that sandbox-init carries out: from the plans of the saved hosts, and some that are in
    none of them."""
    found = {}
    wanted = [*SPECS.values(), spec(tty=True, nice="5", ionice="idle", oom_score_adj="-5", hostname="x",
                                    tmpfs=["/mnt/t"], cwd="/srv", ns=["net:/run/netns/blue"])]
    for host, way in hosts_and_ways():
        for one in wanted:
            for step in compile_plan(by(way, one), HOSTS[host], name="x")[0].steps:
                if step.where in CHILDREN and step.op not in ELSEWHERE:
                    found.setdefault((step.op, step.realises), step)
    more = (("symlink_in", "a", "/b"), ("mknod_in", "/dev/x", 0, 0, 0, 0, 0), ("node", 0, 0, 0, 0, 0, 0, 0),
            ("overlay", 0, "/a", "/b", "/c"), ("setns", 1), ("enter_userns",),
            ("mount_cgroup", "/sys/fs/cgroup", "cgroup2", ""))
    return [*found.values(), *(Step(op=op, phase=Phase.ENTER, args=args, where=Where.INIT) for op, *args in more)]


def said(step: Step, error: int) -> tuple[str, str]:
    one = step_failure(Plan(driver="x", name="n", steps=(step,)), Record("failed", ("1", str(error), "init"), None))
    return one.message, one.hint


@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize("step", steps(), ids=lambda step: f"{step.op}-{step.realises}")
def test_every_step_with_every_error(monkeypatch: pytest.MonkeyPatch, step: Step, uid: int) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(surroundings, "kind", lambda: "")
    for error in ERRORS:
        message, hint = said(step, error)
        option = step.realises.rpartition(".")[2] if step.realises != "argv" else ""
        assert message.startswith(option), message
        assert "--" not in message + hint.replace("`--cap-add SETFCAP`", "").replace("mount --rbind --make-rslave", "")
        assert not set("{}") & {*hint}, hint
        assert "\n" not in message and not re.search(r"\bstep \d|\{\d\}|\b[a-z]+_[a-z]+ \d", message), message
        assert hint, (message, errno.errorcode[error])
        assert uid or "as root" not in hint, hint


@pytest.mark.parametrize(("op", "error"), [("clone3", errno.ENOSYS), ("namespaces", errno.EPERM),
                                           ("mount", errno.EPERM), ("private", errno.EACCES)])
@pytest.mark.parametrize("around", surroundings.NAMESPACES)
def test_what_is_around_is_named_with_its_option(monkeypatch: pytest.MonkeyPatch, around: str, op: str,
                                                 error: int) -> None:
    """A container's filter or its masks are behind each of these, and the kernel names none of them."""
    monkeypatch.setattr(surroundings, "kind", lambda: around)
    step = Step(op, Phase.ENTER, ("proc", "/proc", 0, ""), Where.INIT)
    assert said(step, error)[1] == surroundings.NAMESPACES[around]
    assert said(step, errno.EINVAL)[1] != surroundings.NAMESPACES[around]


def test_a_proc_that_is_not_seen_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "kind", lambda: "")
    step = Step("mount", Phase.ENTER, ("proc", "/proc", 0, ""), Where.INIT)
    assert said(step, errno.EPERM)[1].endswith('or share the one that is there with pid="host"')


def test_each_op_that_may_fail_has_its_words() -> None:
    assert {step.op for step in steps()} - {"rlimit"} <= WHAT.keys()


def test_a_resource_limit_is_named_with_the_one_that_is_in_force() -> None:
    step = Step("rlimit", Phase.EXEC, (7, 99999999, 99999999), Where.WORKLOAD, "limits.ulimit")
    message, hint = said(step, errno.EPERM)
    assert message == "ulimit: cannot set RLIMIT_NOFILE to 99999999:99999999: Operation not permitted"
    assert "the hard limit here is " in hint
    assert "CAP_SYS_RESOURCE" in hint


@pytest.mark.parametrize(("ulimit", "late"), [
    (f"nofile={FEW_FILES - 1}", True), ("ofile=10", True), ("nofile=5:64", False), ("nproc=5", False)])
def test_a_small_limit_of_files_is_set_last(ulimit: str, late: bool) -> None:
    plan = compile_plan(spec(ulimit=[ulimit]), HOSTS["hybrid"], name="x")[0]
    ops = [step.op for step in plan.steps if step.op in ("rlimit", "chdir", "seccomp", "execve")]
    assert ops[-4:] == (["chdir", "seccomp", "rlimit", "execve"] if late else ["rlimit", "chdir", "seccomp", "execve"])


def test_a_cpuset_names_what_the_cgroup_above_has(tmp_path: object) -> None:
    parent = os.path.join(str(tmp_path), "cpuset.cpus")
    with open(parent, "w", encoding="ascii") as file:
        file.write("0\n")
    found = failure("write", f"{tmp_path}/x/cpuset.cpus", "1", OSError(errno.EACCES, "no"))
    assert found.hint == f"the cgroup above allows only 0: {parent}"
