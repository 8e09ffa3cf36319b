"""The whole suite: each part runs pytest where it belongs, and one report comes of them all.

Usage: suite.py [--tier quick|all] PART... [-- FLAG...], where the flags are for pytest; suite.py --table prints which
tests run where. ``SANDBOX_TEST_DRIVERS`` in the environment replaces the drivers of every part, ``SANDBOX_MUST_WORK``
what must work.

A part runs two tests at once (pytest-xdist), except what is marked ``alone``. Parts in a VM of the suite's own run
beside the others, which on two cores then run one test at a time, because the VM with an emulated CPU takes longest.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from support.selection import PLACES

ROOT = Path(__file__).resolve().parent.parent
NO_TESTS = 5
"""pytest's exit code when no test matches its flags."""
REPORT = ROOT / "build" / "tests.xml"
SANDBOX = [str(Path(sys.executable).with_name("sandbox")), "lab"]
AS_ROOT = [str(ROOT / ".ci" / "as-root")]
AS_USER = str(ROOT / "tests" / "as-user")
SUITE = ("tests/behaviour", "tests/kernel")
EMULATED = 10
"""How many times slower a VM is whose CPU is emulated: tests of many things at once do so many fewer there."""
TOGETHER = ("-n", "2", "--dist", "loadfile")
"""Flags of pytest: two tests at once; one that is ``alone`` waits for the others (support/turns.py)."""
WITHOUT_HYPOTHESIS = ("-p", "no:hypothesispytest")
"""Flags of pytest: no behaviour test uses that plugin, and to load it takes an emulated CPU some seconds."""
CORES = len(os.sched_getaffinity(0))


@dataclass(frozen=True, kw_only=True)
class Part:
    """One run of pytest.

    :param name: what it is called on the command line and in the report.
    :param paths: what pytest runs.
    :param flags: for pytest.
    :param together: two of its tests may run at once.
    :param must_work: requirements that this place meets, so that a skip for one of them is a failure.
    :param engine: of the lab it runs in; empty for this machine.
    :param image: of the lab; empty for the default.
    :param place: one of :data:`support.selection.PLACES`.
    :param prepare: shell scripts, each run once in a lab, as root, before pytest.
    :param directory: where pytest is started.
    :param user: who runs it, in a lab with a login session; empty for root.
    """

    name: str
    paths: tuple[str, ...] = SUITE
    flags: tuple[str, ...] = ()
    must_work: str = ""
    engine: str = ""
    image: str = ""
    place: str = "host"
    together: bool = True
    prepare: tuple[str, ...] = ()
    directory: str = str(ROOT)
    user: str = ""

    @property
    def lab(self) -> str:
        """The name of its lab; parts with the same engine share one."""
        return f"suite-{self.image or self.engine}-{os.getpid()}"

    @property
    def flags_of_lab(self) -> list[str]:
        """What names its lab on the command line of ``sandbox lab``."""
        return ["--engine", self.engine, "--name", self.lab, *(["--image", self.image] if self.image else [])]

    @property
    def root(self) -> list[str]:
        """What goes before a command line for which the part needs root: a VM does not."""
        return [] if self.engine == "vm" else AS_ROOT


IN_VM = "cgroup2 swap disk cpus2 strace bash systemd"
CGROUP = "cgroup2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "cgroup1"
PREPARE = """rm -rf /srv/tree; mkdir /srv/tree
tar -c --exclude=./.venv --exclude=./.git --exclude=./build --exclude=./.hypothesis --exclude=__pycache__ . |
    tar -x -C /srv/tree
for name in sandbox sandbox_cli; do
    ln -sfn /srv/tree/${name#sandbox_} /usr/local/lib/python3*/dist-packages/$name
done
python3 -m compileall -q /srv/tree/sandbox /srv/tree/cli /usr/local/lib/python3*/dist-packages >/dev/null
systemctl stop systemd-tmpfiles-clean.timer  # a mount comes and goes with it
udevadm settle; grep -q ^/dev /proc/swaps || swapon /dev/disk/by-id/virtio-swap
"""
"""In a VM. Over virtiofs each start of Python takes half as long again; a normal user would not even keep bytecode."""
LOGIN = """mkdir -p /run/systemd/system/user@.service.d
printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' >/run/systemd/system/user@.service.d/delegate.conf
systemctl unmask --runtime user@1000 user-runtime-dir@1000 2>/dev/null || true
loginctl enable-linger user; systemctl start user@1000
chown -R user /srv/tree/tests
"""
"""A user manager, with all controllers: by default it has cpu, memory and pids only. pytest keeps what it makes of the
tests' sources beside them."""
LOGOUT = """loginctl disable-linger user || true
systemctl stop user@1000 2>/dev/null || true
systemctl mask --runtime user@1000 user-runtime-dir@1000 2>/dev/null || true
"""
"""The user's manager looks at every mount that comes or goes: a tenth of an emulated CPU, which the tests can use. If
logind started it again, /run/user/1000 would be mounted during a test, which would seem to have left it."""
UNITS = tuple(f"tests/behaviour/test_{name}.py" for name in ("memory", "cpu", "tasks", "io", "units", "kernel_values",
                                                             "parity"))
