"""What a command in a lab finds there, and what passes between it and us."""

from __future__ import annotations

import hashlib
import os
import pty
import signal
import subprocess
import time
from pathlib import Path

from support.labs import Lab
from support.sandbox_run import SANDBOX

KILLED_FOR_MEMORY = "systemd-run --scope -p MemoryMax=32M python3 -c 'b=bytearray(100<<20)'"


def test_systemd_is_pid_1(lab: Lab) -> None:
    assert lab.out("cat", "/proc/1/comm") == "systemd"


def test_the_kernel_enforces_what_systemd_is_told(lab: Lab) -> None:
    assert lab.run("sh", "-c", KILLED_FOR_MEMORY).returncode == 137
    shown = lab.sh("systemd-run -q --unit=shown -p MemoryMax=32M sleep 60; systemctl show -p MemoryMax shown; "
                   "cat /sys/fs/cgroup/memory/system.slice/shown.service/memory.limit_in_bytes "
                   "/sys/fs/cgroup/system.slice/shown.service/memory.max 2>/dev/null || true; systemctl stop shown")
    assert shown.split() == ["MemoryMax=33554432", "33554432"]


def test_exit_codes(lab: Lab) -> None:
    assert lab.run("sh", "-c", "exit 7").returncode == 7
    assert lab.run("sh", "-c", "kill -9 $$").returncode == 137
    missing = lab.run("no-such-command")
    assert (missing.returncode, missing.stderr) == (127, b"sandbox lab: no-such-command: No such file or directory\n")


def test_output_and_errors_stay_apart(lab: Lab) -> None:
    done = lab.run("sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")


def test_input_and_output_pass_unchanged(lab: Lab) -> None:
    data = os.urandom(3_000_000)
    assert lab.run("cat", input=data, stdin=None).stdout == data
    done = lab.run("sha256sum", input=data, stdin=None)
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_input_that_nobody_reads_blocks_nothing(lab: Lab) -> None:
    assert lab.run("sh", "-c", "exec <&-; sleep 0.2; echo done", input=bytes(1_000_000), stdin=None).stdout == b"done\n"


def test_the_current_directory_is_visible_and_safe(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from outside\n")
    done = lab.run("sh", "-ec", "pwd; cat file; echo inside >file; rm -f other; echo new >new", cwd=tmp_path)
    assert done.stdout.decode() == f"{tmp_path}\nfrom outside\n", done.stderr
    assert (tmp_path / "file").read_text() == "from outside\n"
    assert not (tmp_path / "new").exists()
    assert lab.run("cat", "file", "new", cwd=tmp_path).stdout == b"inside\nnew\n"


def test_what_is_edited_outside_is_seen_inside(lab: Lab, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for text in ("one", "two", "three"):
        (tmp_path / "draft").write_text(text)
        (tmp_path / "draft").replace(source)
        assert lab.run("cat", "source", cwd=tmp_path).stdout.decode() == text


def test_two_commands_at_once(lab: Lab) -> None:
    first = subprocess.Popen(lab.argv("cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert lab.out("echo", "second") == "second"
    assert first.communicate(b"first", timeout=60)[0] == b"first"


def test_signals_reach_the_command(lab: Lab) -> None:
    script = "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.1; done"
    with subprocess.Popen(lab.argv("sh", "-c", script), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b"caught\n"
        assert process.wait(30) == 5


def test_the_command_dies_with_its_caller(lab: Lab) -> None:
    process = subprocess.Popen(lab.argv("sh", "-c", "echo ready; exec sleep 987654"), stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.kill()
    lab.sh("for i in $(seq 100); do pgrep -f '[s]leep 987654' >/dev/null || exit 0; sleep 0.1; done; exit 1")


def test_a_terminal(lab: Lab) -> None:
    """A shell in a terminal: its size, an interrupt by the key, its end by the key."""
    pid, master = pty.fork()
    if pid == 0:
        os.execv(SANDBOX[0], [*SANDBOX, "lab", "shell", *lab.flags, "--", "sh", "-c",
                              "tty; trap 'echo end; exit 0' INT; echo ready; while :; do sleep 0.1; done"])
    seen = _until(master, b"ready")
    assert b"/dev/pts/" in seen
    os.write(master, b"\x03")
    _until(master, b"end")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(master)


def _until(master: int, text: bytes) -> bytes:
    seen, deadline = b"", time.monotonic() + 60
    while text not in seen:
        assert time.monotonic() < deadline, seen
        seen += os.read(master, 4096)
    return seen
