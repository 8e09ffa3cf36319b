"""Values of D-Bus as plain data, which a step of a plan can carry, and back.

Plain data is an int, a bool or a str for a basic type, a tuple of words for an array. The members of an array of
structs come one after another, ``("/dev/sda", "1000000")`` for ``a(st)``; a byte array is its bytes in decimal,
``("3", "0")``. Numbers within a tuple are words too. An array inside a struct is a tuple of its own:
``("/bin/true", ("true", "-x"), "0")`` for ``a(sasb)``.
"""

from __future__ import annotations

import os

from .dbus import SIZES, split
from .errors import BusError
from .stdlib import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Property = tuple[str, str, object]
"""Name, D-Bus signature, value."""

def pack(signature: str, value: object) -> object:
    """Plain data as :mod:`sandbox.dbus` wants it.

    :raises ValueError: the value is not of this type.
    """
    if signature == "ay":
        return bytes(int(str(word)) for word in words_of(value))
    if signature[0] == "a":
        return list(_items(signature[1:], words_of(value)))
    if signature[0] == "(":
        return _struct(signature, words_of(value))
    if signature in SIZES:
        number = int(str(value))
        signed = signature in "nix"
        if (~number if signed and number < 0 else number) >> SIZES[signature] * 8 - signed:
            raise ValueError(f"{number} is out of the range of {signature}")
        return number
    if signature == "b":
        return bool(int(str(value)) if not isinstance(value, bool) else value)
    if signature == "d":
        return float(str(value))
    if signature not in ("s", "o", "g") or not isinstance(value, str) or "\0" in value:
        raise ValueError(f"{value!r} cannot be a {signature}")
    value.encode()
    return value


def words_of(value: object) -> tuple[object, ...]:
    """An array as plain data.

    :raises ValueError: it is none.
    """
    if not isinstance(value, tuple | list):
        raise ValueError(f"{value!r} is not a list of words")
    return tuple(value)


def _items(item: str, words: tuple[object, ...]) -> Iterator[object]:
    if item[0] != "(":
        yield from (pack(item, word) for word in words)
        return
    width = len(split(item[1:-1]))
    if len(words) % width:
        raise ValueError(f"{len(words)} words cannot be structs of {width}")
    for start in range(0, len(words), width):
        yield _struct(item, words[start:start + width])


def _struct(signature: str, words: tuple[object, ...]) -> tuple[object, ...]:
    return tuple(pack(field, word) for field, word in zip(split(signature[1:-1]), words, strict=True))


def unpack(signature: str, value: object) -> object:
    """The reverse of :func:`pack`, from what :mod:`sandbox.dbus` has read."""
    if signature[0] in "a(" and isinstance(value, bytes | list | tuple):
        return _unpacked(signature, value)
    return value


def _unpacked(signature: str, value: bytes | list[object] | tuple[object, ...]) -> tuple[object, ...]:
    if signature[0] == "(":
        return tuple(_word(field, one) for field, one in zip(split(signature[1:-1]), value, strict=True))
    if signature[1] == "(":
        return tuple(word for one in value for word in _unpacked(signature[1:], one))  # type: ignore[arg-type]
    return tuple(_word(signature[1:], one) for one in value)


def _word(signature: str, value: object) -> object:
    plain = unpack(signature, value)
    return str(int(plain)) if isinstance(plain, int) else plain


def packed(name: str, signature: str, value: object) -> tuple[str, tuple[str, object]]:
    """A property as ``(sv)``.

    :raises BusError: the value is not of this type.
    """
    try:
        return name, (signature, pack(signature, value))
    except ValueError as error:
        raise BusError(f"property {name} ({signature}): {value!r} will not do: {error}") from None


def process(properties: Sequence[Property]) -> int:
    """The first process that a unit is to be made around; 0 when there is none."""
    for name, _, value in properties:
        if name == "PIDs":
            return int(str(words_of(value)[0]))
        if name == "PIDFDs":
            fd = os.open(f"/proc/self/fdinfo/{words_of(value)[0]}", os.O_RDONLY)
            try:
                return int(os.read(fd, 4096).split(b"Pid:")[1].split()[0])
            finally:
                os.close(fd)
    return 0


def object_path(unit: str) -> str:
    """The D-Bus object of a unit, its name escaped as sd-bus does; of the manager when there is none."""
    label = "".join([letter if letter.isascii() and (letter.isalpha() or (letter.isdigit() and at))
                     else f"_{ord(letter):02x}" for at, letter in enumerate(unit)])
    return "/org/freedesktop/systemd1" + (f"/unit/{label}" if unit else "")
