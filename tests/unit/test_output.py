"""Files that a user asks for: what is refused, what is written, and what is left when that fails."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from sandbox.errors import SandboxError, SpecError
from sandbox.output import check_target, write_text


@pytest.mark.parametrize("flag", ["--json", "--html"])
@pytest.mark.parametrize("path", ["/nowhere/report", os.devnull, "/"])
def test_what_could_not_be_written_is_refused_by_the_name_of_its_flag(path: str, flag: str) -> None:
    with pytest.raises(SpecError, match=f"^{flag}: ") as caught:
        check_target(path, flag)
    assert caught.value.field == flag[2:]


def test_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("a longer text that was there before")
    write_text(str(path), "größer", "--html")
    assert path.read_bytes() == "größer".encode()


def test_a_planted_symlink_is_replaced(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "report.json"
    victim.write_text("precious")
    path.symlink_to(victim)
    write_text(str(path), "text", "--json")
    assert victim.read_text() == "precious"
    assert not path.is_symlink()
    assert path.read_text() == "text"
    assert sorted(os.listdir(tmp_path)) == ["report.json", "victim"]


def test_a_write_that_fails_midway_leaves_all_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, hard))  # Python ignores SIGXFSZ, so write(2) fails with EFBIG
    try:
        with pytest.raises(SandboxError, match=r"^--json: cannot write .*/report\.json: File too large"):
            write_text(str(path), "afterwards", "--json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["report.json"]
