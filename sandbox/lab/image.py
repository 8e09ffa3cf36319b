"""Images in the cache: Debian systems made from packages, each in a directory named after its recipe's hash.

Nothing is downloaded but Debian packages, from the mirror this machine's own apt uses (and its pip for the few Python
packages Debian lacks). A VM's disk is an ext4 file beside its kernel; the tools are an unpacked tree.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable

from ..errors import SandboxError, Unsupported
from ..stdlib import dataclass, partial, suppress
from .process import die_with_parent, with_loader
from .recipe import DISABLED, DISABLED_LABELS, IMAGES, MASKED, TOOLS, TREE, USER, Recipe
from .record import cache_directory, exclusive

DISK_BYTES = 4 << 30
"""Size of the root file system; the file is sparse."""
SWAP_BYTES = 512 << 20
DATA_BYTES = 1 << 30
"""Size of an empty second disk, whose I/O can be limited without slowing down the root file system."""

SERVICE = """\
[Unit]
Description=Runs the commands of sandbox lab
DefaultDependencies=no
RequiresMountsFor=/host
After=dbus.socket systemd-udev-trigger.service
Conflicts=shutdown.target
FailureAction=poweroff-immediate

[Service]
ExecStart=/usr/local/sbin/sandbox-lab
Delegate=yes
KillMode=process
OOMPolicy=continue
TasksMax=infinity
LimitNOFILE=524288
StandardOutput=journal+console

[Install]
WantedBy=multi-user.target
"""
START = """\
#!/bin/sh
set -eu
modprobe -q virtio_console || :
cd "/host$(sed 's/.*sandbox.lab=\\([^ ]*\\).*/\\1/' /proc/cmdline)"
exec python3 -S -B -m inside
"""
HOST_MOUNT = """\
[Unit]
DefaultDependencies=no

[Mount]
What=host
Where=/host
Type=virtiofs
Options=ro
"""
FSTAB = """\
/dev/nvme0n1 / ext4 rw,noatime 0 1
/dev/disk/by-id/virtio-swap none swap noauto 0 0
"""
ADD_USER = f'touch "$1/etc/subuid" "$1/etc/subgid" && chroot "$1" useradd --create-home --shell /bin/bash {USER}'
"""How mmdebstrap adds the user; the two files must be there for useradd to add ranges to them."""
UNCONFINED = """\
[Service]
SELinuxContext=unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023
"""
"""For the lab's service: without it SELinux would confine the commands as those of some service."""
PROGRAM = """\
#!/usr/bin/python3
from sandbox_cli.start import main

main()
"""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Built:
    """One image in the cache.

    :param name: of its recipe.
    :param path: its directory.
    :param size: bytes on disk.
    :param current: it is what today's recipe gives.
    """

    name: str
    path: str
    size: int
    current: bool


def path_of(recipe: Recipe) -> str:
    """The directory the image of ``recipe`` is in, or will be."""
    import hashlib

    disk = (SERVICE, START, HOST_MOUNT, FSTAB, ADD_USER, PROGRAM, MASKED, DISABLED, DISK_BYTES, SWAP_BYTES)
    ours = () if recipe == TOOLS else (PROGRAM,) if recipe == TREE else disk
    labels = (UNCONFINED, DISABLED_LABELS) if recipe.labelled else ()
    key = hashlib.sha256(repr((recipe, (*ours, *labels))).encode()).hexdigest()[:12]
    return f"{cache_directory()}/{recipe.name}-{key}"


def ensure(recipe: Recipe, progress: Progress) -> str:
    """The directory of the image, which is built first if it is not in the cache.

    :param progress: called with what is being done.
    :raises Unsupported: a tool is missing.
    :raises SandboxError: the build failed.
    """
    path = path_of(recipe)
    if os.path.isdir(path):
        return path
    _need("mmdebstrap")
    if recipe not in (TOOLS, TREE):
        _need("mke2fs", "e2fsprogs")
        _need("mkswap", "util-linux")
        if os.geteuid() != 0:
            _need("fakeroot")
            _need("newuidmap", "uidmap")
    progress(f"waiting for another build of the {recipe.name} image")
    with exclusive(f"{cache_directory()}/{recipe.name}.lock"):
        if not os.path.isdir(path):
            progress(f"building the {recipe.name} image, once, in about {5 if recipe == TOOLS else 60} seconds")
            _build(recipe, path)
    return path


