"""Removing what a lab leaves on the host: its cgroups and its directory."""

from __future__ import annotations

import os

from ..cgroup.group import Cgroup
from .record import Lab, claim, load, names

PREFIX = "sandbox-lab-"
"""How the names of our cgroups begin; no other one is ever touched."""


def remove(lab: Lab) -> tuple[str, ...]:
    """Kill and remove what is left of a lab whose lock the caller holds.

    :returns: the paths that were removed.
    :raises CleanupError: something would not go.
    """
    import shutil

    cgroup = Cgroup(tuple(path for path in lab.cgroups if is_ours(path) and os.path.isdir(path)))
    cgroup.kill()
    cgroup.remove()
    shutil.rmtree(lab.directory, ignore_errors=True)
    return (*cgroup.directories, lab.directory)


def collect() -> tuple[str, ...]:
    """Remove labs whose keeper was killed; ``sandbox gc`` calls this.

    :returns: the paths that were removed.
    :raises CleanupError: something would not go.
    """
    removed: list[str] = []
    for name in names():
        lock = claim(name)
        if lock is None:
            continue
        try:
            removed += remove(load(name) or Lab(name=name, engine="", image=""))
        finally:
            os.close(lock)
    return tuple(removed)


def is_ours(path: str) -> bool:
    """``path`` is a cgroup that only a lab can have made."""
    return path.startswith("/") and os.path.basename(path).startswith(PREFIX) and ".." not in path
