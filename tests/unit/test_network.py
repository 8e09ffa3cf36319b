"""The plan of ``--network veth``, and its flags: no kernel, no root."""

from __future__ import annotations

from ipaddress import IPv4Interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sandbox
from sandbox.drivers import get
from sandbox.errors import SpecError, Unsupported
from sandbox.facts import Network
from sandbox.host import Host, from_json, to_json
from sandbox.isolation import network, nftables
from sandbox.isolation.network import parse_publish, parse_rate, show_publish, show_rate
from sandbox.records import NetRate, Publish
from sandbox.spec import Spec
from sandbox.steps import Plan

MACHINE = Host(kernel="6.12.0", uid=0, userns=True, ids=True, namespaces=("net", "user", "time", "cgroup"),
               network=Network(taken=("192.0.2.0/24",), uplink="ens3", mtu=1450, forwarding=True, ipv6=True,
                               resolv_conf="/etc/resolv.conf", nameservers=("192.0.2.1",)))


def spec(**wishes: object) -> Spec:
    return sandbox.make_spec(["true"], network="veth", **wishes)


def plan(machine: Host = MACHINE, **wishes: object) -> Plan:
    return get("none").compile(spec(**wishes), machine, name="box")


def ops(found: Plan) -> list[str]:
    return [step.op for step in found.steps]


def having(**facts: object) -> Host:
    return MACHINE._replace(network=MACHINE.network._replace(**facts))


@pytest.mark.parametrize(("text", "record"), [
    ("8080:80", Publish("", 8080, 80)), ("8080:80/tcp", Publish("", 8080, 80)),
    ("5353:53/udp", Publish("", 5353, 53, "udp")), ("127.0.0.1:8080:80", Publish("127.0.0.1", 8080, 80)),
    ("0.0.0.0:1:65535", Publish("", 1, 65535)),
])
def test_ports_that_are_published(text: str, record: Publish) -> None:
    assert parse_publish(text, "publish") == record
    assert parse_publish(show_publish(record), "publish") == record


@pytest.mark.parametrize("text", ["", "80", ":80", "80:", "0:80", "80:0", "65536:80", "80:80/sctp", "80:80/", "a:80:80",
                                  "1.2.3:80:80", "1.2.3.256:80:80", "01.2.3.4:80:80", "::1:80:80", "80:80:80:80",
                                  "8080-8090:80", "+1:80", "1 :80", "\u0668\u0660:80", "80:80\n"])
def test_ports_that_are_refused(text: str) -> None:
    with pytest.raises(SpecError, match="publish"):
        parse_publish(text, "publish")


@pytest.mark.parametrize(("text", "record"), [
    ("8mbit", NetRate(8_000_000)), ("8000bit", NetRate(8_000)), ("1.5Mbit:64k", NetRate(1_500_000, 65536)),
    ("34gbit", NetRate(34_000_000_000)), ("10mbit:1600", NetRate(10_000_000, 1600)),
])
def test_rates(text: str, record: NetRate) -> None:
    assert parse_rate(text, "net_rate") == record


@pytest.mark.parametrize("text", [
    "", "8", "8m", "8mbps", "8mb", "7kbit", "35gbit", "mbit", "-8mbit", "8 mbit", "8mbit:", "8mbit:1k", "8mbit:1g",
    "8mbit:1m:1m", "8e3kbit", "\u0668mbit", "8mbit\n", "inf", "1.5.5mbit"])
def test_rates_that_are_refused(text: str) -> None:
    with pytest.raises(SpecError, match="net_rate"):
        parse_rate(text, "net_rate")


@given(st.builds(NetRate, st.integers(8000, network.MOST_RATE), st.none() | st.integers(1600, 60_000)))
def test_a_rate_is_read_as_it_is_shown(rate: NetRate) -> None:
    assert parse_rate(show_rate(rate), "net_rate") == rate


@pytest.mark.parametrize("wish", [{"publish": ["80:80"]}, {"net_rate": "8mbit"}, {"net_delay": "1ms"}])
@pytest.mark.parametrize("shared", ["none", "host"])
def test_what_needs_a_device_of_its_own(wish: dict[str, object], shared: str) -> None:
    with pytest.raises(SpecError, match=f'network is {shared} .*add network="veth"'):
        sandbox.make_spec(["true"], network=shared, **wish)


def test_the_rules_are_there_before_the_device() -> None:
    found = ops(plan(publish=["8080:80"], net_rate="8mbit"))
    assert found.index("reserve") < found.index("nftables") < found.index("veth") < found.index("address")
    assert found.index("tell_namespaces") < found.index("veth") < found.index("go")
    assert found[-2:] == ["delete_link", "delete_table"]
    assert found.count("tbf") == 2


def test_without_a_holder_the_init_is_told_of() -> None:
    found = ops(plan(userns="host"))
    assert "tell_namespaces" not in found
    assert found.index("tell_init") > found.index("clone3")


