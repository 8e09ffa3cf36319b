"""Does each of the forty cases notice that its protection is gone? It is taken away, and a test of the case must fail.

Usage: protections.py [ID...]

What is taken away is in support/protections_table.py. It is all done in a copy of the tree and, since commands that
nothing holds back are run then, in a container lab; only what can do no harm is run on this machine. The tests must
pass before anything is taken away, and a program that does not start any more counts for nothing.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import venv
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from support.forty_cases import FORTY
from support.machine import descendants
from support.protections_table import ROWS, Edit, Row

ROOT = Path(__file__).resolve().parent.parent

COPIED = ("sandbox", "cli", "tests", "pyproject.toml")
LAB_FILES = Path("/var/lib/sandbox-lab")
"""In a lab: not on its overlay, whose owners cannot be mapped."""
LIBRARY = Path("sandbox/init/sandbox-init")
SCRIPT = """#!{python}
import sys
from sandbox_cli.start import main
sys.exit(main())
"""
BUILD = "from sandbox.init.build import DIRECTORY, build; build(DIRECTORY / 'sandbox-init')"
ATTEMPTS = 3
PR_SET_CHILD_SUBREAPER = 36


class Outcome(NamedTuple):
    """What came of some tests.

    :param passed: how many did.
    :param failed: the names of those that failed; what could not even be collected or set up is in ``broken``.
    """

    passed: int
    failed: list[str]
    broken: list[str]


class Copy:
    """The tree once more, with an environment of its own, so that nothing leads back to this one.

    :param directory: where it is made.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.python = directory / ".venv" / "bin" / "python"
        for name in COPIED:
            source = ROOT / name
            ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
            if source.is_dir():
                shutil.copytree(source, directory / name, ignore=ignored)
            else:
                shutil.copy2(source, directory / name)
        self._make_environment()
        self.call("-m", "compileall", "-q", "sandbox", "cli")

    def _make_environment(self) -> None:
        venv.create(self.directory / ".venv", symlinks=True)
        links = self.directory / ".venv" / "editable"
        links.mkdir()
        (links / "sandbox").symlink_to(self.directory / "sandbox")
        (links / "sandbox_cli").symlink_to(self.directory / "cli")
        found = next((self.directory / ".venv" / "lib").glob("python3*/site-packages"))
        (found / "copy.pth").write_text(f"{links}\n{sysconfig.get_path('purelib')}\n")
        script = self.python.with_name("sandbox")
        script.write_text(SCRIPT.format(python=self.python))
        script.chmod(0o755)

    def call(self, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
        """Its Python."""
        settings = {"cwd": self.directory, "check": True, "text": True} | options
        return subprocess.run([self.python, *words], **settings)  # type: ignore[call-overload,no-any-return]

    @contextmanager
    def without(self, edits: tuple[Edit, ...]) -> Iterator[None]:
        """The tree without something, for as long as the block lasts."""
        files = {self.directory / edit.file: (self.directory / edit.file).read_text() for edit in edits}
        program = (self.directory / LIBRARY).read_bytes()
        try:
            for edit in edits:
                self._apply(edit)
            self._compile([*files])
            yield
        finally:
            for path, text in files.items():
                path.write_text(text)
            self._compile([path for path in files if path.suffix == ".py"])
            (self.directory / LIBRARY).write_bytes(program)

    def _apply(self, edit: Edit) -> None:
        path = self.directory / edit.file
        text = path.read_text()
        if text.count(edit.old) != 1:
            raise SystemExit(f"{edit.file} has {text.count(edit.old)} times, not once: {edit.old!r}")
        path.write_text(text.replace(edit.old, edit.new))

    def _compile(self, files: list[Path]) -> None:
        # Bytecode is told from its source by the second: it must not be that of the text before.
        texts = [str(path) for path in files if path.suffix == ".py"]
        if texts:
            self.call("-m", "compileall", "-q", "-f", *texts)
        if any(path.suffix in (".c", ".h") for path in files):
            self.call("-c", BUILD, capture_output=True)

    def starts(self) -> str:
        """What is wrong with the program, if it is no more than broken."""
        done = self.call("-m", "sandbox_cli", "explain", "--driver", "none", "--", "true", check=False,
                         capture_output=True)
        return done.stderr if done.returncode else ""

    def test(self, row: Row, *flags: str, cache: Path) -> Outcome:
        """Run the tests of a row."""
        report = self.directory / "report.xml"
        report.unlink(missing_ok=True)
        files = [os.path.normpath(f"tests/behaviour/{test}") for test in row.tests]
        argv = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={report}",
                f"--basetemp={self.directory / 'basetemp'}", *flags, *files]
        argv += ["-k", row.only] if row.only else []
        argv += ["-m", "lab"] if any("/lab/" in file for file in files) else []
        environment = {**os.environ, "SANDBOX_TEST_DRIVERS": row.drivers, "XDG_CACHE_HOME": str(cache),
                       "PYTHONDONTWRITEBYTECODE": "1"}
        done = self.call(*argv, check=False, capture_output=True, env=environment, stdin=subprocess.DEVNULL)
        if not report.exists():
            return Outcome(0, [], [(done.stdout + done.stderr)[-2000:]])
        return _outcome(report)


