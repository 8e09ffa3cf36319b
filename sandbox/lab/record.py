"""What is known of each lab on this machine: a directory below the runtime directory, and the lock on it.

``NAME/lock`` is held by the lab's keeper for as long as it lives, so a directory whose lock can be taken belongs to
nobody. ``NAME/state.json`` says what the lab is; the sockets and the log of its console are beside it.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from contextlib import contextmanager
from dataclasses import asdict

from ..errors import SandboxError, SpecError
from ..stdlib import TYPE_CHECKING, dataclass, suppress

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
"""What a lab may be called. Its name is part of socket paths, which have room for 108 bytes."""
LOGS = ("keeper.log", "qemu.log", "virtiofsd.log", "inside/agent.log", "inside/console.log", "console.log")
PATIENCE = 20.0
"""Seconds a lab may take to go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """One lab, from the moment somebody asks for it.

    :param name: its name, unique per user.
    :param engine: ``container`` or ``vm``.
    :param image: name of the image; ``host`` when it is this machine's own root.
    :param cgroups: absolute paths of the cgroups it lives in, if it has some.
    :param detail: for people, e.g. how the VM is run.
    :param since: when it was asked for, seconds since the epoch.
    """

    name: str
    engine: str
    image: str
    cgroups: tuple[str, ...] = ()
    detail: str = ""
    since: float = 0.0

    @property
    def directory(self) -> str:
        """Where its sockets and files are."""
        return f"{runtime_directory()}/{self.name}"

    def save(self) -> None:
        """Write its state file, all or nothing."""
        import json

        path = f"{self.directory}/state.json"
        with open(f"{path}.new", "w") as file:
            json.dump(asdict(self), file)
        os.replace(f"{path}.new", path)

    def last_words(self) -> str:
        """The ends of its logs, on one line: why it did not boot."""
        ends = []
        for name in LOGS:
            with suppress(FileNotFoundError), open(f"{self.directory}/{name}", errors="replace") as file:
                lines = [line.strip() for line in file if line.strip()]
                ends += [f"{name}: {' / '.join(lines[-3:])}"] if lines else []
        return "; ".join(ends) or "it said nothing"


def runtime_directory() -> str:
    """Where labs are kept while they run: ours, and closed to others.

    :raises SandboxError: somebody else made it.
    """
    path = _runtime_path()
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)
    status = os.lstat(path)
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise SandboxError(f"{path} is not ours alone (owner {status.st_uid}, mode {status.st_mode & 0o7777:o})",
                           hint="remove it")
    return path


def _runtime_path() -> str:
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.geteuid() == 0:
        return "/run/sandbox-lab"
    if own.startswith("/") and os.access(own, os.W_OK):
        return f"{own}/sandbox-lab"
    return f"/tmp/sandbox-lab-{os.geteuid()}"


def cache_directory() -> str:
    """Where images are kept, below the XDG cache directory."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    path = f"{cache if cache.startswith('/') else os.path.expanduser('~/.cache')}/sandbox-lab"
    os.makedirs(path, 0o700, exist_ok=True)
    return path


def check_name(name: str) -> str:
    """``name``, if a lab may be called that.

    :raises SpecError: it may not.
    """
    if not NAME.fullmatch(name):
        raise SpecError(f"--name {name!r}: up to 31 of a-z, 0-9 and -, not beginning with -", field="name")
    return name


def load(name: str) -> Lab | None:
    """The record of the lab called ``name``; None when there is none, or it is not written yet."""
    import json

    try:
        with open(f"{runtime_directory()}/{name}/state.json") as file:
            fields = json.load(file)
        return Lab(**fields | {"cgroups": tuple(fields["cgroups"])})
    except (OSError, ValueError, TypeError):
        return None


def names() -> list[str]:
    """Every lab there is a directory of, dead or alive."""
    if not os.path.isdir(_runtime_path()):
        return []
    return sorted(name for name in os.listdir(runtime_directory()) if NAME.fullmatch(name))


def claim(name: str) -> int | None:
    """The lock of ``name`` as an inheritable fd, its directory made if need be; None when somebody holds it."""
    directory = f"{runtime_directory()}/{name}"
    while True:
        os.makedirs(directory, 0o700, exist_ok=True)
        with suppress(FileNotFoundError):
            fd = os.open(f"{directory}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if not _lock(fd):
                os.close(fd)
                return None
            if _is_at(fd, f"{directory}/lock"):
                return fd
            os.close(fd)  # it went while we waited


def is_held(name: str) -> bool:
    """Somebody alive has the lab called ``name``."""
    try:
        fd = os.open(f"{runtime_directory()}/{name}/lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _lock(fd)
    finally:
        os.close(fd)


def wait_until_free(name: str) -> bool:
    """Wait for the keeper of ``name`` to end; False when it takes longer than :data:`PATIENCE`."""
    deadline = time.monotonic() + PATIENCE
    while is_held(name):  # flock(2) has no time limit
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@contextmanager
def exclusive(path: str) -> Iterator[None]:
    """Hold a lock file while something is made that must not be made twice at once."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(fd: int, path: str) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(fd), os.stat(path))
    return False
