"""The flags and steps of the filter of system calls, and the filter that asks instead of refusing."""

from __future__ import annotations

import errno
import struct
from pathlib import Path

import pytest

from sandbox.errors import SpecError, Unsupported
from sandbox.isolation import bpf, libseccomp, refusals, seccomp, security
from sandbox.spec import Spec
from sandbox.steps import Step
from support.seccomp_programs import ALLOW, KILL_PROCESS, compiled, resolve, run

pytestmark = pytest.mark.usefixtures("seccomp_cache")


@pytest.mark.parametrize(("text", "value"), [
    ("seccomp=unconfined", "seccomp=unconfined"), ("seccomp=a=b.json", "seccomp=a=b.json"),
    ("label=container_t", "label=type:container_t"), ("label=level:s0:c1,c2", "label=level:s0:c1,c2"),
    ("label=disable", "label=disable"), ("apparmor=mine", "apparmor=mine"),
    ("no-new-privileges", "no-new-privileges=true"), ("no-new-privileges:true", "no-new-privileges=true"),
])
def test_options(text: str, value: str) -> None:
    assert security.parse(text, "security_opt") == value


@pytest.mark.parametrize("text", ["seccomp", "seccomp=", "secomp=x", "no-new-privileges=false", "label=",
                                  "label=a b", "apparmor=a\0"])
def test_refused_options(text: str) -> None:
    with pytest.raises(SpecError, match="security_opt"):
        security.parse(text, "security_opt")


def steps(*options: str) -> list[Step]:
    return list(seccomp.steps(Spec(argv=("work",), security_opt=options, cap_add=("CAP_KILL",))))


def test_steps() -> None:
    assert [(one.op, one.args) for one in steps()] == [("no_new_privs", ()), ("seccomp", (("default", "CAP_KILL"), 0))]
    assert [one.op for one in steps("seccomp=unconfined")] == ["no_new_privs"]
    assert steps("seccomp=/p.json")[-1].args[0] == ("/p.json", "CAP_KILL")
    assert [(one.op, one.args) for one in steps("apparmor=mine", "label=type:t", "label=level:s0:c1,c2")][:2] == [
        ("label", ("apparmor", "mine", 1)), ("label", ("selinux", "type:t level:s0:c1,c2", 1))]
    assert [one.op for one in steps("apparmor=unconfined", "label=disable")] == ["no_new_privs", "seccomp"]


def test_two_profiles_are_one_too_many() -> None:
    with pytest.raises(SpecError, match="seccomp is given as 'a' and as 'b'"):
        steps("seccomp=a", "seccomp=b")


def test_the_program_takes_the_place_of_the_profile() -> None:
    bound = seccomp.bind(steps()[-1])
    assert bound.args == (seccomp.program("default", ("CAP_KILL",)), 0)


def test_asking_instead_of_refusing(default_filter: bytes) -> None:
    """The error travels in the question; what is allowed or killed stays, and so does the size."""
    asking = refusals.asking(default_filter, "default")
    assert len(asking) == len(default_filter)
    assert (run(asking, "mount"), run(asking, "clone3")) == (0x7FC0_0000 | errno.EPERM, 0x7FC0_0000 | errno.ENOSYS)
    assert (run(asking, "read"), run(asking, "read", arch=0x4000_0003)) == (ALLOW, KILL_PROCESS)
    code = list(struct.iter_unpack("=HBBI", asking))
    for number in (*range(-2, 600), 1 << 30, 2**31 - 1):
        call = struct.pack("=iIQ6Q", number, libseccomp.native(), 0, *[2**40] * 6)
        plain, asked = (bpf.verdict(one, call) for one in (list(struct.iter_unpack("=HBBI", default_filter)), code))
        refuses = plain & 0xFFFF_0000 == 0x5_0000
        assert asked == (0x7FC0_0000 | plain & 0xFFFF if refuses else plain), number


def test_asking_needs_a_way_to_ask(default_filter: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    actions = tmp_path / "actions_avail"
    monkeypatch.setattr(refusals, "ACTIONS_AVAILABLE", str(actions))
    with pytest.raises(Unsupported, match=r"seccomp_log: .*actions_avail: No such file"):
        refusals.asking(default_filter, "default")
    actions.write_text("kill_process errno allow\n")
    with pytest.raises(Unsupported, match=r"seccomp_log: .* Linux 5\.0"):
        refusals.asking(default_filter, "default")


def test_a_program_that_is_not_understood(default_filter: bytes) -> None:
    with pytest.raises(Unsupported, match="instruction 0x16 that is not known"):
        refusals.asking(default_filter + struct.pack("=HBBI", 0x16, 0, 0, 0), "default")


def test_a_listener_needs_sendmsg() -> None:
    program = compiled(defaultAction="SCMP_ACT_ALLOW", syscalls=[{"names": ["sendmsg"], "action": "SCMP_ACT_ERRNO"}])
    with pytest.raises(SpecError, match="profile FILE does not allow sendmsg"):
        refusals.asking(program, "FILE")


def test_the_step_that_logs() -> None:
    step = list(seccomp.steps(Spec(argv=("work",), seccomp_log=True)))[-1]
    assert (step.args, step.realises) == ((("default",), 8), "seccomp_log")
    assert seccomp.bind(step).args == (refusals.asking(seccomp.program("default", ()), "default"), 8)


def test_names_of_calls() -> None:
    native = libseccomp.native()
    assert (libseccomp.name_of(resolve("mount"), native), libseccomp.name_of(99999, native)) == ("mount", "99999")
    assert libseccomp.name_of(21, 0x4000_0003) == "mount", "i386"
    assert libseccomp.name_of(0x4000_0000 | 165, 0xC000_003E) == "mount", "x32"
