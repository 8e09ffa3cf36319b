"""The library against the real kernel: names, threads, events, asyncio, and what is left when things go wrong."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import sandbox
from sandbox.box import Sandbox
from sandbox.errors import CgroupError, ExecError, SandboxError, SpecError, StepError
from sandbox.host import probe
from sandbox.launch import Guard
from sandbox.launcher import run, run_async
from support.bare_launcher import children

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes cgroups: needs root")


def directories(name: str) -> list[str]:
    return [f"{tree.mount}{(tree.parent or '/').rstrip('/')}/sandbox-{name}" for tree in probe().hierarchies
            if tree.parent is not None]


@pytest.fixture
def name() -> Iterator[str]:
    """A name, of which nothing may be left."""
    chosen = f"test-{os.urandom(4).hex()}"
    yield chosen
    assert [path for path in directories(chosen) if os.path.exists(path)] == []
    assert not os.path.exists(f"{probe().runtime_dir}/{chosen}")


def test_a_cgroup_of_somebody_else_is_not_touched(name: str) -> None:
    foreign = next(path for path in directories(name) if "/pids" in path or len(directories(name)) == 1)
    os.mkdir(foreign)
    try:
        with pytest.raises(CgroupError, match="File exists"):
            run(["true"], name=name, pids_limit=5, driver="cgroupfs")
        assert os.path.isdir(foreign)
        assert [path for path in directories(name) if os.path.exists(path)] == [foreign]
    finally:
        os.rmdir(foreign)


def test_a_running_sandbox_keeps_its_name(name: str) -> None:
    with Sandbox(sandbox.make_spec(["sleep", "60"], name=name)) as box:
        process = box.start()
        with pytest.raises(StepError, match=name):
            run(["true"], name=name)
        assert process.poll() is None
        process.kill()
        assert process.wait() == 137


def test_a_plan_that_cannot_be_made_leaves_no_process() -> None:
    def fail() -> bytes:
        assert children(os.getpid()) != before
        raise SpecError("no such plan")

    before = children(os.getpid())
    with pytest.raises(SpecError, match="no such plan"):
        Guard(fail, (None, None, None))
    assert children(os.getpid()) == before


def test_a_step_that_fails_inside_is_named(name: str) -> None:
    with pytest.raises(StepError, match="cwd: cannot enter the directory /nowhere: No such file"):
        run(["true"], name=name, cwd="/nowhere")


def test_events_tell_the_story(name: str) -> None:
    with Sandbox(sandbox.make_spec(["sleep", "60"], name=name, timeout=0.05, stop_timeout=0.05)) as box:
        box.start()
        kinds = [event.kind for event in box.events()]
    assert kinds == ["started", "stopping", "exited", "ended"]
    assert box.report.outcome == "wall_time"


def test_a_live_sandbox_tells_its_usage_and_pid(name: str) -> None:
    with Sandbox(sandbox.make_spec(["sh", "-c", "echo up; exec sleep 60"], name=name)) as box:
        reader, writer = os.pipe()
        process = box.start(stdout=writer)
        os.close(writer)
        assert os.read(reader, 3) == b"up\n"
        os.close(reader)
        assert process.pid is not None
        assert Path(f"/proc/{process.pid}/stat").exists()
        assert (box.usage().memory_peak or 0) > 0
        process.send_signal(signal.SIGUSR1)
        assert process.wait() == 128 + signal.SIGUSR1


def test_leaving_the_block_kills(name: str) -> None:
    with Sandbox(sandbox.make_spec(["sleep", "60"], name=name)) as box:
        pid = box.start().pid
    assert box.report.signal == signal.SIGKILL
    assert not os.path.exists(f"/proc/{pid}")


def test_a_sandbox_runs_once(name: str) -> None:
    with Sandbox(sandbox.make_spec(["true"], name=name)) as box:
        with pytest.raises(SandboxError, match="not ended"):
            _ = box.report
        box.start().wait()
        with pytest.raises(SandboxError, match="started before"):
            box.start()


def test_check_tells_a_missing_command_from_a_bad_exit() -> None:
    with pytest.raises(ExecError, match="not found"):
        run(["no-such-command-here"]).check()
    with pytest.raises(SandboxError, match="exited with 127"):
        run(["sh", "-c", "exit 127"]).check()


def test_asyncio_goes_on_and_cancelling_kills(name: str) -> None:
    async def both() -> tuple[int, int]:
        reports = await asyncio.gather(run_async(["sh", "-c", "exit 3"]), run_async(["sh", "-c", "exit 4"]))
        return reports[0].exit_code, reports[1].exit_code

    async def cancelled() -> None:
        task = asyncio.create_task(run_async(["sleep", "60"], name=name, driver="cgroupfs"))
        while not any(os.path.exists(path) for path in directories(name)):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert asyncio.run(both()) == (3, 4)
    asyncio.run(cancelled())


def test_unknown_wishes_are_refused_before_anything_starts() -> None:
    with pytest.raises(SpecError, match="memry"):
        run(["true"], memry="64m")


def test_a_plan_can_be_had_without_running_it(name: str) -> None:
    plan = sandbox.plan(sandbox.make_spec(["true"], name=name, pids_limit=7, driver="cgroupfs"))
    assert [limit.applied for limit in plan.limits] == ["7"]


@pytest.mark.parametrize("driver", ["cgroupfs", "none"])
def test_what_a_refused_namesake_made_goes_again(name: str, driver: str) -> None:
    """The other one has fewer cgroups or none: ours are made before the name turns out to be taken."""
    with Sandbox(sandbox.make_spec(["sleep", "60"], name=name, driver=driver)) as box:
        process = box.start()
        theirs = [path for path in directories(name) if os.path.exists(path)]
        with pytest.raises(StepError, match=name):
            run(["true"], name=name, cpus=0.5)
        assert [path for path in directories(name) if os.path.exists(path)] == theirs
        assert os.path.exists(f"{probe().runtime_dir}/{name}")
        assert process.poll() is None
