"""What a command that failed may have lacked, and the flag that gives it: :func:`hint`.

A hint states what the sandbox certainly keeps from the command. It does not say that the command failed for that
reason, which only the command knows. Programs whose need depends on more than their arguments are in docs/programs.md,
without a hint.
"""

from __future__ import annotations

import os

from .isolation import capabilities, security
from .stdlib import TYPE_CHECKING, signal

if TYPE_CHECKING:
    from .spec import Spec

BROWSERS = ("chrome", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "headless_shell")
CHANGES = ("install", "reinstall", "remove", "purge", "upgrade", "dist-upgrade", "full-upgrade", "build-dep")
PACKAGES = {"apt": CHANGES, "apt-get": CHANGES, "aptitude": CHANGES,
            "dpkg": ("-i", "--install", "-r", "--remove", "-P", "--purge")}
"""Package managers, and the words by which each changes the system."""
COUNTING = ("record", "stat", "top", "trace")
"""Subcommands of perf that open a counter."""


def hint(spec: Spec, code: int | None, number: int | None) -> str:
    """Return a sentence about what the command cannot have with these flags; empty if nothing certain is known.

    :param code: exit code of the command, None if a signal killed it.
    :param number: that signal.
    """
    name, words = os.path.basename(spec.argv[0]), spec.argv[1:]
    profile = security.profile(spec)
    if profile == security.DEFAULT and not spec.nest and (number == signal.SIGSYS or code == 128 + signal.SIGSYS):
        how = "SIGSYS" if code is None else f"{code} is what a shell returns when SIGSYS killed its command; SIGSYS"
        return (f"{how} is how the seccomp filter ends a program of another architecture, such as a 32-bit one; "
                "--security-opt seccomp=moby lets 32-bit programs run")
    if not (code or number):
        return ""
    if name in BROWSERS and profile != security.UNCONFINED and not spec.nest and "--no-sandbox" not in words:
        return (f"{name} sandboxes its own processes by system calls that the seccomp filter refuses; give {name} its "
                "--no-sandbox, or add --security-opt seccomp=unconfined")
    # Without root, an overlay on / is refused.
    if os.geteuid() == 0 and not (spec.overlay or spec.rootfs) and set(words) & set(PACKAGES.get(name, ())):
        return (f"{name} changes /, which is read-only, and the owners of files; it needs "
                "--overlay --network host --cap-add ALL --unmask /etc, and all that it installs is thrown away at the "
                "end, or kept with --commit DIR")
    if (name == "perf" and profile != security.UNCONFINED and words[:1] and words[0] in COUNTING
            and not {"CAP_PERFMON", "CAP_SYS_ADMIN"} & {*capabilities.wanted(spec)}):
        return f"the seccomp filter refuses perf_event_open, which perf {words[0]} needs; add --cap-add PERFMON"
    return ""
