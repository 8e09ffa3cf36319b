"""``/sys/fs/cgroup`` inside: the sandbox's own cgroups, read-only, where programs look for the limits they run under.

The JVM, Node, Go's automaxprocs and others size themselves by these files. A cgroup file system that is mounted in a
cgroup namespace has the namespace's own cgroup as its root (cgroup_namespaces(7)), so no path of the host shows.
"""

from __future__ import annotations

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

ROOT = "/sys/fs/cgroup"
NEEDED = frozenset(("cpu", "cpuacct", "cpuset", "memory"))
"""Controllers of cgroup v1 that the JVM must find mounted, or it takes the host's memory and CPUs for its own
(``CgroupSubsystemFactory::determine_type()`` of OpenJDK)."""
KEEPS_AFFINITY = (6, 2)
UNIFIED = f"{ROOT}/unified"
"""Where systemd mounts the v2 tree in hybrid mode, beside those of v1."""


def needed(host: Host) -> frozenset[str]:
    """The controllers of cgroup v1 in whose trees the command gets a cgroup although nothing is limited there.

    Before Linux 6.2, a process that enters a cpuset loses the CPU affinity that it inherited (8f9ea86fdf99 in the
    kernel's history): where the caller has one, there is no cpuset.
    """
    has_affinity = host.cpuset_cpus != show_cpu_list(set(range(host.cpus)))
    return NEEDED - {"cpuset"} if has_affinity and kernel(host) < KEEPS_AFFINITY else NEEDED


def is_shown(spec: Spec, host: Host) -> bool:
    """True if the cgroups are mounted inside.

    In a cgroup namespace that is shared they are not: mounted in the initial one, the v2 tree would lose the options of
    the host's own mount, ``nsdelegate`` among them (apply_cgroup_root_flags() in kernel/cgroup/cgroup.c).
    """
    return "cgroup" in private(spec, host)


def places(trees: Sequence[Hierarchy], spec: Spec, host: Host) -> Iterator[Step]:
    """Make the directories that v1 trees are mounted on, named as systemd names them: ``cpu,cpuacct``, with links.

    :param trees: those in which the command has a cgroup of its own.
    """
    if not is_shown(spec, host) or not any(tree.version == 1 for tree in trees):
        return
    yield tmpfs(Tmpfs(ROOT, mode=0o755), None, attributes=KERNEL)
    for tree in trees:
        yield step("mkdir_in", _place(tree, trees), 0o755)
        if len(tree.controllers) > 1 and tree.version == 1:
            target = ",".join(tree.controllers)
            yield from (step("symlink_in", target, f"{ROOT}/{name}") for name in tree.controllers)
    yield step("attr", ROOT, RDONLY)


def mounts(trees: Sequence[Hierarchy], spec: Spec, host: Host) -> Iterator[Step]:
    """Mount the trees, once the command is in its cgroups and in its cgroup namespace."""
    if is_shown(spec, host):
        for tree in trees:
            kind, options = ("cgroup2", "") if tree.version == 2 else ("cgroup", ",".join(tree.controllers))
            yield Step(op="mount_cgroup", args=(_place(tree, trees), kind, options), phase=Phase.EXEC,
                       where=Where.WORKLOAD)


def _place(tree: Hierarchy, trees: Sequence[Hierarchy]) -> str:
    if tree.version == 1:
        return f"{ROOT}/{','.join(tree.controllers)}"
    return UNIFIED if any(one.version == 1 for one in trees) else ROOT
