"""The rate and the delay of ``--network veth``, measured over real sockets."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable

import pytest

from support.bare_launcher import PATIENCE
from support.machine import SLOWER, undisturbed
from support.veth import Sandbox, listener

# Looks at all of the machine: another test would be seen.
pytestmark = [pytest.mark.alone,
              pytest.mark.skipif(os.geteuid() != 0, reason="makes network devices: needs root")]


def transfer(source: socket.socket, sink: socket.socket, size: int) -> float:
    """Seconds that ``size`` bytes take."""
    def send() -> None:
        source.sendall(bytes(size))
        source.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    start = time.monotonic()
    sender.start()
    while sink.recv(1 << 16):
        pass
    sender.join()
    return time.monotonic() - start


@pytest.mark.parametrize("direction", ["in", "out"])
def test_the_rate_holds_each_way(make_veth: Callable[..., Sandbox], direction: str) -> None:
    """4 MB at 8 Mbit/s take 4 s."""
    box = make_veth(net_rate="8mbit")
    box.connect()

    def run() -> float:
        with listener(box.ends.outside, 0) as server:
            client = box.inside(lambda: socket.create_connection(server.getsockname(), PATIENCE))
            with client, server.accept()[0] as accepted:
                accepted.settimeout(PATIENCE)
                client.settimeout(PATIENCE)
                return transfer(*(accepted, client) if direction == "in" else (client, accepted), size=4_000_000)

    seconds = undisturbed(run, lambda seconds: seconds > 4.6)
    assert 3.4 <= seconds <= 4.6
    figure = "received" if direction == "in" else "sent"
    counters = box.link.counters()
    assert counters[f"net_{figure}_overlimits"][0] > 20
    assert counters.keys() == {f"net_{way}_{what}" for way in ("received", "sent")
                               for what in ("dropped", "overlimits")}


def test_a_burst_passes_at_once(make_veth: Callable[..., Sandbox]) -> None:
    box = make_veth(net_rate="1mbit:1m")
    box.connect()
    with listener(box.ends.outside, 0) as server:
        client = box.inside(lambda: socket.create_connection(server.getsockname(), PATIENCE))
        with client, server.accept()[0] as accepted:
            assert transfer(accepted, client, size=900_000) < 2  # 7 s without it


def test_a_delay_holds_each_way(make_veth: Callable[..., Sandbox]) -> None:
    box = make_veth(net_delay="50ms", net_rate="8mbit")
    if dict(box.host.network.lacks).get("netem"):
        pytest.skip("this kernel has no netem")
    box.connect()
    with listener(box.ends.outside, 0) as server:
        client = box.inside(lambda: socket.create_connection(server.getsockname(), PATIENCE))
        with client, server.accept()[0] as accepted:
            start = time.monotonic()
            client.send(b"a")
            accepted.recv(1)
            accepted.send(b"b")
            client.recv(1)
            assert 0.1 <= time.monotonic() - start < 0.1 + 0.2 * SLOWER
            assert transfer(accepted, client, size=2_000_000) > 1.7
    assert box.link.counters()["net_received_overlimits"][0] > 0
