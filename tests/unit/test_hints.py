"""Hints for commands that failed: only where the sandbox certainly keeps something from the command."""

from __future__ import annotations

import os

import pytest

from sandbox.hints import hint
from sandbox.spec import Spec

UNCONFINED = {"security_opt": ("seccomp=unconfined",)}
MOBY = {"security_opt": ("seccomp=moby",)}


@pytest.mark.parametrize(("argv", "wishes", "code", "number", "flag"), [
    ("./game", {}, None, 31, "seccomp=moby"),
    ("sh -c ./game", {}, 159, None, "seccomp=moby"),
    ("./game", MOBY, None, 31, ""),
    ("./game", UNCONFINED, 159, None, ""),
    ("./game", {}, 1, None, ""),
    ("chromium --headless", {}, 1, None, "--security-opt seccomp=unconfined"),
    ("/usr/bin/google-chrome", {}, None, 5, "--no-sandbox"),
    ("chromium --no-sandbox", {}, 1, None, ""),
    ("chromium --headless", UNCONFINED, 1, None, ""),
    ("chromium --headless", {}, 0, None, ""),
    ("apt-get install -y vim", {}, 100, None, "--overlay --network host --cap-add ALL --unmask /etc"),
    ("dpkg -i vim.deb", {}, 2, None, "--overlay --network host --cap-add ALL --unmask /etc"),
    ("apt-get install -y vim", {"overlay": True}, 100, None, ""),
    ("apt-get download vim", {}, 100, None, ""),
    ("perf stat true", {}, 255, None, "--cap-add PERFMON"),
    ("perf stat true", {"cap_add": ("CAP_PERFMON",)}, 255, None, ""),
    ("perf list", {}, 255, None, ""),
    ("echo chromium", {}, 1, None, ""),
])
def test_hints(argv: str, wishes: dict[str, object], code: int | None, number: int | None, flag: str,
               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    found = hint(Spec(argv=tuple(argv.split()), **wishes), code, number)  # type: ignore[arg-type]
    assert flag in found
    assert bool(flag) == bool(found)


def test_a_user_cannot_have_an_overlay_on_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert hint(Spec(argv=("apt-get", "install", "vim")), 100, None) == ""
