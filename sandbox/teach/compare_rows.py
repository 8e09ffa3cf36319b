"""A comparison as tables, one row per wish or figure and one cell per driver: what every way to show it starts from."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import NamedTuple

from ..units import show_size
from .axis import words
from .compare import Belief, Column, Comparison, Snapshot, Told
from .compare_plan import name_and_value

Kind = str
"""``same``, ``different``, ``unmet``, or nothing where that is no question."""
TOLD, PLANNED = "What is told, and what the kernel holds", "What is told, and what the kernel is to hold"
BESIDES, BELIEFS, LAUNCH = "What else the unit is told", "What each manager believes", "How long a launch takes"
NOTHING = "-"
"""The cell of a driver that the row is not about."""
SLACK = 1 << 20
"""Bytes by which two readings of what is used may differ: they were not taken at the same instant."""


class Row(NamedTuple):
    """One line of the comparison.

    :param cells: one text for each driver, of several lines maybe.
    :param mark: see :data:`Kind`.
    :param why: the reason for the mark.
    """

    label: str
    cells: tuple[str, ...]
    mark: Kind = ""
    why: str = ""


class Table(NamedTuple):
    """Rows under a caption.

    :param explained: a sentence for those who see it for the first time.
    :param has_why: there is a last column for :attr:`Row.why`.
    """

    caption: str
    explained: str
    rows: tuple[Row, ...]
    has_why: bool = False


def tables(comparison: Comparison) -> tuple[Table, ...]:
    """All of them; those without rows are left out."""
    columns = comparison.columns
    found = (
        Table(TOLD if comparison.ran else PLANNED, "Each limit as its manager is told, then "
              + ("what the kernel's file holds." if comparison.ran else
                 "the kernel's file that is to hold it. Nothing was run, and no file was read."),
              tuple(_wishes(columns, ran=comparison.ran)), has_why=True),
        Table(BESIDES, "Properties besides the limits. Where systemd's own default is another one, it stands beside.",
              tuple(_besides(columns))),
        Table("What it is isolated from", "Namespaces, files, privileges and system calls: the steps inside, and a "
              "score of what they leave open, 0 to 10.", tuple(_isolation(columns)), has_why=True),
        Table("How it is reached", "Counted in the plans.", tuple(_reach(columns))),
        Table(BELIEFS, _moment(columns), tuple(_beliefs(columns)), has_why=True),
        Table("After a daemon-reload", "A command sleeps under the same limits, systemd reloads, another unit comes "
              "and goes.", tuple(_reload(columns))),
        Table(LAUNCH, "Medians of launches of `true` under the same limits, taken in turn. systemd's part is in create "
              "and in teardown.",
              tuple(_phases(columns))),
        Table("What the run used", "Read from the kernel's counters at the end.", tuple(_usage(columns))),
    )
    return tuple(table for table in found if table.rows)


# -- the wishes

def _wishes(columns: Sequence[Column], *, ran: bool) -> Iterator[Row]:
    """One row per wish; one that takes several files or properties of different meaning has several rows."""
    if any(column.problem for column in columns):
        yield Row("driver", tuple(_problem(column) for column in columns), "unmet")
    places = [_placed(column.wishes) for column in columns]
    seen: dict[str, str] = {}
    for key in dict.fromkeys(key for place in places for key in place):
        told = [place.get(key) for place in places]
        first = next(one for one in told if one is not None)
        label = f"{first.flag} {next((one.asked for one in told if one and one.asked), '')}".rstrip()
        if seen.setdefault(first.realises, key[1]) != key[1]:
            label += f" ({first.file.rpartition('/')[2]})"
        mark, why = _verdict(columns, told, ran=ran)
        yield Row(label, tuple(_told(one, ran=ran) for one in told), mark, why)


def _problem(column: Column) -> str:
    remedy = f"\n({column.remedy})" if column.remedy else ""
    return f"cannot: {column.problem}{remedy}" if column.problem else "works"


def _placed(wishes: Sequence[Told]) -> dict[tuple[str, str, int], Told]:
    """By wish, knob, and how many there were before; what is unmet stands for the first knob of its wish."""
    found: dict[tuple[str, str, int], Told] = {}
    for one in wishes:
        knob = one.realises.rpartition(".")[2] if one.unmet or one.by == "process" else one.knob
        number = sum(key[:2] == (one.realises, knob) for key in found)
        found[one.realises, knob, number] = one
    return found


def _told(one: Told | None, *, ran: bool) -> str:
    if one is None:
        return NOTHING
    if one.unmet:
        return f"cannot: {one.unmet}"
    lines = list(one.words)
    if one.file and (ran or one.by == "property"):
        name = f"{one.file.rpartition('/')[2]} = " if one.by == "property" else ""
        lines.append(f"kernel: {name}{one.read_back or 'not read'}" if ran else f"for the kernel: {name}{one.applied}")
    return "\n".join(lines)


def _verdict(columns: Sequence[Column], told: Sequence[Told | None], *, ran: bool) -> tuple[Kind, str]:
    there = [(column.driver, one) for column, one in zip(columns, told, strict=True) if one is not None]
    met = [(driver, one) for driver, one in there if not one.unmet]
    reasons = [f"{driver}: it was changed during the run" for driver, one in met if one.held is False]
    reasons += _notes_of(met)
    if any(one.by == "property" for _, one in met):
        reasons += [f"{driver}: file-only, systemd has no property for it" for driver, one in met
                    if one.by == "file" and driver.startswith("systemd")]
    if any(one.by == "process" for _, one in met):
        reasons.append("no matter of cgroups: sandbox-init sees to it under every driver")
    if len(met) < len(told):
        return ("unmet" if len(met) < len(there) else "different"), "; ".join(reasons)
    if any(one.file and one.read_back is None for _, one in met if ran):
        return "", "; ".join(reasons)
    values = {one.read_back or one.applied if one.file else "" for _, one in met}
    return ("same" if len(values) == 1 else "different"), "; ".join(reasons)


def _notes_of(met: Sequence[tuple[str, Told]]) -> list[str]:
    """What all have in common once, the rest with the driver's name."""
    having = {one.note: [driver for driver, other in met if other.note == one.note] for _, one in met}
    return [note if len(drivers) == len(met) else f"{', '.join(drivers)}: {note}"
            for note, drivers in having.items() if note]


