"""Axes of pictures: round numbers for ticks, in the unit that fits, and the same values in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ..units import show_size

_TIMES = ((60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs"))
_SIZES = tuple((1024.0**power, name) for power, name in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB"), (0, "B")))


class Axis(NamedTuple):
    """From ``low`` to ``high``; ``ticks`` are (value, text), ``title`` is the unit of the texts."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    title: str


def linear(high: float, unit: str) -> Axis:
    """Ticks from 0 up to ``high``, which is above 0; bytes in steps of powers of two.

    :param unit: ``bytes`` or ``seconds``, for which a fitting multiple is chosen, or any other text.
    """
    scale, title = _multiple(high, unit)
    step = 2.0 ** math.ceil(math.log2(high / 6)) if unit == "bytes" else _decimal(high / scale / 6) * scale
    ticks = [number * step for number in range(math.floor(high / step * (1 + 1e-9)) + 1)]
    return Axis(0, high, _texts(ticks, scale), title)


def rounded_up(axis: Axis, unit: str) -> Axis:
    """``axis`` with the next tick as its end."""
    step = axis.ticks[1][0] - axis.ticks[0][0] if len(axis.ticks) > 1 else axis.high
    full = math.ceil(axis.high / step - 1e-9) * step
    return axis if full <= axis.high else linear(full, unit)._replace(high=full)


def logarithmic(lowest: float, highest: float) -> Axis:
    """Seconds above 0, a tenth wider than given; ticks at powers of ten and, where there is room, between them."""
    low, high = lowest / 1.1, highest * 1.1
    if high < 3 * low:
        step = _decimal((high - low) / 6)
        ticks = [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
    else:
        exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = next(ticks for digits in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,))
                     if len(ticks := [digit * 10.0**exponent for exponent in exponents for digit in digits
                                      if low <= digit * 10.0**exponent <= high]) <= 8 or digits == (1,))
    scale, title = _multiple(high, "seconds")
    return Axis(low, high, _texts(ticks, scale), title)


def words(value: float, unit: str) -> str:
    """``12.4 ms``, ``63.9 MiB``, ``9.8 % of one CPU``: three digits that count."""
    if unit == "bytes":
        return show_size(value)
    if unit == "seconds" and value:
        scale, unit = next((one for one in _TIMES[1:] if abs(value) >= one[0] * 0.9995), _TIMES[-1])
        value /= scale
        return f"{value:.0f} {unit}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".") + f" {unit}"
    number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{number} {'s' if unit == 'seconds' else unit}".rstrip()


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The nearest rank: the smallest of ``ordered`` (ascending, not empty) that ``percent`` of them do not exceed."""
    return ordered[max(math.ceil(len(ordered) * percent / 100) - 1, 0)]


def _multiple(high: float, unit: str) -> tuple[float, str]:
    if unit == "bytes":
        return next((one for one in _SIZES if high >= one[0]), _SIZES[-1])
    if unit == "seconds":
        return next((one for one in _TIMES if high >= (180 if one[1] == "min" else one[0])), _TIMES[-1])
    return 1, unit


def _texts(ticks: Sequence[float], scale: float) -> tuple[tuple[float, str], ...]:
    return tuple((value, f"{value / scale:.6g}") for value in ticks)


def _decimal(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is at least ``least``."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= least * (1 - 1e-9))
