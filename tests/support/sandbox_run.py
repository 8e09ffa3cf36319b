"""The program under test: ``sandbox run`` as its users start it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.drivers.cgroupfs import MANAGED
from support.machine import STATE, cgroups, descendants, eventually, named

_script = Path(sys.executable).with_name("sandbox")
SANDBOX = [str(_script)] if _script.exists() else [sys.executable, "-m", "sandbox_cli"]
"""The words that start the program ``sandbox``."""
BESIDE_SYSTEMD = f"sandbox: warning: {MANAGED}\n"
"""What each run by the cgroupfs driver begins with where systemd runs. It is not in :attr:`Result.err`."""
_numbers = itertools.count(1)


@dataclass
class Result:
    """One finished ``sandbox run``.

    :param code: the runner's exit code; negative when a signal killed the runner itself.
    :param report: what ``--json`` wrote; empty when there was nothing to report.
    :param seconds: from the start of the runner to its end.
    """

    code: int
    out: bytes
    err: str
    report: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    name: str = ""

    @property
    def usage(self) -> dict[str, Any]:
        found: dict[str, Any] = self.report["usage"]
        return found

    def limit(self, flag: str) -> dict[str, Any]:
        """The row of the report for ``flag``."""
        row: dict[str, Any] = next(row for row in self.report["limits"] if row["flag"] == flag)
        return row


def names(prefix: str = "t") -> str:
    """A name that no other sandbox on the machine has."""
    return f"{prefix}{os.getpid()}-{next(_numbers)}"


def _hidden_interpreter() -> str:
    """The directory that keeps this interpreter to root, in a container lab: its / is an overlay, whose owners cannot
    be mapped, so that root inside may not enter; the machine's own root is at /host. Empty anywhere else."""
    hidden = [str(path) for path in Path(sys.base_prefix).parents if not path.stat().st_mode & 0o001]
    return hidden[-1] if hidden and os.path.isdir(f"/host{sys.base_prefix}") else ""


Popen = Callable[..., "subprocess.Popen[bytes]"]
"""What starts a process: :class:`subprocess.Popen`, or something that takes the same arguments."""


class Running:
    """A ``sandbox run`` in progress. Leaving the ``with`` block kills the runner if it still runs."""

    def __init__(self, argv: list[str], name: str, report: Path | None, popen: Popen = subprocess.Popen,
                 **options: Any) -> None:
        self.name = name
        self._report = report
        self._begin = time.monotonic()
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        self.process = popen(argv, **options)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self.process.wait()

    @property
    def pid(self) -> int:
        return self.process.pid

    def read_line(self) -> bytes:
        """A line of the command's output: how a test knows that the command has come that far."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it has ended: {self.finish().err}"
        return line

    def guard(self) -> int:
        """Process id of the guard: a child of the runner, or the main process of a service."""
        def in_service(pid: int) -> bool:
            try:
                return f"/sandbox-{self.name}.service" in Path(f"/proc/{pid}/cgroup").read_text()
            except OSError:  # the guard of another test has ended meanwhile
                return False

        def found() -> set[int]:
            return named(descendants(self.pid), "sandbox-guard") or set(
                filter(in_service, named(descendants(1), "sandbox-guard")))

        assert eventually(lambda: len(found()) == 1)
        return found().pop()

    def tree(self) -> set[int]:
        """Every process of the sandbox."""
        guard = self.guard()
        return descendants(self.pid) | descendants(guard) | {guard}

    def gone(self) -> bool:
        """No cgroup and no state file has its name."""
        return not cgroups(self.name) and not (STATE / self.name).exists()

    def finish(self, input: bytes | None = None, timeout: float = 60) -> Result:
        """Wait for the end; nothing may be left when the runner is gone."""
        out, err = self.process.communicate(input, timeout=timeout)
        seconds = time.monotonic() - self._begin
        report = self.take_report()
        said = os.fsdecode(err or b"").removeprefix(BESIDE_SYSTEMD)
        return Result(self.process.returncode, out or b"", said, report, seconds, self.name)

    def take_report(self) -> dict[str, Any]:
        """What ``--json`` wrote; empty when there is nothing."""
        if self._report is None or not self._report.exists():
            return {}
        report: dict[str, Any] = json.loads(self._report.read_bytes())
        self._report.unlink()
        return report


class Program:
    """``sandbox run`` with a driver. Call it for a :class:`Result`; :meth:`start` for one in progress.

    :param driver: for ``--driver``; empty leaves the flag out, ``service`` is systemd's with ``--unit-type service``.
    :param directory: where reports are written.
    :param check: called with each report.
    :param popen: starts the program.
    """

    def __init__(self, driver: str, directory: Path, check: Callable[[dict[str, Any]], None],
                 popen: Popen = subprocess.Popen) -> None:
        self.driver = driver
        self.directory = directory
        self.check = check
        self.popen = popen

    def under(self, driver: str) -> Program:
        """The same with another driver."""
        return type(self)(driver, self.directory, self.check, self.popen)

    def argv(self, *words: str, name: str) -> list[str]:
        """The whole command line; ``words`` are flags, ``--``, and the command."""
        return [*SANDBOX, "run", *self.flags(), "--name", name, *words]

    def wishes(self) -> dict[str, Any]:
        """The same as :meth:`flags` for the library."""
        way = {"driver": "systemd", "unit_type": "service"} if self.driver == "service" else {"driver": self.driver}
        hidden = _hidden_interpreter()
        return way | {"volume": [*self._volumes()], "tmpfs": [f"{hidden}:mode=755,exec"] if hidden else []}

    def flags(self) -> list[str]:
        """The flags that choose the driver, and show the test's own directory inside, where /tmp is private."""
        hidden = _hidden_interpreter()
        shown = ["--tmpfs", f"{hidden}:mode=755,exec"] if hidden else []
        return [*self.way(), *shown, *(word for volume in self._volumes() for word in ("-v", volume))]

    def way(self) -> list[str]:
        """The flags that choose the driver."""
        known = {"": [], "service": ["--driver", "systemd", "--unit-type", "service"]}
        return known.get(self.driver, ["--driver", self.driver])

    def _volumes(self) -> Iterator[str]:
        yield f"{self.directory}:{self.directory}"
        if _hidden_interpreter():
            yield f"/host{sys.base_prefix}:{sys.base_prefix}:ro"

    def start(self, *words: str, name: str = "", report: bool = True, wrap: tuple[str, ...] = (),
              **options: Any) -> Running:
        """Start it.

        :param wrap: words in front of the command line, such as a shell that sets things up and execs the rest.
        :param options: for Popen.
        """
        name = name or names()
        path = self.directory / f"{name}.json"
        flags = ["--json", str(path)] if report else []
        return Running([*wrap, *self.argv(*flags, *words, name=name)], name, path if report else None, self.popen,
                       **options)

    def __call__(self, *words: str, input: bytes | None = b"", timeout: float = 60, **options: Any) -> Result:
        """Run it to the end, with its report checked and everything of it gone."""
        with self.start(*words, **options) as running:
            result = running.finish(input, timeout)
            assert running.gone(), f"left behind: {cgroups(running.name)} {STATE / running.name}"
        if result.report:
            self.check(result.report)
        return result

    def other(self, *words: str, **options: Any) -> Result:
        """Any other command: ``other("info", "--json")``."""
        with Running([*SANDBOX, *words], "", None, self.popen, **{"stdin": subprocess.DEVNULL} | options) as running:
            return running.finish()


def python(code: str) -> list[str]:
    """A command that runs Python code, without what a site directory adds."""
    return ["--", sys.executable, "-I", "-S", "-c", code]