REASONS = {
    "where the unit goes": ("Slice",),
    "a failed unit is forgotten, and its name is free again": ("CollectMode",),
    "how long a stop waits before it kills": ("TimeoutStopUSec",),
    "cgroups of ours may be made below it": ("Delegate",),
    "the unit goes on after the kernel killed a process for memory": ("OOMPolicy", "DelegateControllers"),
    "what is to be counted": ("CPUAccounting", "MemoryAccounting", "TasksAccounting", "IOAccounting"),
}
"""Purpose -> the properties that our units get for it. Others are for people to read, or a user asked for them."""
SAME = "told to be sure: systemd's default is the same"


def _besides(columns: Sequence[Column]) -> Iterator[Row]:
    """A row for each reason, and a last one for the properties that change nothing."""
    told = [[(*name_and_value(text), default, text)
             for text, default in zip_longest(column.besides, column.defaults, fillvalue="")] for column in columns]
    for reason, names in REASONS.items():
        yield from _properties(reason, [[f"{text}, default {default}" if default else text
                                         for name, value, default, text in one if name in names and value != default]
                                        for one in told])
    known = {name for names in REASONS.values() for name in names}
    yield from _properties(SAME, [[text for name, value, default, text in one if name in known and value == default]
                                  for one in told])


def _properties(label: str, cells: Sequence[Sequence[str]]) -> Iterator[Row]:
    if any(cells):
        yield Row(label, tuple("\n".join(lines) or NOTHING for lines in cells))


def _isolation(columns: Sequence[Column]) -> Iterator[Row]:
    """One row for all of it: who makes the cgroup has no part in it."""
    found = [column.isolation for column in columns]
    if any(found):
        same = len({one.digest for one in found if one}) == 1
        cells = tuple(f"{one.steps} steps; exposure {one.score} {one.band}" if one else NOTHING for one in found)
        why = "the same steps under every driver: sandbox-init takes them, not the manager"
        yield Row("isolation", cells, "same" if same else "different", why if same else "")


