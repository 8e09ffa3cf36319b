"""Sessions typed into a terminal of tmux: with the program in front of the command, the screen shows what it shows
without."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from support.sandbox_run import SANDBOX, Program
from support.tmux import PROMPT, Tmux

pytestmark = [pytest.mark.matter("process"), pytest.mark.drivers("none"), pytest.mark.only("none"),
              pytest.mark.requires("tmux", "bash", "make")]

FILES = {
    "work.py": """import os, signal, time
signal.signal(signal.SIGCONT, lambda *_: os.write(1, b'on\\n'))
try:
    os.write(1, b'up\\n')
    while True: time.sleep(0.02)  # a long sleep may begin although a signal came right before it
except KeyboardInterrupt:
    print('cleaned')
""",
    "until_go.py": """import os, time
os.write(1, b'up\\n')
while not os.path.exists('go'): time.sleep(0.02)
print('IN:' + input())
""",
    "size.py": """import os, signal, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH])
shown = 0
while True:
    if (columns := os.get_terminal_size().columns) != shown:
        os.write(1, b'%d\\n' % columns)
        shown = columns
    signal.sigtimedwait([signal.SIGWINCH], 0.02)
""",
    "Makefile": f"all:\n\t@{sys.executable} -S work.py\n",
}
END = f"\n{PROMPT}"
PYTHON = f"{sys.executable} -S"

SESSIONS = {
    "make": [("./p make", "up"), ("C-c", END), ("echo over", f"over{END}")],
    "make, stopped": [("./p make", "up"), ("C-z", END), ("jobs; echo over", f"over{END}"), ("fg", "\non"),
                      ("C-c", END)],
    "in the background": [(f"./p {PYTHON} until_go.py", "up"), ("C-z", END), ("bg", f"&{END}"), ("fg", "until_go.py"),
                          ("touch go", ""), ("one", f"IN:one{END}")],
    "a loop": [("./p sh -c 'echo up; while read x; do echo \"IN:$x\"; done'", "up"), ("one", "IN:one"),
               ("C-d", PROMPT)],
    "quit": [("./p sh -c 'echo up; exec sleep 1000'", "up"), ("C-\\", PROMPT), ("echo $?", f"131{END}")],
    "python": [(f"./p {PYTHON} -q", ">>>"), ("6 * 7", "42\n>>>"), ("C-c", "KeyboardInterrupt\n>>>"), ("C-d", PROMPT)],
    "size": [(f"./p {PYTHON} size.py", "80"), ("columns 70", "70"), ("columns 90", "90"), ("C-c", PROMPT)],
    "bash": [("./p bash --norc --noediting -i", f"-i{END}"), ("sh -c 'echo up; exec cat'", "up"), ("C-z", END),
             ("jobs; echo over", f"over{END}"), ("fg", "cat'"), ("two", "two\ntwo"), ("C-d", END),
             ("exit 7", f"exit{END}"), ("echo $?", f"7{END}")],
}
"""What is typed, or pressed, and how the screen ends before the next step."""
WAYS = {
    # Job control of a shell inside needs a controlling terminal, which only -t gives.
    "bash": ("run -t",),
    # With -t the runner looks only now and then whether fg has brought it back, and the terminal echoes until then.
    "in the background": ("run",),
}


def transcript(directory: Path, prefix: str, session: list[tuple[str, str]]) -> list[str]:
    """What the screen shows at the end of a session. ``./p`` is what stands in front of the command."""
    for name, text in FILES.items():
        (directory / name).write_text(text)
    (directory / "p").write_text(f'#!/bin/sh\nexec {prefix} "$@"\n')
    (directory / "p").chmod(0o755)
    with Tmux(directory) as tmux:
        for keys, end in session:
            word, _, rest = keys.partition(" ")
            if word == "columns":
                tmux.resize(int(rest))
            elif word == "touch":
                (directory / rest).touch()
            else:
                tmux.type(keys)
            tmux.wait_for(end)
        # Now and then make's handler of SIGINT reaps the child that its main loop then waits for. Make then exits with
        # 2, its last line is another, and bash adds no empty line. The terminal of -t echoes ^Z early or late.
        (directory / "go").unlink(missing_ok=True)
        lines = [line.replace("^Z", "") for line in tmux.screen().splitlines()]
        return [line for line in lines if line and not line.startswith("make: ***")]


@pytest.mark.parametrize(("session", "way"), [(session, way) for session in SESSIONS
                                              for way in WAYS.get(session, ("run", "run -t"))])
def test_a_session(sandbox: Program, session: str, way: str) -> None:
    """Fails at Ctrl-\\ where the runner exits with 131 and does not die of SIGQUIT: bash says no ``Quit`` then."""
    _, *words = way.split()
    prefix = shlex.join([*SANDBOX, "run", *words, *sandbox.flags(), "-e", f"PS1={PROMPT} ", "--"])
    inside, outside = (transcript(sandbox.directory, words, SESSIONS[session]) for words in (prefix, ""))
    assert inside == outside
