"""Does the kernel hold what was wished for? Every limit is read back before the execve, and again at the end."""

from __future__ import annotations

from .cgroup import files
from .errors import CgroupError
from .knobs import KNOBS, PROTECTIONS, hugetlb
from .records import UNLIMITED
from .spelling import spelled
from .stdlib import TYPE_CHECKING, NamedTuple
from .steps import Limit

if TYPE_CHECKING:
    from collections.abc import Mapping

SUFFIXES = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def check(limit: Limit, texts: tuple[str, ...]) -> None:
    """Refuse when the files do not hold the limit.

    :param texts: what was read, one text per file of the limit.
    :raises CgroupError: naming the file, the wish, and what the kernel says.
    """
    if not holds(limit, texts):
        raise CgroupError(f"{limit.files[-1]} does not hold {limit.applied}: the kernel says "
                          f"{' '.join(texts).strip() or 'nothing'}",
                          hint="another program changed it, or the kernel rounds the value; give the value it says")


def check_protection(limit: Limit) -> None:
    """Refuse a ``memory.low`` or ``memory.min`` that protects from nothing.

    When an ancestor reaches its limit, or memory of the machine is short, the kernel reclaims below that ancestor, or
    below the root. Each cgroup between it and ours must be protected too (mem_cgroup_calculate_protection()). So ours
    is void if an unprotected cgroup lies below the first ancestor with a limit, and below the root if none has one.

    :raises CgroupError: naming the cgroup above that has no protection.
    """
    if not limit.files or (name := limit.files[-1].rpartition("/")[2]) not in PROTECTIONS or str(limit.value) == "0":
        return
    for directory in limit.ancestors:
        if any(_text(f"{directory}/{file}") not in (UNLIMITED, "") for file in ("memory.max", "memory.high")):
            return
        if _text(f"{directory}/{name}") == "0":
            raise CgroupError(f"{limit.files[-1]} has no effect, because {directory}/{name} is 0",
                              hint=_protect(directory, name))


def _protect(directory: str, name: str) -> str:
    cgroup = directory.rpartition("/")[2]
    if cgroup.endswith(".slice"):
        systemctl = "systemctl --user" if "/user@" in directory else "as root: systemctl"
        command = f"{systemctl} set-property --runtime {cgroup} {PROTECTIONS[name]}=SIZE"
        return f"{command}; or give a {spelled('slice')} that has one"
    return f"write a {name} for {cgroup} too, or give a {spelled('cgroup_parent')} that has one, such as /"


def _text(path: str) -> str:
    """The content of a cgroup file; empty if there is no such file."""
    try:
        return files.read(path).strip()
    except CgroupError:
        return ""


def holds(limit: Limit, texts: tuple[str, ...]) -> bool:
    """True when ``texts`` say what the limit wants."""
    if limit.knob == "cgroup_conf":
        return _has_words(str(limit.value), texts[0])
    if limit.knob == "device":
        return sorted(texts[0].splitlines()) == sorted(limit.applied.split(", "))
    try:
        return bool(decode(limit, texts) == limit.value)
    except (ValueError, IndexError):
        return False


class Reading(NamedTuple):
    """What became of a limit.

    :param text: what its files say; None for rlimits and watches, which have none.
    :param held: it is still what was asked: somebody may have changed it during the run.
    :param binding: the file whose value really binds; empty when there is none.
    :param above: files of all ancestor cgroups with a limit of the same kind, nearest first.
    """

    text: str | None
    held: bool
    binding: str
    above: tuple[str, ...] = ()


def reading(limit: Limit, texts: Mapping[str, str | CgroupError]) -> Reading:
    """What became of a limit by the end of the run.

    :param texts: what its files said then.
    """
    if not limit.files:
        return Reading(None, True, "")
    found: list[str] = []
    for path in limit.files:
        text = texts[path]
        if isinstance(text, CgroupError):
            return Reading(text.message, False, "")
        found.append(text)
    return Reading(" ".join([text.strip() for text in found]), holds(limit, tuple(found)), *binding(limit))


def decode(limit: Limit, texts: tuple[str, ...]) -> object:
    """What the kernel's texts mean, in the form of ``limit.value``."""
    knob = KNOBS.get(limit.knob) or hugetlb(1 << 21)  # every huge page size is encoded alike
    return knob.decode(texts, limit.version, limit.value)


def binding(limit: Limit) -> tuple[str, tuple[str, ...]]:
    """The file whose value really binds: the limit's own, or that of an ancestor with a tighter one.

    Memory, tasks and CPU quota are hierarchical: what an ancestor allows is shared by everything below it. So is the
    protection of memory: an ancestor with less of it bounds the protection from everything outside of that ancestor.

    :returns: absolute path, and those of all ancestors that have a limit.
    """
    protects = limit.knob in ("memory_low", "memory_min") and limit.version == 2
    if limit.knob not in ("memory", "memory_high", "swap_max", "pids_limit", "cpus") and not protects:
        return limit.files[-1], ()
    tightest, where = _amount(limit.value), limit.files[-1]
    above = []
    for directory in limit.ancestors:
        paths = tuple(f"{directory}/{path.rpartition('/')[2]}" for path in limit.files)
        try:
            amount = _amount(decode(limit, tuple(files.read(path) for path in paths)))
        except (CgroupError, ValueError, IndexError):
            continue  # the ancestor has no such file: it limits nothing
        if amount != float("inf") and not protects:
            above.append(paths[-1])
        if amount < tightest:
            tightest, where = amount, paths[-1]
    return where, tuple(above)


def _amount(value: object) -> float:
    """How much a value allows, comparable between cgroups: bytes, tasks, or CPUs."""
    if isinstance(value, tuple):
        quota, period = value
        return float("inf") if quota == UNLIMITED else quota / period
    return float("inf") if value == UNLIMITED else float(str(value))


def _has_words(wish: str, text: str) -> bool:
    """A raw value holds when each of its words is in the file, sizes with a suffix as plain numbers too."""
    present = set(text.split())
    return all(word in present or _plain(word) in present for word in wish.split())


def _plain(word: str) -> str:
    number, scale = word[:-1], SUFFIXES.get(word[-1:].lower(), 0)
    return str(int(number) * scale) if scale and number.isdecimal() else word
