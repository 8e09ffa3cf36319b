"""The table of docs/inside-containers.md, row by row: docker, podman, sandboxes, user namespaces and chroots around us.

What does not work must say how it would: the last line is a hint.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

from sandbox.surroundings import NAMESPACES
from support.labs import Lab

pytestmark = pytest.mark.tools
PAGE = Path(__file__).resolve().parents[2] / "docs" / "inside-containers.md"
AS_USER = "runuser -u user -- env XDG_RUNTIME_DIR=/run/user/1000 HOME=/home/user "
OPTIONS = "--rm --network none -v /usr:/usr:ro"
"""Of docker and podman: the programs are the VM's."""
NEWROOT = "/srv/newroot"
MAKE_IMAGE = """
systemctl start user@1000; mkdir -p {root}; cd {root}
mkdir -p usr proc sys dev run tmp etc var/tmp root
chmod 1777 tmp var/tmp
for name in bin sbin lib lib64; do ln -sfn usr/$name $name; done
cp /etc/passwd /etc/group /etc/ld.so.cache etc/
for package in /usr/local/lib/python3*/dist-packages/sandbox*; do  # links to this tree
    path=$(readlink -f $package); mkdir -p .${{path%/*}}; cp -r $path .$path
done
tar -c . >/srv/image.tar; chmod 644 /srv/image.tar
docker import /srv/image.tar box; podman import -q /srv/image.tar localhost/box
cd /; {as_user} podman import -q /srv/image.tar localhost/box
mount --bind /usr {root}/usr; mount -t proc proc {root}/proc; mount --rbind --make-rslave /sys {root}/sys
"""


class Row(NamedTuple):
    """A row of the table, for one user.

    :param words: what is in front of ``sandbox run``.
    :param user: ``root`` or ``user``.
    :param runs: ``yes`` or ``no``.
    :param limits: ``yes``, ``no`` or ``after ROOM``.
    """

    words: str
    user: str
    runs: str
    limits: str


def rows() -> list[Row]:
    cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in PAGE.read_text().splitlines()
             if line.startswith("| `")]
    return [Row(words, user, runs, limits) for words, users, runs, limits in cells for user in users.split(", ")]


def room() -> str:
    """The line that ROOM stands for."""
    found = re.search(r"^mkdir /sys/fs/cgroup/init .*$", PAGE.read_text(), re.MULTILINE)
    assert found
    return found[0]


@pytest.fixture(scope="module")
def images(machine: Lab) -> Lab:
    """The VM with an image for docker and podman, and with a directory for chroot."""
    machine.sh(MAKE_IMAGE.format(root=NEWROOT, as_user=AS_USER))
    return machine


def command(row: Row, script: str) -> str:
    """The row's words with a script behind them, for the VM."""
    words = re.sub("^(docker|podman) run", rf"\1 run {OPTIONS}", row.words)
    words = words.replace("IMAGE", "box" if words.startswith("docker") else "localhost/box").replace("NEWROOT", NEWROOT)
    return f"cd /; {AS_USER if row.user == 'user' else ''}{words} sh -c {shlex.quote(script)}"


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row.user}: {row.words}")
def test_each_row(images: Lab, row: Row) -> None:
    for flags, works in (("", row.runs), ("-m 64m", row.limits)):
        first = f"{room()} && " if works == "after ROOM" else ""
        done = images.run("sh", "-c", command(row, f"{first}sandbox run {flags} -- echo hi"))
        if works == "no":
            assert done.returncode == 125, done.stdout
            assert done.stderr.decode().splitlines()[-1].startswith("hint: ")
        else:
            assert (done.returncode, done.stdout) == (0, b"hi\n"), done.stderr
        if works == "after ROOM":
            without = images.run("sh", "-c", command(row, f"sandbox run {flags} -- echo hi")).stderr.decode()
            assert room() in without.replace("< ", "<").replace("> ", ">")


@pytest.mark.parametrize("name", ["docker", "podman"])
def test_the_hint_is_the_command_of_the_page(images: Lab, name: str) -> None:
    """The options that the error names are enough."""
    row = Row(f"{name} run IMAGE", "root", "no", "no")
    hint = images.run("sh", "-c", command(row, "sandbox run -- true")).stderr.decode().splitlines()[-1]
    assert hint == f"hint: {NAMESPACES[name]}"
    named = re.search(rf"`({name} run [^`]*)`", hint)
    assert named
    assert images.run("sh", "-c", command(row._replace(words=f"{named[1]} IMAGE"), "sandbox run -- true")
                      ).returncode == 0
