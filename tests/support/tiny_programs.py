"""Programs of a few bytes, written as machine code: a compiler is not everywhere, and an interpreter is too large."""

from __future__ import annotations

import os
import struct
from pathlib import Path

ADDRESS = 0x400000
HEADERS = 64 + 56
FILL_A_FILE = bytes.fromhex(
    "b83f010000" "bf00004000" "31f6" "0f05"  # fd = memfd_create("\x7fELF...", 0)
    "89c7"
    "b801000000" "be00004000" "ba00100000" "0f05"  # write(fd, ADDRESS, 4096)
    "ebed")  # and again
"""For x86-64: fills a file in memory without end. No process has that memory in its resident set."""


def write(path: Path, code: bytes) -> None:
    """An executable: elf(5) with one segment."""
    size = HEADERS + len(code)
    header = b"\x7fELF\2\1\1" + bytes(9) + struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, ADDRESS + HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, ADDRESS, ADDRESS, size, size, 0x1000)
    path.write_bytes(header + segment + code)
    os.chmod(path, 0o755)
