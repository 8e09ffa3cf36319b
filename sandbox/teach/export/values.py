"""What every translation starts from: the Spec's wishes as cgroup v2 has them, and what no tool can be told.

cgroup v2 is the common tongue: swap is swap alone, shares are weights; a tool that counts otherwise converts back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

from ... import knobs
from ...facts import Hierarchy
from ...host import Host
from ...identity import KEPT
from ...records import UNLIMITED, Percent, Ulimit
from ...spec import Spec
from ...spelling import flag_of
from ...steps import Plan
from ...wishes import Wish, wishes
from ..shell import ionice

CONTROLLERS = ("cpu", "cpuset", "memory", "pids", "io", "hugetlb")
T = TypeVar("T")


class Lost(NamedTuple):
    """A sentence about something that does not arrive as it was meant."""

    sentence: str


class Values(NamedTuple):
    """The Spec, converted once.

    :param wishes: field of :class:`~sandbox.spec.Limits` to its values; several for disks.
    :param version: cgroup version of the machine's memory controller.
    :param lost: sentences that hold for every tool.
    """

    spec: Spec
    host: Host
    plan: Plan
    wishes: dict[str, tuple[Wish, ...]]
    version: int
    lost: tuple[str, ...]

    def number(self, field: str) -> int | None:
        """The value of ``field``; None when there is none or it is no limit."""
        value = self.wishes[field][0].value if field in self.wishes else None
        return value if isinstance(value, int) else None

    def all(self, *fields: str) -> list[Wish]:
        """The wishes for ``fields``."""
        return [wish for field in fields for wish in self.wishes.get(field, ())]


def collect(spec: Spec, host: Host, plan: Plan) -> Values:
    """Convert ``spec``; what only cgroup v2 has is left out, and told, for a machine with cgroup v1."""
    memory = host.hierarchy("memory")
    version = memory.version if memory else 2
    found, unmet = wishes(spec.limits, _unified(spec, host))
    # memory.swappiness is the one limit that only cgroup v1 has: the tools that can set it look into the Spec.
    lost = [f"{flag_of(one.realises)}: {one.reason}." for one in unmet if one.realises != "limits.memory_swappiness"]
    kept: dict[str, tuple[Wish, ...]] = {}
    for wish in found:
        if version == 1 and not wish.knob.v1:
            lost.append(f"{flag(wish)}: cgroup v1, which this machine has, knows no {wish.knob.v2[0]}.")
        else:
            kept[wish.knob.field] = (*kept.get(wish.knob.field, ()), wish)
    return Values(spec=spec, host=host, plan=plan, wishes=kept, version=version, lost=(*lost, *_fixed(spec, kept)))


def _unified(spec: Spec, host: Host) -> Host:
    """The machine with everything on cgroup v2."""
    files = (knobs.other(conf.file).controller for conf in spec.limits.cgroup_conf)
    controllers = tuple(dict.fromkeys((*CONTROLLERS, *files)))
    tree = Hierarchy(version=2, controllers=controllers, mount="/sys/fs/cgroup", usable=controllers)
    # Which of its disks honour weights is for the machine to say on which the tool runs.
    disks = tuple(disk.device for disk in host.disks if disk.device)
    return host._replace(hierarchies=(tree,), bfq=(), iocost=disks or ("",))


def _fixed(spec: Spec, kept: dict[str, tuple[Wish, ...]]) -> list[str]:
    return [f"--{field.replace('_', '-')} {given} is a share of this machine's memory; elsewhere its "
            f"{kept[field][0].value} bytes are another share."
            for field in ("memory", "memory_high", "memory_low", "memory_min", "swap_max")
            if isinstance(given := getattr(spec.limits, field), Percent) and field in kept]


def flag(wish: Wish) -> str:
    """What the user typed for it."""
    return flag_of(wish.realises)


def file_text(wish: Wish) -> tuple[str, str]:
    """The cgroup v2 file and what is written to it."""
    return wish.knob.v2[0], wish.knob.encode(wish.value, 2)[0]


def once_per_file(found: Iterable[Wish]) -> Iterator[Wish | Lost]:
    """For tools that map a file to one text: a second line for the same file is lost."""
    seen: set[str] = set()
    for wish in found:
        file, text = file_text(wish)
        yield Lost(f"{flag(wish)}: {file} is set once already, so that {text} has no place.") if file in seen else wish
        seen.add(file)


def sort(pieces: Iterable[T | Lost]) -> tuple[list[T], list[str]]:
    """What arrives, and the sentences about what does not."""
    made: list[T] = []
    lost: list[str] = []
    for piece in pieces:
        if isinstance(piece, Lost):
            lost.append(piece.sentence)
        else:
            made.append(piece)
    return made, lost


def environment(spec: Spec) -> tuple[list[tuple[str, str]], list[str]]:
    """The variables that may be shown, and the names of those that may be secrets."""
    return ([(name, value) for name, value in spec.env if name in KEPT],
            [name for name, _ in spec.env if name not in KEPT])


def disk_path(wish: Wish, host: Host) -> str:
    """``/dev/vda`` for a wish about the disk ``254:0``."""
    device = wish.value[0]
    names = (disk.chain[-1].split()[-1] for disk in host.disks if disk.device == device and disk.chain)
    name = next(names, "")
    return f"/dev/{name.rpartition('/')[2].replace('!', '/')}" if name else f"/dev/block/{device}"


def is_finite(wish: Wish) -> bool:
    """A rate for a disk that is a limit at all."""
    return bool(wish.value[1] != UNLIMITED)


def as_utf8(text: str) -> str:
    """The text with U+FFFD for bytes that are not UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def mangled(spec: Spec, carrier: str) -> list[Lost]:
    """The sentence about bytes that ``carrier`` cannot hold, when there are any."""
    words = [*spec.argv, spec.cwd or "", *(word for pair in environment(spec)[0] for word in pair)]
    if all(as_utf8(word) == word for word in words):
        return []
    return [Lost(f"{carrier} holds only UTF-8: other bytes of the command are replaced by U+FFFD.")]


def priorities(spec: Spec) -> list[str]:
    """Return the programs in front of the command that set its priorities, each with its flags."""
    words = []
    if spec.oom_score_adj is not None:
        words.append(f"choom -n {spec.oom_score_adj} --")
    if spec.nice is not None:
        words.append(f"nice -n {spec.nice}")
    if spec.ionice is not None:
        words.append(ionice(spec.ionice))
    return words


def rlimit(item: Ulimit) -> str:
    """``NOFILE``, which the C library also calls ``OFILE``."""
    return "NOFILE" if item.name == "ofile" else item.name.upper()


def bound(value: int | None, unlimited: str) -> str:
    """A resource limit's number, or the tool's word for none."""
    return unlimited if value is None else str(value)
