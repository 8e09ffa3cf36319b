"""``sandbox run``: start the workload, pass signals and the terminal through, report how it ended."""

from __future__ import annotations

import os
import select
import time

from sandbox.spec import Spec
from sandbox.spelling import flag_of
from sandbox.stdlib import TYPE_CHECKING, signal

from .messages import escaped, escaped_lines, say
from .signals import ENDING, JOB_CONTROL, PASSED, Signals

if TYPE_CHECKING:
    from sandbox.output import Target
    from sandbox.process import Process
    from sandbox.report import Report

    from .terminal import Terminal

AGAIN = 5.0
"""Seconds. A second Ctrl-C within this time after the first kills the sandbox. Later it counts as a first one, since an
interactive program may get many."""
LOOK_AGAIN = 0.1
"""Seconds between two looks whether the shell has brought the runner to the foreground. The shell's ``fg`` sends no
signal to a job that is running."""


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
    signals = Signals(ENDING | PASSED | JOB_CONTROL)
    if parent is not None:
        follow(parent)
    if spec.tty:
        from .terminal import Terminal

        with Terminal() as terminal:
            report, pressed = _run(spec, signals, terminal)
    else:
        report, pressed = _run(spec, signals, None)
    code = tell(report, target, verbose=verbose)
    if report.signal in pressed:
        _die_of(report.signal)
    return code


def _die_of(number: int) -> None:
    """Die of the signal of a key that killed the command: if the runner exits with 130, the shell's loop goes on."""
    import _prctl

    _prctl.prctl(_prctl.PR_SET_DUMPABLE, 0)  # SIGQUIT makes a core, and that of the runner is of no use
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})


def _run(spec: Spec, signals: Signals, terminal: Terminal | None) -> tuple[Report, frozenset[int]]:
    """Return the report, and the signals that keys of the terminal may have sent to the command."""
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
        foreground = Foreground(process, signals, terminal, spec.stop_timeout)
        foreground.wait()
    return box.report, foreground.pressed


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
            or report.frozen is not None or report.hint
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
        self._interrupted: float | None = None
        self._has_quit = False
        self._is_stopping = False

    @property
    def pressed(self) -> frozenset[int]:
        """The signals of keys that the command may have been sent: by the runner, or by a terminal of its own."""
        keys = {signal.SIGINT: self._interrupted is not None, signal.SIGQUIT: self._has_quit}
        return frozenset(number for number, sent in keys.items() if sent or self._terminal is not None)

    def wait(self) -> None:
        """Until the workload has ended and its output is written."""
        while True:
            ended = self._process.poll() is not None
            if self._terminal is not None and self._terminal.is_in_background:
                self._terminal.resume()
            written = self._terminal is None or self._terminal.relay()
            if self._process.stopped and (self._is_stopping or _in_foreground()):
                self._suspend()
            if ended and (written or self._asked):
                return
            self._sleep(watch_process=not ended)
            for number, is_key in self._signals.read_origins():
                self._handle(number, is_key)
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
        until = [] if self._kill_at is None else [max(0.0, self._kill_at - time.monotonic())]
        if self._terminal is not None and self._terminal.is_in_background:
            until.append(LOOK_AGAIN)
        poll.poll(min(until) * 1000 + 1 if until else None)

    def _handle(self, number: int, is_key: bool) -> None:
        """Pass it on: the workload is in a session of its own, and hears nothing of our terminal by itself.

        :param is_key: the kernel sent it for a key of our terminal, such as Ctrl-C. Without a sandbox, each process of
            the terminal's foreground group would get it.
        """
        if number == signal.SIGCONT:
            self._resume()
        elif self._terminal is not None and number == signal.SIGWINCH:
            self._terminal.resize()
        elif number == signal.SIGTSTP:
            self._is_stopping = True
            self._process.signal_group(number)
        elif is_key and number == signal.SIGQUIT:
            self._has_quit = True
            self._process.signal_group(number)
        elif is_key and number == signal.SIGINT:
            self._interrupt()
        elif number in PASSED:
            self._process.send_signal(number)
        else:
            self._end(number)

    def _interrupt(self) -> None:
        """Send Ctrl-C's SIGINT to the command's process group, and kill the sandbox if it is the second one in
        :data:`AGAIN` seconds."""
        now = time.monotonic()
        if self._interrupted is not None and now < self._interrupted + AGAIN:
            self._process.kill()
        self._interrupted = now
        self._process.signal_group(signal.SIGINT)

    def _suspend(self) -> None:
        """Stop the runner, because the command is stopped: the shell then takes the terminal back. Return when the
        shell continues the runner."""
        self._is_stopping = False
        if self._terminal is not None:
            self._terminal.restore()
        # SIGTSTP and not SIGSTOP: the kernel drops it for an orphaned process group, which no shell would continue.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTSTP})
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP})
        self._resume()

    def _resume(self) -> None:
        """Take the terminal again, and continue the command if it is stopped."""
        if self._terminal is not None:
            self._terminal.resize()
            self._terminal.resume()
        if self._process.stopped:
            self._process.signal_group(signal.SIGCONT)

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


def _in_foreground() -> bool:
    """True if our process group is the foreground group of our controlling terminal: then the shell waits for it."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:  # there is none
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
