"""The one table of wishes: each :class:`Option` is a flag, a TOML key and a Python keyword at once.

::

    --memory-high 1g        memory-high = "1g"        run(argv, memory_high="1g")

Whatever way a value comes, it is turned into text and read by the same parser of :mod:`sandbox.units`, so no way in
knows other suffixes, ranges or mistakes than the others.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import Any, NamedTuple

from . import units
from .errors import SpecError
from .spec import UNIT_SUFFIXES, UNLIMITED, DeviceRate, FileValue, Hugetlb, Limits, Percent, Spec, Ulimit, User

MAX_QUOTA = 2**44 - 1
"""Microseconds; the kernel's ``max_bw_runtime_us``."""
MAX_TASKS = 4_194_304
"""``PID_MAX_LIMIT``; ``pids.max`` refuses more."""
LIMITING_CGROUP_FILES = ("cgroup.max.depth", "cgroup.max.descendants")
BYTE_RLIMITS = ("as", "core", "data", "fsize", "memlock", "msgqueue", "rss", "stack")


class Option(NamedTuple):
    """One wish.

    :param name: field of :class:`~sandbox.spec.Limits` or :class:`~sandbox.spec.Spec`, and the Python keyword.
    :param parse: reads the text; the second argument is the flag to blame. None for a switch.
    :param metavar: what the value looks like, for ``--help``.
    :param help: one line.
    :param group: heading it stands under.
    :param short: spellings besides ``--`` and the name with dashes, e.g. ``-m``.
    :param repeatable: may be given several times; the values make a tuple.
    :param long: the flag, when it is not made from the name.
    """

    name: str
    parse: Callable[[str, str], Any] | None
    metavar: str
    help: str
    group: str
    short: tuple[str, ...] = ()
    repeatable: bool = False
    long: str = ""

    @property
    def flag(self) -> str:
        """``--memory-high``."""
        return self.long or "--" + self.name.replace("_", "-")

    @property
    def keys(self) -> tuple[str, ...]:
        """The names it answers to as TOML key or Python keyword, with underscores."""
        words = [flag[2:].replace("-", "_") for flag in (self.flag, *self.short) if flag.startswith("--")]
        return tuple(dict.fromkeys((self.name, *words)))

    def read(self, value: object, *, flag: str = "") -> Any:
        """The field's value from text, or from a Python or TOML value.

        :param flag: how the user spelled it, when that is not :attr:`flag`.
        :raises SpecError: when it will not do.
        """
        flag = flag or self.flag
        if self.parse is None:
            if not isinstance(value, bool):
                raise SpecError(f"{flag}: {value!r} is not true or false", field=self.name)
            return value
        if not self.repeatable:
            return self.parse(_text(value, flag), flag)
        if isinstance(value, Mapping):
            values: Sequence[object] = [f"{name}={item}" for name, item in value.items()]
        else:
            # The records of sandbox.spec are tuples too, but one value each.
            values = value if isinstance(value, list) or type(value) is tuple else [value]
        return tuple(self.parse(_text(item, flag), flag) for item in values)


def _text(value: object, flag: str) -> str:
    """A Python value as it would be typed."""
    match value:
        case str() | Percent():
            return str(value)
        case bool() | None:
            raise SpecError(f"{flag}: {value!r} is not a value", field=flag[2:].replace("-", "_"))
        case int():
            return str(int(value)) if value.bit_length() <= 64 else hex(value)
        case float():
            return repr(float(value))
        case os.PathLike():
            return os.fsdecode(value)
        case DeviceRate():
            return f"{value.path}:{value.rate}"
        case Hugetlb():
            return f"{value.page_size}:{value.limit}"
        case FileValue():
            return f"{value.file}={value.value}"
        case Ulimit():
            soft, hard = (UNLIMITED if number is None else number for number in (value.soft, value.hard))
            return f"{value.name}={soft}:{hard}"
    raise SpecError(f"{flag}: a {type(value).__name__} is not a value", field=flag[2:].replace("-", "_"))


def parse_word(text: str, flag: str) -> str:
    """Any text that is not empty and has no NUL byte.

    :raises SpecError: otherwise.
    """
    if not text or "\0" in text:
        raise SpecError(f"{flag}: {text!r} is empty or has a NUL byte", field=flag[2:].replace("-", "_"))
    return text


def parse_cgroup_path(text: str, flag: str) -> str:
    """A cgroup below a hierarchy's root, such as ``/ci/jobs``.

    :raises SpecError: when it is empty or climbs with ``..``.
    """
    if ".." in parse_word(text, flag).split("/"):
        raise units.refuse(text, flag, "climbs out with '..'", "/ci/jobs")
    return text


