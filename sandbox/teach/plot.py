"""Pictures for :mod:`~sandbox.teach.page`, as inline SVG that fits any width and can be read aloud as well.

The outer ``<svg>`` has no viewBox: its padding holds the axes, its content box the data, placed in percent. So the
text keeps its size from a telephone to paper. Each picture is a ``<div class="plot">`` of a title, the SVG and a key in
HTML; the page's style sheet colours it. There are no ids, so any number of pictures goes on one page.

What has a kind (a driver's name) is told apart by colour, by dash and by marker. Times are seconds since the start.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from .axis import Axis, linear, logarithmic, percentile, rounded_up, words

KINDS = ("cgroupfs", "systemd", "delegated")
"""Drivers with a colour of their own; anything else is ``other``."""
CURVE_POINTS = 200
SLICES = 40
PERCENTILES = (50, 95, 99)
LABELLED_MARKS = 3
"""That many marks are labelled in the picture; of more, only their numbers are."""
GUTTER, ROW, LANE, HEIGHT, BAR = 56, 20, 14, 240, 58
"""Pixels: left of the data, per row of marks, per lane of spans, of the data, per row of bars."""
_MARKERS = {"cgroupfs": "M0-4.5a4.5 4.5 0 1 0 .01 0z", "systemd": "M-4-4h8v8h-8z",
            "delegated": "M0-5.5 5.5 0 0 5.5-5.5 0z", "other": "M0-5 5 4H-5z"}


class Series(NamedTuple):
    """A line. Its points are (seconds, value), in the order of time; ``step`` holds a value until the next one.

    :param told: the figure for the key, where a better source has it than the points, which are samples.
    """

    label: str
    points: tuple[tuple[float, float], ...]
    kind: str
    step: bool = False
    told: str = ""


class Rule(NamedTuple):
    """A limit, drawn across; ``kind`` is ``max`` (never passed) or ``high`` (throttled above)."""

    label: str
    value: float
    kind: str = "max"


class Mark(NamedTuple):
    """An event; a ``kind`` with ``kill`` in it, e.g. ``oom_kill``, is drawn in red with a cross."""

    label: str
    time: float
    kind: str


class Span(NamedTuple):
    """A stretch of time, drawn as a bar below the data; spans of one label share a lane.

    :param told: the figure for the key, the same for the whole lane; without it, how long the stretches are together.
    """

    label: str
    start: float
    end: float
    kind: str
    told: str = ""


def time_plot(title: str, unit: str, series: Sequence[Series], *, rules: Sequence[Rule] = (),
              marks: Sequence[Mark] = (), spans: Sequence[Span] = ()) -> str:
    """Lines over time, from 0 up: usage against its limit, with what happened meanwhile.

    :param unit: ``bytes`` (shown in the unit that fits), ``seconds``, or any other text, e.g. ``% of one CPU``.
    """
    series = [one._replace(points=_finite(one.points)) for one in series]
    marks = sorted(marks, key=lambda mark: mark.time)
    lanes = _lanes(spans)
    end = max((time for one in series for time, _ in one.points), default=0)
    end = max([end, *(mark.time for mark in marks), *(span.end for span in spans)]) or 1.0
    x = linear(end, "seconds")
    highest = max([*(value for one in series for _, value in one.points), *(rule.value for rule in rules)], default=0)
    y = rounded_up(linear(highest * 1.04 or 1.0, unit), unit)
    rows = _rows(marks, end)
    below = len(lanes) * LANE
    inside = [*_grid_x(x, [value / end for value, _ in x.ticks], below, "time since the start"), *_grid_y(y),
              *(_drawn_lane(lane, row, end) for row, lane in enumerate(lanes)),
              *(_line(one, place, len(series), end, y.high) for place, one in enumerate(series)),
              *_drawn_rules(rules, y.high, unit), *_slices(series, end, unit), *_drawn_marks(marks, rows, end)]
    key = [*(_series_key(one, unit) for one in series),
           *(_item(lane[0].label, lane[0].kind, _spent(lane), "lane") for lane in lanes),
           *(f'<li><span class="badge m-{_look(mark)}">{number}</span> <b>{escape(mark.label)}</b> at '
             f"{words(mark.time, 'seconds')}</li>" for number, mark in enumerate(marks, 1))]
    told = [*(_told(one, rules, unit) for one in series),
            *(f"{rule.label}: {words(rule.value, unit)}." for rule in rules),
            *(f"{mark.label} at {words(mark.time, 'seconds')}." for mark in marks),
            *(f"{lane[0].label}: {_spent(lane)}." for lane in lanes)]
    return _plot(title, told or ["No samples."], inside, key, top=_above(rows),
                 height=HEIGHT, bottom=below + 46)


def phase_bars(title: str, rows: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> str:
    """One stacked bar for each row, e.g. a driver: the phases one after the other, in seconds."""
    names = list(dict.fromkeys(name for _, phases in rows for name, _ in phases))
    longest = max((sum(seconds for _, seconds in phases) for _, phases in rows), default=0) or 1.0
    axis = linear(longest, "seconds")
    inside = _grid_x(axis, [value / longest for value, _ in axis.ticks], 0, "time")
    told = []
    for row, (label, phases) in enumerate(rows):
        total = words(sum(seconds for _, seconds in phases), "seconds")
        inside += [f'<g class="k-{_kind(label)}">', *_bar(row, phases, names, longest),
                   f'<text class="name" x="0" y="{row * BAR + 16}">{escape(label)} <tspan>{total}</tspan></text></g>']
        told.append(f"{label}: {total}, of it " + ", ".join(f"{name} {words(seconds, 'seconds')}"
                                                             for name, seconds in phases) + ".")
    key = [f'<li><span class="badge">{number}</span> <b>{escape(name)}</b> {_phase(name, rows)}</li>'
           for number, name in enumerate(names, 1)]
    return _plot(title, told, inside, key, top=4, height=len(rows) * BAR, bottom=46, gutter=6)


def ecdf(title: str, series: Sequence[tuple[str, str, Sequence[float]]]) -> str:
    """The share of samples (seconds) that took at most so long, on a logarithmic axis, for each (label, kind, samples).

    The 50th, 95th and 99th percentile (nearest rank) are marked on each line and named in the key.
    """
    ordered = [(label, kind, sorted(value for value in samples if 0 < value < math.inf))
               for label, kind, samples in series]
    ordered = [one for one in ordered if one[2]]
    values = [value for *_, samples in ordered for value in samples] or [1e-3]
    axis = logarithmic(min(values), max(values))

    def x(value: float) -> float:
        return math.log(value / axis.low) / math.log(axis.high / axis.low)

    title_y = f"% of the samples; marked are p{', p'.join(map(str, PERCENTILES))}"
    inside = [*_grid_x(axis, [x(value) for value, _ in axis.ticks], 0, "time, logarithmic"),
              *_grid_y(Axis(0, 100, tuple((tick, str(tick)) for tick in (0, 25, 50, 75, 100)), title_y))]
    key, told = [], []
    for label, kind, samples in ordered:
        marked = [(x(percentile(samples, percent)), percent / 100) for percent in PERCENTILES]
        reached = [(value, (place + 1) / len(samples)) for place, value in enumerate(samples)]
        steps = [(x(samples[0]), 0.0), *((x(value), share) for value, share in _thinned(reached))]
        inside += [f'<g class="k-{_kind(kind)}">', _path(steps, step=True, area=False), *_markers(kind, marked), "</g>"]
        text = ", ".join(f"p{percent} {words(percentile(samples, percent), 'seconds')}" for percent in PERCENTILES)
        key.append(_item(label, kind, f"{text}, n = {len(samples)}"))
        told.append(f"{label}: {text}, {len(samples)} samples.")
    return _plot(title, told or ["No samples."], inside, key, top=_above(()), height=HEIGHT, bottom=46)


def escape(text: str) -> str:
    """``text`` for HTML and XML; what neither can hold, or what would reorder the line, is written as ``\\x1b``."""
    odd = "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069\\ud800-\\udfff\\ufffe\\uffff]"
    return html.escape(re.sub(odd, lambda match: _escaped(ord(match[0])), text))


def _escaped(code: int) -> str:
    # Python keeps a byte that is not UTF-8 as U+DC80 to U+DCFF.
    code = code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else code
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def _plot(title: str, told: Sequence[str], inside: Iterable[str], key: Sequence[str], *, top: int, height: int,
          bottom: int, gutter: int = GUTTER) -> str:
    size = f"height:{top + height + bottom}px;padding:{top}px 14px {bottom}px {gutter}px"
    items = f'<ul class="key">{"".join(key)}</ul>' if key else ""
    return (f'<div class="plot"><p class="title">{escape(title)}</p><svg role="img" style="{size}">'
            f"<title>{escape(title)}</title><desc>{escape(' '.join(told))}</desc>{''.join(inside)}</svg>{items}</div>")


def _grid_x(axis: Axis, shares: Sequence[float], below: int, what: str) -> list[str]:
    ticks = [f'<svg x="{_percent(share)}" y="100%"><path class="tick" d="M0 0v5"/><text text-anchor="middle" '
             f'y="{below + 18}">{text}</text></svg>' for share, (_, text) in zip(shares, axis.ticks, strict=True)]
    return [*ticks, '<line class="base" x1="0" x2="100%" y1="100%" y2="100%"/>',
            f'<svg y="100%"><text x="100%" text-anchor="end" y="{below + 38}">{what}, {axis.title}</text>'
            "</svg>"]


def _grid_y(axis: Axis) -> list[str]:
    lines = []
    for value, text in axis.ticks:
        y = _percent(1 - value / axis.high)
        lines.append(f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
                     f'<text x="-10" y="{y}" dy="4" text-anchor="end">{text}</text>')
    return [*lines, f'<text x="{-GUTTER}" y="-14">{escape(axis.title)}</text>']


def _line(one: Series, place: int, of: int, end: float, high: float) -> str:
    points = [(time / end, value / high) for time, value in _thinned(one.points)]
    # Four markers on each line, staggered: on lines that lie on each other, all of them are seen.
    wanted = [(quarter + (place + 1) / (of + 1)) / 4 for quarter in range(4)] if points else []
    nearest = {min(points, key=lambda point: abs(point[0] - share * points[-1][0])) for share in wanted}
    path = _path(points, step=one.step, area=of == 1)
    return f'<g class="k-{_kind(one.kind)}">{path}{"".join(_markers(one.kind, nearest))}</g>'


def _path(shares: Sequence[tuple[float, float]], *, step: bool, area: bool) -> str:
    """A line through ``shares`` of the width and of the height, from the bottom left; ``area`` shades what is below."""
    if not shares:
        return ""
    points = [(round(x * 2000), round(1000 - y * 1000)) for x, y in shares]
    line = f"M{points[0][0]} {points[0][1]}"
    for (_, before), (x, y) in pairwise(points):
        line += (f"H{x}" + (f"V{y}" if y != before else "")) if step else f"L{x} {y}"
    filled = f'<path class="area" d="{line}V1000H{points[0][0]}z"/>' if area else ""
    return ('<svg viewBox="0 0 2000 1000" preserveAspectRatio="none" width="100%" height="100%">'
            f'{filled}<path class="line" d="{line}"/></svg>')


def _markers(kind: str, shares: Iterable[tuple[float, float]]) -> list[str]:
    return [f'<svg x="{_percent(x)}" y="{_percent(1 - y)}">{_marker(kind)}</svg>' for x, y in sorted(shares)]


def _marker(kind: str) -> str:
    return f'<path class="marker" d="{_MARKERS[_kind(kind)]}"/>'


def _drawn_rules(rules: Sequence[Rule], high: float, unit: str) -> Iterable[str]:
    ordered = sorted(rules, key=lambda rule: rule.value)
    for place, rule in enumerate(ordered):
        # Above its line, or below where the next line would cross it.
        is_crossed = any(0 < other.value - rule.value < 0.1 * high for other in ordered[place + 1:])
        y = _percent(1 - rule.value / high)
        # On the left, where usage is still low; every other on the right, for limits that are close to each other.
        x, anchor = ("100%", "end") if place % 2 else ("4", "start")
        yield (f'<g class="r-{escape(rule.kind)}"><line class="rule" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
               f'<text x="{x}" y="{y}" dy="{16 if is_crossed else -7}" text-anchor="{anchor}">'
               f"{escape(rule.label)} {escape(words(rule.value, unit))}</text></g>")


def _rows(marks: Sequence[Mark], end: float) -> list[int]:
    """The row of each mark's badge: one for each where they have labels, else so that no badge covers another."""
    if len(marks) <= LABELLED_MARKS:
        return list(range(len(marks)))
    last: list[float] = []
    rows = []
    for mark in marks:
        row = next((row for row, time in enumerate(last) if mark.time - time > 0.08 * end), len(last))
        last[row:row + 1] = [mark.time]
        rows.append(row)
    return rows


