"""Readers of the values that flags, files and keywords have in common: text in, a checked value out.

Each takes the text and the field it is for, and raises :class:`~sandbox.errors.SpecError` that names the option.
Those for plain sizes, times and counts are in :mod:`sandbox.units`.
"""

from __future__ import annotations

from . import units
from .errors import SpecError
from .records import Device, DeviceRate, FileValue, Hugetlb, IoPriority, Joined, Tmpfs, Ulimit, Volume
from .spec import UNIT_SUFFIXES
from .spelling import spelled
from .stdlib import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LIMITING_CGROUP_FILES = ("cgroup.max.depth", "cgroup.max.descendants")
BYTE_RLIMITS = ("as", "core", "data", "fsize", "memlock", "msgqueue", "rss", "stack")
JOINABLE = ("net", "ipc", "uts", "time", "cgroup")
"""Namespaces a running init can enter. It cannot leave its own pid, mount and user namespace."""
RESERVED = ("/proc", "/sys", "/dev")
"""Nothing is put there: what is there is the kernel's, and made anew for each sandbox."""


def parse_cgroup_path(text: str, field: str) -> str:
    """A cgroup below a hierarchy's root, such as ``/ci/jobs``.

    :raises SpecError: when it is empty or climbs with ``..``.
    """
    if ".." in units.parse_word(text, field).split("/"):
        raise units.refuse(text, field, "climbs out with '..'", "/ci/jobs")
    return text


def parse_weight(text: str, field: str) -> int | str:
    """``--cpu-weight``: 1 to 10000 (``cpu.weight``), or ``idle``, which becomes ``cpu_idle``."""
    return text if text == "idle" else units.parse_count(text, field, high=10000)


def parse_device(text: str, field: str, *, rate: Callable[..., int | str], example: str) -> DeviceRate:
    """``PATH:RATE``, split at the last colon.

    :raises SpecError: when a half is missing or malformed.
    """
    path, _, number = text.rpartition(":")
    if not path or not number or "\0" in path:
        raise units.refuse(text, field, "is not PATH:RATE", f"/dev/sda:{example}")
    return DeviceRate(path, rate(number, field, example=f"{path}:{example}"))


def parse_hugetlb(text: str, field: str) -> Hugetlb:
    """``SIZE:LIMIT``, e.g. ``2M:64M``.

    :raises SpecError: when the size is not a power of two from 4 KiB on, or the limit is malformed.
    """
    size, _, limit = text.partition(":")
    if not limit:
        raise units.refuse(text, field, "is not SIZE:LIMIT", "2M:64M")
    page = units.parse_bytes(size, field, low=4096, example="2M:64M")
    if page & (page - 1):
        raise units.refuse(size, field, "is not a power of two", "2M:64M")
    return Hugetlb(page, units.parse_size(limit, field, low=0, example="2M:64M"))


def parse_cgroup_conf(text: str, field: str) -> FileValue:
    """``FILE=VALUE`` for a kernel file that limits something.

    :raises SpecError: when FILE is not a plain file name of a controller, or moves, kills or freezes processes.
    """
    import re

    file, _, value = text.partition("=")
    if not re.fullmatch(r"[a-z0-9_]+(?:\.[A-Za-z0-9_-]+)+", file):
        raise units.refuse(text, field, "does not name a controller's file", "memory.swap.high=16777216")
    if file == "freezer.state" or (file.startswith("cgroup.") and file not in LIMITING_CGROUP_FILES):
        raise units.refuse(file, field, "is not a limit", "memory.swap.high=16777216")
    if not re.fullmatch(r"[ -~]{1,4000}", value):
        raise units.refuse(text, field, "has no value of printable ASCII", "memory.swap.high=16777216")
    return FileValue(file, value)


def parse_unit_type(text: str, field: str) -> str:
    """``scope`` or ``service``."""
    if text not in ("scope", "service"):
        raise units.refuse(text, field, "is neither scope nor service", "service")
    return text


def parse_unit(text: str, field: str) -> str:
    """A unit's name, with or without ``.scope`` or ``.service`` (systemd.unit(5)).

    :raises SpecError: when it has other characters, another suffix, is too long, or is the scope of systemd itself.
    """
    import re

    stem = text.removesuffix(".scope").removesuffix(".service")
    if stem == "init":
        raise units.refuse(text, field, "is systemd's own", "build.scope")
    if not re.fullmatch(r"[A-Za-z0-9:_.\\-]{1,200}", stem) or stem.endswith(UNIT_SUFFIXES) or stem[0] == ".":
        raise units.refuse(text, field, "is not the name of a scope or service", "build.scope")
    return text