def parse_weight(text: str, flag: str) -> int | str:
    """``--cpu-weight``: 1 to 10000 (``cpu.weight``), or ``idle``, which becomes ``cpu_idle``."""
    return text if text == "idle" else units.parse_count(text, flag, high=10000)


def parse_device(text: str, flag: str, *, rate: Callable[..., int | str], example: str) -> DeviceRate:
    """``PATH:RATE``, split at the last colon.

    :raises SpecError: when a half is missing or malformed.
    """
    path, _, number = text.rpartition(":")
    if not path or not number or "\0" in path:
        raise units.refuse(text, flag, "is not PATH:RATE", f"/dev/sda:{example}")
    return DeviceRate(path, rate(number, flag, example=f"{path}:{example}"))


def parse_hugetlb(text: str, flag: str) -> Hugetlb:
    """``SIZE:LIMIT``, e.g. ``2M:64M``.

    :raises SpecError: when the size is not a power of two from 4 KiB on, or the limit is malformed.
    """
    size, _, limit = text.partition(":")
    if not limit:
        raise units.refuse(text, flag, "is not SIZE:LIMIT", "2M:64M")
    page = units.parse_bytes(size, flag, low=4096, example="2M:64M")
    if page & (page - 1):
        raise units.refuse(size, flag, "is not a power of two", "2M:64M")
    return Hugetlb(page, units.parse_size(limit, flag, low=0, example="2M:64M"))


def parse_cgroup_conf(text: str, flag: str) -> FileValue:
    """``FILE=VALUE`` for a kernel file that limits something.

    :raises SpecError: when FILE is not a plain file name of a controller, or moves, kills or freezes processes.
    """
    file, _, value = text.partition("=")
    if not re.fullmatch(r"[a-z0-9_]+(?:\.[A-Za-z0-9_-]+)+", file):
        raise units.refuse(text, flag, "does not name a controller's file", "memory.swap.high=16777216")
    if file == "freezer.state" or (file.startswith("cgroup.") and file not in LIMITING_CGROUP_FILES):
        raise units.refuse(file, flag, "is not a limit", "memory.swap.high=16777216")
    if not re.fullmatch(r"[ -~]{1,4000}", value):
        raise units.refuse(text, flag, "has no value of printable ASCII", "memory.swap.high=16777216")
    return FileValue(file, value)


def parse_unit_type(text: str, flag: str) -> str:
    """``scope`` or ``service``."""
    if text not in ("scope", "service"):
        raise units.refuse(text, flag, "is neither scope nor service", "service")
    return text


def parse_unit(text: str, flag: str) -> str:
    """A unit's name, with or without ``.scope`` or ``.service`` (systemd.unit(5)).

    :raises SpecError: when it has other characters, another suffix, is too long, or is the scope of systemd itself.
    """
    stem = text.removesuffix(".scope").removesuffix(".service")
    if stem == "init":
        raise units.refuse(text, flag, "is systemd's own", "build.scope")
    if not re.fullmatch(r"[A-Za-z0-9:_.\\-]{1,200}", stem) or stem.endswith(UNIT_SUFFIXES) or stem[0] == ".":
        raise units.refuse(text, flag, "is not the name of a scope or service", "build.scope")
    return text


def parse_slice(text: str, flag: str) -> str:
    """A slice's name with its suffix; ``a-b.slice`` is below ``a.slice`` (systemd.slice(5)).

    :raises SpecError: when it cannot be one.
    """
    stem = text.removesuffix(".slice")
    if stem != "-" and not re.fullmatch(r"[A-Za-z0-9:_.\\]+(-[A-Za-z0-9:_.\\]+)*", stem):
        raise units.refuse(text, flag, "is not the name of a slice", "batch.slice")
    return f"{stem}.slice"


def parse_property(text: str, flag: str) -> str:
    """``NAME=VALUE``; systemd itself says later which type the value has.

    :raises SpecError: when there is no name, or it is not one.
    """
    name, equals, _ = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Z][A-Za-z0-9]*", name) or "\0" in text:
        raise units.refuse(text, flag, "is not NAME=VALUE", "MemoryHigh=1G")
    return text


def parse_ulimit(text: str, flag: str) -> Ulimit:
    """docker's ``NAME=SOFT[:HARD]``; -1 and ``max`` are infinity, limits in bytes take suffixes.

    :raises SpecError: when there is no such limit, or the soft one is above the hard one.
    """
    import resource

    name, _, rest = text.partition("=")
    names = sorted(word[7:].lower() for word in dir(resource) if word.startswith("RLIMIT_"))
    if name not in names:
        raise SpecError(f"{flag}: {text!r} does not begin with the name of a resource limit", field="ulimit",
                        hint=suggest(name, names) or f"use one of {' '.join(names)}")
    soft, _, hard = rest.partition(":")
    if not soft or rest.endswith(":"):
        raise units.refuse(text, flag, "is not NAME=SOFT[:HARD]", "nofile=1024:4096")
    low, high = (_rlimit(name, number, flag) for number in (soft, hard or soft))
    if high is not None and (low is None or low > high):
        raise units.refuse(text, flag, "has a soft limit above the hard one", "nofile=1024:4096")
    return Ulimit(name, low, high)


