"""Plain data as JSON text, as ``json.dumps(data, indent=2)`` writes it.

The module ``json`` loads ``re`` with its reader, and both cost as much as the start of Python: whoever has each run
write a report would pay that for each run.
"""

from __future__ import annotations

from _json import encode_basestring_ascii


def dumps(value: object, indent: str = "\n") -> str:
    """JSON text for dicts with text keys, lists, tuples, texts, numbers, bools and None.

    :param indent: what begins a new line at this level.
    :raises TypeError: there is anything else in it.
    """
    if isinstance(value, str):
        return str(encode_basestring_ascii(value))
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return float.__repr__(value)
    inner = indent + "  "
    if isinstance(value, dict):
        rows = [f"{encode_basestring_ascii(key)}: {dumps(member, inner)}" for key, member in value.items()]
    elif isinstance(value, list | tuple):
        rows = [dumps(member, inner) for member in value]
    else:
        raise TypeError(f"JSON has no {type(value).__name__}")
    left, right = "{}" if isinstance(value, dict) else "[]"
    return left + inner + f",{inner}".join(rows) + indent + right if rows else left + right
