"""What there is to know of systemd before a plan is made: which manager to ask, and what it can be asked for."""

from __future__ import annotations

import os

from .drivers import ASKING
from .drivers.unit import PROCESSES, placed
from .errors import BusError
from .facts import Manager, Property
from .host import UNIT_CONTROLLERS, Host, small_file
from .spec import Spec
from .stdlib import TYPE_CHECKING, Lock, contextmanager

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .bus import Bus

_lock = Lock()
_lent: dict[tuple[int, bool], tuple[Bus, int]] = {}


def with_manager(host: Host, spec: Spec) -> Host:
    """The Host with what systemd says of itself, if ``spec`` may go through it, and the place it has given us."""
    if not host.systemd_running or spec.driver not in ASKING:
        return host
    manager = facts(host, spec)
    host = host._replace(manager=manager)
    if not manager.delegated or spec.driver == "systemd":
        return host
    mount = next(tree.mount for tree in host.hierarchies if tree.version == 2)
    enabled = small_file(f"{mount}{manager.delegated}/cgroup.subtree_control").split()
    return placed(host, manager.delegated, enabled=tuple(enabled))


def facts(host: Host, spec: Spec) -> Manager:
    """The manager that ``spec`` is for: the user's own without root or with ``--systemd-user``, else the system's.

    :raises SpecError: a ``--property`` does not exist or has a malformed value.
    """
    if not host.systemd_running:
        return Manager()
    user = spec.systemd_user or host.uid != 0
    delegated = _delegated(host)
    try:
        with borrow(user=user) as bus:
            group = bus.control_group or "/"
            return Manager(version=bus.version, user=user, control_group=group,
                           controllers=_controllers(host, group if user else "/"), delegated=delegated,
                           properties=_typed(spec, bus), problem="", remedy="")
    except BusError as error:
        return Manager(user=user, delegated=delegated, problem=error.message, remedy=error.hint)


@contextmanager
def borrow(*, user: bool) -> Iterator[Bus]:
    """A connection to the manager, shared by all that borrow it at the same time and closed behind the last.

    :raises BusError: there is no way to it.
    """
    from .bus import Bus

    key = (os.getpid(), user)  # a connection must not be used on both sides of a fork
    with _lock:
        bus, lent = _lent.get(key) or (Bus.open(user=user), 0)
        _lent[key] = bus, lent + 1
    try:
        yield bus
    finally:
        with _lock:
            bus, lent = _lent.pop(key)
            if lent > 1:
                _lent[key] = bus, lent - 1
            else:
                bus.close()


@contextmanager
def delegation(host: Host, spec: Spec) -> Iterator[Host]:
    """A delegated unit for as long as the block lasts: the Host with the place that was given to us.

    :raises StepError: it cannot be made.
    """
    from .box import abandon
    from .drivers.delegated import unit_plan
    from .execute import Executor

    plan, cgroup = unit_plan(spec, host, os.urandom(5).hex())
    executor = Executor(plan, (None, None, None))
    try:
        executor.run()
        inside = placed(host, cgroup, enabled=host.manager.controllers)
        yield inside._replace(manager=host.manager._replace(delegated=cgroup))
    finally:
        abandon(executor)


def _typed(spec: Spec, bus: Bus) -> tuple[Property, ...]:
    """What ``--property`` says, with the types that systemd itself tells."""
    if not spec.property:
        return ()
    from .property import parse

    signatures = bus.signatures(spec.unit_type)
    found = (parse(text, signatures) for text in spec.property)
    return tuple(Property(name, signature, value if isinstance(value, tuple) else (_word(value),))
                 for name, signature, value in found)


def _word(value: object) -> str:
    """A plan has words; a switch is 1 or 0 in them."""
    return str(int(value)) if isinstance(value, bool) else str(value)


def _controllers(host: Host, group: str) -> tuple[str, ...]:
    """What a child of the manager's own cgroup can be given."""
    tree = next((tree for tree in host.hierarchies if tree.version == 2), None)
    if tree is None:
        return ()
    there = small_file(f"{tree.mount}{group.rstrip('/')}/cgroup.controllers").split()
    return tuple(name for name in there if name in UNIT_CONTROLLERS)


def _delegated(host: Host) -> str:
    """The launcher's own cgroup, when the unit it belongs to was delegated (``user.delegate``, systemd 251)."""
    if host.cgroup_mode != "v2":
        return ""  # on cgroup v1 it has a place in some trees only
    tree = next(tree for tree in host.hierarchies if tree.version == 2)
    own = tree.own.removesuffix(f"/{PROCESSES}")
    for attribute in ("trusted.delegate", "user.delegate"):
        try:
            if os.getxattr(f"{tree.mount}{own}", attribute) == b"1":
                return own
        except OSError:
            continue
    return ""