def _rlimit(name: str, text: str, flag: str) -> int | None:
    if units.is_unlimited(text, minus_one=True):
        return None
    parse = units.parse_bytes if name in BYTE_RLIMITS else units.parse_count
    return parse(text, flag, low=0, example=f"{name}=1024:4096")


_memory, _count = units.parse_memory, units.parse_count
_bps = partial(parse_device, rate=units.parse_size, example="10m")
_iops = partial(parse_device, rate=units.parse_iops, example="1000")

TABLE: tuple[Option, ...] = (
    Option("cpus", units.parse_cpus, "N", "CPUs' worth of time: 1.5, 150% or 1500m", "CPU"),
    Option("cpu_quota", partial(units.parse_limit, low=1000, high=MAX_QUOTA, example="50000"), "USEC",
           "CPU time per period", "CPU"),
    Option("cpu_period", partial(_count, low=1000, high=1_000_000, example="100000"), "USEC",
           "length of the period, 1000 to 1000000", "CPU"),
    Option("cpu_weight", parse_weight, "N|idle", "share among siblings, 1 to 10000 (cgroup v2 and systemd)", "CPU"),
    Option("cpu_shares", partial(_count, low=2, high=262_144, example="512"), "N",
           "share among siblings, 2 to 262144 (docker and cgroup v1)", "CPU", ("-c",)),
    Option("cpu_idle", None, "", "run only when nobody else wants the CPU", "CPU"),
    Option("cpu_burst", partial(_count, low=0, high=MAX_QUOTA, example="20000"), "USEC",
           "unused quota that may pile up", "CPU"),
    Option("cpuset_cpus", units.parse_cpu_list, "LIST", "CPUs that may be used: 0-2,4", "CPU"),
    Option("cpuset_mems", partial(units.parse_cpu_list, high=units.MAX_NODE), "LIST",
           "NUMA nodes that memory may come from", "CPU"),
    Option("memory", _memory, "BYTES", "most memory: 512m, 1.5G, 50%, max", "Memory", ("-m",)),
    Option("memory_high", _memory, "BYTES", "throttle from here on", "Memory"),
    Option("memory_low", partial(_memory, low=0), "BYTES", "protect this much as far as possible", "Memory",
           ("--memory-reservation",)),
    Option("memory_min", partial(_memory, low=0), "BYTES", "protect this much in any case", "Memory"),
    Option("memory_swap", partial(_memory, minus_one=True), "BYTES", "most memory plus swap (docker)", "Memory"),
    Option("swap_max", partial(_memory, low=0), "BYTES", "most swap alone", "Memory"),
    Option("memory_swappiness", partial(_count, low=0, high=100, example="10"), "N", "0 to 100 (cgroup v1)", "Memory"),
    Option("oom_group", None, "", "when the kernel kills for memory, kill all of it", "Memory"),
    Option("hugetlb", parse_hugetlb, "SIZE:LIMIT", "most huge pages of a size: 2M:64M", "Memory", repeatable=True),
    Option("pids_limit", partial(units.parse_limit, high=MAX_TASKS), "N", "most processes and threads", "Tasks"),
    Option("ulimit", parse_ulimit, "NAME=SOFT[:HARD]", "resource limit of each process: nofile=1024", "Tasks",
           repeatable=True),
    Option("device_read_bps", _bps, "PATH:RATE", "bytes read per second: /dev/sda:10m", "I/O", repeatable=True),
    Option("device_write_bps", _bps, "PATH:RATE", "bytes written per second", "I/O", repeatable=True),
    Option("device_read_iops", _iops, "PATH:RATE", "read operations per second: /dev/sda:1000", "I/O", repeatable=True),
    Option("device_write_iops", _iops, "PATH:RATE", "write operations per second", "I/O", repeatable=True),
    Option("blkio_weight", partial(_count, low=10, high=1000, example="500"), "N",
           "share of the disks, 10 to 1000 (docker)", "I/O"),
    Option("io_weight", partial(_count, high=10000), "N", "share of the disks, 1 to 10000 (cgroup v2)", "I/O"),
    Option("blkio_weight_device", partial(parse_device, rate=partial(_count, low=10, high=1000), example="500"),
           "PATH:WEIGHT", "blkio-weight for one disk", "I/O", repeatable=True),
    Option("timeout", units.parse_seconds, "TIME", "most wall time: 60, 500ms, 1h30m", "Time"),
    Option("cpu_time", units.parse_seconds, "TIME", "most CPU time of the whole tree", "Time"),
    Option("stop_signal", units.parse_signal, "SIGNAL", "what a soft stop sends (TERM)", "Time"),
    Option("stop_timeout", partial(units.parse_seconds, zero=True, example="10"), "TIME",
           "from the soft stop to the hard kill (1.5)", "Time"),
    Option("env", parse_word, "NAME[=VALUE]", "set a variable, or copy the caller's", "Command", ("-e",), True),
    Option("env_file", parse_word, "FILE", "lines of NAME=VALUE or NAME", "Command", repeatable=True),
    Option("cwd", parse_word, "DIR", "working directory", "Command", ("-w",), long="--workdir"),
    Option("user", parse_word, "USER[:GROUP]", "run as this user, by name or number", "Command", ("-u",)),
    Option("tty", None, "", "give the command a terminal of its own", "Command", ("-t",)),
    Option("driver", parse_word, "NAME", "how to set limits: auto, cgroupfs, systemd, delegated, none", "Placement"),
    Option("name", parse_word, "NAME", "name of the cgroup; random otherwise", "Placement"),
    Option("cgroup_parent", parse_cgroup_path, "PATH", "cgroup to make ours in", "Placement"),
    Option("cgroup_conf", parse_cgroup_conf, "FILE=VALUE", "any other kernel file of the cgroup", "Placement",
           repeatable=True),
    Option("unit_type", parse_unit_type, "scope|service", "what the systemd driver makes (scope)", "systemd"),
    Option("unit", parse_unit, "NAME", "name of the unit; made from --name otherwise", "systemd"),
    Option("slice", parse_slice, "SLICE", "slice to make the unit in", "systemd"),
    Option("property", parse_property, "NAME=VALUE", "any property of the unit, as for systemd-run", "systemd",
           repeatable=True),
    Option("systemd_user", None, "", "ask the user's own systemd, also as root", "systemd"),
    Option("best_effort", None, "", "run even if a limit cannot be enforced here", "Placement"),
)
KEYS: dict[str, Option] = {key: option for option in TABLE for key in option.keys}


