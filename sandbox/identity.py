"""Who the workload runs as, and what environment it gets."""

from __future__ import annotations

import os

from .errors import SpecError
from .records import User
from .spelling import spelled
from .stdlib import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

CATEGORIES = ("ADDRESS", "ALL", "COLLATE", "CTYPE", "IDENTIFICATION", "MEASUREMENT", "MESSAGES", "MONETARY", "NAME",
              "NUMERIC", "PAPER", "TELEPHONE", "TIME")
KEPT = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "LANG", "LANGUAGE", "TZ",
        *(f"LC_{category}" for category in CATEGORIES))
"""Variables taken over from the caller, locale(7)'s among them; anything else may carry a secret inside."""
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MAX_ID = 2**32 - 2
"""4294967295 means "leave it" to setresuid(2)."""


def lookup(text: str) -> User:
    """``USER[:GROUP]``, each a name or a number.

    Without GROUP it is the user's own, with the supplementary groups of the group database. With GROUP there are no
    supplementary ones, as docker has it. Numbers need no entry in the databases if both are given.

    :raises SpecError: when there is no such user or group.
    """
    name, colon, group = text.partition(":")
    if not name or (colon and not group):
        raise _refusal(f"{text!r} is not USER[:GROUP]", f"for example {spelled('user', 'nobody')}")
    entry = _passwd(name)
    if entry is None:
        if not group:
            raise _refusal(f"user {name} has no entry in the user database",
                              f"name the group too: {spelled('user', f'{name}:{name}')}")
        gid = _group(group)
        return User(uid=int(name), gid=gid, groups=(gid,))
    login, uid, own, home = entry
    gid = _group(group) if group else own
    groups = (gid,) if group else tuple(os.getgrouplist(login, own))
    return User(uid=uid, gid=gid, groups=groups, name=login, home=home or "/")


def _refusal(problem: str, hint: str) -> SpecError:
    return SpecError(f"{spelled('user')}: {problem}", field="user", hint=hint)


def _passwd(name: str) -> tuple[str, int, int, str] | None:
    """Login name, uid, gid, home; None for a number without an entry."""
    import pwd

    number = _number(name)
    try:
        entry = pwd.getpwnam(name) if number is None else pwd.getpwuid(number)
    except (KeyError, ValueError):
        if number is not None:
            return None
        raise _refusal(f"there is no user {name!r}", "see: getent passwd") from None
    return entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir


def _group(name: str) -> int:
    import grp

    number = _number(name)
    if number is not None:
        return number
    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        raise _refusal(f"there is no group {name!r}", "see: getent group") from None


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdecimal() and len(text) <= 20):
        return None
    if int(text) > MAX_ID:
        raise _refusal(f"{text} is above {MAX_ID}", f"for example {spelled('user', '1000:1000')}")
    return int(text)


def environment(caller: Mapping[str, str], assignments: Iterable[str] = (), files: Iterable[str] = (),
                user: User | None = None) -> tuple[tuple[str, str], ...]:
    """The workload's whole environment: the allow-list, then the files, then the assignments; later wins.

    :param caller: the caller's environment.
    :param assignments: ``NAME=VALUE``, or ``NAME`` to copy the caller's.
    :param files: in docker's format: one assignment a line, lines that begin with ``#`` are comments.
    :param user: who it runs as when that is somebody else; ``HOME``, ``USER`` and ``LOGNAME`` follow.
    :raises SpecError: when an assignment has no name, or a file cannot be read.
    """
    result = {"PATH": DEFAULT_PATH}
    present = set(caller)  # to miss a variable of os.environ takes two exceptions
    result |= {name: caller[name] for name in KEPT if name in present}
    if user is not None:
        for name in ("USER", "LOGNAME"):
            result.pop(name, None)
        result |= {"HOME": user.home} | ({"USER": user.name, "LOGNAME": user.name} if user.name else {})
    for file in files:
        for line, text in _lines(file):
            result |= _assignment(text, caller, f"{spelled('env_file')}: {file} line {line}")
    for text in assignments:
        result |= _assignment(text, caller, spelled("env"))
    return tuple(result.items())


def _lines(file: str) -> Iterator[tuple[int, str]]:
    try:
        with open(file, "rb") as stream:
            content = stream.read().removeprefix(b"\xef\xbb\xbf")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SpecError(f"{spelled('env_file')}: cannot read {file!r}: {reason}", field="env_file") from error
    for number, line in enumerate(content.split(b"\n"), 1):
        text = os.fsdecode(line.removesuffix(b"\r").lstrip(b" \t"))
        if text and not text.startswith("#"):
            yield number, text


def _assignment(text: str, caller: Mapping[str, str], where: str) -> dict[str, str]:
    name, equals, value = text.partition("=")
    if not name or "\0" in text or any(character in " \t" for character in name):
        raise SpecError(f"{where}: the name {name!r} is not one of a variable", field="env", hint="use NAME=VALUE")
    if equals:
        return {name: value}
    return {name: caller[name]} if name in caller else {}
