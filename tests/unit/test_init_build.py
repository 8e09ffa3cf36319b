"""How sandbox-init is compiled."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox.init import build


@pytest.mark.requires("cc")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="bare.c has no system call for this CPU")
def test_it_needs_no_c_library(tmp_path: Path) -> None:
    """Fails where a function of the C library is used that bare.c lacks: the build takes the library then without a
    word, and every launch half a millisecond more."""
    flags, modules = build.WAYS[0]
    build.compile_to(tmp_path / "sandbox-init", modules, (*build.SMALL, *build.HARDENED, *flags))
