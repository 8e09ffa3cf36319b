"""The steps of ``--network veth`` against the real kernel, with a namespace that a sleeping process holds."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, TypeVar
from zlib import crc32

import pytest

from sandbox.box import Sandbox as Box
from sandbox.box import probe_for
from sandbox.errors import StepError
from sandbox.host import Host
from sandbox.isolation import network, uplink
from sandbox.isolation.link import Link
from sandbox.isolation.nftables import Table
from sandbox.isolation.uplink import within
from sandbox.options import make_spec
from sandbox.steps import Phase, Step
from support.bare_launcher import PATIENCE
from support.machine import SLOWER, eventually, free_port, own_address, undisturbed

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network devices: needs root")
Result = TypeVar("Result")
SO_BINDTODEVICE = 25


class Sandbox:
    """A namespace with one process, and the network that is made for it."""

    def __init__(self, *, name: str = "", **wishes: Any) -> None:
        self.name = name or f"test-{os.urandom(4).hex()}"
        self.spec = make_spec(["true"], network="veth", **wishes)
        self.host = Host(kernel="6.1", network=uplink.probe(delay=self.spec.net_delay is not None,
                                                            rate=self.spec.net_rate is not None))
        self.ends = network.pair(self.name, self.host)
        self.holder = subprocess.Popen(["unshare", "--net", "sleep", "120"])
        assert eventually(lambda: os.readlink(f"/proc/{self.holder.pid}/exe").endswith("/sleep"))
        self.namespace = os.open(f"/proc/{self.holder.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.link = Link(lambda: os.open(f"/proc/{self.holder.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        within(self.namespace, lambda route: route.link("set", index=1, state="up"))

    def connect(self) -> None:
        for step in network.connect(self.spec, self.host, name=self.name):
            self.carry_out(step)

    def carry_out(self, step: Step) -> None:
        if step.op == "write":
            path, value = map(str, step.args)
            Path(path).write_text(value)
        else:
            self.link.ops[step.op](step)

    def disconnect(self) -> None:
        for step in network.disconnect(self.host, name=self.name):
            self.carry_out(step)

    def inside(self, work: Callable[[], Result]) -> Result:
        return within(self.namespace, lambda _: work())

    def kill(self) -> None:
        self.holder.kill()
        self.holder.wait()
        with suppress(OSError):
            os.close(self.namespace)


@pytest.fixture
def make() -> Iterator[Callable[..., Sandbox]]:
    made: list[Sandbox] = []

    def build(**wishes: Any) -> Sandbox:
        made.append(Sandbox(**wishes))
        return made[-1]

    before = links(), tables()
    yield build
    for one in made:
        one.kill()
        one.disconnect()
    assert (links(), tables()) == before


def links() -> set[str]:
    return set(os.listdir("/proc/sys/net/ipv4/conf"))


def tables() -> set[str]:
    def read(_: object) -> set[str]:
        from pyroute2.nftables.main import NFTables

        with NFTables(nfgen_family=0) as nft:
            return {one.get_attr("NFTA_TABLE_NAME") for one in nft.get_tables()}

    return within(None, read)


def listener(address: str, port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    made = socket.socket(socket.AF_INET, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.settimeout(PATIENCE)
    try:
        made.bind((address, port))
        if kind == socket.SOCK_STREAM:
            made.listen()
    except OSError:
        made.close()
        raise
    return made


def exchange(client: socket.socket, server: socket.socket) -> bytes:
    with client, server.accept()[0] as accepted:
        accepted.sendall(b"hello")
        return client.recv(5)


def test_each_end_reaches_the_other(make: Callable[..., Sandbox]) -> None:
    box = make()
    box.connect()
    with box.inside(lambda: listener(box.ends.inside, 80)) as server:
        assert exchange(socket.create_connection((box.ends.inside, 80), PATIENCE), server) == b"hello"
    with listener(box.ends.outside, 0) as server:
        client = box.inside(lambda: socket.create_connection(server.getsockname(), PATIENCE))
        assert exchange(client, server) == b"hello"


@pytest.mark.parametrize("published", ["", "127.0.0.1:"])
def test_a_published_port_leads_in_from_localhost(make: Callable[..., Sandbox], published: str) -> None:
    port = free_port()
    box = make(publish=[f"{published}{port}:80"])
    box.connect()
    with box.inside(lambda: listener("", 80)) as server:
        assert exchange(socket.create_connection(("127.0.0.1", port), PATIENCE), server) == b"hello"


def test_a_published_port_leads_in_from_the_machines_own_address(make: Callable[..., Sandbox]) -> None:
    port = free_port()
    box = make(publish=[f"{port}:80"])
    box.connect()
    with box.inside(lambda: listener("", 80)) as server:
        assert exchange(socket.create_connection((own_address(), port), PATIENCE), server) == b"hello"
        # The sandbox itself and another one reach it by the machine's address, too.
        client = box.inside(lambda: socket.create_connection((box.ends.outside, port), PATIENCE))
        assert exchange(client, server) == b"hello"
        other = make()
        other.connect()
        client = other.inside(lambda: socket.create_connection((other.ends.outside, port), PATIENCE))
        assert exchange(client, server) == b"hello"


def test_a_published_udp_port_leads_in(make: Callable[..., Sandbox]) -> None:
    port = free_port(socket.SOCK_DGRAM)
    box = make(publish=[f"{port}:53/udp"])
    box.connect()
    with (box.inside(lambda: listener("", 53, socket.SOCK_DGRAM)) as server,
          socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client):
        client.settimeout(PATIENCE)
        client.sendto(b"question", ("127.0.0.1", port))
        question, where = server.recvfrom(100)
        server.sendto(b"answer", where)
        assert (question, client.recv(100)) == (b"question", b"answer")


def test_a_port_of_another_address_is_not_published(make: Callable[..., Sandbox]) -> None:
    port = free_port()
    box = make(publish=[f"127.0.0.1:{port}:80"])
    box.connect()
    with box.inside(lambda: listener("", 80)), pytest.raises(ConnectionRefusedError):
        socket.create_connection((own_address(), port), PATIENCE)


def test_a_port_that_a_program_has_is_refused(make: Callable[..., Sandbox]) -> None:
    with listener("", 0) as server:
        box = make(publish=[f"{server.getsockname()[1]}:80"])
        with pytest.raises(StepError, match="Address already in use"):
            box.connect()


def test_a_port_is_reserved_as_long_as_it_is_published(make: Callable[..., Sandbox]) -> None:
    port = free_port()
    box = make(publish=[f"{port}:80"])
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


def test_the_hosts_loopback_is_out_of_reach(make: Callable[..., Sandbox]) -> None:
    """Fails without both the rule inside and the one outside; each is tried without the other."""
    box = make(publish=[f"{free_port()}:80"])
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


def test_the_hosts_loopback_is_out_of_reach_when_the_launcher_is_gone(make: Callable[..., Sandbox]) -> None:
    """Its table goes before the last process does. Fails without the rule inside."""
    box = make(publish=[f"{free_port()}:80"])
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


def test_what_is_not_published_is_not_passed_in(make: Callable[..., Sandbox]) -> None:
    """Fails without the rules of the chain ``forward``."""
    box, other = make(), make()
    box.connect()
    other.connect()
    with box.inside(lambda: listener("", 80)), pytest.raises(TimeoutError):
        other.inside(lambda: socket.create_connection((box.ends.inside, 80), 0.5))


def test_a_forged_address_is_dropped(make: Callable[..., Sandbox]) -> None:
    """Fails without the first rule of the chain ``raw``."""
    box = make()
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
def test_the_rate_holds_each_way(make: Callable[..., Sandbox], direction: str) -> None:
    """4 MB at 8 Mbit/s take 4 s."""
    box = make(net_rate="8mbit")
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


def test_a_burst_passes_at_once(make: Callable[..., Sandbox]) -> None:
    box = make(net_rate="1mbit:1m")
    box.connect()
    with listener(box.ends.outside, 0) as server:
        client = box.inside(lambda: socket.create_connection(server.getsockname(), PATIENCE))
        with client, server.accept()[0] as accepted:
            assert transfer(accepted, client, size=900_000) < 2  # 7 s without it


def test_a_delay_holds_each_way(make: Callable[..., Sandbox]) -> None:
    box = make(net_delay="50ms", net_rate="8mbit")
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


def test_nothing_stays_when_it_is_removed(make: Callable[..., Sandbox]) -> None:
    before = links(), tables()
    box = make(net_rate="8mbit", publish=[f"{free_port()}:80"])
    box.connect()
    assert links() - before[0] == {box.ends.device}
    assert tables() - before[1] == {f"sandbox-{box.name}"}
    box.disconnect()
    assert (links(), tables()) == before


LAUNCHER = """
import sys, time
from sandbox.isolation.nftables import Table
table = Table(sys.argv[1], (f"add chain ip {sys.argv[1]} c {{ type nat hook postrouting priority 100; }}",))
print("made", flush=True)
time.sleep(60)
"""


def test_the_kernel_removes_all_of_it_when_all_are_killed(make: Callable[..., Sandbox]) -> None:
    """Nobody removes anything here: the pair goes with the namespace, the table with the process that made it."""
    before = links(), tables()
    name = f"sandbox-test-{os.urandom(4).hex()}"
    with subprocess.Popen([sys.executable, "-c", LAUNCHER, name], stdout=subprocess.PIPE) as launcher:
        assert launcher.stdout is not None
        launcher.stdout.readline()
        assert tables() - before[1] == {name}
        launcher.send_signal(signal.SIGKILL)
        launcher.wait()
    assert tables() == before[1]
    box = make()
    box.connect()
    assert links() - before[0] == {box.ends.device}
    box.kill()
    os.close(box.link._namespace)
    assert eventually(lambda: links() == before[0])
    box.link._namespace = -1


def test_a_table_of_that_name_is_not_touched(make: Callable[..., Sandbox]) -> None:
    box = make()
    table = Table(f"sandbox-{box.name}", ())
    with pytest.raises(StepError, match="cannot make the nftables table"):
        box.connect()
    box.disconnect()
    assert f"sandbox-{box.name}" in tables()
    table.close()


def test_the_hosts_own_namespace_is_refused() -> None:
    link = Link(lambda: os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
    with pytest.raises(StepError, match="the host's own"):
        link.ops["veth"](Step("veth", Phase.ENTER, ("sb-000000", "eth0", 1500, "test")))
    assert "sb-000000" not in links()
    link.ops["delete_link"](Step("delete_link", Phase.CLEANUP, ("sb-000000",)))


def test_two_cannot_have_the_same_addresses(make: Callable[..., Sandbox]) -> None:
    """They were both free when the plans were made."""
    box, other = make(), make()
    other.ends = other.ends._replace(outside=box.ends.outside, inside=box.ends.inside)
    box.connect()
    other.carry_out(Step("veth", Phase.ENTER, (other.ends.device, "eth0", 1500, "test")))
    with pytest.raises(StepError, match="run it again"):
        other.carry_out(Step("address", Phase.ENTER, ("outside", other.ends.device, f"{box.ends.outside}/30")))


def test_a_sandbox_takes_others_then() -> None:
    """Both plans are made for the same place, which the first one takes before the second one starts."""
    by_place: dict[int, str] = {}
    for number in count():
        name = f"test-{os.getpid()}-{number}"
        other = by_place.setdefault(crc32(name.encode()) % 16384, name)
        if other != name:
            break
    specs = [make_spec(["cat"], network="veth", driver="none", name=one) for one in (name, other)]
    host = probe_for(specs[0])
    with Box(specs[0], host=host) as first, Box(specs[1], host=host) as second:
        reader, writer = os.pipe()
        assert addresses(first) == addresses(second)
        running = [box.start(stdin=reader) for box in (first, second)]
        os.close(writer)
        assert [process.wait() for process in running] == [0, 0]
        os.close(reader)
        assert addresses(first) != addresses(second)


def addresses(box: Box) -> list[str]:
    return [str(step.args[2]) for step in box.plan.steps if step.op == "address"]


def test_it_works_within_an_event_loop(make: Callable[..., Sandbox]) -> None:
    import asyncio

    async def connect() -> None:
        box = make()
        box.connect()

    asyncio.run(connect())


def test_it_gets_out_by_the_machines_address(make: Callable[..., Sandbox]) -> None:
    """A machine of its own for this: its uplink forwards, and what comes out has its address."""
    def machine() -> bytes:
        with subprocess.Popen(["unshare", "--net", "sleep", "60"]) as world:
            assert eventually(lambda: os.readlink(f"/proc/{world.pid}/exe").endswith("/sleep"))
            outer = os.open(f"/proc/{world.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                return through(outer)
            finally:
                os.close(outer)
                world.kill()

    def through(outer: int) -> bytes:
        within(None, lambda route: route.link("add", ifname="up", kind="veth",
                                              peer={"ifname": "eth0", "net_ns_fd": outer}))
        for namespace, device, address in ((None, "up", "198.51.100.2"), (outer, "eth0", "198.51.100.1")):
            within(namespace, lambda route, device=device, address=address: (
                route.link("set", index=route.link_lookup(ifname=device)[0], state="up"),
                route.addr("add", index=route.link_lookup(ifname=device)[0], address=address, prefixlen=24)))
        within(None, lambda route: route.route("add", dst="default", gateway="198.51.100.1"))
        box = Sandbox()
        try:
            assert any("forwarding is 0" in note for note in network.notes(box.spec, box.host))
            Path("/proc/sys/net/ipv4/conf/up/forwarding").write_text("1")  # as the note says: the uplink's alone
            assert uplink.probe().forwarding
            box.connect()
            with within(outer, lambda _: listener("198.51.100.1", 80)) as server:
                client = box.inside(lambda: socket.create_connection(("198.51.100.1", 80), PATIENCE))
                with client, server.accept()[0] as accepted:
                    return accepted.getpeername()[0].encode()
        finally:
            box.disconnect()
            box.kill()

    assert within(-1, lambda _: machine()) == b"198.51.100.2"


def test_a_chain_that_drops_what_is_forwarded_is_told() -> None:
    def chains(_: object) -> tuple[str, ...]:
        from pyroute2.nftables.main import NFTables

        with NFTables(nfgen_family=2) as nft:
            nft.table("add", name="filter")
            nft.chain("add", table="filter", name="FORWARD", hook="forward", type="filter", policy=0)
            return tuple(uplink._filters())

    assert within(-1, chains) == ("ip filter FORWARD",)