def built() -> list[Built]:
    """Every image in the cache."""
    cache = cache_directory()
    recipes = {path_of(recipe): recipe.name for recipe in (TOOLS, TREE, *(image.recipe for image in IMAGES.values()))}
    paths = sorted(f"{cache}/{name}" for name in os.listdir(cache) if os.path.isdir(f"{cache}/{name}"))
    return [Built(os.path.basename(path).rpartition("-")[0] or os.path.basename(path), path, _size(path),
                  path in recipes) for path in paths]


def prune(*, everything: bool) -> list[Built]:
    """Remove images that no recipe gives any more, or all of them.

    :returns: what was removed.
    """
    import shutil

    gone = [one for one in built() if everything or not one.current]
    for one in gone:
        shutil.rmtree(one.path)
    return gone


def _build(recipe: Recipe, path: str) -> None:
    import shutil

    partial = f"{path}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    os.mkdir(partial)
    try:
        if recipe == TOOLS:
            _unpacked(recipe, partial)
        elif recipe == TREE:
            _mmdebstrap(recipe, "--variant=apt", "--format=dir", target=partial)
            _add_project(recipe, partial)
        else:
            _system(recipe, partial)
        os.rename(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _unpacked(recipe: Recipe, directory: str) -> None:
    """Files of packages. As an archive first: without root, mmdebstrap is somebody else and cannot write here."""
    archive = f"{directory}/tree.tar"
    _mmdebstrap(recipe, "--variant=extract", "--format=tar", target=archive)
    _tool("tar", "-xf", archive, "-C", directory, "--exclude=./dev/*")
    os.unlink(archive)


def _system(recipe: Recipe, directory: str) -> None:
    """Disk and kernel. Nobody need be root: fakeroot remembers owners until the disk is filled."""
    import shutil

    archive, tree, extra, disk = (f"{directory}/{name}" for name in ("tree.tar", "tree", "extra", "disk"))
    _mmdebstrap(recipe, "--variant=apt", "--format=tar", f"--customize-hook={ADD_USER}", target=archive)
    _write_files(recipe, extra)
    _add_project(recipe, extra)
    os.mkdir(tree)
    disabled = DISABLED + (DISABLED_LABELS if recipe.labelled else ())
    fill = (f"tar --numeric-owner -xf {archive} -C {tree} --exclude=./dev/* && cp -R {extra}/. {tree} && "
            f"rm -f {' '.join(f'{tree}/etc/systemd/system/*.wants/{unit}' for unit in disabled)} && "
            f"{_set_labels(tree) if recipe.labelled else 'true'} && "
            f"mke2fs -q -t ext4 -O ^has_journal -E lazy_itable_init=1 -d {tree} {disk} {DISK_BYTES >> 10}k")
    _tool("sh", "-ec", fill) if os.geteuid() == 0 else _tool("fakeroot", "sh", "-ec", fill)
    shutil.copyfile(_kernel(tree), f"{directory}/vmlinuz")
    _tool("sh", "-c", f"chmod -R u+rwX {tree} && rm -rf {tree} {extra} {archive}")
    for name, size in (("swap", SWAP_BYTES), ("data", DATA_BYTES)):
        with open(f"{directory}/{name}", "wb") as file:
            file.truncate(size)
        os.chmod(f"{directory}/{name}", 0o600)
    _tool("mkswap", "--quiet", f"{directory}/swap")


def _set_labels(tree: str) -> str:
    """The command that gives each file the label of the tree's own policy; ``mke2fs -d`` copies it to the disk.

    The program is the tree's own, as this machine need not have one. Without ``-m`` it would leave out every mount that
    shows no labels, and on a machine without SELinux none does.
    """
    return shlex.join(with_loader(tree, "usr/sbin/setfiles", "-m", "-r", tree,
                                  f"{tree}/etc/selinux/default/contexts/files/file_contexts", tree))


def _write_files(recipe: Recipe, extra: str) -> None:
    """What we put on top of the packages."""
    units = "etc/systemd/system"
    files = {
        f"{units}/sandbox-lab.service": SERVICE,
        f"{units}/host.mount": HOST_MOUNT,
        "etc/fstab": FSTAB,
        "etc/hostname": "lab\n",
        "etc/hosts": "127.0.0.1 localhost lab\n",
        # A machine id, and marks that say the first boot and updates were dealt with: each boot would redo that.
        "etc/machine-id": "5a4db0c1ab4e4d6f8f1d5a4db0c1ab4e\n",
        "etc/.updated": "",
        "var/.updated": "",
    }
    if recipe.labelled:
        files[f"{units}/sandbox-lab.service.d/selinux.conf"] = UNCONFINED
    for name, text in files.items():
        _write(f"{extra}/{name}", text)
    _write(f"{extra}/usr/local/sbin/sandbox-lab", START, mode=0o755)
    os.makedirs(f"{extra}/host")
    os.makedirs(f"{extra}/{units}/multi-user.target.wants")
    os.symlink("../sandbox-lab.service", f"{extra}/{units}/multi-user.target.wants/sandbox-lab.service")
    for unit in MASKED:
        os.symlink("/dev/null", f"{extra}/{units}/{unit}")


def _add_project(recipe: Recipe, tree: str) -> None:
    """Our program, which finds the package when the agent has linked it, and what the package needs."""
    import sys

    _write(f"{tree}/usr/bin/sandbox", PROGRAM, mode=0o755)
    _tool(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile",
          "--root-user-action", "ignore", "--python-version", recipe.python, "--no-deps",
          "--target", f"{tree}/usr/local/lib/python{recipe.python}/dist-packages", *recipe.wheels)


def _write(path: str, text: str, *, mode: int = 0o644) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)


