"""Which cgroup trees are found, and where new cgroups go, on trees made of plain files."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.cgroup.hierarchy import Mount, find, mounts
from sandbox.cgroup.names import file_names
from sandbox.facts import Hierarchy

V2_LINE = "30 24 0:26 {root} /sys/fs/cgroup {flags} shared:4 - cgroup2 cgroup2 rw,nsdelegate"
TMPFS_LINE = "30 24 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755"
NOBODY = 65534


class Machine:
    """A directory that stands for ``/``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lines: list[str] = []
        self.owns: list[str] = []
        self.modes: dict[Path, int] = {}
        (root / "proc/self").mkdir(parents=True)

    def v2(self, own: str, *, root: str = "/", flags: str = "rw") -> None:
        self.lines.append(V2_LINE.format(root=root, flags=flags))
        self.owns.append(f"0::{own}")

    def v1(self, names: str, own: str, *, at: str = "", root: str = "/", flags: str = "rw", number: int = 40) -> None:
        point = at or f"/sys/fs/cgroup/{names}"
        self.lines.append(f"{number} 30 0:{number} {root} {point} {flags} - cgroup cgroup rw,{names}")
        self.owns.append(f"{number}:{names}:{own}")
        (self.root / point.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def group(self, path: str, *, controllers: str = "cpu memory pids", on: str = "", procs: str = "",
              kind: str = "domain", real_root: bool = False, writable: bool = True) -> None:
        """A v2 cgroup; a real root has neither ``cgroup.type`` nor ``cgroup.events``."""
        place = self.root / "sys/fs/cgroup" / path.lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        files = {"cgroup.controllers": controllers, "cgroup.subtree_control": on, "cgroup.procs": procs}
        if not real_root:
            files |= {"cgroup.type": kind, "cgroup.events": "populated 1\nfrozen 0"}
        for name, text in files.items():
            (place / name).write_text(f"{text}\n" if text else "")
            self.modes[place / name] = 0o666 if writable else 0o444
        self.modes[place] = 0o777 if writable else 0o555

    def find(self, *, at_mount: str = "0:26", parent: str | None = None) -> tuple[str, tuple[Hierarchy, ...]]:
        (self.root / "proc/self/mountinfo").write_text("\n".join(self.lines) + "\n")
        if self.owns:  # a kernel without cgroups has no such file
            (self.root / "proc/self/cgroup").write_text("\n".join(self.owns) + "\n")
        for place, mode in self.modes.items():
            place.chmod(mode)
        # Root may write anywhere, whatever the mode says; effective ids are what the probe asks about.
        if os.geteuid() != 0:
            return find(str(self.root), device=at_mount, cgroup_parent=parent)
        os.seteuid(NOBODY)
        try:
            return find(str(self.root), device=at_mount, cgroup_parent=parent)
        finally:
            os.seteuid(0)

    def tree(self, parent: str | None = None) -> Hierarchy:
        return self.find(parent=parent)[1][0]


@pytest.fixture
def machine() -> Iterator[Machine]:
    root = Path(tempfile.mkdtemp(prefix="sandbox-test-"))  # not tmp_path: its parents are closed to other users
    root.chmod(0o755)
    yield Machine(root)
    for place, _, _ in os.walk(root):
        os.chmod(place, 0o755)
    shutil.rmtree(root)


def test_v2_real_root_takes_children_though_it_has_processes(machine: Machine) -> None:
    machine.v2("/")
    machine.group("/", procs="1", on="cpu", real_root=True)
    mode, (tree,) = machine.find()
    assert mode == "v2"
    assert (tree.version, tree.own, tree.parent, tree.reason) == (2, "/", "/", "")
    assert tree.usable == ("cpu", "memory", "pids")
    assert tree.enable == (("/", ("cpu",)),)


def test_v2_populated_cgroup_gives_way_to_the_nearest_empty_ancestor(machine: Machine) -> None:
    machine.v2("/a.slice/b.slice/c.scope")
    machine.group("/", procs="1", on="cpu memory", real_root=True)
    machine.group("/a.slice", controllers="cpu memory", on="cpu memory")
    machine.group("/a.slice/b.slice", controllers="cpu memory", on="memory")
    machine.group("/a.slice/b.slice/c.scope", controllers="memory", procs="77")
    tree = machine.tree()
    assert tree.parent == "/a.slice/b.slice"
    assert "beside" in tree.reason and "/a.slice/b.slice/c.scope" in tree.reason
    assert tree.usable == ("cpu", "memory", "pids")  # the root can still switch pids on
    assert tree.enable == (("/", ("cpu", "memory")), ("/a.slice", ("cpu", "memory")), ("/a.slice/b.slice", ("memory",)))


def test_v2_cgroup_without_controllers_needs_none_enabled(machine: Machine) -> None:
    machine.v2("/a")
    machine.group("/", on="", real_root=True, writable=False)
    machine.group("/a", controllers="", procs="77")
    tree = machine.tree()
    assert (tree.parent, tree.usable, tree.enable, tree.reason) == ("/a", (), (), "")


def test_v2_populated_cgroup_that_was_given_nothing_is_left_for_one_that_can_be(machine: Machine) -> None:
    machine.v2("/a/b")
    machine.group("/", real_root=True)
    machine.group("/a", controllers="")
    machine.group("/a/b", controllers="", procs="77")
    tree = machine.tree()
    assert (tree.parent, tree.usable) == ("/a", ("cpu", "memory", "pids"))
    assert tree.enable == (("/", ()), ("/a", ()))


def test_v2_populated_namespace_root_is_not_the_real_root(machine: Machine) -> None:
    machine.v2("/")
    machine.group("/", procs="1")
    tree = machine.tree()
    assert tree.parent is None
    assert "/sys/fs/cgroup has processes" in tree.reason and "cpu, memory, pids" in tree.reason
    assert "mkdir /sys/fs/cgroup/init" in tree.reason


def test_v2_threaded_cgroups_are_refused(machine: Machine) -> None:
    machine.v2("/t")
    machine.group("/", real_root=True, writable=False)
    machine.group("/t", kind="domain threaded")
    tree = machine.tree()
    assert tree.parent is None
    assert "'domain threaded'" in tree.reason


def test_v2_rootless_works_in_the_delegated_part_only(machine: Machine) -> None:
    machine.v2("/user.slice/user@7.service/app.slice/x.scope")
    machine.group("/", controllers="cpu memory pids", on="memory pids", procs="1", real_root=True, writable=False)
    machine.group("/user.slice", controllers="memory pids", on="memory pids", writable=False)
    machine.group("/user.slice/user@7.service", controllers="memory pids", on="memory pids")
    machine.group("/user.slice/user@7.service/app.slice", controllers="memory pids", on="pids")
    machine.group("/user.slice/user@7.service/app.slice/x.scope", controllers="pids", procs="77")
    tree = machine.tree()
    assert tree.parent == "/user.slice/user@7.service/app.slice"
    assert tree.usable == ("memory", "pids")
    assert tree.enable == (("/user.slice/user@7.service/app.slice", ("pids",)),)


def test_v2_rootless_session_has_no_way_into_a_delegated_cgroup(machine: Machine) -> None:
    machine.v2("/session-1.scope")
    machine.group("/", on="memory", real_root=True, writable=False)
    machine.group("/session-1.scope", controllers="memory", procs="77", writable=False)
    machine.group("/user@7.service", controllers="memory")
    assert machine.tree().parent is None
    assert "with cgroup_parent," in machine.tree().reason
    tree = machine.tree(parent="/user@7.service")  # writable, but the common ancestor is not
    assert tree.parent is None
    assert "/sys/fs/cgroup/cgroup.procs is not writable" in tree.reason
    assert "systemd-run --user --scope" in tree.reason


def test_v2_subtree_control_that_is_not_ours_limits_what_is_usable(machine: Machine) -> None:
    machine.v2("/a")
    machine.group("/", on="memory", real_root=True, writable=False)
    machine.group("/a", controllers="memory", on="")
    tree = machine.tree()
    assert (tree.usable, tree.enable) == (("memory",), (("/a", ()),))


@pytest.mark.parametrize(("wish", "expected"), [("/mine", "/mine"), ("mine/", "/mine"), ("/mine/deep", "/mine/deep")])
def test_cgroup_parent_is_taken_literally(machine: Machine, wish: str, expected: str) -> None:
    machine.v2("/")
    machine.group("/", real_root=True)
    machine.group("/mine")
    machine.group("/mine/deep")
    tree = machine.tree(parent=wish)
    assert tree.parent == expected
    assert tree.reason == f"asked for with --cgroup-parent {expected}"
    assert [path for path, _ in tree.enable][-1] == expected


@pytest.mark.parametrize(("wish", "words"), [
    ("/absent", "mkdir it first"), ("/mine/../..", "must not have"), ("/busy", "has processes"), ("a\0b", "must not")])
def test_cgroup_parent_that_cannot_serve_is_not_replaced(machine: Machine, wish: str, words: str) -> None:
    machine.v2("/")
    machine.group("/", real_root=True)
    machine.group("/mine")
    machine.group("/busy", procs="5")
    tree = machine.tree(parent=wish)
    assert tree.parent is None
    assert words in tree.reason


def test_read_only_mount_is_not_usable(machine: Machine) -> None:
    machine.v2("/", flags="ro,nosuid")
    machine.group("/", real_root=True)
    tree = machine.tree()
    assert tree.parent is None
    assert "mounted read-only" in tree.reason


@pytest.mark.parametrize(("own", "mounted"), [("/../other", "/"), ("/", "/../.."), ("/mine", "/docker/abc")])
def test_paths_outside_of_the_cgroup_namespace_are_not_usable(machine: Machine, own: str, mounted: str) -> None:
    machine.v2(own, root=mounted)
    machine.group("/", real_root=True)
    tree = machine.tree()
    assert (tree.parent, tree.own, tree.usable) == (None, "/", ())
    assert own in tree.reason or mounted in tree.reason


def test_v1_joined_controllers_and_no_named_trees(machine: Machine) -> None:
    machine.lines.append(TMPFS_LINE)
    machine.v1("cpu,cpuacct", "/user", number=40)
    (machine.root / "sys/fs/cgroup/cpu").symlink_to("cpu,cpuacct")
    (machine.root / "sys/fs/cgroup/cpu,cpuacct/user").mkdir(mode=0o777)
    (machine.root / "sys/fs/cgroup/cpu,cpuacct/user").chmod(0o777)
    machine.v1("name=systemd", "/user", at="/sys/fs/cgroup/systemd", number=41)
    mode, trees = machine.find()
    assert mode == "v1"
    assert [(tree.controllers, tree.mount) for tree in trees] == [(("cpu", "cpuacct"), "/sys/fs/cgroup/cpu,cpuacct")]
    assert (trees[0].own, trees[0].parent, trees[0].usable) == ("/user", "/user", ("cpu", "cpuacct"))


def test_v1_takes_the_mount_that_covers_us(machine: Machine) -> None:
    machine.lines.append(TMPFS_LINE)
    machine.v1("memory", "/docker/abc/x", at="/other", root="/docker/zzz")
    machine.v1("memory", "/docker/abc/x", root="/docker/abc")
    (machine.root / "sys/fs/cgroup/memory/x").mkdir()
    (machine.root / "sys/fs/cgroup/memory/x").chmod(0o777)
    (tree,) = machine.find()[1]
    assert (tree.mount, tree.own, tree.parent) == ("/sys/fs/cgroup/memory", "/x", "/x")


def test_v1_unwritable_cgroup_has_a_reason_and_a_remedy(machine: Machine) -> None:
    machine.v1("memory", "/")
    (machine.root / "sys/fs/cgroup/memory").chmod(0o555)
    (tree,) = machine.find()[1]
    assert tree.parent is None
    assert "/sys/fs/cgroup/memory is not writable" in tree.reason and "with cgroup_parent," in tree.reason


def test_v1_cgroup_parent_applies_to_each_tree_that_has_it(machine: Machine) -> None:
    machine.v1("memory", "/", number=40)
    machine.v1("pids", "/", number=41)
    (machine.root / "sys/fs/cgroup/memory/mine").mkdir()
    (machine.root / "sys/fs/cgroup/memory/mine").chmod(0o777)
    memory, pids = machine.find(parent="/mine")[1]
    assert (memory.parent, pids.parent) == ("/mine", None)
    assert "/sys/fs/cgroup/pids/mine; mkdir it first" in pids.reason


def test_hybrid_is_both_kinds_at_once(machine: Machine) -> None:
    machine.lines.append(TMPFS_LINE)
    machine.v1("memory", "/")
    machine.lines.append("50 30 0:50 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw")
    machine.owns.append("0::/")
    machine.group("/unified", controllers="hugetlb", real_root=True)
    mode, trees = machine.find()
    assert mode == "hybrid"
    assert [(tree.version, tree.controllers) for tree in trees] == [(1, ("memory",)), (2, ("hugetlb",))]


def test_v2_at_the_usual_place_wins_over_a_v1_tree_elsewhere(machine: Machine) -> None:
    machine.v2("/")
    machine.group("/", controllers="cpu", real_root=True)
    machine.v1("memory", "/", at="/mnt/memory")
    assert machine.find()[0] == "v2"


def test_no_cgroups(machine: Machine) -> None:
    machine.lines.append("22 1 254:1 / / rw - ext4 /dev/sda1 rw")
    assert machine.find(at_mount="") == ("none", ())


def test_mount_points_are_unescaped() -> None:
    mount = Mount(r"9 8 0:5 /a\134b /mnt/with\040space\011tab\012nl rw - cgroup2 my\040source rw")
    assert (mount.root, mount.point, mount.source) == ("/a\\b", "/mnt/with space\ttab\nnl", "my source")
    assert not mount.read_only


@pytest.mark.parametrize("lines, seen", [
    (["2 1 0:1 / / rw - ext4 x rw", "3 2 0:2 / /a/b rw - tmpfs below rw", "4 2 0:3 / /a rw - tmpfs above rw"],
     ["x", "above"]),
    (["2 1 0:1 / / rw - ext4 x rw", "3 2 0:2 / /a rw - tmpfs below rw", "4 3 0:3 / /a rw - tmpfs above rw"],
     ["x", "above"]),
    (["2 1 0:1 / / rw - ext4 x rw", "3 2 0:2 / /a rw - tmpfs below rw", "4 3 0:3 / /a/b rw - tmpfs in rw",
      "5 3 0:4 / /a rw - tmpfs above rw"], ["x", "above"]),
    (["2 1 0:1 / / rw - ext4 x rw", "3 2 0:2 / /a rw - tmpfs first rw", "4 3 0:3 / /a/b rw - tmpfs in rw",
      "5 2 0:4 / /ab rw - tmpfs beside rw"], ["x", "first", "in", "beside"]),
    (["2 2 0:1 / / rw - rootfs x rw", "3 2 0:2 / /a rw - tmpfs first rw"], ["x", "first"]),
], ids=["by one above", "by one in its place", "with its parent", "not hidden", "a root that is its own parent"])
def test_a_mount_that_another_hides_is_none(tmp_path: Path, lines: list[str], seen: list[str]) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text("\n".join(lines))
    assert [mount.source for mount in mounts(str(tmp_path))] == seen


def test_files_come_from_a_real_child_when_there_is_one(tmp_path: Path) -> None:
    child = tmp_path / "child"
    child.mkdir()
    for path in (tmp_path / "cgroup.procs", child / "cgroup.type", child / "memory.max"):
        path.touch()
    names = file_names(str(tmp_path), "/", 2, ("memory",))
    assert {"cgroup.procs", "cgroup.type", "memory.max"} == set(names)  # no memory.high: this kernel shows it has none


def test_files_of_a_childless_root_are_told_by_the_kernel_version(tmp_path: Path) -> None:
    (tmp_path / "io.cost.qos").touch()
    names = file_names(str(tmp_path), "/", 2, ("memory", "io"))
    assert {"cgroup.type", "memory.max", "io.max", "io.weight"} <= set(names)
    assert "io.latency" not in names and "io.cost.qos" not in names
    assert {"pids.max", "freezer.state"} <= set(file_names(str(tmp_path), "/", 1, ("pids", "freezer")))


def test_hugetlb_files_carry_the_page_size(tmp_path: Path) -> None:
    for size in (64, 2048, 1 << 20):
        (tmp_path / f"sys/kernel/mm/hugepages/hugepages-{size}kB").mkdir(parents=True)
    names = file_names(str(tmp_path / "cgroup"), "/", 2, ("hugetlb",), str(tmp_path))
    assert {"hugetlb.64KB.max", "hugetlb.2MB.max", "hugetlb.1GB.max"} <= set(names)
