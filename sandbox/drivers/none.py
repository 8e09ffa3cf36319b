"""The driver without cgroups: rlimits, watches and namespaces only; everything else is listed as unmet."""

from __future__ import annotations

from ..host import Host
from ..spec import Spec
from ..steps import Phase, Plan, Step
from ..wishes import wishes
from . import process


class NoneDriver:
    """For hosts where no cgroup may be made. It says of each limit that it cannot be enforced."""

    name = "none"

    def problems(self, host: Host) -> tuple[str, ...]:
        """See :class:`~sandbox.drivers.Driver`."""
        return ()

    def compile(self, spec: Spec, host: Host, *, name: str) -> Plan:
        """See :class:`~sandbox.drivers.Driver`."""
        found, unmet = wishes(spec.limits, host)
        refused = tuple(process.needs_cgroup(wish.realises, wish.knob.files(wish.tree.version)[0], host)
                        for wish in found)
        watches = process.watches(spec, ())
        limits, more = process.limits(spec, host, watches)
        steps = (
            *process.spawn(spec, host, name=name, watches=watches, cgroups=()),
            *process.enter(spec, host),
            Step(op="go", phase=Phase.ATTACH),
            *process.become(spec, host),
            *process.cleanup(host, name=name, cgroups=()),
        )
        plan = Plan(driver=self.name, name=name, steps=steps, limits=limits, unmet=(*refused, *unmet, *more),
                    notes=(*process.notes(spec, host), *_policy(spec, host)))
        return process.with_network(plan, spec, host)


def _policy(spec: Spec, host: Host) -> tuple[str, ...]:
    if not spec.device and not spec.gpu:
        return ()
    from ..isolation import device_policy

    return device_policy.unkept(spec, host, "the none driver makes no cgroup that could keep a device policy").notes


driver = NoneDriver()
