"""The standard streams are the command's own: every byte, closed ones, gone and slow readers."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from support.machine import eventually, status
from support.sandbox_run import SANDBOX, Program, python

pytestmark = [pytest.mark.matter("process"), pytest.mark.drivers("none")]


def test_a_mebibyte_passes_both_ways(sandbox: Program) -> None:
    data = random.Random(5).randbytes(1 << 20)
    assert sandbox("--", "cat", input=data).out == data


def test_streams_are_the_same_files(sandbox: Program) -> None:
    with sandbox.start(*python("import os; print(*(os.readlink(f'/proc/self/fd/{n}') for n in range(3)))")) as running:
        ours = [os.readlink(f"/proc/self/fd/{stream.fileno()}")  # type: ignore[union-attr]
                for stream in (running.process.stdin, running.process.stdout, running.process.stderr)]
        assert running.finish().out.decode().split() == ours


def test_stderr_is_not_mixed(sandbox: Program) -> None:
    done = sandbox("--", "sh", "-c", "echo out; echo err >&2")
    assert (done.out, done.err) == (b"out\n", "err\n")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams(sandbox: Program, closed: str) -> None:
    done = sandbox("--verbose", *python("import os; [os.fstat(fd) for fd in range(3)]; os._exit(5)"),
                   wrap=("sh", "-c", f'exec "$@" {closed}', "sh"))
    assert done.code == 5
    assert done.report["exit_code"] == 5


def test_closed_stream_is_dev_null_inside(sandbox: Program) -> None:
    done = sandbox("--", "stat", "-L", "-c", "%F %t:%T", "/proc/self/fd/0", wrap=("sh", "-c", 'exec "$@" <&-', "sh"))
    assert done.out == b"character special file 1:3\n"


def test_report_on_stdout(sandbox: Program) -> None:
    import json

    done = sandbox("--json", "-", "--", "true", report=False)
    assert json.loads(done.out)["exit_code"] == 0


def test_reader_that_goes_away(sandbox: Program) -> None:
    with sandbox.start("--", "yes") as running:
        running.read_line()
        running.process.stdout.close()  # type: ignore[union-attr]
        running.process.stdout = None
        done = running.finish()
    assert (done.code, done.report["signal"]) == (141, 13)


def test_nobody_reads_our_own_words(sandbox: Program) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = sandbox("--verbose", "--", "sh", "-c", "exit 3", stderr=write)
    finally:
        os.close(write)
    assert done.code == 3


def test_slow_reader_costs_no_memory(sandbox: Program) -> None:
    with sandbox.start("--", "yes") as running:
        running.read_line()
        memory = int(status(running.pid)["VmRSS"].split()[0])
        assert not eventually(lambda: running.process.poll() is not None, seconds=0.5)
        assert int(status(running.pid)["VmRSS"].split()[0]) - memory < 4096
        running.process.terminate()
        assert running.finish().code == 143


def test_full_disk_does_not_lose_the_exit_code(sandbox: Program) -> None:
    with open("/dev/full", "wb") as full:
        assert sandbox("--verbose", "--", "sh", "-c", "exit 3", stderr=full).code == 3


def test_input_that_stays_open_does_not_hold_the_end_up(sandbox: Program) -> None:
    with sandbox.start("--", "true", stdin=subprocess.PIPE) as running:
        assert running.process.wait(timeout=60) == 0


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_directory_is_refused(sandbox: Program, number: int) -> None:
    """qwen-code#12267. Fails where it is passed on, and where Python ends by itself: "Fatal Python error"."""
    done = sandbox("--", "true", wrap=("sh", "-c", f'exec "$@" {number}</', "sh"), report=False)
    assert done.code == 2
    assert number == 2 or done.err.startswith(f"sandbox: fd {number} is a directory")
    assert done.err.count("\n") == (0 if number == 2 else 1)


def test_the_program_is_found_behind_a_link(sandbox: Program, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(SANDBOX[0])
    assert subprocess.run([str(tmp_path / "link"), "--version"], capture_output=True).stdout.startswith(b"sandbox ")


class TestPreservedFiles:
    """Process substitution: ``cat <(echo hi)`` has the name /dev/fd/63."""

    def test_none_by_default(self, sandbox: Program) -> None:
        done = sandbox("--", "cat", "/dev/fd/7", wrap=("sh", "-c", 'exec "$@" 7</etc/os-release', "sh"))
        assert done.code == 1

    @pytest.mark.requires("bash")
    def test_process_substitution(self, sandbox: Program) -> None:
        """firejail#6288."""
        done = sandbox("--preserve-fds", "61", "--", "cat", wrap=("bash", "-c", 'exec "$@" <(echo hi)', "bash"))
        assert done.out == b"hi\n", done

    def test_they_keep_their_numbers_and_are_all(self, sandbox: Program) -> None:
        script = ("import os; print(*(os.readlink(f'/proc/self/fd/{n}') for n in (3, 4, 6)), "
                  "len(os.listdir('/proc/self/fd')))")
        opened = "3</etc/os-release 4</etc/passwd 6</dev/null 7</etc/hosts"
        done = sandbox("--preserve-fds", "4", *python(script), wrap=("sh", "-c", f'exec "$@" {opened}', "sh"))
        assert done.out.split()[1:] == [b"/etc/passwd", b"/dev/null", b"7"], "0 to 2, three, and that of the directory"

    def test_the_last_must_be_open(self, sandbox: Program) -> None:
        done = sandbox("--preserve-fds", "5", "--", "true", report=False)
        assert (done.code, done.err.splitlines()) == (2, [
            "sandbox: --preserve-fds 5: fd 7 is not open (hint: it stands for the fds 3 to 7)"])

    def test_a_directory_is_refused(self, sandbox: Program) -> None:
        done = sandbox("--preserve-fds", "1", "--", "true", report=False, wrap=("sh", "-c", 'exec "$@" 3</', "sh"))
        assert done.code == 2
        assert "--preserve-fds: file descriptor 3 is a directory" in done.err
