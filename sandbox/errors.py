"""Exceptions. Each knows the exit code of the command line and the next thing to try.

::

    SandboxError                     message, hint, exit_code (125)
    ├── SpecError (ValueError)       the wish itself is wrong                     2
    ├── Unsupported                  this host or driver cannot do it             125
    │   └── DriverUnavailable
    ├── StepError (OSError)          a planned step failed                        125
    │   ├── CgroupError              a cgroup file or directory
    │   ├── BusError                 systemd did not do what it was asked over D-Bus
    │   ├── MountError               a mount
    │   └── NamespaceError           clone3, id maps
    ├── ExecError (OSError)          found but not runnable 126, absent 127
    ├── LimitExceeded                only from Report.check()
    └── CleanupError                 something was left behind

A limit that was hit is an outcome, not an exception. A message names an option by the keyword of :func:`sandbox.run`;
in the program, by the flag (:mod:`sandbox.spelling`).
"""

from __future__ import annotations

import os


class SandboxError(Exception):
    """Anything this package raises on purpose.

    :param message: what failed, with the file or property and the value; one line.
    :param hint: the next thing to do or to type; empty when there is none.
    """

    exit_code = 125

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} (hint: {self.hint})" if self.hint else self.message


class SpecError(SandboxError, ValueError):
    """A value is malformed or out of range, or two wishes contradict each other.

    :param field: the field it is about, e.g. ``limits.memory``; empty when there is none.
    """

    exit_code = 2

    def __init__(self, message: str, *, field: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.field = field


class Unsupported(SandboxError):
    """The wish is well formed, but this host or this driver cannot fulfil it."""


class DriverUnavailable(Unsupported):
    """The chosen driver cannot be used on this host at all."""


class StepError(SandboxError, OSError):
    """A step of the plan failed.

    :param errno: the kernel's error number, 0 when it was not a system call that failed.
    :param number: the step's number in the plan, from 1, as ``sandbox explain`` prints it.
    """

    def __init__(self, message: str, *, errno: int = 0, number: int = 0, hint: str = "") -> None:
        text = f"{message}: {os.strerror(errno)}" if errno else message
        SandboxError.__init__(self, text, hint=hint)
        self.errno = errno
        self.number = number


class CgroupError(StepError):
    """A cgroup directory or file could not be made, read, written or removed."""


class BusError(StepError):
    """systemd cannot be reached, or refused what it was asked for over D-Bus."""


class MountError(StepError):
    """A mount failed."""


class NamespaceError(StepError):
    """The namespaces could not be created."""


class ExecError(SandboxError, OSError):
    """The command could not be executed.

    :param errno: why ``execve`` failed.
    """

    def __init__(self, message: str, *, errno: int, exit_code: int, hint: str = "") -> None:
        SandboxError.__init__(self, message, hint=hint)
        self.errno = errno
        self.exit_code = exit_code


class LimitExceeded(SandboxError):
    """Raised by :meth:`sandbox.report.Report.check` when the run did not end well."""


class CleanupError(SandboxError):
    """Something could not be removed after the run.

    :param leftovers: paths that are still there.
    """

    def __init__(self, message: str, *, leftovers: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.leftovers = leftovers
