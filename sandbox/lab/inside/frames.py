"""What goes over a channel: a virtio-serial port of a VM, or a connection to a Unix socket of a container.

A channel carries one command at a time. On it go frames: one letter, the length as 32 bits, the payload.

====  ==================  =================================================================================
 to the agent
-----------------------------------------------------------------------------------------------------------
S     JSON                start: ``argv``, ``env``, ``cwd``, ``token``, ``size`` (rows and columns; null: no terminal)
I     bytes               standard input; empty at its end
K     decimal             a signal for the command's process group
W     JSON                the terminal's new size
----  ------------------  ---------------------------------------------------------------------------------
 from the agent
-----------------------------------------------------------------------------------------------------------
O, E  bytes               standard output, standard error
A     decimal             so many bytes of input were taken; at most :data:`WINDOW` may be on their way
X     decimal             exit code, the last frame
====  ==================  =================================================================================

A port is never closed between two commands, so each side has to tell what is meant for it from what was left by or
for somebody before: a caller begins with :data:`MAGIC`, the agent's answer with the caller's ``token``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

HEADER = struct.Struct("!cI")
LARGEST = 1 << 20
"""Bytes of a payload; more is noise, not a frame."""
MAGIC = bytes.fromhex("9e0c5fb1d2774c0b8a6fa3e4d95b1c37")
CHUNK = 1 << 15
WINDOW = 1 << 16
PORTS = 8
"""Channels of a VM: as many commands can run at once."""
PORT_PREFIX = "sandbox-lab-"


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    """One frame as bytes."""
    return HEADER.pack(kind, len(payload)) + payload


class Frames:
    """Takes bytes as they come, gives whole frames.

    :param mark: what the first frame comes after; all before it is dropped.
    """

    def __init__(self, mark: bytes) -> None:
        self._data = bytearray()
        self._mark = mark

    @property
    def begun(self) -> bool:
        """The mark has come."""
        return not self._mark

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The frames that ``data`` completes.

        :raises ValueError: the bytes are no frames.
        """
        self._data += data
        if self._mark:
            _, found, rest = self._data.partition(self._mark)
            if not found:
                return
            self._data, self._mark = rest, b""
        while len(self._data) >= HEADER.size:
            kind, length = HEADER.unpack_from(self._data)
            if length > LARGEST:
                raise ValueError(f"a frame of {length} bytes")
            if len(self._data) < HEADER.size + length:
                return
            payload = bytes(self._data[HEADER.size:HEADER.size + length])
            del self._data[:HEADER.size + length]
            yield kind, payload
