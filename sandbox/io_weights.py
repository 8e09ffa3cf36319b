"""I/O weights: which kernel file has an effect on this machine, and on which disks.

Two things in the kernel divide a disk's time by weight: iocost, by ``io.weight`` (cgroup v2; io.cost.qos switches it
on, disk by disk), and the scheduler bfq, by ``io.bfq.weight`` or cgroup v1's ``blkio.bfq.weight``. Before Linux 5.0 the
scheduler cfq did, by ``blkio.weight``. On other disks a weight is kept in its file and changes nothing.
Sources: cgroup-v2.rst, block/bfq-iosched.rst, block/blk-iocost.c.
"""

from __future__ import annotations

import os

from . import knobs
from .host import Host, small_file
from .knobs import KNOBS, Knob
from .spec import Limits
from .stdlib import TYPE_CHECKING
from .steps import Unmet
from .wishes import Wish, make, on_disk, tree_of

if TYPE_CHECKING:
    from collections.abc import Iterator

IOCOST = "io.weight"
BFQ = "io.bfq.weight"
CFQ = ("blkio.weight", "blkio.weight_device")
"""Files that are written without a check that a disk has the scheduler cfq."""


def probe(host: Host, root: str = "") -> Host:
    """Return ``host`` with the disks that divide their time by weight.

    :param root: a directory that stands for ``/``.
    """
    try:
        disks = [f"{root}/sys/block/{name}" for name in sorted(os.listdir(f"{root}/sys/block"))]
    except OSError:
        disks = []
    bfq = [small_file(f"{disk}/dev") for disk in disks if "[bfq]" in small_file(f"{disk}/queue/scheduler")]
    tree = next((tree for tree in host.hierarchies if tree.version == 2), None)
    lines = small_file(f"{root}{tree.mount}/io.cost.qos").splitlines() if tree else []
    iocost = [words[0] for line in lines if "enable=1" in (words := line.split())]
    # Hierarchy.files lacks io.bfq.weight if the io controller is off in the cgroup that it was read from.
    trees = [one._replace(files=(*one.files, BFQ)) if one.version == 2 and bfq and one.files else one
             for one in host.hierarchies]
    return host._replace(bfq=tuple(bfq), iocost=tuple(iocost), hierarchies=tuple(trees))


def candidates(limits: Limits, host: Host) -> Iterator[Wish | Unmet]:
    """The I/O weights of a Spec: each as a value for a kernel file, or the reason why it is refused."""
    for field in ("io_weight", "blkio_weight"):
        asked = getattr(limits, field)
        if asked is not None:
            yield _for_all_disks(field, asked, host)
    for rate in limits.blkio_weight_device:
        disk = host.disk(rate.path)
        device = disk.device if disk else ""
        knob, honoured = _file(KNOBS["blkio_weight_device"], host, device)
        value = _converted(int(rate.rate), "blkio_weight", _name(knob, host))
        yield _counting(on_disk(host, knob, rate, value, "blkio_weight_device"), honoured)


def _for_all_disks(field: str, asked: int, host: Host) -> Wish | Unmet:
    knob, honoured = _file(KNOBS["io_weight"], host)
    value = _converted(asked, field, _name(knob, host))
    words = [f"{'io.weight' if field == 'io_weight' else 'weight'} {asked} is {value} here"] if value != asked else []
    words += [f"counts on disk {', '.join(honoured)}"] if honoured else []
    return _counting(make(host, knob, value, field, asked=str(asked), note="; ".join(words)), honoured)


def _counting(made: Wish | Unmet, honoured: tuple[str, ...]) -> Wish | Unmet:
    """Return the wish, or the refusal if no disk would honour it.

    :param honoured: the disks that divide their time by the file of the wish.
    """
    if isinstance(made, Unmet) or honoured or made.file in CFQ:
        return made
    which = "this disk does" if made.knob.field == "blkio_weight_device" else "the disks here do"
    return Unmet(realises=made.realises, reason=f"{made.file}: {which} not divide their time by weight: that takes the "
                 "scheduler bfq, or iocost on cgroup v2",
                 remedy="as root: echo bfq >/sys/block/DISK/queue/scheduler")


def _file(knob: Knob, host: Host, device: str = "") -> tuple[Knob, tuple[str, ...]]:
    """Return the knob with the file that has an effect here, and the disks on which it has.

    :param device: ``MAJ:MIN`` of the disk that the weight is for; empty for all disks.
    """
    def some(disks: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(disk for disk in disks if device in ("", disk))

    tree = tree_of(host, knob)
    files = tree.files if tree else ()
    if tree and tree.version == 2:
        if some(host.bfq) and (BFQ in files or not files):
            return knob._replace(v2=(BFQ,)), some(host.bfq)
        return knob, some(host.iocost)
    legacy = knob.v1[0].replace(".bfq", "")
    if legacy in files and knob.v1[0] not in files:
        return knob._replace(v1=(legacy,)), ()
    return knob, some(host.bfq)


def _name(knob: Knob, host: Host) -> str:
    tree = tree_of(host, knob)
    return knob.files(tree.version if tree else 2)[0]


def _converted(weight: int, field: str, file: str) -> int:
    """A weight in the unit of ``file``: 1 to 10000 in ``io.weight``, in the others up to 1000."""
    if field == "blkio_weight":
        return knobs.io_weight_from_blkio(weight) if file == IOCOST else weight
    if file == IOCOST:
        return weight
    return knobs.bfq_from_io_weight(weight) if file == BFQ else knobs.blkio_from_io_weight(weight)
