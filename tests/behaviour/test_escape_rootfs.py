"""A root file system from somebody who wants out: S12 to S14, and S09 with a root of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sandbox as package
from sandbox.options import make_spec
from support.machine import SLOWER
from support.probes import DIRECTORY
from support.rootfs import Rootfs
from support.sandbox_run import Program, Result, names
from support.warm_program import warm_bare

pytestmark = pytest.mark.matter("isolation")

sandbox = warm_bare


@pytest.fixture
def rootfs(tmp_path: Path) -> Rootfs:
    return Rootfs(tmp_path)


def shell(script: str) -> list[str]:
    return ["-w", "/", "--", "/bin/sh", "-c", script]


@pytest.mark.drivers("none")
def test_s12_a_root_of_its_own(sandbox: Program, rootfs: Rootfs) -> None:
    """What the hostile ones below are variations of: fails when a good root does not work either."""
    done = sandbox(*rootfs.flags, *shell("ls /; ls /dev; cat /proc/1/comm; echo x >/new; echo y >/tmp/y"))
    assert done.code == 0, done.err
    assert {b"proc", b"usr", b"null", b"sandbox-init"} <= set(done.out.split())
    assert b"home" not in done.out.split()


@pytest.mark.drivers("none")
def test_s09_dot_dot_ends_at_a_root_of_its_own(sandbox: Program, rootfs: Rootfs) -> None:
    """Fails with chroot in the place of pivot_root, or when the root's parent stays open."""
    script = f"cd /; ls ../outside ../../outside ../../../../../etc/passwd .{rootfs.outside} {rootfs.outside}; ls /.."
    done = sandbox(*rootfs.flags, *shell(script))
    assert b"precious" not in done.out
    assert b"passwd" not in done.out
    assert b"usr" in done.out.split(), "above the root is the root"


@pytest.mark.drivers("none")
@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
@pytest.mark.parametrize("kind", ["outside", "inside", "root", "climbing"])
def test_s13_fixed_places_that_are_symlinks(sandbox: Program, rootfs: Rootfs, name: str, kind: str) -> None:
    """CVE-2019-19921, CVE-2026-41579 and their like. Fails when mount targets are looked up with symlinks followed."""
    (rootfs.path / "other").mkdir()
    climbing = "../" * 20 + str(rootfs.outside)[1:]
    rootfs.replace(name, {"outside": str(rootfs.outside), "inside": "/other", "root": "/", "climbing": climbing}[kind])
    refused(sandbox(*rootfs.flags, *shell("echo started")), rootfs)


def refused(done: Result, rootfs: Rootfs) -> None:
    """A clean refusal: one line, nothing started, nothing made."""
    assert b"started" not in done.out
    assert done.code == 125, (done.code, done.err)
    assert "Traceback" not in done.err
    assert done.err.strip()
    assert rootfs.outside_is_whole()
    assert not (rootfs.path / "other").exists() or os.listdir(rootfs.path / "other") == []


@pytest.mark.drivers("none")
@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_s13_fixed_places_that_are_files(sandbox: Program, rootfs: Rootfs, name: str) -> None:
    """Fails when a mount that cannot be made is left out."""
    (rootfs.path / name).rmdir()
    (rootfs.path / name).write_text("no directory")
    refused(sandbox(*rootfs.flags, *shell("echo started")), rootfs)
    assert (rootfs.path / name).read_text() == "no directory"


@pytest.mark.drivers("none")
def test_s13_a_proc_that_is_made_up(sandbox: Program, rootfs: Rootfs) -> None:
    """A directory full of files that look like the kernel's: what counts is the mount over it."""
    own = rootfs.path / "proc" / "self"
    (own / "attr").mkdir(parents=True)
    (own / "attr" / "exec").write_text("")
    (rootfs.path / "proc" / "sys").symlink_to(rootfs.outside)
    done = sandbox(*rootfs.flags, *shell("cat /proc/1/comm; ls /proc/sys/; grep -c ' /proc ' /proc/self/mountinfo"))
    assert done.out.split()[0] == b"sandbox-init", done.err
    assert {b"kernel", b"vm"} <= set(done.out.split())
    assert (own / "attr" / "exec").read_text() == ""
    assert rootfs.outside_is_whole()


@pytest.mark.drivers("none")
def test_s12_a_dev_that_is_made_up(sandbox: Program, rootfs: Rootfs) -> None:
    """CVE-2025-31133: what masks a file must not be the root's own ``/dev/null``. Fails when it is."""
    (rootfs.path / "dev" / "null").symlink_to("/proc/sys/kernel/core_pattern")
    (rootfs.path / "dev" / "console").symlink_to(str(rootfs.outside / "console"))
    (rootfs.path / "dev" / "pts").symlink_to(str(rootfs.outside))
    (rootfs.path / "dev" / "shm").symlink_to("/etc")
    done = sandbox(*rootfs.flags, *shell("stat -c %F /dev/null; cat /proc/keys /proc/interrupts | wc -c; ls -l /dev"))
    if done.code != 125:
        assert done.out.startswith(b"character special file\n"), done.err
        assert done.out.split(b"\n")[1] == b"0"
        assert b"core_pattern" not in done.out
    assert rootfs.outside_is_whole()


