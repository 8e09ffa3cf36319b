"""How sandbox-init is compiled."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox.init import build


@pytest.mark.requires("cc")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="bare.c has no system call for this CPU")
def test_it_needs_no_c_library(tmp_path: Path) -> None:
    """Fails if a source uses a function of the C library that bare.c does not define. The build then silently links the
    C library, and each launch takes half a millisecond longer."""
    flags, modules = build.WAYS[0]
    build.compile_to(tmp_path / "sandbox-init", modules, (*build.SMALL, *build.HARDENED, *flags))
