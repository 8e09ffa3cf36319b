"""Processes, sockets and memory of the host and of other sandboxes: S16 to S19, S27, S31."""

from __future__ import annotations

import json
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.isolation import landlock
from support.machine import alive
from support.probes import REFUSED, command, probe
from support.sandbox_run import Program, names
from support.warm_program import warm_bare

sandbox = warm_bare
pytestmark = [pytest.mark.matter("isolation"), pytest.mark.drivers("none")]
NOT_THERE = frozenset({"ENOENT", "ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH"})
LISTENING = 0x10000


@pytest.fixture
def abstract() -> Iterator[list[list[object]]]:
    """The host listens on abstract sockets: their addresses, as the probe takes them."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream, \
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        addresses = [f"\0{names('abstract')}", f"\0{names('abstract')}"]
        stream.bind(addresses[0])
        stream.listen()
        datagrams.bind(addresses[1])
        yield [["AF_UNIX", "SOCK_STREAM", addresses[0]], ["AF_UNIX", "SOCK_DGRAM", addresses[1]]]


def test_s16_abstract_sockets_of_the_host(sandbox: Program, abstract: list[list[object]]) -> None:
    """CVE-2020-15257. Fails without the network namespace: abstract names belong to it."""
    assert probe(sandbox, "connect", given=abstract)["found"] == ["ECONNREFUSED", "ECONNREFUSED"]


def test_s16_the_hosts_network_opens_them(sandbox: Program, abstract: list[list[object]]) -> None:
    """As the flag's warning says. Without Landlock the probe sees an opening; ``test_landlock.py`` has the rest."""
    closed = (landlock.abi() or 0) >= landlock.SCOPED
    found = probe(sandbox, "connect", given=abstract, flags=("--network", "host"))["found"]
    assert found == 2 * ["EPERM" if closed else "ok"]


def test_s17_no_network(sandbox: Program) -> None:
    """Fails without the network namespace, or with a ``/sys`` that is the host's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        seen = probe(sandbox, "connect", given=[
            ["AF_INET", "SOCK_STREAM", list(server.getsockname())], ["AF_INET", "SOCK_STREAM", ["169.254.169.254", 80]],
            ["AF_INET", "SOCK_DGRAM", ["192.0.2.1", 53]], ["AF_INET6", "SOCK_STREAM", ["2001:db8::1", 80]],
            "sandbox-test.example"])
    assert set(seen["found"][:4]) <= NOT_THERE | {"EADDRNOTAVAIL", "EAFNOSUPPORT"}, seen["found"]
    assert seen["found"][4] == "gaierror"
    assert seen["indexes"] == ["lo"]
    assert seen["interfaces"] == ["lo"]


def test_s17_loopback_works(sandbox: Program) -> None:
    """Fails without ``lo_up``: a program that talks to itself would not start."""
    assert probe(sandbox, "connect", given=[])["own"] == "ok"


@pytest.fixture
def victim() -> Iterator[int]:
    """A process of the host, and of the same user."""
    pid = os.posix_spawn("/bin/sleep", ["sleep", "1000"], {"SECRET": "x"})
    yield pid
    assert alive(pid), "it was killed"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_s18_processes_of_the_host(sandbox: Program, victim: int) -> None:
    """Fails without the pid namespace, or with the host's /proc."""
    seen = probe(sandbox, "processes", str(victim))
    assert seen["visible"] == [1, seen["own"]]
    assert {name: error for name, error in seen[str(victim)].items()
            if error not in {"ESRCH", "ENOENT"} | REFUSED} == {}


def test_s18_pid_host_shows_them(sandbox: Program, victim: int) -> None:
    """As the flag's warning says. They are seen, and still neither read nor killed by another user's id."""
    seen = probe(sandbox, "processes", str(victim), flags=("--pid", "host"))
    assert victim in seen["visible"]
    if os.geteuid() == 0:
        assert seen[str(victim)]["kill"] == "EPERM"
        assert {seen[str(victim)][name] for name in ("mem", "environ", "root", "ptrace")} <= REFUSED


def test_s19_the_init_cannot_be_traced(sandbox: Program, victim: int) -> None:
    """Fails when the init can be dumped (``PR_SET_DUMPABLE``) or has the command's ids and no more capabilities."""
    seen = probe(sandbox, "processes", str(victim))["1"]
    assert {seen[name] for name in ("process_vm_readv", "ptrace", "mem", "root", "cwd", "fd", "map_files")} <= REFUSED
    assert seen["pidfd_getfd"] == "ENOSYS" or set(seen["pidfd_getfd"]) <= REFUSED


