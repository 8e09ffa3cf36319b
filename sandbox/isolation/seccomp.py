"""The filter of system calls: which profile, and its program, compiled once and kept.

The profile that is used by default, ``profile/default.json``, allows what programs without privileges call. libseccomp
takes milliseconds to make a program of it, so programs are kept: in this process, and in a file of the user's own. Such
a file says what it was made from, word for word, and is used only when that is the very profile at hand.
"""

from __future__ import annotations

import os

from ..errors import SpecError
from ..spec import Spec
from ..spelling import spelled
from ..stdlib import TYPE_CHECKING, Any, cache, suppress
from ..steps import Phase, Step, Where
from . import capabilities, security

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FORMAT = 3
"""Of the files and of what is put around libseccomp's program; raised when either changes."""
MAX_FILES = 64
"""When there are more, the profiles of the past are forgotten."""
SHIPPED = (security.DEFAULT, security.MOBY)
"""Profiles that come with the package; ``moby`` has the rules of docker's default."""
NEST = "SANDBOX_NEST"
"""Stands for ``--nest`` among the capabilities that rules depend on. The kernel has no such capability, so a program
that reads the profile without knowing the word leaves those rules out."""
NEW_LISTENER = 0x8
"""``SECCOMP_FILTER_FLAG_NEW_LISTENER``: the filter asks instead of refusing, see :mod:`.refusals`."""
PRIME = 2**61 - 1
LIBRARIES = ("/lib/{machine}-linux-gnu/libseccomp.so.2", "/usr/lib64/libseccomp.so.2", "/usr/lib/libseccomp.so.2",
             "/lib64/libseccomp.so.2", "/lib/libseccomp.so.2")
"""Where distributions have it. It is not loaded when a file serves; which one it is, its time and size say."""

_programs: dict[str, bytes] = {}


def steps(spec: Spec, others: Iterable[Step] = ()) -> Iterator[Step]:
    """The last steps before the execve: labels, no_new_privs, and the filter.

    :param others: what needs no_new_privs too, and calls that the filter may refuse.
    """
    yield from security.label_steps(spec)
    yield _step("no_new_privs")
    yield from others
    source = security.profile(spec)
    if source != security.UNCONFINED:
        realises = ("nest" if spec.nest else "") if source == security.DEFAULT else "security_opt"
        yield _step("seccomp", (source, *conditions(spec)), NEW_LISTENER if spec.seccomp_log else 0,
                    realises="seccomp_log" if spec.seccomp_log else realises)


def conditions(spec: Spec) -> tuple[str, ...]:
    """The capabilities that rules of a profile may depend on, and :data:`NEST`."""
    return (*capabilities.wanted(spec), *((NEST,) if spec.nest else ()))


def _step(op: str, *args: int | tuple[str, ...], realises: str = "") -> Step:
    return Step(op=op, args=args, phase=Phase.EXEC, where=Where.WORKLOAD, realises=realises)


def bind(step: Step) -> Step:
    """A ``seccomp`` step with the program in place of the profile.

    :raises SpecError: the profile cannot be read, or is none.
    :raises Unsupported: it has to be compiled, and there is no libseccomp; or refusals cannot be listed here.
    """
    words, flags = step.args
    assert isinstance(words, tuple)
    make = _shipped_program if words[0] in SHIPPED else program
    made: Any = make(words[0], words[1:])  # bytes are in no plan, only on the wire
    if flags == NEW_LISTENER:
        from .refusals import asking

        made = asking(made, words[0])
    return step._replace(args=(made, flags))


def program(source: str, names: tuple[str, ...]) -> bytes:
    """The filter as an array of ``struct sock_filter``, for the kernel and the machine that this runs on.

    :param source: one of :data:`SHIPPED`, or the path of a profile.
    :param names: what rules may depend on, see :func:`conditions`.
    :raises SpecError: the profile cannot be read, or is none.
    :raises Unsupported: it has to be compiled, and there is no libseccomp.
    """
    text = profile(source)
    uname = os.uname()
    key = "\n".join((f"sandbox seccomp {FORMAT}", uname.machine, uname.release, _library(uname.machine),
                     " ".join(names), text))
    found = _programs.get(key)
    if found is None:
        found = _programs[key] = _load(key) or _make(key, text, source, names)
    return found


