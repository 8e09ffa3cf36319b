"""Calls of the C library for which Python has no function.

The C half of ctypes does it. Its Python half costs every run two milliseconds to load, and is needed only for errno.
"""

from __future__ import annotations

import _ctypes


def call(function: str, *args: int | bytes | None) -> int:
    """The result of a function that takes numbers and pointers and returns an int; -1 is an error of unknown errno.

    :param function: its name, e.g. ``signalfd``.
    :param args: an int for a number of up to 32 bits, bytes for a pointer to them, None for the null pointer.
    """
    address = _ctypes.dlsym(_ctypes.dlopen(None, 0), function)  # type: ignore[arg-type]  # None is the program itself
    return int(_ctypes.call_function(address, args))
