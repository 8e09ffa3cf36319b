"""The one table of wishes: each :class:`Option` is a flag, a TOML key and a Python keyword at once.

::

    --memory-high 1g        memory-high = "1g"        run(argv, memory_high="1g")

Whatever way a value comes, it is turned into text and read by the same parser of :mod:`sandbox.units`, so no way in
knows other suffixes, ranges or mistakes than the others.
"""

from __future__ import annotations

import os

from . import units
from .errors import SpecError
from .isolation import capabilities, security
from .records import (
    UNLIMITED,
    Device,
    DeviceRate,
    FileValue,
    Hugetlb,
    IoPriority,
    Joined,
    NetRate,
    Percent,
    Publish,
    Tmpfs,
    Ulimit,
    User,
    Volume,
)
from .spec import AS_LIST, Limits, Spec
from .spelling import flag_of, spelled
from .stdlib import TYPE_CHECKING, Any, NamedTuple, field_names, lru_cache, partial
from .units import parse_word
from .units import suggest as suggest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from . import values
    from .isolation import network
else:
    class _Late:
        """A module whose functions can be named in the table below. It is loaded when one of them is called."""

        def __init__(self, name):
            self._name = name

        def __getattr__(self, function):
            def call(*args, **settings):
                module = __import__(f"{__package__}.{self._name}", fromlist=(function,))
                return getattr(module, function)(*args, **settings)

            return call

    values, network = _Late("values"), _Late("isolation.network")

KEPT = 64
"""Sets of wishes that need not be read again: whoever launches often wishes for the same often."""
NUMBERED = ("user", "name")
"""Options of plain text that also accept a Python number, such as ``user=1000``."""
MAX_QUOTA = 2**44 - 1
"""Microseconds; the kernel's ``max_bw_runtime_us``."""
MAX_TASKS = 4_194_304
"""``PID_MAX_LIMIT``; ``pids.max`` refuses more."""
MOST_FDS = 100
"""Below the 253 that one message takes (``SCM_MAX_FD``), with room for those of the cgroups."""


class Option(NamedTuple):
    """One wish.

    :param name: field of :class:`~sandbox.spec.Limits` or :class:`~sandbox.spec.Spec`, and the Python keyword.
    :param parse: reads the text; the second argument is the name, for messages. None for a switch.
    :param metavar: what the value looks like, for ``--help``.
    :param help: one line.
    :param group: heading it stands under.
    :param short: spellings besides ``--`` and the name with dashes, e.g. ``-m``.
    :param repeatable: may be given several times; the values make a tuple.
    """

    name: str
    parse: Callable[[str, str], Any] | None
    metavar: str
    help: str
    group: str
    short: tuple[str, ...] = ()
    repeatable: bool = False

    @property
    def flag(self) -> str:
        """``--memory-high``."""
        return flag_of(self.name)

    @property
    def keys(self) -> tuple[str, ...]:
        """The names it answers to as TOML key or Python keyword, with underscores."""
        words = [flag[2:].replace("-", "_") for flag in (self.flag, *self.short) if flag.startswith("--")]
        return tuple(dict.fromkeys((self.name, *words)))

    def read(self, value: object) -> Any:
        """The field's value from text, or from a Python or TOML value.

        :raises SpecError: when it will not do.
        """
        if self.parse is None:
            if not isinstance(value, bool):
                raise SpecError(f"{spelled(self.name)}: {value!r} is not true or false", field=self.name,
                                hint=f"for example {spelled(self.name, True)}")
            return value
        if not self.repeatable:
            return self.parse(self._text(value), self.name)
        if hasattr(value, "items"):
            between = ":" if ":" in self.metavar and "=" not in self.metavar else "="
            pairs = dict(value.items())
            for name in pairs:
                if between == "=" and (not isinstance(name, str) or "=" in name):
                    raise SpecError(f"{spelled(self.name)}: {name!r} is no name", field=self.name,
                                    hint="use text without =")
            texts = [f"{name}{between}{self._text(item, number=True)}" for name, item in pairs.items()]
        else:
            # The records of sandbox.spec are tuples too, but one value each.
            items = value if isinstance(value, list) or type(value) is tuple else [value]
            texts = [self._text(item) for item in items]
        return tuple(self.parse(text, self.name) for text in texts)

    def _text(self, value: object, *, number: bool = False) -> str:
        """Return a Python value as the text that a user types for it.

        :param number: accept a number, also for an option of plain text.
        """
        number = number or self.parse is not parse_word or self.name in NUMBERED
        text = _text(value) if number or not isinstance(value, (int, float)) else None
        if text is None:
            shown = repr(value) if value is None or isinstance(value, (int, float)) else f"a {type(value).__name__}"
            raise SpecError(f"{spelled(self.name)}: {shown} is not a value", field=self.name,
                            hint=f"give {spelled(self.name, self.metavar)}")
        return text


