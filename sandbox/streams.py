"""The workload's standard streams: it must be able to open them again, as /dev/stdin, and to find its terminal."""

from __future__ import annotations

import os
import stat

from .errors import SpecError, StepError
from .spelling import spelled
from .stdlib import TYPE_CHECKING, suppress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def give(streams: Sequence[int | None], uid: int, gid: int) -> None:
    """Make the workload the owner of those of its streams that :func:`given` names.

    :param streams: stdin, stdout and stderr, None for the launcher's own; after them, other files that it gets.
    :param uid: as seen from outside.
    """
    for number in given(streams):
        fd = streams[number]
        found = number if fd is None else fd
        with suppress(OSError):  # it is of another user namespace: then it only cannot be opened again
            os.fchown(found, uid, -1 if os.isatty(found) else gid)


def given(streams: Sequence[int | None]) -> Iterator[int]:
    """Which of the streams are the workload's: pipes, and a terminal that was made for it.

    A named pipe is somebody's file, and a terminal of the launcher's stays its own.
    """
    for number, fd in enumerate(streams):
        found = number if fd is None else fd
        with suppress(OSError):  # it is closed
            is_pipe = stat.S_ISFIFO(os.fstat(found).st_mode) and _name(found).startswith("pipe:")
            if is_pipe or (fd is not None and number < 3 and os.isatty(fd)):
                yield number


def terminal(stdin: int | None) -> str:
    """The path of the terminal that is the workload's stdin.

    :raises StepError: it is none.
    """
    try:
        return os.ttyname(0 if stdin is None else stdin)
    except OSError as error:
        raise StepError(f"{spelled('tty')}: stdin of the command is no terminal", errno=error.errno or 0,
                        hint="give one to start(), e.g. the second fd of os.openpty()") from error


def preserved(first: int, last: int) -> Iterator[int]:
    """Yield the fds from ``first`` to ``last`` that are open and not close-on-exec.

    :raises SpecError: ``last`` is not one of them, or one of them is a directory.
    """
    for fd in range(first, last + 1):
        try:
            mode, is_passed_on = os.fstat(fd).st_mode, os.get_inheritable(fd)
        except OSError:
            is_passed_on = False
        if is_passed_on:
            if stat.S_ISDIR(mode):
                raise directory(spelled("preserve_fds"), "preserve_fds", fd)
            yield fd
        elif fd == last:
            raise SpecError(f"{spelled('preserve_fds', last - first + 1)}: fd {last} is not open",
                            field="preserve_fds", hint=f"it stands for the fds {first} to {last}")


def directory(name: str, field: str, fd: int) -> SpecError:
    """Return the error for a directory, from which the command could get to the host's root by fchdir(2) and ``..``.

    :param name: what the message calls the keyword or flag that has given the fd.
    :param field: the keyword.
    """
    return SpecError(f"{name}: file descriptor {fd} is a directory, by which the command could leave the "
                     "sandbox", field=field, hint=f"to show a directory inside, use {spelled('volume', 'DIR:DIR')}")


def _name(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")