def _outcome(report: Path) -> Outcome:
    failed, broken, passed = [], [], 0
    for case in ElementTree.parse(report).iter("testcase"):
        tags = {one.tag for one in case}
        name = f"{str(case.get('classname')).rpartition('.')[2]}::{case.get('name')}"
        if "failure" in tags:
            why = next(one.get("message") or "" for one in case if one.tag == "failure").strip().split("\n")[0]
            failed.append(f"{name} ({why[:120]})")
        elif "error" in tags:
            broken.append(name)
        passed += not tags & {"failure", "error", "skipped"}
    return Outcome(passed, failed, broken)


def noticed(copy: Copy, row: Row) -> tuple[bool, str]:
    """Whether the loss was noticed, and by which tests."""
    try:
        with tempfile.TemporaryDirectory(prefix="protections-cache-") as cache, copy.without(row.edits):
            problem = copy.starts()
            if problem:
                return False, f"BROKEN: {problem.strip().splitlines()[-1]}"
            found = copy.test(row, "--maxfail=1", f"--timeout={row.timeout}", cache=Path(cache))
    except subprocess.CalledProcessError as error:
        return False, f"BROKEN: {error.stderr}"
    clean_up(copy, row)
    if found.failed:
        return True, " ".join(found.failed)
    return False, f"NOT NOTICED: {found.passed} passed {' '.join(found.broken)}".rstrip()


def with_it(copy: Copy, row: Row) -> str:
    """What is wrong with the tests as long as the protection is there; once may be bad luck, of those that measure."""
    for _ in range(ATTEMPTS):
        found = copy.test(row, "--timeout=120", cache=copy.directory / "cache")
        if found.passed and not found.failed and not found.broken:
            return ""
    return f"NOT RUN: before, {found.passed} passed, not {' '.join(found.failed + found.broken)}"


def clean_up(copy: Copy, row: Row) -> None:
    """What a sandbox without a protection leaves: processes that have become ours, and on a lab their cgroups."""
    while pids := descendants(os.getpid()):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    if row.place == "container":
        copy.call("-m", "sandbox_cli", "gc", check=False, capture_output=True)


def work(place: str, rows: list[Row], directory: Path) -> bool:
    """Everything that belongs to a place; True when all was noticed."""
    assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    copy, good = Copy(directory), True
    for row in rows:
        problem = with_it(copy, row)
        seen, text = (False, problem) if problem else noticed(copy, row)
        good &= seen
        print(f"{row.case:<7}{row.taken}: {text}", flush=True)
    return good


def is_lab() -> bool:
    """We are in a container lab: the environment of its systemd says so."""
    return b"container=sandbox-lab\0" in Path("/proc/1/environ").read_bytes()


def inside(cases: list[str]) -> bool:
    """In the lab."""
    if not is_lab():
        raise SystemExit("this is no container lab: without protections, commands would change this machine")
    directory = Path(tempfile.mkdtemp(prefix="protections-", dir=LAB_FILES))
    try:
        directory.chmod(0o755)
        return work("container", _rows(cases, "container"), directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def outside(cases: list[str]) -> bool:
    """On this machine, which starts the lab."""
    good = True
    if _rows(cases, "container"):
        lab = [sys.executable, "-m", "sandbox_cli", "lab"]
        name = f"protections-{os.getpid()}"
        try:
            argv = [*lab, "run", "--engine", "container", "--name", name, "--", sys.executable, __file__, "--inside"]
            good = subprocess.run([*argv, *cases], cwd=ROOT, check=False, stdin=subprocess.DEVNULL).returncode == 0
        finally:
            subprocess.run([*lab, "down", name], cwd=ROOT, check=False, stderr=subprocess.DEVNULL)
    rows = _rows(cases, "host")
    if rows:
        with tempfile.TemporaryDirectory(prefix="protections-", dir="/var/tmp") as directory:
            os.chmod(directory, 0o755)
            good &= work("host", rows, Path(directory))
    return good


def _rows(cases: list[str], place: str) -> list[Row]:
    return [row for row in ROWS if row.place == place and (not cases or row.case in cases)]


def main(words: list[str]) -> int:
    """The exit code: 0 when every loss was noticed."""
    within, cases = words[:1] == ["--inside"], [word for word in words if word != "--inside"]
    if unknown := set(cases) - FORTY.keys():
        raise SystemExit(f"there is no case {', '.join(sorted(unknown))}; there are {' '.join(FORTY)}")
    if within:
        return 0 if inside(cases) else 1
    good = outside(cases)
    print("each loss was noticed" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
