"""What was measured: as tables of 80 columns, and as JSON with the keys of hyperfine."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from .bench import Group, Machine, Result
from .bench_phases import PHASES
from .bench_rounds import Ratio, Sample, percentile, ratio

WIDTH = 80
PERCENTILES = (50, 95, 99)


def text(result: Result) -> str:
    """The tables, the heading first."""
    lines = [*heading(result), *_phases(result.library), "", *_whole(result.library)]
    if result.programs.rows:
        lines += ["", *_whole(result.programs), "OCI runtimes make the namespaces of their own default config.json."]
    for missing in result.missing:
        lines += _wrapped(f"left out: {missing.name}: {missing.reason}")
    if result.untold:
        lines += _wrapped(f"limits that only ours have: {', '.join(result.untold)}")
    return "\n".join(lines)


def heading(result: Result) -> Iterator[str]:
    """What was measured, where, how often, and how busy the machine was."""
    machine = result.machine
    yield from _wrapped(f"{' '.join(result.argv)}, {result.rounds} rounds, limits: {' '.join(result.limits)}")
    yield from _wrapped(f"{_described(machine)}; load {machine.load_before:.2f} before, {machine.load_after:.2f} after")
    yield ""


def _described(machine: Machine) -> str:
    systemd = f"systemd {machine.systemd}" if machine.systemd else "no systemd"
    return f"Linux {machine.kernel}, {machine.cpus} CPUs, cgroup {machine.cgroup_mode}, {systemd}"


def _phases(group: Group) -> Iterator[str]:
    """Of each row the percentiles of the whole and of each phase. Only means add up, percentiles need not."""
    yield f"{group.title}, ms by phase"
    yield f"{'':<5}{'total':>7}{''.join(f'{name:>{_width(name)}}' for name in PHASES)}"
    for row in group.rows:
        yield row.name
        for percent in PERCENTILES:
            parts = (percentile(part, percent) for part in zip(*(one.phases for one in row.samples), strict=True))
            cells = "".join(f"{show(part):>{_width(name)}}" for name, part in zip(PHASES, parts, strict=True))
            yield f"  p{percent}{show(percentile(_totals(row.samples), percent)):>7}{cells}"


def _width(name: str) -> int:
    return max(8, len(name) + 2)


def _whole(group: Group) -> Iterator[str]:
    """Each row as a whole, beside the first one."""
    width = max(len(row.name) for row in group.rows)
    yield f"{group.title}, ms"
    yield f"{'':<{width}}{'p50':>8}{'p95':>8}{'p99':>8}   ratio to 1st (quartiles)"
    reference = group.rows[0].samples
    for row in group.rows:
        cells = "".join(f"{show(percentile(_totals(row.samples), percent)):>8}" for percent in PERCENTILES)
        beside = "" if row is group.rows[0] else show_ratio(ratio(row.samples, reference))
        yield f"{row.name:<{width}}{cells}   {beside}".rstrip()


def show(seconds: float) -> str:
    """Milliseconds in at most six characters, as long as they are less than a hundred seconds."""
    milliseconds = seconds * 1000
    return f"{milliseconds:.{2 if milliseconds < 100 else 1 if milliseconds < 1000 else 0}f}"


def show_ratio(found: Ratio) -> str:
    """``2.41 (2.30 to 2.56)``."""
    return f"{found.median:#.3g} ({found.low:#.3g} to {found.high:#.3g})"


def _totals(samples: Iterable[Sample]) -> list[float]:
    return [one.total for one in samples]


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


# -- JSON ----------------------------------------------------------------------------------------------------------

def data(result: Result) -> dict[str, object]:
    """Everything, seconds throughout; ``results`` is what hyperfine's own scripts read."""
    rows = [_row(group, position) for group in (result.library, result.programs) for position in range(len(group.rows))]
    return {"schema_version": 1, "argv": list(result.argv), "rounds": result.rounds, "limits": list(result.limits),
            "machine": result.machine._asdict(), "phases": PHASES, "results": rows,
            "missing": [one._asdict() for one in result.missing], "untold": list(result.untold)}


def _row(group: Group, position: int) -> dict[str, object]:
    row, reference = group.rows[position], group.rows[0]
    times = _totals(row.samples)
    found: dict[str, object] = {
        "command": row.command, "mean": statistics.fmean(times),
        "stddev": statistics.stdev(times) if len(times) > 1 else None, "median": statistics.median(times),
        "user": statistics.fmean(one.user for one in row.samples),
        "system": statistics.fmean(one.system for one in row.samples),
        "min": min(times), "max": max(times), "times": times, "exit_codes": [one.exit_code for one in row.samples],
        "name": row.name, "group": group.title, "percentiles": _percentiles(times),
        "ratio": ratio(row.samples, reference.samples)._asdict() | {"to": reference.name},
    }
    if row.samples[0].phases:
        parts = zip(*(one.phases for one in row.samples), strict=True)
        found["phases"] = {name: {"percentiles": _percentiles(part), "times": list(part)}
                           for name, part in zip(PHASES, parts, strict=True)}
    return found


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    return {f"p{percent}": percentile(values, percent) for percent in PERCENTILES}
