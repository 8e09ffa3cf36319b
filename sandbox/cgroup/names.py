"""Which kernel files a cgroup has: seen where possible, else from the kernel's version.

A root cgroup shows only some of its tree's files, so the best witness is a cgroup that is not the root. Where there is
none, or none with the controller, what the root cannot show is taken from a table by version (Linux sources,
``CFTYPE_NOT_ON_ROOT``); a file that depends on more than the version is left out unless the root gives it away.
"""

from __future__ import annotations

import os

VERSION_2 = {
    "": (("cgroup.type", "4.14"), ("cgroup.events", "4.5"), ("cgroup.freeze", "5.2"), ("cgroup.kill", "5.14")),
    "cpu": (("cpu.weight", "4.15"), ("cpu.weight.nice", "4.15"), ("cpu.max", "4.15"), ("cpu.max.burst", "5.14"),
            ("cpu.idle", "5.15")),
    "cpuset": (("cpuset.cpus", "5.0"), ("cpuset.mems", "5.0"), ("cpuset.cpus.partition", "5.0")),
    "memory": (("memory.max", "4.5"), ("memory.high", "4.5"), ("memory.low", "4.5"), ("memory.min", "4.18"),
               ("memory.current", "4.5"), ("memory.events", "4.5"), ("memory.events.local", "5.3"),
               ("memory.oom.group", "4.19"), ("memory.peak", "5.19"), ("memory.swap.current", "4.5"),
               ("memory.swap.max", "4.5"), ("memory.swap.events", "4.18"), ("memory.swap.high", "5.8"),
               ("memory.swap.peak", "6.5")),
    "io": (("io.max", "4.5"),),
    "pids": (("pids.max", "4.5"), ("pids.current", "4.5"), ("pids.events", "4.10"), ("pids.peak", "6.1"),
             ("pids.events.local", "6.12")),
    "rdma": (("rdma.max", "4.11"), ("rdma.current", "4.11")),
    "misc": (("misc.max", "5.13"), ("misc.events", "5.17")),
}
VERSION_1 = {
    "pids": (("pids.max", "4.3"), ("pids.current", "4.3"), ("pids.events", "4.10"), ("pids.peak", "6.1")),
    "freezer": (("freezer.state", "2.6"), ("freezer.self_freezing", "3.7"), ("freezer.parent_freezing", "3.7")),
}
GIVEAWAYS = {"io.cost.qos": "io.weight", "blkio.bfq.io_service_bytes": "blkio.bfq.weight"}
"""A file of the root, and the file it proves below the root, whatever the kernel was configured with."""
ROOT_ONLY = frozenset(("cgroup.sane_behavior", "release_agent", "cpuset.memory_pressure_enabled",
                       "cpuset.cpus.isolated", "io.cost.qos", "io.cost.model", "misc.capacity", "dmem.capacity"))
"""``CFTYPE_ONLY_ON_ROOT``."""
HUGETLB = (("max", "5.6"), ("current", "5.6"), ("events", "5.6"), ("events.local", "5.6"), ("rsvd.max", "5.7"),
           ("rsvd.current", "5.7"))


def file_names(directory: str, own: str, version: int, controllers: tuple[str, ...], root: str = "") -> tuple[str, ...]:
    """Sorted names of the kernel files that a cgroup below the root of a tree has.

    :param directory: where the tree is mounted.
    :param own: our own cgroup in it, the first witness.
    """
    names, child = _listing(directory)
    witness = own.lstrip("/") or child
    below = _listing(f"{directory}/{witness}")[0] if witness else set()
    found = names | below | {implied for sign, implied in GIVEAWAYS.items() if sign in names}
    table = VERSION_1 if version == 1 else VERSION_2
    for controller in ("", *controllers):
        rows = _hugetlb_rows(root) if (version, controller) == (2, "hugetlb") else table.get(controller, ())
        if rows and rows[0][0] not in found:
            found |= {name for name, since in rows if _numbers(os.uname().release) >= _numbers(since)}
    return tuple(sorted(found - ROOT_ONLY))


def _listing(directory: str) -> tuple[set[str], str]:
    """The files of a cgroup, and its first child cgroup."""
    names, child = set(), ""
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    names.add(entry.name)
                elif not child:
                    child = entry.name
    except OSError:
        pass
    return names, child


def _hugetlb_rows(root: str) -> tuple[tuple[str, str], ...]:
    """The kernel names these files by page size, as in ``hugetlb.2MB.max``."""
    try:
        sizes = [int(name[len("hugepages-"):-len("kB")]) for name in os.listdir(f"{root}/sys/kernel/mm/hugepages")]
    except OSError:
        return ()
    return tuple((f"hugetlb.{_size(size)}.{suffix}", since) for size in sorted(sizes) for suffix, since in HUGETLB)


def _size(kib: int) -> str:
    if kib >= 1 << 20:
        return f"{kib >> 20}GB"
    return f"{kib >> 10}MB" if kib >= 1 << 10 else f"{kib}KB"


def _numbers(release: str) -> tuple[int, ...]:
    """``6.1.0-18-amd64`` gives 6, 1."""
    digits = (part for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    return tuple(int(part) for part in digits)
