"""A root file system for a run, and what lies beside it on the host."""

from __future__ import annotations

import os
from pathlib import Path

MOUNTED = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
Flags = tuple[str, ...]


class Rootfs:
    """A directory that is a root file system, with the host's programs mounted into it, and one beside it that
    nobody inside may reach.

    :param flags: for ``sandbox run``.
    """

    def __init__(self, directory: Path) -> None:
        self.path, self.outside, self.source = directory / "root", directory / "outside", directory / "source"
        for path in (self.path, self.outside, self.source):
            path.mkdir(mode=0o755)
        (self.outside / "precious").write_text("precious")
        (self.source / "shared").write_text("shared")
        for name in ("proc", "sys", "dev", "tmp", "run", "etc", "usr", "var"):
            (self.path / name).mkdir()
            (self.path / name).chmod(0o777)  # where owners cannot be mapped, root inside is a stranger
        self.path.chmod(0o777)
        self.flags: Flags = ("--rootfs", str(self.path))
        for name in MOUNTED:
            if os.path.islink(name):
                (self.path / name[1:]).symlink_to(os.readlink(name))
            elif os.path.isdir(name):
                self.flags += ("-v", f"{name}:{name}:ro")

    def replace(self, name: str, target: str) -> None:
        """Put a symlink in the place of a directory or file."""
        path = self.path / name
        if path.is_dir():
            path.rmdir()
        path.symlink_to(target)

    def outside_is_whole(self) -> bool:
        """Nothing was made or changed beside the root."""
        return os.listdir(self.outside) == ["precious"] and (self.outside / "precious").read_text() == "precious"
