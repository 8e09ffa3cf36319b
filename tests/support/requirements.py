"""What a test can require of the machine with ``@pytest.mark.requires``, and whether this machine has it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

MUST_WORK = frozenset(os.environ.get("SANDBOX_MUST_WORK", "").split())
"""Names of requirements that this machine is known to meet: a test that misses one of them fails. In the lab, and
wherever a test that cannot run would mean that something is broken."""


def _mounted(kind: str) -> bool:
    return any(f" - {kind} " in line for line in Path("/proc/self/mountinfo").read_text().splitlines())


def _controllers_of_version_1() -> bool:
    return any(" - cgroup " in line and "memory" in line.rpartition(" - ")[2]
               for line in Path("/proc/self/mountinfo").read_text().splitlines())


def _disk() -> bool:
    device = os.stat("/").st_dev
    return os.path.exists(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")


def _command(name: str) -> Callable[[], bool]:
    import shutil
    from glob import glob

    places = ":".join([os.environ["PATH"], "/usr/sbin", *glob("/usr/lib/postgresql/*/bin")])
    return lambda: shutil.which(name, path=places) is not None


def _perf() -> bool:
    level = Path("/proc/sys/kernel/perf_event_paranoid")
    return _command("perf")() and level.exists() and int(level.read_text()) <= 2


def _maps_owners() -> bool:
    from sandbox.host import probe
    from sandbox.isolation.paths import may_shift

    host = probe()
    return may_shift(host.mount("/")[1], host)


def _makes_nodes() -> bool:
    held = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:"))
    return bool(int(held.split()[1], 16) >> 27 & 1)


def _ids_are_lent() -> bool:
    """Root can make up a user to lend them to."""
    from sandbox.isolation.lent import probe

    found = probe(os.geteuid())
    return os.geteuid() == 0 or bool(found.uids and found.gids)


def _landlock(name: str) -> Callable[[], bool]:
    def has_version() -> bool:
        from sandbox.isolation import landlock

        return (landlock.abi() or 0) >= int(getattr(landlock, name))

    return has_version


PROGRAMS = ("apt-get", "busybox", "cargo", "curl", "dpkg-deb", "fakeroot", "gcc", "gdb", "git", "go", "initdb", "javac",
            "make", "mcs", "mono", "nginx", "npm", "perl", "ping", "psql", "python3", "redis-cli",
            "redis-server", "Rscript", "ruby", "sqlite3", "ssh", "ssh-keygen", "sshd", "tar", "tmux", "vim")
"""Programs that are only tested where they are installed. Each is a requirement of that name."""


REQUIREMENTS: dict[str, tuple[str, Callable[[], bool]]] = {
    "root": ("not root", lambda: os.geteuid() == 0),
    "process1": ("the root directory of process 1 cannot be read", lambda: os.access("/proc/1/root", os.X_OK)),
    "cgroup1": ("no cgroup v1 tree has the memory controller", _controllers_of_version_1),
    "cgroup2": ("the memory controller is not on cgroup v2",
                lambda: _mounted("cgroup2") and not _controllers_of_version_1()),
    "cgroup2_tree": ("no cgroup2 file system is mounted", lambda: _mounted("cgroup2")),
    "swap": ("no swap", lambda: len(Path("/proc/swaps").read_text().splitlines()) > 1),
    "disk": ("the root file system is not on a disk", _disk),
    "idmap": ("the root file system cannot be mounted with other ids", _maps_owners),
    "mknod": ("no CAP_MKNOD", _makes_nodes),
    "cpus2": ("fewer than two CPUs", lambda: len(os.sched_getaffinity(0)) >= 2),
    "strace": ("no strace", _command("strace")),
    "uidmap": ("no newuidmap", _command("newuidmap")),
    "lent": ("/etc/subuid and /etc/subgid lend no ids to this user", _ids_are_lent),
    "bwrap": ("no bwrap", _command("bwrap")),
    "bash": ("no bash", _command("bash")),
    "cc": ("no C compiler", _command("cc")),
    "java": ("no Java compiler", _command("javac")),
    "node": ("no node", _command("node")),
    "chromium": ("no chromium", _command("chromium")),
    "scopes": ("the kernel's Landlock has no scopes (ABI 6, Linux 6.12)", _landlock("SCOPED")),
    "sockets": ("the kernel's Landlock has no sockets with a path (ABI 9, Linux 7.1)", _landlock("RESOLVING")),
    "oomd": ("no systemd-oomd", lambda: os.path.exists("/usr/lib/systemd/systemd-oomd")),
    "perf": ("no perf, or kernel.perf_event_paranoid is above 2", _perf),
    "user": ("root", lambda: os.geteuid() != 0),
    **{name: (f"no {name}", _command(name)) for name in PROGRAMS},
    "systemd": ("systemd does not run here", lambda: os.path.isdir("/run/systemd/system")),
}
"""For each name that the mark ``requires`` takes: the reason of a skip, and whether this machine meets it."""
