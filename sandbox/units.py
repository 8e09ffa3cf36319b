"""Values as people type them: sizes, durations, CPUs, counts, CPU lists and signals, read and printed.

Each ``parse_`` function takes the text and the field it is for, and raises :class:`~sandbox.errors.SpecError`
with the option, the value and a good example. Only ASCII digits count, nothing is stripped, no number wraps: what the
kernel would read differently from the person who typed it is refused. Arithmetic is exact; no float is involved
before the range is known.
"""

from __future__ import annotations

from .errors import SpecError
from .records import UNLIMITED, Percent
from .spelling import spelled
from .stdlib import TYPE_CHECKING, NamedTuple, signal

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_INT = 2**63 - 1
MAX_CPU = 8191
"""Highest CPU number a kernel can be built for (``CONFIG_NR_CPUS`` is at most 8192 on x86 and arm64)."""
MAX_NODE = 1023
"""Highest NUMA node (``CONFIG_NODES_SHIFT`` is at most 10)."""
MAX_SECONDS = 1_000_000_000

UNLIMITED_WORDS = ("max", "infinity", "unlimited")
# No regular expressions here: loading re costs as much as starting Python.
_DIGITS = "0123456789"
_MAX_DIGITS = 20
_MAX_DECIMALS = 60
_POWERS = "kmgtpe"
_MICROSECONDS = {"us": 1, "ms": 10**3, "s": 10**6, "sec": 10**6, "m": 60 * 10**6, "min": 60 * 10**6,
                 "h": 3600 * 10**6, "d": 86400 * 10**6}


def refuse(text: str, field: str, why: str, *examples: str) -> SpecError:
    """Return the error for a malformed value.

    :param field: of the Spec, e.g. ``memory``.
    :param examples: values that the option takes.
    """
    shown = repr(text if len(text) <= 80 else text[:77] + "...")
    return SpecError(f"{spelled(field)}: {shown} {why}", field=field, hint=f"for example {spelled(field, *examples)}")


def parse_word(text: str, field: str) -> str:
    """Any text that is not empty and has no NUL byte.

    :raises SpecError: otherwise.
    """
    if not text or "\0" in text:
        raise SpecError(f"{spelled(field)}: {text!r} is empty or has a NUL byte", field=field)
    return text


def parse_bytes(text: str, field: str, *, low: int = 1, high: int = MAX_INT, example: str = "512m") -> int:
    """Bytes from ``64m``, ``64M``, ``64mb``, ``64MiB``, ``1.5g`` or ``1048576``.

    Every suffix is base 1024, as go-units' ``RAMInBytes`` (docker) and systemd's ``MemoryMax=`` have it. A fraction of
    a byte is dropped.

    :raises SpecError: unless the result is between ``low`` and ``high``.
    """
    number, suffix = _number(text)
    power = suffix.lower()
    if power[:1] in _POWERS and power[1:] in ("", "b", "ib"):
        power = power[:1]
    elif power == "b":
        power = ""
    else:
        number = None
    if number is None:
        raise refuse(text, field, "is not a size", example)
    if number.decimals and not power:
        raise refuse(text, field, "is not a whole number of bytes", example)
    return _between(number.times(1024 ** _power(power)), text, field, low, high, example)


def parse_memory(text: str, field: str, *, low: int = 1, minus_one: bool = False, example: str = "512m"
                 ) -> int | Percent | str:
    """Bytes, a share of the RAM (``50%``) or :data:`~sandbox.records.UNLIMITED`.

    :param minus_one: docker writes no limit as -1 for this option.
    """
    if is_unlimited(text, minus_one=minus_one):
        return UNLIMITED
    number, suffix = _number(text)
    if number is None or suffix != "%":
        return parse_bytes(text, field, low=low, example=example)
    value = float(text[:-1])
    if not 0 < value <= 100:
        raise refuse(text, field, "is not above 0% and at most 100% of the memory", "50%")
    return Percent(value)


def parse_size(text: str, field: str, *, low: int = 1, example: str = "10m") -> int | str:
    """Bytes, or :data:`~sandbox.records.UNLIMITED`.

    Rates in bytes per second are base 1024 too: ``--device-read-bps`` is docker's flag, and docker's meaning.
    """
    return UNLIMITED if is_unlimited(text) else parse_bytes(text, field, low=low, example=example)


def parse_count(text: str, field: str, *, low: int = 1, high: int = MAX_INT, example: str = "100") -> int:
    """A whole number between ``low`` and ``high``, written in decimal digits.

    :raises SpecError: when it is not.
    """
    number, suffix = _number(text)
    if number is None or number.decimals or suffix:
        raise refuse(text, field, "is not a whole number", example)
    return _between(number.digits, text, field, low, high, example)


