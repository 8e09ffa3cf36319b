"""From what happened to a :class:`~sandbox.report.Report`: the outcome, one sentence, and the evidence for it."""

from __future__ import annotations

import os
from errno import ENOENT

from .ancestors import OOMD, Rise
from .report import Evidence, Frozen, LabelReport, LimitReport, Outcome, RefusedCall, Report
from .spec import Spec
from .spelling import flag_of
from .stdlib import TYPE_CHECKING, dataclass, signal, signal_name
from .steps import Done, Limit, Plan, Read, Unmet
from .usage import Usage, pages_of
from .verify import Reading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .oom import Kills
    from .records import Ulimit

TIME_LIMITS = ("wall_time", "cpu_time")
WITHOUT_LIMIT = {"CONSTRAINT_CPUSET": "the memory nodes of its cpuset were full",
                 "CONSTRAINT_MEMORY_POLICY": "the memory nodes of its NUMA policy were full"}
"""Sentences for out-of-memory kills without a cgroup limit, by the kernel's constraint."""


@dataclass(slots=True)
class Ending:
    """What sandbox-init told of the end.

    :param status: wait(2) status of the workload; None when it never ran or nobody saw it die.
    :param reason: why the guard stopped it: ``wall_time``, ``cpu_time``, ``killed``; empty when it did not.
    :param hard: it took SIGKILL to end it.
    :param exec_error: errno, path and whether the file exists, when execve failed.
    :param remark: a clause about the command that was not found; empty if there is nothing to add.
    :param lost: the guard itself was killed.
    :param frozen: a process that SIGKILL cannot end, because its freezer cgroup is frozen.
    """

    status: int | None = None
    reason: str = ""
    hard: bool = False
    exec_error: tuple[int, str, bool] | None = None
    remark: str = ""
    lost: bool = False
    frozen: Frozen | None = None


def judge(spec: Spec, plan: Plan, ending: Ending, usage: Usage, readings: Sequence[Reading],
          log: Kills | None = None, *, driver_reason: str,
          done: Sequence[Done], unmet: Sequence[Unmet], refused: tuple[RefusedCall, ...] | None = None,
          labels: tuple[LabelReport, ...] = (), landlock_abi: int | None = None,
          rises: Sequence[Rise] = (), task_limits: Sequence[str] = ()) -> Report:
    """Put the report together. Pure.

    :param readings: what became of each limit of the plan.
    :param log: what the kernel's log says about out-of-memory kills; None if it says nothing or is not readable.
    :param done: host steps that were carried out.
    :param unmet: limits that failed while they were set (``best_effort``).
    :param refused: system calls that the filter refused; None when they were not counted.
    :param labels: what became of each label.
    :param landlock_abi: as the Host has it.
    :param rises: counters of the ancestor cgroups that rose during the run.
    :param task_limits: each ``pids.max`` that limits tasks, its own and the ancestors'; only needed where the kernel
        does not count in which cgroup the limit was that refused a fork.
    """
    oomd = _oomd(rises)
    code, number = _status(ending, usage, oomd)
    outcome = _outcome(ending, usage, log, oomd, code, number)
    errno, exit_code = _exec_failure(ending)
    failed = {one.realises for one in unmet}
    failed_by_itself = outcome in (Outcome.EXITED, Outcome.SIGNALED) and (code or number)
    return Report(
        outcome=outcome, code=code, signal=number, hint=_hint(spec, code, number) if failed_by_itself else "",
        why=_why(spec, plan, ending, outcome, usage, readings, log, rises, code, number)
        + _forks(plan, usage, rises, task_limits),
        evidence=(*_evidence(plan.reads, usage), *(Evidence(rise.file, rise.key, rise.times) for rise in rises)),
        usage=usage, argv=spec.argv,
        limits=tuple(_limit(limit, reading) for limit, reading in zip(plan.limits, readings, strict=True)
                     if limit.realises not in failed),
        unmet=(*plan.unmet, *unmet), notes=plan.notes, driver=plan.driver, driver_reason=driver_reason,
        name=plan.name, done=tuple(done), lost=ending.lost,
        exec_errno=errno, exec_exit=exit_code, refused_calls=refused, frozen=ending.frozen, labels=labels,
        landlock_abi=landlock_abi, spec=spec, plan=plan)


