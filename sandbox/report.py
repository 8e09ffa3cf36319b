"""How a run ended and what it used: :class:`Report`."""

from __future__ import annotations

from .errors import ExecError, LimitExceeded, SandboxError
from .knobs import PROTECTIONS
from .spec import Spec
from .spelling import flag_of
from .stdlib import TYPE_CHECKING, NamedTuple, StrEnum, dataclass, field, field_names, signal
from .steps import CHILDREN, Done, Plan, Step, Unmet, masked
from .units import show_seconds, show_size
from .usage import Usage

if TYPE_CHECKING:
    from .isolation.exposure import Exposure

SCHEMA_VERSION = 1
"""Raised when a key changes its meaning or goes; new keys may come without."""

WALL_TIME_EXIT = 124
CPU_TIME_EXIT = 128 + signal.SIGXCPU
"""What a shell reports of a process that RLIMIT_CPU ended."""


class Outcome(StrEnum):
    """How a run ended."""

    EXITED = "exited"
    SIGNALED = "signaled"
    OOM = "oom"
    WALL_TIME = "wall_time"
    CPU_TIME = "cpu_time"
    KILLED = "killed"
    FAILED = "failed"


class Evidence(NamedTuple):
    """A counter of the kernel: ``key`` in ``file`` was ``value`` at the end. A counter of a cgroup above the run's own
    counts more than this run: there ``value`` is by how much it rose."""

    file: str
    key: str
    value: int


class LimitReport(NamedTuple):
    """What became of one limit.

    :param realises: field of the Spec.
    :param flag: the flag that sets it.
    :param asked: as the user gave it.
    :param applied: as the kernel was given it.
    :param file: the kernel file; for rlimits and watches None.
    :param files: it and, before it, others that the limit takes, as cgroup v1's file for the period of a CPU quota.
    :param read_back: what the files said at the end of the run.
    :param enforced: the kernel held it from before the execve to the end.
    :param binding: the file whose value really binds, when an ancestor's is tighter than ours.
    :param note: a conversion or rounding.
    """

    realises: str
    flag: str
    asked: str
    applied: str
    file: str | None
    files: tuple[str, ...]
    read_back: str | None
    enforced: bool
    binding: str | None
    note: str


class LabelReport(NamedTuple):
    """The label that a security module put on the command.

    :param module: ``selinux`` or ``apparmor``.
    :param flag: the option that asks for the label.
    :param label: what the kernel showed as the label of the process after its execve; None if it could not be read.
    :param enforced: the process got the label, and what the label forbids is refused, not just logged.
    :param note: what the label keeps the command from that a reader may miss.
    """

    module: str
    flag: str
    label: str | None
    enforced: bool
    note: str = ""


class RefusedCall(NamedTuple):
    """A system call that the filter refused.

    :param call: its name; the number when it has none here; ``others`` when there were too many to tell apart.
    :param errno: the error it was answered with, as ``EPERM``.
    :param count: how often.
    """

    call: str
    errno: str
    count: int  # type: ignore[assignment]  # it hides the method of tuples, which nobody needs here


class Frozen(NamedTuple):
    """A process that SIGKILL cannot end, because a freezer cgroup of cgroup v1 is frozen.

    :param pid: its process id as the launcher sees it.
    :param cgroups: directories of the freezer cgroups that are to be thawed.
    :param reason: why the guard could not move the process out of them.
    """

    pid: int
    cgroups: tuple[str, ...]
    reason: str


