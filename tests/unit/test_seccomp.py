"""The filter of system calls: what it does to each call, by running its program; the format; where it is kept."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.errors import SpecError, Unsupported
from sandbox.isolation import bpf, libseccomp, refusals, seccomp, security
from sandbox.isolation.rules import Machine, settle
from sandbox.spec import Spec
from sandbox.steps import Step

ALLOW, KILL_PROCESS, LOG = 0x7FFF_0000, 0x8000_0000, 0x7FFC_0000
EPERM, ENOSYS = 0x5_0000 | errno.EPERM, 0x5_0000 | errno.ENOSYS
PROFILE = Path(seccomp.__file__).parent / "profile" / "default.json"
THREAD = 0x003D_0F00
NEWER = {"file_getattr", "file_setattr", "getxattrat", "listmount", "listxattrat", "lsm_get_self_attr",
         "lsm_list_modules", "mseal", "open_tree_attr", "removexattrat", "setxattrat", "statmount", "riscv_hwprobe"}
"""What libseccomp 2.5 has not heard of."""
HERE = Machine(capabilities=(), kernel="6.1.0-1-amd64", name=platform.machine())


def resolve(name: str) -> int:
    return int(libseccomp._library().seccomp_syscall_resolve_name(name.encode()))


def run(program: bytes, call: str | int, *args: int, arch: int | None = None) -> int:
    """What the kernel would make of a call: an interpreter of the few instructions that such programs have."""
    number = resolve(call) if isinstance(call, str) else call
    native = libseccomp._library().seccomp_arch_native()
    data = struct.pack("=IIQ6Q", number, native if arch is None else arch, 0, *args, *[0] * (6 - len(args)))
    code = list(struct.iter_unpack("=HBBI", program))
    jumps = {0x15: lambda a, k: a == k, 0x25: lambda a, k: a > k, 0x35: lambda a, k: a >= k, 0x45: lambda a, k: a & k}
    at = accumulator = 0
    while True:
        op, yes, no, value = code[at]
        at += 1
        if op == 0x06:
            return int(value)
        if op == 0x20:
            accumulator = struct.unpack_from("=I", data, value)[0]
        elif op == 0x54:
            accumulator &= value
        elif op == 0x05:
            at += value
        else:
            at += yes if jumps[op](accumulator, value) else no


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache directory of the test's own, and none in memory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(seccomp, "_programs", {})
    yield tmp_path / "sandbox" / "seccomp"


@pytest.fixture
def default() -> bytes:
    return seccomp.program("default", ())


def compiled(**profile: Any) -> bytes:
    return libseccomp.compile_rules(settle(json.dumps(profile), "FILE", HERE), "FILE")


def forget() -> None:
    seccomp._programs.clear()


# -- the default profile

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


def test_the_profile_of_docker_is_its_own_file() -> None:
    """It must stay what it is said to be."""
    text = (PROFILE.parent / "moby.json").read_bytes()
    assert hashlib.sha256(text).hexdigest() in (PROFILE.parent / "README.md").read_text()
    moby = seccomp.program("moby", ())
    assert run(moby, "socket", 38) == ALLOW  # AF_ALG
    assert run(moby, "socket", 40) == EPERM  # AF_VSOCK


@pytest.mark.parametrize("call", ["read", "openat", "execve", "close_range", "futex", "sendmsg", "sendto",
                                  "clock_gettime", "exit_group", "faccessat", "faccessat2", "mmap", "rseq", "ptrace",
                                  "memfd_create", "landlock_create_ruleset", "prctl", "pidfd_open", "statx"])
def test_let_through(default: bytes, call: str) -> None:
    assert run(default, call) == ALLOW


def test_what_is_newer_than_the_profile_is_not_there(default: bytes) -> None:
    assert run(default, "clone3") == ENOSYS
    assert run(default, 600) == run(default, 10_000) == ENOSYS


def test_only_the_native_architecture(default: bytes) -> None:
    assert run(default, 20, arch=0x4000_0003) == KILL_PROCESS
    if HERE.name == "x86_64":
        assert run(default, 0x4000_0000 | resolve("getpid")) in (KILL_PROCESS, ENOSYS)


@pytest.mark.parametrize("flag", [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000])
def test_no_namespace_by_clone(default: bytes, flag: int) -> None:
    assert run(default, "clone", flag | 17) == run(default, "clone", flag | THREAD) == EPERM
    assert run(default, "clone", THREAD) == run(default, "clone", 17) == ALLOW


def test_families_of_sockets(default: bytes) -> None:
    raw = seccomp.program("default", ("CAP_NET_RAW",))
    for family in range(50):
        assert (run(default, "socket", family) == ALLOW) is (family in (1, 2, 10, 16)), family
        assert (run(raw, "socket", family) == ALLOW) is (family in (1, 2, 10, 16, 17)), family
    assert run(default, "socket", 1 << 32 | 40) == run(default, "socket", 40) == EPERM


@pytest.mark.parametrize("request_", [0x5412, 0x541C, 1 << 32 | 0x5412, 0xFFFF_FFFF_0000_541C])
def test_no_typing_into_terminals(default: bytes, request_: int) -> None:
    """The kernel drops the upper half of ioctl's second argument."""
    assert run(default, "ioctl", 0, request_) == EPERM
    assert run(default, "ioctl", 0, 0x5413) == run(default, "ioctl", 0, 0x5401) == ALLOW


