"""Looks for a key of the host by its description, in every keyring that a process has."""

import sys

from calls import call, show

RINGS = {"thread": -1, "process": -2, "session": -3, "user": -4, "user session": -5}
show({name: call("keyctl", 10, ring, b"user", sys.argv[1].encode(), 0)[1] for name, ring in RINGS.items()})
