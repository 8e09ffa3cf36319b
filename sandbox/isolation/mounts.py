"""The steps that file systems are made of, as the init carries them out."""

from __future__ import annotations

from ..records import Tmpfs
from ..stdlib import TYPE_CHECKING, NamedTuple
from ..steps import Arg, Phase, Step, Where

if TYPE_CHECKING:
    from collections.abc import Iterator

# MOUNT_ATTR_* of <linux/mount.h>
RDONLY, NOSUID, NODEV, NOEXEC = 0x1, 0x2, 0x4, 0x8
INERT = NOSUID | NODEV
"""What is true of all that is not the kernel's: no file gives privileges, none is a device."""
KERNEL = NOSUID | NODEV | NOEXEC
"""Of the kernel's own file systems."""


TERMINAL = "{terminal}"
"""Late value: the terminal that is the workload's stdin."""


class Tree(NamedTuple):
    """Something of the host that is seen inside.

    :param source: its path on the host.
    :param target: its path inside.
    :param attributes: ``MOUNT_ATTR_*`` of it and all that is mounted below it.
    :param shifted: its owners are mapped as the ids of processes are.
    :param recursive: with what is mounted below it.
    :param realises: the field of the Spec that asks for it.
    :param node: nothing of the host is taken, a device node is made: its mode with the type, numbers, user and group.
    """

    source: str
    target: str
    attributes: int
    shifted: bool = False
    recursive: bool = True
    realises: str = ""
    node: tuple[int, ...] = ()


def step(op: str, *args: Arg, realises: str = "") -> Step:
    """A step of the init."""
    return Step(op=op, args=args, phase=Phase.ENTER, where=Where.INIT, realises=realises)


def take(slot: int, tree: Tree) -> Step:
    """Take a copy of it, attached nowhere yet."""
    if tree.node:
        return step("node", slot, tree.attributes, *tree.node, realises=tree.realises)
    return step("tree", slot, tree.source, tree.attributes, int(tree.recursive), int(tree.shifted),
                realises=tree.realises)


def place(slot: int, tree: Tree) -> Step:
    """Attach it."""
    return step("place", slot, tree.target, realises=tree.realises)


def tmpfs(wish: Tmpfs, owner: int | None, *, attributes: int = INERT, realises: str = "") -> Step:
    """An empty file system in memory, whose pages count against the memory limit of who writes them.

    :param owner: user and group of its root directory, as the init sees them; None for whoever mounts it.
    """
    options = [f"mode={wish.mode:o}"]
    options += [] if wish.size is None else [f"size={wish.size}"]
    options += [f"uid={owner}", f"gid={owner}"] if owner is not None else []
    flags = attributes | (0 if wish.executable else NOEXEC) | (RDONLY if wish.read_only else 0)
    return step("mount", "tmpfs", wish.target, flags, ",".join(options), realises=realises)


def extra_tmpfs(wish: Tmpfs, owner: int | None) -> Iterator[Step]:
    """One that was asked for; its place is made if need be."""
    yield step("mkdir_in", wish.target, 0o755, realises="tmpfs")
    yield tmpfs(wish, owner, realises="tmpfs")
