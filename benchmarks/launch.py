"""What a launch costs: this library and program beside other ways to run ``/bin/true``, interleaved in one run.

Every launch is from the call to the death of the command with everything removed again. The library launches isolate
as every run does: namespaces, a file system made for it, the filter of system calls, no capabilities. And they make
cgroups with a memory, a CPU and a task limit, read the limits back, and read the usage at the end. bwrap, with all its
namespaces, has neither cgroups nor a filter.

Groups take turns: the library beside bwrap, what else is over in two milliseconds, and what takes longer. A program
that runs for tens of them leaves the processor's caches cold and the kernel busy with taking down its cgroups and
network namespaces, which would be counted against whoever comes next.

Where systemd runs, its two drivers are measured beside the cgroupfs driver and beside systemd-run. A Launcher that is
kept open has the connection and the delegated unit, so that they are not counted. Beside systemd-run, which makes a
unit and nothing else, the namespaces are shared and there is no filter.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from timing import Budget, Values, arguments, interleave, median, save, show

from sandbox.errors import SandboxError
from sandbox.teach import bench_programs
from sandbox.teach.bench_launch import Streams

TRUE = "/bin/true"
WITH_SYSTEMD = os.path.isdir("/run/systemd/system")
LIMITS = ("-m", "512m", "--cpus", "1", "--pids-limit", "64")
BWRAP = "bwrap --unshare-all --ro-bind / / --proc /proc --dev /dev"
BARE = "python3 -S -I -c pass"
SCRIPT = "python3 -c pass"
"""A script that does nothing. Its interpreter loads ``site``, which a script needs to find the library."""
PROGRAM = "sandbox run, 3 limits"
FIRST = "python3 -c 'import sandbox; sandbox.run(...)', 3 limits"
FIRST_RUN = "import sandbox; sandbox.run(['/bin/true'], driver='cgroupfs', memory='512M', cpus=1, pids_limit=64)"
PLAIN = "library, 3 limits"
LIBRARY = {PLAIN: (0, 0), "library, 3 limits, 300 MB parent": (300, 0), "library, 3 limits, 32-thread parent": (0, 32)}
SCOPE, DELEGATED = f"{PLAIN}, systemd scope, namespaces shared", f"{PLAIN}, delegated"
BESIDE = f"{PLAIN}, beside delegated"
SYSTEMD_RUN = "systemd-run --scope, 3 limits"
SHARED = ("network=host", "pid=host", "ipc=host", "uts=host", "userns=host", "cgroupns=host",
          "security_opt=seccomp=unconfined")
"""What is left without all that systemd-run --scope does not do either: a file system made for the run."""
PROPERTIES = ("-pMemoryMax=512M", "-pCPUQuota=100%", "-pTasksMax=64")

WORKER = """
import sandbox, sys, threading, time
driver, megabytes, threads = sys.argv[1], *map(int, sys.argv[2:4])
shared = dict(word.split("=", 1) for word in sys.argv[4:])
ballast = bytearray(megabytes << 20)
for position in range(0, len(ballast), 4096):
    ballast[position] = 1
for _ in range(threads - 1):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
with sandbox.Launcher(driver=driver) as launcher:
    for _ in sys.stdin:
        begin = time.perf_counter()
        report = launcher.run(["/bin/true"], memory="512M", cpus=1, pids_limit=64, **shared)
        cost = time.perf_counter() - begin
        assert report.exit_code == 0, report.why
        assert [limit.enforced for limit in report.limits] == [True] * 3, report.limits
        print(cost * 1000, flush=True)
"""


PEER_WORKER = """
import sys
sys.path.insert(0, sys.argv[1])
from launch import spawn
launch = spawn(sys.argv[2:])
for _ in sys.stdin:
    print(launch(), flush=True)
"""
WITHOUT_UNIFIED = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /sys/fs/cgroup/unified; exec "$@"', "sh")


@contextmanager
def worker(argv: list[str]) -> Iterator[Callable[[], float]]:
    """A process that launches when told to and says how many milliseconds it took."""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        tell, answers = process.stdin, process.stdout

        def launch() -> float:
            tell.write("go\n")
            tell.flush()
            line = answers.readline()
            if not line:
                raise OSError(f"{argv[0]} {argv[1]} ended: see above")
            return float(line)

        yield launch
        tell.close()


def spawn(argv: list[str]) -> Callable[[], float]:
    """Milliseconds from posix_spawn(3) of ``argv`` to its death."""
    launch = bench_programs.spawn(argv, Streams())
    return lambda: launch().total * 1000


def by_subprocess() -> float:
    """The same through Python's own module."""
    begin = time.perf_counter()
    subprocess.run([TRUE], check=True, stdin=subprocess.PIPE)
    return (time.perf_counter() - begin) * 1000


def library(driver: str, megabytes: int = 0, threads: int = 0, *wishes: str) -> list[str]:
    """A process that launches through the library."""
    return [sys.executable, "-c", WORKER, driver, str(megabytes), str(threads), *wishes]


