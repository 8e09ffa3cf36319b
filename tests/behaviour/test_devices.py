"""Devices of the host that are given to a run, and what may be done with them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sandbox.box import Sandbox, probe_for
from sandbox.errors import CgroupError
from sandbox.host import Host
from sandbox.isolation import device_filter, nodes
from sandbox.options import make_spec
from sandbox.spec import Spec
from support.sandbox_run import Program, python
from support.warm_program import warm

sandbox = warm
pytestmark = [pytest.mark.matter("enforcement"), pytest.mark.requires("root")]
TRY = """
import os, sys
for path, flags in (word.rsplit(":", 1) for word in {words!r}):
    try:
        fd = os.open(path, {{"r": os.O_RDONLY, "w": os.O_WRONLY}}[flags])
        print(path, flags, os.read(fd, 2) if flags == "r" else os.write(fd, b"x"))
        os.close(fd)
    except OSError as error:
        print(path, flags, os.strerror(error.errno))
"""
REFUSED = "Operation not permitted"


def attempt(*words: str) -> list[str]:
    """A command that opens each PATH:r or PATH:w, and says what came of it."""
    return python(TRY.format(words=words))


def lines(out: bytes) -> list[str]:
    return out.decode().splitlines()


def node(path: Path, minor: int, mode: int = 0o600) -> str:
    os.mknod(path, stat.S_IFCHR | mode, os.makedev(1, minor))
    path.chmod(mode)
    return str(path)


def test_absent_unless_it_is_given(sandbox: Program) -> None:
    done = sandbox("--", "ls", "/dev")
    assert {*lines(done.out)} <= {"full", "null", "zero", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue",
                                  "fd", "stdin", "stdout", "stderr"}
    assert "--device" not in {row["flag"] for row in done.report["limits"]}


def test_reading_and_writing(sandbox: Program) -> None:
    done = sandbox("--device", "/dev/zero:/dev/nought", *attempt("/dev/nought:r", "/dev/nought:w"))
    assert lines(done.out) == [r"/dev/nought r b'\x00\x00'", "/dev/nought w 1"], done.err
    assert "warning: --device /dev/zero: it can read and write this device" in done.err
    row = done.limit("--device")
    assert (row["asked"], row["enforced"]) == ("/dev/zero:/dev/nought:rwm", True)


def test_reading_only(sandbox: Program) -> None:
    """Root inside may write as far as the node goes, and the mount does not matter: only the policy refuses it."""
    done = sandbox("--device", "/dev/zero:/dev/nought:r", "--device", "/dev/full:/dev/brim:w",
                   *attempt("/dev/nought:r", "/dev/nought:w", "/dev/zero:w", "/dev/brim:r", "/dev/null:w",
                            "/dev/urandom:w"))
    assert lines(done.out) == [r"/dev/nought r b'\x00\x00'", f"/dev/nought w {REFUSED}", f"/dev/zero w {REFUSED}",
                               f"/dev/brim r {REFUSED}", "/dev/null w 1", "/dev/urandom w 1"], done.err
    assert "it can read this device" in done.err


@pytest.mark.requires("mknod")
def test_an_owner_is_the_same_inside(sandbox: Program, tmp_path: Path) -> None:
    """A node that only root may open, by a root that is nobody outside; and the host's keeps its mode."""
    given = node(tmp_path / "zero", 5)
    done = sandbox("--device", f"{given}:/dev/a/b", "--", "sh", "-c",
                   "stat -c '%u %g %a %t %T' /dev/a/b; head -c 1 /dev/a/b | wc -c; chmod 666 /dev/a/b")
    assert lines(done.out) == ["0 0 600 1 5", "1"], done.err
    assert "Read-only" in done.err
    assert stat.S_IMODE(os.stat(given).st_mode) == 0o600


@pytest.mark.requires("mknod")
def test_high_numbers(sandbox: Program, tmp_path: Path) -> None:
    given = node(tmp_path / "far", 0x493E0)
    done = sandbox("--device", f"{given}:/dev/far:r", "--", "stat", "-c", "%t %T", "/dev/far")
    assert lines(done.out) == ["1 493e0"], done.err


@pytest.mark.requires("mknod")
def test_one_that_cannot_be_opened_is_told(sandbox: Program, tmp_path: Path) -> None:
    given = node(tmp_path / "zero", 5)
    done = sandbox("-u", "1000", "--device", f"{given}:/dev/nought", "--", "cat", "/dev/nought")
    assert "/dev/nought: Permission denied" in done.err
    assert f"{given} has mode 0600 and owner 0:0: the command, 1000:" in done.err


@pytest.mark.requires("mknod")
def test_a_directory_with_all_below(sandbox: Program, tmp_path: Path) -> None:
    given = tmp_path / "given"
    (given / "deep").mkdir(parents=True)
    node(given / "zero", 5)
    node(given / "deep" / "random", 8)
    (given / "link").symlink_to("zero")
    (given / "text").write_text("x")
    done = sandbox("--device", f"{given}:/dev/given:r", "--", "find", "/dev/given", "!", "-type", "d")
    assert sorted(lines(done.out)) == ["/dev/given/deep/random", "/dev/given/zero"], done.err
    done = sandbox("--device", f"{given}:/dev/given:r", *attempt("/dev/given/zero:r", "/dev/given/deep/random:w"))
    assert lines(done.out) == [r"/dev/given/zero r b'\x00\x00'", f"/dev/given/deep/random w {REFUSED}"], done.err


