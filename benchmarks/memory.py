"""What a sandbox costs in memory: our own processes beside the command, and what is charged to the command's cgroup."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from timing import Budget, arguments, median, save, show

import sandbox

LIVE = 20
GUARD_AND_INIT, GUARD_AND_INIT_OF_MANY, CHARGED = (
    "guard and init of one live sandbox, PSS", f"the same, each of {LIVE} live ones", "charged for launching true")


def pss(pid: int) -> int:
    """KiB of a process, shared pages counted by share."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise LookupError(pid)


def parent(pid: int) -> int:
    """Its parent's process id."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def ours(workload: int) -> int:
    """KiB of the init, which is the workload's parent, and of the guard, which is the init's."""
    init = parent(workload)
    guard = parent(init)
    assert parent(guard) == os.getpid()
    return pss(init) + pss(guard)


def live(count: int) -> list[float]:
    """KiB of our own in each of ``count`` sandboxes that run at once."""
    with ExitStack() as stack:
        pids = []
        for _ in range(count):
            box = stack.enter_context(sandbox.Sandbox(sandbox.make_spec(["sleep", "1000"], memory="64M", pids_limit=9)))
            pid = box.start().pid
            assert pid is not None
            pids.append(pid)
        return [float(ours(pid)) for pid in pids]


def charged(rounds: int) -> list[float]:
    """KiB that the kernel charged to a cgroup in which nothing but true ran."""
    peaks = (sandbox.run(["/bin/true"], memory="64M").usage.memory_peak for _ in range(rounds))
    return [peak / 1024 for peak in peaks if peak is not None]


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__ or "", 20)
    values = {
        GUARD_AND_INIT: [live(1)[0] for _ in range(options.rounds)],
        GUARD_AND_INIT_OF_MANY: list(live(LIVE)),
        CHARGED: charged(options.rounds),
    }
    kept = [Budget(GUARD_AND_INIT, median(values[GUARD_AND_INIT]), 300, "KiB"),
            Budget(CHARGED, median(values[CHARGED]), 512, "KiB")]
    show("Memory", "KiB", values, kept)
    save(options.json, "KiB", values, kept)


if __name__ == "__main__":
    main()
