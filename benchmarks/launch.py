"""What a launch costs: this library and program beside other ways to run ``/bin/true``, interleaved in one run.

Every launch is from the call to the death of the command with everything removed again. The library launches make
cgroups with a memory, a CPU and a task limit, read the limits back, and read the usage at the end.

Two groups take turns: what is over in two milliseconds, and what takes longer. A program that runs for tens of them
leaves the processor's caches cold and the kernel busy with taking down its cgroups and network namespaces, which would
be counted against whoever comes next.

Other programs get pipes as standard streams: crun changes the owner of what it is given.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from timing import Budget, arguments, interleave, median, save, show

TRUE = "/bin/true"
LIMITS = ("-m", "512m", "--cpus", "1", "--pids-limit", "64")
BWRAP = "bwrap --unshare-all --ro-bind / / --proc /proc --dev /dev"
BARE = "python3 -S -I -c pass"
PROGRAM = "sandbox run, 3 limits"
LIBRARY = {"library, 3 limits": (0, 0), "library, 3 limits, 300 MB parent": (300, 0),
           "library, 3 limits, 32-thread parent": (0, 32)}

WORKER = """
import sandbox, sys, threading, time
megabytes, threads = map(int, sys.argv[1:])
ballast = bytearray(megabytes << 20)
for position in range(0, len(ballast), 4096):
    ballast[position] = 1
for _ in range(threads - 1):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
with sandbox.Launcher() as launcher:
    for _ in sys.stdin:
        begin = time.perf_counter()
        report = launcher.run(["/bin/true"], memory="512M", cpus=1, pids_limit=64)
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
WITHOUT_UNIFIED = ("unshare", "--mount", "sh", "-c", 'umount /sys/fs/cgroup/unified; exec "$@"', "sh")


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
    """Milliseconds from posix_spawn(3) of ``argv`` to its death, with pipes as standard streams."""
    path = shutil.which(argv[0]) or argv[0]

    def launch() -> float:
        pipes = [os.pipe() for _ in range(3)]
        ends = [pipes[0][0], pipes[1][1], pipes[2][1]]
        actions = [(os.POSIX_SPAWN_DUP2, end, number) for number, end in enumerate(ends)]
        begin = time.perf_counter()
        pid = os.posix_spawn(path, argv, os.environ, file_actions=actions)
        status = os.waitpid(pid, 0)[1]
        cost = time.perf_counter() - begin
        for end in ends[1:]:
            os.close(end)
        words = os.read(pipes[2][0], 2000)
        for fd in {fd for pipe in pipes for fd in pipe} - set(ends[1:]):
            os.close(fd)
        if status:
            raise OSError(f"{' '.join(argv)}: status {status}: {os.fsdecode(words)}")
        return cost * 1000

    return launch


def by_subprocess() -> float:
    """The same through Python's own module."""
    begin = time.perf_counter()
    subprocess.run([TRUE], check=True, stdin=subprocess.PIPE)
    return (time.perf_counter() - begin) * 1000


def runtime(name: str, directory: Path) -> list[str]:
    """The command line of an OCI runtime with the host's ``/usr`` as root file system and no limits."""
    bundle = directory / name
    root = bundle / "root"
    root.mkdir(parents=True)
    for entry in ("bin", "lib", "lib64"):
        (root / entry).symlink_to(f"usr/{entry}")
    for entry in ("usr", "proc", "dev", "sys"):
        (root / entry).mkdir()
    subprocess.run([name, "spec"], cwd=bundle, check=True, stdin=subprocess.PIPE)
    config = json.loads((bundle / "config.json").read_text())
    config["process"] |= {"args": [TRUE], "terminal": False}
    config["root"] = {"path": str(root), "readonly": True}
    config["mounts"].append({"destination": "/usr", "type": "none", "source": "/usr", "options": ["bind", "ro"]})
    (bundle / "config.json").write_text(json.dumps(config))
    return [name, "run", "--bundle", str(bundle), f"sandbox-benchmark-{os.getpid()}"]


def peers(directory: Path, stack: ExitStack) -> dict[str, Callable[[], float]]:
    """The other programs that are installed and work here."""
    candidates: dict[str, Callable[[], float]] = {}
    if shutil.which("bwrap"):
        candidates[BWRAP] = spawn([*BWRAP.split(), TRUE])
    if shutil.which("runc"):
        candidates["runc run, no limits"] = spawn(runtime("runc", directory))
    if shutil.which("crun"):
        # It refuses to run where cgroup v1 and v2 are mounted side by side, so it does not get to see v2 there.
        hybrid = WITHOUT_UNIFIED if os.path.ismount("/sys/fs/cgroup/unified") else ()
        command = [*hybrid, sys.executable, "-c", PEER_WORKER, str(Path(__file__).parent), *runtime("crun", directory)]
        candidates["crun run, no limits"] = stack.enter_context(worker(command))
    found = {}
    for name, launch in candidates.items():
        try:
            launch()
            found[name] = launch
        except OSError as error:
            print(f"left out: {error}", file=sys.stderr)
    return found


def budgets(values: dict[str, list[float]]) -> list[Budget]:
    """What a launch may cost, relative to others in the same run."""
    found = []
    if BWRAP in values:
        bound = 0.8 * median(values[BWRAP])
        found += [Budget(f"{name} <= 0.8 x bwrap", median(values[name]), bound, "ms") for name in LIBRARY]
    bound = 12 * median(values[BARE])
    return [*found, Budget(f"{PROGRAM} <= 12 x {BARE}", median(values[PROGRAM]), bound, "ms")]


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
        short = {
            f"posix_spawn {TRUE}": spawn([TRUE]),
            f"subprocess {TRUE}": by_subprocess,
            **{name: stack.enter_context(worker([sys.executable, "-c", WORKER, *map(str, shape)]))
               for name, shape in LIBRARY.items()},
            **{name: launch for name, launch in others.items() if name == BWRAP},
        }
        long = {
            BARE: spawn([os.path.realpath(sys.executable), "-S", "-I", "-c", "pass"]),
            PROGRAM: spawn([str(program), "run", *LIMITS, "--", TRUE]),
            **{name: launch for name, launch in others.items() if name != BWRAP},
        }
        values, first = interleave(short, options.rounds)
        for found, more in zip((values, first), interleave(long, options.rounds), strict=True):
            found.update(more)
    assert owner("/dev/null") == before, "another program changed the machine's /dev/null"
    kept = budgets(values)
    show(f"Launch of {TRUE}, {options.rounds} rounds", "ms", values, kept, first)
    save(options.json, "ms", values, kept)


if __name__ == "__main__":
    main()