def _text(value: object) -> str | None:
    """Return a Python value as the text that a user types for it; None if no option takes a value of its type."""
    match value:
        case str() | Percent() | IoPriority():
            return str(value)
        case bool() | None:
            return None
        case int():
            return str(int(value)) if value.bit_length() <= 64 else hex(value)
        case float():
            text = str(int(value)) if value.is_integer() else repr(float(value))
            return f"{value:.12f}".rstrip("0") if "e" in text else text
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
        case Publish():
            return network.show_publish(value)
        case NetRate():
            return network.show_rate(value)
        case Device():
            return f"{value.source}:{value.target}:{value.access}"
        case Joined():
            return f"{value.kind}:{value.path}"
        case Volume():
            return f"{value.source}:{value.target}:{'ro' if value.read_only else 'rw'}"
        case Tmpfs():
            size = "" if value.size is None else f",size={value.size}"
            flags = f"{'exec' if value.executable else 'noexec'},{'ro' if value.read_only else 'rw'}"
            return f"{value.target}:mode={value.mode:o}{size},{flags}"
    return None


_memory, _count = units.parse_memory, units.parse_count
_bps = partial(values.parse_device, rate=units.parse_size, example="10m")
_shared = partial(values.parse_choice, words=("private", "host"))
_iops = partial(values.parse_device, rate=units.parse_iops, example="1000")

