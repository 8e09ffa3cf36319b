"""The standard streams are the command's own: every byte, closed ones, gone and slow readers."""

from __future__ import annotations

import os
import random
import subprocess

import pytest

from support.machine import eventually, status
from support.sandbox_run import Program, python

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
