"""``--network veth``: a device of its own, with a way out, ports that lead in, and a bandwidth.

A pair of devices is made: ``eth0`` in the sandbox's network namespace, and one on the host that is called after the
sandbox. The kernel passes packets between that one and the rest, and translates addresses, by the rules of one
nftables table. All of it ends by itself, however the run ends: the pair goes with the namespace, its routes and
settings go with the pair, the table with the socket that made it (see :mod:`.nftables`). No setting of the host's own
is changed: ``forwarding`` is on for the new device alone, and a note says so when the host's own keeps packets back.
"""

from __future__ import annotations

from ..errors import Unsupported
from ..host import Host
from ..records import NetRate, Publish
from ..spec import Spec
from ..spelling import spelled
from ..stdlib import TYPE_CHECKING, NamedTuple
from ..steps import Arg, Limit, Phase, Plan, Read, Step, Unmet, Where
from ..units import parse_bytes, parse_count, refuse
from . import capabilities
from .namespaces import is_shifted

if TYPE_CHECKING:
    from collections.abc import Iterator

INSIDE, OUTSIDE = "inside", "outside"
EVERYWHERE = "0.0.0.0"
DEVICE = "eth0"
POOLS = ("10.83.0.0/16", "172.27.0.0/16")
"""Where the addresses are taken from: four for each sandbox, two of them usable."""
LOOPBACK = "127.0.0.0/8"
LEAST_BURST, PAUSE = 16_384, 0.1
"""Bytes; seconds that a late timer may take before the rate is missed: as long as the period of a CPU quota."""
LATENCY = "50ms"
"""How long a packet may wait for its turn before it is dropped."""
MOST_WAITING = 10_000
"""Packets that a delay may hold: 20 ms at 6 Gbit/s."""
MOST_RATE = (2**32 - 1) * 8
"""Bits per second: the kernel's ``tc_ratespec`` has 32 bits for bytes."""
SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


class Pair(NamedTuple):
    """The two ends.

    :param device: name of the host's end.
    :param outside: its address.
    :param inside: the address of the sandbox.
    """

    device: str
    outside: str
    inside: str


# -- flags

def parse_publish(text: str, field: str) -> Publish:
    """docker's ``[IP:]HOST:PORT[/tcp|udp]``; both ports are given.

    :raises SpecError: otherwise.
    """
    examples = ("8080:80", "127.0.0.1:8080:80", "5353:53/udp")
    ports, _, protocol = text.partition("/")
    *address, host_port, port = ports.split(":") if ports.count(":") in (1, 2) else ("", "", "", "")
    if not host_port or protocol not in ("", "tcp", "udp") or text.endswith("/"):
        raise refuse(text, field, "is not [IP:]HOST:PORT[/tcp|udp]", *examples)
    if address and not _is_address(address[0]):
        raise refuse(text, field, "does not begin with an IPv4 address", *examples)
    numbers = [parse_count(one, field, high=65535, example=examples[0]) for one in (host_port, port)]
    chosen = address[0] if address and address[0] != EVERYWHERE else ""
    return Publish(chosen, numbers[0], numbers[1], protocol or "tcp")


def _is_address(text: str) -> bool:
    import re

    parts = re.fullmatch(r"(?a)(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})", text)
    return parts is not None and all(int(part) < 256 and part == str(int(part)) for part in parts.groups())


def show_publish(port: Publish) -> str:
    """As :func:`parse_publish` reads it."""
    address = f"{port.address}:" if port.address else ""
    return f"{address}{port.host_port}:{port.port}/{port.protocol}"


