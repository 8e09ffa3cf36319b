"""``--network veth`` as its users see it: it reaches out, ports lead in, the rate holds, and nothing stays."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.machine import STATE, alive, eventually, free_port, named, own_address
from support.sandbox_run import Program, Result, Running, python
from support.warm_program import warm_with_network

sandbox = warm_with_network
pytestmark = [pytest.mark.matter("isolation"), pytest.mark.drivers("none"), pytest.mark.requires("root")]

SERVE = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.encode())
server = http.server.HTTPServer(("", 80), Handler)
print("up", flush=True)
server.serve_forever()
"""
GATEWAY = """
import socket, struct
for line in list(open("/proc/net/route"))[1:]:
    fields = line.split()
    if fields[1] == "00000000":
        gateway = socket.inet_ntoa(struct.pack("=I", int(fields[2], 16)))
"""
RECEIVE = GATEWAY + """
connection = socket.create_connection((gateway, {port}))
size = 0
while data := connection.recv(1 << 16):
    size += len(data)
print(size)
"""
SEND = GATEWAY + """
connection = socket.create_connection((gateway, {port}))
connection.sendall(bytes({size}))
connection.shutdown(socket.SHUT_WR)
connection.recv(1)
"""


NETLINK_NETFILTER, NLM_F_REQUEST, NLM_F_DUMP, NLMSG_DONE = 12, 0x1, 0x300, 3
NFT_MSG_NEWTABLE, NFT_MSG_GETTABLE = 10 << 8, 10 << 8 | 1


def links() -> set[str]:
    return set(os.listdir("/proc/sys/net/ipv4/conf"))


def tables() -> set[str]:
    """Names of the tables of nf_tables. A dump over netlink, NFT_MSG_GETTABLE of <linux/netfilter/nf_tables.h>:
    a process that asks with nft(8) or pyroute2 takes half a second to load them."""
    found: set[str] = set()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
        netlink.sendall(struct.pack("=IHHII4x", 20, NFT_MSG_GETTABLE, NLM_F_REQUEST | NLM_F_DUMP, 1, 0))
        while True:
            data = memoryview(netlink.recv(1 << 16))
            while data:
                length, kind = struct.unpack_from("=IH", data)
                if kind == NLMSG_DONE:
                    return found
                assert kind == NFT_MSG_NEWTABLE, f"netlink message {kind}"
                # The name, NFTA_TABLE_NAME, is the first attribute: its length, its type, and a string that ends in 0.
                size, attribute = struct.unpack_from("=HH", data, 20)
                assert attribute == 1
                found.add(bytes(data[24:20 + size - 1]).decode())
                data = data[length:]


def settings() -> dict[str, str]:
    """The host's own settings of its network, without those of devices that come and go."""
    found = {}
    for path in Path("/proc/sys/net/ipv4/conf").glob("*/*"):
        if not path.parent.name.startswith("sb-"):
            found[str(path)] = path.read_text()
    return found | {"ip_forward": Path("/proc/sys/net/ipv4/ip_forward").read_text()}


def made(before: tuple[set[str], set[str]]) -> tuple[set[str], set[str]]:
    return links() - before[0], tables() - before[1]


@pytest.fixture(autouse=True)
def nothing_of_the_network_is_left() -> Iterator[None]:
    before, kept, names = (links(), tables()), settings(), set(netns())
    yield
    left = set().union(*made(before))

    def are_gone() -> bool:
        left.intersection_update(set().union(*made(before)))
        return not left

    assert eventually(are_gone), left
    assert settings() == kept
    assert set(netns()) == names


def netns() -> list[str]:
    return os.listdir("/run/netns") if os.path.isdir("/run/netns") else []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "own"])
def test_a_published_port_serves(sandbox: Program, host: str) -> None:
    port = free_port()
    address = own_address() if host == "own" else host
    with sandbox.start("--network", "veth", "-p", f"{port}:80", *python(SERVE)) as running:
        assert running.read_line() == b"up\n"
        with urllib.request.urlopen(f"http://{address}:{port}/found", timeout=60) as answer:
            assert answer.read() == b"/found"
        running.process.send_signal(signal.SIGTERM)
        done = running.finish()
    sandbox.check(done.report)
    assert done.usage["net_sent_bytes"] > 100
    assert done.usage["net_received_packets"] > 3


def test_a_port_that_is_taken_is_refused(sandbox: Program) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        port = taken.getsockname()[1]
        done = sandbox("--network", "veth", "-p", f"{port}:80", "--", "true")
    assert done.code == 125
    assert f"cannot publish 0.0.0.0:{port}/tcp: Address already in use" in done.err


def transfer(sandbox: Program, way: str, size: int) -> tuple[Result, float]:
    """What a run at 8 Mbit/s gave, and the seconds that ``size`` bytes took between it and the host."""
    seconds: list[float] = []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            start = time.monotonic()
            if way == "in":
                connection.sendall(bytes(size))
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    pass  # the end has come through
            else:
                while connection.recv(1 << 16):
                    pass
            seconds.append(time.monotonic() - start)

    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        code = RECEIVE if way == "in" else SEND
        done = sandbox("--network", "veth", "--net-rate", "8mbit",
                       *python(code.format(port=listener.getsockname()[1], size=size)))
        thread.join()
    assert done.code == 0, done.err
    return done, seconds[0]


