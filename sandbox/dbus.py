"""Messages of D-Bus as bytes: method calls written, answers read.

jeepney does the same, and more; loading it costs three times what Python's own start does, and every run that goes
through systemd would pay that. The tests compare the two. Byte order is the machine's own: both ends are on it.

Source: the D-Bus specification, "Type system" and "Message protocol". A value is an int, a bool, a float, a str, bytes
for ``ay``, a list for another array, a dict for an array of pairs, a tuple for a struct, and ``(signature, value)`` for
a variant.
"""

from __future__ import annotations

import sys

from .stdlib import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

METHOD_CALL, METHOD_RETURN, SIGNAL = 1, 2, 4
NO_REPLY_EXPECTED, NO_AUTO_START = 0x1, 0x2
PATH, INTERFACE, MEMBER, ERROR_NAME, REPLY_SERIAL, DESTINATION, SIGNATURE, UNIX_FDS = 1, 2, 3, 4, 5, 6, 8, 9
"""Codes of the header fields."""

SIZES = {"y": 1, "n": 2, "q": 2, "i": 4, "u": 4, "h": 4, "x": 8, "t": 8}
"""Bytes of the integer types; ``n i x`` are signed."""
ALIGNMENTS = {"y": 1, "g": 1, "v": 1, "n": 2, "q": 2, "x": 8, "t": 8, "d": 8, "(": 8, "{": 8}
"""Of what begins with that character; 4 for all others."""
HEADER = "yyyyuua(yv)"
FIXED = 16
"""Bytes of a header up to its fields: their length is in the last four."""
ENDIAN = ord("l" if sys.byteorder == "little" else "B")


class Answer(NamedTuple):
    """What came back.

    :param kind: :data:`METHOD_RETURN`, or of an error or a signal.
    :param serial: the serial number of the call that it answers.
    :param error: name of the error, empty when it is none.
    :param body: the values.
    """

    kind: int
    serial: int
    error: str
    body: tuple[Any, ...]


def split(signature: str) -> list[str]:
    """The complete types of a signature, one after another: ``sa(st)b`` -> ``s a(st) b``."""
    found, depth, start = [], 0, 0
    for end, code in enumerate(signature, 1):
        depth += (code in "({") - (code in ")}")
        if depth == 0 and code != "a":
            found.append(signature[start:end])
            start = end
    return found


def call(serial: int, name: str, path: str, interface: str, member: str, signature: str = "",
         body: Sequence[object] = (), *, flags: int = 0) -> tuple[bytes, list[int]]:
    """A method call, and the fds that go with it.

    :param serial: its number on this connection, from 1.
    :param name: who is called.
    """
    fds: list[int] = []
    content = bytearray()
    for kind, value in zip(split(signature), body, strict=True):
        _write(content, kind, value, fds)
    fields: list[tuple[int, tuple[str, object]]] = [
        (PATH, ("o", path)), (INTERFACE, ("s", interface)), (MEMBER, ("s", member)), (DESTINATION, ("s", name))]
    if signature:
        fields.append((SIGNATURE, ("g", signature)))
    if fds:
        fields.append((UNIX_FDS, ("u", len(fds))))
    message = bytearray()
    for kind, value in zip(split(HEADER), (ENDIAN, METHOD_CALL, flags, 1, len(content), serial, fields), strict=True):
        _write(message, kind, value, fds)
    _align(message, 8)
    return bytes(message + content), fds


def size(data: bytes | bytearray) -> int:
    """How long the message is that ``data`` begins with; 0 when that is not known yet."""
    if len(data) < FIXED:
        return 0
    fields = _number(data, FIXED - 4)
    return FIXED + fields + -fields % 8 + _number(data, 4)


def answer(message: bytes) -> Answer:
    """Read a whole message."""
    at, fields = FIXED - 4, {}
    found, at = _read(message, "a(yv)", at)
    for code, (_, value) in found:
        fields[code] = value
    at += -at % 8
    body = []
    for kind in split(fields.get(SIGNATURE, "")):
        value, at = _read(message, kind, at)
        body.append(value)
    return Answer(message[1], fields.get(REPLY_SERIAL, 0), fields.get(ERROR_NAME, ""), tuple(body))


def _align(out: bytearray, to: int) -> None:
    out.extend(bytes(-len(out) % to))


def _write(out: bytearray, kind: str, value: Any, fds: list[int]) -> None:
    """Append a value; what it is aligned to counts from the beginning of ``out``."""
    code = kind[0]
    _align(out, ALIGNMENTS.get(code, 4))
    if code == "h":
        fds.append(value)
        value = len(fds) - 1
    if code in SIZES:
        out += value.to_bytes(SIZES[code], sys.byteorder, signed=code in "nix")
    elif code == "b":
        out += int(value).to_bytes(4, sys.byteorder)
    elif code == "d":
        from struct import pack

        out += pack("=d", value)
    elif code in "sog":
        data = value.encode()
        out += len(data).to_bytes(1 if code == "g" else 4, sys.byteorder) + data + b"\0"
    elif code == "v":
        _write(out, "g", value[0], fds)
        _write(out, value[0], value[1], fds)
    elif code == "a":
        _write_array(out, kind[1:], value, fds)
    else:
        for field, member in zip(split(kind[1:-1]), value, strict=True):
            _write(out, field, member, fds)


def _write_array(out: bytearray, kind: str, values: Any, fds: list[int]) -> None:
    place = len(out)
    out += bytes(4)
    _align(out, ALIGNMENTS.get(kind[0], 4))
    start = len(out)
    if isinstance(values, bytes):
        out += values
    else:
        for value in values.items() if isinstance(values, dict) else values:
            _write(out, kind, value, fds)
    out[place:place + 4] = (len(out) - start).to_bytes(4, sys.byteorder)


def _number(data: bytes | bytearray, at: int, width: int = 4, *, signed: bool = False) -> int:
    return int.from_bytes(data[at:at + width], sys.byteorder, signed=signed)


def _read(data: bytes, kind: str, at: int) -> tuple[Any, int]:
    """A value, and where the next one may begin."""
    code = kind[0]
    at += -at % ALIGNMENTS.get(code, 4)
    if code in SIZES:
        width = SIZES[code]
        return _number(data, at, width, signed=code in "nix"), at + width
    if code == "b":
        return bool(_number(data, at)), at + 4
    if code == "d":
        from struct import unpack_from

        return unpack_from("=d", data, at)[0], at + 8
    if code in "sog":
        width = 1 if code == "g" else 4
        end = at + width + _number(data, at, width)
        return data[at + width:end].decode(), end + 1
    if code == "v":
        signature, at = _read(data, "g", at)
        value, at = _read(data, signature, at)
        return (signature, value), at
    if code == "a":
        return _read_array(data, kind[1:], at)
    members = []
    for field in split(kind[1:-1]):
        value, at = _read(data, field, at)
        members.append(value)
    return tuple(members), at


def _read_array(data: bytes, kind: str, at: int) -> tuple[Any, int]:
    length = _number(data, at)
    at += 4
    at += -at % ALIGNMENTS.get(kind[0], 4)
    end = at + length
    if kind == "y":
        return data[at:end], end
    values = []
    while at < end:
        value, at = _read(data, kind, at)
        values.append(value)
    return dict(values) if kind[0] == "{" else values, end
