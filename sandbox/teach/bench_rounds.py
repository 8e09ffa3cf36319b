"""Measurements in turns: every contender once a round, so that what else the machine does hits all alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ..errors import SandboxError

WARM_UP = 3
"""Rounds that are thrown away: the first launches load modules and fill caches."""


class Sample(NamedTuple):
    """One launch, in seconds.

    :param total: from the call to the death of the command with everything removed again.
    :param user: CPU time in user mode of the launcher and of its descendants, without what systemd does for them.
    :param system: the same in the kernel.
    :param phases: what ``total`` is made of, see :data:`sandbox.teach.bench_phases.PHASES`; empty when it is not known.
    """

    total: float
    user: float
    system: float
    exit_code: int
    phases: tuple[float, ...] = ()


class Contender(NamedTuple):
    """One way to launch the command.

    :param name: what it is called in the table.
    :param command: how it would be typed.
    :param launch: do it once.
    """

    name: str
    command: str
    launch: Callable[[], Sample]


class Missing(NamedTuple):
    """One that does not take part, and why."""

    name: str
    reason: str


class Ratio(NamedTuple):
    """How many times as long one takes as another in the same round: the median over the rounds, and the quartiles."""

    median: float
    low: float
    high: float


def measure(contenders: Sequence[Contender], rounds: int) -> dict[str, list[Sample]]:
    """Launch each contender once a round.

    :param rounds: how often; :data:`WARM_UP` more come before and are thrown away.
    :returns: name -> one sample a round.
    :raises SandboxError: one of them failed.
    """
    found: dict[str, list[Sample]] = {one.name: [] for one in contenders}
    for turn, order in zip(range(-WARM_UP, rounds), orders(len(contenders)), strict=False):
        for place in order:
            sample = _launch(contenders[place])
            if turn >= 0:
                found[contenders[place].name].append(sample)
    return found


def _launch(contender: Contender) -> Sample:
    try:
        return contender.launch()
    except SandboxError as error:
        raise SandboxError(f"{contender.name}: {error.message}", hint=error.hint) from error


def orders(count: int) -> Iterator[tuple[int, ...]]:
    """Orders of ``count`` things without end, in which each is first, second, ... equally often and comes equally
    often right after each other one: a Williams design, and its mirror image because an odd ``count`` needs it."""
    zigzag = [place // 2 if place % 2 == 0 else count - 1 - place // 2 for place in range(count)]
    while True:
        for mirrored in (False, True):
            for shift in range(count):
                order = tuple((one + shift) % count for one in zigzag)
                yield order[::-1] if mirrored else order


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest of ``values`` that ``percent`` % of them do not exceed (nearest rank)."""
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]


def ratio(samples: Sequence[Sample], reference: Sequence[Sample]) -> Ratio:
    """Compare two contenders round by round: what slows a whole round down cancels out."""
    found = [one.total / other.total for one, other in zip(samples, reference, strict=True)]
    return Ratio(statistics.median(found), percentile(found, 25), percentile(found, 75))
