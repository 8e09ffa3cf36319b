"""Plans for what was launched before, in which only the name is new: :class:`Draft`."""

from __future__ import annotations

import os

from .steps import Arg, Plan, Read, Step


class Draft:
    """A plan that serves for other names too.

    Whoever launches often does the same often, and putting a name in takes a quarter of the time of compiling. That
    too can be done ahead, while a command runs. Every method may be called from any thread.

    :param plan: a plan for a name that is in none of the user's words: a random one, made after them.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._mentioning = [(index, step) for index, step in enumerate(plan.steps) if _mentions(step.args, plan.name)]
        self._ready: list[tuple[int, Plan]] = []

    def next(self) -> Plan:
        """The plan for another sandbox, with a random name."""
        try:
            maker, plan = self._ready.pop()
        except IndexError:
            maker = 0
        return plan if maker == os.getpid() else self._named(random_name())  # a fork(2) has doubled what was ready

    def prepare(self) -> None:
        """Have the next plan ready."""
        if not self._ready:
            self._ready.append((os.getpid(), self._named(random_name())))

    def _named(self, name: str) -> Plan:
        plan, old = self._plan, self._plan.name
        steps = [*plan.steps]
        for index, (op, phase, args, where, realises) in self._mentioning:
            steps[index] = Step(op, phase, tuple([_put(arg, old, name) for arg in args]), where, realises)
        return plan._replace(
            name=name, steps=tuple(steps),
            limits=tuple([limit._replace(applied=limit.applied.replace(old, name), files=_words(limit.files, old, name),
                                         ancestors=_words(limit.ancestors, old, name),
                                         note=limit.note.replace(old, name)) for limit in plan.limits]),
            reads=tuple([Read(figure, file.replace(old, name), key, unit, watch, less)
                         for figure, file, key, unit, watch, less in plan.reads]))


def random_name() -> str:
    """The name of a sandbox that was given none."""
    return os.urandom(5).hex()


def _mentions(args: tuple[Arg, ...], name: str) -> bool:
    return any(name in arg if isinstance(arg, str) else isinstance(arg, tuple) and _mentions(arg, name)
               for arg in args)


def _put(arg: Arg, old: str, new: str) -> Arg:
    if isinstance(arg, str):
        return arg.replace(old, new)
    return arg if isinstance(arg, int) else _words(arg, old, new)


def _words(words: tuple[str, ...], old: str, new: str) -> tuple[str, ...]:
    return tuple([word.replace(old, new) for word in words])