def _reach(columns: Sequence[Column]) -> Iterator[Row]:
    rows: tuple[tuple[str, Callable[[Column], str]], ...] = (
        ("systemd", lambda one: _systemd(one.reach.calls, one.reach.properties)),
        ("kernel", lambda one: f"{one.reach.cgroups} mkdir, {one.reach.writes} writes, {one.reach.reads} reads back"),
        ("cgroup", lambda one: one.snapshot.cgroup if one.snapshot else NOTHING),
        ("its unit, by GetUnitByControlGroup", lambda one: _unit(one.snapshot) if one.snapshot else NOTHING),
    )
    for label, cell in rows:
        if label in ("systemd", "kernel") or any(column.snapshot for column in columns):
            yield Row(label, tuple(cell(column) if column.wishes or column.run else NOTHING for column in columns))


def _unit(seen: Snapshot) -> str:
    if not seen.unit or seen.cgroup.rpartition("/")[2] == seen.unit:
        return seen.unit or "none"
    return f"none; it is below {seen.unit}, {'which is delegated' if seen.delegated else 'the nearest unit above'}"


def _systemd(calls: int, properties: int) -> str:
    if not calls:
        return "is not asked"
    parts = [f"StartTransientUnit with {properties} properties, await JobRemoved"] if properties else []
    return "; ".join([*parts, "StopUnit, await UnitRemoved"])


# -- the two views

LEVELS = {"cgroup": "", "slice": " of the slice", "parent": " of the parent cgroup", "root": " of the root cgroup"}
FIGURES = ("memory limit", "CPU quota", "task limit", "memory", "tasks")


def _moment(columns: Sequence[Column]) -> str:
    asleep = [column.driver for column in columns if column.snapshot and column.snapshot.time is None]
    text = "At one moment of the run: systemd's property of the unit that it has for the cgroup, and the kernel's file."
    return f"{text} ({', '.join(asleep)}: of a sleeping command, the run was too short.)" if asleep else text


def _beliefs(columns: Sequence[Column]) -> Iterator[Row]:
    found = [{(one.level, one.figure): one for one in column.snapshot.beliefs} if column.snapshot else {}
             for column in columns]
    for level, figure in sorted({key for one in found for key in one}, key=_order):
        beliefs = [one.get((level, figure)) for one in found]
        known = [(column.driver, one) for column, one in zip(columns, beliefs, strict=True)
                 if one and (one.says or one.unlike)]
        apart = [(driver, one) for driver, one in known if not _agree(one)]
        mark = "different" if apart else "same" if known else ""
        yield Row(f"{figure}{LEVELS[level]}", tuple(map(_belief, beliefs)), mark, "; ".join(_apart(apart)))


def _order(key: tuple[str, str]) -> tuple[int, int]:
    return list(LEVELS).index(key[0]), FIGURES.index(key[1])


def _apart(apart: Sequence[tuple[str, Belief]]) -> Iterator[str]:
    """Why the two sides disagree, for the drivers under which they do."""
    reasons: dict[str, list[str]] = {}
    for driver, one in apart:
        why = one.unlike or ("the two were read one after the other" if one.figure in ("memory", "tasks") else
                             "the file does not hold what systemd has")
        reasons.setdefault(why, []).append(driver)
    yield from (f"{', '.join(drivers)}: {why}" for why, drivers in reasons.items())


def _belief(one: Belief | None) -> str:
    if one is None:
        return NOTHING
    directory, _, name = one.file.rpartition("/")
    # The label of a row says "slice" or "root". A parent cgroup that is neither has to be named in the cell.
    name = f"{os.path.basename(directory)}/{name}" if one.level == "parent" else name
    return (f"systemd: {_shown(one.says, one.figure)} ({one.unit or 'no unit'})\n"
            f"kernel: {_shown(one.holds, one.figure)} ({f'sum of */{name}' if '/*/' in one.file else name})")


def _shown(value: str, figure: str) -> str:
    if not value or value == "infinity":
        return value or "unknown"
    if figure.startswith("memory"):
        return show_size(int(value))
    return f"{value} CPUs" if figure == "CPU quota" else value


