"""The workload's standard streams: it must be able to open them again, as /dev/stdin, and to find its terminal."""

from __future__ import annotations

import os
import stat

from .errors import StepError
from .spelling import spelled
from .stdlib import TYPE_CHECKING, suppress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def give(streams: Sequence[int | None], uid: int, gid: int) -> None:
    """Make the workload the owner of those of its streams that :func:`given` names.

    :param streams: stdin, stdout and stderr; None for the launcher's own.
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
            if is_pipe or (fd is not None and os.isatty(fd)):
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


def _name(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")
