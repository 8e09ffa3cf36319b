"""The steps that make a network, as the commands of iproute2, nftables and procps that do the same."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

from ..steps import Arg, Plan, Step

WITHIN = 'nsenter -t "$pid" -n '


def lines(plan: Plan) -> Iterator[str]:
    """As comments of a script: they take the process id of what is in the namespace, and the command must wait."""
    if all(step.op != "veth" for step in plan.steps):
        return
    yield "# not typed here, the network: with the process id of what holds the namespace in $pid, it is"
    for step in plan.steps:
        if step.op in COMMANDS or is_setting(step):
            yield from (f"#   {line}" for line in COMMANDS.get(step.op, _write)(*step.args))
    yield "# and at the end"
    for step in plan.steps:
        if step.op == "delete_link":
            yield f"#   ip link delete {step.args[0]!s}"
        elif step.op == "delete_table":
            yield f"#   nft delete table ip {step.args[0]!s}"


def is_setting(step: Step) -> bool:
    """It is about the new device, which a script does not have."""
    return step.op == "write" and str(step.args[0]).startswith("/proc/sys/net/")


def _at(side: Arg) -> str:
    return WITHIN if side == "inside" else ""


def _nftables(side: Arg, table: Arg, commands: Arg) -> Iterator[str]:
    assert isinstance(commands, tuple)
    for command in (f"add table ip {table!s}", *commands):
        yield f"{_at(side)}nft {shlex.quote(command)}"


def _veth(device: Arg, peer: Arg, mtu: Arg, _: Arg) -> Iterator[str]:
    yield f'ip link add {device!s} mtu {mtu!s} type veth peer name {peer!s} mtu {mtu!s} netns "$pid"'


def _write(path: Arg, value: Arg) -> Iterator[str]:
    yield f"echo {value!s} > {path!s}"


def _sysctl(name: Arg, value: Arg) -> Iterator[str]:
    yield f"{WITHIN}sysctl -w {shlex.quote(f'{name!s}={value!s}')}"


def _address(side: Arg, device: Arg, address: Arg) -> Iterator[str]:
    yield f"{_at(side)}ip address add {address!s} dev {device!s}"
    yield f"{_at(side)}ip link set {device!s} up"


def _route(side: Arg, destination: Arg, gateway: Arg) -> Iterator[str]:
    yield f"{_at(side)}ip route add {destination!s} via {gateway!s}"


def _netem(side: Arg, device: Arg, delay: Arg, limit: Arg) -> Iterator[str]:
    yield f"{_at(side)}tc qdisc add dev {device!s} root handle 1: netem delay {delay!s}us limit {limit!s}"


def _tbf(side: Arg, device: Arg, parent: Arg, rate: Arg, burst: Arg, latency: Arg) -> Iterator[str]:
    place = "root" if parent == "root" else f"parent {parent!s}"
    yield (f"{_at(side)}tc qdisc add dev {device!s} {place} handle 2: tbf rate {rate!s}bit burst {burst!s} "
           f"latency {latency!s}")


COMMANDS: dict[str, Callable[..., Iterator[str]]] = {
    "nftables": _nftables, "veth": _veth, "sysctl": _sysctl, "address": _address, "route": _route, "netem": _netem,
    "tbf": _tbf,
}
