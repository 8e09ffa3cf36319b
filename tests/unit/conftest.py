"""Fixtures that several unit tests share, and Hypothesis without its clocks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from sandbox.isolation import seccomp

# On a loaded machine everything takes long.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture
def seccomp_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory of compiled filters of system calls: the test's own, without programs kept in memory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(seccomp, "_programs", {})
    yield tmp_path / "sandbox" / "seccomp"


@pytest.fixture
def default_filter(seccomp_cache: Path) -> bytes:
    """The compiled default profile of system calls."""
    return seccomp.program("default", ())