def runtime(name: str, directory: Path) -> list[str]:
    """The command line of an OCI runtime with the host's own directories as root file system and no limits."""
    bundle = bench_programs.bundle(name, directory / name, [TRUE])
    return [name, "run", "--bundle", str(bundle), f"sandbox-benchmark-{os.getpid()}"]


def through_systemd(stack: ExitStack) -> dict[str, Callable[[], float]]:
    """What asks systemd for a unit each time."""
    if not WITH_SYSTEMD:
        print("left out: systemd and delegated: systemd is not running", file=sys.stderr)
        return {}
    return {SCOPE: stack.enter_context(worker(library("systemd", 0, 0, *SHARED))),
            SYSTEMD_RUN: spawn(["systemd-run", "--scope", "--quiet", "--collect", *PROPERTIES, TRUE])}


def delegated(rounds: int) -> tuple[Values, Values]:
    """Launches below a delegated unit, beside those without.

    Not in turns with the others: such a unit keeps controllers enabled, which makes scopes cheaper for systemd.
    """
    with ExitStack() as stack:
        drivers = {BESIDE: "cgroupfs", DELEGATED: "delegated"}
        return interleave({name: stack.enter_context(worker(library(driver))) for name, driver in drivers.items()},
                          rounds)


def peers(directory: Path, stack: ExitStack) -> dict[str, Callable[[], float]]:
    """The other programs that are installed and work here."""
    candidates: dict[str, Callable[[], float]] = {}
    if shutil.which("bwrap"):
        candidates[BWRAP] = spawn([*BWRAP.split(), TRUE])
    else:
        print("left out: bwrap, and the budgets beside it: apt install bubblewrap", file=sys.stderr)
    if shutil.which("runc"):
        candidates["runc run, no limits"] = spawn(runtime("runc", directory))
    if shutil.which("crun"):
        # It refuses to run where cgroup v1 and v2 are mounted side by side: an empty directory hides v2 from it.
        hybrid = WITHOUT_UNIFIED if os.path.ismount("/sys/fs/cgroup/unified") else ()
        command = [*hybrid, sys.executable, "-c", PEER_WORKER, str(Path(__file__).parent), *runtime("crun", directory)]
        candidates["crun run, no limits"] = stack.enter_context(worker(command))
    found = {}
    for name, launch in candidates.items():
        try:
            launch()
            found[name] = launch
        except (OSError, SandboxError) as error:
            print(f"left out: {error}", file=sys.stderr)
    return found


def budgets(values: dict[str, list[float]]) -> list[Budget]:
    """What a launch may cost, relative to others in the same run."""
    found = []
    if BWRAP in values:
        found += [Budget(f"{name} <= 1.0 x bwrap", median(values[name]), median(values[BWRAP]), "ms")
                  for name in LIBRARY]
    if SCOPE in values:
        found += [Budget(f"{SCOPE} <= 0.5 x systemd-run --scope", median(values[SCOPE]),
                         0.5 * median(values[SYSTEMD_RUN]), "ms"),
                  Budget(f"{DELEGATED} <= 1.1 x cgroupfs", median(values[DELEGATED]), 1.1 * median(values[BESIDE]),
                         "ms")]
    launch = median(values[PLAIN])
    return [*found, *(Budget(f"{name} <= {times} x {python} + {PLAIN}", median(values[name]),
                             times * median(values[python]) + launch, "ms")
                      for name, times, python in ((PROGRAM, 4, BARE), (FIRST, 3, SCRIPT)))]


def owner(path: str) -> tuple[int, int, int]:
    """Whose it is, and its mode."""
    facts = os.stat(path)
    return facts.st_uid, facts.st_gid, facts.st_mode


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__.splitlines()[0], 100)
    program = Path(sys.executable).with_name("sandbox")
    before = owner("/dev/null")
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        others = peers(Path(directory), stack)
        isolated = {
            **{name: stack.enter_context(worker(library("cgroupfs", *shape))) for name, shape in LIBRARY.items()},
            **{name: launch for name, launch in others.items() if name == BWRAP},
        }
        short = {
            f"posix_spawn {TRUE}": spawn([TRUE]),
            f"subprocess {TRUE}": by_subprocess,
            **through_systemd(stack),
        }
        long = {
            BARE: spawn([os.path.realpath(sys.executable), "-S", "-I", "-c", "pass"]),
            SCRIPT: spawn([sys.executable, "-c", "pass"]),
            PROGRAM: spawn([str(program), "run", "--driver", "cgroupfs", *LIMITS, "--", TRUE]),
            FIRST: spawn([sys.executable, "-c", FIRST_RUN]),
            **{name: launch for name, launch in others.items() if name != BWRAP},
        }
        found = [interleave(group, options.rounds) for group in (isolated, short, long)]
    if WITH_SYSTEMD:
        found.append(delegated(options.rounds))
    values, first = ({name: row for part in parts for name, row in part.items()} for parts in zip(*found, strict=True))
    assert owner("/dev/null") == before, "another program changed the machine's /dev/null"
    kept = budgets(values)
    show(f"Launch of {TRUE}, {options.rounds} rounds", "ms", values, kept, first)
    save(options.json, "ms", values, kept)


if __name__ == "__main__":
    main()