def _kernel(tree: str) -> str:
    names = [name for name in os.listdir(f"{tree}/boot") if name.startswith("vmlinuz-")]
    return f"{tree}/boot/{max(names)}"


def _mmdebstrap(recipe: Recipe, *words: str, target: str) -> None:
    apt = ['APT::Install-Recommends "false"', 'Acquire::Languages "none"']
    if recipe.suite == "sid":  # its index is valid for a week, and a mirror that follows slowly has an older one
        apt.append('Acquire::Check-Valid-Until "false"')
    dpkg = [f"path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "info", "bash-completion")]
    _tool("mmdebstrap", "--quiet", *words, f"--include={','.join(recipe.packages)}",
          *(f"--aptopt={option}" for option in apt), *(f"--dpkgopt={option}" for option in dpkg),
          recipe.suite, target, _mirror(), mounts=True)


def _mirror() -> str:
    """The Debian mirror this machine's apt is configured with."""
    import subprocess

    with suppress(OSError, subprocess.CalledProcessError):
        lines = subprocess.run(["apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)",
                                "Created-By: Packages"], capture_output=True, text=True, check=True).stdout.splitlines()
        for line in lines:
            origin, label, uri = line.split(" ", 2)
            if (origin, label) == ("Debian", "Debian"):
                return uri
    raise Unsupported("this machine's apt has no Debian mirror configured that images could be made from",
                      hint="add one to /etc/apt/sources.list and run apt-get update")


def _need(program: str, package: str = "") -> None:
    import shutil

    if shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
        raise Unsupported(f"{program} is missing, which builds the images",
                          hint=f"apt-get install {package or program}")


def _tool(*argv: str, mounts: bool = False) -> None:
    """Run a tool; its own last words are the error.

    :param mounts: it mounts /proc, /sys and /dev of the host in its tree, as root: they must go when it is killed, or
        whoever removes the tree removes what is in them. They go with a mount namespace of its own.
    :raises SandboxError: it failed.
    """
    import subprocess

    environment = os.environ | {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin", "LC_ALL": "C"}
    if os.geteuid() == 0:  # other users' builds enter a user namespace, which may not look into the cache
        environment["TMPDIR"] = cache_directory()
    private = ("unshare", "--mount", "--") if mounts and os.geteuid() == 0 else ()
    done = subprocess.run([*private, *argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace", env=environment, check=False,
                          preexec_fn=partial(die_with_parent, os.getpid()))
    if done.returncode:
        words = [line for line in done.stdout.splitlines() if line.strip()]
        raise SandboxError(f"{argv[0]} failed with {done.returncode}: {' / '.join(words[-3:])}")


def _size(path: str) -> int:
    total = 0
    for directory, _, files in os.walk(path):
        for name in files:
            with suppress(FileNotFoundError):
                total += os.lstat(f"{directory}/{name}").st_blocks * 512
    return total
