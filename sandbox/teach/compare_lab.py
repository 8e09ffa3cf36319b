"""Collects a comparison in a lab, where systemd runs; what comes back is data. Also the program that runs inside."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from signal import SIGINT

from .. import lab as labs
from ..errors import SandboxError
from ..lab.client import SignalSource
from ..lab.container import HOST_ROOT
from ..lab.inside.place import HOST
from .compare import Comparison, from_data, to_data
from .compare_collect import Progress, collect

SESSION = ("systemd-run", "--scope", "--quiet", "--collect", "--unit=shell", "--")
"""A unit that is not delegated, as a login session is none: the lab's own would hide what cgroupfs does there."""


def collect_in_lab(argv: Sequence[str], wishes: Mapping[str, object], drivers: Sequence[str], *, run: bool,
                   progress: Progress, signals: Callable[[], SignalSource]) -> Comparison:
    """:func:`~sandbox.teach.compare_collect.collect` in a container lab of its own, which is ended afterwards.

    :param signals: what to pass on to it. Made when the lab is up, which must not inherit that they are blocked.
    :raises Unsupported: no lab can be booted here.
    :raises SandboxError: it failed inside; its message was printed.
    """
    import json

    lab = labs.up(f"compare-{os.getpid()}", engine="container", progress=progress)
    try:
        progress("comparing in the lab")
        on_host_root = lab.image == HOST_ROOT
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
        request = {"argv": list(argv), "wishes": dict(wishes), "drivers": list(drivers), "run": run}
        python = sys.executable if on_host_root else "/usr/bin/python3"
        code, told = labs.output(lab, [*SESSION, python, "-B", "-m", __name__, json.dumps(request)],
                                 env={"PYTHONPATH": root if on_host_root else HOST + root}, signals=signals())
    finally:
        labs.down(lab.name)
    if code == 128 + SIGINT:
        raise KeyboardInterrupt
    if code or not told:
        raise SandboxError(f"the comparison in the lab ended with {code}", hint="see what is printed above")
    found = from_data(json.loads(told))
    return found._replace(machine=found.machine._replace(lab=lab.engine))


def main() -> int:
    """Inside: the request is the first argument, the comparison goes to standard output."""
    import json

    request = json.loads(sys.argv[1])
    with suppress(KeyboardInterrupt):
        try:
            found = collect(request["argv"], request["wishes"], request["drivers"], run=request["run"])
        except SandboxError as error:
            print(f"sandbox: {error.message}", *([f"hint: {error.hint}"] if error.hint else []), sep="\n",
                  file=sys.stderr)
            return error.exit_code
        json.dump(to_data(found), sys.stdout)
        return 0
    return 130


if __name__ == "__main__":
    sys.exit(main())
