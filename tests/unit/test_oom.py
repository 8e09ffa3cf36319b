"""What the kernel's log says of processes that it killed for memory."""

from __future__ import annotations

import pytest

from sandbox.oom import Kills, find

MOUNT, MEMCG = "/sys/fs/cgroup", "CONSTRAINT_MEMCG"


def chosen(limit: str, cgroup: str, pid: int, *, task: str = "python3") -> str:
    where = f"oom_memcg={limit}" if limit else "global_oom"
    return (f"oom-kill:constraint=CONSTRAINT_{'MEMCG' if limit else 'NONE'},nodemask=(null),cpuset=/,mems_allowed=0,"
            f"{where},task_memcg={cgroup},task={task},pid={pid},uid=0")


def killed(pid: int) -> str:
    return f"Memory cgroup out of memory: Killed process {pid} (python3) total-vm:109688kB, anon-rss:24320kB"


@pytest.mark.parametrize(("limit", "seen"), [
    ("/s.slice/box", "/sys/fs/cgroup/s.slice/box"), ("/s.slice", "/sys/fs/cgroup/s.slice"), ("", "")])
def test_whose_limit_it_was(limit: str, seen: str) -> None:
    log = [chosen("/other", "/other", 3), killed(3), chosen(limit, "/s.slice/box", 7), killed(7)]
    assert find(log, MOUNT, "/s.slice/box", 1, 7) == Kills(True, seen, MEMCG if limit else "CONSTRAINT_NONE")


def test_a_tree_of_which_a_part_is_seen() -> None:
    log = [chosen("/outer/lab/s.slice", "/outer/lab/s.slice/box", 7)]
    assert find(log, MOUNT, "/s.slice/box", 1, None) == Kills(None, "/sys/fs/cgroup/s.slice", MEMCG)
    log = [chosen("/outer", "/outer/lab/s.slice/box", 7)]
    assert find(log, MOUNT, "/s.slice/box", 1, None) == Kills(None, "/outer", MEMCG)


def test_whether_the_command_was_killed() -> None:
    log = [chosen("/box", "/box", 7), killed(7)]
    assert find(log, MOUNT, "/box", 1, 8) == Kills(False, "/sys/fs/cgroup/box", MEMCG)
    assert find(log, MOUNT, "/box", 2, 8) == Kills(None, "/sys/fs/cgroup/box", MEMCG)
    assert find([*log, killed(8)], MOUNT, "/box", 2, 8) == Kills(True, "/sys/fs/cgroup/box", MEMCG)  # of a group


def test_only_the_last_are_of_a_sandbox_whose_name_came_before() -> None:
    log = [chosen("/box", "/box", 8), killed(8), chosen("/", "/box", 9), killed(9)]
    assert find(log, MOUNT, "/box", 1, 8) == Kills(False, "/sys/fs/cgroup", MEMCG)


def test_a_log_that_says_nothing_of_it() -> None:
    assert find(["booted", chosen("/box2", "/box2", 7)], MOUNT, "/box", 1, 7) is None


def test_lines_that_the_kernel_skips() -> None:
    """The kernel logs each process that it kills, but not always the cgroup, if it kills many in a short time."""
    assert find([killed(7), killed(9)], MOUNT, "/box", 2, 8) == Kills(False, None, "")
    assert find([chosen("/box", "/box", 7), killed(7), killed(9)], MOUNT, "/box", 2, 8) == Kills(
        False, "/sys/fs/cgroup/box", MEMCG)
    # The line about pid 8 may be about an earlier process with that pid.
    assert find([killed(7), killed(8)], MOUNT, "/box", 2, 8) is None


def test_a_process_cannot_name_itself_into_another_cgroup() -> None:
    assert find([chosen("/a", "/a", 7, task="x,task_memcg=/b,pid=1")], MOUNT, "/b", 1, 1) is None
    log = [chosen("/a", "/a", 7, task="x,pid=1,uid=0")]
    assert find(log, MOUNT, "/a", 1, 1) == Kills(False, "/sys/fs/cgroup/a", MEMCG)


@pytest.mark.parametrize("message", [
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/box,task_mem",
    "oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/box,task_memcg=/box,task=x,pid=,uid=0",
    "Out of memory: Killed process x (y)", ": Killed process ", "oom-kill:"])
def test_a_record_that_was_cut(message: str) -> None:
    assert find([message], MOUNT, "/box", 1, 7) is None


def test_what_was_killed_below_it_is_not_counted_as_its_own() -> None:
    log = [chosen("/box", "/box", 7), killed(7), chosen("/box", "/box/below", 9), killed(9)]
    assert find(log, MOUNT, "/box", 1, 7) == Kills(True, "/sys/fs/cgroup/box", MEMCG)


def test_the_nodes_of_a_cpuset_were_full() -> None:
    log = [chosen("", "/box", 7).replace("CONSTRAINT_NONE", "CONSTRAINT_CPUSET")]
    assert find(log, MOUNT, "/box", 1, 7) == Kills(True, "", "CONSTRAINT_CPUSET")
