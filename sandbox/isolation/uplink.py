"""What ``--network veth`` must know of this machine: :func:`probe`, and :func:`within`, its way into a namespace.

Whether the kernel can do what is wanted is tried, in a network namespace of its own that goes with the thread: a module
is loaded by using it, and nothing stays.
"""

from __future__ import annotations

import os
from errno import EEXIST
from typing import TypeVar

from ..facts import Network
from ..host import small_file
from ..stdlib import TYPE_CHECKING, Any, cache
from .namespaces import CLONE_NEWNET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyroute2 import IPRoute

Result = TypeVar("Result")
CAP_NET_ADMIN = 1 << 12
RESOLVED = "/run/systemd/resolve/resolv.conf"
"""Where systemd-resolved(8) keeps the servers it asks itself."""
NF_INET_FORWARD, NF_DROP = 2, 0


def within(namespace: int | None, work: Callable[[IPRoute], Result]) -> Result:
    """Do ``work`` with a netlink socket in a network namespace, in a thread that ends with it.

    setns(2) is for one thread, and pyroute2's sockets want an event loop of their own, which the caller's thread may
    not have: it may be one of asyncio's.

    :param namespace: fd of the namespace; None for the caller's own, -1 for a new one.
    :raises OSError: setns(2) failed. What ``work`` raises is passed on.
    """
    from threading import Thread

    outcome: list[tuple[Result | None, BaseException | None]] = []

    def run() -> None:
        try:
            _enter(namespace)
            from pyroute2 import IPRoute

            with IPRoute() as route:
                outcome.append((work(route), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = Thread(target=run, name="sandbox-network")
    thread.start()
    thread.join()
    result, error = outcome[0]
    if error is not None:
        raise error
    return result  # type: ignore[return-value]


def _enter(namespace: int | None) -> None:
    """setns(2) or unshare(2), which Python has since 3.12."""
    if namespace is None:
        return
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) if namespace < 0 else libc.setns(namespace, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def probe(*, delay: bool = False, rate: bool = False) -> Network:
    """Look at the network of this machine.

    :param delay: it takes a netem qdisc; likewise ``rate`` and tbf.
    """
    problem = _problem()
    if problem:
        return Network(lacks=(("veth", problem),))
    uplink, taken = _routes()
    directory = f"/proc/sys/net/ipv4/conf/{uplink}"
    lacks = _lacks(delay, rate)
    filters = () if lacks else within(None, lambda _: tuple(_filters()))
    resolv_conf = os.path.realpath("/etc/resolv.conf")
    return Network(
        taken=tuple(taken),
        uplink=uplink,
        mtu=int(small_file(f"/sys/class/net/{uplink}/mtu") or 1500) if uplink else 1500,
        forwarding=bool(uplink) and small_file(f"{directory}/forwarding") == "1",
        ipv6=os.path.isdir("/proc/sys/net/ipv6"),
        filters=filters,
        resolv_conf=resolv_conf if os.path.isfile(resolv_conf) else "",
        nameservers=tuple(_nameservers(resolv_conf)),
        upstream=RESOLVED if any(not one.startswith("127.") for one in _nameservers(RESOLVED)) else "",
        lacks=lacks,
    )


def _problem() -> str:
    """Why we may not even try."""
    if os.geteuid():
        return ("without root nobody may add a device to the host's network (CAP_NET_ADMIN); pasta and slirp4netns are "
                "programs that pass a user's packets on instead")
    line = next(line for line in small_file("/proc/self/status").splitlines() if line.startswith("CapEff:"))
    if not int(line.split()[1], 16) & CAP_NET_ADMIN:
        return "the launcher has no CAP_NET_ADMIN"
    return ""


def _routes() -> tuple[str, list[str]]:
    """The device of the default route with the lowest metric, and all networks, by /proc/net/route."""
    uplink, lowest, taken = "", -1, []
    for line in small_file("/proc/thread-self/net/route").splitlines()[1:]:
        device, destination, _, flags, _, _, metric, mask, *_ = line.split()
        length = int(mask, 16).bit_count()
        if not length and int(flags, 16) & 1 and (lowest < 0 or int(metric) < lowest):
            uplink, lowest = device, int(metric)
        if length:
            taken.append(f"{_dotted(destination)}/{length}")
    return uplink, taken


def _dotted(word: str) -> str:
    """An address as the kernel prints it there: in the byte order of the machine."""
    from socket import inet_ntoa
    from struct import pack

    return inet_ntoa(pack("=I", int(word, 16)))


def _nameservers(path: str) -> Iterator[str]:
    for line in small_file(path).splitlines():
        match line.split():
            case ["nameserver", address, *_]:
                yield address


@cache
def _lacks(delay: bool, rate: bool) -> tuple[tuple[str, str], ...]:
    """Tried once: what a kernel can do does not change, and a namespace costs 15 ms."""
    return within(-1, lambda route: tuple(_tried(route, delay=delay, rate=rate)))


def _tried(route: IPRoute, *, delay: bool, rate: bool) -> Iterator[tuple[str, str]]:
    """What the kernel refuses, in a namespace where everything may be tried."""
    from .nftables import Table

    def table() -> None:
        Table("sandbox", ("add chain ip sandbox nat { type nat hook postrouting priority 100; }",
                          "add rule ip sandbox nat ip saddr 10.0.0.1 ct status dnat fib daddr type local masquerade",
                          "add rule ip sandbox nat drop")).close()

    def veth() -> None:
        route.link("add", ifname="a", kind="veth", peer={"ifname": "b"})

    attempts: list[tuple[str, Callable[[], Any]]] = [("veth", veth), ("nftables", table)]
    if rate:
        attempts.append(("tbf", lambda: route.tc("replace", "tbf", 1, 0x10000, rate="8mbit", burst=16384,
                                                 latency="50ms")))
    if delay:
        attempts.append(("netem", lambda: route.tc("replace", "netem", 1, 0x20000, delay=1000)))
    for name, attempt in attempts:
        reason = _refused(attempt)
        if reason:
            yield name, reason


def _refused(attempt: Callable[[], object]) -> str:
    from pyroute2 import NetlinkError

    try:
        attempt()
    except NetlinkError as error:
        return "" if error.code == EEXIST else os.strerror(error.code)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _filters() -> Iterator[str]:
    """Base chains that drop whatever is forwarded and that no rule of theirs accepts."""
    from pyroute2.nftables.main import NFTables

    families = {1: "inet", 2: "ip"}
    with NFTables(nfgen_family=0) as tables:
        for chain in tables.get_chains():
            hook = chain.get_attr("NFTA_CHAIN_HOOK")
            if (hook is not None and hook.get_attr("NFTA_HOOK_HOOKNUM") == NF_INET_FORWARD
                    and chain.get_attr("NFTA_CHAIN_POLICY") == NF_DROP and chain["nfgen_family"] in families):
                yield (f"{families[chain['nfgen_family']]} {chain.get_attr('NFTA_CHAIN_TABLE')} "
                       f"{chain.get_attr('NFTA_CHAIN_NAME')}")