"""What another version of systemd may do differently."""
LANDLOCK = ("tests/behaviour/test_secrets.py", "tests/behaviour/test_landlock.py")
"""What Landlock of a newer kernel closes."""
PARTS = {part.name: part for part in (
    Part(name="host", paths=("tests/unit", "tests/test_quality.py", *SUITE)),
    Part(name="user", place="user", user="tester", paths=("tests/behaviour",)),
    # Its / is an overlay, whose owners cannot be mapped; what tests write to must be elsewhere.
    Part(name="container", engine="container", place="container",
         flags=("--basetemp=/var/lib/sandbox-lab/tests",),
         must_work=f"root {CGROUP} cpus2 strace bash systemd"),
    Part(name="vm", engine="vm", place="vm", flags=("--timeout=400",),
         directory="/srv/tree", prepare=(PREPARE, LOGOUT), must_work=f"root {IN_VM} scopes oomd"),
    Part(name="rootless", engine="vm", place="rootless", flags=("--timeout=400",), user="user",
         directory="/srv/tree", prepare=(PREPARE, LOGIN), must_work=f"{IN_VM} scopes"),
    Part(name="bookworm", engine="vm", image="bookworm", place="vm", paths=UNITS, flags=("--timeout=400",),
         directory="/srv/tree", prepare=(PREPARE,), must_work=f"root {IN_VM}"),
    Part(name="sid", engine="vm", image="sid", place="vm", paths=(*UNITS, *LANDLOCK), flags=("--timeout=400",),
         directory="/srv/tree", prepare=(PREPARE,), must_work=f"root {IN_VM} scopes sockets"),
    Part(name="lab", paths=("tests/lab",), flags=("-m", "lab"), together=False),
    Part(name="tools", paths=("tests/lab",), flags=("-m", "tools"), together=False),
    Part(name="labels", paths=("tests/lab",), flags=("-m", "labels"), together=False),
)}


@dataclass
class Result:
    """What came of a part.

    :param code: pytest's exit code, or that of what should have started it.
    :param suite: pytest's report; None when there is none.
    """

    part: Part
    code: int
    seconds: float
    suite: ElementTree.Element | None
    bad: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        for case in self.cases():
            for outcome in case:
                message = (outcome.get("message") or "").strip().split("\n")[0][:160]
                if outcome.tag in ("failure", "error"):
                    self.bad.append(f"{case.get('classname')}::{case.get('name')} - {message}"[:300])
                elif outcome.tag == "skipped":
                    self.skipped[message] += 1

    @property
    def passed(self) -> int:
        """How many tests did what they should."""
        return len(list(self.cases())) - len(self.bad) - self.skipped.total()

    @property
    def good(self) -> bool:
        """It came to its end, and no test failed."""
        return self.code == 0 and self.suite is not None

    def cases(self) -> Iterator[ElementTree.Element]:
        """Every test."""
        if self.suite is not None:
            yield from self.suite.iter("testcase")


def run(parts: list[Part], tier: str, flags: list[str]) -> list[Result]:
    """The parts in a VM one after the other, and beside them the others one after the other.

    :param tier: ``quick`` or ``all``.
    :param flags: for pytest, of whoever started us.
    """
    lanes = [lane for lane in ([part for part in parts if part.engine != "vm"],
                               [part for part in parts if part.engine == "vm"]) if lane]
    with tempfile.TemporaryDirectory(prefix="sandbox-suite-") as directory:
        Path(directory).chmod(0o711)  # a part's user writes there, too
        suite = Suite(tier, flags, directory, single=len(lanes) == 1)
        try:
            with ThreadPoolExecutor(len(lanes)) as pool:
                # The first lane's output is shown as it is written; that of the second is kept until its part ends.
                begun = [pool.submit(suite.lane, lane, late=lane is not lanes[0]) for lane in lanes]
                try:
                    found = [result for one in begun for result in one.result()]
                finally:
                    suite.ended = True
        finally:
            for lab, root in {part.lab: part.root for part in parts if part.engine}.items():
                subprocess.run([*root, *SANDBOX, "down", lab], stderr=subprocess.DEVNULL, check=False)
    return sorted(found, key=lambda result: parts.index(result.part))


