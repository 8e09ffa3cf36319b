"""Labels of security modules: what is made of what sandbox-init tells, and what is said of a label that is refused."""

from __future__ import annotations

import os
from errno import EACCES, EINVAL, ENOENT, EOPNOTSUPP, EPERM
from pathlib import Path

import pytest

from sandbox.errors import Unsupported
from sandbox.isolation import label, security
from sandbox.isolation.label import Labels
from sandbox.report import LabelReport
from sandbox.spec import Spec
from sandbox.steps import Plan, Step

OWN = "unconfined_u:unconfined_r:unconfined_t:s0"
NEW = "unconfined_u:unconfined_r:container_t:s0"


def step(*options: str, best_effort: bool = False) -> Step:
    parsed = tuple(security.parse(one, "security_opt") for one in options)
    [one] = security.label_steps(Spec(argv=("work",), security_opt=parsed, best_effort=best_effort))
    return one


PLAN = Plan(driver="none", name="box", steps=(step("label=container_t"),), limits=(), reads=())


def labels(*options: str) -> Labels:
    return Labels(Plan(driver="none", name="box", steps=(step(*options),), limits=(), reads=()))


@pytest.fixture
def selinux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An enforcing SELinux that knows two types, and lets one become the other but for our no_new_privs."""
    (tmp_path / "enforce").write_text("1")
    for kind, names in (("process", ("fork", "transition")), ("process2", ("nnp_transition", "nosuid_transition")),
                        ("file", ("entrypoint",)), ("fd", ("use",)), ("fifo_file", ("read", "write")),
                        ("chr_file", ("read", "write"))):
        (tmp_path / "class" / kind / "perms").mkdir(parents=True)
        (tmp_path / "class" / kind / "index").write_text(kind)
        for number, name in enumerate(names, 1):
            (tmp_path / "class" / kind / "perms" / name).write_text(str(number))

    def ask(file: str, question: str) -> str:
        context, *rest = question.split()
        if context.split(":")[2] not in ("unconfined_t", "container_t", "loose_t"):
            raise OSError(EINVAL, os.strerror(EINVAL))
        allowed = {"process": "3", "process2": "2", "fd": "1", "fifo_file": "1"}.get(rest[-1], "0") if rest else ""
        return f"{allowed} ffffffff 0 ffffffff 1 {int('loose_t' in context)}"

    monkeypatch.setattr(label, "SELINUX", str(tmp_path))
    monkeypatch.setattr(label, "_ask", ask)
    monkeypatch.setattr(label, "_current", lambda: OWN.split(":", 3))
    return tmp_path


def test_the_flags_of_a_step() -> None:
    assert label.wish(step("apparmor=a b")) == "apparmor=a b"
    assert label.wish(step("label=t", "label=level:s0:c1")) == "label=type:t label=level:s0:c1"


def test_best_effort_takes_a_label_that_is_only_logged() -> None:
    assert [step("apparmor=a", best_effort=one).args[-1] for one in (False, True)] == [1, 0]


def test_a_module_that_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "enabled").write_text("N\n")
    monkeypatch.setattr(label, "APPARMOR", str(tmp_path / "enabled"))
    monkeypatch.setattr(label, "SELINUX", str(tmp_path / "missing"))
    for option, words in (("apparmor=a", "AppArmor is not active here (.*does not say Y)"),
                          ("label=t", "SELinux is not active here (.*No such file")):
        problem = label.inactive(step(option))
        assert isinstance(problem, Unsupported)
        assert str(problem).startswith(f'security_opt="{label.wish(step(option))}": ')
        assert words.partition(" (")[0] in str(problem)
    (tmp_path / "enabled").write_text("Y\n")
    assert label.inactive(step("apparmor=a")) is None


def test_permissive_is_not_enforced(selinux: Path) -> None:
    assert label.toothless(step("label=container_t")) is None
    assert "has the type loose_t permissive" in str(label.toothless(step("label=loose_t")))
    (selinux / "enforce").write_text("0")
    assert "SELinux is permissive here" in str(label.toothless(step("label=container_t")))
    assert label.toothless(step("apparmor=a")) is None


@pytest.mark.parametrize(("got", "why_not"), [
    (NEW, ""), (OWN, f"the process had the label {OWN} after its start, not {NEW}"),
    ("", "the label of the process could not be read")])
def test_a_context(selinux: Path, got: str, why_not: str) -> None:
    one = labels("label=container_t")
    one.entering(1, OWN, NEW)
    if got:
        one.got(1, got)
    flag = "--security-opt label=type:container_t"
    assert one.reports() == (LabelReport("selinux", flag, got or None, not why_not),)
    assert [unmet.reason for unmet in one.unmet()] == ([f"label=type:container_t: {why_not}"] if why_not else [])


@pytest.mark.parametrize(("mode", "enforced"), [
    ("enforce", True), ("kill", True), ("complain", False), ("unconfined", False), ("mixed", False)])
def test_a_profile_binds_by_its_mode(mode: str, enforced: bool) -> None:
    one = labels("apparmor=mine")
    one.entering(1, "unconfined", f"mine ({mode})")
    one.got(1, f"mine ({mode})")
    [report] = one.reports()
    assert (report.label, report.enforced) == (f"mine ({mode})", enforced)
    assert [unmet.reason for unmet in one.unmet()] == (
        [] if enforced else [f"apparmor=mine: the profile is in {mode} mode, which does not enforce it"])


def test_streams_that_are_cut_off_are_told(selinux: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One fd of a pipe may be used; /dev/null is another class, of which nothing is allowed."""
    monkeypatch.setattr(os, "getxattr", lambda fd, name: b"u:object_r:loose_t:s0\0")
    reading, writing = os.pipe()
    null = os.open("/dev/null", os.O_RDWR)
    try:
        one = Labels(PLAN, (reading, writing, null))
        one.entering(1, OWN, NEW)
        one.got(1, NEW)
    finally:
        for fd in (reading, writing, null):
            os.close(fd)
    [report] = one.reports()
    assert (report.enforced, report.note) == (True, (
        "the policy does not let it use stdout, stderr: /dev/null is in their place; it would need: allow container_t "
        "loose_t:fifo_file write; allow container_t loose_t:chr_file { read write };"))


