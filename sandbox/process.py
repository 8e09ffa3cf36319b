"""The command in its sandbox while it runs, and the report once it has ended: :class:`Process`."""

from __future__ import annotations

import os
import time
from errno import EEXIST, ENOENT

from .cgroup import files
from .cgroup.group import Cgroup
from .errors import CgroupError, SpecError, StepError
from .execute import Executor
from .launch import Guard, Record
from .report import Frozen, RefusedCall, Report
from .spec import Spec
from .stdlib import TYPE_CHECKING, NamedTuple, RLock, replace, signal, suppress
from .steps import Plan, Unmet
from .usage import Usage, add_counters, add_rusage, add_samples, collect, kept
from .verdict import Ending, judge
from .verify import reading

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .isolation.label import Labels
    from .isolation.refusals import Refusals
    from .oom import Kills

GUARD_MAY_TAKE = 10.0
"""Seconds after the end of the wall time, when the guard's timer kills it: as in ``guard.c``."""


class Event(NamedTuple):
    """Something that happened to a sandbox.

    :param kind: ``started``, ``stopping``, ``killing``, ``exited``, ``oom_kill``, ``ended``.
    :param time: CLOCK_MONOTONIC seconds; None for what was only counted.
    :param detail: the reason, or the number of processes.
    """

    kind: str
    time: float | None = None
    detail: str = ""


