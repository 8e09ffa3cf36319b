"""Pictures: what is drawn where, what is told in words, and that neither depends on the size of what is given."""

from __future__ import annotations

import html
import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.teach import axis
from sandbox.teach.page_style import STYLE
from sandbox.teach.plot import Mark, Rule, Series, Span, ecdf, escape, phase_bars, time_plot

MIB = 1024.0**2
RISING = Series("cgroupfs", tuple((tenth / 10, tenth * 6.4 * MIB) for tenth in range(11)), "cgroupfs")
FINITE = st.floats(0, 1e12, allow_subnormal=False)
TIMES = st.floats(1e-7, 1e4, allow_nan=False)


def drawing(fragment: str) -> ElementTree.Element:
    """The picture; a fragment that is not well-formed does not get here."""
    svg = ElementTree.fromstring(fragment).find("svg")
    assert svg is not None
    return svg


def told(fragment: str) -> str:
    return drawing(fragment).findtext("desc") or ""


def texts(fragment: str) -> list[str]:
    return ["".join(text.itertext()) for text in drawing(fragment).iter("text")]


def key(fragment: str) -> list[str]:
    return [" ".join("".join(item.itertext()).split()) for item in ElementTree.fromstring(fragment).iter("li")]


def lines(fragment: str, look: str) -> list[ElementTree.Element]:
    return [one for one in drawing(fragment).iter() if one.get("class") == look]


def line_points(fragment: str) -> list[tuple[int, int]]:
    return [(int(x), int(y)) for x, y in re.findall(r"[ML](\d+) (\d+)", lines(fragment, "line")[0].get("d") or "")]


def test_a_screen_reader_is_told_the_figures() -> None:
    drawn = time_plot("Memory", "bytes", [RISING], rules=[Rule("memory.max", 64 * MIB)],
                      marks=[Mark("oom_kill", 0.98, "oom_kill")], spans=[Span("throttled", 0.1, 0.4, "cgroupfs")])
    assert drawing(drawn).get("role") == "img"
    assert drawing(drawn).findtext("title") == "Memory"
    assert told(drawn) == ("cgroupfs rises to 64.0 MiB, the limit memory.max, at 1.00 s and ends with 64.0 MiB at "
                           "1.00 s. memory.max: 64.0 MiB. oom_kill at 980 ms. throttled: 300 ms.")
    assert key(drawn) == ["cgroupfs at most 64.0 MiB", "throttled 300 ms", "1 oom_kill at 980 ms"]


def test_values_stand_at_their_place() -> None:
    drawn = time_plot("Memory", "bytes", [RISING], rules=[Rule("memory.max", 64 * MIB)])
    # 64 MiB with air above: the axis ends at the next tick, 80 MiB.
    assert "80" in texts(drawn)
    assert line_points(drawn)[0] == (0, 1000)
    assert line_points(drawn)[-1] == (2000, 200)
    assert lines(drawn, "rule")[0].get("y1") == "20.00%"


def test_labels_of_limits_that_are_close_are_not_crossed_by_the_other() -> None:
    drawn = time_plot("CPU", "%", [Series("a", ((0, 50), (1, 50)), "systemd")], rules=[Rule("b", 34), Rule("a", 33.3)])
    labels = [text for text in drawing(drawn).iter("text") if text.text in ("a 33.3 %", "b 34 %")]
    assert [(label.text, label.get("dy"), label.get("text-anchor")) for label in labels] == [
        ("a 33.3 %", "16", "start"), ("b 34 %", "-7", "end")]


def test_axes_name_their_units() -> None:
    found = texts(time_plot("Memory", "bytes", [RISING]))
    assert {"MiB", "time since the start, s", "0", "16", "64"} <= set(found)
    assert "% of one CPU" in texts(time_plot("CPU", "% of one CPU", [Series("a", ((0, 5), (1, 9)), "systemd")]))


def test_a_step_keeps_its_value_until_the_next() -> None:
    drawn = time_plot("CPU", "%", [Series("a", ((0, 50), (1, 100), (2, 100)), "systemd", step=True)])
    assert lines(drawn, "line")[0].get("d") == "M0 583H1000V167H2000"