def _hint(spec: Spec, code: int | None, number: int | None) -> str:
    from .hints import hint

    return hint(spec, code, number)


def _oomd(rises: Sequence[Rise]) -> Rise | None:
    """Return the counter of the cgroup, the run's own or one above, that systemd-oomd killed; None without one."""
    return next((rise for rise in rises if rise.key == OOMD), None)


def _status(ending: Ending, usage: Usage, oomd: Rise | None) -> tuple[int | None, int | None]:
    """Exit code and signal of the workload."""
    if ending.status is None:
        if ending.frozen is not None:
            return None, int(signal.SIGKILL)
        # The OOM killer chose the init. When pid 1 dies, the kernel sends SIGKILL to all of its pid namespace
        # (pid_namespaces(7)). systemd-oomd kills all processes of a unit, also the guard of a service.
        init_was_chosen = oomd or (usage.oom_kill and not ending.lost)
        return None, int(signal.SIGKILL) if init_was_chosen and not (ending.reason or ending.exec_error) else None
    if os.WIFSIGNALED(ending.status):
        return None, os.WTERMSIG(ending.status)
    return os.WEXITSTATUS(ending.status), None


def _outcome(ending: Ending, usage: Usage, log: Kills | None, oomd: Rise | None, code: int | None,
             number: int | None) -> Outcome:
    if ending.exec_error:
        return Outcome.FAILED
    if ending.reason in TIME_LIMITS:
        return Outcome(ending.reason)
    if ending.reason:
        return Outcome.KILLED
    if oomd and number == signal.SIGKILL:
        return Outcome.OOM
    # Only if the OOM killer killed the command itself. A shell that exits with 137 has ended by itself.
    if usage.oom_kill and number == signal.SIGKILL and not (log and log.command is False and ending.status is not None):
        return Outcome.OOM
    if number is None and code is None:
        return Outcome.FAILED
    return Outcome.EXITED if number is None else Outcome.SIGNALED


def _exec_failure(ending: Ending) -> tuple[int | None, int | None]:
    """errno and exit code: 127 when there is no such file, 126 when it cannot be executed."""
    if ending.exec_error is None:
        return None, None
    errno, _, exists = ending.exec_error
    return errno, 127 if errno == ENOENT and not exists else 126


def _why(spec: Spec, plan: Plan, ending: Ending, outcome: Outcome, usage: Usage, readings: Sequence[Reading],
         log: Kills | None, rises: Sequence[Rise], code: int | None, number: int | None) -> str:
    command = spec.argv[0]
    oomd = _oomd(rises)
    if outcome is Outcome.OOM and oomd:
        return f"systemd-oomd killed it, for pressure on memory or swap ({OOMD} of {oomd.cgroup} rose by {oomd.times})"
    if outcome is Outcome.OOM:
        return _why_oom(plan, usage, readings, log, rises)
    killed = (f"; the kernel killed {usage.oom_kill} process(es) in it for memory, as "
              f"{_whose(plan, usage, readings, log, rises)}") if usage.oom_kill else ""
    if outcome is Outcome.WALL_TIME:
        return (f"the wall time limit of {spec.limits.timeout:g} s was over{_how(ending)}{_throttling(usage, rises)}"
                f"{killed}")
    if outcome is Outcome.CPU_TIME:
        return f"the CPU time limit of {spec.limits.cpu_time:g} s was used up{_how(ending)}{killed}"
    if ending.exec_error:
        return _why_exec(command, *ending.exec_error) + ending.remark
    if ending.status is None and ending.frozen is None and (ending.lost or outcome is Outcome.FAILED):
        return _why_lost(plan, ending, usage)
    if outcome is Outcome.KILLED:
        return f"{command} was stopped on request{_how(ending)}{killed}"
    end = f"{command} exited with {code}" if number is None else f"{command} was killed by {signal_name(number)}"
    end += _how(ending) + _resource_limit(spec, usage, number)
    if number == signal.SIGKILL and usage.oom_kill is None:
        # Without the memory controller, the run's own cgroup does not count OOM kills.
        end += "".join([f"; the memory limit of {rise.cgroup} was hit meanwhile, and the kernel killed processes below "
                        "it" for rise in rises if rise.key == "oom"])
    return end + killed