@pytest.mark.parametrize(("option", "errno", "words", "told"), [
    ("apparmor=mine", ENOENT, ("unconfined", "exec", "mine"), "no profile of that name is loaded (hint: aa-status"),
    ("apparmor=mine", EOPNOTSUPP, ("unconfined", "mine", "(complain)"), "in complain mode, which does not enforce it "
                                                                        "(hint: aa-enforce mine, or run with best_eff"),
    ("apparmor=mine", EACCES, ("docker-default", "exec", "mine"), "AppArmor does not let docker-default change to it"),
    ("label=nosuch_t", EINVAL, (OWN, "u:r:nosuch_t:s0"), "the policy has no type nosuch_t (hint: seinfo -t"),
    ("label=role:no_r", EINVAL, (OWN, "u:no_r:t:s0"), "the policy allows no context u:no_r:t:s0 (hint: a type goes"),
    ("label=t", EACCES, (OWN, NEW), "choose a context for an execve: Permission denied (hint: the policy would need: "
                                    "allow unconfined_t self:process setexec;"),
    ("label=t", EINVAL, ("", ""), "the kernel does not take the label: Invalid argument"),
])
def test_a_label_that_is_refused(selinux: Path, option: str, errno: int, words: tuple[str, ...], told: str) -> None:
    error = label.failure(step(option), 7, errno, words)
    assert str(error).startswith(f'security_opt="{label.wish(step(option))}": ')
    assert told in str(error)
    assert (error.exit_code, error.number) == (125, 7)


def test_an_execve_that_a_label_is_to_blame_for(selinux: Path) -> None:
    one = labels("label=container_t")
    one.entering(1, OWN, NEW)
    error = one.refused(EPERM, "/no/such", "")
    assert str(error) == (f'security_opt="label=type:container_t": SELinux does not let {OWN} start /no/such as {NEW}: '
                          "Operation not permitted (hint: the policy would need: "
                          "allow unconfined_t container_t:process2 nnp_transition;)")
    assert one.refused(ENOENT, "/no/such", "") is None
    assert labels("label=container_t").refused(EPERM, "/no/such", "") is None
