"""The page as text: valid, self-contained, small, in order for a screen reader, and readable in its colours."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser

import pytest

from sandbox.teach import page
from sandbox.teach.page import Fact, Node, Section, Table
from sandbox.teach.page_style import DARK, LIGHT, STYLE
from sandbox.teach.plot import Mark, Rule, Series, Span, ecdf, phase_bars, time_plot

VOID = {"meta", "link", "br"}
EVIL = "</title></style></script><script>alert(1)</script>\" onload=x \udcff\x1b"


class Elements(HTMLParser):
    """Every element of a document with what is in it; fails where one is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[list[str]] = []
        self._open: list[tuple[str, int]] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in {tag}"
        self.found.append((tag, dict(attrs)))
        self.texts.append([])
        if tag not in VOID:
            self._open.append((tag, len(self.found) - 1))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "svg" in [name for name, _ in self._open], f"<{tag}/> is for SVG alone"
        self.found.append((tag, dict(attrs)))
        self.texts.append([])

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _, place in self._open:
            self.texts[place].append(data)

    def of(self, *tags: str) -> list[tuple[str, dict[str, str | None], str]]:
        return [(tag, attributes, "".join(text)) for (tag, attributes), text
                in zip(self.found, self.texts, strict=True) if tag in tags]

    def values(self, name: str) -> list[str]:
        return [value for _, attributes in self.found if (value := attributes.get(name)) is not None]


def document(word: str = "x", samples: int = 4000) -> str:
    """A page with everything that there is, three plots over time among it."""
    points = tuple((number / 100, float((number * 7919) % 1000)) for number in range(samples))
    series = [Series(f"{kind} {word}", points, kind, kind == "systemd")
              for kind in ("cgroupfs", "systemd", "delegated")]
    spans = [Span(f"{kind} throttled", number / 10, number / 10 + 0.07, kind) for kind in ("cgroupfs", "systemd")
             for number in range(samples // 10)]
    plot = time_plot(word, "bytes", series, rules=[Rule(word, 900)], marks=[Mark(word, 3, "oom_kill")], spans=spans)
    rows = tuple((f"{word} {number}", "memory.max = 1", "MemoryMax = 1", word) for number in range(40))
    table = Table(word, ("", "cgroupfs", "systemd", "why"), rows, ("same", "different", "unmet", "") * 10, (1, 2))
    tree = page.tree(word, Node("/", "systemd", word, (Node(word, word), Node("x", "cgroupfs", word, (Node(word),)))))
    return page.page(word, word, [
        Section(word, (page.paragraph(word), page.table(table), page.columns(tree, tree))),
        Section(word, tuple(page.figure(plot, word) for _ in range(3))),
        Section("Time", (page.figure(phase_bars(word, [("systemd", [("create", 1), (word, 2)])]), word),
                         page.figure(ecdf(word, [(word, "systemd", [1.0, 2.0])]), word)))],
        opening=(page.code(word), page.facts([Fact(word, word, word, "systemd"), Fact(word, word)])), footer=word)


@pytest.fixture(scope="module")
def elements() -> Elements:
    return Elements(document())


def test_one_main_heading_and_no_level_left_out(elements: Elements) -> None:
    levels = [int(tag[1]) for tag, _, _ in elements.of("h1", "h2", "h3", "h4", "h5", "h6")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_language_title_and_landmarks(elements: Elements) -> None:
    assert elements.of("html")[0][1] == {"lang": "en"}
    assert elements.of("title")[0][2] == "x"
    assert [len(elements.of(tag)) for tag in ("header", "nav", "main", "footer")] == [1, 1, 1, 1]


def test_the_first_link_skips_to_the_content_and_every_link_leads_somewhere(elements: Elements) -> None:
    links = [attributes["href"] for _, attributes, _ in elements.of("a")]
    ids = elements.values("id")
    assert links[0] == "#main"
    assert len(ids) == len(set(ids))
    assert {f"#{name}" for name in ids} >= set(links)
    assert set(elements.values("aria-labelledby")) <= set(ids)


def test_tables_have_a_caption_and_headers_with_a_scope(elements: Elements) -> None:
    assert len(elements.of("caption")) == len(elements.of("table")) == 1
    assert all(attributes.get("scope") in ("col", "row") for _, attributes, _ in elements.of("th"))
    assert all(text.strip() for *_, text in elements.of("th"))


def test_what_scrolls_can_be_reached_by_the_keyboard(elements: Elements) -> None:
    regions = [attributes for _, attributes, _ in elements.of("div") if attributes.get("role") == "region"]
    assert len(regions) == 2
    assert all(one.get("tabindex") == "0" and one.get("aria-label") for one in regions)
    assert set(elements.values("tabindex")) == {"0", "-1"}


def test_a_mark_is_a_symbol_and_a_word() -> None:
    made = page.table(Table("t", ("wish", "value"), (("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")),
                            ("same", "different", "unmet", "")))
    rows = [text for *_, text in Elements(made).of("th")[2:]]
    assert rows == ["=same: a", "≠different: b", "✗unmet: c", "d"]
    assert Elements(made).of("caption")[0][2] == "t = same 1 ≠ different 1 ✗ unmet 1"


def test_a_tree_keeps_its_shape() -> None:
    first = Node("a", "cgroupfs", "1 MiB", (Node("b"),))
    made = page.tree("T", Node("/", "systemd", children=(first, Node("c", "me"))))
    assert re.sub(r"<(?!/?[uo]?li?)[^>]*>| +", "", made) == (
        "T<ul><li>/■systemd<ul><li>a●cgroupfs1MiB<ul><li>b</li></ul></li><li>c○me</li></ul></li></ul>")


def test_nothing_is_fetched_and_nothing_runs(elements: Elements) -> None:
    text = document()
    policy = next(attributes["content"] for _, attributes, _ in elements.of("meta") if attributes.get("http-equiv"))
    assert policy and policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")
    assert not {tag for tag, _ in elements.found} & {"script", "iframe", "object", "embed", "img", "base", "form"}
    assert not [name for _, attributes in elements.found for name in attributes if name.startswith("on")]
    assert not re.search(r"https?:|url\(|@import|//", text.replace("<!DOCTYPE html>", ""))
    assert set(elements.values("href")) - {"data:,"} == {href for href in elements.values("href") if href[0] == "#"}


def test_what_is_given_stays_text() -> None:
    text = document(EVIL)
    assert {tag for tag, _ in Elements(text).found} == {tag for tag, _ in Elements(document()).found}
    assert "\\xff\\x1b" in text
    text.encode()


def test_a_long_comparison_stays_below_100_kb() -> None:
    assert len(document("a word or two").encode()) < 100_000


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [part / 255 for part in bytes.fromhex(colour[1:])]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_every_colour_of_text_can_be_read(colours: dict[str, str]) -> None:
    for name in colours.keys() - {"paper", "raised", "rule"}:
        for ground in ("paper", "raised"):
            low, high = sorted((luminance(colours[name]), luminance(colours[ground])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (name, ground)


def test_every_colour_and_class_that_is_used_is_defined(elements: Elements) -> None:
    assert LIGHT.keys() == DARK.keys()
    assert set(re.findall(r"var\(--([a-z]+)", STYLE)) <= LIGHT.keys() | {"c", "dash"}
    used = {name for value in elements.values("class") for name in value.split()}
    assert used - set(re.findall(r"\.([a-z][a-z-]*)", STYLE)) == set()
