"""sandbox-init as a program, for the tests that give it plans by hand: as it is shipped and, where there is a compiler,
with the C library, and under ASan and UBSan. Also what such plans work on: cgroups, root file systems, networks."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from sandbox.init import build, wire
from sandbox.steps import Step
from support.bare_launcher import Run, Start, pipe
from support.selection import PLACE, TIER, is_long
from support.veth import Sandbox, links, tables

COMPILED = pytest.mark.requires("cc")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    if TIER == "quick":
        items[:] = [item for item in items if here not in item.path.parents
                    or (PLACE == "host" and not is_long(item, in_vm=False))]


@pytest.fixture(scope="session", params=["shipped", pytest.param("libc", marks=[COMPILED, pytest.mark.long]),
                                         pytest.param("sanitized", marks=COMPILED)])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of the program.

    A test may ask for ``impatient``, in which the guard kills an init that does not answer after 0.1 s, not 10 s.
    """
    if request.param == "shipped" and shutil.which("cc") is None:
        return build.DIRECTORY / "sandbox-init"
    directory = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        directory = directory.parent  # of all workers, or each would compile everything
    target = directory / f"sandbox-init-{request.param}"
    with open(f"{target}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            _build(request.param, target)
    return target


def _build(variant: str, target: Path) -> None:
    new = target.with_suffix(".new")
    if variant == "shipped":
        build.build(new)
    elif variant == "libc":
        build.compile_to(new, build.PROGRAM, (*build.SMALL, *build.HARDENED, *build.DYNAMIC))
    elif variant == "impatient":
        build.compile_to(new, build.PROGRAM, ("-O0", "-DINIT_MAY_TAKE=100"))
    else:
        build.compile_to(new, build.PROGRAM, build.SANITIZED)
    new.rename(target)


@pytest.fixture
def start(program: Path, tmp_path: Path) -> Iterator[Start]:
    """Start sandbox-init with a plan; at the end nothing may live, and no sanitizer may have complained."""
    runs: list[Run] = []
    complaints = tmp_path / "sanitizer"
    options = f"log_path={complaints}:detect_leaks=0:exitcode=99:abort_on_error=0:print_stacktrace=1"
    env = {"ASAN_OPTIONS": options, "UBSAN_OPTIONS": options}

    def start(steps: Sequence[Step], *, stdio: Sequence[int] = (0, 1, 2)) -> Run:
        runs.append(Run(program, wire.encode(list(enumerate(steps, 1))), stdio=stdio, env=env))
        return runs[-1]

    yield start
    for run in runs:
        run.close()
    assert not [path.read_text() for path in tmp_path.glob("sanitizer*")]


@pytest.fixture
def run(start: Start) -> Callable[..., Run]:
    """Run a plan from the start to the end."""

    def run(steps: Sequence[Step], *fds: int, stdio: Sequence[int] = (0, 1, 2)) -> Run:
        one = start(steps, stdio=stdio)
        one.go(*fds)
        assert one.finish() == 0
        return one

    return run


@pytest.fixture
def output(start: Start) -> Callable[..., str]:
    """What the workload of a plan writes to stdout. The stream must end with the workload, the guard still there."""

    def output(steps: Sequence[Step], *fds: int, stderr: int = 2) -> str:
        with pipe() as (reader, writer):
            one = start(steps, stdio=(0, writer.fileno(), stderr))
            writer.close()
            one.go(*fds)
            text = reader.readall().decode()
        assert one.finish() == 0
        assert one.exit_code() == 0, one.records
        return text

    return output


@contextmanager
def new_cgroup(*kinds: str) -> Iterator[Path]:
    """A cgroup of ours in the first tree of one of these kinds: cgroup2, or cgroup for v1's pids."""
    mounts = [line.split(" ") for line in Path("/proc/self/mounts").read_text().splitlines()]
    trees = [mount for _, mount, kind, options, *_ in mounts
             if kind in kinds and (kind == "cgroup2" or "pids" in options.split(","))]
    if not trees:
        pytest.skip(f"nothing of {kinds} is mounted")
    path = Path(trees[0], f"sandbox-test-{os.getpid()}-{os.urandom(4).hex()}")
    path.mkdir()
    yield path
    for directory, _, _ in os.walk(path, topdown=False):
        with suppress(FileNotFoundError):
            os.rmdir(directory)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    with new_cgroup("cgroup", "cgroup2") as path:
        yield path


@pytest.fixture
def cgroup2() -> Iterator[Path]:
    with new_cgroup("cgroup2") as path:
        yield path


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    """A tree with the host's programs and nothing else: links, and directories for mounts."""
    root = tmp_path / "rootfs"
    for name in ("proc", "sys", "dev", "tmp", "usr", "etc", "root"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / name).symlink_to(f"usr/{name}")
    tmp_path.chmod(0o755)
    return root


@pytest.fixture
def make_veth() -> Iterator[Callable[..., Sandbox]]:
    made: list[Sandbox] = []

    def build(**wishes: Any) -> Sandbox:
        made.append(Sandbox(**wishes))
        return made[-1]

    before = links(), tables()
    yield build
    for one in made:
        one.kill()
        one.disconnect()
    assert (links(), tables()) == before
