"""The defaults of systemd's unit properties on this machine.

They depend on systemd's version, on system.conf(5) and on the cgroup version. So systemd is asked: for a unit that is
not there it answers with the defaults (``unit_init()``). Two properties get theirs only when a unit is loaded: the
slice (``unit_set_default_slice()``) and the OOM policy (``scope_add_extras()``, ``service_add_extras()``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from ..bus import Bus
from ..drivers.unit import default_slice
from ..steps import Plan
from .compare_plan import name_and_value


def ask(bus: Bus, plan: Plan, told: Sequence[str], *, user: bool) -> tuple[str, ...]:
    """The default for each property in ``told``, as a plan spells values; empty where systemd does not say.

    :param told: of :func:`~sandbox.teach.compare_plan.besides`.
    :param plan: says which kind of unit it is.
    :param user: the manager is the user's.
    :raises BusError: systemd gave no answer.
    """
    kind = "service" if any(step.op == "start_service" for step in plan.steps) else "scope"
    absent = f"sandbox-absent-{os.getpid()}.{kind}"
    begins = bus.get_all(absent, "Unit") | bus.get_all(absent, kind.capitalize())
    return settle(told, begins, user=user, oom_policy=str(bus.get("", "Manager", "DefaultOOMPolicy")))


def settle(told: Sequence[str], begins: Mapping[str, object], *, user: bool, oom_policy: str) -> tuple[str, ...]:
    """Return the defaults from systemd's answers. Pure; see :func:`ask`.

    :param begins: the properties of a unit that is not there.
    :param oom_policy: the manager's ``DefaultOOMPolicy``.
    """
    pairs = [name_and_value(text) for text in told]
    # Delegation alone makes the unit go on after a kill (OOMPolicy= in systemd.service(5)).
    policy = "continue" if ("Delegate", "1") in pairs else oom_policy
    found = {**begins, "Slice": default_slice(user=user), "OOMPolicy": policy}
    return tuple(_word(found.get(name, "")) for name, _ in pairs)


def _word(value: object) -> str:
    if value == ():  # an empty array
        return ""
    return str(int(value)) if isinstance(value, bool) else str(value)
