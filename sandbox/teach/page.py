"""A self-contained HTML page: one file, no script, nothing from the network; light, dark and on paper.

Every function returns a fragment of HTML in which all that was given is escaped; :func:`page` puts them together. Each
driver has one colour, in tables, trees and the pictures of :mod:`~sandbox.teach.plot`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .page_style import STYLE
from .plot import escape

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
MARKS = {"same": "=", "different": "≠", "unmet": "✗"}
OWNERS = {"cgroupfs": "●", "systemd": "■", "delegated": "◆", "engine": "▲", "foreign": "✗"}
"""Who owns a cgroup; the first three with the colours and markers the drivers have in pictures."""


class Table(NamedTuple):
    """Rows of plain text; the first cell of each is its header.

    :param marks: for each row ``same``, ``different``, ``unmet`` or nothing; shown as a symbol, a word and a colour.
    :param code: columns, from 0, in which text is written as code, e.g. of files and their values.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marks: tuple[str, ...] = ()
    code: tuple[int, ...] = ()


class Node(NamedTuple):
    """A cgroup in a :func:`tree`; ``owner`` is one of :data:`OWNERS` or any other word, ``details`` is plain text."""

    name: str
    owner: str = ""
    details: str = ""
    children: tuple[Node, ...] = ()


class Fact(NamedTuple):
    """A figure worth a large print: what it is, the value, a remark; ``kind`` (a driver's name) colours it."""

    label: str
    value: str
    remark: str = ""
    kind: str = ""


class Section(NamedTuple):
    """``body`` is fragments of HTML, e.g. of :func:`paragraph`."""

    heading: str
    body: tuple[str, ...]


def page(title: str, lead: str, sections: Sequence[Section], *, opening: Sequence[str] = (), footer: str) -> str:
    """The whole document.

    :param lead: one or two sentences below the title.
    :param opening: fragments that stand before the first section, e.g. :func:`code` and :func:`facts`.
    :param footer: where and when it was made: machine, versions, sample counts.
    """
    names = _anchors([section.heading for section in sections])
    links = "".join(f'<li><a href="#{name}">{escape(section.heading)}</a></li>'
                    for name, section in zip(names, sections, strict=True))
    parts = "".join(f'<section aria-labelledby="{name}"><h2 id="{name}" tabindex="-1">{escape(section.heading)}</h2>'
                    f"{''.join(section.body)}</section>" for name, section in zip(names, sections, strict=True))
    contents = f'<nav aria-label="Sections"><ol>{links}</ol></nav>' if len(sections) > 1 else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="sandbox">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header><h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>{contents}</header>
<main id="main" tabindex="-1">{''.join(opening)}{parts}</main>
<footer><p>{escape(footer)}</p></footer>
</body>
</html>
"""


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def code(text: str, label: str = "Command") -> str:
    """Text as it is typed or printed, line by line; ``label`` is what a screen reader calls the box."""
    return _region(label, f"<pre><code>{escape(text)}</code></pre>", "code")


def table(content: Table) -> str:
    """In a box of its own that scrolls sideways where the page is narrow."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' if cell else "<td></td>" for cell in content.head)
    marks = content.marks or ("",) * len(content.rows)
    rows = "".join(_row(row, mark, content.code) for row, mark in zip(content.rows, marks, strict=True))
    used = [mark for mark in MARKS if mark in marks]
    legend = "".join(f' <span class="mark {mark}">{MARKS[mark]} {mark} <b>{marks.count(mark)}</b></span>'
                     for mark in used)
    caption = f"<caption><div><span>{escape(content.caption)}</span>{legend}</div></caption>"
    body = f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody>"
    return _region(content.caption, f"<table>{caption}{body}</table>", "wide")


def figure(drawing: str, caption: str) -> str:
    """A picture of :mod:`~sandbox.teach.plot` with its caption, e.g. sample count and machine."""
    return f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"


def columns(*fragments: str) -> str:
    """Beside each other where there is room, else below each other."""
    return f'<div class="columns">{"".join(f"<div>{fragment}</div>" for fragment in fragments)}</div>'


def facts(items: Iterable[Fact]) -> str:
    """Figures in large print, beside each other."""
    return f'<dl class="facts">{"".join(map(_fact, items))}</dl>'


def tree(title: str, root: Node) -> str:
    """A cgroup and those below it, each with its owner; two of them go beside each other with :func:`columns`."""
    return f'<figure class="tree"><figcaption>{escape(title)}</figcaption><ul>{_node(root)}</ul></figure>'


def _node(node: Node) -> str:
    children = f"<ul>{''.join(map(_node, node.children))}</ul>" if node.children else ""
    known = node.owner if node.owner in OWNERS else "other"
    symbol = f'<span aria-hidden="true">{OWNERS.get(node.owner, "○")}</span> '
    owner = f'<span class="owner k-{known}">{symbol}{escape(node.owner)}</span>' if node.owner else ""
    details = f'<span class="details">{escape(node.details)}</span>' if node.details else ""
    return f"<li><div><code>{escape(node.name)}</code> {owner} {details}</div>{children}</li>"


def _fact(fact: Fact) -> str:
    remark = f'<dd class="remark">{escape(fact.remark)}</dd>' if fact.remark else ""
    kind = fact.kind if fact.kind in OWNERS else "plain"
    return f'<div class="k-{kind}"><dt>{escape(fact.label)}</dt><dd>{escape(fact.value)}</dd>{remark}</div>'


def _row(row: Sequence[str], mark: str, code_columns: Sequence[int]) -> str:
    cells = [f"<code>{escape(cell)}</code>" if place in code_columns and cell else escape(cell)
             for place, cell in enumerate(row)]
    sign = (f'<span class="mark {mark}"><span aria-hidden="true">{MARKS[mark]}</span><span class="vh">{mark}: </span>'
            "</span>" if mark else "")
    rest = "".join(f"<td>{cell}</td>" for cell in cells[1:])
    return f'<tr{f" class={mark}" if mark else ""}><th scope="row">{sign}{cells[0]}</th>{rest}</tr>'


def _region(label: str, content: str, look: str) -> str:
    # Focusable, or the keyboard could not scroll it.
    return f'<div class="{look}" role="region" tabindex="0" aria-label="{escape(label)}">{content}</div>'


def _anchors(headings: Sequence[str]) -> list[str]:
    """An id for each heading, from its words, no two alike."""
    names: list[str] = []
    for heading in headings:
        name = "-".join(re.findall(r"[a-z0-9]+", heading.lower())) or "section"
        names.append(f"{name}-{len(names) + 1}" if name in (*names, "main") else name)
    return names
