"""Who reaches whom by ``--network veth``, with the real kernel, from a namespace that a sleeping process holds."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress

import pytest

from sandbox.errors import StepError
from sandbox.isolation import network
from sandbox.isolation.uplink import within
from support.bare_launcher import PATIENCE
from support.machine import free_port, own_address
from support.veth import Sandbox, exchange, listener

# Looks at all of the machine: another test would be seen.
pytestmark = [pytest.mark.alone,
              pytest.mark.skipif(os.geteuid() != 0, reason="makes network devices: needs root")]
SO_BINDTODEVICE = 25


def test_each_end_reaches_the_other(make_veth: Callable[..., Sandbox]) -> None:
    box = make_veth()
    box.connect()
    with box.inside(lambda: listener(box.ends.inside, 80)) as server:
        assert exchange(socket.create_connection((box.ends.inside, 80), PATIENCE), server) == b"hello"
    with listener(box.ends.outside, 0) as server:
        client = box.inside(lambda: socket.create_connection(server.getsockname(), PATIENCE))
        assert exchange(client, server) == b"hello"


@pytest.mark.parametrize("published", ["", "127.0.0.1:"])
def test_a_published_port_leads_in_from_localhost(make_veth: Callable[..., Sandbox], published: str) -> None:
    port = free_port()
    box = make_veth(publish=[f"{published}{port}:80"])
    box.connect()
    with box.inside(lambda: listener("", 80)) as server:
        assert exchange(socket.create_connection(("127.0.0.1", port), PATIENCE), server) == b"hello"


def test_a_published_port_leads_in_from_the_machines_own_address(make_veth: Callable[..., Sandbox]) -> None:
    port = free_port()
    box = make_veth(publish=[f"{port}:80"])
    box.connect()
    with box.inside(lambda: listener("", 80)) as server:
        assert exchange(socket.create_connection((own_address(), port), PATIENCE), server) == b"hello"
        # The sandbox itself and another one reach it by the machine's address, too.
        client = box.inside(lambda: socket.create_connection((box.ends.outside, port), PATIENCE))
        assert exchange(client, server) == b"hello"
        other = make_veth()
        other.connect()
        client = other.inside(lambda: socket.create_connection((other.ends.outside, port), PATIENCE))
        assert exchange(client, server) == b"hello"


def test_a_published_udp_port_leads_in(make_veth: Callable[..., Sandbox]) -> None:
    port = free_port(socket.SOCK_DGRAM)
    box = make_veth(publish=[f"{port}:53/udp"])
    box.connect()
    with (box.inside(lambda: listener("", 53, socket.SOCK_DGRAM)) as server,
          socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client):
        client.settimeout(PATIENCE)
        client.sendto(b"question", ("127.0.0.1", port))
        question, where = server.recvfrom(100)
        server.sendto(b"answer", where)
        assert (question, client.recv(100)) == (b"question", b"answer")


def test_a_port_of_another_address_is_not_published(make_veth: Callable[..., Sandbox]) -> None:
    port = free_port()
    box = make_veth(publish=[f"127.0.0.1:{port}:80"])
    box.connect()
    with box.inside(lambda: listener("", 80)), pytest.raises(ConnectionRefusedError):
        socket.create_connection((own_address(), port), PATIENCE)


def test_a_port_that_a_program_has_is_refused(make_veth: Callable[..., Sandbox]) -> None:
    with listener("", 0) as server:
        box = make_veth(publish=[f"{server.getsockname()[1]}:80"])
        with pytest.raises(StepError, match="Address already in use"):
            box.connect()


def test_a_port_is_reserved_as_long_as_it_is_published(make_veth: Callable[..., Sandbox]) -> None:
    port = free_port()
    box = make_veth(publish=[f"{port}:80"])
    box.connect()
    with pytest.raises(OSError, match="Address already in use"):
        listener("", port)
    box.disconnect()
    listener("", port).close()


def send_to_loopback(box: Sandbox, port: int) -> None:
    """What a program without any privilege can do: a socket bound to eth0, and 127.0.0.1 as its destination."""
    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, b"eth0")
            one.sendto(b"escaped", ("127.0.0.1", port))

    box.inside(send)


def test_the_hosts_loopback_is_out_of_reach(make_veth: Callable[..., Sandbox]) -> None:
    """Fails without both the rule inside and the one outside; each is tried without the other."""
    box = make_veth(publish=[f"{free_port()}:80"])
    box.connect()
    with listener("127.0.0.1", 0, socket.SOCK_DGRAM) as service:
        port = service.getsockname()[1]
        service.settimeout(0.3)
        with suppress(PermissionError):  # so nftables tells of a drop on the way out
            send_to_loopback(box, port)
        with pytest.raises(TimeoutError):
            service.recv(10)
        # As with CAP_NET_ADMIN it might:
        box.inside(lambda: delete_table(f"sandbox-{box.name}"))
        send_to_loopback(box, port)
        with pytest.raises(TimeoutError):
            service.recv(10)


def test_the_hosts_loopback_is_out_of_reach_when_the_launcher_is_gone(make_veth: Callable[..., Sandbox]) -> None:
    """Its table goes before the last process does. Fails without the rule inside."""
    box = make_veth(publish=[f"{free_port()}:80"])
    box.connect()
    for step in network.disconnect(box.host, name=box.name):
        if step.op == "delete_table":
            box.carry_out(step)
    with listener("127.0.0.1", 0, socket.SOCK_DGRAM) as service:
        service.settimeout(0.3)
        with suppress(PermissionError):
            send_to_loopback(box, service.getsockname()[1])
        with pytest.raises(TimeoutError):
            service.recv(10)


def delete_table(name: str) -> None:
    from pyroute2.nftables.main import NFTables

    with NFTables(nfgen_family=2) as nft:
        nft.table("del", name=name)


def test_what_is_not_published_is_not_passed_in(make_veth: Callable[..., Sandbox]) -> None:
    """Fails without the rules of the chain ``forward``."""
    box, other = make_veth(), make_veth()
    box.connect()
    other.connect()
    with box.inside(lambda: listener("", 80)), pytest.raises(TimeoutError):
        other.inside(lambda: socket.create_connection((box.ends.inside, 80), 0.5))


def test_a_forged_address_is_dropped(make_veth: Callable[..., Sandbox]) -> None:
    """Fails without the first rule of the chain ``raw``."""
    box = make_veth()
    box.connect()
    within(box.namespace, lambda route: route.addr("add", index=route.link_lookup(ifname="eth0")[0],
                                                   address="203.0.113.7", prefixlen=32))

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.bind(("203.0.113.7", 0))
            one.sendto(b"forged", service.getsockname())

    with listener(box.ends.outside, 0, socket.SOCK_DGRAM) as service, pytest.raises(TimeoutError):
        service.settimeout(0.3)
        box.inside(send)
        service.recv(10)