@pytest.mark.drivers("none")
@pytest.mark.parametrize("name", ["tmp", "run", "var", "etc"])
def test_s12_other_places_that_are_symlinks(sandbox: Program, rootfs: Rootfs, name: str) -> None:
    """They may mean a place inside the root, as in many a distribution, and never one outside."""
    rootfs.replace(name, str(rootfs.outside))
    done = sandbox(*rootfs.flags, "-v", f"{rootfs.source}:/{name}/deep/er", *shell(f"cat /{name}/deep/er/shared"))
    assert done.code != 0 or done.out == b"shared"
    assert rootfs.outside_is_whole()


@pytest.mark.drivers("none")
@pytest.mark.parametrize("target", ["/link", "/link/new", "/link/precious", "/link/new/er", "/up/new", "/loop/new"])
def test_s14_volumes_on_planted_symlinks(sandbox: Program, rootfs: Rootfs, target: str) -> None:
    """CVE-2021-30465, CVE-2024-45310 without the race. Fails when the target is looked up, or made, from the host."""
    rootfs.replace("link", str(rootfs.outside))
    rootfs.replace("up", "../" * 20 + str(rootfs.outside)[1:])
    rootfs.replace("loop", "loop")
    done = sandbox(*rootfs.flags, "-v", f"{rootfs.source}:{target}",
                   *shell(f"echo z >{target}/written; cat {target}/*"))
    assert b"precious" not in done.out
    assert rootfs.outside_is_whole()
    assert "Traceback" not in done.err


@pytest.mark.drivers("none")
def test_s14_sources_may_be_symlinks_of_the_caller(sandbox: Program, rootfs: Rootfs) -> None:
    """The source is the caller's word: it is what it says when the run starts, as with any tool."""
    (rootfs.path.parent / "alias").symlink_to(rootfs.source)
    done = sandbox(*rootfs.flags, "-v", f"{rootfs.path.parent}/alias:/mnt", *shell("cat /mnt/shared"))
    assert done.out == b"shared", done.err


@pytest.fixture
def exchanging(rootfs: Rootfs) -> Iterator[Callable[[], int]]:
    """Somebody exchanges ``/a``, a directory of the root, and ``/b``, a symlink out of it, all the time."""
    (rootfs.path / "a").mkdir()
    (rootfs.path / "b").symlink_to(rootfs.outside)
    process = subprocess.Popen([sys.executable, "-I", "-S", DIRECTORY / "exchange.py", rootfs.path, "a", "b"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def stop() -> int:
        output = process.communicate(timeout=60)[0]
        return int(output or -1)

    yield stop
    process.kill()
    process.wait()


@pytest.mark.long_in_vm
@pytest.mark.once
@pytest.mark.timeout(300)
@pytest.mark.parametrize("target", ["/a/target", "/a/deep/er/target", "/a"])
def test_s14_symlinks_that_change_meanwhile(sandbox: Program, rootfs: Rootfs, exchanging: Callable[[], int],
                                            target: str) -> None:
    """210 runs against a renaming loop, 70 for each target. Fails when a path is checked first and used later, instead
    of once with ``openat2(RESOLVE_IN_ROOT)``."""
    volumes = [flag for flag, before in zip(rootfs.flags[1:], rootfs.flags, strict=False) if before == "-v"]
    outcomes = []
    number = max(20, 70 // SLOWER)
    with open(os.devnull, "r+b", buffering=0) as null:
        for _ in range(number):
            outcomes.append(attempt(null.fileno(), ["/bin/cat", f"{target}/shared"], rootfs=str(rootfs.path),
                                    workdir="/", volume=[*volumes, f"{rootfs.source}:{target}"], **sandbox.wishes()))
            assert rootfs.outside_is_whole(), os.listdir(rootfs.outside)
    assert exchanging() > number, "nobody exchanged anything"
    print({outcome: outcomes.count(outcome) for outcome in set(outcomes)})
    assert sorted(os.listdir(rootfs.source)) == ["shared"]
    assert outcomes.count("refused") < number, "not one run found the directory: nothing was tried"


def attempt(null: int, argv: list[str], **wishes: Any) -> str:
    """One run: how it ended."""
    try:
        with package.Sandbox(make_spec(argv, name=names("race"), **wishes)) as box:
            box.start(stdin=null, stdout=null, stderr=null).wait()
        return str(box.report.code)
    except package.SandboxError:
        return "refused"
