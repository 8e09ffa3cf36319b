"""A comparison as one HTML page: the tables, the cgroup trees beside each other, and the runs over time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from ..units import show_size
from . import page
from .compare import Column, Comparison, Node, Series
from .compare_rows import (
    BELIEFS,
    BESIDES,
    LABELS,
    LAUNCH,
    PLANNED,
    TOLD,
    Table,
    figure_text,
    heading,
    notes,
    place,
    tables,
)
from .plot import Mark, Rule, Span, phase_bars, time_plot
from .plot import Series as Line

WINDOW = 0.2
"""Seconds that a CPU share is taken over, at least: with a quota, it goes on and off within each period of 0.1 s."""
BRIDGED = 0.15
"""Seconds between two samples with throttling that count as one stretch."""


def document(comparison: Comparison, *, made: str) -> str:
    """The page.

    :param made: when, for the footer.
    """
    drivers = [column.driver for column in comparison.columns]
    names = f"{', '.join(drivers[:-1])} and {drivers[-1]}" if len(drivers) > 1 else drivers[0]
    return page.page(f"{comparison.argv[0]} under {names}",
                     "The same command under the same limits, set by different managers: what each is told, what the "
                     "kernel then holds, and what each believes.", tuple(_sections(comparison, drivers)),
                     opening=(page.code(heading(comparison)), page.facts(_facts(comparison))),
                     footer=f"{place(comparison)}\nMade {made} by sandbox compare.")


def _sections(comparison: Comparison, drivers: list[str]) -> Iterator[page.Section]:
    for table in tables(comparison):
        picture = _phases(comparison) if table.caption == LAUNCH else ()
        yield page.Section(table.caption, (*picture, page.table(_table(table, drivers))))
        if table.caption == BELIEFS:
            yield from _trees(comparison.columns)
            yield from _pictures(comparison)
    if lines := notes(comparison):
        yield page.Section("Notes", tuple(map(page.paragraph, lines)))


def _table(content: Table, drivers: list[str]) -> page.Table:
    rows = tuple((row.label, *row.cells, *([row.why] if content.has_why else [])) for row in content.rows)
    is_code = content.caption in (TOLD, PLANNED, BESIDES)
    return page.Table(content.explained, ("", *drivers, *(["why"] if content.has_why else [])), rows,
                      tuple(row.mark for row in content.rows), tuple(range(1, len(drivers) + 1)) if is_code else ())


def _facts(comparison: Comparison) -> Iterator[page.Fact]:
    from .axis import words

    for column in comparison.columns:
        launch = sum(one.seconds for one in column.phases)
        remark = f"a launch takes {words(launch, 'seconds')}" if launch else column.problem
        value = "cannot" if column.problem else _used(column, "wall_time") or "-"
        yield page.Fact(column.driver, value, "; ".join(filter(None, (remark, _counted(column, "memory_peak")))),
                        _kind(column.driver))


def _used(column: Column, name: str) -> str:
    """Return a figure of the run as the table of its usage shows it; empty if the kernel does not count it."""
    usage = column.run.usage if column.run else ()
    return next((figure_text(name, one.value) for one in usage if one.name == name), "")


def _counted(column: Column, name: str) -> str:
    """``memory peak 64.0 MiB``: the figure behind the label that it has in the table."""
    text = _used(column, name)
    return f"{LABELS[name]} {text}" if text else ""


def _kind(driver: str) -> str:
    return driver.partition("-")[0]


# -- the trees

def _trees(columns: tuple[Column, ...]) -> Iterator[page.Section]:
    drawn = [page.tree(f"Under {column.driver}", _node(column.snapshot.tree)) for column in columns if column.snapshot]
    if drawn:
        yield page.Section("Where the cgroups are", (page.paragraph(
            "The cgroups on the way to the sandbox and those beside it. What systemd finds a unit for is systemd's."),
            page.columns(*drawn)))


def _node(node: Node) -> page.Node:
    details = [show_size(node.memory)] if node.memory is not None else []
    details += [f"limit {show_size(node.limit)}"] if node.limit is not None else []
    return page.Node(node.name, _kind(node.owner), ", ".join(details), tuple(map(_node, node.children)))


# -- the pictures

def _pictures(comparison: Comparison) -> Iterator[page.Section]:
    ran = [column for column in comparison.columns if column.run and column.run.series.times]
    if ran:
        samples = sum(len(column.run.series.times) for column in ran if column.run)
        yield page.Section("While it ran", (
            page.figure(_memory(ran), f"{samples} samples of the kernel's counters; {place(comparison)}."),
            page.paragraph("Below the axis: when the CPU quota was used up and the command had to wait, as fine as the "
                           "samples are; the figure in the key is the kernel's."),
            page.figure(_cpu(ran), f"Each value is a mean over {WINDOW:g} s or more: a quota lets the command run at "
                                   "full speed until it is used up, then not at all.")))


def _phases(comparison: Comparison) -> tuple[str, ...]:
    timed = [(column.driver, column.phases) for column in comparison.columns if column.phases]
    return (page.figure(phase_bars("One launch, phase by phase", timed), "Only ratios count on a busy machine."),)


def _memory(columns: list[Column]) -> str:
    lines, marks = [], []
    for column in columns:
        series = _series(column)
        lines.append(Line(column.driver, tuple(zip(series.times, map(float, series.memory), strict=False)),
                          _kind(column.driver), told=_counted(column, "memory_peak")))
        marks += [Mark(f"{column.driver}: killed for memory", time, "oom_kill")
                  for (_, before), (time, after) in pairwise(zip(series.times, series.oom_kills, strict=False))
                  if after > before]
        marks += [Mark(f"{column.driver}: {one.kind} {one.detail}".rstrip(), one.time, one.kind)
                  for one in (column.run.events if column.run else ()) if one.kind in ("stopping", "killing")]
    return time_plot("Memory over time", "bytes", lines, rules=_limits(columns, "memory"), marks=marks)


def _cpu(columns: list[Column]) -> str:
    lines, spans = [], []
    for column in columns:
        series = _series(column)
        lines.append(Line(column.driver, tuple(_shares(series)), _kind(column.driver), step=True,
                          told=_counted(column, "cpu_time")))
        spans += [Span(f"{column.driver} throttled", start, end, _kind(column.driver), _used(column, "throttled_time"))
                  for start, end in _throttled(series)]
    return time_plot("CPU over time", "% of one CPU", lines, rules=_limits(columns, "cpus"), spans=spans)


def _series(column: Column) -> Series:
    return column.run.series if column.run else Series()


def _limits(columns: list[Column], knob: str) -> list[Rule]:
    """Each limit once, with the name of the file that holds it; those of an equal amount are one line."""
    found: dict[float, str] = {}
    for column in columns:
        for one in column.wishes:
            if one.knob == knob and one.by in ("file", "property"):
                amount = _amount(one.applied, knob)
                if amount is not None:
                    found.setdefault(amount, one.file.rpartition("/")[2])
    return [Rule(name, amount) for amount, name in found.items()]


def _amount(applied: str, knob: str) -> float | None:
    numbers = [int(word) for word in applied.split() if word.isdigit()]
    if knob == "memory":
        return float(numbers[0]) if numbers else None
    if len(numbers) != 2:
        return None
    # cgroup v2 has "quota period" in one file, v1 has the period's file first; the quota is one of them.
    period = 100_000 if 100_000 in numbers else max(numbers)
    numbers.remove(period)
    return 100.0 * numbers[0] / period


def _shares(series: Series) -> Iterator[tuple[float, float]]:
    """CPU time per wall time in percent, over windows of at least :data:`WINDOW`, each given by its start."""
    if not series.cpu:
        return
    window = max(WINDOW, series.times[-1] / 150)
    time, used = 0.0, 0.0
    share = 0.0
    for now, total in zip(series.times, series.cpu, strict=True):
        if now - time >= window:
            share = 100 * (total - used) / (now - time)
            yield time, share
            time, used = now, total
    if time:
        yield time, share


def _throttled(series: Series) -> Iterator[tuple[float, float]]:
    """The stretches in which the time without CPU grew."""
    found: list[list[float]] = []
    for (start, before), (end, after) in pairwise(zip(series.times, series.throttled, strict=False)):
        if after <= before:
            continue
        if found and start - found[-1][1] <= BRIDGED:
            found[-1][1] = end
        else:
            found.append([start, end])
    return ((start, end) for start, end in found)
