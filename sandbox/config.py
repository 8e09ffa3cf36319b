"""Defaults from files: ``/etc/sandbox/config.toml``, then the user's, then ``SANDBOX_DRIVER``, then the flags.

::

    driver = "cgroupfs"

    [limits]                    # for each run
    pids-limit = 1000

    [profile.build]             # for --profile build
    memory = "2G"
    env = ["CI=1"]

Keys are the flag names. A later layer replaces an earlier one's value, lists as a whole.
"""

from __future__ import annotations

import os

from .errors import SpecError
from .options import find, suggest
from .spec import Limits
from .spelling import as_toml, speaking
from .stdlib import TYPE_CHECKING, Any, field_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SYSTEM_FILE = "/etc/sandbox/config.toml"
TABLES = ("driver", "limits", "profile")
RIVALS = (("cpus", "cpu_quota"), ("cpu_weight", "cpu_shares", "cpu_idle"), ("memory_swap", "swap_max"),
          ("blkio_weight", "io_weight"))
"""Wishes that exclude each other: one of a later layer puts out those of the earlier ones."""


def user_file(environ: Mapping[str, str]) -> str:
    """Where the user's own file is; ``XDG_CONFIG_HOME`` counts only when absolute, as its specification says."""
    base = environ.get("XDG_CONFIG_HOME", "")
    if not base.startswith("/"):
        base = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".config")
    return os.path.join(base, "sandbox", "config.toml")


def defaults(environ: Mapping[str, str], profile: str | None = None, *, system_file: str = SYSTEM_FILE
             ) -> dict[str, object]:
    """What the files and ``SANDBOX_DRIVER`` wish for, by field name, as :func:`sandbox.options.make_spec` takes it.

    Limits of all files come first, then the profile of all files: a profile is the more particular wish.

    :param profile: name given to ``--profile``.
    :raises SpecError: when a file is malformed, has an unknown key or a bad value, or the profile is in none of them.
    """
    files = [_load(path) for path in (system_file, user_file(environ))]
    merged: dict[str, object] = {}
    for content in files:
        merged |= {"driver": content["driver"]} if "driver" in content else {}
        overlay(merged, content.get("limits", {}))
    if profile is not None:
        names = [name for content in files for name in content.get("profile", {})]
        if profile not in names:
            raise SpecError(f"--profile: there is no profile {profile!r} in {system_file} or {user_file(environ)}",
                            field="profile", hint=suggest(profile, names))
        for content in files:
            overlay(merged, content.get("profile", {}).get(profile, {}))
    if driver := environ.get("SANDBOX_DRIVER"):
        if driver != "auto":
            from .drivers import check_name

            check_name(driver, "SANDBOX_DRIVER")
        merged["driver"] = driver
    return merged


def overlay(below: dict[str, object], above: Mapping[str, object]) -> None:
    """Lay the wishes of ``above`` over those of ``below``, in place; what they exclude goes."""
    for group in RIVALS:
        if any(above.get(name) not in (None, False) for name in group):
            for name in group:
                below.pop(name, None)
    below.update(above)


def _load(path: str) -> dict[str, Any]:
    """The file with its keys as field names, every value tried; empty when there is no file."""
    try:
        with open(path, "rb") as stream:
            raw = stream.read()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}", field="config") from error
    content = _toml(path, raw)
    for key in content:
        if key not in TABLES:
            raise SpecError(f"{path}: unknown key {key!r}", field="config",
                            hint=suggest(key, TABLES) or "limits go into [limits]")
    checked: dict[str, Any] = {}
    if "driver" in content:
        checked |= _table(path, "", {"driver": content["driver"]})
    checked["limits"] = _table(path, "limits", content.get("limits", {}))
    foreign = checked["limits"].keys() - {*field_names(Limits)}
    if foreign:
        raise SpecError(f"{path}: [limits] {find(min(foreign)).flag[2:]} is not a limit", field="config",
                        hint="put it into a profile: [profile.NAME]")
    profiles = content.get("profile", {})
    if not isinstance(profiles, dict):
        raise SpecError(f"{path}: profile is not a table", field="config", hint="write [profile.NAME]")
    checked["profile"] = {name: _table(path, f"profile.{name}", table) for name, table in profiles.items()}
    return checked


def _toml(path: str, raw: bytes) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{path}: not TOML: {error}", field="config") from error


def _table(path: str, name: str, table: object) -> dict[str, object]:
    """One table with its keys as field names; the values are parsed once here, so that the error names the file."""
    where = f"{path}: [{name}]" if name else f"{path}:"
    if not isinstance(table, dict):
        raise SpecError(f"{where} is not a table", field="config", hint=f"write [{name}]")
    return dict(_pairs(where, table))


def _pairs(where: str, table: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    seen: set[str] = set()
    for key, value in table.items():
        try:
            with speaking(as_toml):
                option = find(key)
        except SpecError as error:
            raise SpecError(f"{where} unknown key {key!r}", field="config", hint=error.hint) from None
        if option.name in seen:
            raise SpecError(f"{where} {key} is given twice", field="config", hint=f"keep {option.flag[2:]}")
        seen.add(option.name)
        try:
            with speaking(as_toml):
                option.read(value)
        except SpecError as error:
            raise SpecError(f"{where} {error.message}", field="config", hint=error.hint) from None
        yield option.name, value
