"""The steps that take privileges, in plans made by hand: capabilities, securebits, seccomp, Landlock, labels."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from support.bare_launcher import SIGNALS, Start, pipe, plan, shell
from support.isolation_plans import (
    CAP_CHOWN,
    CAP_NET_RAW,
    ERRNO,
    HOST,
    KILL,
    PIVOT,
    ROOT,
    SECUREBITS,
    USER_NOTIF,
    Output,
    Row,
    RunIt,
    bpf,
    held,
    in_rootfs,
    plain,
    python,
)

pytestmark = pytest.mark.requires("root")
STATUS = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status"


def status(text: str) -> dict[str, int]:
    return {key: int(value, 16) for key, value in (line.split(":") for line in text.splitlines())}


@pytest.mark.parametrize("kept", [0, CAP_CHOWN, CAP_CHOWN | CAP_NET_RAW])
def test_capabilities_are_exactly_the_kept_ones(output: Output, kept: int) -> None:
    ids = ROOT[:4]
    enter = held(*HOST, PIVOT)
    workload = [ids[0], ("securebits", 0x2F & ~0x40), *ids[1:], ("bounding", kept), ("capset", kept, kept, kept),
                ("ambient", kept), ("setpgid",), *SIGNALS, ("no_new_privs",)]
    found = status(output(plan(shell(STATUS), enter=enter, workload=workload)))
    assert {key: value for key, value in found.items() if key != "Seccomp"} == {
        "CapInh": kept, "CapPrm": kept, "CapEff": kept, "CapBnd": kept, "CapAmb": kept, "NoNewPrivs": 1}


def test_another_user_keeps_ambient_capabilities_alone(output: Output) -> None:
    workload: list[Row] = [("enter_userns",), ("securebits", SECUREBITS & ~0x40), ("setgroups", 7), ("setresgid", 5),
                           ("setresuid", 1234), ("bounding", CAP_NET_RAW),
                           ("capset", CAP_NET_RAW, CAP_NET_RAW, CAP_NET_RAW), ("ambient", CAP_NET_RAW), *SIGNALS]
    text = output(plan(shell(f"id -u; id -G; {STATUS}"), enter=held(*HOST, PIVOT), workload=workload)).split("\n", 2)
    assert text[:2] == ["1234", "5 7"]
    found = status(text[2])
    assert {found[f"Cap{name}"] for name in ("Prm", "Eff", "Bnd", "Amb", "Inh")} == {CAP_NET_RAW}


def test_securebits_hold(output: Output) -> None:
    """Root is nobody special: no capabilities by being 0, and none by a set-user-ID file."""
    code = "import ctypes; print(ctypes.CDLL(None).prctl(27, 0, 0, 0, 0))"
    workload = [("enter_userns",), ("securebits", SECUREBITS), *ROOT[1:4], ("capset", 0, 0, 0), *SIGNALS]
    assert output(plan(python(code), enter=held(*HOST, PIVOT), workload=workload)).strip() == str(SECUREBITS)


CALL_1000 = "import ctypes; print(ctypes.CDLL(None, use_errno=True).syscall(1000), ctypes.get_errno())"


@pytest.mark.parametrize("flags", [0, 2, 4])
def test_seccomp_refuses(output: Output, flags: int) -> None:
    workload = [*SIGNALS, ("no_new_privs",), ("seccomp", bpf(ERRNO | errno.EPERM), flags)]
    assert output(plan(python(CALL_1000), enter=plain(), workload=workload)).split() == ["-1", str(errno.EPERM)]


def test_seccomp_kills(run: RunIt) -> None:
    workload = [*SIGNALS, ("no_new_privs",), ("seccomp", bpf(KILL), 0)]
    assert run(plan(python(CALL_1000), enter=plain(), workload=workload)).exit_code() == -signal.SIGSYS


def test_seccomp_needs_no_new_privs_without_capabilities(run: RunIt) -> None:
    for before, error in (([("capset", 0, 0, 0)], errno.EACCES), ([("capset", 0, 0, 0), ("no_new_privs",)], None)):
        one = run(plan(("/bin/true",), enter=plain(), workload=[*before, ("seccomp", bpf(KILL), 0)]))
        failed = [int(record[2]) for record in one.records if record[0] == "failed"]
        assert failed == ([error] if error else [])


def test_a_listener_is_handed_over(run: RunIt) -> None:
    """With the sizes of what is read from it and written to it; the command does not have it."""
    command = shell("ls -l /proc/self/fd | grep -c seccomp; exit 5")
    one = run(plan(command, enter=plain(), workload=[*SIGNALS, ("no_new_privs",), ("seccomp", bpf(KILL), 8)]))
    assert list(map(int, one.record("listener"))) == [80, 24]
    assert one.exit_code() == 5


def test_a_listener_that_is_closed(start: Start) -> None:
    """What would have been asked is ENOSYS, and not let through."""
    workload = [*SIGNALS, ("no_new_privs",), ("seccomp", bpf(USER_NOTIF), 8)]
    with pipe() as (reader, writer):
        one = start(plan(python(CALL_1000), enter=plain(), workload=workload), stdio=(0, writer.fileno(), 2))
        writer.close()
        one.go()
        one.until("listener")
        os.close(one.network)
        one.network = -1
        assert reader.readall().split() == [b"-1", str(errno.ENOSYS).encode()]
        assert one.finish() == 0


@pytest.mark.requires("scopes")
@pytest.mark.parametrize(("scopes", "error"), [(1, None), (3, None), (0, errno.ENOMSG), (1 << 40, errno.EINVAL)])
def test_landlock(run: RunIt, scopes: int, error: int | None) -> None:
    """It needs no capability, and allows what comes after it."""
    workload = [("capset", 0, 0, 0), *SIGNALS, ("no_new_privs",), ("landlock", scopes, 0, [])]
    one = run(plan(("/bin/true",), enter=plain(), workload=workload))
    assert [int(record[2]) for record in one.records if record[0] == "failed"] == ([error] if error else [])


@pytest.mark.requires("scopes")
def test_landlock_needs_no_new_privs(run: RunIt) -> None:
    one = run(plan(("/bin/true",), enter=plain(), workload=[("capset", 0, 0, 0), *SIGNALS, ("landlock", 3, 0, [])]))
    assert one.record("failed")[1:] == [str(errno.EPERM), "workload"]


def test_what_fails_behind_the_filter_is_still_told(run: RunIt) -> None:
    workload = [*SIGNALS, ("no_new_privs",), ("seccomp", bpf(KILL), 0)]
    one = run(plan(("/no/such",), enter=plain(), workload=workload))
    assert one.record("exec_failed")[1] == str(errno.ENOENT)


def test_a_label_in_a_false_proc_is_refused(run: RunIt, rootfs: Path) -> None:
    (rootfs / "proc" / "self" / "attr").mkdir(parents=True)
    for name in ("current", "exec"):
        (rootfs / "proc" / "self" / "attr" / name).write_text("harmless")
    one = run(plan(("/bin/true",), enter=in_rootfs(rootfs, PIVOT, id_mapped=0),
                   workload=[("label", "selinux", "type:t", 1)]))
    assert one.record("failed")[1:3] == [str(errno.EXDEV), "workload"]
