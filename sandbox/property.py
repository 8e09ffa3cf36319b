"""Properties of systemd units as text: read from and printed as a unit file spells them.

What is read is plain data, see :mod:`sandbox.dbus_value`.
"""

from __future__ import annotations

import re

from .dbus_value import Property, words_of
from .errors import SpecError
from .spelling import spelled
from .stdlib import TYPE_CHECKING, NamedTuple
from .units import cpu_numbers, parse_bytes, parse_cpu_list, parse_signal, show_bytes, show_cpu_list

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def declared(introspection: str, kind: str) -> dict[str, str]:
    """The signature of each property in the XML that a ``scope`` or ``service`` describes itself with."""
    body = rf'<interface name="org\.freedesktop\.systemd1\.(?:Unit|{kind.capitalize()})">(.*?)</interface>'
    return {name: signature for found in re.findall(body, introspection, re.DOTALL)
            for name, signature in re.findall(r'<property name="(\w+)" type="([^"]+)"', found)}


INFINITY = 2**64 - 1
"""How D-Bus says that there is no limit."""
UINT32_MAX = 2**32 - 1
"""What systemd takes 100 % as in its ``...Scale`` properties (``UINT32_SCALE_FROM_PERMYRIAD``)."""
SPANS = {"us": 1, "usec": 1, "ms": 10**3, "msec": 10**3, "": 10**6, "s": 10**6, "sec": 10**6, "m": 60 * 10**6,
         "min": 60 * 10**6, "h": 3600 * 10**6, "hr": 3600 * 10**6, "d": 86400 * 10**6, "day": 86400 * 10**6,
         "w": 7 * 86400 * 10**6, "week": 7 * 86400 * 10**6}
"""Microseconds (systemd.time(7)); a number alone is seconds."""
YES, NO = ("1", "yes", "y", "true", "t", "on"), ("0", "no", "n", "false", "f", "off")


class Kind(NamedTuple):
    """How properties are spelled.

    :param names: pattern of their names on D-Bus.
    :param signature: their D-Bus type.
    :param read: from the spelling to plain data; ValueError when it is wrong.
    :param show: the reverse.
    :param example: a good value.
    """

    names: str
    signature: str
    read: Callable[[str], object]
    show: Callable[[object], str]
    example: str


def parse(text: str, signatures: Mapping[str, str]) -> Property:
    """``NAME=VALUE`` as ``systemd-run --property`` takes it, as what D-Bus is to be told.

    :param signatures: of each property that the unit has, see :meth:`sandbox.bus.Bus.signatures`.
    :raises SpecError: there is no such property, or the value cannot be made one of its type.
    """
    written, equals, value = text.partition("=")
    if not equals or not written:
        raise _refusal(f"{text!r} is not NAME=VALUE", f"for example {spelled('property', 'MemoryMax=64M')}")
    name = _on_bus(written)
    if name not in signatures:
        raise _refusal(f"systemd has no property {written} for such a unit",
                       "see systemd.resource-control(5), systemd.exec(5) and systemd.kill(5)")
    signature = signatures[name]
    kind: Kind | None
    if signature == "t" and name.startswith(("Memory", "TasksMax")) and value.endswith("%"):
        kind, name, signature = SCALE, f"{name}Scale", "u"
    elif name == "Delegate" and value.lower() not in YES + NO:
        kind, name, signature = STRINGS, "DelegateControllers", "as"
    else:
        kind = _kind(name, signature)
    if kind is None:
        raise _refusal(f"{written} has the D-Bus type {signature}, which cannot be typed in here",
                       f"for example {spelled('property', 'MemoryMax=64M')} (t), or use a drop-in file")
    try:
        return name, signature, kind.read(value)
    except ValueError:
        raise _refusal(f"{written} (D-Bus type {signature}) cannot be {value!r}",
                       f"for example {spelled('property', f'{written}={kind.example}')}") from None


def _refusal(problem: str, hint: str) -> SpecError:
    return SpecError(f"{spelled('property')}: {problem}", field="property", hint=hint)