def _agree(one: Belief) -> bool:
    if one.figure == "memory" and one.says.isdigit() and one.holds.isdigit():
        return abs(int(one.says) - int(one.holds)) <= max(SLACK, int(one.holds) // 20)
    return one.says == one.holds


# -- what happened

def _reload(columns: Sequence[Column]) -> Iterator[Row]:
    if not any(column.reload for column in columns):
        return
    kept = [{one.file.rpartition("/")[2]: one for one in column.reload.files} if column.reload else {}
            for column in columns]
    for name in dict.fromkeys(name for one in kept for name in one):
        cells = [_kept(one[name].before, one[name].after) if name in one else _unseen(column)
                 for column, one in zip(columns, kept, strict=True)]
        changed = any(name in one and one[name].before != one[name].after for one in kept)
        yield Row(name, tuple(cells), "different" if changed else "same")


def _kept(before: str | None, after: str | None) -> str:
    if before == after:
        return f"held: {before}"
    return f"LOST: {before} -> {'the file is gone' if after is None else after}"


def _unseen(column: Column) -> str:
    return f"not tried: {column.reload.problem}" if column.reload and column.reload.problem else NOTHING


def _phases(columns: Sequence[Column]) -> Iterator[Row]:
    names = list(dict.fromkeys(one.name for column in columns for one in column.phases))
    for name in names:
        values = [next((one.seconds for one in column.phases if one.name == name), None) for column in columns]
        yield Row(name, tuple(NOTHING if value is None else words(value, "seconds") for value in values))
    if names:
        totals = [sum(one.seconds for one in column.phases) for column in columns]
        yield Row("in all", tuple(words(total, "seconds") if total else NOTHING for total in totals))


LABELS = {"wall_time": "wall time", "cpu_time": "CPU time", "memory_peak": "memory peak", "pids_peak": "tasks peak",
          "throttled_time": "throttled for", "throttled_periods": "throttled periods", "periods": "periods",
          "oom_kill": "killed for memory", "memory_failures": "memory limit hit", "swap_failures": "swap limit hit",
          "memory_high": "slowed by memory.high",
          "pids_failures": "forks refused"}


def _usage(columns: Sequence[Column]) -> Iterator[Row]:
    if not any(column.run for column in columns):
        return
    yield Row("end", tuple(column.run.outcome if column.run else NOTHING for column in columns))
    yield Row("exit code", tuple(str(column.run.exit_code) if column.run else NOTHING for column in columns))
    for name, label in LABELS.items():
        values = [next((one.value for one in column.run.usage if one.name == name), None) if column.run else None
                  for column in columns]
        if any(values):
            yield Row(label, tuple(NOTHING if value is None else figure_text(name, value) for value in values))


def figure_text(name: str, value: float) -> str:
    """A figure of the usage for people."""
    if name.endswith("_time"):
        return words(value, "seconds")
    return show_size(value) if name == "memory_peak" else f"{value:.0f}"


def notes(comparison: Comparison) -> tuple[str, ...]:
    """What a reader should know, each with the drivers it is about."""
    columns = comparison.columns
    about: dict[str, list[str]] = {}
    for column in columns:
        # Without the path of the file that says so: it is of no use by now.
        end = re.sub(r" \(/[^)]*\)", "", column.run.why) if column.run and column.run.exit_code else ""
        for note in filter(None, (end, *column.notes)):
            about.setdefault(note, []).append(column.driver)
    return tuple(f"{', '.join(drivers)}: {note}" for note, drivers in about.items())


def heading(comparison: Comparison) -> str:
    """The command and its wishes as they are typed."""
    import shlex

    return f"sandbox run {shlex.join((*comparison.flags, '--', *comparison.argv))}"


def place(comparison: Comparison) -> str:
    """Where it was collected."""
    machine = comparison.machine
    parts = [f"Linux {machine.kernel}", f"cgroup {machine.cgroup_mode}",
             f"systemd {machine.systemd}" if machine.systemd else "no systemd", f"{machine.cpus} CPUs"]
    return ", ".join(parts) + (f", in a {machine.lab} lab" if machine.lab else "")
