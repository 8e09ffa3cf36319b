"""How ``sandbox-init`` is compiled: by ``setup.py`` for use, by the tests with sanitizers. Needs a C compiler only."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

DIRECTORY = Path(__file__).resolve().parent
PARTS = ("wire", "ops", "record", "files", "process", "inheritance", "guard", "spawn", "watch", "thaw", "remove",
         "namespaces", "tool", "init", "inside", "mounts", "masks", "descendants", "workload", "priority", "privileges",
         "label")
PROGRAM = ("main", "adopt", *PARTS)

STRICT = ("-std=gnu17", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wshadow", "-Werror")
SMALL = ("-Os", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections", "-s")
HARDENED = ("-fstack-protector-strong", "-Wl,-z,relro,-z,now", "-Wl,-z,noexecstack")
SANITIZED = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")

# Without a C library, see bare.c: the stack protector's canary is a plain variable then, and a CPU of ours is needed.
BARE = ("-static", "-nostdlib", "-fno-pie", "-no-pie", "-mstack-protector-guard=global", "-fno-unwind-tables",
        "-fno-asynchronous-unwind-tables", "-Wl,--build-id=none")
STATIC = ("-static", "-D_FORTIFY_SOURCE=2")
DYNAMIC = ("-fPIE", "-pie", "-D_FORTIFY_SOURCE=2")
WAYS = ((BARE, (*PROGRAM, "bare")), (STATIC, PROGRAM), (DYNAMIC, PROGRAM))
"""From the smallest and quickest to what works everywhere."""


def build(target: Path) -> None:
    """Build ``sandbox-init`` for use, in the best way that this machine's compiler and libraries allow.

    :raises subprocess.CalledProcessError: the compiler said no to the last of them too.
    """
    *preferred, (flags, modules) = WAYS
    for better_flags, better_modules in preferred:
        with suppress(subprocess.CalledProcessError):
            compile_to(target, better_modules, (*SMALL, *HARDENED, *better_flags), stderr=subprocess.DEVNULL)
            return
    compile_to(target, modules, (*SMALL, *HARDENED, *flags))


def compile_to(target: Path, modules: Sequence[str], flags: Sequence[str], stderr: int | None = None) -> None:
    """Compile and link some of the sources here.

    :raises subprocess.CalledProcessError: the compiler said no.
    """
    compiler = shlex.split(os.environ.get("CC", "cc"))
    sources = [str(DIRECTORY / f"{module}.c") for module in modules]
    # Somebody may be running the old one, or building too: a new file leaves them theirs.
    fresh = target.with_name(f"{target.name}-{os.getpid()}")
    try:
        subprocess.run([*compiler, *STRICT, *flags, "-o", str(fresh), *sources], check=True, stderr=stderr)
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)
