"""The record of a machine: saved, read back, printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.errors import SpecError
from sandbox.facts import Disk, Hierarchy, Manager
from sandbox.host import Host, from_json, to_json
from sandbox.teach.facts import add
from sandbox.teach.info import text

SAVED = sorted((Path(__file__).parent / "hosts").glob("*.json"))
NAMES = [path.stem for path in SAVED]

words = st.text(max_size=12)
lists = st.lists(words, max_size=3).map(tuple)
trees = st.builds(Hierarchy, version=st.sampled_from([1, 2]), controllers=lists, mount=words, own=words,
                  parent=st.none() | words, reason=words, usable=lists,
                  enable=st.lists(st.tuples(words, lists), max_size=3).map(tuple), files=lists)
disks = st.builds(Disk, path=words, device=words, chain=lists, reason=words)
hosts = st.builds(Host, kernel=words, uid=st.integers(0), memory_total=st.integers(0), systemd_running=st.booleans(),
                  hierarchies=st.lists(trees, max_size=3).map(tuple), disks=st.lists(disks, max_size=2).map(tuple),
                  systemd_version=st.none() | words, apparmor=st.none() | st.booleans(),
                  landlock_abi=st.none() | st.integers(0), lsm=lists)


@given(hosts)
def test_round_trip(host: Host) -> None:
    assert from_json(to_json(host)) == host


@pytest.mark.parametrize("path", SAVED, ids=NAMES)
def test_saved_hosts_load_and_print(path: Path) -> None:
    host = from_json(path.read_text(encoding="utf-8"))
    assert from_json(to_json(host)) == host
    printed = text(host, "cgroupfs", "systemd is not running")
    assert printed.startswith(" Cgroup Driver: cgroupfs\n  Reason: systemd is not running\n")
    assert f" Cgroup Mode: {host.cgroup_mode}\n" in printed
    for tree in host.hierarchies:
        assert tree.mount in printed and (not tree.reason or tree.reason in printed)


def test_the_saved_hosts_are_all_there() -> None:
    assert set(NAMES) == {"hybrid", "debian13-v2", "debian12-v2", "bookworm-v1", "container-v2", "rootless-v2", "none"}


def _saved(**changes: Any) -> str:
    tree = {"version": 2, "controllers": ["cpu"], "mount": "/sys/fs/cgroup"}
    return json.dumps({"schema_version": 1, "kernel": "6.1.0", "hierarchies": [tree], **changes})


def test_absent_keys_take_their_defaults() -> None:
    host = from_json(_saved())
    assert host == Host(kernel="6.1.0",
                        hierarchies=(Hierarchy(version=2, controllers=("cpu",), mount="/sys/fs/cgroup"),))


@pytest.mark.parametrize(("changes", "field"), [
    ({"kernel": 6}, "kernel"),
    ({"cpus": True}, "cpus"),
    ({"cpus": 1.0}, "cpus"),
    ({"cpus": "2"}, "cpus"),
    ({"psi": 1}, "psi"),
    ({"apparmor": "yes"}, "apparmor"),
    ({"systemd_version": 252}, "systemd_version"),
    ({"kernel": None}, "kernel"),
    ({"colour": "red"}, "colour"),
    ({"lsm": "yama"}, "lsm"),
    ({"lsm": ["yama", 1]}, "lsm[1]"),
    ({"hierarchies": [{}]}, "hierarchies[0].version"),
    ({"hierarchies": ["v2"]}, "hierarchies[0]"),
    ({"hierarchies": [{"version": 2, "controllers": [], "mount": "/", "x": 1}]}, "hierarchies[0].x"),
    ({"hierarchies": [{"version": 2, "controllers": [], "mount": "/", "enable": [["/"]]}]}, "hierarchies[0].enable[0]"),
    ({"schema_version": 2}, "schema_version"),
    ({"schema_version": None}, "schema_version"),
])
def test_a_wrong_record_names_the_key(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as caught:
        from_json(_saved(**changes))
    assert caught.value.field == field
    assert field in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", ["", "{", "[]", "3", '{"schema_version": 1}', "[" * 100_000])
def test_what_is_no_record_is_refused(wrong: str) -> None:
    with pytest.raises(SpecError, match="host record"):
        from_json(wrong)


def test_unknown_is_printed_as_unknown() -> None:
    printed = text(Host(kernel="6.1.0"), "none", "no cgroups")
    for line in (" Operating System: unknown", " AppArmor: unknown", " SELinux: unknown", " Landlock ABI: unknown",
                 " Security Modules: unknown", " Seccomp: unknown", " Total Memory: unknown", " Controllers: none"):
        assert f"{line}\n" in printed


def test_a_pieced_together_list_of_security_modules_says_so() -> None:
    assert "yama (securityfs is not mounted" in text(Host(kernel="6.1.0", lsm=("yama",)), "none", "")
    assert "capability, yama\n" in text(Host(kernel="6.1.0", lsm=("capability", "yama")), "none", "")


def test_what_the_security_modules_do_is_told() -> None:
    host = Host(kernel="6", selinux="permissive", selinux_context="u:r:t:s0", apparmor=True,
                apparmor_profile="mine (complain)", apparmor_profiles=("3 enforce", "1 complain"))
    printed = text(host, "none", "")
    for line in (" SELinux: permissive (it only logs what it would forbid)", "  Own Context: u:r:t:s0",
                 " AppArmor: yes", "  Own Profile: mine (complain)", "  Profiles: 3 enforce, 1 complain"):
        assert f"{line}\n" in printed
    assert " SELinux: enforcing\n" in text(host._replace(selinux="enforcing"), "none", "")


def test_security_modules_are_asked(tmp_path: Path) -> None:
    for path, content in (("sys/fs/selinux/enforce", "0"), ("proc/self/attr/current", "u:r:t:s0\0"),
                          ("sys/module/apparmor/parameters/enabled", "Y\n"),
                          ("proc/self/attr/apparmor/current", "unconfined\n"),
                          ("sys/kernel/security/apparmor/profiles", "a (enforce)\nb c (complain)\nd (enforce)\n")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    host = add(Host(kernel="6"), str(tmp_path))
    assert (host.selinux, host.selinux_context) == ("permissive", "u:r:t:s0")
    assert (host.apparmor, host.apparmor_profile, host.apparmor_profiles) == (
        True, "unconfined", ("2 enforce", "1 complain"))


def test_partly_delegated_controllers_are_told() -> None:
    tree = Hierarchy(version=2, controllers=("cpu", "memory"), mount="/m", parent="/u", usable=("memory",))
    assert "Usable: memory (not delegated to /u: cpu)" in text(Host(kernel="6", hierarchies=(tree,)), "cgroupfs", "")


def places(host: Host, driver: str) -> dict[str, list[str]]:
    """The lines of each tree that say where cgroups are made, by its mount point."""
    found: dict[str, list[str]] = {}
    for line in text(host, driver, "").splitlines():
        key, _, value = line.strip().partition(": ")
        if key == "Mount":
            found[value] = []
        elif key in ("New Cgroups In", "With --driver cgroupfs", "Usable") and found:
            found[next(reversed(found))].append(f"{key}: {value}")
    return found


def test_new_cgroups_are_where_the_driver_makes_them() -> None:
    own = "/system.slice/sandbox-lab.service"
    trees = (Hierarchy(1, ("memory",), "/m", own, own, usable=("memory",)),
             Hierarchy(1, ("cpuset",), "/c", "/", "/", usable=("cpuset",)),
             Hierarchy(2, ("hugetlb", "pids"), "/u", own, "/system.slice", "it has processes", ("hugetlb", "pids")))
    system = Manager(version=257, controllers=("pids",), problem="")
    host = Host(kernel="6", hierarchies=trees, systemd_running=True, manager=system)
    under_systemd = {"/m": ["New Cgroups In: /system.slice", "Usable: yes", f"With --driver cgroupfs: {own}"],
                     "/c": ["New Cgroups In: /", "Usable: yes"],
                     "/u": ["New Cgroups In: /system.slice",
                            "Usable: pids (systemd does not give its units: hugetlb)"]}
    assert places(host, "systemd") == places(host, "delegated") == under_systemd
    assert "it has processes" not in text(host, "systemd", "")
    assert places(host, "cgroupfs") == {tree.mount: [f"New Cgroups In: {tree.parent}", "Usable: yes"] for tree in trees}
    assert places(host, "none")["/m"] == ["Usable: no", f"With --driver cgroupfs: {own}"]
    given = host._replace(manager=system._replace(delegated=own))  # then the trees have the place already
    assert places(given, "delegated")["/m"] == [f"New Cgroups In: {own}", "Usable: yes"]
    user = Manager(user=True, control_group="/user.slice/user-1.slice/user@1.service", problem="")
    assert places(host._replace(manager=user), "systemd")["/m"][0] == (
        "New Cgroups In: /user.slice/user-1.slice/user@1.service/app.slice")


def test_every_field_is_documented() -> None:
    for kind in (Host, Hierarchy, Disk):
        for name in kind._fields:
            assert f":param {name}:" in (kind.__doc__ or "")