class Suite:
    """One run of some parts.

    :param directory: for what pytest writes.
    :param single: there is one lane only.
    """

    def __init__(self, tier: str, flags: list[str], directory: str, *, single: bool) -> None:
        self._tier, self._flags, self._directory, self._single = tier, flags, directory, single
        self._prepared = set[tuple[str, str]]()
        self.ended = False
        """True after an interrupt or an exception: no further part is started."""

    def lane(self, parts: list[Part], *, late: bool) -> list[Result]:
        """One part after the other.

        :param late: a part's output is printed at its end.
        """
        return [self._part(part, late=late) for part in parts]

    def _part(self, part: Part, *, late: bool) -> Result:
        begin, report = time.monotonic(), self._report(part)
        title = f"{f' {part.name} ':#^80}"
        code = 0 if self.ended else self._prepare(part)
        if self.ended or code:
            return Result(part, code, time.monotonic() - begin, None)
        together = TOGETHER if part.together and (part.engine == "vm" or self._single or CORES > 2) else ()
        argv = _command(part, self._tier, [*together, *self._flags, f"--junit-xml={report}"])
        with tempfile.TemporaryFile(dir=self._directory) as kept:
            if not late:
                print(title, flush=True)
            code = _call(argv, kept if late else None)
            if late:
                kept.seek(0)
                print(f"\n{title}\n{kept.read().decode(errors='replace')}", flush=True)
        return Result(part, 0 if code == NO_TESTS else code, time.monotonic() - begin, _read(part, report))

    def _prepare(self, part: Part) -> int:
        """Run those of the part's scripts that have not run in its lab before; the exit code."""
        for script in part.prepare:
            if (part.lab, script) not in self._prepared:
                self._prepared.add((part.lab, script))
                if code := _call(_inside(part, "sh", "-ec", script), None):
                    return code
        return 0

    def _report(self, part: Part) -> str:
        """Where pytest writes its report: in a lab that is a file of the lab."""
        if part.engine:
            return f"/tmp/tests-{part.name}.xml"
        path = Path(self._directory, f"tests-{part.name}.xml")
        if part.user:
            path.touch()
            path.chmod(0o666)
        return str(path)


def _call(argv: list[str], output: IO[bytes] | None) -> int:
    """Run a command and wait for its end; Ctrl-C in the terminal interrupts it, too.

    :param output: takes what it prints; our own stdout when None.
    """
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output,
                          stderr=None if output is None else subprocess.STDOUT) as process:
        return process.wait()


def _command(part: Part, tier: str, flags: list[str]) -> list[str]:
    """The command line of a part: pytest, in what it is to run in."""
    in_vm, slower = part.engine == "vm", 1
    if in_vm and _is_emulated(part):
        slower = EMULATED
    elif in_vm:
        tier = "all"  # with KVM that takes no longer than on this machine
    python = "python3" if in_vm else sys.executable
    drivers = os.environ.get("SANDBOX_TEST_DRIVERS", ",".join(PLACES[part.place]))
    chosen = {"SANDBOX_TEST_TIER": tier, "SANDBOX_TEST_PLACE": part.place, "SANDBOX_TEST_DRIVERS": drivers}
    settings = chosen | {"SANDBOX_TEST_SLOWER": str(slower),
                         "SANDBOX_MUST_WORK": os.environ.get("SANDBOX_MUST_WORK", part.must_work)}
    paths = _files_with_tests(part, chosen) if in_vm else part.paths
    pytest = ["env", *(f"{name}={value}" for name, value in settings.items()),
              *([AS_USER] if part.user and not part.engine else ()), python, "-m", "pytest", *paths,
              "-p", "no:cacheprovider", *(WITHOUT_HYPOTHESIS if in_vm else ()), *part.flags, *flags]
    if not part.engine:
        return [*AS_ROOT, *pytest]
    if part.user:
        pytest = ["su", "-", part.user, "-c", f"cd {part.directory} && exec {shlex.join(pytest)}"]
    return _inside(part, "sh", "-ec", 'cd "$1"; shift; exec "$@"', "sh", part.directory, *pytest)


