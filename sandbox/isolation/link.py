"""The executor's steps that make a network: :class:`Link`. See :mod:`.network` for what they are for.

Each goes to the kernel by pyroute2, in a thread that is in the right network namespace for as long as the step takes.
What must last is a few fds of this process: the namespace's, the nftables table's socket, and the reserved ports'. The
kernel closes them if the process is killed.
"""

from __future__ import annotations

import os
import socket
from errno import EADDRINUSE, EEXIST, ENODEV
from typing import TypeVar

from ..errors import StepError
from ..spelling import spelled
from ..stdlib import TYPE_CHECKING, Any, partial
from ..steps import Step
from .nftables import Table
from .uplink import within

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyroute2 import IPRoute

Result = TypeVar("Result")
ROOT, NETEM, TBF = 0xFFFF_FFFF, 0x1_0000, 0x2_0000
"""<linux/pkt_sched.h>: the parent of all, and the handles ``1:`` and ``2:``."""
IFA_F_NOPREFIXROUTE, SCOPE_LINK = 0x200, 253
"""<linux/if_addr.h>, <linux/rtnetlink.h>."""
SIDES = {"outside": "received", "inside": "sent"}
"""What an end sends, from the sandbox's point of view."""


class Link:
    """The network of one sandbox.

    :param namespace: opens the namespace, waiting until there is one; closing it is left to the link.
    """

    def __init__(self, namespace: Callable[[], int]) -> None:
        self._open = namespace
        self._namespace = -1
        self._index = 0
        self._shaped: dict[str, str] = {}
        self._table: Table | None = None
        self._ports: list[socket.socket] = []
        self.ops: dict[str, Callable[[Step], None]] = {
            "reserve": self._reserve, "nftables": self._nftables, "veth": self._veth,
            "address": self._address, "route": self._route, "netem": self._netem, "tbf": self._tbf,
            "delete_link": self._delete_link, "delete_table": self._delete_table,
        }

    def counters(self) -> dict[str, tuple[int, str]]:
        """What the shaping did: figure of the usage -> number and where it is from.

        :raises StepError: the kernel does not tell.
        """
        found: dict[str, tuple[int, str]] = {}
        for side, device in self._shaped.items():
            qdiscs = self._in(side, f"read the qdiscs of {device}", partial(_qdiscs, device))
            dropped = sum(one.get_attr("TCA_STATS")["drop"] for one in qdiscs if one["parent"] == ROOT)
            over = sum(one.get_attr("TCA_STATS")["overlimits"] for one in qdiscs)
            source = f"tc -s qdisc show dev {device}"
            found |= {f"net_{SIDES[side]}_dropped": (dropped, source), f"net_{SIDES[side]}_overlimits": (over, source)}
        return found

    # -- the steps: the arguments are as `explain` prints them

    def _reserve(self, step: Step) -> None:
        """Bind a port of the host that packets are taken from: a program that has it, or would, is told so."""
        protocol, address, port = map(str, step.args)
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        reserved = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC)
        self._ports.append(reserved)
        try:
            reserved.bind((address, int(port)))
        except OSError as error:
            hint = f"see who has it: ss -{protocol[0]}lpn sport = :{port}" if error.errno == EADDRINUSE else ""
            raise StepError(f"cannot publish {address}:{port}/{protocol}", errno=error.errno or 0,
                            hint=hint) from error

    def _nftables(self, step: Step) -> None:
        """Make a table: outside it lasts as long as its socket, inside as long as its namespace."""
        side, name, commands = step.args
        assert isinstance(commands, tuple)
        if side == "outside":
            self._table = Table(str(name), commands)
        else:
            within(self._namespace, lambda _: Table(str(name), commands, owned=False).close())

    def _veth(self, step: Step) -> None:
        """Make the pair, one end in the sandbox's namespace from the beginning."""
        device, peer, mtu, alias = map(str, step.args)
        try:
            # Kept by us, so that the counters are there when the last process is gone.
            self._namespace = namespace = self._open()
        except OSError as error:
            raise StepError("cannot open the sandbox's network namespace", errno=error.errno or 0) from error
        if os.path.samestat(os.fstat(namespace), os.stat("/proc/thread-self/ns/net")):
            raise StepError("the network namespace is the host's own")

        def make(route: IPRoute) -> int:
            route.link("add", ifname=device, kind="veth", mtu=int(mtu), ifalias=alias,
                       peer={"ifname": peer, "mtu": int(mtu), "net_ns_fd": namespace})
            return _index(route, device)

        self._index = self._in("outside", f"make the device {device}", make,
                               hint=f"run it again, with another {spelled('name')}")

    def _address(self, step: Step) -> None:
        """Give a device its address, and switch it on. Its network is a route of our own: two cannot have one."""
        side, device, address = map(str, step.args)
        number, _, length = address.partition("/")

        def add(route: IPRoute) -> None:
            index = _index(route, device)
            route.link("set", index=index, state="up")
            route.addr("add", index=index, address=number, prefixlen=int(length), flags=IFA_F_NOPREFIXROUTE)
            route.route("add", dst=_network(number, int(length)), oif=index, scope=SCOPE_LINK, prefsrc=number)

        self._in(side, f"give {device} the address {address}", add,
                 hint="another sandbox has just taken it: run it again")

    def _route(self, step: Step) -> None:
        """Add a route by a gateway."""
        side, destination, gateway = map(str, step.args)
        self._in(side, f"add the route {destination} {gateway}",
                 lambda route: route.route("add", dst=destination, gateway=gateway))

    def _netem(self, step: Step) -> None:
        """Hold back what a device sends; microseconds, and how many packets may wait."""
        side, device, delay, limit = map(str, step.args)
        self._qdisc(side, device, "netem", ROOT, NETEM, delay=int(delay), limit=int(limit))

    def _tbf(self, step: Step) -> None:
        """Limit the rate a device sends at: a token bucket; bits per second, bytes, and the longest wait."""
        side, device, parent, rate, burst, latency = map(str, step.args)
        self._qdisc(side, device, "tbf", ROOT if parent == "root" else NETEM | 1, TBF,
                    rate=f"{rate}bit", burst=int(burst), latency=latency)

    def _qdisc(self, side: str, device: str, kind: str, parent: int, handle: int, **options: object) -> None:
        """Make it, and read it back."""
        def make(route: IPRoute) -> bool:
            index = _index(route, device)
            route.tc("add", kind, index, handle, parent=parent, **options)
            return any(_holds(one, kind, options) for one in _qdiscs(device, route) if one["handle"] == handle)

        if not self._in(side, f"shape {device} with {kind}", make):
            raise StepError(f"the {kind} qdisc of {device} does not hold what was asked for",
                            hint=f"see tc qdisc show dev {device}")
        self._shaped[side] = device

    def _delete_link(self, step: Step) -> None:
        """Remove the pair. It may be gone: it goes with its namespace."""
        if self._namespace >= 0:
            os.close(self._namespace)
            self._namespace = -1
        if self._index:
            index, self._index = self._index, 0
            self._in("outside", f"remove the device {step.args[0]!s}", lambda route: _delete(route, index))

    def _delete_table(self, step: Step) -> None:
        """Close the sockets: the table's, which removes it, and those that reserve ports."""
        if self._table is not None:
            self._table.close()
        for port in self._ports:
            port.close()

    def _in(self, side: str, what: str, work: Callable[[IPRoute], Result], *, hint: str = "") -> Result:
        """Do something at one end.

        :param hint: what to do if it is there already.
        """
        from pyroute2 import NetlinkError

        assert side == "outside" or self._namespace >= 0
        try:
            return within(None if side == "outside" else self._namespace, work)
        except NetlinkError as error:
            raise StepError(f"cannot {what}", errno=error.code, hint=hint if error.code == EEXIST else "") from error
        except OSError as error:
            raise StepError(f"cannot {what}", errno=error.errno or 0) from error