def _drawn_marks(marks: Sequence[Mark], rows: Sequence[int], end: float) -> list[str]:
    lines, badges = [], []
    for number, (mark, row) in enumerate(zip(marks, rows, strict=True), 1):
        x, y = _percent(mark.time / end), -row * ROW - 34
        dx, anchor = (13, "start") if mark.time <= end / 2 else (-13, "end")
        label = f'<text class="label" x="{dx}" y="4" text-anchor="{anchor}">{escape(mark.label)}</text>'
        cross = f'<svg x="{x}" y="100%"><path class="cross" d="M-5-5 5 5M5-5-5 5"/></svg>'
        lines.append(f'<g class="m-{_look(mark)}"><line class="mark" x1="{x}" x2="{x}" y1="{y}" y2="100%"/>'
                     f'{cross if _look(mark) == "kill" else ""}</g>')
        badges.append(f'<svg x="{x}" y="{y}" class="m-{_look(mark)}"><circle class="badge" r="8.5"/>'
                      f'<text class="number" y="4" text-anchor="middle">{number}</text>'
                      f'{label if len(marks) <= LABELLED_MARKS else ""}</svg>')
    return lines + badges


def _look(mark: Mark) -> str:
    return "kill" if "kill" in mark.kind else "event"


def _lanes(spans: Sequence[Span]) -> list[list[Span]]:
    lanes: dict[str, list[Span]] = {}
    for span in spans:
        lanes.setdefault(span.label, []).append(span)
    return list(lanes.values())