class StepReport(NamedTuple):
    """One executed step: its number in the plan, where, what, and how long (None: not timed one by one)."""

    number: int
    phase: str
    where: str
    op: str
    args: tuple[object, ...]
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything about one finished run.

    ``why``, ``limits`` and ``notes`` name options by their flags, in the library too. ``unmet`` and ``driver_reason``
    name them as errors do.

    :param outcome: how it ended.
    :param code: the command's own exit code; None when it was killed by a signal or never ran.
    :param signal: the signal that killed it, if one did.
    :param why: one sentence.
    :param hint: what the command certainly cannot have with these flags, and the flag that gives it, for a command that
        failed; often empty.
    :param evidence: the counters behind ``why``.
    :param usage: what it used.
    :param limits: what became of each limit.
    :param unmet: what could not be enforced (only with ``best_effort``).
    :param notes: what a reader should know.
    :param driver: who made the cgroup, and ``driver_reason`` why that one.
    :param name: name of the sandbox.
    :param argv: the command.
    :param done: the steps of the launcher that were carried out; not in the JSON, which has all ``steps``.
    :param lost: sandbox-init was killed; not in the JSON.
    :param exec_errno: why execve failed, if it did.
    :param exec_exit: exit code for that: 126 or 127.
    :param refused_calls: what the filter of system calls refused; None when it was not asked for (``seccomp_log``).
    :param frozen: a process that outlives the run, because SIGKILL has no effect on it; None if every process ended.
    :param labels: what became of each label of ``--security-opt``.
    :param landlock_abi: version of the kernel's Landlock, 0 when it is off; None when it is not known.
    :param spec: what was wanted, and ``plan`` what was planned for it; not in the JSON.
    """

    outcome: Outcome
    code: int | None = None
    signal: int | None = None
    why: str = ""
    hint: str = ""
    evidence: tuple[Evidence, ...] = ()
    usage: Usage = field(default_factory=Usage)
    limits: tuple[LimitReport, ...] = ()
    unmet: tuple[Unmet, ...] = ()
    notes: tuple[str, ...] = ()
    driver: str = ""
    driver_reason: str = ""
    name: str = ""
    argv: tuple[str, ...] = ()
    done: tuple[Done, ...] = field(default=(), repr=False)
    lost: bool = field(default=False, repr=False)
    exec_errno: int | None = None
    exec_exit: int | None = None
    refused_calls: tuple[RefusedCall, ...] | None = None
    frozen: Frozen | None = None
    labels: tuple[LabelReport, ...] = ()
    landlock_abi: int | None = None
    spec: Spec | None = field(default=None, repr=False)
    plan: Plan | None = field(default=None, repr=False)

    @property
    def steps(self) -> tuple[StepReport, ...]:
        """What was carried out, in the plan's order. The steps of sandbox-init are not timed: it tells which failed."""
        if self.plan is None:
            return ()
        seconds = {one.number: one.seconds for one in self.done}
        started = self.exec_errno is None and not self.lost

        def was(number: int, step: Step) -> bool:
            if step.op == "label" and not self.labels:
                return False
            return number in seconds if step.where not in CHILDREN else started or step.op != "execve"

        return tuple(StepReport(number=number, phase=step.phase, where=step.where, op=step.op, args=masked(step),
                                seconds=seconds.get(number))
                     for number, step in enumerate(self.plan.steps, 1) if was(number, step))

    @property
    def exposure(self) -> Exposure | None:
        """What the run could reach of the host; None when it is not known what was planned."""
        from .isolation.exposure import exposure

        return None if self.spec is None or self.plan is None else exposure(self.spec, self.plan)

    @property
    def landlock_scopes(self) -> tuple[str, ...]:
        """What of the workload ends at the sandbox's edge: ``abstract_unix_socket``, ``signal``."""
        from .isolation.landlock import scopes

        return () if self.plan is None else scopes(self.plan)

    @property
    def exit_code(self) -> int:
        """What ``sandbox run`` exits with: the command's own, 128+n, 124 wall time, 152 CPU time, 125 to 127."""
        if self.outcome is Outcome.WALL_TIME:
            return WALL_TIME_EXIT
        if self.outcome is Outcome.CPU_TIME:
            return CPU_TIME_EXIT
        if self.signal is not None:
            return 128 + self.signal
        if self.code is not None:
            return self.code
        return self.exec_exit if self.exec_exit is not None else SandboxError.exit_code

    @property
    def limit_ended(self) -> bool:
        """A limit ended the run, or the kernel killed for memory in it."""
        return self.outcome in (Outcome.OOM, Outcome.WALL_TIME, Outcome.CPU_TIME) or bool(self.usage.oom_kill)

    def check(self) -> None:
        """Raise unless the command ran and exited with 0.

        :raises ExecError: it never ran.
        :raises LimitExceeded: a limit ended it.
        :raises SandboxError: any other bad end.
        """
        if self.exec_errno is not None:
            raise ExecError(self.why, errno=self.exec_errno, exit_code=self.exit_code)
        if self.limit_ended:
            raise LimitExceeded(self.why)
        if self.outcome is not Outcome.EXITED or self.code != 0:
            raise SandboxError(self.why)

    def to_json(self) -> dict[str, object]:
        """The report as plain data; ``report.schema.json`` beside this module describes it."""
        names = [name for name in field_names(Report) if name not in ("spec", "plan", "done", "lost")]
        data: dict[str, object] = {"schema_version": SCHEMA_VERSION}
        data |= {name: _plain(getattr(self, name)) for name in (*names, "steps", "landlock_scopes", "exposure")}
        data["exit_code"] = data.pop("code")
        data["runner_exit_code"] = self.exit_code
        data.pop("exec_exit")
        data["unmet"] = [{**unmet._asdict(), "flag": flag_of(unmet.realises)} for unmet in self.unmet]
        return data

    def summary(self, *, verbose: bool = False, unmet: bool = True) -> str:
        """A short text for people; one line about the end, with ``verbose`` the usage and the limits too.

        :param unmet: list what could not be enforced.
        """
        lines = [f"{self.outcome}: {self.why}"]
        if verbose:
            lines += [*_usage_lines(self.usage), *map(_limit_line, self.limits), *map(_label_line, self.labels),
                      *_exposure_lines(self.exposure)]
        lines += [f"hint: {self.hint}"] if self.hint else []
        lines += [f"not enforced: {flag_of(one.realises)}: {one.reason}" for one in self.unmet if unmet]
        lines += [f"warning: {one.flag}: {one.note}" for one in self.labels if one.note]
        if self.refused_calls is not None:
            lines.append(f"refused by the filter: {', '.join(map(_refused, self.refused_calls)) or 'nothing'}")
        if verbose:
            lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)