def _index(route: IPRoute, device: str) -> int:
    """The number of a device.

    :raises OSError: there is none of that name.
    """
    found = route.link_lookup(ifname=device)
    if not found:
        raise OSError(ENODEV, os.strerror(ENODEV))
    return int(found[0])


def _qdiscs(device: str, route: IPRoute) -> list[Any]:
    """Those of ours on a device."""
    return [one for one in route.get_qdiscs(_index(route, device)) if one["handle"] in (NETEM, TBF)]


def _delete(route: IPRoute, index: int) -> None:
    from pyroute2 import NetlinkError

    try:
        route.link("del", index=index)
    except NetlinkError as error:
        if error.code != ENODEV:
            raise


def _network(address: str, length: int) -> str:
    """The network an address is in."""
    number = int.from_bytes(socket.inet_aton(address), "big") >> 32 - length << 32 - length
    return f"{socket.inet_ntoa(number.to_bytes(4, 'big'))}/{length}"


def _holds(qdisc: Any, kind: str, options: dict[str, object]) -> bool:
    """What the kernel says of a qdisc is what was asked for. Its clock has ticks of 64 ns."""
    parameters = qdisc.get_attr("TCA_OPTIONS")
    if kind == "netem":
        return bool(abs(parameters["delay"] * 0.064 - int(str(options["delay"]))) <= 1)
    rate = int(str(options["rate"]).removesuffix("bit")) // 8
    return bool(parameters.get_attr("TCA_TBF_PARMS")["rate"] == rate)
