"""``sandbox-init``, the native guard and init, and the format of the plan that it reads."""

from __future__ import annotations

import os

from ..errors import SandboxError


def path() -> str:
    """Path of the built ``sandbox-init``.

    :raises SandboxError: it was not built.
    """
    file = os.path.join(os.path.dirname(__file__), "sandbox-init")
    if not os.access(file, os.X_OK):
        raise SandboxError(f"{file} is missing", hint="build it: make")
    return file