def parse_slice(text: str, field: str) -> str:
    """A slice's name with its suffix; ``a-b.slice`` is below ``a.slice`` (systemd.slice(5)).

    :raises SpecError: when it cannot be one.
    """
    import re

    stem = text.removesuffix(".slice")
    known = re.fullmatch(r"[A-Za-z0-9:_.\\]+(-[A-Za-z0-9:_.\\]+)*", stem) and not stem.endswith(UNIT_SUFFIXES)
    if stem != "-" and not known:
        raise units.refuse(text, field, "is not the name of a slice", "batch.slice")
    return f"{stem}.slice"


def parse_property(text: str, field: str) -> str:
    """``NAME=VALUE``; systemd itself says later which type the value has.

    :raises SpecError: when there is no name, or it is not one.
    """
    import re

    name, equals, _ = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Z][A-Za-z0-9]*", name) or "\0" in text:
        raise units.refuse(text, field, "is not NAME=VALUE", "MemoryHigh=1G")
    return text


def parse_ulimit(text: str, field: str) -> Ulimit:
    """docker's ``NAME=SOFT[:HARD]``; -1 and ``max`` are infinity, limits in bytes take suffixes.

    :raises SpecError: when there is no such limit, or the soft one is above the hard one.
    """
    import resource

    name, _, rest = text.partition("=")
    names = sorted(word[7:].lower() for word in dir(resource) if word.startswith("RLIMIT_"))
    if name not in names:
        raise SpecError(f"{spelled(field)}: {text!r} does not begin with the name of a resource limit", field="ulimit",
                        hint=units.suggest(name, names) or f"use one of {' '.join(names)}")
    soft, _, hard = rest.partition(":")
    if not soft or rest.endswith(":"):
        raise units.refuse(text, field, "is not NAME=SOFT[:HARD]", "nofile=1024:4096")
    low, high = (_rlimit(name, number, field) for number in (soft, hard or soft))
    if high is not None and (low is None or low > high):
        raise units.refuse(text, field, "has a soft limit above the hard one", "nofile=1024:4096")
    return Ulimit(name, low, high)


def _rlimit(name: str, text: str, field: str) -> int | None:
    if units.is_unlimited(text, minus_one=True):
        return None
    parse = units.parse_bytes if name in BYTE_RLIMITS else units.parse_count
    return parse(text, field, low=0, example=f"{name}=1024:4096")


def parse_choice(text: str, field: str, *, words: tuple[str, ...]) -> str:
    """One of a few words.

    :raises SpecError: it is another.
    """
    if text not in words:
        raise units.refuse(text, field, f"is not {' or '.join(words)}", words[-1])
    return text


def parse_ionice(text: str, field: str) -> IoPriority:
    """``idle``, or ``best-effort`` or ``realtime`` with a level from 0, the highest, to 7: ``best-effort:7``.

    :raises SpecError: it is none of these.
    """
    kind, colon, level = text.partition(":")
    known = not colon if kind == "idle" else kind in ("best-effort", "realtime")
    if not known or (colon and level not in tuple("01234567")):
        raise units.refuse(text, field, "is not an I/O priority, with a level from 0 to 7", "best-effort:7")
    return IoPriority(kind) if kind == "idle" else IoPriority(kind, int(level or 4))


def parse_joined(text: str, field: str) -> Joined:
    """``TYPE:PATH``, such as ``net:/run/netns/blue``.

    :raises SpecError: there is no such type, or no absolute path.
    """
    kind, _, path = text.partition(":")
    if kind not in JOINABLE or not path.startswith("/") or "\0" in path:
        raise units.refuse(text, field, f"is not TYPE:PATH with TYPE one of {' '.join(JOINABLE)}",
                           "net:/run/netns/blue")
    return Joined(kind, path)


def parse_hostname(text: str, field: str) -> str:
    """What sethostname(2) takes and programs expect: up to 64 letters, digits, dots and dashes.

    :raises SpecError: otherwise.
    """
    import re

    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,62}[A-Za-z0-9])?", text):
        raise units.refuse(text, field, "is not the name of a machine", "box")
    return text


def parse_volume(text: str, field: str) -> Volume:
    """``SRC:DST[:ro|rw]``, as docker has it.

    :raises SpecError: a part is missing, or SRC or DST is no path.
    """
    source, target, *options = text.split(":") if text.count(":") in (1, 2) else ("", "")
    if not source or not target or options not in ([], ["ro"], ["rw"]):
        error = units.refuse(text, field, "is not SRC:DST[:ro|rw]", "/srv/data:/data:ro")
        if text.count(":") > 1:
            error.hint += f"; for a path with ':', {spelled('mount', 'type=bind,source=SRC,target=DST')}"
        raise error
    return Volume(_source(source, field), _target(target, field, "/srv/data:/data"), options == ["ro"])


