"""Defaults from a file, profiles, and which of them wins."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from support.sandbox_run import Program
from support.warm_program import warm

sandbox = warm
pytestmark = [pytest.mark.matter("program"), pytest.mark.drivers("none")]

CONFIG = """
[limits]
timeout = 50

[profile.quick]
timeout = "40s"
ulimit = ["nofile=77"]
env = ["CI=1"]
"""


@pytest.fixture
def caller(tmp_path: Path) -> dict[str, Any]:
    """Options for a runner whose user has the configuration above."""
    directory = tmp_path / "config" / "sandbox"
    directory.mkdir(parents=True)
    (directory / "config.toml").write_text(CONFIG)
    return {"env": {**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "config")}}


def test_limits_of_the_file_are_defaults(sandbox: Program, caller: dict[str, Any]) -> None:
    assert sandbox("--", "true", **caller).limit("--timeout")["asked"] == "50 s"
    assert sandbox("--timeout", "30", "--", "true", **caller).limit("--timeout")["asked"] == "30 s"


def test_profile(sandbox: Program, caller: dict[str, Any]) -> None:
    done = sandbox("--profile", "quick", "--", "sh", "-c", "ulimit -n; echo $CI", **caller)
    assert done.out == b"77\n1\n"
    assert done.limit("--timeout")["asked"] == "40 s"
    done = sandbox("--profile", "quick", "--timeout", "30", "--", "true", **caller)
    assert done.limit("--timeout")["asked"] == "30 s"


@pytest.mark.parametrize("text", ["[limits]\nmemroy = '1g'\n", "[limts]\nmemory = '1g'\n",
                                  "[limits]\nmemory = 'lots'\n", "[limits\n", "driver = 'no-such'\n"])
def test_mistakes_name_the_file(sandbox: Program, caller: dict[str, Any], text: str) -> None:
    file = Path(caller["env"]["XDG_CONFIG_HOME"], "sandbox/config.toml")
    file.write_text(text)
    done = sandbox.other("run", "--", "true", **caller)
    assert (done.code, len(done.err.splitlines())) == (2, 1), done.err
    if "driver" not in text:
        assert str(file) in done.err


def test_driver_of_the_environment(sandbox: Program, caller: dict[str, Any]) -> None:
    caller["env"]["SANDBOX_DRIVER"] = "none"
    done = sandbox.other("run", "-m", "64m", "--best-effort", "--json", "-", "--", "true", **caller)
    assert json.loads(done.out)["driver"] == "none"