class Process:
    """The command in its sandbox, much like :class:`subprocess.Popen`. Made by :meth:`Sandbox.start`.

    Every method may be called from any thread.
    """

    def __init__(self, spec: Spec, plan: Plan, executor: Executor, guard: Guard, driver_reason: str,
                 landlock_abi: int | None = None) -> None:
        self._spec = spec
        self._plan = plan
        self._executor = executor
        self._guard = guard
        self._driver_reason = driver_reason
        self._landlock_abi = landlock_abi
        self._refusals: Refusals | None = None
        self._labels: Labels | None = None
        self._lock = RLock()
        self._ending = Ending()
        self._failure: StepError | None = None
        self._started: float | None = None
        self._exited: float | None = None
        self._rusage: tuple[int, ...] = ()
        self._samples: dict[str, int] = {}
        self._usage: Usage | None = None
        self._report: Report | None = None
        self._events: list[Event] = []
        self._pidfd: int | None = None
        self.stopped: int | None = None
        """The signal that has stopped the command (SIGTSTP, SIGSTOP); None while it runs."""
        self.pid: int | None = None
        """Process id of the command as the launcher sees it; None if it never ran."""
        self.report: Report | None = None
        """The report, once it has ended."""

    def fileno(self) -> int:
        """An fd that is readable when :meth:`poll` has something to do; for select and event loops."""
        return self._guard.fileno()

    @property
    def returncode(self) -> int | None:
        """The exit code by the rules of ``sandbox run``; None while it runs."""
        return None if self.report is None else self.report.exit_code

    def poll(self) -> int | None:
        """Take in what has happened, without waiting; the exit code if it has ended."""
        if self._lock.acquire(blocking=False):
            try:
                while self.report is None and self._take(block=False):
                    pass
            finally:
                self._lock.release()
        return self.returncode

    def wait(self) -> int:
        """Wait until it has ended and everything is removed.

        :returns: the exit code by the rules of ``sandbox run``.
        :raises CleanupError: something could not be removed.
        """
        with self._lock:
            while self.report is None:
                self._take(block=True)
            return self.report.exit_code

    def wait_started(self) -> None:
        """Wait until the command runs, or has failed to.

        :raises StepError: a step of sandbox-init failed; everything is removed again.
        """
        with self._lock:
            while self.report is None and self._started is None and self._ending.exec_error is None:
                self._take(block=True)
            if self._failure is not None:
                raise self._failure

    def send_signal(self, number: int) -> None:
        """Send a signal to the command.

        :raises SpecError: there is no such signal.
        """
        if not isinstance(number, int) or not 0 < number <= signal.SIGRTMAX:
            raise SpecError(f"send_signal: {number!r} is not a signal", hint="for example signal.SIGTERM")
        self._guard.send(f"signal {int(number)}")

    def signal_group(self, number: int) -> None:
        """Send a signal to the command's process group, as a terminal does for Ctrl-C and Ctrl-Z."""
        if number == signal.SIGCONT:
            self.stopped = None
        self._guard.send(f"group {int(number)}")

    def stop(self) -> None:
        """Stop it softly: the Spec's ``stop_signal``, and SIGKILL for the whole tree after ``stop_timeout``."""
        self._guard.send("stop")

    def kill(self) -> None:
        """SIGKILL the whole tree."""
        self._guard.send("kill")

    def events(self) -> Iterator[Event]:
        """See :meth:`Sandbox.events`."""
        seen = 0
        while True:
            with self._lock:
                while seen == len(self._events) and self.report is None:
                    self._take(block=True)
                fresh = self._events[seen:]
            if not fresh:
                return
            seen += len(fresh)
            yield from fresh

    # -- what sandbox-init says

    def _take(self, *, block: bool) -> bool:
        """Take one record in; False when there was none."""
        try:
            record = self._guard.receive(block=block)
        except EOFError:
            self._ending.lost = True
            self._blame_time()
            self._finish()
            return True
        if record is None:
            return False
        handler = getattr(self, f"_on_{record.kind}", None)
        if handler is not None:
            handler(record)
        return True

    def _blame_time(self) -> None:
        """Say that the wall time was over, if that ended the guard.

        A timer of the kernel kills a guard that is frozen when the wall time is over, so the guard cannot tell.
        """
        timeout = self._spec.limits.timeout
        if timeout is None or self._started is None or self._ending.reason:
            return
        if time.monotonic() >= self._started + timeout + GUARD_MAY_TAKE and self._guard.was_overdue() is not False:
            self._ending.reason = "wall_time"

    def _on_listener(self, record: Record) -> None:
        from .isolation.refusals import Refusals

        assert record.fd is not None
        receive, send = map(int, record.words)
        self._refusals = Refusals(record.fd, self._executor.filter, (receive, send))

    def _on_entering(self, record: Record) -> None:
        from .isolation.label import Labels

        self._labels = self._labels or Labels(self._plan, self._executor.stdio)
        self._labels.entering(int(record.words[0]), record.words[1], " ".join(record.words[2:]))

    def _on_label(self, record: Record) -> None:
        assert self._labels is not None
        self._labels.got(int(record.words[0]), " ".join(record.words[1:]))

    def _on_started(self, record: Record) -> None:
        self._started = int(record.words[0]) / 1e9
        self._pidfd = record.fd
        self.pid = None if record.fd is None else _pid_of(record.fd)
        self._events.append(Event("started", self._started))

    def _on_stopped(self, record: Record) -> None:
        self.stopped = int(record.words[0])

    def _on_stopping(self, record: Record) -> None:
        self._ending.reason = record.words[0]
        self._events.append(Event("stopping", int(record.words[1]) / 1e9, record.words[0]))

    def _on_killing(self, record: Record) -> None:
        self._ending.reason = self._ending.reason or record.words[0]
        self._ending.hard = True
        self._events.append(Event("killing", int(record.words[1]) / 1e9, record.words[0]))

    def _on_frozen(self, record: Record) -> None:
        """End the run although a frozen process of it does not die of SIGKILL. The guard stays until it is thawed."""
        pid, number, path = int(record.words[0]), int(record.words[1]), " ".join(record.words[2:])
        reason = os.strerror(number) if number else "the sandbox's own freezer cgroup is frozen too"
        self._ending.frozen = Frozen(pid, _self_freezing(path), reason)
        self._finish()

    def _on_clearing(self, record: Record) -> None:
        """Store how the command ended: the init may be killed before it sends ``exited`` with the usage."""
        status, time = map(int, record.words)
        self._ending.status = status
        self._exited = time / 1e9

    def _on_exited(self, record: Record) -> None:
        status, time, *rusage = map(int, record.words)
        self._ending.status = status
        self._exited = time / 1e9
        self._rusage = tuple(rusage)
        self._events.append(Event("exited", self._exited, str(os.waitstatus_to_exitcode(status))))
        self._gather()

    def _on_exec_failed(self, record: Record) -> None:
        number, errno, candidate, exists, allowed = map(int, record.words)
        paths = self._plan.steps[number - 1].args[0]
        assert isinstance(paths, tuple)
        path = paths[min(candidate, len(paths) - 1)]
        refusal = self._labels.refused(errno, path, self._spec.rootfs or "") if self._labels and allowed else None
        if refusal is None:
            self._ending.exec_error = (errno, path, bool(exists))
            if errno == ENOENT:
                from .isolation.hidden import remark

                self._ending.remark = remark(self._plan, paths, path if exists else "")
        self._failure = self._failure or refusal

    def _on_failed(self, record: Record) -> None:
        from .failures import step_failure

        self._failure = self._failure or step_failure(self._plan, record)

    def _on_sample(self, record: Record) -> None:
        self._samples[record.words[0]] = int(record.words[1])

    def _on_done(self, record: Record) -> None:
        self._finish()

    # -- the end

    def _gather(self) -> None:
        """Every process of the tree is dead: read what it used, and let the guard remove the cgroup.

        The report is put together at once, while the guard removes it and the kernel takes the namespaces down.
        """
        plan = self._plan
        texts = files.read_all([*kept(plan.reads), *(file for limit in plan.limits for file in limit.files)])
        counters = self._executor.counters()
        self._usage = usage = collect(plan.reads, texts)
        # Read the ancestors before "bye" lets the guard remove the cgroup. systemd may remove its slice after that, and
        # the verdict could no longer say whether the slice's limit was hit.
        readings = [reading(limit, texts) for limit in plan.limits] if usage.oom_kill else None
        ancestors = self._executor.ancestors
        rises = ancestors.rises() if ancestors else ()
        task_limits = ancestors.task_limits() if ancestors and usage.pids_failures else ()
        if self._ending.frozen is None:
            self._guard.send("bye")
        os.sched_yield()  # a socket wakes its reader where the writer runs, as if that were to wait now
        add_counters(usage, counters)
        readings = readings or [reading(limit, texts) for limit in plan.limits]
        if self._started is not None and self._exited is not None:
            usage.wall_time = self._exited - self._started
        if self._rusage:
            add_rusage(usage, self._rusage)
        log = self._kernel_log(usage)
        self._report = judge(self._spec, plan, self._ending, usage, readings, log, driver_reason=self._driver_reason,
                             done=self._executor.done, unmet=self.unmet, refused=self._refused(),
                             labels=self._labels.reports() if self._labels else (), landlock_abi=self._landlock_abi,
                             rises=rises, task_limits=task_limits)

    def _kernel_log(self, usage: Usage) -> Kills | None:
        """Return what the kernel's log says about the out-of-memory kills of this run.

        If the OOM killer chose the init of a systemd unit, systemd has removed the unit's cgroup and its counters by
        now. Then only the log tells of the kill, and ``usage.oom_kill`` is set by it.
        """
        ending, read = self._ending, next((read for read in self._plan.reads if read.figure == "oom_kill"), None)
        told = ending.lost or ending.reason or ending.exec_error or self._failure
        # With a name of the user's, a line in the log may be about an earlier run of that name.
        gone = usage.oom_kill is None and ending.status is None and not (told or self._spec.name)
        if read is None or not (usage.oom_kill or gone):
            return None
        from .oom import kills

        found = kills(os.path.dirname(read.file), usage.oom_kill or 1, self.pid)
        if found is not None and gone:
            usage.oom_kill, usage.sources["oom_kill"] = 1, "the kernel's log: kills"
        return found

    @property
    def unmet(self) -> list[Unmet]:
        """What could not be set, and the labels that do not bind."""
        return [*self._executor.unmet, *(self._labels.unmet() if self._labels else ())]

    def _refused(self) -> tuple[RefusedCall, ...] | None:
        """What the filter refused, when that was to be counted."""
        if self._refusals is None:
            return () if self._spec.seccomp_log else None
        return self._refusals.end()

    def _finish(self) -> None:
        """The guard has nothing more to say."""
        if self._report is None:  # the init was killed, or never came to the execve
            self._gather()
        assert self._report is not None and self._usage is not None
        add_samples(self._usage, self._plan.reads, self._samples)
        if self._usage.oom_kill:
            self._events.append(Event("oom_kill", detail=str(self._usage.oom_kill)))
        self._events.append(Event("ended", detail=self._report.outcome))
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        frozen = self._ending.frozen is not None
        if frozen:
            self._guard.leave()  # it removes the rest when somebody thaws the process
        clean = frozen or self._guard.reap()
        try:
            if self._executor.clean_up(unit=not frozen):
                self._report = replace(self._report, done=tuple(self._executor.done))
            if is_taken(self._plan, self._failure):
                remove(self._executor.made)
            elif not clean:  # the guard was killed, or nobody knows
                remove(arguments(self._plan, "remove"), arguments(self._plan, "unlink"))
        finally:  # there is no guard to wait for any more, whatever is left
            self.report = self._report


