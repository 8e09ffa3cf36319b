"""The profiles of system calls that are shipped: what each does to a call; and the format of a profile."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from sandbox.errors import SpecError
from sandbox.isolation import libseccomp, seccomp
from sandbox.isolation.rules import Machine, settle
from support.seccomp_programs import (
    ALLOW,
    ENOSYS,
    EPERM,
    HERE,
    KILL_PROCESS,
    LOG,
    NEWER,
    PROFILE,
    THREAD,
    compiled,
    resolve,
    run,
)

I386, ARM = 0x4000_0003, 0x4000_0028
X32 = 0x4000_0000

pytestmark = pytest.mark.usefixtures("seccomp_cache")
WITHOUT_CODE = {"afs_syscall", "create_module", "get_kernel_syms", "getpmsg", "nfsservctl", "putpmsg", "query_module",
                "security", "tuxcall", "uretprobe", "vserver"}
"""Names that x86-64 has numbers for, but no code; uretprobe(2) is newer than the profile, though its number is not."""


@pytest.mark.parametrize("profile", seccomp.SHIPPED)
@pytest.mark.parametrize("call", [
    "keyctl", "add_key", "request_key", "io_uring_setup", "io_uring_enter", "io_uring_register", "bpf", "userfaultfd",
    "perf_event_open", "unshare", "setns", "mount", "umount2", "move_mount", "open_tree", "fsopen", "mount_setattr",
    "open_by_handle_at", "kexec_load", "init_module", "finit_module", "delete_module", "acct", "swapon", "swapoff",
    "quotactl", "pivot_root", "chroot", "reboot", "settimeofday", "clock_settime", "syslog", "sethostname",
    "move_pages", "mbind", "lookup_dcookie", "fanotify_init", "vhangup",
])
def test_refused(profile: str, call: str) -> None:
    assert run(seccomp.program(profile, ()), call) == EPERM


@pytest.mark.skipif(HERE.name != "x86_64", reason="the table is that of x86-64")
def test_the_calls_that_docker_lets_nobody_make() -> None:
    """Everything in the table up to the newest call that ``moby.json`` names, except these. Fails if a name is missing.

    ``tests/lab/test_filters.py`` asks docker itself.
    """
    profile = json.loads(Path(seccomp.shipped("moby")).read_text())
    named = {name for entry in profile["syscalls"] for name in entry["names"]}
    table = {libseccomp.name_of(number, libseccomp.X86_64) for number in range(max(map(resolve, named)) + 1)}
    assert {name for name in table - named if not name.isdigit()} - WITHOUT_CODE == {
        "_sysctl", "add_key", "io_uring_enter", "io_uring_register", "io_uring_setup", "kexec_file_load", "kexec_load",
        "keyctl", "migrate_pages", "move_pages", "pivot_root", "request_key", "swapoff", "swapon", "sysfs", "uselib",
        "userfaultfd", "ustat"}


def test_docker_refuses_one_family_of_sockets() -> None:
    moby = seccomp.program("moby", ())
    assert [family for family in range(50) if run(moby, "socket", family) == EPERM] == [40]  # AF_VSOCK


@pytest.mark.parametrize("call", ["read", "openat", "execve", "close_range", "futex", "sendmsg", "sendto",
                                  "clock_gettime", "exit_group", "faccessat", "faccessat2", "mmap", "rseq", "ptrace",
                                  "memfd_create", "landlock_create_ruleset", "prctl", "pidfd_open", "statx"])
def test_let_through(default_filter: bytes, call: str) -> None:
    assert run(default_filter, call) == ALLOW


def test_what_is_newer_than_the_profile_is_not_there(default_filter: bytes) -> None:
    assert run(default_filter, "clone3") == ENOSYS
    assert run(default_filter, 600) == run(default_filter, 10_000) == ENOSYS


def test_only_the_native_architecture(default_filter: bytes) -> None:
    assert run(default_filter, 20, arch=0x4000_0003) == KILL_PROCESS
    if HERE.name == "x86_64":
        assert run(default_filter, X32 | resolve("getpid")) == KILL_PROCESS
        assert run(default_filter, 0xFFFF_FFFF) == ENOSYS, "-1 is no call of x32"


@pytest.mark.skipif(HERE.name != "x86_64", reason="the numbers are those of an x86_64 machine")
@pytest.mark.parametrize("allowed", [{"archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": [
    "SCMP_ARCH_X86", "SCMP_ARCH_X32"]}]}, {"architectures": ["SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_ARM"]}],
    ids=["archMap", "architectures"])
def test_further_architectures(allowed: dict[str, Any]) -> None:
    """isolate#190. Fails without either key: a 32-bit program ends by SIGSYS though the profile allows it."""
    program = compiled(defaultAction="SCMP_ACT_ERRNO", syscalls=[
        {"names": ["getpid", "stat64", "ioctl", "seccomp"], "action": "SCMP_ACT_ALLOW"}], **allowed)
    assert [run(program, number, arch=I386) for number in (20, 195, 21, 900)] == [ALLOW, ALLOW, EPERM, ENOSYS]
    assert [run(program, X32 | number) for number in (39, 165, 900)] == [ALLOW, EPERM, ENOSYS]
    assert [run(program, number) for number in (39, 165, 900)] == [ALLOW, EPERM, ENOSYS]
    for ioctl in ({"call": 54, "arch": I386}, {"call": X32 | 514}, {"call": 16}):
        call, arch = ioctl["call"], ioctl.get("arch")
        assert [run(program, call, 0, request, arch=arch) for request in (0x5401, 0x5412, 1 << 32 | 0x5412)] == [
            ALLOW, EPERM, EPERM], "no typing into terminals"
    assert run(program, 20, arch=ARM) == KILL_PROCESS, "no such program runs on this machine"


