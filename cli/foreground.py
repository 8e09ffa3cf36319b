"""``sandbox run``: start the workload, pass signals and the terminal through, report how it ended."""

from __future__ import annotations

import os
import select
import time

from sandbox.spec import Spec
from sandbox.spelling import flag_of
from sandbox.stdlib import TYPE_CHECKING, signal

from .messages import escaped, escaped_lines, say
from .signals import ENDING, PASSED, Signals

if TYPE_CHECKING:
    from sandbox.output import Target
    from sandbox.process import Process
    from sandbox.report import Report

    from .terminal import Terminal


def run(spec: Spec, *, json: str | None, verbose: bool, parent: int | None) -> int:
    """Run ``spec`` in the foreground.

    :param json: file for the report, ``-`` for stdout.
    :param verbose: print the summary in any case, not only when a limit ended the run.
    :param parent: the process that started us, to stop when it dies; None to outlive it.
    :raises SpecError: when the report could not be written at the end.
    :return: exit code for the runner.
    """
    target = None
    if json is not None:
        from sandbox.output import Target

        target = Target(json, "--json")
    # First of all: a signal from here on must stop the workload in good order, not us in the midst of it.
    signals = Signals(ENDING | PASSED | ({signal.SIGCONT} if spec.tty else set()))
    if parent is not None:
        follow(parent)
    if spec.tty:
        from .terminal import Terminal

        with Terminal() as terminal:
            report = _run(spec, signals, terminal)
    else:
        report = _run(spec, signals, None)
    return tell(report, target, verbose=verbose)


def _run(spec: Spec, signals: Signals, terminal: Terminal | None) -> Report:
    from sandbox.box import Sandbox
    from sandbox.drivers.cgroupfs import MANAGED
    from sandbox.isolation.exposure import warnings

    with Sandbox(spec) as box:
        if box.plan.driver == "cgroupfs" and box.plan.notes[:1] == (MANAGED,):
            say(f"sandbox: warning: {MANAGED}")
        for hole in warnings(spec):
            say(f"sandbox: warning: {escaped(hole)}")
        for note in box.plan.notes:
            if note.startswith("--"):
                say(f"sandbox: warning: {escaped(note)}")
        slave = terminal.slave if terminal else None
        process = box.start(stdin=slave, stdout=slave, stderr=slave)
        for one in box.unmet:
            say(f"sandbox: warning: not enforced: {flag_of(one.realises)}: {escaped(one.reason)}")
        Foreground(process, signals, terminal, spec.stop_timeout).wait()
    return box.report


def follow(parent: int) -> None:
    """Have SIGTERM sent to us when our parent (the thread that started us, prctl(2)) dies."""
    # The C half of python-prctl: its Python half imports platform, which costs every run 2 ms.
    import _prctl

    _prctl.prctl(_prctl.PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before we asked
        os.kill(os.getpid(), signal.SIGTERM)


def tell(report: Report, target: Target | None, *, verbose: bool) -> int:
    """Write the report where it was asked for, and the summary when it matters."""
    # The counter of a cgroup above also counts refused forks of other cgroups, so it alone prints no summary.
    forks_refused = report.usage.pids_failures or (
        report.exit_code != 0 and any(one.file.endswith("/pids.events.local") for one in report.evidence))
    resource = report.outcome == "signaled" and flag_of("limits.ulimit") in report.why
    if (verbose or report.limit_ended or forks_refused or resource or report.outcome == "failed"
            or report.frozen is not None
            or report.refused_calls is not None or any(one.note for one in report.labels)):
        say("sandbox: " + escaped_lines(report.summary(verbose=verbose, unmet=False)))
    if not verbose:  # the summary lists the limits
        for one in report.limits:
            if not one.enforced and one.read_back:
                text = f"not enforced: {one.flag} {one.asked}: {one.file} is {one.read_back}"
                say(f"sandbox: warning: {escaped(text)}")
    if target is not None:
        from sandbox.report import json_text

        target.write(json_text(report))
    return report.exit_code


class Foreground:
    """The loop between the start of the workload and its end.

    :param process: the workload.
    :param signals: those that come to us.
    :param terminal: its pty, None when it has our stdin, stdout and stderr.
    :param grace: seconds from the first signal that asks for the end to the kill.
    """

    def __init__(self, process: Process, signals: Signals, terminal: Terminal | None, grace: float) -> None:
        self._process = process
        self._signals = signals
        self._terminal = terminal
        self._grace = grace
        self._kill_at: float | None = None
        self._asked = 0

    def wait(self) -> None:
        """Until the workload has ended and its output is written."""
        while True:
            ended = self._process.poll() is not None
            written = self._terminal is None or self._terminal.relay()
            if ended and (written or self._asked):
                return
            self._sleep(watch_process=not ended)
            for number in self._signals.read():
                self._handle(number)
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                self._process.kill()
                self._kill_at = None

    def _sleep(self, *, watch_process: bool) -> None:
        poll = select.poll()
        poll.register(self._signals.fileno(), select.POLLIN)
        if watch_process:
            poll.register(self._process.fileno(), select.POLLIN)
        if self._terminal is not None:
            self._terminal.register(poll)
        poll.poll(None if self._kill_at is None else max(0.0, self._kill_at - time.monotonic()) * 1000 + 1)

    def _handle(self, number: int) -> None:
        """Pass it on: the workload is in a session of its own, and hears nothing of our terminal by itself."""
        if self._terminal is not None and number in (signal.SIGWINCH, signal.SIGCONT):
            self._terminal.resize()
            if number == signal.SIGCONT:
                self._terminal.resume()
        elif number in PASSED:
            self._process.send_signal(number)
        else:
            self._end(number)

    def _end(self, number: int) -> None:
        """The first time ask the workload for its end, by the signal we got; the second time kill it.

        SIGTERM is what service managers and ``--die-with-parent`` send us: it means a soft stop, by ``--stop-signal``.
        """
        self._asked += 1
        if self._asked > 1:
            self._process.kill()
        elif number == signal.SIGTERM:
            self._process.stop()
        else:
            self._process.send_signal(number)
            if number != signal.SIGQUIT:
                self._kill_at = time.monotonic() + self._grace
