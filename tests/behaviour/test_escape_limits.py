"""Ways around limits: memory that is a file, threads, cgroups made meanwhile, ids, cores. L02 to R11, S21, S28."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest

from support.machine import cgroups, descendants, eventually, named, status
from support.probes import python
from support.sandbox_run import Program
from support.warm_program import warm_bare

pytestmark = pytest.mark.matter("enforcement")

sandbox = warm_bare

MIB = 1 << 20


def shmem() -> int:
    """Bytes in all tmpfs of the machine."""
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("Shmem:"))
    return int(line.split()[1]) << 10


FILL = """
import os, sys
file = os.memfd_create("x") if sys.argv[1] == "memfd" else os.open(sys.argv[1] + "/x", os.O_CREAT | os.O_WRONLY)
for _ in range(96):
    os.write(file, b"x" * (1 << 20))
"""


@pytest.mark.parametrize("where", ["/dev/shm", "/tmp", "/var/tmp", "/run", "memfd"])
def test_l03_files_in_memory_are_charged(sandbox: Program, where: str) -> None:
    """Files in a tmpfs of the sandbox are charged to its cgroup, and their memory is freed when it ends.

    Shmem in /proc/meminfo counts the whole machine. A VM that boots beside the tests makes it grow as well, because
    QEMU's guest memory is shared memory. So the run is repeated if Shmem has grown: a leak would show every time.
    """
    for _ in range(5):
        before = shmem()
        done = sandbox("-m", "24m", *python(FILL), where)
        assert done.code != 0
        assert done.report["outcome"] == "oom" or "No space left" in done.err, (done.report["outcome"], done.err)
        assert done.usage["memory_peak"] <= 24 * MIB
        if eventually(lambda: shmem() < before + 12 * MIB, seconds=5.0):  # noqa: B023  # it is called at once
            return
    pytest.fail("memory stays behind")


def test_l02_a_kill_in_a_pipeline_is_told(sandbox: Program) -> None:
    """The command ends well although the kernel killed a part of it. Fails when the verdict looks at exit codes."""
    done = sandbox("-m", "24m", "--", "sh", "-c",
                   "dd if=/dev/zero of=/dev/shm/x bs=1M count=60 2>&1 | tail -n 1; exit 0")
    assert done.code == 0
    assert done.usage["oom_kill"] >= 1


THREADS = """
import _thread, os, time
count = 1
try:
    for _ in range(500):
        _thread.start_new_thread(time.sleep, (1000,))
        count += 1
except RuntimeError:
    print(count, flush=True)
    os._exit(0)
"""
"""It does not end as Python does: with 63 threads of this kind, Python 3.11 dies of SIGSEGV there once in 150 times."""


def test_l06_threads_count_as_tasks(sandbox: Program) -> None:
    done = sandbox("--pids-limit", "64", *python(THREADS))
    assert int(done.out) == 64, done.err
    assert done.usage["pids_peak"] == 64


@pytest.mark.drivers("none")
def test_r07_a_command_that_would_be_pid_1_obeys(sandbox: Program) -> None:
    """The kernel ignores SIGTERM to a pid 1 that has no handler. Fails without our init in that place."""
    with sandbox.start("--stop-timeout", "20", "--", "sh", "-c", "echo up; exec sleep 100") as running:
        running.read_line()
        running.process.terminate()
        done = running.finish()
    assert done.code == 128 + signal.SIGTERM


@pytest.mark.requires("root")
def test_r11_cgroups_made_below_are_removed(sandbox: Program) -> None:
    """Fails when only the cgroups that we made are removed. Inside nobody can make one (S11); a helper outside can."""
    with sandbox.start("-m", "64m", "--pids-limit", "20", "--", "sh", "-c", "echo up; read line") as running:
        running.read_line()
        made = [Path(group, "below", "deeper") for group in cgroups(running.name)]
        for path in made:
            path.mkdir(parents=True)
            path.parent.chmod(0)
        assert made
        done = running.finish(b"\n")
    assert done.code == 0, done.err
    assert eventually(running.gone)
    assert not any(path.parent.exists() for path in made)


@pytest.mark.drivers("none")
@pytest.mark.requires("root")
def test_s21_no_id_of_the_host_is_root_inside(sandbox: Program) -> None:
    """Fails when the user namespace maps the host's uid 0, or is not there at all."""
    done = sandbox("--", "cat", "/proc/self/uid_map", "/proc/self/gid_map")
    rows = [tuple(map(int, line.split())) for line in done.out.decode().splitlines()]
    assert rows
    assert all(outside >= 1 << 16 for _, outside, _ in rows), rows


@pytest.mark.drivers("none")
@pytest.mark.requires("root")
def test_s21_the_host_sees_ids_that_nobody_has(sandbox: Program) -> None:
    """The same from outside, where the sandbox cannot pretend."""
    with sandbox.start("--", "sh", "-c", "echo up; read line") as running:
        running.read_line()
        [pid] = named(descendants(running.guard()), "sh")
        facts = status(pid)
        assert {int(word) for key in ("Uid", "Gid") for word in facts[key].split()} == {1000000000}
        assert all(int(word) >= 1 << 16 for word in facts["Groups"].split())
        running.finish(b"\n")


@pytest.mark.drivers("none")
def test_s21_groups(sandbox: Program) -> None:
    """CVE-2014-8989. A group that denies access must not be dropped by who has no right to; nor may one that allows it
    come along where we have the right to drop it."""
    done = sandbox("--", "sh", "-c", "cat /proc/self/setgroups; grep ^Groups /proc/self/status; id -g")
    setgroups, groups, own = done.out.decode().splitlines()
    if os.geteuid() != 0:
        assert setgroups == "deny"
    assert set(groups.split()[1:]) <= {own, "65534"}


@pytest.mark.drivers("none")
def test_s28_no_core_by_default(sandbox: Program, tmp_path: Path) -> None:
    """Fails when the caller's limit comes along: the core would lie in the caller's directory, or go through the host's
    pipe, which runs as root there."""
    share = tmp_path / "share"
    share.mkdir(mode=0o777)
    share.chmod(0o777)

    def unlimited() -> None:
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))

    done = sandbox("-v", f"{share}:/mnt", "-w", "/mnt", "--", "sh", "-c", "ulimit -c; kill -SEGV $$",
                   preexec_fn=unlimited)
    assert done.code == 128 + signal.SIGSEGV
    assert os.listdir(share) == []
    assert done.out == b"0\n"
