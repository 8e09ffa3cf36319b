"""Files that a user asks for, e.g. by ``--json FILE``: refused before a run, or written whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress

from .errors import SandboxError, SpecError


def check_target(path: str, flag: str) -> None:
    """Refuse a file that is known to fail, before a run rather than after it.

    :param flag: what it was given to, e.g. ``--json``.
    :raises SpecError: no such directory, or something that must not be replaced by a file, such as ``/dev/null``.
    """
    field = flag.removeprefix("--")
    if not os.path.isdir(os.path.dirname(path) or "."):
        raise SpecError(f"{flag}: {path!r} is in no directory", field=field, hint="make the directory first")
    if os.path.exists(path) and not os.path.isfile(path):
        raise SpecError(f"{flag}: {path!r} is not a regular file", field=field,
                        hint="use - for stdout" if flag == "--json" else f"{flag} page.html")


def write_text(path: str, text: str, flag: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all.

    A new file is written beside ``path`` and renamed over it, so a symlink that someone planted there is replaced, not
    followed.

    :param flag: what ``path`` was given to, e.g. ``--json``.
    :raises SpecError: as :func:`check_target`.
    :raises SandboxError: naming the path.
    """
    check_target(path, flag)
    data = text.encode()
    temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            write_all(fd, data)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            os.unlink(temporary)
        raise SandboxError(f"{flag}: cannot write {path}: {error.strerror}",
                           hint=f"give {flag} a file in a directory you may write to") from error


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data``, in as many steps as the kernel makes of it.

    :raises OSError: when it cannot be written.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view):]