def _drawn_lane(lane: Sequence[Span], row: int, end: float) -> str:
    bars = "".join(f"M{start} 0H{stop}" for start, stop in _merged(lane, end))
    return (f'<svg y="100%" class="k-{_kind(lane[0].kind)}"><title>{escape(lane[0].label)}: {_spent(lane)}</title>'
            f'<svg x="-12" y="{row * LANE + 11}">{_marker(lane[0].kind)}</svg>'
            f'<svg y="{row * LANE + 11}" viewBox="0 0 1000 1" width="100%" height="1" preserveAspectRatio="none">'
            f'<path class="lane" d="{bars}"/></svg></svg>')


def _merged(lane: Sequence[Span], end: float) -> list[tuple[int, int]]:
    """Thousandths of the width; what touches there is one, and the shortest is one long, or it would not be seen."""
    merged: list[tuple[int, int]] = []
    for span in sorted(lane, key=lambda span: span.start):
        start = round(span.start / end * 1000)
        stop = max(round(span.end / end * 1000), start + 1)
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


def _spent(lane: Sequence[Span]) -> str:
    if lane[0].told:
        return lane[0].told
    total = words(sum(span.end - span.start for span in lane), "seconds")
    return total if len(lane) == 1 else f"{total} in {len(lane)} stretches"