def test_a_rate_is_a_child_of_a_delay() -> None:
    found = [step for step in plan(net_delay="20ms", net_rate="8mbit:32k").steps if step.op in ("netem", "tbf")]
    assert [(step.op, *step.args) for step in found if step.args[0] == "inside"] == [
        ("netem", "inside", "eth0", 20_000, 10_000),
        ("tbf", "inside", "eth0", "1:1", 8_000_000, 32_768, "50ms")]


def test_rules_are_what_can_be_sent() -> None:
    for step in plan(publish=["8080:80", "127.0.0.1:81:81/udp"]).steps:
        if step.op == "nftables":
            assert isinstance(step.args[2], tuple)
            assert all(nftables.message(command) for command in step.args[2])


@pytest.mark.parametrize("command", ["add rule ip t c reject", "add rule ip6 t c drop", "delete rule ip t c drop",
                                     "add rule ip t c tcp dport 80 accept accept now"])
def test_rules_that_cannot_be_sent(command: str) -> None:
    with pytest.raises(ValueError):
        nftables.message(command)


def test_a_port_of_localhost_is_not_open_to_others() -> None:
    rules = next(step.args[2] for step in plan(publish=["127.0.0.1:81:81"]).steps if step.op == "nftables")
    assert isinstance(rules, tuple)
    assert [rule.split()[4] for rule in rules if "dnat to" in rule] == ["output"]


def test_localhost_is_only_routed_when_it_is_published() -> None:
    def routed(*ports: str) -> bool:
        return any("route_localnet" in str(step.args) for step in plan(publish=ports).steps)

    assert routed("80:80") and routed("127.0.0.1:80:80")
    assert not routed() and not routed("192.0.2.7:80:80")


@given(st.text("abcdef0123456789", min_size=1, max_size=10),
       st.lists(st.tuples(st.integers(0, 65535), st.integers(16, 30)), max_size=8))
def test_addresses_are_free(name: str, taken: list[tuple[int, int]]) -> None:
    networks = tuple(f"10.83.{number >> 8}.{number & 255}/{length}" for number, length in taken)
    ends = network.pair(name, having(taken=networks))
    own = IPv4Interface(f"{ends.outside}/30").network
    assert [str(one) for one in own.hosts()] == [ends.outside, ends.inside]
    assert not any(own.overlaps(IPv4Interface(one).network) for one in networks)


def test_addresses_that_are_all_taken() -> None:
    assert network.pair("box", having(taken=("10.0.0.0/8",))).inside.startswith("172.27.")
    with pytest.raises(Unsupported, match="no addresses are free"):
        network.pair("box", having(taken=("10.0.0.0/8", "172.16.0.0/12")))


def test_what_is_lacking_refuses() -> None:
    found = plan(having(lacks=(("veth", "nobody may"),)))
    assert [(one.realises, one.reason) for one in found.unmet] == [("network", "nobody may")]
    assert "veth" not in ops(found)
    found = plan(having(lacks=(("netem", "No such file or directory"),)), net_delay="1ms", net_rate="1mbit")
    assert [one.realises for one in found.unmet] == ["net_delay"]
    assert "netem" not in ops(found) and "root" in next(step for step in found.steps if step.op == "tbf").args


def test_a_limit_that_could_be_taken_off_is_refused() -> None:
    assert [one.realises for one in plan(net_rate="1mbit", cap_add=["NET_ADMIN"]).unmet] == ["net_rate"]
    assert plan(net_rate="1mbit", cap_add=["NET_RAW"]).unmet == ()


def test_notes_name_what_is_in_the_way() -> None:
    assert tuple(network.notes(spec(), MACHINE)) == ()
    assert any("sysctl -w net.ipv4.conf.ens3.forwarding=1" in note for note in plan(having(forwarding=False)).notes)
    assert any("no default route" in note for note in plan(having(uplink="")).notes)
    assert any("ip filter FORWARD" in note for note in plan(having(filters=("ip filter FORWARD",))).notes)


def test_the_resolvers_file() -> None:
    stub = {"resolv_conf": "/run/systemd/resolve/stub-resolv.conf", "nameservers": ("127.0.0.53",)}
    upstream = "/run/systemd/resolve/resolv.conf"

    def shown(machine: Host) -> tuple[str, str] | None:
        return network.resolver(spec(), machine)

    assert shown(MACHINE) is None
    assert shown(having(**stub, upstream=upstream)) == (upstream, stub["resolv_conf"])
    assert shown(having(nameservers=("127.0.0.1",))) is None
    assert any("names are not resolved" in note for note in plan(having(nameservers=("127.0.0.1",))).notes)
    # The host's /run is not seen inside.
    assert shown(having(resolv_conf="/run/resolv.conf")) == ("/run/resolv.conf", "/run/resolv.conf")


def test_the_record_of_a_host_survives_json() -> None:
    machine = having(lacks=(("netem", "No such file or directory"),))
    assert from_json(to_json(machine)) == machine