def test_kinds_differ_in_more_than_colour() -> None:
    kinds = ("cgroupfs", "systemd", "delegated", "other")
    drawn = time_plot("Memory", "bytes", [RISING._replace(kind=kind) for kind in kinds])
    groups = [group for group in drawing(drawn).iter("g") if (group.get("class") or "").startswith("k-")]
    assert [group.get("class") for group in groups] == [f"k-{kind}" for kind in kinds]
    assert len({marker.get("d") for marker in lines(drawn, "marker")}) == len(kinds)
    dashes = re.findall(r"\.k-(\w+)(?:,[^{]*)?{--c:var\(--\w+\);--dash:([^}]+)}", STYLE)
    assert {kind for kind, _ in dashes} == set(kinds)
    assert len({dash for _, dash in dashes}) == len(kinds)


@pytest.mark.parametrize("step", [False, True])
def test_no_peak_is_lost_however_many_samples(step: bool) -> None:
    points = tuple((number / 100, MIB if number != 4321 else 50 * MIB) for number in range(20_000))
    drawn = time_plot("Memory", "bytes", [Series("a", points, "systemd", step)])
    assert len(drawn) < 14_000
    assert "rises to 50.0 MiB at 43.2 s" in told(drawn)
    assert min(int(y) for y in re.findall(r"(?:V|L\d+ )(\d+)", lines(drawn, "line")[0].get("d") or "")) < 250


def test_thousands_of_spans_are_one_short_path_that_covers_them_all() -> None:
    spans = [Span("throttled", number / 100, (number + 0.5) / 100, "systemd") for number in range(10_000)]
    drawn = time_plot("CPU", "%", [Series("a", ((0, 1), (200, 1)), "systemd")], spans=spans)
    assert lines(drawn, "lane")[0].get("d") == "M0 0H501"
    assert "throttled 50.0 s in 10000 stretches" in key(drawn)
    short = Span("throttled", 5000, 5000.1, "systemd")
    one = time_plot("CPU", "%", [Series("a", ((0, 1), (1e4, 1)), "systemd")], spans=[short])
    assert lines(one, "lane")[0].get("d") == "M500 0H501"


def test_few_marks_are_labelled_and_many_do_not_cover_each_other() -> None:
    few = time_plot("Memory", "bytes", [RISING], marks=[Mark("first", 0.5, "event"), Mark("second", 0.5, "oom_kill")])
    assert {"first", "second"} <= set(texts(few))
    many = time_plot("Memory", "bytes", [RISING], marks=[Mark(f"kill {n}", n / 50, "oom_kill") for n in range(50)])
    assert "kill 7" not in texts(many)
    assert "8 kill 7 at 140 ms" in key(many)
    places = [(float((badge.get("x") or "0").rstrip("%")), badge.get("y")) for badge in drawing(many).iter("svg")
              if badge.find("circle") is not None]
    assert len(places) == 50
    assert not [(a, b) for a in places for b in places if a < b and a[1] == b[1] and abs(a[0] - b[0]) < 8]


def test_what_cannot_be_drawn_is_left_out() -> None:
    odd = Series("a", ((0, 1), (1, math.nan), (math.inf, 2), (2, 3)), "systemd")
    assert line_points(time_plot("CPU", "%", [odd])) == line_points(time_plot("CPU", "%", [
        odd._replace(points=((0, 1), (2, 3)))]))
    assert told(time_plot("CPU", "%", [])) == "No samples."
    assert told(time_plot("CPU", "%", [Series("a", (), "systemd")])) == "a: no samples."
    assert told(ecdf("Launch", [("a", "systemd", (0.0, math.nan))])) == "No samples."
    assert drawing(phase_bars("Phases", [])) is not None


@given(st.lists(st.tuples(TIMES, FINITE), max_size=8), st.lists(FINITE, max_size=3), st.booleans())
def test_everything_stays_inside(points: list[tuple[float, float]], limits: list[float], step: bool) -> None:
    drawn = time_plot("t", "bytes", [Series("a", tuple(sorted(points)), "systemd", step)],
                      rules=[Rule("limit", value) for value in limits])
    for one in drawing(drawn).iter():
        for name in ("x", "y", "x1", "x2", "y1", "y2", "width"):
            if (place := one.get(name) or "").endswith("%"):
                assert 0 <= float(place.rstrip("%")) <= 100, (one.tag, one.attrib)
    assert not re.search(r"nan|inf|e-\d", " ".join(one.get("d") or "" for one in drawing(drawn).iter("path")))