def _slices(series: Sequence[Series], end: float, unit: str) -> Iterable[str]:
    """Tooltips: slices of time over the whole height, each with the values in its middle."""
    yield '<g class="slices">'
    for number in range(SLICES if any(one.points for one in series) else 0):
        time = (number + 0.5) / SLICES * end
        values = [(one.label, value) for one in series if (value := _at(one, time)) is not None]
        lines = "\n".join([words(time, "seconds"), *(f"{label} {words(value, unit)}" for label, value in values)])
        yield (f'<rect x="{_percent(number / SLICES)}" width="{_percent(1 / SLICES)}" height="100%">'
               f"<title>{escape(lines)}</title></rect>")
    yield "</g>"


def _at(one: Series, time: float) -> float | None:
    for (start, before), (stop, after) in pairwise(one.points):
        if start <= time < stop:
            return before if one.step else before + (after - before) * (time - start) / (stop - start)
    return None


def _bar(row: int, phases: Sequence[tuple[str, float]], names: Sequence[str], longest: float) -> Iterable[str]:
    start = 0.0
    for name, seconds in phases:
        number = names.index(name) + 1
        # Filled and tinted by turns, so that neighbours are told apart in one colour.
        yield (f'<g class="{"tint" if number % 2 else ""}">'
               f'<title>{escape(name)} {words(seconds, "seconds")}</title>'
               f'<rect class="phase" x="{_percent(start / longest)}" y="{row * BAR + 24}" height="24" '
               f'width="{_percent(seconds / longest)}"/>')
        if seconds >= 0.045 * longest:
            middle = _percent((start + seconds / 2) / longest)
            yield f'<text class="number" x="{middle}" y="{row * BAR + 40}" text-anchor="middle">{number}</text>'
        yield "</g>"
        start += seconds


