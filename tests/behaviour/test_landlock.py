"""Landlock's scopes: what namespaces that are shared would open stays shut, and inside nothing is missed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.box import Sandbox, probe_for
from sandbox.options import make_spec
from support.probes import probe, python
from support.sandbox_run import Program, names
from support.warm_program import warm_bare

sandbox = warm_bare
pytestmark = [pytest.mark.matter("isolation"), pytest.mark.drivers("none"), pytest.mark.requires("scopes")]
PROCESSES = ("--pid", "host", *(("--userns", "host") if os.geteuid() == 0 else ()))
"""Rootless, the command is the same user outside in any case."""


@pytest.fixture
def abstract() -> Iterator[list[list[object]]]:
    """The host listens on an abstract socket: its address, as the probe takes it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        address = f"\0{names('abstract')}"
        stream.bind(address)
        stream.listen()
        yield [["AF_UNIX", "SOCK_STREAM", address]]


@pytest.fixture
def victim() -> Iterator[int]:
    """A process of the host, and of the same user."""
    process = subprocess.Popen(["sleep", "1000"])
    yield process.pid
    assert process.poll() is None, "it was killed"
    process.kill()
    process.wait()


def signal_to(pid: int) -> list[str]:
    return python(f"import os\ntry: os.kill({pid}, {int(signal.SIGCONT)})\nexcept OSError as e: print(e.errno)\n"
                  "else: print('ok')")


def without_landlock(sandbox: Program, words: list[str], directory: Path, **wishes: object) -> bytes:
    """What the command prints when its plan lacks the step: as on a kernel that has no scopes."""
    spec = make_spec(words[1:], **sandbox.wishes(), **wishes)
    out, given = directory / "out", directory / "given"
    given.touch()
    with (Sandbox(spec, host=probe_for(spec)._replace(landlock_abi=0)) as box, open(out, "wb") as stdout,
          open(given, "rb") as stdin):
        assert all(step.op != "landlock" for step in box.plan.steps)
        box.start(stdin=stdin.fileno(), stdout=stdout.fileno()).wait()
        assert box.report.landlock_scopes == ()
    return out.read_bytes()


def test_abstract_sockets_of_the_host(sandbox: Program, abstract: list[list[object]]) -> None:
    """Fails without the step ``landlock``."""
    assert probe(sandbox, "connect", given=abstract, flags=("--network", "host"))["found"] == ["EPERM"]


def test_only_landlock_closes_abstract_sockets(sandbox: Program, abstract: list[list[object]], tmp_path: Path) -> None:
    address = abstract[0][2]
    code = f"import socket\nsocket.socket(socket.AF_UNIX).connect({address!r})\nprint('ok')"
    assert without_landlock(sandbox, python(code), tmp_path, network="host") == b"ok\n"


def test_processes_of_the_host_cannot_be_signalled(sandbox: Program, victim: int) -> None:
    """Fails without the step ``landlock``: it is the same user, and the process is in sight."""
    assert sandbox(*PROCESSES, *signal_to(victim)).out == b"1\n"  # EPERM


def test_only_landlock_keeps_signals_in(sandbox: Program, victim: int, tmp_path: Path) -> None:
    wishes = dict(zip([word[2:] for word in PROCESSES[::2]], PROCESSES[1::2], strict=True))
    assert without_landlock(sandbox, signal_to(victim), tmp_path, **wishes) == b"ok\n"


INSIDE = """
import os, signal, socket, subprocess, threading
sibling = subprocess.Popen(["sleep", "1000"])
script = "import os, signal; os.kill({}, signal.SIGTERM)".format(sibling.pid)
subprocess.run(["python3", "-I", "-S", "-c", script], check=True)
assert sibling.wait() == -signal.SIGTERM
with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
    server.bind("\\0own")
    server.listen()
    client.connect("\\0own")
got = threading.Event()
signal.signal(signal.SIGUSR1, lambda *_: got.set())
thread = threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGUSR1))
thread.start()
thread.join()
assert got.wait(10)
print("ok")
"""


@pytest.mark.parametrize("flags", [(), PROCESSES, ("--network", "host")], ids=" ".join)
def test_inside_all_is_as_before(sandbox: Program, flags: tuple[str, ...]) -> None:
    """Siblings, threads and children are signalled, and its own abstract sockets are connected to."""
    assert sandbox(*flags, *python(INSIDE)).out == b"ok\n"


def test_the_runner_signals_the_command(sandbox: Program) -> None:
    """From outside the domain: scopes hold what is in it, not who is around it."""
    with sandbox.start("--", "sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.1; done") as running:
        assert running.read_line() == b"up\n"
        os.kill(running.pid, signal.SIGTERM)
        assert running.finish().report["exit_code"] == 7


@pytest.mark.requires("root")
def test_mounts_and_renames_are_not_forbidden(sandbox: Program) -> None:
    """A ruleset that handles files would forbid them."""
    script = ("mount -t tmpfs x /tmp && mkdir /tmp/a /tmp/b && touch /tmp/a/f && mv -n /tmp/a/f /tmp/b/f && "
              "mount --bind /tmp/b /tmp/a && ln /tmp/b/f /tmp/g && ls /tmp/a")
    done = sandbox("--cap-add", "SYS_ADMIN", "--", "unshare", "-m", "sh", "-c", script)
    assert (done.out, done.code) == (b"f\n", 0), done.err


def test_the_report_and_info_tell(sandbox: Program) -> None:
    report = sandbox("--", "true").report
    assert report["landlock_scopes"] == ["abstract_unix_socket", "signal"]
    assert report["landlock_abi"] >= 6
    assert f"Landlock ABI: {report['landlock_abi']}" in sandbox.other("info").out.decode()
    assert "abstract_unix_socket,signal" in sandbox.other("explain", "--", "true").out.decode()
