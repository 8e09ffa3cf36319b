"""Files that a user asks for, e.g. by ``--json FILE``: refused before a run, or written whole or not at all."""

from __future__ import annotations

import os
import stat

from .errors import SandboxError, SpecError
from .stdlib import suppress

STDOUT = "-"


class Target:
    """A file that is written when the run is over.

    Its directory is opened before: a command that may write above it could put a symlink in its place meanwhile, and
    would have us write to where that leads.

    :param path: the file, or ``-`` for standard output.
    :param flag: what it was given to, e.g. ``--json``.
    :raises SpecError: no such directory, or something that must not be replaced by a file, such as ``/dev/null``.
    """

    def __init__(self, path: str, flag: str) -> None:
        self._path, self._flag = path, flag
        self._directory = -1
        if path == STDOUT:
            return
        directory, self._name = os.path.split(path)
        field = flag.removeprefix("--")
        try:
            self._directory = os.open(directory or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            if not os.fstat(self._directory).st_nlink:  # the working directory, which was removed
                raise FileNotFoundError
        except OSError as error:
            raise SpecError(f"{flag}: {path!r} is in no directory", field=field,
                            hint="make the directory first") from error
        if not self._name or not self._may_replace():
            raise SpecError(f"{flag}: {path!r} is not a regular file", field=field,
                            hint="use - for stdout" if flag == "--json" else f"{flag} page.html")

    def _may_replace(self) -> bool:
        try:
            return stat.S_ISREG(os.stat(self._name, dir_fd=self._directory).st_mode)
        except OSError:  # a symlink to nowhere is replaced like any other
            return True

    def write(self, text: str) -> None:
        """Write ``text`` as UTF-8, whole or not at all.

        A new file is written beside the old one and renamed over it, so a symlink that someone planted there is
        replaced, not followed.

        :raises SandboxError: naming the path.
        """
        if self._path == STDOUT:
            try:
                write_all(1, text.encode())
            except OSError as error:
                raise SandboxError(f"{self._flag}: cannot write to standard output: {error.strerror}",
                                   hint=f"give {self._flag} a file") from error
            return
        temporary = f"{self._name}.{os.getpid()}.{os.urandom(4).hex()}"
        try:
            self._make(temporary, text.encode())
            os.replace(temporary, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except OSError as error:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=self._directory)
            raise SandboxError(f"{self._flag}: cannot write {self._path}: {error.strerror}",
                               hint=f"give {self._flag} a file in a directory you may write to") from error

    def _make(self, name: str, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, 0o666, dir_fd=self._directory)
        try:
            write_all(fd, data)
        finally:
            os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data``, in as many steps as the kernel makes of it.

    :raises OSError: when it cannot be written.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view):]
