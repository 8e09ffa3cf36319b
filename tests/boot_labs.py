"""Boots labs in a row and says how long each took: python tests/boot_labs.py [ENGINE [NUMBER]]."""

from __future__ import annotations

import statistics
import sys
import time

from support import lab_traces
from support.labs import Lab


def main(engine: str = "container", number: str = "20") -> int:
    """The exit code: 0 when each booted, worked and left nothing."""
    seconds: list[float] = []
    bad = 0
    for turn in range(int(number)):
        lab = Lab(engine, name=f"boots-{engine}")
        begin = time.monotonic()
        booted = lab.run("systemctl", "is-system-running", "--wait")
        seconds.append(time.monotonic() - begin)
        lab.down()
        left = lab_traces.of(lab.name)
        good = booted.stdout == b"running\n" and not left
        bad += not good
        print(f"{turn + 1:>3} {engine} {seconds[-1]:6.2f} s", "good" if good else f"BAD {booted} {left}", flush=True)
    print(f"{engine}: {len(seconds) - bad} of {number} good; median {statistics.median(seconds):.2f} s, "
          f"{min(seconds):.2f} to {max(seconds):.2f} s")
    return bad != 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