def parse_signed(text: str, field: str, *, low: int, high: int, example: str) -> int:
    """A whole number between ``low`` and ``high``, which may be negative.

    :raises SpecError: when it is not.
    """
    sign = -1 if text.startswith("-") else 1
    number, suffix = _number(text.removeprefix("-"))
    if number is None or number.decimals or suffix:
        raise refuse(text, field, "is not a whole number", example)
    return _between(sign * number.digits, text, field, low, high, example)


def parse_limit(text: str, field: str, *, low: int = 1, high: int = MAX_INT, example: str = "100") -> int | str:
    """A whole number, or :data:`~sandbox.records.UNLIMITED` for ``max`` and docker's -1."""
    if is_unlimited(text, minus_one=True):
        return UNLIMITED
    return parse_count(text, field, low=low, high=high, example=example)


def parse_iops(text: str, field: str, *, example: str = "1000") -> int | str:
    """Operations per second: ``1000``, or with systemd's base 1000 suffixes ``1k``, ``2M``, ``1G``, or ``max``."""
    if is_unlimited(text):
        return UNLIMITED
    number, suffix = _number(text)
    if number is None or number.decimals or suffix.lower() not in ("", "k", "m", "g"):
        raise refuse(text, field, "is not a number of operations per second", example)
    return _between(number.times(1000 ** _power(suffix)), text, field, 1, MAX_INT, example)


def parse_cpus(text: str, field: str) -> float:
    """CPUs from ``1.5``, ``150%`` (systemd: percent of one CPU) or ``1500m`` (Kubernetes: thousandths).

    :raises SpecError: unless it is between 0.001 (the kernel's shortest quota, 1 ms, in its longest period, 1 s) and
        the most CPUs a kernel can have.
    """
    number, suffix = _number(text)
    unit = {"": 10**6, "%": 10**4, "m": 10**3}.get(suffix)
    if number is None or unit is None:
        raise refuse(text, field, "is not a number of CPUs", "1.5")
    micro = number.times(unit)
    if not 1000 <= micro <= (MAX_CPU + 1) * 10**6:
        raise refuse(text, field, f"is not between 0.001 and {MAX_CPU + 1} CPUs", "1.5")
    return micro / 10**6


def parse_seconds(text: str, field: str, *, zero: bool = False, example: str = "60") -> float:
    """Seconds from ``60``, ``1.5``, ``500ms``, ``2min`` or ``1h30m``, to the microsecond.

    :param zero: 0 is a valid value of this option.
    :raises SpecError: unless it is from a microsecond to a thousand million seconds.
    """
    micro = _microseconds(text)
    if micro is None:
        raise refuse(text, field, "is not a duration", example, "500ms", "1h30m")
    if not (micro or zero) or micro > MAX_SECONDS * 10**6:
        raise refuse(text, field, f"is not between 1us and {MAX_SECONDS} seconds", example)
    return micro / 10**6


def parse_cpu_list(text: str, field: str, *, high: int = MAX_CPU) -> str:
    """A list as the kernel writes it (``0-2,4``) from one in any order, with repeats and overlaps.

    :raises SpecError: when a range is empty, reversed or beyond ``high``.
    """
    chosen: set[int] = set()
    for part in text.split(","):
        begin, dash, end = part.partition("-")
        if not (_is_short(begin) and (_is_short(end) if dash else True)):
            raise refuse(text, field, "is not a list of numbers and ranges", "0-2,4")
        first, last = int(begin), int(end or begin)
        if first > last:
            raise refuse(text, field, f"has the reversed range {part}", "0-2,4")
        if last > high:
            raise refuse(text, field, f"goes beyond {high}", "0-2,4")
        chosen.update(range(first, last + 1))
    return show_cpu_list(chosen)


def parse_signal(text: str, field: str) -> int:
    """A signal's number from ``TERM``, ``SIGTERM``, ``sigterm``, ``15``, ``RTMIN`` or ``RTMIN+3``.

    :raises SpecError: when there is no such signal.
    """
    if _is_short(text, _MAX_DIGITS):
        return _between(int(text), text, field, 1, int(signal.SIGRTMAX), "TERM")
    name = text.upper().removeprefix("SIG") if text.isascii() else ""
    base = {"RTMIN": int(signal.SIGRTMIN), "RTMAX": int(signal.SIGRTMAX)}.get(name[:5])
    distance = name[5:] or "+0"
    if base is not None and distance[0] in "+-" and _is_short(distance[1:], 2):
        if int(signal.SIGRTMIN) <= base + int(distance) <= int(signal.SIGRTMAX):
            return base + int(distance)
    elif name.isalnum() and hasattr(signal, f"SIG{name}"):  # not SIG_IGN and the like
        return int(getattr(signal, f"SIG{name}"))
    raise refuse(text, field, "is not a signal", "TERM")


