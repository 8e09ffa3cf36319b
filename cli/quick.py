"""The quick path: ``run``, ``explain``, ``info`` and ``lab run`` without typer, which costs three starts of Python.

Whatever is out of the ordinary (``--help``, a flag that does not exist, a value that is missing) is left to typer: it
has the words for it. For the rest both ways read a command line alike; ``tests/unit/test_quick.py`` compares them.
"""

from __future__ import annotations

from sandbox.stdlib import TYPE_CHECKING, Any, NamedTuple, partial

from . import commands

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Flag(NamedTuple):
    """One spelling of a flag.

    :param name: the keyword it sets.
    :param switch: what it sets the keyword to; None when it takes a value.
    :param repeatable: its values make a list.
    """

    name: str
    switch: bool | None = None
    repeatable: bool = False


WITH_WISHES: dict[str, dict[str, Flag]] = {
    "run": {"--profile": Flag("profile"), "--json": Flag("json"), "--verbose": Flag("verbose", True),
            "--die-with-parent": Flag("die_with_parent", True), "--no-die-with-parent": Flag("die_with_parent", False)},
    "explain": {"--profile": Flag("profile"), "--json": Flag("json", True), "--host": Flag("host"),
                "--format": Flag("format"), "--export": Flag("export"), "--show-env": Flag("show_env", True)},
}
"""The flags of a command besides those of :data:`sandbox.options.TABLE`."""
INFO = {"--json": Flag("json", True)}
LAB_RUN = {"--engine": Flag("engine"), "--image": Flag("image"), "--name": Flag("name"), "--tty": Flag("tty", True),
           "-t": Flag("tty", True)}


def command_of(words: Sequence[str]) -> Callable[[], int] | None:
    """What a command line asks for, ready to be called; None when typer must read it.

    :param words: the command line without the program's own name.
    """
    first = words[0] if words else ""
    if first in WITH_WISHES:
        return _with_wishes(first, words[1:])
    if first == "info":
        read = parse(words[1:], INFO)
        return partial(commands.info, **read[0]) if read is not None and not read[1] else None
    if first == "lab" and words[1:2] == ["run"]:
        read = parse(words[2:], LAB_RUN)
        return partial(commands.lab_run, read[1], **read[0]) if read is not None else None
    return None


def _with_wishes(command: str, words: Sequence[str]) -> Callable[[], int] | None:
    own = WITH_WISHES[command]
    read = parse(words, table() | own)
    if read is None:
        return None
    names = {flag.name for flag in own.values()}
    values, argv = read
    wishes = {name: value for name, value in values.items() if name not in names}
    function: Callable[..., int] = commands.run if command == "run" else commands.explain
    return partial(function, argv, wishes, **{name: value for name, value in values.items() if name in names})


def table() -> dict[str, Flag]:
    """Every spelling in :data:`sandbox.options.TABLE`."""
    from sandbox.options import TABLE

    found = {}
    for option in TABLE:
        flag = Flag(option.name, True if option.parse is None else None, option.repeatable)
        for spelling in (option.flag, *option.short):
            found[spelling] = flag
        if option.parse is None:
            found["--no-" + option.flag[2:]] = Flag(option.name, False)
    return found


def parse(words: Sequence[str], flags: dict[str, Flag]) -> tuple[dict[str, Any], list[str]] | None:
    """Values by keyword, and the words of the command, which the first word that is no flag begins.

    The rules are click's: ``--flag VALUE``, ``--flag=VALUE``, ``-f VALUE``, ``-fVALUE``, switches together as ``-ab``.

    :returns: None for a line that is out of the ordinary.
    """
    found: dict[str, Any] = {}
    rest = list(words)
    while rest and rest[0][:1] == "-" and len(rest[0]) > 1:
        word = rest.pop(0)
        if word == "--":
            break
        spelling, equals, value = word.partition("=")
        if word[1] == "-":
            flag = flags.get(spelling)
            if flag is None or (flag.switch is not None and equals):
                return None
            if flag.switch is None and not equals:
                if not rest:
                    return None
                value = rest.pop(0)
            _set(found, flag, value)
        elif not _set_short(found, word, rest, flags):
            return None
    return found, rest


def _set_short(found: dict[str, Any], word: str, rest: list[str], flags: dict[str, Flag]) -> bool:
    """Take in ``-tm64m``; False when it is not understood."""
    for at, letter in enumerate(word[1:], 2):
        flag = flags.get(f"-{letter}")
        if flag is None:
            return False
        if flag.switch is None:
            if at == len(word) and not rest:
                return False
            _set(found, flag, word[at:] or rest.pop(0))
            return True
        _set(found, flag, "")
    return True


def _set(found: dict[str, Any], flag: Flag, value: str) -> None:
    if flag.switch is not None:
        found[flag.name] = flag.switch
    elif flag.repeatable:
        found.setdefault(flag.name, []).append(value)
    else:
        found[flag.name] = value
