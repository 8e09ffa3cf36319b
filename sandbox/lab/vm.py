"""The VM engine: QEMU with an image of ours, in no need of root.

The host's files are shown read-only by virtiofsd. Commands reach the agent over virtio-serial ports, each a Unix
socket in the lab's directory. The disk is thrown away: QEMU writes changes to a file that it has unlinked.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket

from ..errors import SandboxError
from ..stdlib import replace, suppress
from . import inside, recipe
from .image import Progress, ensure, path_of
from .inside.frames import PORT_PREFIX, PORTS
from .process import start, with_loader
from .record import Lab

CPUS = 2
MEMORY = "2G"
KERNEL_OPTIONS = ("console=ttyS0 root=/dev/nvme0n1 rw quiet panic=-1 mitigations=off nokaslr systemd.show_status=0 "
                  "random.trust_cpu=1 no_timer_check tsc=reliable")


class Vm:
    """See :class:`sandbox.lab.engine.Engine`."""

    name = "vm"
    default_image = recipe.DEFAULT
    patience = 180.0

    def problems(self) -> tuple[str, ...]:
        machine = os.uname().machine
        return () if machine == "x86_64" else (f"the images are for x86_64, this is {machine}",)

    def prepare(self, lab: Lab, progress: Progress) -> Lab:
        image = recipe.image(lab.image)
        tools = ensure(recipe.TOOLS, progress)
        ensure(image.recipe, progress)
        from .kvm import works

        accelerator = "kvm" if works(tools, path_of(image.recipe), progress) else "tcg"
        return replace(lab, detail=accelerator)

    def keeper_command(self, lab: Lab, argv: list[str]) -> list[str]:
        return argv

    def boot(self, lab: Lab) -> list[int]:
        tools, disks = path_of(recipe.TOOLS), path_of(recipe.image(lab.image).recipe)
        shared = f"{lab.directory}/host.sock"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(shared)
            listener.listen(1)
            files = start(with_loader(tools, "usr/libexec/virtiofsd", f"--fd={listener.fileno()}", "--shared-dir=/",
                                      "--readonly", "--sandbox=none", "--seccomp=none", "--inode-file-handles=never",
                                      "--rlimit-nofile=0"),
                          log=f"{lab.directory}/virtiofsd.log", pass_fds=(listener.fileno(),))
        return [start(self._qemu(lab, tools, disks), log=f"{lab.directory}/qemu.log",
                      environment={"TMPDIR": "/var/tmp"}), files]

    def _qemu(self, lab: Lab, tools: str, disks: str) -> list[str]:
        directory = lab.directory
        image = recipe.image(lab.image)
        audit = "" if image.audit else "audit=0"
        options = f"{KERNEL_OPTIONS} {audit} {image.options} sandbox.lab={home()}"
        words = [
            "-name", f"sandbox-lab-{lab.name}", "-smp", str(CPUS), "-m", MEMORY,
            "-object", f"memory-backend-memfd,id=ram,size={MEMORY},share=on", "-machine", "memory-backend=ram",
            "-kernel", f"{disks}/vmlinuz", "-append", options, "-serial", f"file:{directory}/console.log",
            "-chardev", f"socket,id=host,path={directory}/host.sock",
            "-device", "vhost-user-fs-pci,chardev=host,tag=host", "-device", f"virtio-serial-pci,max_ports={PORTS + 1}",
        ]
        # The kernel can mount an NVMe disk without modules; with two of them it may call either the first.
        for name, kind in (("disk", "nvme"), ("data", "virtio-blk-pci"), ("swap", "virtio-blk-pci")):
            words += ["-drive", f"file={disks}/{name},format=raw,if=none,id={name},snapshot=on",
                      "-device", f"{kind},drive={name},serial={name}"]
        for number in range(PORTS):
            words += ["-chardev", f"socket,id=port{number},path={directory}/port{number}.sock,server=on,wait=off",
                      "-device", f"virtserialport,chardev=port{number},name={PORT_PREFIX}{number}"]
        return qemu(tools, lab.detail, *words)

    def connect(self, lab: Lab) -> socket.socket:
        for number in random.sample(range(PORTS), PORTS):
            channel = Port(f"{lab.directory}/port{number}")
            if channel.take():
                return channel
            channel.close()
        raise SandboxError(f"{PORTS} commands are running in the lab {lab.name} already, and it has no more channels",
                           hint="wait for one of them")


class Port(socket.socket):
    """The socket of a port; a lock keeps others away from it for as long as it is open.

    :param path: of the socket, without its ending.
    """

    def __init__(self, path: str) -> None:
        super().__init__(socket.AF_UNIX)
        self._path = path
        self._lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self) -> bool:
        """Connect, unless another process has it."""
        with suppress(BlockingIOError):
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                self.connect(f"{self._path}.sock")
            except OSError:
                self.close()
                raise
            return True
        return False

    def close(self) -> None:
        super().close()
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1


def home() -> str:
    """Where the package ``inside`` is, to start the agent from."""
    return os.path.dirname(os.path.dirname(os.path.realpath(inside.__file__)))


def qemu(tools: str, accelerator: str, *words: str) -> list[str]:
    """A command line of QEMU for a machine without anything in it."""
    # With ERMS the kernel clears and copies pages by `rep stosb` and `rep movsb`, which an emulated CPU does byte by
    # byte: memory that is touched takes four times as long.
    accelerate = {"tcg": ("tcg,thread=multi,tb-size=512", "max,la57=off,erms=off,fsrm=off"),
                  "kvm": ("kvm", "host")}[accelerator]
    return with_loader(tools, "usr/bin/qemu-system-x86_64", "-L", f"{tools}/usr/share/qemu", "-L",
                       f"{tools}/usr/share/seabios", "-M", "q35", "-accel", accelerate[0], "-cpu", accelerate[1],
                       "-nodefaults", "-display", "none", "-no-reboot", "-no-user-config", *words)


engine = Vm()