@cache
def _shipped_program(source: str, names: tuple[str, ...]) -> bytes:
    """A profile that does not change while we run is not even looked at again."""
    return program(source, names)


def profile(source: str) -> str:
    """The text of a profile.

    :param source: one of :data:`SHIPPED`, or the path of a profile.
    :raises SpecError: it cannot be read.
    """
    return _read_shipped(source) if source in SHIPPED else _read(source)


def shipped(name: str) -> str:
    """The path of a profile that comes with the package."""
    return os.path.join(os.path.dirname(__file__), "profile", f"{name}.json")


def _make(key: str, text: str, source: str, names: tuple[str, ...]) -> bytes:
    from .libseccomp import compile_rules
    from .rules import Machine, settle

    uname = os.uname()
    made = compile_rules(settle(text, source, Machine(names, uname.release, uname.machine)), source)
    _save(key, made)
    return made


@cache
def _read_shipped(name: str) -> str:
    return _read(shipped(name))


def _read(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:
            text = file.readall().decode()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SpecError(f"{spelled('security_opt', f'seccomp={path}')}: cannot read it: {reason}", field="security_opt",
                        hint="give a profile in docker's JSON format, or unconfined") from error
    return text


def _library(machine: str) -> str:
    for pattern in LIBRARIES:
        with suppress(OSError):
            status = os.stat(pattern.format(machine=machine))
            return f"{status.st_mtime_ns} {status.st_size}"
    return ""


# -- the files

def _directory() -> str:
    """The XDG cache directory's part that is ours; empty when the environment names none."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not base.startswith("/"):
        home = os.environ.get("HOME", "")
        base = f"{home}/.cache" if home.startswith("/") else ""
    return f"{base}/sandbox/seccomp" if base else ""


def _open_directory(path: str) -> int | None:
    """Only a directory that nobody else may write to, or look into, is trusted."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    if _is_private(fd):
        return fd
    os.close(fd)
    return None


def _is_private(fd: int) -> bool:
    status = os.fstat(fd)
    return status.st_uid == os.geteuid() and not status.st_mode & 0o077


def _sum(data: bytes) -> int:
    """A checksum that needs no import: that alone would cost as much as all the rest."""
    return int.from_bytes(data, "little") % PRIME


def _name(key: bytes) -> str:
    return f"{_sum(key):016x}"


def _load(key: str) -> bytes | None:
    """The program that was saved under ``key``, if there is one, whole, and of our own making."""
    directory = _open_directory(_directory())
    if directory is None:
        return None
    data = key.encode()
    try:
        fd = os.open(_name(data), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        try:
            content = os.read(fd, os.fstat(fd).st_size) if _is_private(fd) else b""
        finally:
            os.close(fd)
    except OSError:
        return None
    finally:
        os.close(directory)
    made = content[len(_head(data, b"")):]
    return made if made and content == _head(data, made) + made else None


def _head(key: bytes, made: bytes) -> bytes:
    """What stands before the program: its length, a sum over it, and what it was made from."""
    return len(made).to_bytes(4, "little") + _sum(made).to_bytes(8, "little") + key


def _save(key: str, made: bytes) -> None:
    """Keep a program, whole or not at all. That it cannot be kept is no reason not to run."""
    path = _directory()
    if not path or not _may_make(path):
        return
    data = key.encode()
    with suppress(OSError):
        os.makedirs(path, mode=0o700, exist_ok=True)
        directory = _open_directory(path)
        if directory is None:
            return
        try:
            _forget(directory)
            _write(directory, _name(data), _head(data, made) + made)
        finally:
            os.close(directory)


def _may_make(path: str) -> bool:
    """The nearest directory that is there is our own: root must leave nothing in the home of somebody else."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return os.stat(path).st_uid == os.geteuid()


def _forget(directory: int) -> None:
    names = os.listdir(directory)
    for name in names if len(names) > MAX_FILES else ():
        os.unlink(name, dir_fd=directory)


def _write(directory: int, name: str, content: bytes) -> None:
    temporary = f"{name}.{os.getpid()}.{os.urandom(4).hex()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        written = os.write(fd, content)
    finally:
        os.close(fd)
    if written == len(content):
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    else:
        os.unlink(temporary, dir_fd=directory)