def _phase(name: str, rows: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> str:
    return " ".join(f'<span class="k-{_kind(label)}">{_swatch(label)}<span class="vh">{escape(label)} </span>'
                    f"{words(seconds, 'seconds')}</span>"
                    for label, phases in rows for phase, seconds in phases if phase == name)


def _series_key(one: Series, unit: str) -> str:
    text = one.told or (f"at most {words(max(value for _, value in one.points), unit)}" if one.points else "no samples")
    return _item(one.label, one.kind, text)


def _item(label: str, kind: str, text: str, look: str = "line") -> str:
    return (f'<li class="k-{_kind(kind)}">{_swatch(kind, look)}<span><b>{escape(label)}</b> {escape(text)}</span></li>')


def _swatch(kind: str, look: str = "") -> str:
    """A marker, alone or on a line: 28 wide, of which the marker alone needs the middle 14."""
    box, line = ("0 0 28 12", f'<path class="{look}" d="M0 0H28"/>') if look else ("7 0 14 12", "")
    return (f'<svg class="swatch" aria-hidden="true" viewBox="{box}"><svg y="6">{line}<svg x="14">{_marker(kind)}</svg>'
            "</svg></svg>")


def _above(rows: Sequence[int]) -> int:
    """Pixels above the data: for the unit, and for the rows of marks above that."""
    return 30 + ROW * (max(rows, default=-1) + 1) + (4 if rows else 0)


def _told(one: Series, rules: Sequence[Rule], unit: str) -> str:
    if not one.points:
        return f"{one.label}: no samples."
    time, value = max(one.points, key=lambda point: point[1])
    limit = next((rule for rule in rules if rule.value and abs(value / rule.value - 1) < 0.01), None)
    start = f"{one.label}: {one.told}. The line" if one.told else one.label
    return (f"{start} rises to {words(value, unit)}{f', the limit {limit.label},' if limit else ''} at "
            f"{words(time, 'seconds')} and ends with {words(one.points[-1][1], unit)} at "
            f"{words(one.points[-1][0], 'seconds')}.")


def _kind(name: str) -> str:
    return next((kind for kind in KINDS if kind in name), "other")


def _percent(share: float) -> str:
    return f"{share * 100:.2f}%"


def _finite(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    return tuple(point for point in points if all(map(math.isfinite, point)))


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most :data:`CURVE_POINTS`, with the lowest and the highest of each stretch: no peak is lost."""
    if len(points) <= CURVE_POINTS:
        return list(points)
    stretches = CURVE_POINTS // 2 - 1
    kept = {0, len(points) - 1}
    for number in range(stretches):
        places = range(number * len(points) // stretches, (number + 1) * len(points) // stretches)
        kept |= {min(places, key=lambda place: points[place][1]), max(places, key=lambda place: points[place][1])}
    return [points[place] for place in sorted(kept)]
