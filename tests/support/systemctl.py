"""systemctl for the systemd manager that the tests use: the system's as root, else the user's own."""

from __future__ import annotations

import os
import subprocess

MANAGER = [] if os.geteuid() == 0 else ["--user"]
"""The flag that makes systemctl and systemd-run talk to that manager."""


def systemctl(*words: str) -> subprocess.CompletedProcess[str]:
    """Run ``systemctl WORDS...`` with its output captured; a failure raises nothing."""
    return subprocess.run(["systemctl", *MANAGER, *words], capture_output=True, text=True, check=False)
