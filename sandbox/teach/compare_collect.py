"""Collects a :class:`~sandbox.teach.compare.Comparison`: compiles, runs, looks, reloads systemd, and times launches."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import fields, replace
from typing import Any

from ..box import Sandbox, compile_plan, probe_for
from ..bus import Bus
from ..drivers import PLACES
from ..errors import BusError, SandboxError
from ..host import Host, small_file
from ..identity import KEPT
from ..options import find, make_spec
from ..report import Report
from ..spec import Limits, Spec
from ..steps import Plan
from ..systemd import borrow
from ..usage import Usage
from . import compare_defaults, compare_plan
from .bench_launch import Streams, launch
from .bench_phases import PHASES
from .bench_rounds import Sample
from .columns import COLUMNS
from .compare import Column, Comparison, Event, Figure, Kept, Machine, Phase, Reload, Run, Snapshot
from .compare_samples import Sampler
from .compare_view import looker

LAUNCHES = 5
"""Launches of ``true`` that the phases are the median of; one more comes before, for what is only loaded once."""
FIGURES = ("wall_time", "cpu_time", "cpu_user", "cpu_system", "memory_peak", "pids_peak", "periods",
           "throttled_periods", "throttled_time", "memory_failures", "memory_high", "swap_failures", "oom_kill",
           "pids_failures")
SLEEP = ("sleep", "1000000")

Progress = Callable[[str], None]


def collect(argv: Sequence[str], wishes: Mapping[str, object], drivers: Sequence[str], *, run: bool,
            progress: Progress = lambda text: None) -> Comparison:
    """Compare ``drivers``.

    :param argv: the command.
    :param drivers: names in :data:`~sandbox.teach.columns.COLUMNS`.
    :param wishes: as :func:`~sandbox.options.make_spec` takes them.
    :param run: run the command under each; else only compile the plans.
    :param progress: called with what is being done.
    :raises SpecError: a wish is malformed.
    """
    spec = replace(make_spec(argv, **wishes), tty=False)
    spec = replace(spec, name=spec.name or f"compare-{os.getpid()}")
    trials = {driver: _Trial(driver, spec) for driver in drivers}
    if run:
        for trial in trials.values():
            progress(f"running the command under {trial.driver}")
            trial.run()
        for trial in trials.values():
            progress(f"reloading systemd while a command sleeps under {trial.driver}")
            trial.survive()
        progress("timing launches")
        with closing(Streams()) as streams:
            for _ in range(LAUNCHES + 1):
                for trial in trials.values():
                    trial.launch(streams)
    return Comparison(argv=tuple(argv), flags=tuple(flags(wishes)), ran=run,
                      machine=_machine([trial.host for trial in trials.values()]),
                      columns=tuple(trial.column() for trial in trials.values()))


class _Trial:
    """One driver: what is known of it so far."""

    def __init__(self, driver: str, spec: Spec) -> None:
        self.driver = driver
        self._spec, self._left_out = _under(driver, spec)
        self.host = probe_for(self._spec)
        self._plan: Plan | None = None
        self._problem: SandboxError | None = None
        self._run: Run | None = None
        self._report: Report | None = None
        self._snapshot: Snapshot | None = None
        self._reload: Reload | None = None
        self._launches: list[Sample] | None = []
        try:
            self._plan, _ = compile_plan(self._spec, self.host, name="compare")
        except SandboxError as error:
            self._problem = error

    def run(self) -> None:
        """Run the command; its standard input is empty, its output goes nowhere, its errors to our stderr."""
        if self._problem:
            return
        with self._attempt(), self._bus() as bus, _null() as null, Sandbox(self._spec, host=self.host) as box:
            process = box.start(stdin=null, stdout=null)
            self._plan = box.plan
            started = next((one.time for one in process.events() if one.kind == "started"), None)
            sampler = Sampler(box.plan.reads, looker(box.plan, self.host, bus), started or time.monotonic())
            sampler.start()
            try:
                process.wait()
            finally:
                series = sampler.stop()
            events = tuple(Event(one.kind, round(one.time - started, 4), one.detail) for one in process.events()
                           if one.time is not None and started is not None)
            report = self._report = box.report
            self._snapshot = sampler.snapshot
            self._run = Run(outcome=report.outcome, why=report.why, exit_code=report.exit_code,
                            usage=tuple(_figures(report.usage)), events=events, series=series)

    def survive(self) -> None:
        """Reload systemd while a command sleeps under the same limits, let another unit come and go, and look."""
        if self._problem or self._run is None:
            return
        limits = replace(self._spec.limits, timeout=None, cpu_time=None)
        try:
            with self._bus() as bus, _null() as null, \
                    Sandbox(replace(self._spec, argv=SLEEP, limits=limits), host=self.host) as box:
                process = box.start(stdin=null, stdout=null, stderr=null)
                if self._snapshot is None:
                    self._snapshot = looker(box.plan, self.host, bus)(None)
                files = tuple(dict.fromkeys(file for limit in box.plan.limits for file in limit.files))
                before = [small_file(file) or None for file in files]
                if bus is None:
                    self._reload = Reload(problem="there is no systemd to ask")
                else:
                    bus.call("Reload")
                    _sibling(self.host)
                    self._reload = Reload(tuple(Kept(*row) for row in zip(
                        files, before, [small_file(file) or None for file in files], strict=True)))
                process.kill()
                process.wait()
        except SandboxError as error:
            self._reload = Reload(problem=error.message)

    def launch(self, streams: Streams) -> None:
        """Launch ``true`` once under the same limits, and time the parts; one that fails is the last."""
        if self._problem or self._run is None or self._launches is None:
            return
        limits = replace(self._spec.limits, timeout=None, cpu_time=None)
        try:
            with self._bus():
                self._launches.append(launch(replace(self._spec, argv=("true",), limits=limits), self.host, streams))
        except SandboxError:
            self._launches = None

    def column(self) -> Column:
        """Everything that was found."""
        plan, problem = self._plan, self._problem
        found = Column(driver=self.driver, problem=problem.message if problem else "",
                       remedy=problem.hint if problem else "", run=self._run, snapshot=self._snapshot,
                       reload=self._reload, phases=tuple(_medians((self._launches or [])[1:])))
        if plan is None:
            return found
        wishes = compare_plan.wishes(plan)
        if self._report is not None:
            held = {one.realises + str(one.file): one for one in self._report.limits}
            wishes = tuple(compare_plan.seen(one, limit) if
                           (limit := held.get(one.realises + str(one.file or None))) else one for one in wishes)
        besides = compare_plan.besides(plan)
        return found._replace(wishes=wishes, besides=besides, defaults=self._defaults(plan, besides),
                              reach=compare_plan.reach(plan),
                              isolation=compare_plan.isolation(plan, self._spec),
                              notes=(*self._left_out, *plan.notes))

    def _defaults(self, plan: Plan, told: Sequence[str]) -> tuple[str, ...]:
        """See :attr:`~sandbox.teach.compare.Column.defaults`."""
        unknown = ("",) * len(told)
        try:
            with self._bus() as bus:
                return compare_defaults.ask(bus, plan, told, user=self.host.manager.user) if bus and told else unknown
        except BusError:
            return unknown

    @contextmanager
    def _attempt(self) -> Iterator[None]:
        """What goes wrong becomes the column's problem."""
        try:
            yield
        except SandboxError as error:
            self._problem = error

    @contextmanager
    def _bus(self) -> Iterator[Bus | None]:
        """The manager to ask, when there is one: a driver that does without it must not fail for want of it."""
        with ExitStack() as stack:
            bus = None
            if self.host.systemd_running:
                with suppress(BusError):
                    bus = stack.enter_context(borrow(user=self._spec.systemd_user or self.host.uid != 0))
            yield bus