def text(name: str, signature: str, value: object) -> str:
    """The property as a unit file spells it: ``("CPUQuotaPerSecUSec", "t", 200000)`` -> ``CPUQuota=20%``.

    A ``%`` in a string is not doubled, as a unit file would need it.
    """
    if name.endswith("Scale") and signature == "u":
        return f"{name.removesuffix('Scale')}={SCALE.show(value)}"
    if kind := _kind(name, signature):
        shown = kind.show(value)
    else:
        shown = " ".join(map(_flat, value)) if isinstance(value, tuple) else str(value)
    return f"{_in_file(name)}={shown}"


IN_FILE = {"CPUQuotaPerSecUSec": "CPUQuota", "DelegateControllers": "Delegate"}
"""Name of a property on D-Bus -> its name in a unit file, where they differ by more than ``USec`` and ``Sec``."""


def _flat(word: object) -> str:
    return " ".join(map(_flat, word)) if isinstance(word, tuple) else _quoted(str(word))


def _on_bus(name: str) -> str:
    return "CPUQuotaPerSecUSec" if name == "CPUQuota" else re.sub(r"(?<!U)Sec$", "USec", name)


def _in_file(name: str) -> str:
    return IN_FILE[name] if name in IN_FILE else re.sub(r"USec$", "Sec", name)


def _kind(name: str, signature: str) -> Kind | None:
    return next((kind for kind in KINDS if kind.signature == signature and re.fullmatch(kind.names, name)), None)