def test_phases_add_up_and_are_named() -> None:
    drawn = phase_bars("Phases", [("cgroupfs", [("create", 0.001), ("exec", 0.003)]),
                                  ("systemd scope", [("create", 0.006), ("exec", 0.002)])])
    widths = [rect.get("width") for rect in lines(drawn, "phase")]
    assert widths == ["12.50%", "37.50%", "75.00%", "25.00%"]
    assert told(drawn) == ("cgroupfs: 4.00 ms, of it create 1.00 ms, exec 3.00 ms. "
                           "systemd scope: 8.00 ms, of it create 6.00 ms, exec 2.00 ms.")
    assert key(drawn)[0] == "1 create cgroupfs 1.00 ms systemd scope 6.00 ms"
    assert "time, ms" in texts(drawn)


def test_percentiles_by_nearest_rank() -> None:
    samples = [number / 1000 for number in range(100, 0, -1)]
    assert told(ecdf("Launch", [("a", "systemd", samples)])) == "a: p50 50.0 ms, p95 95.0 ms, p99 99.0 ms, 100 samples."
    assert axis.percentile([7.0], 50) == axis.percentile([7.0], 99) == 7.0


@given(TIMES, TIMES)
def test_a_logarithmic_axis_holds_what_it_is_for(one: float, other: float) -> None:
    made = axis.logarithmic(min(one, other), max(one, other))
    values = [value for value, _ in made.ticks]
    assert made.low < min(one, other) <= max(one, other) < made.high
    assert 1 <= len(values) <= 13
    assert made.low <= values[0] <= values[-1] <= made.high
    assert len({text for _, text in made.ticks}) == len(values)


@given(st.floats(1e-6, 1e15), st.sampled_from(["bytes", "seconds", "%"]))
def test_a_linear_axis_has_few_round_ticks_from_zero(high: float, unit: str) -> None:
    made = axis.rounded_up(axis.linear(high, unit), unit)
    assert made.ticks[0] == (0, "0")
    assert 2 <= len(made.ticks) <= 8
    assert made.ticks[-1][0] == pytest.approx(made.high)
    assert made.high >= high * (1 - 1e-9)


@pytest.mark.parametrize(("value", "unit", "text"), [
    (64 * MIB, "bytes", "64.0 MiB"), (0.00231, "seconds", "2.31 ms"), (0.9999, "seconds", "1.00 s"),
    (0, "seconds", "0 s"), (4e-5, "seconds", "40.0 µs"), (4.2, "seconds", "4.20 s"), (360, "seconds", "360 s"),
    (9.84, "% of one CPU", "9.84 % of one CPU"), (12_345, "", "12,345"), (0.09996, "seconds", "100 ms")])
def test_values_in_words(value: float, unit: str, text: str) -> None:
    assert axis.words(value, unit) == text


@pytest.mark.parametrize(("raw", "shown"), [
    ("<b> & \"x\"", "&lt;b&gt; &amp; &quot;x&quot;"), ("a\x1b[31m\0", "a\\x1b[31m\\x00"), ("a\udcff", "a\\xff"),
    ("gpj.\u202eexe", "gpj.\\u202eexe"), ("é ≠\n\t", "é ≠\n\t"), ("\ufffe", "\\ufffe")])
def test_nothing_gets_in_that_is_not_text(raw: str, shown: str) -> None:
    assert escape(raw) == shown
    drawn = time_plot(raw, raw, [Series(raw, ((0, 1), (1, 2)), raw)], rules=[Rule(raw, 1, raw)],
                      marks=[Mark(raw, 0, raw)], spans=[Span(raw, 0, 1, raw)])
    for one in (drawn, phase_bars(raw, [(raw, [(raw, 1)])]), ecdf(raw, [(raw, raw, [1.0])])):
        assert drawing(one).findtext("title") == html.unescape(shown)
        one.encode()
