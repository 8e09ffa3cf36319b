"""What of a comparison follows from a plan alone. Pure."""

from __future__ import annotations

from ..cgroup.hierarchy import CGROUP_MOUNT
from ..isolation.exposure import exposure
from ..isolation.paths import is_within
from ..report import LimitReport
from ..spec import Spec
from ..spelling import flag_of
from ..steps import Limit, Phase, Plan, Step, Where
from .compare import Isolation, Reach, Told
from .explain import arguments

PROCESS = ("rlimit", "deadline", "watch")
"""Ops that realise a limit without a cgroup's file."""
NAMESPACES = ("namespaces", "id_map", "new_id_map", "clone3")
"""Ops of the guard that isolate."""
UNRELATED = ("hold", "rlimit", "oom_score_adj", "nice", "ionice", "execve")
"""Ops inside that do not."""


def wishes(plan: Plan) -> tuple[Told, ...]:
    """What becomes of each wish, in the plan's order; those that are unmet come last."""
    steps = [step for step in plan.steps if step.realises and step.op != "read_back"]
    written = _written(plan)
    taken: dict[str, int] = {}
    found = []
    for index, limit in enumerate(plan.limits):
        if written.get(index):
            found.append(_told(limit, "file", tuple(_file(step) for step in written[index])))
        elif limit.files:
            place = taken.get(limit.realises, 0)
            told = _properties(limit, steps, place, alone=_is_alone(plan, limit))
            taken[limit.realises] = place + 1
            found.append(_told(limit, "property", tuple(map(property_text, told))))
        else:
            ours = (step for step in steps if step.realises == limit.realises and step.op in PROCESS)
            found.append(_told(limit, "process", tuple(f"{step.op} {arguments(step)}" for step in ours)))
    return (*found, *(Told(realises=one.realises, flag=flag_of(one.realises), asked="", unmet=one.reason)
                      for one in plan.unmet))


def seen(told: Told, limit: LimitReport) -> Told:
    """Return ``told`` with what the run read. ``held`` stays None if no file was read, as for a resource limit."""
    return told._replace(read_back=limit.read_back, held=None if limit.read_back is None else limit.enforced)


def besides(plan: Plan) -> tuple[str, ...]:
    """The properties that realise no wish: those of every unit of ours."""
    return tuple(property_text(step) for step in plan.steps if step.op == "property" and not step.realises)


def reach(plan: Plan) -> Reach:
    """How the plan gets there, in numbers."""
    def count(*ops: str) -> int:
        return sum(step.op in ops for step in plan.steps)

    enabled = sum(len(step.args) - 1 for step in plan.steps if step.op == "enable")
    read = sum(len(step.args) - 1 for step in plan.steps if step.op == "read_back")
    return Reach(cgroups=count("mkdir", "split"), writes=count("write", "inherit") + enabled, reads=read,
                 properties=count("property"), calls=count("start_unit", "start_service", "stop_unit"))


def isolation(plan: Plan, spec: Spec) -> Isolation:
    """What is done for it by the guard, the init and the workload, wherever the cgroup is."""
    import zlib

    steps = [(step.op, step.args) for step in plan.steps if step.op in NAMESPACES
             or (step.where in (Where.INIT, Where.WORKLOAD) and step.phase in (Phase.ENTER, Phase.EXEC)
                 and step.op not in UNRELATED and not _shows_cgroups(step))]
    found = exposure(spec, plan)
    return Isolation(len(steps), f"{zlib.crc32(repr(steps).encode()):08x}", found.score, found.band)


def _shows_cgroups(step: Step) -> bool:
    """True if the step shows cgroups inside. Which ones depends on the driver, and it isolates nothing."""
    return any(is_within(str(arg), CGROUP_MOUNT) for arg in step.args)


def property_text(step: Step) -> str:
    """``MemoryMax = 67108864 (t)``: name, value and D-Bus type."""
    name, signature, *words = map(str, step.args)
    return f"{name} = {' '.join(words) or 'none'} ({signature})"


def name_and_value(text: str) -> tuple[str, str]:
    """The name and the value in a :func:`property_text`."""
    name, _, rest = text.partition(" = ")
    return name, rest.rpartition(" (")[0]


def directories(plan: Plan) -> tuple[str, ...]:
    """The cgroups that take part: those with limits first, then those that only count."""
    files = (*(file for limit in plan.limits for file in limit.files), *(read.file for read in plan.reads))
    return tuple(dict.fromkeys(file.rpartition("/")[0] for file in files))


def _told(limit: Limit, by: str, words: tuple[str, ...]) -> Told:
    return Told(realises=limit.realises, flag=flag_of(limit.realises), asked=limit.asked, knob=limit.knob, words=words,
                by=by, applied=limit.applied, file=limit.files[-1] if limit.files else "", note=limit.note)


def _written(plan: Plan) -> dict[int, list[Step]]:
    """The writes of each limit, by its place in the plan's limits: those that come before it is read back."""
    found: dict[int, list[Step]] = {}
    pending: list[Step] = []
    for step in plan.steps:
        if step.op == "write" and step.realises:
            pending.append(step)
        elif step.op == "read_back":
            found[int(str(step.args[0]))] = pending
            pending = []
    return found


def _is_alone(plan: Plan, limit: Limit) -> bool:
    return sum(one.realises == limit.realises and bool(one.files) for one in plan.limits) == 1


def _properties(limit: Limit, steps: list[Step], place: int, *, alone: bool) -> list[Step]:
    """One limit may take several properties; where several limits realise one wish, each takes one."""
    found = [step for step in steps if step.op == "property" and step.realises == limit.realises]
    return found if alone else found[place:place + 1]


def _file(step: Step) -> str:
    return f"{str(step.args[0]).rpartition('/')[2]} = {step.args[1]}"
