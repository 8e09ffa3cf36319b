"""Experiments with two managers of one cgroup tree: what happens to a limit that one of them does not know of.

Each is run on a machine of its own that may be spoiled, in a VM with systemd and cgroup v2 (``sandbox lab``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Event, Thread
from typing import NamedTuple

from ..box import Sandbox, probe_for
from ..cgroup import files
from ..errors import CgroupError, Unsupported
from ..host import Host
from ..options import make_spec
from ..systemd import borrow

CPUS = 0.1
"""The cap: a tenth of one CPU."""
SHARE_HELD, SHARE_LOST = 0.2, 0.9
"""Of one CPU: below the first the cap holds, from the second on it is gone."""
BURN = ["sh", "-c", "while :; do :; done"]
UNRELATED = "sandbox-unrelated.service"
SAMPLE, PART = 0.25, 3.0
"""Seconds: between samples, and of each part of the experiment."""
PREDICTION = ("raw: 10 % of a CPU, until a unit that has nothing to do with it stops: systemd then takes back the cpu "
              "controller that it gave for that unit, and cpu.max goes with it; 10 % -> 100 %, for good",
              "delegated: 10 % throughout: systemd leaves alone what is below a delegated unit")
WAYS = {"raw": {"driver": "cgroupfs", "cgroup_parent": "/"}, "delegated": {"driver": "delegated"}}
"""The two columns, and how the sandbox is made."""


class Moment(NamedTuple):
    """What the files say at one time.

    :param label: when that is.
    :param time: seconds from the start.
    :param limit: what ``cpu.max`` of the sandbox says; empty when there is no such file.
    :param controllers: what ``cgroup.subtree_control`` of the root says.
    """

    label: str
    time: float
    limit: str
    controllers: str


class Column(NamedTuple):
    """One run.

    :param way: ``raw`` or ``delegated``.
    :param cgroup: the directory of the sandbox.
    :param moments: before, while and after the unrelated unit runs, and after another one has started.
    :param samples: seconds, and the share of one CPU since the sample before.
    :param shares: the share in each part: before, while, after, and at the end.
    """

    way: str
    cgroup: str
    moments: tuple[Moment, ...]
    samples: tuple[tuple[float, float], ...]
    shares: tuple[float, ...]


class Conflict(NamedTuple):
    """The whole experiment.

    :param kernel: release.
    :param systemd: version.
    :param prediction: what is to be expected.
    :param columns: what came out.
    """

    kernel: str
    systemd: int
    prediction: tuple[str, ...]
    columns: tuple[Column, ...]

    @property
    def confirmed(self) -> bool:
        """It came out as predicted."""
        raw, delegated = (column.shares for column in self.columns)
        return (raw[0] < SHARE_HELD and raw[2] > SHARE_LOST and raw[3] > SHARE_LOST
                and all(share < SHARE_HELD for share in delegated))


def vanishing_limit(tell: Callable[[str], None]) -> Conflict:
    """A sandbox with a CPU cap, and an unrelated unit with a CPU weight that starts and stops beside it.

    :param tell: called with what is being done.
    :raises Unsupported: not on cgroup v2 with systemd, or not root.
    """
    host = probe_for(make_spec(BURN, driver="systemd"))
    if host.cgroup_mode != "v2" or not host.systemd_running or host.uid:
        raise Unsupported("this needs root on a machine with systemd and cgroup v2", hint="leave --here out")
    columns = []
    for way in WAYS:
        tell(f"{way}: a sandbox with {CPUS:.0%} of a CPU beside a unit that comes and goes")
        columns.append(_column(way))
    return Conflict(host.kernel, host.manager.version, PREDICTION, tuple(columns))


def _column(way: str) -> Column:
    spec = make_spec(BURN, cpus=CPUS, **WAYS[way])
    host = probe_for(spec)
    with Sandbox(spec, host=host) as box:
        process = box.start()
        cgroup = next(limit.files[0] for limit in box.plan.limits).rpartition("/")[0]
        with _Meter(cgroup, host) as meter:
            meter.part("before")
            with _unrelated():
                meter.part("while the unit runs")
            meter.part("after it stopped")
            with _unrelated():
                meter.part("another one runs")
            column = Column(way, cgroup, tuple(meter.moments), tuple(meter.samples), tuple(meter.shares))
        process.kill()
        process.wait()
    return column


def _unrelated() -> _Unit:
    return _Unit()


class _Unit:
    """A service that needs the cpu controller, because it has a weight."""

    def __enter__(self) -> None:
        command = ("/bin/sleep", ("sleep", "1000"), "0")
        with borrow(user=False) as bus:
            bus.start(UNRELATED, [("Description", "s", "has nothing to do with any sandbox"), ("CPUWeight", "t", 200),
                                  ("Type", "s", "exec"), ("ExecStart", "a(sasb)", command)])

    def __exit__(self, *_: object) -> None:
        with borrow(user=False) as bus:
            bus.stop(UNRELATED)


class _Meter:
    """Watches the CPU time of a cgroup. Its cpu.stat is there with and without the controller."""

    def __init__(self, cgroup: str, host: Host) -> None:
        self.moments: list[Moment] = []
        self.samples: list[tuple[float, float]] = []
        self.shares: list[float] = []
        self._cgroup = cgroup
        self._root = next(tree.mount for tree in host.hierarchies if tree.version == 2)
        self._begin = time.monotonic()
        self._over = Event()
        self._thread = Thread(target=self._watch)

    def __enter__(self) -> _Meter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def part(self, label: str) -> None:
        """One part of the experiment: note what the files say, and the share of CPU until it is over."""
        begin, used = time.monotonic(), self._used()
        time.sleep(PART)  # what is measured is what happens in this time
        self.shares.append((self._used() - used) / (time.monotonic() - begin))
        self.moments.append(Moment(label, round(begin - self._begin, 3), self._file("cpu.max"), files.read(
            f"{self._root}/cgroup.subtree_control").strip()))

    def _watch(self) -> None:
        before, used = self._begin, self._used()
        while not self._over.wait(SAMPLE):
            now, total = time.monotonic(), self._used()
            self.samples.append((round(now - self._begin, 3), (total - used) / (now - before)))
            before, used = now, total

    def _used(self) -> float:
        return int(files.value_of(files.read(f"{self._cgroup}/cpu.stat"), "usage_usec")) / 1e6

    def _file(self, name: str) -> str:
        with suppress(CgroupError):
            return files.read(f"{self._cgroup}/{name}").strip()
        return ""


def to_json(conflict: Conflict) -> str:
    """The experiment as JSON text that :func:`from_json` reads back equal."""
    import json

    columns = [column._asdict() | {"moments": [moment._asdict() for moment in column.moments]}
               for column in conflict.columns]
    return json.dumps({"schema_version": 1, "experiment": "vanishing-limit", "confirmed": conflict.confirmed,
                       **conflict._asdict(), "columns": columns}, indent=2)


def from_json(text: str) -> Conflict:
    """The reverse of :func:`to_json`."""
    import json

    data = json.loads(text)
    columns = tuple(map(_read_column, data["columns"]))
    return Conflict(data["kernel"], data["systemd"], tuple(data["prediction"]), columns)


def _read_column(data: dict[str, list[object]]) -> Column:
    moments = tuple(Moment(**moment) for moment in data["moments"])  # type: ignore[arg-type]
    samples = tuple((pair[0], pair[1]) for pair in data["samples"])  # type: ignore[index]
    return Column(str(data["way"]), str(data["cgroup"]), moments, samples, tuple(data["shares"]))  # type: ignore[arg-type]


def text(conflict: Conflict) -> str:
    """Prediction, both columns and the verdict, for 80 columns."""
    return "\n".join(_lines(conflict))


def _lines(conflict: Conflict) -> Iterator[str]:
    from textwrap import wrap

    yield f"The vanishing limit: Linux {conflict.kernel}, systemd {conflict.systemd}, cgroup v2"
    yield ""
    yield "Prediction"
    for one in conflict.prediction:
        yield from wrap(one, 80, initial_indent="  ", subsequent_indent="    ")
    for column in conflict.columns:
        yield ""
        yield f"{column.way}: {column.cgroup}, --cpus {CPUS}"
        yield f"  {'':<22}{'CPU':>6}  {'cpu.max':<14}controllers enabled below the root"
        for moment, share in zip(column.moments, column.shares, strict=True):
            yield f"  {moment.label:<22}{share:>6.0%}  {moment.limit or '(no file)':<14}{moment.controllers}"
    yield ""
    yield f"Verdict: {'as predicted' if conflict.confirmed else 'NOT as predicted'}"
