"""Where a command runs: its directory, shown from the host, and its cgroup."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress

HOST = "/host"
"""Where the host's files are inside."""
UPPERS = "/var/lib/sandbox-lab"
SYSTEM = ("/bin", "/boot", "/dev", "/etc", "/host", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys",
          "/usr", "/var/lib")
"""Never covered by the host's directory of that name, the lab needs its own."""


def enter(directory: str) -> None:
    """Go to the host's directory at the same path inside, writable but with a throw-away layer on top.

    :raises OSError: it could not be mounted.
    """
    if is_system(directory) or not os.path.isdir(HOST + directory):
        os.chdir(directory if os.path.isdir(directory) else "/")
        return
    os.makedirs(UPPERS, exist_ok=True)
    with open(f"{UPPERS}/lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _cover(next(filter(_is_mounted, _parents(directory)), directory))
        os.chdir(directory)


def _cover(directory: str) -> None:
    """Mount the layers; anew if nobody is there, for an overlay does not notice what changes below it."""
    if _is_mounted(directory) and not _mount("umount", directory):
        return
    # virtiofs keeps names for a second; in a container there is none, and no right to do this.
    with suppress(OSError), open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("2")
    name = directory.strip("/").replace("-", "--").replace("/", "-")
    upper, work = f"{UPPERS}/{name}/upper", f"{UPPERS}/{name}/work"
    for path in (directory, upper, work):
        os.makedirs(path, exist_ok=True)
    lower = (HOST + directory).replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    if not _mount("mount", "-t", "overlay", "-o", options, "sandbox-lab", directory):
        raise OSError(0, f"the host's {directory} could not be mounted")


def is_system(directory: str) -> bool:
    """The lab needs its own of it."""
    return directory == "/" or any(directory == one or directory.startswith(f"{one}/") for one in SYSTEM)


def _parents(directory: str) -> Iterator[str]:
    while directory != "/":
        yield directory
        directory = os.path.dirname(directory)


def _is_mounted(directory: str) -> bool:
    with open("/proc/self/mountinfo") as lines:
        return any(line.split(" ")[4] == directory and " - overlay sandbox-lab " in line for line in lines)


def _mount(*argv: str) -> bool:
    import subprocess

    return subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          check=False).returncode == 0


def own_group() -> str:
    """The directory of our cgroup in a pure v2 tree; empty elsewhere, where a command may stay beside us."""
    with open("/proc/self/cgroup") as lines:
        paths = [line.strip().removeprefix("0::") for line in lines if line.startswith("0::")]
    if not paths or not os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        return ""
    return "/sys/fs/cgroup" + paths[0]


def new_group() -> str:
    """A cgroup for one command beside ours: below a delegated cgroup there may be no processes in between."""
    own = own_group()
    if not own:
        return ""
    group = f"{os.path.dirname(own)}/command-{os.getpid()}"
    os.makedirs(group, exist_ok=True)
    return group


def join(group: str) -> None:
    """Move ourselves into a cgroup; nothing for the empty name."""
    if group:
        fd = os.open(f"{group}/cgroup.procs", os.O_WRONLY)
        try:
            os.write(fd, b"0")
        finally:
            os.close(fd)


def remove_group() -> None:
    """Remove what :func:`new_group` made in this process, if nothing of the command runs there any more."""
    if own := own_group():
        with suppress(OSError):
            os.rmdir(f"{os.path.dirname(own)}/command-{os.getpid()}")


def move_aside() -> None:
    """Leave the unit's own cgroup, so that controllers can be enabled there (v2)."""
    own = own_group()
    if own:
        os.makedirs(f"{own}/agent", exist_ok=True)
        join(f"{own}/agent")


def install_project() -> None:
    """Make the packages this file belongs to importable inside, unless the lab's root is the host's own."""
    package = os.path.abspath(__file__).removesuffix("/lab/inside/place.py")
    if not package.startswith(f"{HOST}/"):
        return
    import site

    project = os.path.dirname(package).removeprefix(HOST)
    enter(project)
    os.chdir("/")
    target = site.getsitepackages()[0]
    for name, folders in (("sandbox", ("sandbox",)), ("sandbox_cli", ("sandbox_cli", "cli"))):
        for folder in folders:
            if os.path.isdir(f"{project}/{folder}") and not os.path.lexists(f"{target}/{name}"):
                os.symlink(f"{project}/{folder}", f"{target}/{name}")
