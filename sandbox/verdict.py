"""From what happened to a :class:`~sandbox.report.Report`: the outcome, one sentence, and the evidence for it."""

from __future__ import annotations

import os
from errno import ENOENT

from .report import Evidence, LabelReport, LimitReport, Outcome, RefusedCall, Report
from .spec import Spec, flag_of
from .stdlib import TYPE_CHECKING, dataclass, signal, signal_name
from .steps import Done, Limit, Plan, Read, Unmet
from .usage import Usage, pages_of
from .verify import Reading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .oom import Kills

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
    :param lost: the guard itself was killed.
    """

    status: int | None = None
    reason: str = ""
    hard: bool = False
    exec_error: tuple[int, str, bool] | None = None
    lost: bool = False


def judge(spec: Spec, plan: Plan, ending: Ending, usage: Usage, readings: Sequence[Reading],
          log: Kills | None = None, *, driver_reason: str,
          done: Sequence[Done], unmet: Sequence[Unmet], refused: tuple[RefusedCall, ...] | None = None,
          labels: tuple[LabelReport, ...] = (), landlock_abi: int | None = None) -> Report:
    """Put the report together. Pure.

    :param readings: what became of each limit of the plan.
    :param log: what the kernel's log says about out-of-memory kills; None if it says nothing or is not readable.
    :param done: host steps that were carried out.
    :param unmet: limits that failed while they were set (``best_effort``).
    :param refused: system calls that the filter refused; None when they were not counted.
    :param labels: what became of each label.
    :param landlock_abi: as the Host has it.
    """
    code, number = _status(ending, usage)
    outcome = _outcome(ending, usage, log, code, number)
    errno, exit_code = _exec_failure(ending)
    failed = {one.realises for one in unmet}
    return Report(
        outcome=outcome, code=code, signal=number,
        why=_why(spec, plan, ending, outcome, usage, readings, log, code, number),
        evidence=tuple(_evidence(plan.reads, usage)), usage=usage, argv=spec.argv,
        limits=tuple(_limit(limit, reading) for limit, reading in zip(plan.limits, readings, strict=True)
                     if limit.realises not in failed),
        unmet=(*plan.unmet, *unmet), notes=plan.notes, driver=plan.driver, driver_reason=driver_reason,
        name=plan.name, done=tuple(done), lost=ending.lost,
        exec_errno=errno, exec_exit=exit_code, refused_calls=refused, labels=labels,
        landlock_abi=landlock_abi, spec=spec, plan=plan)


def _status(ending: Ending, usage: Usage) -> tuple[int | None, int | None]:
    """Exit code and signal of the workload."""
    if ending.status is None:
        # The OOM killer chose the init. When pid 1 dies, the kernel sends SIGKILL to all of its pid namespace
        # (pid_namespaces(7)).
        init_was_chosen = usage.oom_kill and not (ending.lost or ending.reason or ending.exec_error)
        return None, int(signal.SIGKILL) if init_was_chosen else None
    if os.WIFSIGNALED(ending.status):
        return None, os.WTERMSIG(ending.status)
    return os.WEXITSTATUS(ending.status), None


def _outcome(ending: Ending, usage: Usage, log: Kills | None, code: int | None, number: int | None) -> Outcome:
    if ending.exec_error:
        return Outcome.FAILED
    if ending.reason in TIME_LIMITS:
        return Outcome(ending.reason)
    if ending.reason:
        return Outcome.KILLED
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
         log: Kills | None, code: int | None, number: int | None) -> str:
    command = spec.argv[0]
    if outcome is Outcome.OOM:
        return _why_oom(plan, usage, readings, log)
    if outcome is Outcome.WALL_TIME:
        return f"the wall time limit of {spec.limits.timeout:g} s was over{_how(ending)}"
    if outcome is Outcome.CPU_TIME:
        return f"the CPU time limit of {spec.limits.cpu_time:g} s was used up{_how(ending)}"
    if ending.exec_error:
        return _why_exec(command, *ending.exec_error)
    if ending.lost or outcome is Outcome.FAILED:
        return "sandbox-init was killed from outside, and the command with it"
    if outcome is Outcome.KILLED:
        return f"{command} was stopped on request{_how(ending)}"
    end = f"{command} exited with {code}" if number is None else f"{command} was killed by {signal_name(number)}"
    if usage.oom_kill:
        end += f"; the kernel killed {usage.oom_kill} process(es) in it for memory"
    return end


def _how(ending: Ending) -> str:
    return "; SIGKILL was needed" if ending.hard else ""


def _why_oom(plan: Plan, usage: Usage, readings: Sequence[Reading], log: Kills | None) -> str:
    source = usage.sources.get("oom_kill", "")
    return (f"{_whose(plan, usage, readings, log)}, and the kernel killed {usage.oom_kill} process(es) for memory "
            f"({source} is {usage.oom_kill})")


def _whose(plan: Plan, usage: Usage, readings: Sequence[Reading], log: Kills | None) -> str:
    """Return which memory limit was hit, or that the machine was out of memory; all candidates if it is not known."""
    rows = [(limit, reading) for limit, reading in zip(plan.limits, readings, strict=True) if limit.knob == "memory"]
    own = next((f"its memory limit of {limit.applied} bytes" for limit, _ in rows), "")
    above = " or ".join(path for _, reading in rows for path in reading.above)
    if log is not None:
        if not log.limit:
            return WITHOUT_LIMIT.get(log.constraint, "the machine was out of memory")
        directories = [file.rpartition("/")[0] for limit, _ in rows for file in limit.files]
        return f"{own if log.limit in directories else f'the memory limit of {log.limit}'} was hit"
    if usage.oom:
        return f"{own or 'the memory limit of its own cgroup'} was hit"
    if own and usage.oom is None and any(usage.memory_failures or _is_full(usage.memory_peak, limit)
                                         for limit, _ in rows):
        return f"{own} or that in {above} was hit" if above else f"{own} was hit"
    if above:
        return f"the memory limit in {above} was hit, or the machine was out of memory"
    return "a memory limit above this sandbox was hit, or the machine was out of memory"


def _is_full(peak: int | None, limit: Limit) -> bool:
    """True if the memory limit was reached. On cgroup v1 with equal limits of memory and of memory plus swap, Linux
    6.18 counts the failure in neither failcnt file."""
    return peak is not None and isinstance(limit.value, int) and peak >= limit.value


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
