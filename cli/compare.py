"""``sandbox compare``: the same wish under several drivers, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sandbox.errors import SandboxError, SpecError
from sandbox.host import systemd_runs
from sandbox.output import Target
from sandbox.teach.columns import named
from sandbox.teach.compare import DRIVERS

from .messages import emit, emit_json, escaped, say

if TYPE_CHECKING:
    from sandbox.teach.compare import Comparison

FAILED = SandboxError.exit_code


def compare(argv: Sequence[str], wishes: Mapping[str, object], *, drivers: str, run: bool, lab: bool, json: bool,
            markdown: bool, html: str | None) -> int:
    """Compare and show.

    :param wishes: flags of ``run`` by name, as :func:`sandbox.options.make_spec` takes them.
    :param drivers: their names, with commas between.
    :param run: run the command under each; else only compile the plans.
    :param lab: in a container lab, also when systemd runs here.
    :param html: file for the page.
    :raises SpecError: a name, a value or the file will not do.
    :raises SandboxError: no lab can be booted, or the page cannot be written.
    :return: 0 when the command ran under every driver, however it ended; else 125.
    """
    names = named(drivers) or DRIVERS
    if json and markdown:
        raise SpecError("--json and --markdown both write to stdout", field="json", hint="give one of them")
    target = None if html is None else Target(html, "--html")
    found = _collect(argv, wishes, names, run=run, lab=lab)
    if json:
        from sandbox.teach.compare import to_data

        emit_json(to_data(found))
    elif markdown:
        from sandbox.teach.compare_text import markdown as as_markdown

        emit(as_markdown(found))
    else:
        from sandbox.teach.compare_text import show

        show(found, escape=escaped)
    if target is not None:
        _write_page(found, target)
        say(f"sandbox: the page is in {html}")
    return FAILED if any(column.problem for column in found.columns) else 0


def _collect(argv: Sequence[str], wishes: Mapping[str, object], names: Sequence[str], *, run: bool, lab: bool
             ) -> Comparison:
    from sandbox.options import make_spec

    from .lab_session import Progress

    wishes = {name: value for name, value in wishes.items() if name not in ("driver", "unit_type")}
    make_spec(argv, **wishes)  # what is malformed is told before a lab is booted
    if not lab and not systemd_runs() and any(name not in ("cgroupfs", "none") for name in names):
        say("sandbox: systemd does not run here, so this is compared in a container lab")
        lab = True
    from .signals import ENDING, PASSED, Signals, end_in_order

    end_in_order()
    with Progress() as progress:
        if not lab:
            from sandbox.teach.compare_collect import collect

            return collect(argv, wishes, names, run=run, progress=progress.tell)
        from sandbox.teach.compare_lab import collect_in_lab

        return collect_in_lab(argv, wishes, names, run=run, progress=progress.tell,
                              signals=lambda: Signals(ENDING | PASSED))


def _write_page(found: Comparison, target: Target) -> None:
    import time

    from sandbox.teach.compare_page import document

    target.write(document(found, made=time.strftime("%Y-%m-%d %H:%M %Z")))
