"""Hooks of all tests: skip or fail a test whose requirements the machine does not meet."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from support.requirements import MUST_WORK, REQUIREMENTS
from support.turns import turn


def pytest_configure() -> None:
    # A shell that starts us in the background has it ignored, and so would all that we start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if unknown := MUST_WORK - REQUIREMENTS.keys():
        raise pytest.UsageError(f"SANDBOX_MUST_WORK={' '.join(sorted(unknown))}: there is no such requirement; "
                                f"there are {' '.join(REQUIREMENTS)}")


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Make the test wait for those it must not run beside; the wait does not count for its time-out."""
    with turn(item):
        yield


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("requires"):
        for name in marker.args:
            reason, there = REQUIREMENTS[name]
            if there():
                continue
            if name in MUST_WORK:
                pytest.fail(f"{reason}, and SANDBOX_MUST_WORK names {name}", pytrace=False)
            pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = terminalreporter.stats.get("skipped", [])
    skipped = sum(REQUIREMENTS["root"][0] in str(report.longrepr) for report in reports)
    if skipped:
        terminalreporter.write_sep("!", f"NOT ROOT: {skipped} tests were skipped for that", red=True)