TABLE: tuple[Option, ...] = (
    Option("cpus", units.parse_cpus, "N", "CPUs' worth of time: 1.5, 150% or 1500m", "CPU"),
    Option("cpu_quota", partial(units.parse_limit, low=1000, high=MAX_QUOTA, example="50000"), "USEC",
           "CPU time per period", "CPU"),
    Option("cpu_period", partial(_count, low=1000, high=1_000_000, example="100000"), "USEC",
           "length of the period, 1000 to 1000000", "CPU"),
    Option("cpu_weight", values.parse_weight, "N|idle", "share among siblings, 1 to 10000 (v2 and systemd)", "CPU"),
    Option("cpu_shares", partial(_count, low=2, high=262_144, example="512"), "N",
           "share among siblings, 2 to 262144 (docker and cgroup v1)", "CPU", ("-c",)),
    Option("cpu_idle", None, "", "run only when nobody else wants the CPU", "CPU"),
    Option("cpu_burst", partial(_count, low=0, high=MAX_QUOTA, example="20000"), "USEC",
           "unused quota that may pile up", "CPU"),
    Option("nice", partial(units.parse_signed, low=-20, high=19, example="10"), "N",
           "-20 to 19: its share among processes of its cgroup (the caller's)", "CPU"),
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
    Option("memory_swappiness", partial(_count, low=0, high=100, example="10"), "N", "0 to 100 (cgroup v1)",
           "Memory"),
    Option("oom_group", None, "", "when the kernel kills for memory, kill all of it", "Memory"),
    Option("oom_score_adj", partial(units.parse_signed, low=-1000, high=1000, example="500"), "N",
           "-1000 to 1000: how readily the kernel kills it for memory (0)", "Memory"),
    Option("hugetlb", values.parse_hugetlb, "SIZE:LIMIT", "most huge pages of a size: 2M:64M", "Memory",
           repeatable=True),
    Option("pids_limit", partial(units.parse_limit, high=MAX_TASKS), "N", "most processes and threads", "Tasks"),
    Option("ulimit", values.parse_ulimit, "NAME=SOFT[:HARD]", "resource limit of each process: nofile=1024", "Tasks",
           repeatable=True),
    Option("device_read_bps", _bps, "PATH:RATE", "bytes read per second: /dev/sda:10m", "I/O", repeatable=True),
    Option("device_write_bps", _bps, "PATH:RATE", "bytes written per second", "I/O", repeatable=True),
    Option("device_read_iops", _iops, "PATH:RATE", "read operations per second: /dev/sda:1000", "I/O", repeatable=True),
    Option("device_write_iops", _iops, "PATH:RATE", "write operations per second", "I/O", repeatable=True),
    Option("blkio_weight", partial(_count, low=10, high=1000, example="500"), "N",
           "share of the disks, 10 to 1000 (docker)", "I/O"),
    Option("io_weight", partial(_count, high=10000), "N", "share of the disks, 1 to 10000 (cgroup v2)", "I/O"),
    Option("blkio_weight_device", partial(values.parse_device, rate=partial(_count, low=10, high=1000), example="500"),
           "PATH:WEIGHT", "blkio-weight for one disk", "I/O", repeatable=True),
    Option("ionice", values.parse_ionice, "CLASS[:LEVEL]", "best-effort:7, idle or realtime:0 (the caller's)", "I/O"),
    Option("timeout", units.parse_seconds, "TIME", "most wall time: 60, 500ms, 1h30m", "Time"),
    Option("cpu_time", units.parse_seconds, "TIME", "most CPU time of the whole tree", "Time"),
    Option("stop_signal", units.parse_signal, "SIGNAL", "what a soft stop sends (TERM)", "Time"),
    Option("stop_timeout", partial(units.parse_seconds, zero=True, example="10"), "TIME",
           "from the soft stop to the hard kill (1.5)", "Time"),
    Option("env", parse_word, "NAME[=VALUE]", "set a variable, or copy the caller's", "Command", ("-e",), True),
    Option("env_file", parse_word, "FILE", "lines of NAME=VALUE or NAME", "Command", repeatable=True),
    Option("cwd", parse_word, "DIR", "working directory", "Command", ("-w",)),
    Option("user", parse_word, "USER[:GROUP]", "run as this user, by name or number", "Command", ("-u",)),
    Option("tty", None, "", "give the command a terminal of its own", "Command", ("-t",)),
    Option("preserve_fds", partial(_count, low=0, high=MOST_FDS, example="1"), "N",
           "pass N open files on besides stdin, stdout and stderr: fds 3 to N+2", "Command"),
    Option("network", partial(values.parse_choice, words=("none", "host", "veth")), "none|host|veth",
           "none: only the loopback device; host: share the host's; veth: a device of its own", "Isolation",
           ("--net",)),
    Option("publish", network.parse_publish, "[IP:]HOST:PORT[/udp]", "a port of the host that leads inside (veth)",
           "Isolation", ("-p",), True),
    Option("net_rate", network.parse_rate, "RATE[:BURST]", "bandwidth each way, 10mbit:64k (veth)", "Isolation"),
    Option("net_delay", units.parse_seconds, "TIME", "hold each packet back, 20ms (veth)", "Isolation"),
    Option("pid", _shared, "host", "share the host's process ids", "Isolation"),
    Option("ipc", _shared, "host", "share the host's shared memory and message queues", "Isolation"),
    Option("uts", _shared, "host", "share the host's name", "Isolation"),
    Option("userns", _shared, "host", "share the host's user ids: root inside is root outside", "Isolation"),
    Option("cgroupns", _shared, "host", "show the host's cgroup paths", "Isolation"),
    Option("ns", values.parse_joined, "TYPE:PATH", "join a namespace: net:/run/netns/blue", "Isolation",
           repeatable=True),
    Option("hostname", values.parse_hostname, "NAME", "name of the machine inside", "Isolation", ("-h",)),
    Option("cap_add", capabilities.parse, "CAP", "give it a capability, within its own namespaces", "Isolation",
           repeatable=True),
    Option("cap_drop", capabilities.parse, "CAP", "take a capability of --cap-add ALL away", "Isolation",
           repeatable=True),
    Option("protect_home", partial(values.parse_choice, words=("ro", "tmpfs", "off")), "ro|tmpfs|off",
           "homes: readable but for what is secret (ro), empty (tmpfs), all of them (off)", "Isolation"),
    Option("unmask", parse_word, "PATH", "show a file or directory that is masked by default", "Isolation",
           repeatable=True),
    Option("security_opt", security.parse, "OPTION",
           "seccomp=FILE|moby|unconfined, apparmor=PROFILE, label=TYPE or label=user:|role:|type:|level:PART; a label "
           "that is not enforced ends in an error", "Isolation", repeatable=True),
    Option("nest", None, "", "let it start sandboxes itself: new user namespaces, mounts, an unmasked /proc",
           "Isolation"),
    Option("seccomp_log", None, "", "report the system calls that the filter refused", "Isolation"),
    Option("rootfs", parse_word, "DIR", "a directory that becomes /, in place of the host's own", "Files"),
    Option("read_only", None, "", "nothing in --rootfs can be written to", "Files"),
    Option("overlay", None, "", "writes to / go into a layer that is thrown away", "Files"),
    Option("commit", parse_word, "DIR", "keep that layer: the changed files are in DIR/upper", "Files"),
    Option("volume", values.parse_volume, "SRC:DST[:ro]", "show a file or directory of the host inside", "Files",
           ("-v",), True),
    Option("mount", values.parse_mount, "KEY=VALUE,...", "the same in docker's words: type=bind|tmpfs,...", "Files",
           repeatable=True),
    Option("tmpfs", values.parse_tmpfs, "DST[:OPTION,...]", "an empty file system in memory", "Files",
           repeatable=True),
    Option("device", values.parse_given, "HOST[:INSIDE][:rwm]", "a device of the host that it may use: /dev/fuse",
           "Files", repeatable=True),
    Option("gpu", None, "", "it may use the host's GPUs", "Files"),
    Option("driver", parse_word, "NAME", "how to set limits: auto, cgroupfs, systemd, delegated, none", "Placement"),
    Option("name", parse_word, "NAME", "name of the cgroup; random otherwise", "Placement"),
    Option("cgroup_parent", values.parse_cgroup_path, "PATH", "cgroup to make ours in", "Placement"),
    Option("cgroup_conf", values.parse_cgroup_conf, "FILE=VALUE", "any other kernel file of the cgroup", "Placement",
           repeatable=True),
    Option("unit_type", values.parse_unit_type, "scope|service", "what the systemd driver makes (scope)", "systemd"),
    Option("unit", values.parse_unit, "NAME", "name of the unit; made from --name otherwise", "systemd"),
    Option("slice", values.parse_slice, "SLICE", "slice to make the unit in", "systemd"),
    Option("property", values.parse_property, "NAME=VALUE", "any property of the unit, as for systemd-run", "systemd",
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
        from .foreign_words import answer

        raise SpecError(f"there is no option {name!r}", field=name, hint=(
            answer(name) or suggest(name, names)))
    return option


def settle(wishes: Mapping[str, object]) -> dict[str, Any]:
    """Field values by field name; wishes that are None are left out.

    :raises SpecError: for an unknown name, a malformed value, or one wish under two names.
    """
    settled: dict[str, Any] = {}
    for name, value in wishes.items():
        option = find(name)
        ready = value is None or (option.name == "user" and isinstance(value, User))
        if option.name in settled:
            raise SpecError(f"{spelled(option.name)} is given twice, also as {name!r}", field=option.name)
        settled[option.name] = value if ready else option.read(value)
    if settled.get("cpu_weight") == "idle":
        settled |= {"cpu_weight": None, "cpu_idle": True}
    return {name: value for name, value in settled.items() if value is not None}


def _sort(wishes: Mapping[str, object]) -> tuple[Limits, dict[str, Any]]:
    """The limits among the wishes, and the other field values, which are still to be looked up or read from files."""
    # With their types: 1 is equal to True, but no answer to a question of yes or no.
    typed = tuple([(name, type(value), value) for name, value in wishes.items()])
    try:
        hash(typed)
    except TypeError:
        return _sorted.__wrapped__(typed)
    return _sorted(typed)


@lru_cache(maxsize=KEPT)
def _sorted(typed: tuple[tuple[str, type, object], ...]) -> tuple[Limits, dict[str, Any]]:
    settled = settle({name: value for name, _, value in typed})
    names = {*field_names(Limits)} & settled.keys()
    return Limits(**{name: settled.pop(name) for name in names}), settled


def _word(value: object) -> str:
    """A word of the command."""
    if isinstance(value, (str, bytes, os.PathLike)):
        return os.fsdecode(value)
    raise SpecError(f"the command has {value!r} in it, which is no text", field="argv", hint=f"write {str(value)!r}")


def make_spec(argv: Sequence[str | bytes | os.PathLike[str]], **wishes: object) -> Spec:
    """A Spec from a command and wishes by name: ``make_spec(["make"], memory="512M", cpus=1.5, env={"CI": "1"})``.

    Values are text as on the command line, or numbers, bools, lists. The environment is the allow-list of
    :func:`sandbox.identity.environment` plus ``env`` and ``env_file``.

    :raises SpecError: when a name is unknown, a value malformed, or two wishes contradict each other.
    """
    from .identity import environment, lookup

    if isinstance(argv, (str, bytes)):
        raise SpecError(f"the command {argv!r} is one text", field="argv", hint=AS_LIST)
    if not hasattr(argv, "__iter__"):
        raise SpecError(f"the command {argv!r} is no list", field="argv", hint=AS_LIST)
    words = tuple(map(_word, argv))
    limits, others = _sort(wishes)
    settled = dict(others)
    if isinstance(settled.get("user"), str):
        settled["user"] = lookup(settled["user"])
    for record in settled.pop("mount", ()):
        name = "tmpfs" if isinstance(record, Tmpfs) else "volume"
        settled[name] = (*settled.get(name, ()), record)
    settled["env"] = environment(os.environ, settled.get("env", ()), settled.pop("env_file", ()), settled.get("user"))
    return Spec(argv=words, limits=limits, **settled)
