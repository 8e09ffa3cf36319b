"""Profiles of system calls in docker's JSON format, settled for one machine: :func:`settle`. Pure.

The format is moby's (``profiles/seccomp``), which is that of the OCI runtime specification with conditions; podman's
has the name of an error besides its number. Whatever a rule says that is not known here is refused: to pass over a
condition could let through what it keeps out.
"""

from __future__ import annotations

import re
from errno import errorcode

from ..errors import SpecError
from ..spelling import spelled
from ..stdlib import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

# <linux/seccomp.h>: what a filter returns.
ALLOW, ERRNO, TRACE = 0x7FFF_0000, 0x0005_0000, 0x7FF0_0000
ACTIONS = {
    "SCMP_ACT_ALLOW": ALLOW, "SCMP_ACT_ERRNO": ERRNO, "SCMP_ACT_TRACE": TRACE, "SCMP_ACT_TRAP": 0x0003_0000,
    "SCMP_ACT_LOG": 0x7FFC_0000, "SCMP_ACT_KILL": 0, "SCMP_ACT_KILL_THREAD": 0, "SCMP_ACT_KILL_PROCESS": 0x8000_0000,
}
OPERATORS = ("SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT",
             "SCMP_CMP_MASKED_EQ")
"""libseccomp's ``enum scmp_compare`` from 1 on."""
MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "x86"}
"""Where docker's name of a machine is not that of uname(2)."""
ARCHITECTURES = {"x86_64": ("x86_64", "x86", "x32"), "aarch64": ("aarch64", "arm"), "s390x": ("s390x", "s390")}
"""libseccomp's names of the architectures whose programs a machine can run, the native one first. Machines that are not
listed run native programs only."""
# The flags of a profile are about logging and about speculation, where the kernel's defaults stand.
TOP_KEYS = frozenset(("defaultAction", "defaultErrnoRet", "defaultErrno", "syscalls", "archMap", "architectures",
                      "flags", "comment"))
RULE_KEYS = frozenset(("name", "names", "action", "errnoRet", "errno", "args", "comment", "includes", "excludes"))
MAP_KEYS = frozenset(("architecture", "subArchitectures"))
CONDITION_KEYS = frozenset(("caps", "arches", "minKernel"))
ARG_KEYS = frozenset(("index", "value", "valueTwo", "op"))
ERRORS = {name: number for number, name in errorcode.items()}
MAX_ERRNO, MAX_VALUE = 4095, 2**64 - 1
VERSION = r"([0-9]+)\.([0-9]+)"


class Comparison(NamedTuple):
    """A condition on an argument: ``libseccomp``'s ``struct scmp_arg_cmp``.

    :param argument: its index, from 0.
    :param operator: number of the comparison, from 1.
    :param value: what is compared with; for ``MASKED_EQ`` the mask.
    :param value_two: for ``MASKED_EQ`` what is left after the mask.
    """

    argument: int
    operator: int
    value: int
    value_two: int = 0


class Rule(NamedTuple):
    """What happens to a call when all the comparisons hold."""

    name: str
    action: int
    comparisons: tuple[Comparison, ...] = ()


class Rules(NamedTuple):
    """A profile for one machine.

    :param default: what happens to calls that no rule is about.
    :param rules: what happens to the others.
    :param architectures: besides the native one, those whose programs may run, by libseccomp's names.
    """

    default: int
    rules: tuple[Rule, ...]
    architectures: tuple[str, ...] = ()


class Machine(NamedTuple):
    """What conditions are about.

    :param capabilities: those the workload has, and ``SANDBOX_NEST`` with ``--nest``.
    :param kernel: release, as ``uname -r`` prints it.
    :param name: architecture, as ``uname -m`` prints it.
    """

    capabilities: tuple[str, ...]
    kernel: str
    name: str


def settle(text: str, source: str, machine: Machine) -> Rules:
    """The rules of a profile that hold on ``machine``.

    :param source: where it is from, for messages.
    :raises SpecError: it is not such a profile; the place in it is named.
    """
    import json

    try:
        profile = _Object(json.loads(text), TOP_KEYS, source, "the profile")
    except (ValueError, RecursionError) as error:
        if isinstance(error, SpecError):
            raise
        raise _refusal(source, f"is not JSON: {error}") from error
    default = profile.action("defaultAction", "defaultErrno")
    rules = [rule for entry in profile.objects("syscalls", RULE_KEYS) for rule in _rules(entry, machine)
             if rule.action != default]  # libseccomp refuses what says no more than the default
    return Rules(default, tuple(dict.fromkeys(rules)), tuple(_architectures(profile, machine)))