def test_architectures_of_other_machines() -> None:
    entries = [{"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
               {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}]
    text = json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "archMap": entries})
    assert [settle(text, "FILE", Machine((), "6.1.0", name)).architectures for name in (
        "x86_64", "aarch64", "riscv64")] == [("x86",), ("arm",), ()]


@pytest.mark.parametrize("flag", [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000])
def test_no_namespace_by_clone(default_filter: bytes, flag: int) -> None:
    assert run(default_filter, "clone", flag | 17) == run(default_filter, "clone", flag | THREAD) == EPERM
    assert run(default_filter, "clone", THREAD) == run(default_filter, "clone", 17) == ALLOW


def test_families_of_sockets(default_filter: bytes) -> None:
    raw = seccomp.program("default", ("CAP_NET_RAW",))
    for family in range(50):
        assert (run(default_filter, "socket", family) == ALLOW) is (family in (1, 2, 10, 16)), family
        assert (run(raw, "socket", family) == ALLOW) is (family in (1, 2, 10, 16, 17)), family
    assert run(default_filter, "socket", 1 << 32 | 40) == run(default_filter, "socket", 40) == EPERM


@pytest.mark.parametrize("request_", [0x5412, 0x541C, 1 << 32 | 0x5412, 0xFFFF_FFFF_0000_541C])
def test_no_typing_into_terminals(default_filter: bytes, request_: int) -> None:
    """The kernel drops the upper half of ioctl's second argument."""
    assert run(default_filter, "ioctl", 0, request_) == EPERM
    assert run(default_filter, "ioctl", 0, 0x5413) == run(default_filter, "ioctl", 0, 0x5401) == ALLOW


def test_personalities(default_filter: bytes) -> None:
    assert run(default_filter, "personality", 0xFFFF_FFFF) == run(default_filter, "personality", 0) == ALLOW
    assert run(default_filter, "personality", 0x40_0000) == EPERM


@pytest.mark.parametrize(("name", "call"), [
    ("CAP_SYS_ADMIN", "mount"), ("CAP_SYS_ADMIN", "unshare"), ("CAP_SYS_ADMIN", "clone3"), ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_TIME", "clock_settime"), ("CAP_BPF", "bpf"), ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
])
def test_a_capability_brings_its_calls(default_filter: bytes, name: str, call: str) -> None:
    assert run(default_filter, call) != ALLOW
    assert run(seccomp.program("default", (name,)), call) == ALLOW


def test_an_administrator_makes_namespaces() -> None:
    assert run(seccomp.program("default", ("CAP_SYS_ADMIN",)), "clone", 0x1000_0000) == ALLOW


def test_every_name_is_one() -> None:
    entries = json.loads(PROFILE.read_text())["syscalls"]
    names = {name for entry in entries for name in entry["names"]}
    assert {name for name in names if resolve(name) == -1} <= NEWER
    assert len(names) > 300


# -- the format

