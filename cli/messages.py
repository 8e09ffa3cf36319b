"""What we say ourselves: results on stdout, everything else on stderr."""

from __future__ import annotations

import os
import sys


def escaped(text: str) -> str:
    """``text`` without anything that a terminal would obey, on one line."""
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def escaped_lines(text: str) -> str:
    """The same for a text whose line breaks are ours."""
    return "\n".join(map(escaped, text.split("\n")))


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8, see os.fsdecode
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def complain(message: str, hint: str = "", *, one_line: bool = False) -> None:
    """Print an error to stderr; the hint on a line of its own, or in brackets."""
    if hint:
        message = escaped(message) + (f" (hint: {escaped(hint)})" if one_line else f"\nhint: {escaped(hint)}")
    else:
        message = escaped(message)
    say(f"sandbox: {message}")


def say(text: str) -> None:
    """Print to stderr, all at once, and do not mind when nobody reads it."""
    data = f"{text}\n".encode(errors="backslashreplace")
    try:
        while data:
            data = data[os.write(2, data):]
    except OSError:
        pass


def emit(text: str) -> None:
    """Print a result to stdout.

    :raises OSError: when it cannot be written.
    """
    stream = sys.stdout
    if stream is not None:
        stream.buffer.write(f"{text}\n".encode(errors="surrogateescape"))
        stream.flush()


def emit_json(value: object) -> None:
    """Print a result to stdout as JSON."""
    import json

    emit(json.dumps(value, indent=2, ensure_ascii=True))