def _resource_limit(spec: Spec, usage: Usage, number: int | None) -> str:
    """Return the clause for a signal by which the kernel ends a process at a resource limit (setrlimit(2)).

    For RLIMIT_CPU the kernel counts by ticks, so the CPU time by the cgroup's counter may be a bit less.
    """
    ulimits = {one.name: one for one in spec.limits.ulimit}
    cpu = ulimits.get("cpu")
    if number == signal.SIGXFSZ and "fsize" in ulimits:
        return f"; a file would have grown beyond {_ulimit(ulimits['fsize'])}"
    if cpu and number == signal.SIGXCPU:
        return f"; it had used up {_ulimit(cpu)}"
    if cpu and number == signal.SIGKILL and isinstance(cpu.hard, int) and (usage.cpu_time or 0) >= 0.9 * cpu.hard:
        return (f"; all processes together used {usage.cpu_time:.2f} s of CPU time, and {_ulimit(cpu)} ends one "
                "that uses so much")
    return ""


def _ulimit(one: Ulimit) -> str:
    return f"{flag_of('limits.ulimit')} {one.name}={one.bounds}"


def _how(ending: Ending) -> str:
    if ending.lost:
        return "; sandbox-init was killed, and what the command had left with it" if ending.status is not None else (
            "; sandbox-init was killed, and the command with it")
    if ending.frozen is None:
        return "; SIGKILL was needed" if ending.hard else ""
    pid, cgroups, reason = ending.frozen
    thaw = " && ".join(f"echo THAWED > {cgroup}/freezer.state" for cgroup in cgroups)
    return (f"; {' and '.join(cgroups)} keeps process {pid} frozen, so SIGKILL has no effect on it, and the sandbox "
            f"could not move it out: {reason}; what is left ends by itself after `{thaw}`")


def _throttling(usage: Usage, rises: Sequence[Rise]) -> str:
    """Return the clause that says which CPU quotas held the command back."""
    clauses = [f"; its CPU quota ran out in {usage.throttled_periods} of {usage.periods} periods"
               ] if usage.throttled_periods else []
    clauses += [f"; the CPU quota of {rise.cgroup} ran out in {rise.times} periods"
                for rise in rises if rise.key == "nr_throttled"]
    return "".join(clauses)


def _forks(plan: Plan, usage: Usage, rises: Sequence[Rise], task_limits: Sequence[str]) -> str:
    """Return the clause that says which task limit refused forks.

    From Linux 6.12 on, cgroup v2 counts a refused fork in the cgroup whose limit was reached (``pids.events.local``).
    Elsewhere the kernel counts it in the cgroup that forked, and does not tell whose limit it was.
    """
    limit = next((limit for limit in plan.limits if limit.knob == "pids_limit"), None)
    clauses = [f"; the task limit of {rise.cgroup} refused {rise.times} fork(s) below it"
               for rise in rises if rise.file.endswith("/pids.events.local")]
    if usage.pids_failures:
        clauses.insert(0, f"; {_whose_tasks(limit, usage, task_limits)} refused {usage.pids_failures} fork(s)")
    return "".join(clauses)


def _whose_tasks(limit: Limit | None, usage: Usage, task_limits: Sequence[str]) -> str:
    file, _, _ = usage.sources["pids_failures"].partition(" ")
    cgroup = file.rpartition("/")[0]
    own = f"its task limit of {limit.asked}" if limit else ""
    if file.endswith(".local") or _is_reached(usage.pids_peak, limit):
        return own or f"the task limit of {cgroup}"
    return " or ".join([own if own and path == f"{cgroup}/pids.max" else f"the task limit in {path}"
                        for path in task_limits]) or own or "a task limit"


def _is_reached(peak: int | None, limit: Limit | None) -> bool:
    """True if as many tasks were there at once as the limit allows."""
    return peak is not None and limit is not None and limit.asked.isdecimal() and peak >= int(limit.asked)


