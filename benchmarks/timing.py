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

Values = dict[str, list[float]]
"""Name of a contender -> what it cost, once a round."""


def interleave(contenders: Mapping[str, Callable[[], float]], rounds: int) -> tuple[Values, Values]:
    """Measure every contender each round, in a new order, so that what else the machine does hits all alike.

    Each does its thing twice in a row: the first time right after another program, whose code and data fill the
    processor's caches then, the second time as one of many in a row.

    :param contenders: name -> a call that does the thing once and returns what it cost.
    :param rounds: how often; two more to warm up are thrown away.
    :returns: the second times, and the first ones.
    """
    first: Values = {name: [] for name in contenders}
    again: Values = {name: [] for name in contenders}
    order = list(contenders)
    for turn in range(rounds + 2):
        random.shuffle(order)
        for name in order:
            costs = contenders[name](), contenders[name]()
            if turn >= 2:
                first[name].append(costs[0])
                again[name].append(costs[1])
    return again, first


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


def show(title: str, unit: str, values: Values, budgets: Sequence[Budget], first: Values | None = None) -> None:
    """Print the table; ``first`` makes a column of its own."""
    width = max(map(len, values))
    print(title)
    print(f"  {'':<{width}} {'p50':>9} {'p95':>9}  {unit}{'   p50 right after another program' if first else ''}")
    for name, row in sorted(values.items(), key=lambda item: median(item[1])):
        alone = f"  {median(first[name]):9.3f}" if first else ""
        print(f"  {name:<{width}} {median(row):9.3f} {p95(row):9.3f}{alone}")
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
