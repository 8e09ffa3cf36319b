"""``/sys/fs/cgroup`` inside: the sandbox's own cgroups, read-only, where programs look for the limits they run under.

The JVM, Node, Go's automaxprocs and others size themselves by these files. A cgroup file system that is mounted in a
cgroup namespace has the namespace's own cgroup as its root (cgroup_namespaces(7)), so no path of the host shows.
"""

from __future__ import annotations

from ..cgroup.hierarchy import CGROUP_MOUNT
from ..facts import Hierarchy
from ..host import Host
from ..records import Tmpfs
from ..spec import Spec
from ..stdlib import TYPE_CHECKING
from ..steps import Phase, Step, Where
from ..units import show_cpu_list
from .mounts import KERNEL, RDONLY, step, tmpfs
from .namespaces import private
from .paths import kernel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NEEDED = frozenset(("cpu", "cpuacct", "cpuset", "memory"))
"""Controllers of cgroup v1 that the JVM must find mounted, or it takes the host's memory and CPUs for its own
(``CgroupSubsystemFactory::determine_type()`` of OpenJDK)."""
KEEPS_AFFINITY = (6, 2)
"""Since which Linux a process keeps its CPU affinity when it enters a cpuset."""
UNIFIED = f"{CGROUP_MOUNT}/unified"
"""Where systemd mounts the v2 tree in hybrid mode, beside those of v1."""


def needed(host: Host) -> frozenset[str]:
    """Controllers of cgroup v1 in whose trees the command gets a cgroup even without a limit, so that it sees the tree.

    Before Linux 6.2, a process that enters a cpuset loses the CPU affinity that it inherited (commit 8f9ea86fdf99 of
    the kernel): if the caller has an affinity, cpuset is left out.
    """
    has_affinity = host.cpuset_cpus != show_cpu_list(set(range(host.cpus)))
    return NEEDED - {"cpuset"} if has_affinity and kernel(host) < KEEPS_AFFINITY else NEEDED


def is_shown(spec: Spec, host: Host) -> bool:
    """True if cgroup trees are mounted inside, which takes a cgroup namespace of the sandbox's own.

    A mount in the initial cgroup namespace would change the options of the host's v2 mount, ``nsdelegate`` among them
    (apply_cgroup_root_flags() in kernel/cgroup/cgroup.c).
    """
    return "cgroup" in private(spec, host)


def places(trees: Sequence[Hierarchy], spec: Spec, host: Host) -> Iterator[Step]:
    """Make a directory for each tree, if there are v1 trees, with systemd's names: ``cpu,cpuacct``, and the links
    ``cpu`` and ``cpuacct`` to that.

    :param trees: those in which the command has a cgroup of its own.
    """
    if not is_shown(spec, host) or not any(tree.version == 1 for tree in trees):
        return
    yield tmpfs(Tmpfs(CGROUP_MOUNT, mode=0o755), None, attributes=KERNEL)
    for tree in trees:
        yield step("mkdir_in", _place(tree, trees), 0o755)
        if tree.version == 1 and len(tree.controllers) > 1:
            yield from (step("symlink_in", _name(tree), f"{CGROUP_MOUNT}/{name}") for name in tree.controllers)
    yield step("attr", CGROUP_MOUNT, RDONLY)


def mounts(trees: Sequence[Hierarchy], spec: Spec, host: Host) -> Iterator[Step]:
    """Mount the trees, once the command is in its cgroups and in its cgroup namespace."""
    if is_shown(spec, host):
        for tree in trees:
            kind, options = ("cgroup2", "") if tree.version == 2 else ("cgroup", _name(tree))
            yield Step(op="mount_cgroup", args=(_place(tree, trees), kind, options), phase=Phase.EXEC,
                       where=Where.WORKLOAD)


def _name(tree: Hierarchy) -> str:
    """The name of a v1 tree, which is also its mount option."""
    return ",".join(tree.controllers)


def _place(tree: Hierarchy, trees: Sequence[Hierarchy]) -> str:
    if tree.version == 1:
        return f"{CGROUP_MOUNT}/{_name(tree)}"
    return UNIFIED if any(one.version == 1 for one in trees) else CGROUP_MOUNT