class _Object:
    """One object of the JSON text, read strictly.

    :param place: where it stands, for messages.
    """

    def __init__(self, value: object, keys: frozenset[str], source: str, place: str) -> None:
        self._source, self._place = source, place
        if not isinstance(value, dict):
            raise self.refusal("is not an object")
        strange = sorted(value.keys() - keys)
        if strange:
            raise self.refusal(f"has a key {strange[0]!r} that is not known here")
        self.value: dict[str, object] = value

    def refusal(self, problem: str) -> SpecError:
        return _refusal(self._source, f"{self._place} {problem}")

    def items(self, key: str) -> list[object]:
        value = self.value.get(key)
        if value is not None and not isinstance(value, list):
            raise self.refusal(f"has {key} that is not a list")
        return value or []

    def objects(self, key: str, keys: frozenset[str]) -> list[_Object]:
        place = "" if self._place == "the profile" else f"{self._place}."
        return [_Object(one, keys, self._source, f"{place}{key}[{number}]")
                for number, one in enumerate(self.items(key))]

    def object(self, key: str, keys: frozenset[str]) -> _Object:
        return _Object(self.value.get(key) or {}, keys, self._source, f"{self._place}.{key}")

    def words(self, key: str) -> list[str]:
        words = self.items(key)
        if not all(isinstance(word, str) for word in words):
            raise self.refusal(f"has {key} with something that is not text")
        return [str(word) for word in words]

    def word(self, key: str, known: Collection[str], default: str = "") -> str:
        word = self.value.get(key, default)
        if not isinstance(word, str) or word not in known:
            raise self.refusal(f"has {key} {word!r}, which is not one of {' '.join(known)}")
        return word

    def number(self, key: str, highest: int, default: int = 0) -> int:
        value = self.value.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= highest:
            raise self.refusal(f"has {key} {value!r}, which is not a number from 0 to {highest}")
        return value

    def version(self, key: str) -> tuple[int, int] | None:
        value = self.value.get(key)
        if value is None:
            return None
        found = re.match(VERSION, value) if isinstance(value, str) else None
        if found is None:
            raise self.refusal(f"has {key} {value!r}, which is not a version such as 4.8")
        return int(found[1]), int(found[2])

    def action(self, key: str, errno_key: str) -> int:
        """The action as a filter returns it; refusing without a number is EPERM, as in runc."""
        action = ACTIONS[self.word(key, ACTIONS)]
        if action not in (ERRNO, TRACE):
            return action
        return action | self.number(f"{errno_key}Ret", MAX_ERRNO, ERRORS[self.word(errno_key, ERRORS, "EPERM")])


def _refusal(source: str, problem: str) -> SpecError:
    return SpecError(f"{spelled('security_opt', f'seccomp={source}')}: {problem}", field="security_opt",
                     hint="the format is that of docker's seccomp profiles")


def _architectures(profile: _Object, machine: Machine) -> Iterator[str]:
    """Yield the further architectures that the profile allows and that the machine can run.

    docker's ``archMap`` lists them for each native one, OCI's ``architectures`` for all machines together.
    """
    native, *further = ARCHITECTURES.get(machine.name, (machine.name,))
    allowed, entries = profile.words("architectures"), profile.objects("archMap", MAP_KEYS)
    if allowed and entries:
        raise profile.refusal("has both architectures and archMap")
    for entry in entries:
        sub_architectures = entry.words("subArchitectures")
        if entry.value.get("architecture") == _constant(native):
            allowed += sub_architectures
    return (one for one in further if _constant(one) in allowed)


def _constant(architecture: str) -> str:
    """Return libseccomp's constant for an architecture."""
    return f"SCMP_ARCH_{architecture.upper()}"


def _rules(entry: _Object, machine: Machine) -> Iterator[Rule]:
    """What one entry of the list comes to: all of it is read, also when its conditions do not hold."""
    action = entry.action("action", "errno")
    names = entry.words("names") + ([str(entry.value["name"])] if "name" in entry.value else [])
    comparisons = tuple(_comparison(one) for one in entry.objects("args", ARG_KEYS))
    includes, excludes = (entry.object(key, CONDITION_KEYS) for key in ("includes", "excludes"))
    if _included(includes, machine) and not _excluded(excludes, machine):
        for name in names:
            for alternative in _alternatives(comparisons):
                yield Rule(name, action, alternative)


def _comparison(arg: _Object) -> Comparison:
    return Comparison(arg.number("index", 5), OPERATORS.index(arg.word("op", OPERATORS)) + 1,
                      arg.number("value", MAX_VALUE), arg.number("valueTwo", MAX_VALUE))


def _alternatives(comparisons: tuple[Comparison, ...]) -> Iterable[tuple[Comparison, ...]]:
    """All must hold; but several about the same argument are alternatives, each a rule of its own, as in runc."""
    arguments = {one.argument for one in comparisons}
    return [comparisons] if len(arguments) == len(comparisons) else [(one,) for one in comparisons]


def _included(conditions: _Object, machine: Machine) -> bool:
    """As moby reads it: all the capabilities, one of the architectures, a kernel that is new enough."""
    arches, least = conditions.words("arches"), conditions.version("minKernel")
    return (set(conditions.words("caps")) <= set(machine.capabilities) and (not arches or _arch(machine) in arches)
            and (least is None or _kernel(machine) >= least))


def _excluded(conditions: _Object, machine: Machine) -> bool:
    """One of the capabilities, one of the architectures, or a kernel from this one on."""
    least = conditions.version("minKernel")
    return (not set(machine.capabilities).isdisjoint(conditions.words("caps"))
            or _arch(machine) in conditions.words("arches") or (least is not None and _kernel(machine) >= least))


def _arch(machine: Machine) -> str:
    return MACHINES.get(machine.name, machine.name)


def _kernel(machine: Machine) -> tuple[int, int]:
    found = re.match(VERSION, machine.kernel)
    return (int(found[1]), int(found[2])) if found else (0, 0)
