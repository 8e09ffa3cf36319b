"""``sandbox bench``: what a launch costs under each driver, part by part, and beside other programs.

Launches through the library take turns in one process. Each has a :class:`~sandbox.launcher.Launcher` around it, whose
connection to systemd and delegated unit are not counted, and which does not stay for the others: a delegated unit keeps
controllers enabled that systemd would otherwise enable and disable again for each scope. The first launch in it is not
counted either. Whole programs take turns of their own: they leave the processor's caches cold for what comes next.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from errno import ENODEV, ENOENT
from typing import NamedTuple

from ..box import probe_for
from ..drivers import choose
from ..errors import SandboxError, StepError, Unsupported
from ..host import Host
from ..launcher import Launcher
from ..options import make_spec
from ..spec import Limits, Spec
from . import bench_programs
from .bench_launch import Streams, launch
from .bench_rounds import Contender, Missing, Sample, measure
from .columns import COLUMNS

DEFAULT_LIMITS = {"memory": "512M", "cpus": "1", "pids_limit": "64"}
"""Without a limit of the user's own there is one of each kind."""
GONE = (ENODEV, ENOENT)
"""What a cgroup answers that somebody has removed: through an open file, and by its path."""


class Row(NamedTuple):
    """One contender and its samples, one a round."""

    name: str
    command: str
    samples: list[Sample]


class Group(NamedTuple):
    """Contenders that took turns; the first one is what the others are compared with."""

    title: str
    rows: tuple[Row, ...]


class Machine(NamedTuple):
    """Where it was measured. The load is the average of one minute."""

    kernel: str
    cpus: int
    cgroup_mode: str
    systemd: str
    load_before: float
    load_after: float


class Result(NamedTuple):
    """Everything that was measured.

    :param limits: as flags.
    :param library: launches through the library; their samples have phases.
    :param programs: whole programs, no rows when they were not asked for.
    :param missing: who did not take part.
    :param untold: flags of limits that other programs were not given.
    """

    argv: tuple[str, ...]
    rounds: int
    limits: tuple[str, ...]
    machine: Machine
    library: Group
    programs: Group
    missing: tuple[Missing, ...]
    untold: tuple[str, ...]


def bench(argv: Sequence[str], wishes: Mapping[str, object], *, drivers: Sequence[str], rounds: int,
          program: Sequence[str] = ()) -> Result:
    """Measure.

    :param wishes: as :func:`sandbox.options.make_spec` takes them, without a driver.
    :param drivers: names in :data:`~sandbox.teach.columns.COLUMNS`; all that can be used here when empty.
    :param program: how ``sandbox`` is started, to measure whole programs too; empty for the library alone.
    :raises SpecError: a wish is malformed.
    :raises Unsupported: no driver can be used.
    """
    columns, given = drivers or [name for name in COLUMNS if name != "none"], with_limits(wishes)
    spec = make_spec(argv, **given)
    host, load = probe_for(spec), os.getloadavg()[0]
    programs, more, untold = Group("Whole programs", ()), list[Missing](), list[str]()
    with closing(Streams()) as streams:
        library, missing = _library(argv, given, columns, rounds, streams)
        if program:
            places = {row.name: COLUMNS[row.name] for row in library.rows}
            ours = bench_programs.ours(program, places, given, argv, streams)
            programs, more = _programs(ours, spec, host, rounds, streams)
            untold = bench_programs.untold(spec.limits, host)
    return Result(argv=tuple(argv), rounds=rounds, limits=tuple(bench_programs.flags(given)), library=library,
                  programs=programs, missing=(*missing, *more), untold=tuple(untold), machine=_machine(host, load))


def with_limits(wishes: Mapping[str, object]) -> dict[str, object]:
    """The wishes, with :data:`DEFAULT_LIMITS` when there is no limit among them."""
    limited = make_spec(["true"], **wishes).limits != Limits()
    return {**({} if limited else DEFAULT_LIMITS), **wishes}


def _library(argv: Sequence[str], given: Mapping[str, object], columns: Iterable[str], rounds: int, streams: Streams
             ) -> tuple[Group, list[Missing]]:
    contenders, missing = able(_column(name, argv, given, streams) for name in columns)
    if not contenders:
        reasons = "; ".join(f"{one.name}: {one.reason}" for one in missing)
        raise Unsupported(f"there is no driver to measure: {reasons}", hint="see sandbox info")
    return _group("Launches through the library", contenders, rounds), missing


def _column(name: str, argv: Sequence[str], given: Mapping[str, object], streams: Streams) -> Contender | Missing:
    spec = make_spec(argv, **{**given, **COLUMNS[name]})
    host = probe_for(spec)
    try:
        choose(spec, host)
    except SandboxError as error:
        return Missing(name, error.message)

    def twice() -> Sample:
        with Launcher(host, driver=spec.driver) as launcher:
            _settle(spec, launcher.host, streams)
            return launch(spec, launcher.host, streams)

    return Contender(name, f"sandbox.Launcher: {name}", twice)


def _settle(spec: Spec, host: Host, streams: Streams) -> None:
    """The launch that is not measured. On cgroup v1 systemd may still be taking away what the contender before had, and
    an empty cgroup of ours with it; a cgroup that goes for another reason goes the second time too.

    :raises SandboxError: it failed, and not for that.
    """
    try:
        launch(spec, host, streams)
    except StepError as error:
        if error.errno not in GONE:
            raise


def _programs(ours: Iterable[Contender], spec: Spec, host: Host, rounds: int, streams: Streams
              ) -> tuple[Group, list[Missing]]:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(prefix="sandbox-bench-") as directory:
        found = [*ours, *bench_programs.others(spec, host, streams, directory)]
        contenders, missing = able(found)
        return _group("Whole programs", contenders, rounds), missing


def able(found: Iterable[Contender | Missing]) -> tuple[list[Contender], list[Missing]]:
    """Who really can, which one launch shows, and who cannot."""
    contenders: list[Contender] = []
    missing: list[Missing] = []
    for one in found:
        if isinstance(one, Missing):
            missing.append(one)
            continue
        try:
            one.launch()
            contenders.append(one)
        except SandboxError as error:
            missing.append(Missing(one.name, error.message))
    return contenders, missing


def _group(title: str, contenders: Sequence[Contender], rounds: int) -> Group:
    samples = measure(contenders, rounds)
    return Group(title, tuple(Row(one.name, one.command, samples[one.name]) for one in contenders))


def _machine(host: Host, load: float) -> Machine:
    version = str(host.manager.version or "") if host.systemd_running else ""
    return Machine(kernel=host.kernel, cpus=host.cpus, cgroup_mode=host.cgroup_mode, systemd=version,
                   load_before=load, load_after=os.getloadavg()[0])
