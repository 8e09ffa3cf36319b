"""Sockets of each kind: address family, type, protocol."""

import socket

from calls import show, tried

KINDS = {
    "AF_VSOCK": (40, socket.SOCK_STREAM, 0), "AF_ALG": (38, socket.SOCK_SEQPACKET, 0),
    "AF_PACKET": (17, socket.SOCK_RAW, 0), "AF_KEY": (15, socket.SOCK_RAW, 2),
    "AF_BLUETOOTH": (31, socket.SOCK_RAW, 1), "raw": (socket.AF_INET, socket.SOCK_RAW, 1),
    "AF_UNIX": (socket.AF_UNIX, socket.SOCK_STREAM, 0), "AF_INET": (socket.AF_INET, socket.SOCK_STREAM, 0),
}
show({name: tried(lambda kind=kind: socket.socket(*kind).close()) for name, kind in KINDS.items()})