def test_personalities(default: bytes) -> None:
    assert run(default, "personality", 0xFFFF_FFFF) == run(default, "personality", 0) == ALLOW
    assert run(default, "personality", 0x40_0000) == EPERM


@pytest.mark.parametrize(("name", "call"), [
    ("CAP_SYS_ADMIN", "mount"), ("CAP_SYS_ADMIN", "unshare"), ("CAP_SYS_ADMIN", "clone3"), ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_TIME", "clock_settime"), ("CAP_BPF", "bpf"), ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
])
def test_a_capability_brings_its_calls(default: bytes, name: str, call: str) -> None:
    assert run(default, call) != ALLOW
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


# -- where it is kept

def test_the_second_process_needs_no_libseccomp(cache: Path, default: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    forget()
    monkeypatch.setattr("sandbox.isolation.libseccomp.compile_rules", None)
    assert seccomp.program("default", ()) == default
    assert cache.stat().st_mode & 0o777 == 0o700
    assert [file.stat().st_mode & 0o777 for file in cache.iterdir()] == [0o600]


def test_capabilities_and_profiles_are_kept_apart(tmp_path: Path, cache: Path, default: bytes) -> None:
    file = tmp_path / "profile.json"
    file.write_text(PROFILE.read_text().replace('"chroot"', '"acct"'))
    forget()
    assert run(seccomp.program("default", ("CAP_SYS_CHROOT",)), "chroot") == ALLOW
    assert run(seccomp.program(str(file), ("CAP_SYS_CHROOT",)), "chroot") == EPERM
    assert run(seccomp.program("default", ()), "chroot") == EPERM
    assert len(list(cache.iterdir())) == 3


def planted(cache: Path, default: bytes) -> Path:
    """A file like the one that was saved, but its program lets everything through."""
    [file] = cache.iterdir()
    content = file.read_bytes()
    loose = struct.pack("=HBBI", 6, 0, 0, ALLOW)
    file.write_bytes(seccomp._head(content[12:-len(default)], loose) + loose)
    forget()
    return file


def test_what_others_could_have_written_is_not_used(cache: Path, default: bytes) -> None:
    file = planted(cache, default)
    assert len(seccomp.program("default", ())) == 8  # as it is, it is our own
    for path, mode in ((file, 0o620), (file, 0o602), (cache, 0o770), (cache, 0o707)):
        forget()
        before = path.stat().st_mode
        path.chmod(mode)
        assert seccomp.program("default", ()) == default
        path.chmod(before)
        planted(cache, default)


def test_a_link_is_not_followed(tmp_path: Path, cache: Path, default: bytes) -> None:
    file = planted(cache, default)
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert seccomp.program("default", ()) == default


def test_the_directory_of_somebody_else(cache: Path, default: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    planted(cache, default)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert seccomp.program("default", ()) == default
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent.parent / "new"))
    forget()
    assert seccomp.program("default", ()) == default
    assert not (cache.parent.parent / "new").exists()


@pytest.mark.parametrize("spoil", [lambda text: text[:-8], lambda text: text + b"\0" * 8, lambda text: b"",
                                   lambda text: text[:-4] + b"\0\0\0\0", lambda text: b"\1" + text[1:]])
def test_a_spoilt_file_is_made_anew(cache: Path, default: bytes, spoil: Any) -> None:
    [file] = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(spoil(whole))
    forget()
    assert seccomp.program("default", ()) == default
    assert file.read_bytes() == whole


def test_old_files_go(cache: Path, default: bytes) -> None:
    for number in range(seccomp.MAX_FILES):
        (cache / str(number)).touch()
    seccomp.program("default", ("CAP_KILL",))
    assert len(list(cache.iterdir())) == 1


