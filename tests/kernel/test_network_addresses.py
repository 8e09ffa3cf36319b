"""Whose devices, tables and addresses ``--network veth`` takes, and that none of them stay."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from zlib import crc32

import pytest

from sandbox.box import Sandbox as Box
from sandbox.box import probe_for
from sandbox.errors import StepError
from sandbox.isolation import network, uplink
from sandbox.isolation.link import Link
from sandbox.isolation.nftables import Table
from sandbox.isolation.uplink import within
from sandbox.options import make_spec
from sandbox.steps import Phase, Step
from support.bare_launcher import PATIENCE
from support.machine import eventually, free_port
from support.veth import Sandbox, links, listener, tables

# Looks at all of the machine: another test would be seen.
pytestmark = [pytest.mark.alone,
              pytest.mark.skipif(os.geteuid() != 0, reason="makes network devices: needs root")]


def test_nothing_stays_when_it_is_removed(make_veth: Callable[..., Sandbox]) -> None:
    before = links(), tables()
    box = make_veth(net_rate="8mbit", publish=[f"{free_port()}:80"])
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


def test_the_kernel_removes_all_of_it_when_all_are_killed(make_veth: Callable[..., Sandbox]) -> None:
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
    box = make_veth()
    box.connect()
    assert links() - before[0] == {box.ends.device}
    box.kill()
    os.close(box.link._namespace)
    assert eventually(lambda: links() == before[0])
    box.link._namespace = -1


def test_a_table_of_that_name_is_not_touched(make_veth: Callable[..., Sandbox]) -> None:
    box = make_veth()
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


def test_two_cannot_have_the_same_addresses(make_veth: Callable[..., Sandbox]) -> None:
    """They were both free when the plans were made."""
    box, other = make_veth(), make_veth()
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


def test_it_works_within_an_event_loop(make_veth: Callable[..., Sandbox]) -> None:
    import asyncio

    async def connect() -> None:
        box = make_veth()
        box.connect()

    asyncio.run(connect())


def test_it_gets_out_by_the_machines_address(make_veth: Callable[..., Sandbox]) -> None:
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