def _scaled(value: str, unit: int) -> int:
    """``1.5`` of ``unit``, rounded down, without a float."""
    found = re.fullmatch(r"([0-9]{1,19})(?:\.([0-9]{1,9}))?", value)
    if not found:
        raise ValueError(value)
    whole, fraction = found[1], found[2] or ""
    return _number(str(int(whole + fraction) * unit // 10 ** len(fraction)))


def _number(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,20}", value) or int(value) > INFINITY:
        raise ValueError(value)
    return int(value)


def _or_infinity(read: Callable[[str], int]) -> Callable[[str], int]:
    return lambda value: INFINITY if value == "infinity" else read(value)


def _but_infinity(show: Callable[[int], str]) -> Callable[[object], str]:
    return lambda value: "infinity" if int(str(value)) == INFINITY else show(int(str(value)))


def _read_percent(value: str) -> int:
    if not value.endswith("%"):
        raise ValueError(value)
    return _scaled(value[:-1], 10_000)


def _show_percent(micro: int) -> str:
    return f"{micro // 10_000}{f'.{micro % 10_000:04}'.rstrip('.0')}%"


def _read_scale(value: str) -> int:
    hundredths = _read_percent(value) // 100
    if hundredths > 10_000:
        raise ValueError(value)
    return (hundredths * UINT32_MAX + 5_000) // 10_000


def _show_scale(value: object) -> str:
    return _show_percent(round(int(str(value)) * 10_000 / UINT32_MAX) * 100)


def _read_span(value: str) -> int:
    parts = re.findall(r"([0-9.]+)\s*([a-z]*)\s*", value)
    if not re.fullmatch(r"(?:[0-9.]+\s*[a-z]*\s*)+", value) or any(unit not in SPANS for _, unit in parts):
        raise ValueError(value)
    return sum(_scaled(number, SPANS[unit]) for number, unit in parts)


def _show_span(value: int) -> str:
    unit = next(unit for unit in ("s", "ms", "us") if value % SPANS[unit] == 0)
    return f"{value // SPANS[unit]}{unit}"


def _read_size(value: str) -> int:
    return parse_bytes(value, "property", low=0)


def _read_thousands(value: str) -> int:
    """Bytes or operations per second: here systemd counts with base 1000."""
    return _scaled(value[:-1], 1000 ** (" KMGT".index(value[-1]))) if value[-1:] in tuple("KMGT") else _number(value)


def _read_weight(value: str) -> int:
    return 0 if value == "idle" else _number(value)


def _read_switch(value: str) -> bool:
    if value.lower() not in YES + NO:
        raise ValueError(value)
    return value.lower() in YES


def _read_mask(value: str) -> tuple[str, ...]:
    listed = parse_cpu_list(",".join(value.replace(",", " ").split()), "property")
    bits = sum(1 << number for number in cpu_numbers(listed))
    return tuple(map(str, bits.to_bytes((bits.bit_length() + 7) // 8, "little")))


def _show_mask(value: object) -> str:
    bits = int.from_bytes(bytes(int(str(word)) for word in words_of(value)), "little")
    return show_cpu_list({number for number in range(bits.bit_length()) if bits >> number & 1})


def _read_words(value: str) -> tuple[str, ...]:
    import shlex

    return tuple(shlex.split(value))


def _quoted(word: str) -> str:
    if word and not re.search(r"[\s\"'\\;]", word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _show_words(value: object) -> str:
    return " ".join(_quoted(str(word)) for word in words_of(value))


def _per_device(read: Callable[[str], int]) -> Callable[[str], object]:
    def pair(value: str) -> tuple[str, str]:
        device, amount = _read_words(value)
        return device, str(read(amount))

    return pair


def _show_devices(show: Callable[[object], str]) -> Callable[[object], str]:
    def shown(value: object) -> str:
        words = words_of(value)
        return " ".join(f"{_quoted(str(device))} {show(amount)}"
                        for device, amount in zip(words[::2], words[1::2], strict=True))

    return shown


def _read_device(value: str) -> tuple[str, str]:
    device, access = (*_read_words(value), "rwm")[:2]
    if len(_read_words(value)) > 2 or not device or not set(access) <= set("rwm"):
        raise ValueError(value)
    return device, access


def _show(value: object) -> str:
    return str(value)


SCALE = Kind(".*", "u", _read_scale, _show_scale, "50%")
STRINGS = Kind(".*", "as", _read_words, _show_words, "'one two'")
_AMOUNT = _but_infinity(str)
KINDS = (
    Kind("CPUQuotaPerSecUSec", "t", _or_infinity(_read_percent), _but_infinity(_show_percent), "20%"),
    Kind(".*USec", "t", _or_infinity(_read_span), _but_infinity(_show_span), "'1min 30s'"),
    Kind("(Default|Startup)?Memory.*|Limit(FSIZE|DATA|STACK|CORE|RSS|AS|MEMLOCK|MSGQUEUE)(Soft)?", "t",
         _or_infinity(_read_size), _but_infinity(show_bytes), "64M"),
    Kind("(Startup)?CPUWeight", "t", _read_weight, lambda value: _AMOUNT(value) if value else "idle", "100"),
    Kind(".*", "t", _or_infinity(_number), _AMOUNT, "100"),
    Kind("(Startup)?Allowed(CPUs|MemoryNodes)|CPUAffinity|NUMAMask", "ay", _read_mask, _show_mask, "0-2"),
    Kind("IO.*Max|BlockIO.*Bandwidth", "a(st)", _per_device(_or_infinity(_read_thousands)), _show_devices(_AMOUNT),
         "'/dev/sda 1M'"),
    Kind("IODeviceLatencyTargetUSec", "a(st)", _per_device(_read_span), _show_devices(_but_infinity(_show_span)),
         "'/dev/sda 25ms'"),
    Kind(".*Weight", "a(st)", _per_device(_number), _show_devices(_AMOUNT), "'/dev/sda 100'"),
    Kind("DeviceAllow", "a(ss)", _read_device, _show_words, "'/dev/null rw'"),
    STRINGS,
    Kind(".*", "b", _read_switch, lambda value: "yes" if value else "no", "yes"),
    Kind(".*", "s", str, _show, "text"),
    Kind(".*Signal", "i", lambda value: parse_signal(value, "property"), _show, "SIGTERM"),
    Kind("UMask", "u", lambda value: int(value, 8), lambda value: f"{int(str(value)):04o}", "0022"),
    Kind(".*", "u", _number, _show, "100"),
    Kind(".*", "i", int, _show, "10"),
)
"""The first that fits a property's name and type counts."""