def find(name: str) -> Option:
    """The option behind a keyword (``memory_high``), TOML key (``memory-high``) or other spelling of either.

    :raises SpecError: with a suggestion, when there is none.
    """
    option = KEYS.get(name.replace("-", "_"))
    if option is None:
        dashed = "-" in name
        names = [key.replace("_", "-") if dashed else key for key in KEYS]
        raise SpecError(f"there is no option {name!r}", field=name, hint=suggest(name, names))
    return option


def suggest(word: str, words: Sequence[str]) -> str:
    """``did you mean memory?``, or nothing when no word is near."""
    from difflib import get_close_matches

    near = get_close_matches(word, words, n=1)
    return f"did you mean {near[0]}?" if near else ""


def settle(wishes: Mapping[str, object]) -> dict[str, Any]:
    """Field values by field name; wishes that are None are left out.

    :raises SpecError: for an unknown name, a malformed value, or one wish under two names.
    """
    settled: dict[str, Any] = {}
    for name, value in wishes.items():
        option = find(name)
        ready = value is None or (option.name == "user" and isinstance(value, User))
        if option.name in settled:
            raise SpecError(f"{option.flag} is given twice, also as {name!r}", field=option.name)
        settled[option.name] = value if ready else option.read(value)
    if settled.get("cpu_weight") == "idle":
        settled |= {"cpu_weight": None, "cpu_idle": True}
    return {name: value for name, value in settled.items() if value is not None}


def make_spec(argv: Sequence[str | os.PathLike[str]], **wishes: object) -> Spec:
    """A Spec from a command and wishes by name: ``make_spec(["make"], memory="512M", cpus=1.5, env={"CI": "1"})``.

    Values are text as on the command line, or numbers, bools, lists. The environment is the allow-list of
    :func:`sandbox.identity.environment` plus ``env`` and ``env_file``.

    :raises SpecError: when a name is unknown, a value malformed, or two wishes contradict each other.
    """
    from .identity import environment, lookup

    if isinstance(argv, str):
        raise SpecError(f"the command {argv!r} is one text", field="argv", hint="give a list: [program, argument, ...]")
    words = tuple(os.fspath(word) for word in argv)
    settled = settle(wishes)
    if isinstance(settled.get("user"), str):
        settled["user"] = lookup(settled["user"])
    limit_names = {field.name for field in fields(Limits)}
    limits = Limits(**{name: settled.pop(name) for name in limit_names & settled.keys()})
    settled["env"] = environment(os.environ, settled.get("env", ()), settled.pop("env_file", ()), settled.get("user"))
    return Spec(argv=words, limits=limits, **settled)
