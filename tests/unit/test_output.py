"""Files that a user asks for: what is refused, what is written, and what is left when that fails."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from sandbox.errors import SandboxError, SpecError
from sandbox.output import Target


@pytest.mark.parametrize("flag", ["--json", "--html"])
@pytest.mark.parametrize("path", ["/nowhere/report", os.devnull, "/"])
def test_what_could_not_be_written_is_refused_by_the_name_of_its_flag(path: str, flag: str) -> None:
    with pytest.raises(SpecError, match=f"^{flag}: ") as caught:
        Target(path, flag)
    assert caught.value.field == flag[2:]


def test_a_working_directory_that_was_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(SpecError, match=r"^--json: 'report' is in no directory"):
        Target("report", "--json")


def test_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("a longer text that was there before")
    Target(str(path), "--html").write("größer")
    assert path.read_bytes() == "größer".encode()


def test_a_planted_symlink_is_replaced(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "report.json"
    victim.write_text("precious")
    path.symlink_to(victim)
    Target(str(path), "--json").write("text")
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
            Target(str(path), "--json").write("afterwards")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["report.json"]


def test_a_symlink_in_place_of_the_directory_is_not_followed(tmp_path: Path) -> None:
    wanted, elsewhere = tmp_path / "wanted", tmp_path / "elsewhere"
    wanted.mkdir()
    elsewhere.mkdir()
    target = Target(str(wanted / "report.json"), "--json")
    wanted.rename(tmp_path / "moved")
    wanted.symlink_to(elsewhere)
    target.write("text")
    assert (tmp_path / "moved" / "report.json").read_text() == "text"
    assert not os.listdir(elsewhere)