def test_no_place_to_keep_it(monkeypatch: pytest.MonkeyPatch, default: bytes) -> None:
    forget()
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.delenv("HOME", raising=False)
    assert seccomp.program("default", ()) == default


def test_without_libseccomp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libseccomp, "LIBRARY", "libseccomp.so.99")
    libseccomp._library.cache_clear()
    try:
        with pytest.raises(Unsupported, match=r"libseccomp\.so\.99.*not installed") as caught:
            seccomp.program("default", ())
    finally:
        libseccomp._library.cache_clear()
    assert "libseccomp2" in caught.value.hint and "seccomp=unconfined" in caught.value.hint


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(SpecError, match=r"seccomp=/nowhere/p\.json: cannot read it: No such file"):
        seccomp.program("/nowhere/p.json", ())


# -- the flags, and the steps

@pytest.mark.parametrize(("text", "value"), [
    ("seccomp=unconfined", "seccomp=unconfined"), ("seccomp=a=b.json", "seccomp=a=b.json"),
    ("label=container_t", "label=type:container_t"), ("label=level:s0:c1,c2", "label=level:s0:c1,c2"),
    ("label=disable", "label=disable"), ("apparmor=mine", "apparmor=mine"),
    ("no-new-privileges", "no-new-privileges=true"), ("no-new-privileges:true", "no-new-privileges=true"),
])
def test_options(text: str, value: str) -> None:
    assert security.parse(text, "--security-opt") == value


@pytest.mark.parametrize("text", ["seccomp", "seccomp=", "secomp=x", "no-new-privileges=false", "label=",
                                  "label=a b", "apparmor=a\0"])
def test_refused_options(text: str) -> None:
    with pytest.raises(SpecError, match="--security-opt"):
        security.parse(text, "--security-opt")


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


def test_asking_instead_of_refusing(default: bytes) -> None:
    """The error travels in the question; what is allowed or killed stays, and so does the size."""
    asking = refusals.asking(default, "default")
    assert len(asking) == len(default)
    assert (run(asking, "mount"), run(asking, "clone3")) == (0x7FC0_0000 | errno.EPERM, 0x7FC0_0000 | errno.ENOSYS)
    assert (run(asking, "read"), run(asking, "read", arch=0x4000_0003)) == (ALLOW, KILL_PROCESS)
    code = list(struct.iter_unpack("=HBBI", asking))
    for number in (*range(-2, 600), 1 << 30, 2**31 - 1):
        call = struct.pack("=iIQ6Q", number, libseccomp.native(), 0, *[2**40] * 6)
        plain, asked = (bpf.verdict(one, call) for one in (list(struct.iter_unpack("=HBBI", default)), code))
        refuses = plain & 0xFFFF_0000 == 0x5_0000
        assert asked == (0x7FC0_0000 | plain & 0xFFFF if refuses else plain), number


def test_asking_needs_a_way_to_ask(default: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    actions = tmp_path / "actions_avail"
    monkeypatch.setattr(refusals, "ACTIONS_AVAILABLE", str(actions))
    with pytest.raises(Unsupported, match=r"--seccomp-log: .*actions_avail: No such file"):
        refusals.asking(default, "default")
    actions.write_text("kill_process errno allow\n")
    with pytest.raises(Unsupported, match=r"--seccomp-log: .* Linux 5\.0"):
        refusals.asking(default, "default")


def test_a_program_that_is_not_understood(default: bytes) -> None:
    with pytest.raises(Unsupported, match="instruction 0x16 that is not known"):
        refusals.asking(default + struct.pack("=HBBI", 0x16, 0, 0, 0), "default")


def test_a_listener_needs_sendmsg() -> None:
    program = compiled(defaultAction="SCMP_ACT_ALLOW", syscalls=[{"names": ["sendmsg"], "action": "SCMP_ACT_ERRNO"}])
    with pytest.raises(SpecError, match="profile FILE does not allow sendmsg"):
        refusals.asking(program, "FILE")


def test_the_step_that_logs() -> None:
    step = list(seccomp.steps(Spec(argv=("work",), seccomp_log=True)))[-1]
    assert (step.args, step.realises) == ((("default",), 8), "seccomp_log")
    assert seccomp.bind(step).args == (refusals.asking(seccomp.program("default", ()), "default"), 8)


def test_names_of_calls() -> None:
    assert (libseccomp.name_of(resolve("mount")), libseccomp.name_of(99999)) == ("mount", "99999")
