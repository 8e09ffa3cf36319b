"""Everything a lab may leave on the host."""

from __future__ import annotations

import os
from pathlib import Path

RUNTIME = Path("/run/sandbox-lab")
"""Of root; the container lab needs root anyway."""


def cgroups() -> set[str]:
    """Directories of labs in each tree."""
    points = {line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()
              if " - cgroup" in line}
    return {f"{directory}/{name}" for point in points for directory, names, _ in os.walk(point) for name in names
            if name.startswith("sandbox-lab-")}


def processes(name: str) -> set[str]:
    """Command lines that speak of the lab ``name``, besides our own kind."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ").strip()
            except OSError:
                continue
            if f"keeper {name} " in f"{words} " or f"sandbox-lab-{name}" in words or f"/{name}/host.sock" in words:
                found.add(words)
    return found


def of(name: str) -> list[str]:
    """What is there of the lab ``name``."""
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"sandbox-lab/{name}" in line]
    return [*(path for path in sorted(cgroups()) if f"sandbox-lab-{name}" in path), *mounts, *sorted(processes(name)),
            *([str(RUNTIME / name)] if (RUNTIME / name).exists() else [])]
