"""Where compiled filters of system calls are kept, and which files there are not trusted."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import pytest

from sandbox.errors import SpecError, Unsupported
from sandbox.isolation import libseccomp, seccomp
from support.seccomp_programs import ALLOW, EPERM, PROFILE, forget, run

pytestmark = pytest.mark.usefixtures("seccomp_cache")


def test_the_second_process_needs_no_libseccomp(seccomp_cache: Path, default_filter: bytes,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    forget()
    monkeypatch.setattr("sandbox.isolation.libseccomp.compile_rules", None)
    assert seccomp.program("default", ()) == default_filter
    assert seccomp_cache.stat().st_mode & 0o777 == 0o700
    assert [file.stat().st_mode & 0o777 for file in seccomp_cache.iterdir()] == [0o600]


def test_capabilities_and_profiles_are_kept_apart(tmp_path: Path, seccomp_cache: Path, default_filter: bytes) -> None:
    file = tmp_path / "profile.json"
    file.write_text(PROFILE.read_text().replace('"chroot"', '"acct"'))
    forget()
    assert run(seccomp.program("default", ("CAP_SYS_CHROOT",)), "chroot") == ALLOW
    assert run(seccomp.program(str(file), ("CAP_SYS_CHROOT",)), "chroot") == EPERM
    assert run(seccomp.program("default", ()), "chroot") == EPERM
    assert len(list(seccomp_cache.iterdir())) == 3


def planted(seccomp_cache: Path, default_filter: bytes) -> Path:
    """A file like the one that was saved, but its program lets everything through."""
    [file] = seccomp_cache.iterdir()
    content = file.read_bytes()
    loose = struct.pack("=HBBI", 6, 0, 0, ALLOW)
    file.write_bytes(seccomp._head(content[12:-len(default_filter)], loose) + loose)
    forget()
    return file


def test_what_others_could_have_written_is_not_used(seccomp_cache: Path, default_filter: bytes) -> None:
    file = planted(seccomp_cache, default_filter)
    assert len(seccomp.program("default", ())) == 8  # as it is, it is our own
    for path, mode in ((file, 0o620), (file, 0o602), (seccomp_cache, 0o770), (seccomp_cache, 0o707)):
        forget()
        before = path.stat().st_mode
        path.chmod(mode)
        assert seccomp.program("default", ()) == default_filter
        path.chmod(before)
        planted(seccomp_cache, default_filter)


def test_a_link_is_not_followed(tmp_path: Path, seccomp_cache: Path, default_filter: bytes) -> None:
    file = planted(seccomp_cache, default_filter)
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert seccomp.program("default", ()) == default_filter


def test_the_directory_of_somebody_else(seccomp_cache: Path, default_filter: bytes,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    planted(seccomp_cache, default_filter)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert seccomp.program("default", ()) == default_filter
    monkeypatch.setenv("XDG_CACHE_HOME", str(seccomp_cache.parent.parent / "new"))
    forget()
    assert seccomp.program("default", ()) == default_filter
    assert not (seccomp_cache.parent.parent / "new").exists()


@pytest.mark.parametrize("spoil", [lambda text: text[:-8], lambda text: text + b"\0" * 8, lambda text: b"",
                                   lambda text: text[:-4] + b"\0\0\0\0", lambda text: b"\1" + text[1:]])
def test_a_spoilt_file_is_made_anew(seccomp_cache: Path, default_filter: bytes, spoil: Any) -> None:
    [file] = seccomp_cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(spoil(whole))
    forget()
    assert seccomp.program("default", ()) == default_filter
    assert file.read_bytes() == whole


def test_old_files_go(seccomp_cache: Path, default_filter: bytes) -> None:
    for number in range(seccomp.MAX_FILES):
        (seccomp_cache / str(number)).touch()
    seccomp.program("default", ("CAP_KILL",))
    assert len(list(seccomp_cache.iterdir())) == 1


def test_no_place_to_keep_it(monkeypatch: pytest.MonkeyPatch, default_filter: bytes) -> None:
    forget()
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.delenv("HOME", raising=False)
    assert seccomp.program("default", ()) == default_filter


def test_without_libseccomp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libseccomp, "LIBRARY", "libseccomp.so.99")
    libseccomp._library.cache_clear()
    try:
        with pytest.raises(Unsupported, match=r"libseccomp\.so\.99.*not installed") as caught:
            seccomp.program("default", ())
    finally:
        libseccomp._library.cache_clear()
    assert "libseccomp2" in caught.value.hint and "seccomp=unconfined" in caught.value.hint


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(SpecError, match=r"seccomp=/nowhere/p\.json\": cannot read it: No such file"):
        seccomp.program("/nowhere/p.json", ())
