"""Which devices the processes of a cgroup may open: those that every sandbox has, and those that were given to it.

A permission of ``--device`` is kept by this alone: a read-only mount does not stop writes to a device, and root inside
owns the node. The rules go by number, in the words of cgroup v1's ``devices.allow`` (kernel
``admin-guide/cgroup-v1/devices.rst``); cgroup v2 has a BPF program in its place. Either needs root; systemd does the
same when it is told by ``DevicePolicy=strict`` and ``DeviceAllow=``.

There is a policy only when a device is given, see :mod:`sandbox.isolation.nodes`.
"""

from __future__ import annotations

from ..errors import SpecError, Unsupported
from ..facts import Hierarchy, Property
from ..host import Host
from ..spec import Spec
from ..spelling import spelled
from ..stdlib import TYPE_CHECKING, NamedTuple
from ..steps import Limit, Phase, Step
from .nodes import Given, given

if TYPE_CHECKING:
    from collections.abc import Iterator

ALWAYS = {"c 1:3": "rw", "c 1:5": "rw", "c 1:7": "rw", "c 1:8": "rw", "c 1:9": "rw", "c 5:0": "rw", "c 5:2": "rw",
          "c 136:*": "rw"}
"""null, zero, full, random, urandom, tty, ptmx and the terminals below pts; a console is one of these."""
LIST = "devices.list"
USERS = "the user's own systemd cannot keep a device policy"
NO_ROOT = "without root there is no device policy"


class Policy(NamedTuple):
    """The rules, and where they go.

    :param rules: as ``c 1:3 rw``.
    :param asked: what was given, for people.
    :param realises: ``device`` or ``gpu``.
    :param tree: the cgroup tree whose cgroup keeps them; None when nothing does.
    :param notes: what is not as it should be.
    """

    rules: tuple[str, ...]
    asked: str
    realises: str
    tree: Hierarchy | None = None
    notes: tuple[str, ...] = ()

    def write(self, cgroup: str, index: int) -> Iterator[Step]:
        """Put them in place, and see that they are.

        :param index: the place of :meth:`limits` in those of the plan.
        """
        if self.tree is not None and self.tree.version == 2:
            yield self._step("device_filter", cgroup, *self.rules)
            return
        yield self._step("write", f"{cgroup}/devices.deny", "a")
        for rule in self.rules:
            yield self._step("write", f"{cgroup}/devices.allow", rule)
        yield self.read_back(cgroup, index)

    def read_back(self, cgroup: str, index: int) -> Step:
        """v1: see that nothing else is allowed."""
        return self._step("read_back", index, f"{cgroup}/{LIST}")

    def limits(self, cgroup: str) -> tuple[Limit, ...]:
        """The plan's row for them."""
        version = self.tree.version if self.tree else 0
        return (Limit(realises=self.realises, asked=self.asked, applied=", ".join(self.rules), knob="device",
                      files=(f"{cgroup}/{LIST}",) if version == 1 else (), version=version,
                      note="by device number" if version == 1 else "by device number, a BPF program of the cgroup"),)

    def properties(self) -> tuple[Property, ...]:
        """How systemd is told of them (systemd.resource-control(5)): each line adds to the list."""
        return (Property("DevicePolicy", "s", ("strict",)),
                *(Property("DeviceAllow", "a(ss)", _words(rule)) for rule in self.rules))

    def told(self) -> tuple[Property, ...]:
        """What systemd says of them then."""
        first, *lines = self.properties()
        return (first, Property("DeviceAllow", "a(ss)", tuple(word for line in lines for word in line.words)))

    def _step(self, op: str, *args: int | str) -> Step:
        return Step(op=op, args=args, phase=Phase.PREPARE, realises=self.realises)


def _words(rule: str) -> tuple[str, str]:
    kind, number, access = rule.split()
    directory = "char" if kind == "c" else "block"
    return ("char-pts" if number == "136:*" else f"/dev/{directory}/{number}"), access


def of_cgroup(spec: Spec, host: Host) -> Policy:
    """The policy for a cgroup of ours: in the tree that has v1's controller, else in the v2 tree.

    :raises SpecError: two wishes about one device contradict each other.
    :raises Unsupported: a permission was left out, and nothing would keep it.
    """
    found = given(spec, host)
    trees = [tree for tree in host.hierarchies if tree.parent is not None
             and ("devices" in tree.controllers or tree.version == 2)]
    if host.uid or not host.ids:
        return unkept(spec, host, NO_ROOT)
    if host.manager.user:
        return unkept(spec, host, USERS)
    if not trees:
        return unkept(spec, host, "no cgroup tree is there that could keep a device policy")
    return _policy(spec, _rules(found))._replace(tree=min(trees, key=lambda tree: tree.version))


def of_unit(spec: Spec, host: Host) -> Policy:
    """The policy for a systemd unit; ``tree`` is set where the kernel's file tells what became of it.

    :raises SpecError: two wishes about one device contradict each other.
    :raises Unsupported: a permission was left out, and nothing would keep it.
    """
    if host.manager.user:
        return unkept(spec, host, USERS)
    # The init is in the unit as well, and makes the nodes.
    making = "m" if host.mknod else ""
    tree = next((tree for tree in host.hierarchies if "devices" in tree.controllers), None) or next(
        (tree for tree in host.hierarchies if tree.version == 2), None)
    return _policy(spec, _rules(given(spec, host), making))._replace(tree=tree)


def unkept(spec: Spec, host: Host, why: str) -> Policy:
    """There is no policy; what is left are the permissions of the node.

    :raises Unsupported: that is not enough.
    """
    for one in given(spec, host):
        if not {"r", "w"} <= {*one.access}:
            raise Unsupported(f"{one.spelled}: nothing would keep its permission {one.access}: {why}",
                              hint=f"run it as root with {spelled('driver', 'systemd', 'cgroupfs')}, or give the "
                              "device with rwm")
    policy = _policy(spec, ())
    return policy._replace(notes=(f"--{policy.realises}: {why}: only the permissions of its node say who may use it",))


def _policy(spec: Spec, rules: tuple[str, ...]) -> Policy:
    asked = [f"{one.source}:{one.target}:{one.access}" for one in spec.device]
    return Policy(rules, ", ".join([*asked, *(["all GPUs"] if spec.gpu else [])]), "device" if spec.device else "gpu")


def _rules(found: tuple[Given, ...], more: str = "") -> tuple[str, ...]:
    """What was asked of a device counts for it under any name, that which it has in each sandbox too."""
    rules: dict[str, Given] = {}
    for one in found:
        number = f"{one.node.kind} {one.node.major}:{one.node.minor}"
        other = rules.setdefault(number, one)
        if {*one.access} - {"m"} != {*other.access} - {"m"}:
            raise SpecError(f"{one.spelled}: it is the device {number}, as is {other.node.path}, which is given with "
                            f"{other.access}, not {one.access}", field="device",
                            hint="a permission is that of the device, by whatever path: give both the same")
    own = {number: access + more for number, access in ALWAYS.items()}
    access = {number: "".join(letter for letter in "rwm" if letter in one.access + more)
              for number, one in rules.items()}
    return tuple(f"{number} {letters}" for number, letters in {**own, **access}.items())
