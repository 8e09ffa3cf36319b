"""Words as a shell and as a unit file want them.

Sources: bash(1) QUOTING, systemd.service(5) COMMAND LINES, systemd.syntax(7) QUOTING.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

_SHELL_ESCAPED = re.compile(r"[^ -~\t\n\u00a0-\ud7ff\ue000-\U0010ffff]")
"""Control characters, and bytes that are not UTF-8: a terminal would not paste them."""
_UNIT_PLAIN = re.compile(r"[A-Za-z0-9_@+=:,./-]+\Z")


def shell_word(word: str) -> str:
    """The word, quoted if it has to be; bytes that cannot be pasted need the ``$'...'`` of bash, ksh and zsh."""
    if not _SHELL_ESCAPED.search(word):
        return shlex.quote(word)
    text = word.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + _SHELL_ESCAPED.sub(lambda match: _bytes(match[0], "\\{:03o}"), text) + "'"


def shell_lines(lines: Iterable[str]) -> str:
    """One command on several lines, each of words that are quoted already."""
    return " \\\n    ".join(lines) + "\n"


def unit_word(word: str, *, command: bool = False) -> str:
    """One word of a line that systemd splits and unquotes.

    :param command: of ``ExecStart=``, where ``$`` stands for a variable.
    """
    text = word.replace("%", "%%")
    if command:
        text = text.replace("$", "$$")
    if _UNIT_PLAIN.match(text):
        return text
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return '"' + _SHELL_ESCAPED.sub(lambda match: _bytes(match[0], "\\x{:02x}"), text) + '"'


def _bytes(character: str, form: str) -> str:
    return "".join(form.format(byte) for byte in character.encode("utf-8", "surrogateescape"))