def _why_lost(plan: Plan, ending: Ending, usage: Usage) -> str:
    """Return the sentence for an init that died before it could tell how the command ended.

    When the init of a systemd unit dies, systemd removes the unit's cgroup at once, and its counters are gone.
    """
    counted = any(read.figure == "oom_kill" for read in plan.reads)
    if counted and usage.oom_kill is None and not ending.lost:
        return ("sandbox-init was killed, and the command with it: from outside, or by the kernel for memory; the "
                "counter that would tell is gone with its cgroup")
    return "sandbox-init was killed from outside, and the command with it"


def _why_oom(plan: Plan, usage: Usage, readings: Sequence[Reading], log: Kills | None, rises: Sequence[Rise]) -> str:
    source = usage.sources.get("oom_kill", "")
    return (f"{_whose(plan, usage, readings, log, rises)}, and the kernel killed {usage.oom_kill} process(es) for "
            f"memory ({source} is {usage.oom_kill})")


def _whose(plan: Plan, usage: Usage, readings: Sequence[Reading], log: Kills | None,
           rises: Sequence[Rise]) -> str:
    """Return which memory limit was hit, or that the machine was out of memory; all candidates if it is not known."""
    rows = [(limit, reading) for limit, reading in zip(plan.limits, readings, strict=True) if limit.knob == "memory"]
    own = next((f"its memory limit of {limit.applied} bytes" for limit, _ in rows), "")
    above = " or ".join(path for _, reading in rows for path in reading.above)
    if log is not None and log.limit is not None:
        if not log.limit:
            return WITHOUT_LIMIT.get(log.constraint, "the machine was out of memory")
        directories = [file.rpartition("/")[0] for limit, _ in rows for file in limit.files]
        return f"{own if log.limit in directories else f'the memory limit of {log.limit}'} was hit"
    if usage.oom:
        return f"{own or 'the memory limit of its own cgroup'} was hit"
    if exhausted := [rise.cgroup for rise in rises if rise.key == "oom"]:
        return f"the memory limit of {' or '.join(exhausted)} was hit"
    if own and usage.oom is None and any(usage.memory_failures or _is_full(plan, usage.memory_peak, limit)
                                         for limit, _ in rows):
        return f"{own} or that in {above} was hit" if above else f"{own} was hit"
    if above:
        return f"the memory limit in {above} was hit, or the machine was out of memory"
    if not own and usage.memory_failures:  # cgroup v1: a property of the unit, which no option asked for
        return "the memory limit of its own cgroup, or one above it, was hit"
    return "a memory limit above this sandbox was hit, or the machine was out of memory"


def _is_full(plan: Plan, peak: int | None, limit: Limit) -> bool:
    """True if the memory limit was reached. On cgroup v1 with equal limits of memory and of memory plus swap, Linux
    6.18 counts the failure in neither failcnt file."""
    ours = next((read.less for read in plan.reads if read.figure == "memory_peak"), 0)
    return peak is not None and isinstance(limit.value, int) and peak + ours >= limit.value


def _why_exec(command: str, errno: int, path: str, exists: bool) -> str:
    if errno == ENOENT:
        return f"{path}: its interpreter is missing" if exists else f"{command}: command not found"
    return f"{path} cannot be executed: {os.strerror(errno)}"


def _evidence(reads: Sequence[Read], usage: Usage) -> list[Evidence]:
    """The counters that say what a limit did: they are given whenever they moved."""
    found = []
    for figure in ("oom_kill", "oom", "memory_failures", "memory_high", "swap_failures", "pids_failures",
                   "throttled_periods"):
        value = getattr(usage, figure)
        read = next((one for one in reads if one.figure == figure), None)
        if value and read is not None:
            found.append(Evidence(file=read.file, key=read.key, value=value))
    pages = ((read, usage.hugetlb_failures.get(pages_of(read))) for read in reads if read.unit == "hugetlb")
    return [*found, *(Evidence(file=read.file, key=read.key, value=count) for read, count in pages if count)]


def _limit(limit: Limit, reading: Reading) -> LimitReport:
    return LimitReport(realises=limit.realises, flag=flag_of(limit.realises), asked=limit.asked,
                       applied=limit.applied, file=limit.files[-1] if limit.files else None, files=limit.files,
                       read_back=reading.text,
                       enforced=reading.held, binding=reading.binding or None, note=limit.note)
