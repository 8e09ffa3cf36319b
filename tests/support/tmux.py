"""A terminal of tmux whose shell is typed to, and whose screen is read."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from support.machine import eventually
from support.sandbox_run import names

PROMPT = "shell>"
ROWS = 50


class Tmux:
    """A tmux server of its own, with one window in which an interactive bash runs.

    :param directory: working directory of the shell; the server's socket is there.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._home = directory.with_name(f"{directory.name}-home")  # in no volume: one of a home is warned of
        self._socket = names("tmux")  # a server that was killed may still hold the name of its socket

    def __enter__(self) -> Tmux:
        self._home.mkdir(exist_ok=True)
        environment = {"PATH": os.environ["PATH"], "HOME": str(self._home), "LC_ALL": "C.UTF-8"}
        shell = f"ulimit -S -c 0; PS1='{PROMPT} ' exec bash --norc --noediting -i"
        subprocess.run(["tmux", "-S", self._socket, "-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", str(ROWS),
                        shell], cwd=self._directory, env=environment, check=True)
        try:
            self.wait_for(PROMPT)
        except AssertionError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._tell("kill-server")

    def _tell(self, *words: str) -> str:
        return subprocess.run(["tmux", "-S", self._socket, *words], cwd=self._directory, check=True,
                              stdout=subprocess.PIPE, text=True).stdout

    def screen(self) -> str:
        """Everything on the screen, without blank lines at its end."""
        return self._tell("capture-pane", "-p").rstrip()

    def type(self, keys: str) -> None:
        """Type a line of text, or press a key that has a name, such as ``C-c``."""
        self._tell("send-keys", *([keys] if keys.startswith("C-") else ["-l", f"{keys}\n"]))

    def resize(self, columns: int) -> None:
        self._tell("resize-window", "-x", str(columns), "-y", str(ROWS))

    def wait_for(self, end: str) -> None:
        """Wait until the screen ends with this text."""
        assert eventually(lambda: self.screen().endswith(end)), f"no {end!r} at the end of:\n{self.screen()}"