@pytest.mark.alone
@pytest.mark.parametrize("way", ["in", "out"])
@pytest.mark.once
def test_a_megabyte_at_8_megabits_takes_a_second(sandbox: Program, way: str) -> None:
    """But for the burst, a tenth of it, that passes at once. On a busy machine it takes more, never less."""
    size = 1_000_000
    done, seconds = transfer(sandbox, way, size)
    assert seconds >= 0.85
    figure = "received" if way == "in" else "sent"
    assert size < done.usage[f"net_{figure}_bytes"] < 1.1 * size
    assert done.usage[f"net_{figure}_overlimits"] > 5
    assert done.limit("--net-rate")["enforced"]


BUCKETS = """
from pyroute2 import IPRoute
with IPRoute() as route:
    for one in route.get_qdiscs():
        if one.get_attr("TCA_KIND") == "tbf":
            print(one.get_attr("TCA_OPTIONS").get_attr("TCA_TBF_PARMS")["rate"])
"""


@pytest.mark.once
def test_the_kernel_has_the_rate_each_way(sandbox: Program) -> None:
    """In bytes per second: neither more, which takes a measurement to see, nor less."""
    with sandbox.start("--network", "veth", "--net-rate", "8mbit", "--", "sh", "-c", "echo up; read line") as running:
        assert running.read_line() == b"up\n"
        [command] = named(running.tree(), "sh")
        for way in ((), ("nsenter", f"--net=/proc/{command}/ns/net")):
            asked = subprocess.run([*way, sys.executable, "-c", BUCKETS], capture_output=True, text=True, check=True)
            assert asked.stdout.split() == ["1000000"]
        assert running.finish(b"\n").code == 0


@pytest.mark.once
def test_a_delay_holds_packets_back(sandbox: Program) -> None:
    """Each way: a round trip takes twice as long."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()
        done = sandbox("--network", "veth", "--net-delay", "50ms", *python(GATEWAY + f"""
import time
start = time.monotonic()
socket.create_connection((gateway, {listener.getsockname()[1]}))
print(time.monotonic() - start)
"""))
    if "no netem qdisc" in done.err:
        assert done.code == 125
        pytest.skip("this kernel has no netem")
    assert float(done.out) >= 0.1, done.err


def test_the_loopback_device_of_the_host_is_out_of_reach(sandbox: Program) -> None:
    with socket.socket() as service:
        service.bind(("127.0.0.1", 0))
        service.listen()
        code = f"""
import socket
for bound in (False, True):
    with socket.socket() as one:
        one.settimeout(0.5)
        if bound:
            one.setsockopt(socket.SOL_SOCKET, 25, b"eth0")
        try:
            one.connect(("127.0.0.1", {service.getsockname()[1]}))
            print("reached")
        except OSError as error:
            print(type(error).__name__)
"""
        done = sandbox("--network", "veth", "-p", f"{free_port()}:80", *python(code))
    assert done.out.split()[0] == b"ConnectionRefusedError"
    assert done.out.split()[1] in (b"TimeoutError", b"PermissionError")


def test_it_is_the_sandboxs_own_device(sandbox: Program) -> None:
    done = sandbox("--network", "veth", *python("""
import os
print(*sorted(os.listdir("/sys/class/net")))
print(open("/proc/sys/net/ipv4/ip_unprivileged_port_start").read().strip())
"""))
    assert done.out == b"eth0 lo\n0\n"


@pytest.mark.alone
@pytest.mark.parametrize("killed", ["runner", "both"])
def test_nothing_stays_when_the_runner_is_killed(sandbox: Program, killed: str) -> None:
    before = links(), tables()
    with sandbox.start("--network", "veth", "--net-rate", "8mbit", "-p", f"{free_port()}:80",
                       "--", "sh", "-c", "echo up; exec sleep 1000") as running:
        assert running.read_line() == b"up\n"
        assert [len(one) for one in made(before)] == [1, 1]
        below = running.tree()
        if killed == "both":
            kill_both(running)
        else:
            running.process.kill()
        running.process.wait()
    assert eventually(lambda: not any(map(alive, below)))
    assert eventually(lambda: made(before) == (set(), set())), made(before)
    sandbox.other("gc")
    (STATE / running.name).unlink(missing_ok=True)  # gc leaves one without content alone for a while


def kill_both(running: Running) -> None:
    guard = running.guard()
    os.kill(running.pid, signal.SIGSTOP)
    os.kill(guard, signal.SIGKILL)
    os.kill(running.pid, signal.SIGKILL)


@pytest.mark.once
def test_many_at_once_have_addresses_of_their_own(sandbox: Program) -> None:
    with ExitStack() as stack:
        running = [stack.enter_context(sandbox.start("--network", "veth", *python(GATEWAY + """
import sys
print(gateway, flush=True)
sys.stdin.read()
"""))) for _ in range(8)]
        gateways = [one.read_line() for one in running]
        assert b"" not in gateways
        assert len(set(gateways)) == 8
        assert [one.finish(b"").code for one in running] == [0] * 8


@pytest.mark.once
def test_what_lacks_a_device_of_its_own_is_said(sandbox: Program) -> None:
    done = sandbox.other("run", "--net-rate", "8mbit", "--", "true")
    assert (done.code, "add --network veth" in done.err) == (2, True)


@pytest.mark.once
def test_it_runs_from_an_event_loop(sandbox: Program) -> None:
    code = """
import asyncio, sandbox
async def main():
    report = await sandbox.run_async(["true"], network="veth", driver="none")
    with sandbox.Sandbox(sandbox.make_spec(["true"], network="veth", driver="none")) as box:
        code = box.start().wait()
    print(report.exit_code, code)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=60)
    assert done.stdout == b"0 0\n", done.stderr