def _files_with_tests(part: Part, chosen: dict[str, str]) -> list[str]:
    """Return the test files with at least one test to run in this part. To load the others takes an emulated CPU 20 s.
    Files with most tests come first, so that both workers of pytest-xdist end at about the same time.

    :param chosen: the environment that selects the tests.
    """
    collect = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-qq", *part.paths]
    listed = subprocess.run(collect, cwd=ROOT, env=os.environ | chosen, stdout=subprocess.PIPE, text=True, check=False)
    if listed.returncode != 0:
        return [*part.paths]  # pytest says there what is wrong
    counts = [line.rpartition(": ") for line in listed.stdout.splitlines() if ": " in line]
    return [file for file, *_ in sorted(counts, key=lambda count: -int(count[2]))]


def _inside(part: Part, *argv: str) -> list[str]:
    return [*part.root, *SANDBOX, "run", *part.flags_of_lab, "--", *argv]


def _is_emulated(part: Part) -> bool:
    """Boots the lab, if it is not up, to see how."""
    up = [*SANDBOX, "up", *part.flags_of_lab]
    subprocess.run(up, stdout=subprocess.DEVNULL, check=False)
    labs = subprocess.run([*SANDBOX, "ls", "--json"], stdout=subprocess.PIPE, check=True).stdout
    return any(lab["name"] == part.lab and lab["detail"] == "tcg" for lab in json.loads(labs))


def _read(part: Part, path: str) -> ElementTree.Element | None:
    """What pytest has written; nothing when it has not."""
    show = ["cat", path]
    done = subprocess.run(_inside(part, *show) if part.engine else show, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        return None
    suite = next(ElementTree.fromstring(done.stdout).iter("testsuite"))
    suite.set("name", part.name)
    return suite


def summary(results: list[Result]) -> Iterator[str]:
    """The report for people."""
    for result in results:
        for line in result.bad:
            yield f"FAILED {result.part.name}: {line}"
        if result.suite is None or result.code not in (0, 1):
            yield f"FAILED {result.part.name}: exit code {result.code}{', no report' * (result.suite is None)}"
    for result in results:
        for reason, number in result.skipped.most_common():
            yield f"skipped {result.part.name}: {number} x {reason}"
    yield f"{'part':<12}{'passed':>8}{'failed':>8}{'skipped':>8}{'seconds':>9}"
    for result in results:
        yield (f"{result.part.name:<12}{result.passed:>8}{len(result.bad):>8}{result.skipped.total():>8}"
               f"{result.seconds:>9.0f}")


def write(results: list[Result]) -> None:
    """The report for programs: one file, a test suite for each part."""
    root = ElementTree.Element("testsuites")
    root.extend(result.suite for result in results if result.suite is not None)
    REPORT.parent.mkdir(exist_ok=True)
    ElementTree.ElementTree(root).write(REPORT, encoding="utf-8", xml_declaration=True)


def main(words: list[str]) -> int:
    """The exit code: 0 when every part passed."""
    if words == ["--table"]:
        settings = {"PYTHONPATH": "tests", "SANDBOX_TEST_DRIVERS": ",".join(PLACES["vm"])}
        return subprocess.run([sys.executable, "-m", "pytest", "-p", "support.selection_table", "--collect-only", "-qq",
                               "tests/behaviour"], cwd=ROOT, env=os.environ | settings, check=False).returncode
    tier = "all"
    if words[:1] == ["--tier"]:
        tier, words = words[1], words[2:]
    cut = words.index("--") if "--" in words else len(words)
    if not words[:cut] or set(words[:cut]) - PARTS.keys() or tier not in ("quick", "all"):
        raise SystemExit("usage: suite.py [--tier quick|all] PART... [-- FLAG...], or suite.py --table; the parts are "
                         + ", ".join(PARTS))
    begin = time.monotonic()
    results = run([PARTS[name] for name in words[:cut]], tier, words[cut + 1:])
    write(results)
    good = all(result.good for result in results)
    print("#" * 80, *summary(results), f"{'passed' if good else 'FAILED'} in {time.monotonic() - begin:.0f} s; "
          f"all of it is in {REPORT.relative_to(ROOT)}", sep="\n")
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
