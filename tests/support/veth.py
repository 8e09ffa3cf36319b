"""A network namespace with a device of its own, made by the steps of ``--network veth`` without a sandbox around it."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from sandbox.host import Host
from sandbox.isolation import network, uplink
from sandbox.isolation.link import Link
from sandbox.isolation.uplink import within
from sandbox.options import make_spec
from sandbox.steps import Step
from support.bare_launcher import PATIENCE
from support.machine import eventually

Result = TypeVar("Result")


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