def parse_rate(text: str, field: str) -> NetRate:
    """tc's rates in bits per second, ``800kbit``, ``10mbit``, ``1.5gbit``, and a burst in bytes: ``10mbit:64k``.

    :raises SpecError: when it is not one, or below 8kbit or above what tc takes, or the burst is a minute's worth.
    """
    examples = ("10mbit", "10mbit:64k")
    word, colon, after = text.partition(":")
    import re

    match = re.fullmatch(r"(?ai)([0-9]{1,12})(?:\.([0-9]{1,9}))?([kmg]?)bit", word)
    if match is None:
        raise refuse(text, field, "is not a rate in bits per second", *examples)
    fraction = match[2] or ""
    rate = int(match[1] + fraction) * SUFFIXES[match[3].lower()] // 10 ** len(fraction)
    if not 8000 <= rate <= MOST_RATE:
        raise refuse(text, field, "is not between 8kbit and 34gbit", *examples)
    burst = parse_bytes(after, field, low=1600, high=rate * 60 // 8, example=examples[1]) if colon else None
    return NetRate(rate, burst)


def show_rate(rate: NetRate) -> str:
    """As :func:`parse_rate` reads it."""
    for suffix in ("g", "m", "k"):
        if rate.rate % SUFFIXES[suffix] == 0:
            break
    else:
        suffix = ""
    burst = "" if rate.burst is None else f":{rate.burst}"
    return f"{rate.rate // SUFFIXES[suffix]}{suffix}bit{burst}"


# -- the plan

def pair(name: str, host: Host) -> Pair:
    """Names and addresses for the sandbox ``name``: the first free ones from a place that the name decides.

    :raises Unsupported: none is free.
    """
    from zlib import crc32

    number = crc32(name.encode())
    taken = [_bounds(network) for network in host.network.taken]
    for pool in POOLS:
        first, last = _bounds(pool)
        size = (last - first + 1) // 4
        for step in range(size):
            base = first + (number + step) % size * 4
            clash = next((high for low, high in taken if low <= base + 3 and base <= high), None)
            if clash is None:
                return Pair(f"sb-{number & 0xFFFFFF:06x}", _dotted(base + 1), _dotted(base + 2))
            if clash >= last:
                break
    raise Unsupported(f"{spelled('network', 'veth')}: no addresses are free in {' and '.join(POOLS)}",
                      hint="this machine's own routes are in the way: see ip route")


def _bounds(network: str) -> tuple[int, int]:
    address, _, length = network.partition("/")
    number = 0
    for part in address.split("."):
        number = number << 8 | int(part)
    size = 1 << 32 - int(length)
    return number & -size, number | size - 1


def _dotted(number: int) -> str:
    return ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))


def is_made(spec: Spec, host: Host) -> bool:
    """There will be a pair: it is wanted, and nothing that it needs is lacking."""
    return spec.network == "veth" and not {"veth", "nftables"} & dict(host.network.lacks).keys()


def add(plan: Plan, spec: Spec, host: Host) -> Plan:
    """The plan of a driver, with what the network takes; the Spec has ``--network veth``."""
    rows, unmet = limits(spec, host)
    plan = plan._replace(limits=(*plan.limits, *rows), unmet=(*plan.unmet, *unmet),
                         notes=(*plan.notes, *notes(spec, host)))
    if not is_made(spec, host):
        return plan
    go = next(index for index, step in enumerate(plan.steps) if step.op == "go")
    steps = (*plan.steps[:go], *connect(spec, host, name=plan.name), *plan.steps[go:],
             *disconnect(host, name=plan.name))
    return plan._replace(steps=tuple(_told(steps, holder=is_shifted(spec, host))),
                         reads=(*plan.reads, *reads(host, name=plan.name)))


def _told(steps: tuple[Step, ...], *, holder: bool) -> Iterator[Step]:
    """Have the guard say which process has the namespace, as soon as there is one."""
    op = "tell_namespaces" if holder else "tell_init"
    missing = all(step.op != op for step in steps)
    for step in steps:
        yield step
        if missing and step.op == ("namespaces" if holder else "clone3"):
            yield Step(op=op, phase=Phase.SPAWN, where=Where.GUARD)


def connect(spec: Spec, host: Host, *, name: str) -> Iterator[Step]:
    """What the launcher does between the namespace's making and the workload's start."""
    ends = pair(name, host)
    for port in spec.publish:
        yield _step("reserve", port.protocol, port.address or EVERYWHERE, port.host_port, realises="publish")
    # The rules are there before any packet is, and no failure of theirs is passed over.
    yield _step("nftables", OUTSIDE, table(name), tuple(rules(spec, ends, name)))
    yield _step("veth", ends.device, DEVICE, host.network.mtu, f"sandbox {name}", realises="network")
    yield _step("nftables", INSIDE, table(name), tuple(rules_inside(name)))
    yield from _settings(spec, host, ends)
    yield _step("address", OUTSIDE, ends.device, f"{ends.outside}/30")
    yield _step("address", INSIDE, DEVICE, f"{ends.inside}/30")
    yield _step("route", INSIDE, "default", ends.outside, realises="network")
    for side, device in ((OUTSIDE, ends.device), (INSIDE, DEVICE)):
        yield from _shape(spec, host, side, device)


