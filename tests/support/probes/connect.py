"""Connects to each address it is given: [family, type, address]; a text is a name for the resolver."""

import os
import socket

from calls import given, show, tried


def connect(family, kind, address):
    with socket.socket(getattr(socket, family), getattr(socket, kind)) as one:
        one.settimeout(3)
        return tried(one.connect, tuple(address) if isinstance(address, list) else address)


def resolve(name):
    try:
        socket.getaddrinfo(name, 80)
    except OSError as error:
        return type(error).__name__
    return "ok"


def own():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return connect("AF_INET", "SOCK_STREAM", list(server.getsockname()))


show({"found": [resolve(one) if isinstance(one, str) else connect(*one) for one in given()],
      "interfaces": sorted(os.listdir("/sys/class/net")) if os.path.isdir("/sys/class/net") else None,
      "indexes": [name for _, name in socket.if_nameindex()], "own": own()})
