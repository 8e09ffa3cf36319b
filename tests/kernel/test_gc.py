"""Leftovers: what is ours and dead goes, what lives or is not ours stays. Needs root and a cgroup tree."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.cgroup.group import Cgroup
from sandbox.gc import GRACE, collect
from sandbox.host import Host, probe

# Looks at all of the machine: another test would be seen.
pytestmark = [pytest.mark.alone,
              pytest.mark.skipif(os.geteuid() != 0, reason="makes cgroups: needs root")]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """This host, with state files of its own and only the trees we may use."""
    found = probe()
    return found._replace(runtime_dir=str(tmp_path),
                          hierarchies=tuple(tree for tree in found.hierarchies if tree.parent is not None)[:2])


@pytest.fixture
def cgroup(host: Host) -> Iterator[Cgroup]:
    name = f"sandbox-test-gc-{os.urandom(4).hex()}"
    made = Cgroup(tuple(f"{tree.mount}{(tree.parent or '/').rstrip('/')}/{name}" for tree in host.hierarchies))
    for directory in made.directories:
        os.mkdir(directory)
    yield made
    made.kill()
    made.remove()


def claim(host: Host, cgroup: Cgroup) -> Path:
    path = Path(host.runtime_dir) / os.path.basename(cgroup.directories[0]).removeprefix("sandbox-")
    path.write_text("".join(f"{directory}\n" for directory in cgroup.directories))
    return path


def gone(cgroup: Cgroup) -> bool:
    return not any(os.path.exists(directory) for directory in cgroup.directories)


def test_a_dead_claim_goes_with_its_processes_and_sub_cgroups(host: Host, cgroup: Cgroup) -> None:
    path = claim(host, cgroup)
    os.mkdir(f"{cgroup.directories[0]}/below")
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        for directory in cgroup.directories:
            with open(f"{directory}/cgroup.procs", "w", buffering=1) as file:
                file.write(f"{sleeper.pid}\n")
        removed = collect(host)
        assert sleeper.wait(5) == -9
    assert gone(cgroup)
    assert set(removed) == {*cgroup.directories, str(path)}
    assert not path.exists()


def test_a_claim_that_is_locked_stays(host: Host, cgroup: Cgroup) -> None:
    path = claim(host, cgroup)
    with path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert collect(host) == ()
        assert path.exists()
        assert not gone(cgroup)


def test_a_new_cgroup_without_a_claim_is_left_to_its_starter(host: Host, cgroup: Cgroup) -> None:
    assert collect(host) == ()
    assert not gone(cgroup)


def test_an_old_empty_cgroup_without_a_claim_goes(host: Host, cgroup: Cgroup) -> None:
    for directory in cgroup.directories:
        os.utime(directory, (0, time.time() - GRACE - 1))
    assert set(collect(host)) == set(cgroup.directories)
    assert gone(cgroup)


def test_a_claim_never_leads_to_what_is_not_ours(host: Host, cgroup: Cgroup, tmp_path: Path) -> None:
    foreign = tmp_path / "sandbox-not-a-cgroup"
    foreign.mkdir()
    directory = os.path.dirname(cgroup.directories[0])
    (tmp_path / "planted").write_text(f"/etc\n{directory}/../etc\n{directory}\n")
    assert collect(host) == (str(tmp_path / "planted"),)
    assert os.path.isdir(directory)
    assert not gone(cgroup)


def test_a_planted_symlink_is_not_followed(host: Host, tmp_path: Path) -> None:
    victim = tmp_path.parent / f"victim-{os.urandom(4).hex()}"
    victim.write_text("precious\n")
    (tmp_path / "link").symlink_to(victim)
    assert collect(host) == ()
    assert victim.read_text() == "precious\n"
