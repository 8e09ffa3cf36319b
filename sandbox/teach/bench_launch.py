"""One launch through the library, measured."""

from __future__ import annotations

import os
import resource
import time

from ..box import Sandbox
from ..errors import SandboxError
from ..host import Host
from ..process import Process
from ..report import Report
from ..spec import Spec
from .bench_phases import by_phase
from .bench_rounds import Sample


class Streams:
    """What commands get as standard streams: an empty pipe, and files in memory for what they say.

    Not /dev/null: crun changes the owner of what it is given.
    """

    def __init__(self) -> None:
        self.stdin, end = os.pipe()
        os.close(end)
        self.stdout, self.stderr = os.memfd_create("stdout"), os.memfd_create("stderr")

    def close(self) -> None:
        """Close them."""
        for fd in (self.stdin, self.stdout, self.stderr):
            os.close(fd)

    def last_words(self) -> str:
        """The last two lines on stderr, or else on stdout, since the last call; what was there is dropped."""
        lines = []
        for fd in (self.stdout, self.stderr):
            text = os.pread(fd, 1 << 16, max(0, os.fstat(fd).st_size - (1 << 16))).decode(errors="replace")
            lines += [line.strip() for line in text.split("\n") if line.strip()]
            os.ftruncate(fd, 0)
            os.lseek(fd, 0, os.SEEK_SET)
        return "; ".join(lines[-2:])


def launch(spec: Spec, host: Host, streams: Streams) -> Sample:
    """Run ``spec`` once.

    :raises SandboxError: it could not be run, or did not end with exit code 0.
    """
    before, begin = _cpu(), time.monotonic()
    with Sandbox(spec, host=host) as box:
        compiled = time.monotonic()
        process = box.start(stdin=streams.stdin, stdout=streams.stdout, stderr=streams.stderr)
        process.wait()
    end, after = time.monotonic(), _cpu()
    words = streams.last_words()
    if box.report.exit_code:
        raise SandboxError(f"the command did not end well: {box.report.why}{f': {words}' if words else ''}")
    user, system = (late - early for early, late in zip(before, after, strict=True))
    return Sample(end - begin, user, system, box.report.exit_code, _phases(process, box.report, begin, compiled, end))


def _phases(process: Process, report: Report, begin: float, compiled: float, end: float) -> tuple[float, ...]:
    """Seconds by phase. ``exec`` is what lies between the last timed step and the execve, so that nothing is lost."""
    at = {event.kind: event.time for event in process.events() if event.time is not None}
    found = by_phase(report.steps)
    found["exec"] = at["started"] - compiled - sum(found.values())
    found["start"] += compiled - begin
    found["wait"] = at["exited"] - at["started"]
    found["teardown"] = end - at["exited"]
    return tuple(found.values())


def _cpu() -> tuple[float, float]:
    """User and system time of this process and of its descendants that are dead, in seconds."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime for one in used), sum(one.ru_stime for one in used)
