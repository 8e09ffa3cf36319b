"""Programs that use up memory: one in Python, and one in machine code whose own resident set is a few pages."""

from __future__ import annotations

import os
import struct
from pathlib import Path

# Not of zeros: with swap, Linux 6.12 gives such pages back to the shared zero page instead of charging them.
HOG = 'b = bytearray(b"x") * (96 << 20)'
"""Python code that needs more than 24 MiB and as much swap. To touch one MiB takes an emulated CPU some hundredths of a
second."""
ADDRESS = 0x400000
HEADERS = 64 + 56
FILL_A_FILE = bytes.fromhex(
    "b83f010000" "bf00004000" "31f6" "0f05"  # fd = memfd_create("\x7fELF...", 0)
    "89c7"
    "b801000000" "be00004000" "ba00100000" "0f05"  # write(fd, ADDRESS, 4096)
    "ebed")  # and again
"""Machine code for x86-64 that writes to a memfd for ever. The memfd's pages are in no process's resident set."""


def write(path: Path, code: bytes) -> None:
    """Write an executable: an ELF file with one segment (elf(5))."""
    size = HEADERS + len(code)
    header = b"\x7fELF\2\1\1" + bytes(9) + struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, ADDRESS + HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, ADDRESS, ADDRESS, size, size, 0x1000)
    path.write_bytes(header + segment + code)
    os.chmod(path, 0o755)
