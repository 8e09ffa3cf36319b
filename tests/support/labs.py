"""Labs as tests use them: through the command line."""

from __future__ import annotations

import os
import subprocess

from support.sandbox_run import SANDBOX


def sandbox_lab(*words: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    """``sandbox lab WORDS...`` with an empty stdin, its output captured."""
    settings = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": 600, "check": False} | options
    return subprocess.run([*SANDBOX, "lab", *words], **settings)  # type: ignore[call-overload,no-any-return]


class Lab:
    """A lab of a test's own.

    :param engine: ``container`` or ``vm``.
    :param image: of the VM; empty for the default.
    """

    def __init__(self, engine: str, image: str = "", name: str = "") -> None:
        self.engine = engine
        self.name = name or f"test-{engine}{image and '-'}{image}-{os.getpid()}"
        self.flags = ["--name", self.name, "--engine", engine, *(["--image", image] if image else [])]

    def argv(self, *words: str) -> list[str]:
        return [*SANDBOX, "lab", "run", *self.flags, "--", *words]

    def run(self, *words: str, **options: object) -> subprocess.CompletedProcess[bytes]:
        """``sandbox lab run -- WORDS...``"""
        return sandbox_lab("run", *self.flags, "--", *words, **options)

    def out(self, *words: str) -> str:
        """What a command prints; it must succeed."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().strip()

    def sh(self, script: str) -> str:
        return self.out("sh", "-ec", script)

    def down(self) -> None:
        assert sandbox_lab("down", self.name).returncode in (0, 2)
