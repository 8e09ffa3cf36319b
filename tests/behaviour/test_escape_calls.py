"""System calls that are refused, and privileges that are not there: S01 to S05, S22 and S26."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from support.probes import DIRECTORY, REFUSED, probe, python
from support.sandbox_run import Program, names
from support.warm_program import warm_bare

sandbox = warm_bare
pytestmark = [pytest.mark.matter("isolation"), pytest.mark.drivers("none")]
UNCONFINED = ("--security-opt", "seccomp=unconfined")
AS_OTHERS = [(), *([("-u", "nobody")] if os.geteuid() == 0 else [])]


@pytest.mark.parametrize("user", AS_OTHERS, ids=" ".join)
def test_s01_no_capabilities_no_new_privileges_and_a_filter(sandbox: Program, user: tuple[str, ...]) -> None:
    """Fails without ``bounding``, ``no_new_privs`` or ``seccomp``; without ``capset`` only where ``securebits`` is
    missing too: otherwise the execve drops what it would have dropped."""
    done = sandbox(*user, "--", "grep", "-E", "^(Cap|NoNew|Seccomp:)", "/proc/self/status")
    facts = dict(line.split(":\t") for line in done.out.decode().splitlines())
    assert facts == {**dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), 16 * "0"),
                     "NoNewPrivs": "1", "Seccomp": "2"}


def test_s01_the_securebits_are_locked(sandbox: Program) -> None:
    """Fails without the step ``securebits``: uid 0 would get capabilities by each execve."""
    done = sandbox(*python("import ctypes; print(ctypes.CDLL(None).prctl(27, 0, 0, 0, 0))"))  # PR_GET_SECUREBITS
    bits = int(done.out)
    assert bits & 0b0011 == 0b0011, "SECBIT_NOROOT and its lock"
    assert bits & 0b1000, "SECBIT_NO_SETUID_FIXUP_LOCKED"
    assert bits & 0b11000000 == 0b11000000, "SECBIT_NO_CAP_AMBIENT_RAISE and its lock"


@pytest.mark.parametrize("flags", [*AS_OTHERS, ("--security-opt", "seccomp=moby")], ids=" ".join)
def test_s02_calls_that_are_denied(sandbox: Program, flags: tuple[str, ...]) -> None:
    """The table of 18. Fails without the seccomp filter: all but the six that ask for capabilities get through."""
    found = probe(sandbox, "denied", flags=flags)
    del found["clone3"], found["unknown"]
    print(*(f"{name:<18} {error}" for name, error in found.items()), sep="\n")
    assert len(found) == 18
    assert {name: error for name, error in found.items() if error not in REFUSED} == {}


def test_s02_the_filter_is_what_denies(sandbox: Program) -> None:
    """The probe sees an opening where there is one: otherwise the test above could not fail."""
    found = probe(sandbox, "denied", flags=UNCONFINED)
    reached = {name for name, error in found.items() if error not in REFUSED}
    assert reached >= {"keyctl", "add_key", "request_key", "setns", "clone", "unshare", "quotactl"}


def test_s03_families_of_sockets(sandbox: Program) -> None:
    """Fails without the filter (vsock has no namespace), and without the capabilities dropped (packets, raw)."""
    found = probe(sandbox, "families")
    assert (found.pop("AF_UNIX"), found.pop("AF_INET")) == ("ok", "ok")
    assert {name: error for name, error in found.items() if error == "ok"} == {}
    assert found["AF_VSOCK"] in REFUSED | {"EAFNOSUPPORT", "EINVAL"}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="no other architecture's calls here")
def test_s04_calls_of_other_architectures(sandbox: Program) -> None:
    """Fails when the filter lets a second architecture through: ``socketcall`` hides its arguments from any filter."""
    found = probe(sandbox, "foreign")
    print(found)
    assert set(found.values()) <= {"ENOSYS", "SIGSYS", "SIGSEGV"}, found  # SIGSEGV: the kernel has no int 0x80


def test_s05_clone3_and_unknown_calls_do_not_exist(sandbox: Program) -> None:
    """Fails when the filter says EPERM for what it does not know: a libc then gives up instead of falling back."""
    found = probe(sandbox, "denied")
    assert (found["clone3"], found["unknown"]) == ("ENOSYS", "ENOSYS")


def test_s05_threads_work(sandbox: Program) -> None:
    """Fails when clone3 is refused with EPERM, or clone for flags that a thread needs."""
    code = "import threading; t = [threading.Thread(target=print, args=(n,)) for n in range(8)];" \
           "[(one.start(), one.join()) for one in t]"
    done = sandbox(*python(code))
    assert (done.code, done.out.split()) == (0, [str(number).encode() for number in range(8)])


@pytest.mark.parametrize("user", AS_OTHERS, ids=" ".join)
def test_s22_no_user_namespace_inside(sandbox: Program, user: tuple[str, ...]) -> None:
    """Fails without the filter: a user namespace brings all capabilities back, and with them the kernel's attack
    surface (CVE-2022-0185)."""
    done = sandbox(*user, "--", "unshare", "-U", "-r", "true")
    assert done.code != 0
    assert sandbox(*user, "--", "unshare", "-U", "true").code != 0


@pytest.fixture
def key() -> Iterator[str]:
    """A key of the host's user, as long as the test goes on."""
    import ctypes

    libc = ctypes.CDLL(None)
    name = names("key")
    number = libc.syscall(*map(ctypes.c_long, (_number("add_key"),)), b"user", name.encode(), b"secret",
                          ctypes.c_size_t(6), ctypes.c_int(-4))
    if number == -1:
        pytest.skip("no keys here")
    yield name
    libc.syscall(ctypes.c_long(_number("keyctl")), 9, number, ctypes.c_int(-4))  # KEYCTL_UNLINK


def _number(name: str) -> int:
    source: dict[str, object] = {}
    exec((DIRECTORY / "calls.py").read_text(), source)
    numbers: dict[str, tuple[int, int]] = source["NUMBERS"]  # type: ignore[assignment]
    return numbers[name][os.uname().machine != "x86_64"]


def test_s26_keys_of_the_host(sandbox: Program, key: str) -> None:
    """Fails without the filter when the sandbox has the caller's user id: keyrings belong to ids."""
    found = probe(sandbox, "keys", key)
    assert set(found.values()) <= REFUSED, found
