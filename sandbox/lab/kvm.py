"""Whether KVM really runs a kernel here. A /dev/kvm that opens does not mean that: nested ones may hang or crash."""

from __future__ import annotations

import os
import subprocess

from .image import Progress

DEVICE = "/dev/kvm"
DEADLINE = 10.0
"""Seconds for a kernel to say its first word; a working one needs less than one."""


def works(tools: str, disks: str, progress: Progress) -> bool:
    """Tried once per boot of this machine, then remembered.

    :param tools: directory of the image with QEMU in it.
    :param disks: directory of an image with a kernel in it.
    """
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return False
    with open("/proc/sys/kernel/random/boot_id") as file:
        verdict = f"{tools}/kvm-{file.read().strip()}"
    if os.path.exists(f"{verdict}-yes"):
        return True
    if os.path.exists(f"{verdict}-no"):
        return False
    progress("trying KVM, once")
    answer = _try(tools, disks)
    with open(f"{verdict}-{'yes' if answer else 'no'}", "w"):
        return answer


def _try(tools: str, disks: str) -> bool:
    from .vm import qemu

    argv = qemu(tools, "kvm", "-m", "256M", "-kernel", f"{disks}/vmlinuz", "-serial", "stdio",
                "-append", "console=ttyS0 earlyprintk=ttyS0 panic=-1")
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              timeout=DEADLINE, check=False)
        output = done.stdout
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
    return b"Linux version" in output
