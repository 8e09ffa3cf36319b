"""What the kernel's log says of processes that it killed for memory."""

from __future__ import annotations

import pytest

from sandbox.oom import Kills, find

MOUNT = "/sys/fs/cgroup"


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
    assert find(log, MOUNT, "/s.slice/box", 1, 7) == Kills(True, seen)


def test_a_tree_of_which_a_part_is_seen() -> None:
    log = [chosen("/outer/lab/s.slice", "/outer/lab/s.slice/box", 7)]
    assert find(log, MOUNT, "/s.slice/box", 1, None) == Kills(None, "/sys/fs/cgroup/s.slice")
    log = [chosen("/outer", "/outer/lab/s.slice/box", 7)]
    assert find(log, MOUNT, "/s.slice/box", 1, None) == Kills(None, "/outer")


def test_whether_the_command_was_killed() -> None:
    log = [chosen("/box", "/box", 7), killed(7)]
    assert find(log, MOUNT, "/box", 1, 8) == Kills(False, "/sys/fs/cgroup/box")
    assert find(log, MOUNT, "/box", 2, 8) == Kills(None, "/sys/fs/cgroup/box")
    assert find([*log, killed(8)], MOUNT, "/box", 2, 8) == Kills(True, "/sys/fs/cgroup/box")  # of a group


def test_only_the_last_are_of_a_sandbox_whose_name_came_before() -> None:
    log = [chosen("/box", "/box", 8), killed(8), chosen("/", "/box/below", 9), killed(9)]
    assert find(log, MOUNT, "/box", 1, 8) == Kills(False, "/sys/fs/cgroup")


def test_a_log_that_says_nothing_of_it() -> None:
    assert find(["booted", chosen("/box2", "/box2", 7)], MOUNT, "/box", 1, 7) is None


def test_a_process_cannot_name_itself_into_another_cgroup() -> None:
    assert find([chosen("/a", "/a", 7, task="x,task_memcg=/b,pid=1")], MOUNT, "/b", 1, 1) is None
    assert find([chosen("/a", "/a", 7, task="x,pid=1,uid=0")], MOUNT, "/a", 1, 1) == Kills(False, "/sys/fs/cgroup/a")
