"""The library: the same runs without the program, from any thread and from asyncio."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

import sandbox
from support.machine import cgroup_file, cgroups, eventually, holders
from support.sandbox_run import Program, names

pytestmark = pytest.mark.matter("process")


@pytest.fixture
def wishes(sandbox: Program) -> dict[str, Any]:
    return {**sandbox.wishes(), "name": names("py")}


@pytest.mark.drivers("none")
def test_run(wishes: dict[str, Any]) -> None:
    report = sandbox.run(["sh", "-c", "exit 7"], timeout=60, **wishes)
    assert (report.outcome, report.exit_code, report.code) == (sandbox.Outcome.EXITED, 7, 7)
    with pytest.raises(sandbox.SandboxError):
        report.check()
    sandbox.run(["true"], **wishes).check()


def test_limits(wishes: dict[str, Any]) -> None:
    hog = ["python3", "-c", "b = bytearray(b'x') * (256 << 20)"]
    report = sandbox.run(hog, memory="64M", cpus=1.5, timeout=60, **wishes)
    assert report.outcome == "oom"
    assert report.usage.memory_peak is not None
    assert report.usage.memory_peak <= 64 << 20
    with pytest.raises(sandbox.LimitExceeded):
        report.check()


def test_missing_command(wishes: dict[str, Any]) -> None:
    report = sandbox.run(["no-such-command"], **wishes)
    assert report.outcome == "failed"
    with pytest.raises(sandbox.ExecError) as caught:
        report.check()
    assert caught.value.exit_code == 127


def test_errors(wishes: dict[str, Any]) -> None:
    with pytest.raises(sandbox.SpecError, match="did you mean"):
        sandbox.run(["true"], memroy="1g", **wishes)
    with pytest.raises(sandbox.SpecError, match="memory: "):
        sandbox.run(["true"], memory="lots", **wishes)
    with pytest.raises(sandbox.StepError, match="no/such"):
        sandbox.run(["true"], workdir="/no/such", **wishes)


def test_process_events_and_live_usage(wishes: dict[str, Any]) -> None:
    read, write = os.pipe()
    try:
        spec = sandbox.make_spec(["sh", "-c", "read line; exit 4"], memory="64M", pids_limit=9, **wishes)
        with sandbox.Sandbox(spec) as box:
            process = box.start(stdin=read)
            assert process.poll() is None
            assert process.pid is not None
            limit = 9 + holders(wishes.get("unit_type", wishes["driver"]))
            assert cgroup_file(wishes["name"], "pids.max").read_text() == f"{limit}\n"
            usage = box.usage()
            assert usage.cpu_time is not None
            os.write(write, b"\n")
            assert process.wait() == process.poll() == process.returncode == 4
            assert [event.kind for event in box.events()] == ["started", "exited", "ended"]
        assert box.report.code == 4
    finally:
        os.close(read)
        os.close(write)


@pytest.mark.drivers("none")
def test_leaving_the_block_kills(wishes: dict[str, Any]) -> None:
    with sandbox.Sandbox(sandbox.make_spec(["sleep", "1000"], **wishes)) as box:
        pid = box.start().pid
    assert box.report.outcome == "killed"
    assert pid is not None
    assert not os.path.exists(f"/proc/{pid}")
    assert not cgroups(wishes["name"])


@pytest.mark.drivers("none")
def test_exception_in_the_block_kills(wishes: dict[str, Any]) -> None:
    with pytest.raises(ZeroDivisionError), sandbox.Sandbox(sandbox.make_spec(["sleep", "1000"], **wishes)) as box:
        box.start()
        raise ZeroDivisionError
    assert not cgroups(wishes["name"])


@pytest.mark.drivers("none")
def test_stop_and_signals(wishes: dict[str, Any]) -> None:
    with sandbox.Sandbox(sandbox.make_spec(["sleep", "1000"], **wishes)) as box:
        box.start().stop()
    assert (box.report.outcome, box.report.signal) == ("killed", signal.SIGTERM)
    with sandbox.Sandbox(sandbox.make_spec(["sleep", "1000"], **wishes)) as box:
        process = box.start()
        process.send_signal(signal.SIGUSR1)
        assert process.wait() == 128 + signal.SIGUSR1
    assert box.report.outcome == "signaled"


@pytest.mark.drivers("none")
def test_wait_in_one_thread_kill_in_another(wishes: dict[str, Any]) -> None:
    with sandbox.Sandbox(sandbox.make_spec(["sleep", "1000"], **wishes)) as box:
        process = box.start()
        waiter = threading.Thread(target=process.wait)
        waiter.start()
        process.kill()
        waiter.join(10)
        assert not waiter.is_alive()
        assert process.returncode == 137


@pytest.mark.drivers("none")
def test_asyncio(wishes: dict[str, Any], tmp_path: Path) -> None:
    """Each command waits until all are there: one after the other they would wait for ever."""
    del wishes["name"]
    meet = 'touch "$0/$1"; while [ "$(ls "$0" | wc -l)" -lt 8 ]; do sleep 0.02; done; exit "$1"'

    async def several() -> list[int]:
        reports = await asyncio.gather(*(sandbox.run_async(["sh", "-c", meet, tmp_path, str(code)], **wishes)
                                         for code in range(8)))
        return [report.exit_code for report in reports]

    assert asyncio.run(several()) == list(range(8))


@pytest.mark.drivers("none")
def test_asyncio_cancelled(wishes: dict[str, Any]) -> None:
    async def cancelled() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(sandbox.run_async(["sleep", "1000"], **wishes), 0.3)

    asyncio.run(cancelled())
    assert not cgroups(wishes["name"])


def test_launcher(wishes: dict[str, Any]) -> None:
    with sandbox.Launcher() as launcher:
        codes = [launcher.run(["sh", "-c", f"exit {code}"], pids_limit=9, **wishes).exit_code for code in range(5)]
    assert codes == [0, 1, 2, 3, 4]


def test_plan_touches_nothing(wishes: dict[str, Any]) -> None:
    plan = sandbox.plan(sandbox.make_spec(["true"], memory="64M", **wishes))
    assert any(step.phase == "PREPARE" for step in plan.steps)
    assert not cgroups(wishes["name"])


@pytest.mark.drivers("none")
def test_sigchld_of_the_caller_does_not_matter(wishes: dict[str, Any]) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert sandbox.run(["sh", "-c", "exit 9"], **wishes).exit_code == 9
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.drivers("none")
def test_children_of_the_caller_are_left_alone(wishes: dict[str, Any]) -> None:
    child = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 3"], {})
    assert sandbox.run(["true"], **wishes).exit_code == 0
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


def test_no_fd_is_leaked(wishes: dict[str, Any]) -> None:
    sandbox.run(["true"], **wishes)
    before = sorted(os.listdir("/proc/self/fd"))
    for command in (["true"], ["no-such-command"], ["sh", "-c", "kill -9 $$"]):
        sandbox.run(command, pids_limit=9, **wishes)
    with pytest.raises(sandbox.StepError):
        sandbox.run(["true"], workdir="/no/such", **wishes)
    with pytest.raises(sandbox.CgroupError):
        sandbox.run(["true"], cgroup_conf="pids.max=soon", **wishes)
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert eventually(lambda: not cgroups(wishes["name"]))


@pytest.mark.once
@pytest.mark.parametrize(("stream", "told"), [
    ({"stdout": 999}, "stdout: file descriptor 999: Bad file descriptor"), ({"stdin": "x"}, "stdin: a str is no file "),
    ({"stdout": subprocess.PIPE}, r"stdout: -1 is no file descriptor \(hint: for subprocess.PIPE give an end of "),
    ({"stderr": subprocess.STDOUT}, "stderr: -2 is no file"), ({"stdin": True}, "stdin: a bool is no file descriptor")])
def test_what_cannot_be_a_stream(wishes: dict[str, Any], stream: dict[str, Any], told: str) -> None:
    with sandbox.Sandbox(sandbox.make_spec(["true"], **wishes)) as box, pytest.raises(sandbox.SpecError, match=told):
        box.start(**stream)
    with sandbox.Sandbox(sandbox.make_spec(["true"], **wishes)) as box:
        with pytest.raises(sandbox.SpecError):
            box.start(**stream)
        assert box.start().wait() == 0  # nothing was started before


@pytest.mark.once
def test_signals_that_are_none(wishes: dict[str, Any]) -> None:
    with sandbox.Sandbox(sandbox.make_spec(["sleep", "1000"], **wishes)) as box:
        process = box.start()
        for number in (99, 0, -1, "TERM", None):
            with pytest.raises(sandbox.SpecError, match=rf"send_signal: {number!r} is not a signal"):
                process.send_signal(number)  # type: ignore[arg-type]
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 128 + signal.SIGTERM


@pytest.mark.once
def test_a_command_of_bytes(wishes: dict[str, Any]) -> None:
    assert sandbox.run([b"sh", b"-c", b"exit 3"], **wishes).code == 3
