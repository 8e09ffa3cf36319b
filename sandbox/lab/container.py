"""The container engine: a systemd of its own in namespaces of this machine's kernel, at native speed.

Its root is this machine's own with a throw-away layer on top; services that are enabled here are not started there.
On a machine without systemd it is a Debian tree from the cache. Its cgroups are below one of ours in each tree.
"""

from __future__ import annotations

import os
import socket
import sys

from ..errors import SandboxError
from ..host import systemd_runs
from ..stdlib import replace, suppress
from . import kernel, recipe
from .groups import enter, make, way_back
from .image import Progress, ensure, path_of
from .process import die_with_parent
from .record import Lab
from .remains import PREFIX
from .root import assemble

HOST_ROOT = "host"
"""The image's name when it is this machine's own root."""
NAMESPACES = (kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC
              | kernel.CLONE_NEWNET | kernel.CLONE_NEWCGROUP)
INITS = ("/lib/systemd/systemd", "/usr/lib/systemd/systemd")
NEEDED = (INITS, ("/usr/bin/dbus-daemon", "/usr/bin/dbus-broker"))


class Container:
    """See :class:`sandbox.lab.engine.Engine`."""

    name = "container"
    default_image = HOST_ROOT
    patience = 60.0

    def problems(self) -> tuple[str, ...]:
        found = []
        if os.geteuid() != 0:
            found.append("it needs root")
        if os.uname().machine not in kernel.PIVOT_ROOT:
            found.append(f"it knows no {os.uname().machine}")
        with open("/proc/filesystems") as file:
            if "\toverlay\n" not in file.read() and not _load("overlay"):
                found.append("this kernel has no overlayfs")
        return tuple(found)

    def prepare(self, lab: Lab, progress: Progress) -> Lab:
        if lab.image != HOST_ROOT:
            raise SandboxError(f"--image {lab.image}: the container lab runs this machine's own root",
                               hint="leave --image out, or add --engine vm")
        if _systemd_is_installed():
            return lab
        ensure(recipe.TREE, progress)
        return replace(lab, image=recipe.TREE.name)

    def keeper_command(self, lab: Lab, argv: list[str]) -> list[str]:
        if not systemd_runs():
            return argv
        # A systemd that is here already must hand over a subtree: elsewhere it would take things back.
        return ["systemd-run", "--scope", "--quiet", "--collect", f"--unit={PREFIX}{lab.name}.scope",
                "--property=Delegate=yes", "--property=TasksMax=infinity", "--", *argv]

    def boot(self, lab: Lab) -> list[int]:
        lab = replace(lab, cgroups=make(lab.name))
        lab.save()
        os.makedirs(f"{lab.directory}/inside", exist_ok=True)
        reading, writing = os.pipe()
        keeper = os.getpid()
        child = os.fork()
        if child == 0:
            _become(lab, writing, keeper)
        os.close(writing)
        with open(reading, errors="replace") as problems:
            problem = problems.read()
        if problem:
            os.waitpid(child, 0)
            raise SandboxError(problem)
        return [child]

    def connect(self, lab: Lab) -> socket.socket:
        channel = socket.socket(socket.AF_UNIX)
        try:
            channel.connect(f"{lab.directory}/inside/agent.sock")
        except OSError:
            channel.close()
            raise
        return channel


def _become(lab: Lab, problems: int, keeper: int) -> None:
    """In the keeper's child: make the namespaces; their first process becomes systemd. Does not return.

    What goes wrong is written to ``problems``, which systemd's exec closes.
    """
    try:
        die_with_parent(keeper)
        back = way_back()
        enter(lab.cgroups)
        kernel.unshare(NAMESPACES)
        reading, writing = os.pipe()
        init = os.fork()
        if init == 0:
            os.close(writing)
            die_with_parent(0)  # getppid(2) is 0 for a parent outside the PID namespace, also when it has ended
            if not os.read(reading, 1):  # the parent has ended before it wrote its byte
                os._exit(1)
            _exec_systemd(lab)
        if back is not None:  # on v2, a cgroup with a process in it could not pass its controllers on
            os.write(back, b"0")
        os.write(writing, b"+")
        os.close(problems)
        os.waitpid(init, 0)
        os._exit(0)
    except BaseException as error:
        os.write(problems, str(error).encode())
    os._exit(1)


def _exec_systemd(lab: Lab) -> None:
    on_host_root = lab.image == HOST_ROOT
    python = sys.executable if on_host_root else "/usr/bin/python3"
    assemble(lab.directory, lower="/" if on_host_root else path_of(recipe.TREE), python=python)
    socket.sethostname("lab")
    for name in kernel.CAPABILITIES:
        kernel.drop_capability(name)
    null, log = os.open("/dev/null", os.O_RDWR), os.open("/run/lab-agent/console.log", os.O_WRONLY | os.O_CREAT)
    for number, fd in ((0, null), (1, log), (2, log)):
        os.dup2(fd, number)
    os.setsid()
    init = next(path for path in INITS if os.path.exists(path))
    os.execve(init, [init, "--unit=sandbox-lab.target", "--show-status=0", "--log-level=warning"],
              {"container": "sandbox-lab", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
               # systemd 256 and 257 refuse cgroup v1 without it; others do not know it.
               "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE": "1"})


def _systemd_is_installed() -> bool:
    return all(any(os.path.exists(path) for path in paths) for paths in NEEDED)


def _load(module: str) -> bool:
    import subprocess

    with suppress(OSError):
        return subprocess.run(["modprobe", module], capture_output=True, check=False).returncode == 0
    return False


engine = Container()