def suggest(word: str, words: Sequence[str]) -> str:
    """``did you mean memory?``, or nothing when no word is near."""
    from difflib import get_close_matches

    near = get_close_matches(word, words, n=1, cutoff=0.75)  # of `stdout`, 0.6 makes `timeout`
    return f"did you mean {near[0]}?" if near else ""


def is_unlimited(text: str, *, minus_one: bool = False) -> bool:
    """Whether ``text`` asks for no limit: ``max``, ``infinity``, ``unlimited``, or -1 where docker has that."""
    return text in UNLIMITED_WORDS or (minus_one and text == "-1")


def show_bytes(value: int) -> str:
    """``67108864`` -> ``64M``; exact, and read back by :func:`parse_bytes` as the same number."""
    for power, suffix in enumerate("EPTGMK"):
        unit = 1024 ** (6 - power)
        if value and value % unit == 0:
            return f"{value // unit}{suffix}"
    return str(value)


def show_size(value: float) -> str:
    """``66900000`` -> ``63.8 MiB``, for people."""
    for suffix in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or suffix == "TiB":
            return f"{value:.0f} B" if suffix == "B" else f"{value:.1f} {suffix}"
        value /= 1024
    raise AssertionError("the loop returns")


def show_seconds(value: float) -> str:
    """``1.5`` -> ``1.5s``; to the microsecond, and read back by :func:`parse_seconds` as the same number."""
    return f"{value:.6f}".rstrip("0").rstrip(".") + "s"


def show_cpus(value: float) -> str:
    """``1.50`` -> ``1.5``; to the millionth."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def show_cpu_list(numbers: set[int]) -> str:
    """``{0, 1, 2, 4}`` -> ``0-2,4``."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{first}-{last}" if first < last else str(first) for first, last in ranges)


def cpu_numbers(text: str) -> set[int]:
    """The reverse: ``0-2,4`` -> ``{0, 1, 2, 4}``."""
    pairs = (part.partition("-") for part in text.split(",") if part)
    return {number for first, _, last in pairs for number in range(int(first), int(last or first) + 1)}


class _Number(NamedTuple):
    """A decimal number, exactly: ``1.50`` has the digits 150 and 2 decimals."""

    digits: int
    decimals: int

    def times(self, factor: int) -> int:
        """The product, without its fraction."""
        return int(self.digits * factor // 10**self.decimals)


def _number(text: str) -> tuple[_Number | None, str]:
    """The unsigned number that ``text`` begins with, and what follows it: ``1.5g`` is 1.5 and ``g``.

    Only ASCII counts. None when there is no number, it has too many digits, or something that is not ASCII follows.
    """
    rest = text.lstrip(_DIGITS)
    whole = text[:len(text) - len(rest)]
    fraction = ""
    if rest.startswith("."):
        after = rest[1:].lstrip(_DIGITS)
        fraction, rest = rest[1:len(rest) - len(after)], after
        if not fraction:
            return None, ""
    if not 0 < len(whole) <= _MAX_DIGITS or len(fraction) > _MAX_DECIMALS or not rest.isascii():
        return None, ""
    return _Number(int(whole + fraction), len(fraction)), rest


def _is_short(text: str, longest: int = 5) -> bool:
    """``text`` is a whole number of at most ``longest`` ASCII digits."""
    return 0 < len(text) <= longest and not text.strip(_DIGITS)


def _power(suffix: str) -> int:
    return _POWERS.index(suffix.lower()) + 1 if suffix else 0


def _microseconds(text: str) -> int | None:
    """Microseconds of ``60``, ``1.5`` or ``1h30m``, larger units first and each once; None when it is not that."""
    total, before = 0, 0
    while text:
        number, rest = _number(text)
        if number is None:
            return None
        name = rest[:len(rest) - len(rest.lstrip("abcdefghijklmnopqrstuvwxyz"))]
        unit = _MICROSECONDS.get(name, 0) if rest else (0 if before else 10**6)
        if not unit or (before and unit >= before):
            return None
        total, before, text = total + number.times(unit), unit, rest[len(name):]
    return total if before else None


def _between(value: int, text: str, field: str, low: int, high: int, example: str) -> int:
    if not low <= value <= high:
        bounds = f"is below {low}" if value < low else f"is above {high}"
        raise refuse(text, field, bounds, example)
    return value