def _settings(spec: Spec, host: Host, ends: Pair) -> Iterator[Step]:
    """Of the new device and the new namespace alone, in files that go with them."""
    if host.network.ipv6:
        yield _step("write", f"/proc/sys/net/ipv6/conf/{ends.device}/disable_ipv6", "1")
    yield _step("write", f"/proc/sys/net/ipv4/conf/{ends.device}/forwarding", "1", realises="network")
    if any(_is_loopback(port) or not port.address for port in spec.publish):
        # Else the kernel drops what came for 127.0.0.1 and was sent on.
        yield _step("write", f"/proc/sys/net/ipv4/conf/{ends.device}/route_localnet", "1", realises="publish")


def _shape(spec: Spec, host: Host, side: str, device: str) -> Iterator[Step]:
    """Each end shapes what it sends. A delay comes first, and the rate is a child of it."""
    lacks = dict(host.network.lacks)
    delayed = spec.net_delay is not None and "netem" not in lacks
    if spec.net_delay is not None and delayed:
        yield _step("netem", side, device, round(spec.net_delay * 10**6), MOST_WAITING, realises="net_delay")
    if spec.net_rate is not None and "tbf" not in lacks:
        yield _step("tbf", side, device, "1:1" if delayed else "root", spec.net_rate.rate, burst(spec.net_rate),
                    LATENCY, realises="net_rate")


def burst(rate: NetRate) -> int:
    """Bytes: what was asked for, else what passes in :data:`PAUSE`."""
    return rate.burst or max(LEAST_BURST, round(rate.rate / 8 * PAUSE))


def disconnect(host: Host, *, name: str) -> Iterator[Step]:
    """What the launcher removes at the end. Without it, the kernel does."""
    yield _step("delete_link", pair(name, host).device, phase=Phase.CLEANUP)
    yield _step("delete_table", table(name), phase=Phase.CLEANUP)


def table(name: str) -> str:
    """The nftables table of the sandbox ``name``."""
    return f"sandbox-{name}"


def rules(spec: Spec, ends: Pair, name: str) -> Iterator[str]:
    """The table, as commands for nft(8)."""
    add, device = f"rule ip {table(name)}", ends.device
    yield _chain(name, "raw", "filter", "prerouting", -300)
    yield f"add {add} raw iifname {device} ip saddr != {ends.inside} drop"
    yield f"add {add} raw iifname {device} ip daddr {LOOPBACK} drop"
    # Others reach what is published, and it gets the answers to what it asks for: nothing else is passed in.
    yield _chain(name, "forward", "filter", "forward", 0)
    yield f"add {add} forward oifname {device} ct state established,related accept"
    yield f"add {add} forward oifname {device} ct status dnat accept"
    yield f"add {add} forward oifname {device} drop"
    yield _chain(name, "postrouting", "nat", "postrouting", 100)
    yield f"add {add} postrouting ip saddr {ends.inside} masquerade"
    if not spec.publish:
        return
    yield f"add {add} postrouting oifname {device} ip saddr {LOOPBACK} masquerade"
    yield _chain(name, "prerouting", "nat", "prerouting", -100)
    yield _chain(name, "output", "nat", "output", -100)
    for port in spec.publish:
        where = f"ip daddr {port.address}" if port.address else "fib daddr type local"
        target = f"{where} {port.protocol} dport {port.host_port} dnat to {ends.inside}:{port.port}"
        # From outside nothing may come for 127.0.0.1, and before this rule the kernel has not looked.
        yield from (f"add {add} {chain} {target}" for chain in ("prerouting", "output")
                    if chain == "output" or not _is_loopback(port))


def rules_inside(name: str) -> Iterator[str]:
    """The sandbox's own table: what a socket bound to ``eth0`` sends to 127.0.0.1 does not leave.

    It stays when the launcher is killed, and the host's table has gone before the last process has.
    """
    yield _chain(name, "output", "filter", "output", 0)
    yield f"add rule ip {table(name)} output oifname {DEVICE} ip daddr {LOOPBACK} drop"


def _chain(name: str, chain: str, kind: str, hook: str, priority: int) -> str:
    return f"add chain ip {table(name)} {chain} {{ type {kind} hook {hook} priority {priority}; }}"


def _is_loopback(port: Publish) -> bool:
    return port.address.startswith("127.")