def _plain(value: object) -> object:
    """Records as mappings, tuples as lists: what JSON knows."""
    if isinstance(value, Usage):
        return {name: _plain(getattr(value, name)) for name in field_names(type(value))}
    if hasattr(value, "_asdict"):
        return {name: _plain(member) for name, member in value._asdict().items()}
    return [_plain(member) for member in value] if isinstance(value, tuple | list) else value


def _usage_lines(usage: Usage) -> list[str]:
    parts = f"user {_seconds(usage.cpu_user)}, system {_seconds(usage.cpu_system)}"
    rows = [
        ("wall time", _seconds(usage.wall_time)),
        ("CPU time", f"{_seconds(usage.cpu_time)} ({parts})"),
        ("memory peak", _size(usage.memory_peak)),
        ("tasks peak", "unknown" if usage.pids_peak is None else str(usage.pids_peak)),
    ]
    if usage.throttled_periods:
        rows.append(("throttled", f"{usage.throttled_periods} of {usage.periods} periods, "
                                  f"{_seconds(usage.throttled_time)} in all"))
    if usage.oom_kill:
        rows.append(("killed for memory", f"{usage.oom_kill} process(es)"))
    rows += [(f"disk {disk.device}", f"read {show_size(disk.read_bytes)} in {disk.read_operations}, "
                                     f"wrote {show_size(disk.write_bytes)} in {disk.write_operations} operations")
             for disk in usage.io]
    return [f"  {name:<18} {value}" for name, value in rows]


def _refused(one: RefusedCall) -> str:
    return f"{one.call} {one.errno}" + (f" x{one.count}" if one.count > 1 else "")


def _exposure_lines(exposure: Exposure | None) -> list[str]:
    if exposure is None:
        return []
    opened = ", ".join(one.item for one in exposure.items if one.open)
    return [f"  {'exposure':<18} {exposure.score} of 10 ({exposure.band}); open: {opened or 'nothing'}"]


def _seconds(value: float | None) -> str:
    return "unknown" if value is None else show_seconds(value)


def _size(value: int | None) -> str:
    return "unknown" if value is None else show_size(value)


def _together(files: tuple[str, ...]) -> str:
    """``DIRECTORY/{cpu.cfs_period_us,cpu.cfs_quota_us}``, as a shell would take it."""
    directory, names = files[0].rpartition("/")[0], [file.rpartition("/")[2] for file in files]
    return f"{directory}/{names[0]}" if len(names) == 1 else f"{directory}/{{{','.join(names)}}}"


def _limit_line(limit: LimitReport) -> str:
    where = f" in {_together(limit.files)}" if limit.files else ""
    held = "enforced" if limit.enforced else "NOT ENFORCED"
    text = f"  {limit.flag} {limit.asked}: {limit.applied}{where}, {held}"
    if limit.binding and limit.binding != limit.file:
        text += f"; {limit.binding} is {_BOUND.get(limit.binding.rpartition('/')[2], 'tighter and binds')}"
    return text + (f" ({limit.note})" if limit.note else "")


_BOUND = dict.fromkeys(PROTECTIONS, "less, and bounds the protection from everything outside of that cgroup")


def _label_line(one: LabelReport) -> str:
    held = "enforced" if one.enforced else "NOT ENFORCED"
    return f"  {one.flag}: {one.label or 'unknown'} by {one.module}, {held}"


def json_text(report: Report) -> str:
    """The report as JSON, which ``report.schema.json`` describes."""
    from .json_text import dumps

    return dumps(report.to_json()) + "\n"
