"""Reads frozen records back from JSON, strictly: a plan for another machine must not rest on a misread file."""

from __future__ import annotations

import types
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from .errors import SpecError

Record = TypeVar("Record")
HINT = "save it anew with sandbox info --json"


def load(text: str, kind: type[Record], schema_version: int) -> Record:
    """The record of type ``kind`` that ``text`` holds.

    :raises SpecError: it is not JSON, of another schema version, or a key is unknown, missing or of the wrong type.
    """
    import json
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"host record: not JSON: {error}", hint=HINT) from None
    if not isinstance(data, dict):
        raise _wrong("", "an object", data)
    found = data.pop("schema_version", None)
    if type(found) is not int or found != schema_version:
        raise _wrong("schema_version", str(schema_version), found)
    record: Record = _record(data, kind, "")
    return record


def _record(data: Any, kind: Any, key: str) -> Any:
    if not isinstance(data, dict):
        raise _wrong(key, "an object", data)
    hints = get_type_hints(kind)
    for name in data:
        if name not in hints:
            raise SpecError(f"host record: unknown key {_below(key, name)!r}", field=_below(key, name), hint=HINT)
    for name in kind._fields:
        if name not in data and name not in kind._field_defaults:
            raise SpecError(f"host record: missing key {_below(key, name)!r}", field=_below(key, name), hint=HINT)
    return kind(**{name: _value(value, hints[name], _below(key, name)) for name, value in data.items()})


def _value(data: Any, hint: Any, key: str) -> Any:
    if get_origin(hint) is tuple:
        return _tuple(data, get_args(hint), key)
    if hasattr(hint, "_fields"):
        return _record(data, hint, key)
    allowed = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if type(data) not in allowed:  # isinstance would let true pass for 1
        raise _wrong(key, " or ".join(_spelled(kind) for kind in allowed), data)
    return data


def _tuple(data: Any, kinds: tuple[Any, ...], key: str) -> tuple[Any, ...]:
    if not isinstance(data, list):
        raise _wrong(key, "a list", data)
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(data)
    if len(kinds) != len(data):
        raise _wrong(key, f"a list of {len(kinds)}", data)
    return tuple(_value(item, kinds[number], f"{key}[{number}]") for number, item in enumerate(data))


def _below(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _spelled(kind: type) -> str:
    return {str: "a string", int: "a whole number", bool: "true or false", types.NoneType: "null"}[kind]


def _wrong(key: str, expected: str, data: object) -> SpecError:
    import json
    shown = json.dumps(data)
    shown = shown if len(shown) <= 60 else f"{shown[:60]}..."
    return SpecError(f"host record: {key or 'top level'}: expected {expected}, got {shown}", field=key, hint=HINT)