def _under(driver: str, spec: Spec) -> tuple[Spec, tuple[str, ...]]:
    """The Spec for one driver; the wishes about a place that it does not know are left out, and told."""
    wishes = COLUMNS[driver]
    defaults: dict[str, Any] = {one.name: one.default for one in fields(Spec)}
    foreign = [field for field in sorted(frozenset[str]().union(*PLACES.values()) - PLACES[wishes["driver"]])
               if getattr(spec, field) != defaults[field]]
    fresh = replace(spec, **({field: defaults[field] for field in (*foreign, "unit_type")} | wishes))
    flags = [f"--{field.replace('_', '-')}" for field in foreign if field != "unit_type"]
    return fresh, tuple(f"{flag} means nothing to this driver" for flag in flags)


def _medians(launches: Sequence[Sample]) -> Iterator[Phase]:
    """Of each phase that takes time, but the command itself."""
    for name, seconds in zip(PHASES, zip(*(one.phases for one in launches), strict=True), strict=bool(launches)):
        if name != "wait" and any(seconds):
            yield Phase(name, round(statistics.median(seconds), 7))


def _figures(usage: Usage) -> Iterator[Figure]:
    for name in FIGURES:
        value = getattr(usage, name)
        if value is not None:
            yield Figure(name, round(float(value), 6))


def _sibling(host: Host) -> None:
    """Another unit beside ours, with limits, that comes and goes: then systemd goes over the slice again."""
    spec = Spec(argv=("true",), driver="systemd", limits=Limits(cpu_weight=200, memory=64 << 20), best_effort=True,
                systemd_user=host.manager.user)
    with _null() as null, Sandbox(spec) as box:
        box.start(stdin=null, stdout=null, stderr=null).wait()


def flags(wishes: Mapping[str, object]) -> Iterator[str]:
    """The wishes as words of a command line; values of variables that are not on the allow-list are masked."""
    for name, value in wishes.items():
        flag = find(name).flag
        if isinstance(value, bool):
            yield flag if value else flag.replace("--", "--no-", 1)
            continue
        for one in value if isinstance(value, list | tuple) else (value,):
            variable, sign, _ = str(one).partition("=")
            yield from (flag, f"{variable}=***" if name == "env" and sign and variable not in KEPT else str(one))


def _machine(hosts: Sequence[Host]) -> Machine:
    host = hosts[0]
    version = next((one.manager.version for one in hosts if one.manager.version), 0)
    return Machine(kernel=host.kernel, cgroup_mode=host.cgroup_mode, cpus=host.cpus,
                   systemd=str(version) if version else "")


@contextmanager
def _null() -> Iterator[int]:
    fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
