"""What programs take for granted: capabilities kept over a change of user, low ports, ping, the size of the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.programs_table import HELLO_32, ROWS, Row
from support.sandbox_run import Program, Result, python

pytestmark = [pytest.mark.matter("process")]

KEEP = "import ctypes\nassert ctypes.CDLL(None, use_errno=True).prctl(8, 1, 0, 0, 0) == 0\nprint('kept')"
BIND = "import socket\nsocket.create_server(('127.0.0.1', 80))\nprint('bound')"
PING = """import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
s.sendto(b'\\x08' + bytes(7), ('127.0.0.1', 0))
print('answered' if s.recv(64)[:1] == b'\\0' else 'lost')
"""
GARBAGE = """class Garbage {
    static byte[] last;
    public static void main(String[] argv) {
        for (int i = 0; i < 1500; i++) last = new byte[1 << 20];
        System.out.println(Runtime.getRuntime().maxMemory() >> 20);
    }
}
"""


@pytest.mark.parametrize("flags", [(), ("--cap-add", "SETPCAP")], ids=["no capabilities", "with one"])
def test_a_program_may_ask_to_keep_its_capabilities(sandbox: Program, flags: tuple[str, ...]) -> None:
    """firejail#3045. Fails where the securebit KEEP_CAPS is locked: ping, setpriv and apt's triggers end then."""
    assert sandbox(*flags, *python(KEEP)).out == b"kept\n"


def test_low_ports_of_its_own_network_are_free(sandbox: Program) -> None:
    """moby#8460. Fails without the sysctl ip_unprivileged_port_start."""
    assert sandbox(*python(BIND)).out == b"bound\n"


def test_ping_needs_no_capability(sandbox: Program) -> None:
    """Fails without the sysctl ping_group_range."""
    assert sandbox(*python(PING)).out == b"answered\n"


@pytest.fixture
def hidden() -> Iterator[Path]:
    """A program in the host's /tmp."""
    with tempfile.TemporaryDirectory(prefix="sandbox-hidden-", dir="/tmp") as directory:
        yield Path(shutil.copy("/bin/true", Path(directory) / "program"))


@pytest.mark.drivers("none")
@pytest.mark.only("none")
@pytest.mark.parametrize("how", ["path", "relative", "PATH", "link", "interpreter"])
def test_a_program_that_the_sandboxs_own_tmp_hides(sandbox: Program, hidden: Path, how: str) -> None:
    """bashrs#340. Fails where it says only that there is no such command."""
    there = sandbox.directory / "there"
    flags: tuple[str, ...] = ()
    command = str(hidden)
    if how == "relative":
        flags, command = ("-w", "/"), command[1:]
    elif how == "PATH":
        flags, command = ("-e", f"PATH=/bin:{hidden.parent}"), "program"
    elif how == "link":
        there.symlink_to(hidden)
        command = str(there)
    elif how == "interpreter":
        there.write_text(f"#!{hidden}\n")
        there.chmod(0o755)
        command = str(there)
    done = sandbox(*flags, "--", command)
    assert done.code == (126 if how == "interpreter" else 127)
    assert (f"the sandbox's own /tmp hides the host's {hidden}; to show it, add -v {hidden.parent}:{hidden.parent}:ro"
            in done.report["why"])


@pytest.mark.requires("root", "java")
@pytest.mark.timeout(300)
def test_the_jvm_sizes_its_heap_by_the_limit(sandbox: Program) -> None:
    """isolate#57. Fails where no cgroup is seen: the heap is sized by the host's memory, and the kernel kills it."""
    (sandbox.directory / "Garbage.java").write_text(GARBAGE)
    done = sandbox("-m", "300m", "--cpus", "2", "-w", str(sandbox.directory), "--", "sh", "-c",
                   "javac -J-Xmx100m -J-XX:TieredStopAtLevel=1 Garbage.java && exec java Garbage")
    assert done.code == 0, done
    assert 30 <= int(done.out) <= 150


@pytest.mark.requires("root", "node")
def test_node_reports_the_limit(sandbox: Program) -> None:
    done = sandbox("-m", "200m", "--", "node", "-p", "process.constrainedMemory()")
    charged = 512 << 10 if sandbox.driver == "service" else 0  # for the guard and its namespaces: see README
    assert int(done.out) == (200 << 20) + charged


def _marks(row: Row) -> list[pytest.MarkDecorator]:
    # Where owners cannot be mapped, root inside is a stranger to the files, and the tests cover the home directory.
    who = [row.who] if row.who else []
    return [pytest.mark.requires(*row.needs, *who, *(["idmap"] if os.geteuid() == 0 else []))]


def run(sandbox: Program, row: Row, flags: str) -> Result:
    words = flags.replace("DIR", str(sandbox.directory)).split()
    command = row.command or ("sh", "-c", row.script)
    return sandbox(*words, "-w", "/" if "--rootfs" in words else "/tmp", "--", *command)


@pytest.mark.matter("isolation")
@pytest.mark.drivers("none")
@pytest.mark.only("none")
@pytest.mark.parametrize("row", [pytest.param(row, id=row.name, marks=_marks(row)) for row in ROWS])
def test_a_program_works(sandbox: Program, row: Row) -> None:
    """Under the defaults and the flags that docs/programs.md names, and not without these flags."""
    subprocess.run(["sh", "-ec", row.before], cwd=sandbox.directory, check=True)
    flags = f"{row.flags} {row.as_root if os.geteuid() == 0 else ''}"
    done = run(sandbox, row, flags)
    assert (done.out.decode(), done.code) == (row.output, 0), done
    if flags.strip():
        without = run(sandbox, row, "")
        assert (without.out.decode(), without.code) != (row.output, 0), "it needs no flag"


@pytest.mark.drivers("none")
@pytest.mark.only("none")
@pytest.mark.requires("cc")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the 32-bit program is one of x86")
@pytest.mark.parametrize("command", ["exec ./hello", "./hello; exit $?"], ids=["itself", "its child"])
def test_a_32_bit_program_ends_with_a_hint(sandbox: Program, command: str) -> None:
    """isolate#190. Fails where it ends with 159 and nothing printed."""
    subprocess.run(["sh", "-ec", HELLO_32], cwd=sandbox.directory, check=True)
    done = sandbox("-w", str(sandbox.directory), "--", "sh", "-c", command)
    assert done.code == 159
    assert "--security-opt seccomp=moby lets 32-bit programs run" in done.report["hint"]
    assert f"hint: {done.report['hint']}\n" in done.err
    assert not sandbox("--", "false").report["hint"]


@pytest.mark.drivers("none")
@pytest.mark.only("none")
@pytest.mark.requires("cc")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the 32-bit program is one of x86")
def test_calls_of_a_32_bit_program_are_logged_by_name(sandbox: Program) -> None:
    """Fails where the numbers are taken for those of x86_64: 21 is mount for i386, and access for x86_64."""
    source = HELLO_32.replace("call(4, 1,", "call(21, 0, 0, 0); call(4, 1,")
    subprocess.run(["sh", "-ec", source], cwd=sandbox.directory, check=True)
    done = sandbox("--security-opt", "seccomp=moby", "--seccomp-log", "--", str(sandbox.directory / "hello"))
    assert (done.out, done.code) == (b"42\n", 0)
    assert done.report["refused_calls"] == [{"call": "mount", "errno": "EPERM", "count": 1}]