def lines(found: dict[str, str]) -> dict[str, str]:
    """What was found, of those places that were there to be used."""
    return {place: error for place, error in found.items() if error == "ok"}


PLACES = frozenset({"/dev/shm", "/tmp", "/var/tmp", "SysV", "mq", "abstract", "tcp"})


def meet(sandbox: Program, *flags: str) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """One sandbox leaves a word in each place and looks for it; then another one looks: what came of each."""
    word = names("word")
    with sandbox.start(*flags, *command("neighbour", "offer", word)) as first:
        offered = json.loads(first.read_line())
        second = probe(sandbox, "neighbour", "look", word, flags=flags)
        done = first.finish(b"\n")
    assert done.code == 0, done.err
    return offered["offer"], offered["look"], second["look"]


def test_s27_two_sandboxes_do_not_meet(sandbox: Program) -> None:
    """Fails without the ipc, network and mount namespaces, or when ``/dev/shm`` or ``/tmp`` is the host's."""
    offered, own, others = meet(sandbox)
    assert offered["vsock"] in REFUSED | {"EAFNOSUPPORT", "EINVAL"}, "vsock has no namespace: it must not be there"
    assert lines(offered).keys() >= PLACES
    assert lines(own).keys() >= PLACES, "a word that not even its owner finds proves nothing"
    assert lines(others) == {}
    assert set(others.values()) <= NOT_THERE | REFUSED | {"EAFNOSUPPORT", "EINVAL"}


def test_s27_shared_namespaces_are_shared(sandbox: Program) -> None:
    """As the warnings of the flags say; and so the test above could fail. Landlock keeps abstract sockets apart."""
    _, _, others = meet(sandbox, "--ipc", "host", "--network", "host")
    assert {"SysV", "mq", "tcp"} <= lines(others).keys()
    assert others["abstract"] == ("EPERM" if (landlock.abi() or 0) >= landlock.SCOPED else "ok")
    assert not {"/tmp", "/var/tmp"} & lines(others).keys()


def test_s27_locks_on_a_file_that_both_see_are_shared(sandbox: Program) -> None:
    """A channel that stays, and is documented: a lock belongs to the file, and the host's files are one."""
    script = 'exec 8</usr/bin/env; flock -n 8 || exit 3; echo locked; read line'
    with sandbox.start("--", "sh", "-c", script) as first:
        assert first.read_line() == b"locked\n"
        assert sandbox("--", "sh", "-c", script).code == 3
        assert first.finish(b"\n").code in (0, 1)


def listening() -> list[str]:
    """The paths of all sockets that somebody on the host listens on."""
    rows = (line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:])
    return [row[7] for row in rows if len(row) > 7 and row[7].startswith("/") and int(row[3], 16) & LISTENING]


CONTROL = ("/run/systemd/private", "/run/systemd/notify", "/run/dbus/system_bus_socket", "/run/docker.sock",
           "/var/run/docker.sock", "/run/containerd/containerd.sock", "/run/user/0/bus", "/run/user/1000/bus",
           "/tmp/.X11-unix/X0", "/run/udev/control", "/var/run/nscd/socket")


def test_s31_control_sockets_of_the_host(sandbox: Program) -> None:
    """Fails without a private /run and /tmp. Sockets elsewhere are reached by path as on the host: a read-only mount
    does not close them, so every one that listens is tried."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{directory}/socket")
        for path in (directory, f"{directory}/socket"):
            os.chmod(path, 0o777)  # nothing but its place may keep anybody away
        server.listen()
        paths = [*CONTROL, *listening()]
        assert f"{directory}/socket" in paths
        seen = probe(sandbox, "connect", given=[["AF_UNIX", "SOCK_STREAM", path] for path in paths], cwd="/")["found"]
    assert {path: error for path, error in zip(paths, seen, strict=True) if error not in NOT_THERE | REFUSED} == {}


def test_s31_the_runners_own_sockets(sandbox: Program) -> None:
    """The socketpairs between launcher, guard and init are no way in: nothing inside names them."""
    done = sandbox("--", "cat", "/proc/net/unix")
    assert len(done.out.splitlines()) <= 1