def test_outside_of_dev(sandbox: Program, tmp_path: Path) -> None:
    done = sandbox("--device", "/dev/zero:/tmp/a/nought", *attempt("/tmp/a/nought:r"))
    assert lines(done.out) == [r"/tmp/a/nought r b'\x00\x00'"], done.err


@pytest.mark.parametrize(("value", "message"), [
    ("/no/such", "there is no /no/such"), ("/etc/passwd", "/etc/passwd is no device"),
    ("/etc/default", "has no device in it"), ("/dev/zero", "is there in any case"),
    ("/dev/zero:/no/such/place", "has no /no/such/place"),
])
@pytest.mark.once
def test_what_cannot_be_given(sandbox: Program, tmp_path: Path, value: str, message: str) -> None:
    done = sandbox("--device", value, "--", "touch", str(tmp_path / "ran"))
    assert (done.code, message in done.err.splitlines()[0], done.report) == (2, True, {}), done.err
    assert not (tmp_path / "ran").exists()


@pytest.mark.only("none")
@pytest.mark.drivers("none")
@pytest.mark.parametrize("value", ["/dev/zero:/dev/nought:r", "/dev/zero:/dev/nought:wm"])
def test_without_a_cgroup_nothing_keeps_a_permission(sandbox: Program, tmp_path: Path, value: str) -> None:
    done = sandbox("--device", value, "--", "touch", str(tmp_path / "ran"))
    assert (done.code, "nothing would keep its permission" in done.err) == (125, True), done.err
    assert not (tmp_path / "ran").exists()
    done = sandbox("--device", "/dev/zero:/dev/nought", *attempt("/dev/nought:w"))
    assert lines(done.out) == ["/dev/nought w 1"]
    assert "only the permissions of its node say who may use it" in done.err


def outcome(spec: Spec, host: Host, tmp_path: Path) -> str:
    with (tmp_path / "out").open("w+") as out, Sandbox(spec, host=host) as box:
        box.start(stdout=out.fileno()).wait()
        out.seek(0)
        return out.read()


def spec_of_a_sleeper(driver: str) -> Spec:
    return make_spec(["sleep", "100"], driver=driver, device="/dev/zero:/dev/nought:r")


@pytest.mark.only("cgroupfs")
def test_the_filter_of_cgroup2(driver: str, tmp_path: Path) -> None:
    """The v2 tree of this machine, hybrid or not, keeps the policy when there is no other."""
    spec = make_spec(attempt("/dev/nought:r", "/dev/nought:w", "/dev/null:w")[1:], driver=driver,
                     device=["/dev/zero:/dev/nought:r"])
    host = probe_for(spec)
    trees = tuple(tree for tree in host.hierarchies if tree.version == 2)
    if not trees or trees[0].parent is None:
        pytest.skip("no cgroup2 is mounted here")
    with pytest.raises(CgroupError, match="has no device filter"):
        device_filter.check(f"{trees[0].mount}{trees[0].parent}")
    with Sandbox(spec_of_a_sleeper(driver), host=host._replace(hierarchies=trees)) as box:
        process = box.start()
        device_filter.check(next(str(step.args[0]) for step in box.plan.steps if step.op == "device_filter"))
        process.kill()
    found = outcome(spec, host._replace(hierarchies=trees), tmp_path)
    assert found.splitlines() == [r"/dev/nought r b'\x00\x00'", f"/dev/nought w {REFUSED}", "/dev/null w 1"]


@pytest.mark.requires("mknod")
@pytest.mark.only("cgroupfs")
def test_gpus_by_their_names(driver: str, tmp_path: Path) -> None:
    """Harmless nodes with the names that drivers use."""
    for name in ("dri/card0", "dri/renderD128", "dri/by-path/x", "nvidia0", "nvidia-uvm", "nvidia-caps/cap1", "kfd",
                 "sda", "null"):
        path = tmp_path / "dev" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        node(path, 5)
    found = nodes.probe(make_spec(["true"], gpu=True, driver=driver), str(tmp_path))
    assert {one.path.removeprefix("/dev/") for one in found} == {
        "dri/card0", "dri/renderD128", "dri/by-path/x", "nvidia0", "nvidia-uvm", "nvidia-caps/cap1", "kfd"}


@pytest.mark.only("cgroupfs")
def test_gpus_are_given(driver: str, tmp_path: Path) -> None:
    spec = make_spec(attempt("/dev/dri/renderD128:r", "/dev/kfd:w")[1:], driver=driver, gpu=True)
    zero = nodes.probe(make_spec(["true"], device="/dev/zero:/dev/x"))[0]
    host = probe_for(spec)._replace(nodes=(zero._replace(path="/dev/dri/renderD128"),
                                           zero._replace(path="/dev/kfd", minor=3)))
    if not host.mknod:
        pytest.skip("no CAP_MKNOD")
    assert outcome(spec, host, tmp_path).splitlines() == [r"/dev/dri/renderD128 r b'\x00\x00'", "/dev/kfd w 1"]


@pytest.mark.once
def test_no_gpu_is_one_line(sandbox: Program, tmp_path: Path) -> None:
    if nodes.probe(make_spec(["true"], gpu=True)):
        pytest.skip("there is one here")
    done = sandbox("--gpu", "--", "touch", str(tmp_path / "ran"))
    assert done.code == 125
    assert done.err.startswith("sandbox: no GPU: none of /dev/dri/renderD*, /dev/nvidia*, /dev/kfd exists")
    assert not (tmp_path / "ran").exists()
