"""Labs: a real systemd and real cgroup v2 anywhere, in seconds, to learn and to test in.

A **lab** is a machine of its own to look at: systemd is its pid 1, and all that is changed in it is thrown away with
it. An **engine** boots it: ``container`` in namespaces of this machine's kernel, ``vm`` with QEMU. A **keeper** is the
process that holds it, an **agent** the one inside that starts commands, an **image** what a VM's disk is made of.
"""

from __future__ import annotations

from .control import down, output, run, running, up
from .remains import collect

__all__ = ["collect", "down", "output", "run", "running", "up"]
