"""The experiment with the vanishing limit as a page: the plot that says it all, and the files before and after."""

from __future__ import annotations

from .conflict import CPUS, Column, Conflict
from .page import Section, Table, figure, page, paragraph, table
from .plot import Mark, Rule, Series, time_plot

KINDS = {"raw": "cgroupfs", "delegated": "delegated"}


def html(conflict: Conflict) -> str:
    """One self-contained page."""
    verdict = "It came out as predicted." if conflict.confirmed else "It did not come out as predicted."
    return page(
        "The vanishing limit",
        f"A CPU cap of {CPUS:.0%}, set behind systemd's back, is lost when an unrelated unit stops. Below a delegated "
        f"unit it stays. {verdict}",
        [Section("CPU time", (figure(_plot(conflict), "Share of one CPU, sampled from cpu.stat"),)),
         Section("Prediction", tuple(paragraph(one) for one in conflict.prediction)),
         Section("What the files said", tuple(table(_table(column)) for column in conflict.columns))],
        footer=f"Linux {conflict.kernel}, systemd {conflict.systemd}, cgroup v2")


def _plot(conflict: Conflict) -> str:
    series = [Series(column.way, tuple((time, 100 * share) for time, share in column.samples), KINDS[column.way])
              for column in conflict.columns]
    marks = [Mark(moment.label, moment.time, "unit") for moment in conflict.columns[0].moments[1:]]
    return time_plot("CPU time of two sandboxes with the same cap", "% of one CPU", series,
                     rules=[Rule("cpu.max", 100 * CPUS)], marks=marks)


def _table(column: Column) -> Table:
    rows = tuple((moment.label, f"{share:.0%}", moment.limit or "(no file)", moment.controllers)
                 for moment, share in zip(column.moments, column.shares, strict=True))
    return Table(f"{column.way}: {column.cgroup}", ("", "CPU", "cpu.max", "cgroup.subtree_control of the root"), rows,
                 tuple("same" if share < 2 * CPUS else "different" for share in column.shares))