def test_conditions() -> None:
    entries = [{"names": ["acct"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
               {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.10"}},
               {"names": ["chroot"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64"]}},
               {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64"]}},
               {"names": ["setns"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_KILL", "CAP_BPF"]}},
               {"names": ["swapon"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_KILL"]}},
               {"names": ["umount2"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "6.0"}}]
    text = json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": entries})

    def names(*capabilities: str, name: str = "x86_64") -> list[str]:
        return [rule.name for rule in settle(text, "FILE", Machine(capabilities, "6.1.0", name)).rules]

    assert names() == ["acct", "chroot", "swapon"]
    assert names(name="aarch64") == ["acct", "mount", "swapon"]
    assert names("CAP_KILL") == ["acct", "chroot"]
    assert names("CAP_KILL", "CAP_BPF") == ["acct", "chroot", "setns"]


def test_errors_and_their_defaults() -> None:
    program = compiled(defaultAction="SCMP_ACT_ERRNO", defaultErrnoRet=38, syscalls=[
        {"names": ["read", "futex", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
        {"name": "mount", "action": "SCMP_ACT_ERRNO"},
        {"names": ["swapon"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22},
        {"names": ["acct"], "action": "SCMP_ACT_ERRNO", "errno": "EACCES"},
        {"names": ["bpf"], "action": "SCMP_ACT_LOG"}])
    assert run(program, "read") == ALLOW
    assert run(program, "mount") == EPERM
    assert run(program, "swapon") == 0x5_0000 | 22
    assert run(program, "acct") == 0x5_0000 | errno.EACCES
    assert run(program, "bpf") == LOG
    assert run(program, "chroot") == ENOSYS


def test_a_list_of_what_is_forbidden_lets_new_calls_through() -> None:
    program = compiled(defaultAction="SCMP_ACT_ALLOW", syscalls=[{"names": ["mount"], "action": "SCMP_ACT_ERRNO"}])
    assert run(program, "mount") == EPERM
    assert run(program, 600) == run(program, "bpf") == ALLOW


def test_comparisons() -> None:
    def rule(name: str, *args: tuple[int, str, int, int]) -> dict[str, Any]:
        return {"names": [name], "action": "SCMP_ACT_ALLOW",
                "args": [{"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": two}
                         for index, op, value, two in args]}

    program = compiled(defaultAction="SCMP_ACT_ERRNO", syscalls=[
        rule("read", (0, "EQ", 3, 0), (2, "LT", 10, 0)),  # both
        rule("socket", (0, "EQ", 3, 0), (0, "EQ", 5, 0)),  # about the same argument: one of them
        rule("clone", (0, "MASKED_EQ", 0xF0, 0x10)), rule("write", (0, "GE", 1 << 40, 0))])
    assert [run(program, "read", *args) == ALLOW for args in ((3, 0, 9), (3, 0, 10), (4, 0, 9))] == [True, False, False]
    assert [run(program, "socket", family) == ALLOW for family in (3, 4, 5)] == [True, False, True]
    assert [run(program, "clone", flags) == ALLOW for flags in (0x1F, 0x2F)] == [True, False]
    assert [run(program, "write", fd) == ALLOW for fd in ((1 << 40) - 1, 1 << 40, 1 << 41)] == [False, True, True]


ONE = {"names": ["read"], "action": "SCMP_ACT_ALLOW"}


@pytest.mark.parametrize(("profile", "problem"), [
    ("{", "is not JSON"),
    ("[]", "is not an object"),
    ({}, "the profile has defaultAction ''"),
    ({"defaultAction": "SCMP_ACT_NOTIFY"}, "'SCMP_ACT_NOTIFY'"),
    ({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"],
      "archMap": [{"architecture": "SCMP_ARCH_X86_64"}]}, "both architectures and archMap"),
    ({"defaultAction": "SCMP_ACT_ERRNO", "listenerPath": "/x"}, "'listenerPath'"),
    ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": "EPERM"}, "defaultErrnoRet"),
    ({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": {}}, "syscalls that is not a list"),
    ({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [ONE | {"when": "later"}]}, r"syscalls\[0\] has a key 'when'"),
    ({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [ONE | {"includes": {"cap": []}}]}, "'cap'"),
    ({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [ONE | {"includes": {"minKernel": "new"}}]}, "minKernel"),
    ({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [ONE | {"args": [{"index": 6, "op": "SCMP_CMP_EQ"}]}]}, "index"),
    ({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [ONE | {"args": [{"index": 1, "op": "=="}]}]},
     r"syscalls\[0\]\.args\[0\] has op '=='"),
    ({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": [1], "action": "SCMP_ACT_ALLOW"}]}, "not text"),
])
def test_what_is_not_understood_is_refused(profile: object, problem: str) -> None:
    text = profile if isinstance(profile, str) else json.dumps(profile)
    with pytest.raises(SpecError, match=problem) as caught:
        settle(text, "FILE", HERE)
    assert "seccomp=FILE" in str(caught.value)
