"""What the suite looks at on the machine, before and after each test: nothing may stay, nothing may change."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

STATE = Path("/run/sandbox" if os.geteuid() == 0 else f"{os.environ.get('XDG_RUNTIME_DIR', '/nonexistent')}/sandbox")
SLOWER = int(os.environ.get("SANDBOX_TEST_SLOWER", "1"))
"""How many times slower than usual this machine is: fewer runs fit into a test's time, and an end takes longer."""


def eventually(condition: Callable[[], object], *, seconds: float = 30.0) -> bool:
    """Wait for what gives no event; long, as only a failure takes it all, and a busy machine takes some."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def undisturbed(run: Callable[[], T], disturbed: Callable[[T], bool]) -> T:
    """The first of five runs that no other work held up, or the last: such work takes time away, and gives none."""
    for _ in range(5):
        if not disturbed(done := run()):
            break
    return done


def cgroup_mounts() -> Iterator[tuple[str, str, str]]:
    """Mount point, type and options of each cgroup tree."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split()[:3]
        if kind in ("cgroup", "cgroup2"):
            yield left.split()[4], kind, options


def cgroups(name: str = "") -> set[str]:
    """Directories called ``sandbox-NAME``, or like a unit of that name, of any sandbox if no name is given."""
    wanted = f"sandbox-{name}"
    units = (wanted, f"{wanted}.scope", f"{wanted}.service")
    found = set()
    for mount, _, _ in cgroup_mounts():
        found |= {f"{directory}/{one}" for directory, one in _cgroups_below(mount)
                  if (one in units if name else one.startswith(wanted) and not one.startswith("sandbox-lab"))}
    return found


def _cgroups_below(directory: str) -> Iterator[tuple[str, str]]:
    """Parent and name of every cgroup below ``directory``, but for what is in a lab."""
    try:
        if os.stat(directory).st_nlink == 2:
            return  # it has no child; to list its 60 files would take longer than this one call
        names = [entry.name for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
    except OSError:  # it has gone
        return
    for name in names:
        if not name.startswith("sandbox-lab-"):
            yield directory, name
            yield from _cgroups_below(f"{directory}/{name}")


def cgroup_file(name: str, file: str) -> Path:
    """The kernel file in the sandbox's cgroup, whichever tree has it; the deepest one if its unit has it, too."""
    return next(path for group in sorted(cgroups(name), key=len, reverse=True) if (path := Path(group, file)).exists())


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as one:
        one.bind(("", 0))
        return int(one.getsockname()[1])


def own_address() -> str:
    """An address of this machine that is not on its loopback device."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(("192.0.2.254", 9))
        except OSError:
            return "127.0.0.2"  # a machine without a network has that one
        return str(one.getsockname()[0])


def holders(driver: str) -> int:
    """How many processes of ours are in the cgroup with the limits: a systemd unit must not be empty."""
    return {"systemd": 1, "service": 2}.get(driver, 0)


def charged(driver: str) -> int:
    """Return how many bytes a driver adds to a memory limit, for the sandbox's own processes in the cgroup."""
    return 512 << 10 if driver == "service" else 0


def own_cgroup(controller: str) -> Path:
    """Our own cgroup directory in the v1 tree of ``controller``."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            mount = next(mount for mount, kind, options in cgroup_mounts()
                         if kind == "cgroup" and controller in options.split(","))
            return Path(mount + path)
    raise LookupError(controller)


def new_cgroups(controller: str) -> Path:
    """The directory in which sandboxes get their cgroups in the tree of ``controller``, on v1 and v2."""
    from sandbox.host import probe

    tree = probe().hierarchy(controller)
    if tree is None or tree.parent is None:
        raise LookupError(controller)
    return Path(tree.mount + tree.parent)


def status(pid: int | str) -> dict[str, str]:
    """``/proc/PID/status``; empty when the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def alive(pid: int) -> bool:
    """The process runs: it is there and no zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # a third of the time that `status` takes
            return file.read().rpartition(b")")[2].split()[0] not in b"ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def descendants(pid: int) -> set[int]:
    """Every living process below ``pid``."""
    found: set[int] = set()
    queue = [pid]
    while queue:
        below = {child for child in children(queue.pop()) if alive(child)}
        found |= below
        queue += below
    return found


def named(pids: set[int], name: str) -> set[int]:
    """Those of ``pids`` whose ``comm`` is ``name``."""
    return {pid for pid in pids if status(pid).get("Name") == name}


def reap_orphans() -> None:
    """Take the status of children that were not ours to begin with: pytest is a subreaper while the suite runs."""
    for pid in children(os.getpid()):
        if status(pid).get("State", "").startswith("Z"):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def children(pid: int) -> set[int]:
    """Children of every thread of ``pid``, zombies too."""
    found: set[int] = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found.update(map(int, file.read().split()))
    return found


NAMED_BY = re.compile(r"(?:sandbox-)?[a-z]+([0-9]+)-[0-9]")
"""A name as :func:`support.sandbox_run.names` makes it, of a sandbox or its cgroup: the pytest that chose it."""


def is_of_another_pytest(name: str) -> bool:
    """The sandbox, or cgroup, of this name was made by another pytest that runs here."""
    made = NAMED_BY.match(name)
    return made is not None and int(made[1]) != os.getpid() and alive(int(made[1]))


@dataclass(frozen=True)
class Snapshot:
    """Everything a sandbox may leave or change."""

    cgroups: frozenset[str]
    mounts: frozenset[str]
    state: frozenset[str]
    processes: frozenset[int]
    devices: frozenset[tuple[str, int, int, int]]

    @classmethod
    def take(cls) -> Snapshot:
        mounts = (line.split(" ", 3)[3] for line in Path("/proc/self/mountinfo").read_text().splitlines())
        return cls(cgroups=frozenset(cgroups()), mounts=frozenset(mounts),
                   state=frozenset(os.listdir(STATE)) if STATE.is_dir() else frozenset(),
                   processes=frozenset(descendants(os.getpid())), devices=frozenset(_devices()))

    def differences(self) -> set[str]:
        """What is there now and was not before, or has changed; nothing that another pytest has given a name."""
        now = Snapshot.take()
        return {*(f"cgroup {path}" for path in now.cgroups - self.cgroups
                  if not any(map(is_of_another_pytest, path.split("/")))),
                *(f"mount {line}" for line in now.mounts ^ self.mounts if not _is_of_another_worker(line)),
                *(f"state file {name}" for name in now.state - self.state if not is_of_another_pytest(name)),
                *(f"process {pid}" for pid in now.processes - self.processes),
                *(f"device {facts}" for facts in now.devices ^ self.devices)}

    def left(self) -> list[str]:
        """What differs, and goes on to differ: what belongs to others of this machine goes by and by, while theirs and
        ours need not be gone at the same moment."""
        left = self.differences()

        def is_empty() -> bool:
            left.intersection_update(self.differences())
            return not left

        if not left or eventually(is_empty):
            return []
        return [f"{one} {status(one.split()[1]).get('Name')}" if one.startswith("process") else one
                for one in sorted(left)]


def _is_of_another_worker(mount: str) -> bool:
    """The mount is in the directory of another worker of this pytest (pytest-xdist)."""
    own = f"/popen-{os.environ.get('PYTEST_XDIST_WORKER')}/"
    return "/popen-gw" in mount and own not in mount


def _devices() -> Iterator[tuple[str, int, int, int]]:
    for entry in os.scandir("/dev"):
        if not entry.is_symlink() and not entry.is_dir():
            facts = entry.stat()
            yield entry.path, facts.st_uid, facts.st_gid, facts.st_mode