def parse_mount(text: str, field: str) -> Volume | Tmpfs:
    """docker's ``type=bind,source=SRC,target=DST[,readonly]`` and ``type=tmpfs,target=DST[,tmpfs-size=,tmpfs-mode=]``.

    :raises SpecError: a key is unknown or missing, or a value malformed.
    """
    example = "type=bind,source=/srv/data,target=/data,readonly"
    given = {key: value for key, _, value in (word.partition("=") for word in text.split(","))}
    known = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
    pairs = {known.get(key, key): value for key, value in given.items()}
    kind = pairs.pop("type", "")
    read_only = pairs.pop("readonly", "false") in ("", "true", "1")
    allowed = {"bind": {"source", "target"}, "tmpfs": {"target", "tmpfs-size", "tmpfs-mode"}}.get(kind)
    if allowed is None or pairs.keys() - allowed or not pairs.get("target") or (kind == "bind") != ("source" in pairs):
        error = units.refuse(text, field, "is not a bind or tmpfs mount", example)
        if text.count(",") > 1:
            error.hint += f"; for a path with ',', {spelled('volume', 'SRC:DST')}"
        raise error
    target = _target(pairs["target"], field, example)
    if kind == "bind":
        return Volume(_source(pairs["source"], field), target, read_only)
    size, mode = pairs.get("tmpfs-size"), pairs.get("tmpfs-mode", "1777")
    return Tmpfs(target, None if size is None else units.parse_bytes(size, field), _mode(mode, field), True, read_only)


def parse_tmpfs(text: str, field: str) -> Tmpfs:
    """``DST[:OPTION,...]`` with docker's options ``size=``, ``mode=``, ``exec``, ``ro`` and their defaults.

    :raises SpecError: DST is no path, or an option is unknown.
    """
    target, _, options = text.partition(":")
    made = Tmpfs(_target(target, field, "/scratch:size=64m"))
    for option in filter(None, options.split(",")):
        key, _, value = option.partition("=")
        if key == "size":
            made = made._replace(size=units.parse_bytes(value, field))
        elif key == "mode":
            made = made._replace(mode=_mode(value, field))
        elif option in ("ro", "rw"):
            made = made._replace(read_only=option == "ro")
        elif option in ("exec", "noexec"):
            made = made._replace(executable=option == "exec")
        elif option not in ("nosuid", "nodev"):
            raise units.refuse(text, field, f"has an unknown option {option!r}", "/scratch:size=64m,mode=755,exec")
    return made


def _mode(text: str, field: str) -> int:
    if not 0 < len(text) <= 4 or text.strip("01234567"):
        raise units.refuse(text, field, "has no octal mode", "/scratch:mode=755")
    return int(text, 8)


def _source(text: str, field: str) -> str:
    """A path of the host. A bare word would be the name of a volume to docker."""
    if not text.startswith(("/", "./", "../")) and text not in (".", ".."):
        raise units.refuse(text, field, "is not a path", f"./{text}:/{text}")
    return units.parse_word(text, field)


def _target(text: str, field: str, example: str) -> str:
    """A place inside, without a trailing slash."""
    words = [word for word in text.split("/") if word not in ("", ".")]
    path = "/" + "/".join(words)
    if not text.startswith("/") or ".." in words or not words or "\0" in text:
        raise units.refuse(text, field, "is not a place inside: an absolute path without '..'", example)
    if path != "/dev/shm" and f"/{words[0]}" in RESERVED and not path.startswith("/dev/shm/"):
        raise units.refuse(text, field, f"is in /{words[0]}, which is made anew inside", example)
    return path


def parse_given(text: str, field: str) -> Device:
    """``HOST[:INSIDE][:rwm]``, as docker has it.

    :raises SpecError: HOST or INSIDE is no absolute path, or the rest is not made of r, w and m, each once at most.
    """
    source, *rest = text.split(":")
    access = rest.pop() if rest and not rest[-1].startswith("/") else "rwm"
    target = rest.pop() if rest else source
    if rest or not access or set(access) - set("rwm") or len(set(access)) != len(access):
        raise units.refuse(text, field, "is not HOST[:INSIDE][:rwm]", "/dev/fuse:/dev/fuse:rw")
    for path in (source, target):
        words = [word for word in path.split("/") if word not in ("", ".")]
        if not path.startswith("/") or not words or ".." in words or "\0" in path:
            raise units.refuse(text, field, "does not name absolute paths without '..'", "/dev/fuse")
    place = "/" + "/".join(word for word in target.split("/") if word not in ("", "."))
    if f"/{place.split('/')[1]}" in ("/proc", "/sys"):
        raise units.refuse(text, field, "is in /proc or /sys, which is made anew inside", "/dev/fuse")
    return Device(source, place, "".join(one for one in "rwm" if one in access))