def _step(op: str, *args: Arg, realises: str = "", phase: Phase = Phase.ENTER) -> Step:
    return Step(op=op, args=args, phase=phase, realises=realises)


# -- what is told of it

def limits(spec: Spec, host: Host) -> tuple[tuple[Limit, ...], tuple[Unmet, ...]]:
    """The rows for bandwidth and delay, and what cannot be done here."""
    rows, unmet, lacks = [], [], dict(host.network.lacks)
    if spec.network == "veth" and not is_made(spec, host):
        what, reason = next(iter(lacks.items()))
        if what != "veth":
            reason = f"{what}: {reason}"
        remedy = f"share the host's with {spelled('network', 'host')}, or leave {spelled('network')} out"
        return (), (Unmet("network", reason, remedy),)
    if spec.net_delay is not None:
        rows.append(Limit(realises="net_delay", asked=f"{spec.net_delay:g} s", knob="tc",
                          applied=f"netem delay {round(spec.net_delay * 10**6)}us, each way"))
    if spec.net_rate is not None:
        rows.append(Limit(realises="net_rate", asked=show_rate(spec.net_rate), knob="tc",
                          applied=f"tbf rate {spec.net_rate.rate}bit burst {burst(spec.net_rate)}, each way"))
    for name, qdisc in (("net_delay", "netem"), ("net_rate", "tbf")):
        if getattr(spec, name) is None:
            continue
        if qdisc in lacks:
            unmet.append(Unmet(name, f"the kernel has no {qdisc} qdisc: {lacks[qdisc]}", f"modprobe sch_{qdisc}"))
        elif "CAP_NET_ADMIN" in capabilities.wanted(spec):
            unmet.append(Unmet(name, "with CAP_NET_ADMIN the command can take it off its own device",
                               f"leave {spelled('cap_add', 'NET_ADMIN')} out"))
    refused = {one.realises for one in unmet}
    return tuple(row for row in rows if row.realises not in refused), tuple(unmet)


def reads(host: Host, *, name: str) -> Iterator[Read]:
    """What passed, as the host's end counts it: what it sends, the sandbox receives."""
    directory = f"/sys/class/net/{pair(name, host).device}/statistics"
    for figure, file in (("received", "tx"), ("sent", "rx")):
        for unit in ("bytes", "packets"):
            yield Read(f"net_{figure}_{unit}", f"{directory}/{file}_{unit}")


def notes(spec: Spec, host: Host) -> Iterator[str]:
    """What keeps packets from their way."""
    if not is_made(spec, host):
        return
    network = host.network
    if not network.uplink:
        yield "this machine has no default route: the sandbox reaches this machine alone"
    elif not network.forwarding:
        yield (f"net.ipv4.conf.{network.uplink}.forwarding is 0: the sandbox and this machine reach each other, but "
               f"nothing passes on to other machines; to allow it: sysctl -w "
               f"net.ipv4.conf.{network.uplink}.forwarding=1")
    for chain in network.filters:
        yield (f"the nftables chain {chain} drops what no rule of its own accepts, so the sandbox may not reach other "
               "machines; where it is docker's: iptables -I DOCKER-USER -i sb-+ -j ACCEPT, and the same with -o")
    if not spec.rootfs and not resolver(spec, host) and all(map(_is_local, network.nameservers)):
        servers = " ".join(network.nameservers) or "no server"
        yield (f"{network.resolv_conf or '/etc/resolv.conf'} names {servers}, which cannot be reached from inside: "
               "names are not resolved; give a file with another server by -v FILE:/etc/resolv.conf:ro")


def resolver(spec: Spec, host: Host) -> tuple[str, str] | None:
    """The file that must be seen as ``/etc/resolv.conf``, and where that leads inside; None when it is right already.

    A server on the host's loopback device cannot be reached. Where that is systemd-resolved, the servers it asks
    itself are in a file (docker does the same). One below ``/run`` is hidden by the sandbox's own ``/run``.
    """
    network = host.network
    if not is_made(spec, host) or spec.rootfs or any(one.target == "/etc/resolv.conf" for one in spec.volume):
        return None
    usable = any(not _is_local(one) for one in network.nameservers)
    source = network.resolv_conf if usable else network.upstream
    target = network.resolv_conf or "/etc/resolv.conf"
    if not source or (source == target and not source.startswith("/run/")):
        return None
    return source, target


def _is_local(address: str) -> bool:
    return address.startswith("127.") or address == "::1"