def _pid_of(pidfd: int) -> int | None:
    """The process id behind a pidfd, in our pid namespace."""
    pid = int(files.value_of(files.read(f"/proc/self/fdinfo/{pidfd}").replace("\t", " "), "Pid:"))
    return pid if pid > 0 else None


def _self_freezing(directory: str) -> tuple[str, ...]:
    """Return those freezer cgroups that somebody froze, of this one and all above it; this one if none can be read."""
    found, path = [], directory
    with suppress(CgroupError):  # the root of the tree has no such file
        while True:
            if files.read(f"{path}/freezer.self_freezing").strip() != "0":
                found.append(path)
            path = os.path.dirname(path)
    return tuple(found) or (directory,)


def is_taken(plan: Plan, failure: StepError | None) -> bool:
    """The name belongs to another run. The guard then removes nothing, and only what we made ourselves is ours."""
    return (failure is not None and failure.errno == EEXIST and failure.number > 0
            and plan.steps[failure.number - 1].op == "claim")


def remove(cgroups: Sequence[str], files: Sequence[str] = ()) -> None:
    """What the guard does in its CLEANUP steps, when it cannot or must not."""
    cgroup = Cgroup(tuple(cgroups))
    cgroup.kill()
    cgroup.remove()
    for path in files:
        with suppress(FileNotFoundError):
            os.unlink(path)


def arguments(plan: Plan, op: str) -> list[str]:
    """The first argument of each step that is an ``op``."""
    return [str(step.args[0]) for step in plan.steps if step.op == op]
