"""What the benchmarks share: interleaved measurements, percentiles, budgets, a table."""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass


def interleave(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measure every contender once a round, in a new order each round, so that what else the machine does hits all.

    :param contenders: name -> a call that does the thing once and returns what it cost.
    :param rounds: how often; two more to warm up are thrown away.
    """
    found: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    for turn in range(rounds + 2):
        random.shuffle(order)
        for name in order:
            cost = contenders[name]()
            if turn >= 2:
                found[name].append(cost)
    return found


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)


def p95(values: Sequence[float]) -> float:
    """What 95 % of the values do not exceed."""
    return sorted(values)[max(0, -(-len(values) * 95 // 100) - 1)]


@dataclass(frozen=True, slots=True)
class Budget:
    """Something that must not cost more than it may.

    :param what: the thing and its bound, in words.
    """

    what: str
    value: float
    limit: float
    unit: str

    @property
    def kept(self) -> bool:
        return self.value <= self.limit

    def __str__(self) -> str:
        return f"{'PASS' if self.kept else 'MISS'}  {self.value:9.3f} of {self.limit:9.3f} {self.unit}  {self.what}"


def show(title: str, unit: str, values: Mapping[str, Sequence[float]], budgets: Sequence[Budget]) -> None:
    """Print the table."""
    width = max(map(len, values))
    print(title)
    print(f"  {'':<{width}} {'p50':>9} {'p95':>9}  {unit}")
    for name, row in sorted(values.items(), key=lambda item: median(item[1])):
        print(f"  {name:<{width}} {median(row):9.3f} {p95(row):9.3f}")
    for budget in budgets:
        print(f"  {budget}")


def arguments(description: str, rounds: int) -> argparse.Namespace:
    """``--rounds`` and ``--json``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"measurements of each thing ({rounds})")
    parser.add_argument("--json", metavar="FILE", help="write every value there")
    return parser.parse_args()


def save(path: str | None, unit: str, values: Mapping[str, Sequence[float]], budgets: Sequence[Budget]) -> None:
    """Write what was measured, and where."""
    if path is None:
        return
    system = os.uname()
    rows = {name: {"p50": median(row), "p95": p95(row), "values": list(row)} for name, row in values.items()}
    data = {"kernel": system.release, "machine": system.machine, "cpus": os.cpu_count(),
            "python": sys.version.split()[0], "unit": unit, "rows": rows,
            "budgets": [asdict(budget) | {"kept": budget.kept} for budget in budgets]}
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(data, stream, indent=1)
