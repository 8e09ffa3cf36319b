"""How a message names an option: ``--memory 64m`` in the program, ``memory="64m"`` in Python, and ``memory = "64m"`` in
a configuration file.

Each message calls :func:`spelled` for an option where the message is written. No finished message is searched for
options, so a value that a user typed is never changed. The style is Python's by default; the program sets that of flags
with :func:`speaking`. Reports and the notes of plans are made for both, and always have flags (:func:`flag_of`).
"""

from __future__ import annotations

from .stdlib import TYPE_CHECKING, contextmanager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Style = Callable[[str, tuple[object, ...]], str]


def flag_of(realises: str) -> str:
    """Return the flag of a Spec field: ``limits.memory_high`` -> ``--memory-high``. The command has none: empty."""
    field = realises.rpartition(".")[2]
    return {"argv": "", "cwd": "--workdir"}.get(field, "--" + field.replace("_", "-"))


def as_flag(field: str, values: tuple[object, ...]) -> str:
    """``--driver systemd or cgroupfs``; a switch has no value."""
    return " ".join([flag_of(field), *([] if not values or values[0] is True else [_listed([*map(str, values)])])])


def as_keyword(field: str, values: tuple[object, ...]) -> str:
    """``driver="systemd" or "cgroupfs"``; a switch is ``overlay=True``."""
    name = field.rpartition(".")[2]
    return f"{name}={_listed([*map(_quoted, values)])}" if values else name


def as_toml(field: str, values: tuple[object, ...]) -> str:
    """``driver = "systemd" or "cgroupfs"``; a switch is ``overlay = true``."""
    key = flag_of(field)[2:]
    return f"{key} = {'true' if values[0] is True else _listed([*map(_quoted, values)])}" if values else key


_style: Style = as_keyword


def spelled(field: str, *values: object) -> str:
    """Return an option as the reader of the message writes it.

    :param field: of :class:`~sandbox.spec.Spec` or :class:`~sandbox.spec.Limits`, also as ``limits.memory``.
    :param values: a value, or several to choose from; True for a switch that is to be set. Without any, the option is
        only named.
    :returns: ``--memory 64m``, ``memory="64m"`` or ``memory = "64m"``; empty for the command, which has no option.
    """
    return "" if field == "argv" else _style(field, values)


@contextmanager
def speaking(style: Style) -> Iterator[None]:
    """Have :func:`spelled` use ``style`` inside the block, in every thread."""
    global _style
    before, _style = _style, style
    try:
        yield
    finally:
        _style = before


def _quoted(value: object) -> str:
    """A value as Python and TOML spell it."""
    text = repr(value)
    # repr() prefers single quotes, which mean something else in TOML and in the examples of the documentation.
    return f'"{text[1:-1]}"' if isinstance(value, str) and '"' not in text else text


def _listed(words: list[str]) -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last
