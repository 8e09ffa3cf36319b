"""The delegated driver: one systemd unit with ``Delegate=yes``, and below it cgroups of ours whose files we write.

systemd owns the unit and promises to leave alone what is below (CGROUP_DELEGATION.md), so limits survive a
daemon-reload and the end of other units, and many sandboxes cost one call over D-Bus.
"""

from __future__ import annotations

from ..host import Host
from ..spec import Spec
from ..spelling import spelled
from ..stdlib import TYPE_CHECKING
from ..steps import Plan, Step, Unmet
from ..wishes import wishes
from . import process, unit
from .cgroupfs import plan_below
from .properties import properties

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class DelegatedDriver:
    """Writes kernel files below a unit of its own, or below the one the launcher was given."""

    name = "delegated"

    def problems(self, host: Host) -> tuple[str, ...]:
        """See :class:`~sandbox.drivers.Driver`."""
        manager = host.manager
        return (manager.problem,) if manager.problem and not manager.delegated else ()

    def compile(self, spec: Spec, host: Host, *, name: str) -> Plan:
        """See :class:`~sandbox.drivers.Driver`."""
        given = host.manager.delegated
        if given:
            plan = plan_below(self.name, spec, host, name=name, before=_move_in(host, given))
            plan = plan._replace(unmet=(*plan.unmet, *_without_unit(spec, given)))
            return plan._replace(notes=(f"below {given}, which systemd has delegated to the launcher",
                                        *_moves(host, given), *plan.notes))
        scope = unit.unit_name(spec, name, "scope")
        cgroup = unit.cgroup_of(scope, spec, host)
        inside = unit.placed(host, cgroup)
        found, unmet = wishes(spec.limits, inside)
        told = [(wish, properties(wish, host.manager.version)) for wish in found if wish.relative]
        alone = [wish for wish, words in told if not words]
        wanted = ([wish for wish in found if wish not in alone],
                  [*unmet, *unit.untyped(spec, host), *(unit.without_effect(wish, host) for wish in alone)])
        tell = (step for wish, words in told for step in unit.tell(words, wish.realises))
        shared = [(wish, wish.tree.mount + cgroup) for wish, words in told if words]
        plan = plan_below(self.name, spec, inside, name=name, unit=scope, events=unit.events(inside, cgroup),
                          after=(unit.stop(scope, host),), wanted=wanted, shared=shared,
                          before=_delegate(scope, cgroup, spec, inside, name, _holders(host), tell))
        return plan._replace(notes=(*unit.oom_notes("scope", host), *plan.notes))


driver = DelegatedDriver()


def unit_plan(spec: Spec, host: Host, name: str) -> tuple[Plan, str]:
    """The plan for the unit alone, for many launches to share; and its cgroup below the root of each tree.

    A guard without a sandbox holds it, and goes when the launcher does.
    """
    scope = unit.unit_name(spec, name, "scope")
    cgroup = unit.cgroup_of(scope, spec, host)
    inside = unit.placed(host, cgroup)
    steps = (*process.hold(host, name=name, unit=scope), *_delegate(scope, cgroup, spec, inside, name, ("guard",)),
             *unit.enable(inside, cgroup),
             *process.cleanup(host, name=name, cgroups=(), unit=scope, events=unit.events(host, cgroup)),
             unit.stop(scope, host))
    return Plan(driver=driver.name, name=name, steps=steps), cgroup


def _without_unit(spec: Spec, given: str) -> Iterator[Unmet]:
    """The flags about a unit, which are refused because the run makes no unit.

    :param given: the cgroup that systemd has delegated to the launcher.
    """
    for field in ("unit", "slice", "property", "systemd_user"):
        if getattr(spec, field):
            yield Unmet(realises=field, remedy=f"use {spelled('driver', 'systemd')}",
                        reason=f"no unit is made, because systemd has delegated {given} to the launcher")


def _move_in(host: Host, given: str) -> Iterator[Step]:
    """What must move before cgroups can be made below ``given`` and entered."""
    if _is_in(host, given):
        yield from unit.split(host, given)
    elif host.uid and not any(tree.own.startswith(f"{given}/") for tree in host.hierarchies):
        yield unit.tell_init()
        yield unit.attach(given.rpartition("/")[2], host)


def _is_in(host: Host, given: str) -> bool:
    """True if the launcher is in the unit's own cgroup. It must leave: a cgroup that has processes cannot pass
    controllers on (cgroups(7))."""
    return any(tree.own == given for tree in host.hierarchies)


def _moves(host: Host, given: str) -> Iterator[str]:
    """Yield a note if the run moves the unit's own processes: they are not moved back when it ends.

    Before that, the controllers would have to be disabled for all children of the unit, and another run that is just
    starting there would lose its limits.
    """
    if _is_in(host, given):
        yield (f"all processes in {given}, the caller among them, are moved to {given}/{unit.PROCESSES} and stay there "
               "after the run; --driver systemd makes a unit of its own and moves none of them")


def _holders(host: Host) -> tuple[str, ...]:
    """The scope is made around the guard, which outlives the workload. Without root the init must be in it as well:
    a process may only be moved within what was delegated (cgroups(7)), and the workload is its child."""
    return ("guard", "init") if host.uid else ("guard",)


def _delegate(scope: str, cgroup: str, spec: Spec, host: Host, name: str, holders: tuple[str, ...],
              tell: Iterable[Step] = ()) -> Iterator[Step]:
    if "init" in holders:
        yield unit.tell_init()
    yield from unit.tell(unit.common(spec, host, name, delegate=True, accounted=unit.delegated_controllers(host)))
    yield from unit.tell(unit.oom_policy("scope", host, delegate=True))
    yield from tell
    yield from unit.tell(host.manager.properties, "property")
    yield unit.start(scope, host, *holders)
    yield from unit.split(host, cgroup)
