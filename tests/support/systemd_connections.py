"""Those who fill the ways to systemd: they log in, and then neither ask nor read anything."""

from __future__ import annotations

import os
import resource
import socket
from contextlib import ExitStack

from jeepney import DBusAddress, new_method_call  # type: ignore[import-untyped]

from support.machine import eventually
from support.systemctl import systemctl

RUN = "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR", "/nonexistent")
OWN_SOCKET = f"{RUN}/systemd/private"
"""systemd's own: it sends every signal to everybody there."""
MESSAGE_BUS = "/run/dbus/system_bus_socket" if os.geteuid() == 0 else f"{RUN}/bus"
PER_USER = 256
"""How many connections of one user the system's message bus takes (``max_connections_per_user``)."""
ALTOGETHER = 4096
"""How many systemd's own socket takes (``CONNECTIONS_MAX`` in ``src/core/dbus.c``)."""
HELLO = new_method_call(DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus"), "Hello")


class Crowd:
    """Many idle connections. Leaving the ``with`` block closes them, and then waits until systemd answers systemctl.

    systemd takes some milliseconds to drop each closed connection, and accepts no new one until it has dropped them."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Crowd:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        assert eventually(lambda: systemctl("show", "--property=Version").returncode == 0, seconds=300)

    def join(self, path: str, number: int) -> int:
        """Connect ``number`` times, or until that is refused; how often it was not."""
        return next((count for count in range(number) if not self._connect(path)), number)

    def _connect(self, path: str) -> bool:
        one = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        one.settimeout(60)
        try:
            one.connect(path)
            user = str(os.geteuid()).encode().hex().encode()
            one.sendall(b"\0AUTH EXTERNAL %b\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n" % user)
            answer = b""
            while answer.count(b"\r\n") < 2:
                answer += (data := one.recv(4096))
                if not data:
                    return False
            if path == MESSAGE_BUS:
                one.sendall(HELLO.serialise(1))
                return b"LimitsExceeded" not in one.recv(4096)
            return True
        except ConnectionError:
            return False
