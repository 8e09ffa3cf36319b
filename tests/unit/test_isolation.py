"""What a Spec for a Host becomes of namespaces and file systems, and what is refused before anything starts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandbox.box import compile_plan
from sandbox.errors import SandboxError, SpecError, Unsupported
from sandbox.facts import Place
from sandbox.host import FREE_IDS, Host, from_json
from sandbox.isolation import landlock, namespaces, paths, volumes
from sandbox.options import make_spec
from sandbox.records import Joined, Tmpfs, Volume
from sandbox.spec import Spec
from sandbox.steps import Plan, Where

HOSTS = Path(__file__).parent / "hosts"
ROOT = Host(kernel="6.12.0", uid=0, ids=True, userns=True, directory="/srv", mounts=(("/", "ext4"), ("/home", "xfs")),
            namespaces=("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"))
USER = ROOT._replace(uid=1000, gid=1000, ids=False)
PLAIN = ROOT._replace(userns=False)


def plan(host: Host, *, argv: tuple[str, ...] = ("true",), **wishes: Any) -> Plan:
    return compile_plan(replace(make_spec(argv, **wishes), driver="none"), host, name="x")[0]


def steps(host: Host, op: str, **wishes: Any) -> list[tuple[Any, ...]]:
    return [step.args for step in plan(host, **wishes).steps if step.op == op]


def refusal(host: Host, **wishes: Any) -> SandboxError:
    with pytest.raises(SandboxError) as caught:
        plan(host, **wishes)
    return caught.value


# -- what is asked for

@pytest.mark.parametrize(("text", "volume"), [
    ("/a:/b", Volume("/a", "/b")), ("/a:/b:ro", Volume("/a", "/b", True)), ("/a:/b:rw", Volume("/a", "/b")),
    ("./a:/b/", Volume("./a", "/b")), (".:/b//c/.", Volume(".", "/b/c")), ("/a:/dev/shm", Volume("/a", "/dev/shm"))])
def test_volumes(text: str, volume: Volume) -> None:
    assert make_spec(["true"], volume=text).volume == make_spec(["true"], volume=[volume]).volume == (volume,)


@pytest.mark.parametrize("text", ["", ":", "/a", "/a:", ":/b", "/a:b", "a:/b", "/a:/b:x", "/a:/b:ro:z", "/a:/",
                                  "/a:/b/../c", "/a:/proc", "/a:/proc/sys", "/a:/sys", "/a:/dev", "/a:/dev/null",
                                  "/a\0:/b", "/a:/b\0"])
def test_volumes_that_are_none(text: str) -> None:
    with pytest.raises(SpecError, match="volume: "):
        make_spec(["true"], volume=text)


@pytest.mark.parametrize(("text", "volume", "tmpfs"), [
    ("type=bind,source=/a,target=/b", (Volume("/a", "/b"),), ()),
    ("type=bind,src=/a,dst=/b,readonly", (Volume("/a", "/b", True),), ()),
    ("type=bind,src=/a,destination=/b,ro=true", (Volume("/a", "/b", True),), ()),
    ("type=tmpfs,target=/b", (), (Tmpfs("/b", executable=True),)),
    ("type=tmpfs,target=/b,tmpfs-size=1m,tmpfs-mode=700", (), (Tmpfs("/b", 1 << 20, 0o700, True),))])
def test_mounts_in_dockers_words(text: str, volume: object, tmpfs: object) -> None:
    made = make_spec(["true"], mount=text)
    assert (made.volume, made.tmpfs) == (volume, tmpfs)


@pytest.mark.parametrize("text", ["", "type=bind", "type=volume,source=a,target=/b", "type=bind,source=/a,target=b",
                                  "type=tmpfs,source=/a,target=/b", "type=bind,target=/b", "type=tmpfs,target=/b,x=1",
                                  "type=tmpfs,target=/b,tmpfs-mode=9", "type=tmpfs,target=/b,tmpfs-size=big"])
def test_mounts_that_are_none(text: str) -> None:
    with pytest.raises(SpecError, match="mount: "):
        make_spec(["true"], mount=text)


@pytest.mark.parametrize(("text", "tmpfs"), [
    ("/a", Tmpfs("/a")), ("/a:size=64k,mode=755,exec", Tmpfs("/a", 65536, 0o755, True)),
    ("/a:rw,noexec,nosuid,nodev", Tmpfs("/a")), ("/a:ro", Tmpfs("/a", read_only=True))])
def test_tmpfs(text: str, tmpfs: Tmpfs) -> None:
    assert make_spec(["true"], tmpfs=text).tmpfs == make_spec(["true"], tmpfs=[tmpfs]).tmpfs == (tmpfs,)


@pytest.mark.parametrize("text", ["", "a", "/", "/proc/x", "/a:suid", "/a:size=", "/a:mode=rwx", "/a:uid=0"])
def test_tmpfs_that_are_none(text: str) -> None:
    with pytest.raises(SpecError, match="tmpfs: "):
        make_spec(["true"], tmpfs=text)


@pytest.mark.parametrize("wishes", [
    {"commit": "/a"}, {"overlay": True, "read_only": True}, {"hostname": "x", "uts": "host"},
    {"ns": "net:/x", "network": "host"}, {"ns": ["net:/x", "net:/y"]}, {"volume": ["/a:/b", "/c:/b"]},
    {"volume": "/a:/b", "tmpfs": "/b"}, {"ns": "pid:/proc/1/ns/pid"}, {"ns": "net:x"}, {"pid": "container:x"},
    {"network": "bridge"}, {"hostname": "a b"}, {"hostname": "x" * 65}])
def test_contradictions(wishes: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        make_spec(["true"], **wishes)


# -- namespaces

def test_root_gets_ids_of_its_own() -> None:
    guard = [step for step in plan(ROOT).steps if step.where is Where.GUARD]
    made = next(index for index, step in enumerate(guard) if step.op == "namespaces")
    assert [step.op for step in guard[made:made + 3]] == ["namespaces", "id_map", "clone3"]
    assert steps(ROOT, "id_map") == [("", f"0 {FREE_IDS[0]} 65536", f"0 {FREE_IDS[0]} 65536")]
    held = namespaces.CLONE_NEWUSER | sum(namespaces.FLAGS.values()) - namespaces.CLONE_NEWCGROUP
    assert steps(ROOT, "namespaces") == [(held,)]
    assert steps(ROOT, "setns") == [(held - namespaces.CLONE_NEWUSER,)]
    assert len(steps(ROOT, "enter_userns")) == 1
    assert steps(ROOT, "setresuid") == [(0,)]


def test_without_root_there_is_one_id() -> None:
    assert steps(USER, "namespaces") == steps(USER, "enter_userns") == steps(USER, "setresuid") == []
    assert steps(USER, "id_map") == [("deny", "1000 1000 1", "1000 1000 1")]
    (flags,), = steps(USER, "clone3")
    for flag in (namespaces.CLONE_NEWUSER, namespaces.CLONE_NEWPID, namespaces.CLONE_NEWNS, namespaces.CLONE_NEWNET):
        assert flags & flag


@pytest.mark.parametrize("host", [ROOT, PLAIN])
def test_root_inside_is_root_only_when_that_is_wanted_or_cannot_be_helped(host: Host) -> None:
    made = plan(host, userns="host") if host is ROOT else plan(host)
    assert not {"namespaces", "id_map", "enter_userns", "setns"} & {step.op for step in made.steps}
    assert all(step.args[4] == 0 for step in made.steps if step.op == "tree")
    assert bool(made.notes) == (host is PLAIN)


def test_high_ids_get_a_place_of_their_own() -> None:
    (_, uids, gids), = steps(ROOT, "id_map", user="4242424:4343434")
    assert uids.splitlines()[1:] == [f"4242424 {FREE_IDS[0] + 65536} 1"]
    assert gids.splitlines()[1:] == [f"4343434 {FREE_IDS[0] + 65536} 1"]
    assert steps(ROOT, "streams", user="4242424:4343434") == [(FREE_IDS[0] + 65536, FREE_IDS[0] + 65536)]
    assert steps(ROOT, "streams", user="7:8") == [(FREE_IDS[0] + 7, FREE_IDS[0] + 8)]


@pytest.mark.parametrize(("wish", "kind"), [("network", "net"), ("ipc", "ipc"), ("uts", "uts")])
@pytest.mark.parametrize("host", [ROOT, USER, PLAIN])
def test_each_is_shared_by_its_flag(host: Host, wish: str, kind: str) -> None:
    def made(**wishes: Any) -> int:
        return sum(args[0] for op in ("namespaces", "clone3") for args in steps(host, op, **wishes))

    assert made() & namespaces.FLAGS[kind]
    assert not made(**{wish: "host"}) & namespaces.FLAGS[kind]
    assert not made(ns=f"{kind}:/x") & namespaces.FLAGS[kind]
    assert steps(host, "join_ns", ns=f"{kind}:/x") == [("/x", namespaces.FLAGS[kind])]


def test_pids_are_shared_by_their_flag() -> None:
    (flags,), = steps(ROOT, "clone3", pid="host")
    assert not flags & namespaces.CLONE_NEWPID
    assert len(steps(ROOT, "subreaper", pid="host")) == 1
    assert steps(ROOT, "unshare") == [(namespaces.CLONE_NEWCGROUP,)]
    assert not steps(ROOT, "unshare", cgroupns="host")


@pytest.mark.parametrize("shared", [{"cgroupns": "host"}, {"ns": "cgroup:/proc/1/ns/cgroup"}])
def test_the_options_of_the_hosts_cgroup2_are_left_alone(shared: dict[str, str]) -> None:
    """A mount in the initial namespace would change them for the whole machine."""
    machine = from_json((HOSTS / "debian13-v2.json").read_text())

    def mounted(**wishes: str) -> list[tuple[Any, ...]]:
        found = compile_plan(make_spec(["true"], driver="cgroupfs", **wishes), machine, name="x")[0]
        return [step.args for step in found.steps if step.op == "mount_cgroup"]

    assert mounted() == [("/sys/fs/cgroup", "cgroup2", "")]
    assert not mounted(**shared)


def test_what_needs_root_says_so() -> None:
    assert isinstance(refusal(USER, userns="host"), Unsupported)
    assert isinstance(refusal(USER, user="0:0"), Unsupported)
    assert isinstance(refusal(USER, overlay=True), Unsupported)
    assert plan(USER, user="1000:1000")


# -- files

@pytest.mark.parametrize("name", ["hybrid", "rootless-v2", "container-v2", "none"])
def test_propagation_is_cut_first_and_the_host_left_last(name: str) -> None:
    host = from_json((HOSTS / f"{name}.json").read_text())
    ops = [step.op for step in plan(host).steps if step.where is Where.INIT]
    assert next(op for op in ops if op not in ("setsid", "ctty")) == "private"
    assert ops[-1] == "pivot"
    assert max(index for index, op in enumerate(ops) if op == "tree") < ops.index("root")


def test_what_shows_a_namespace_is_mounted_in_it() -> None:
    inside = [(step.op, step.args[0] if step.op == "mount" else "") for step in plan(ROOT).steps
              if step.where is Where.INIT]
    for kind in ("sysfs", "mqueue"):
        assert inside.index(("setns", "")) < inside.index(("mount", kind))


def tree(host: Host, source: str, **wishes: Any) -> tuple[int, bool]:
    """Attributes, and whether the owners are mapped."""
    found = [args for args in steps(host, "tree", **wishes) if args[1] == source]
    assert len(found) == 1, found
    return found[0][2], bool(found[0][4])


def test_the_hosts_root_is_never_writable() -> None:
    for host in (ROOT, USER, PLAIN):
        assert tree(host, "/")[0] == 7
    assert tree(ROOT, "/x", rootfs="/x")[0] == 6
    assert tree(ROOT, "/x", rootfs="/x", read_only=True)[0] == 7
    assert tree(ROOT, "/", overlay=True)[0] == 7


@pytest.mark.parametrize(("kind", "kernel", "mapped"), [
    ("ext4", "6.12.0", True), ("ext4", "5.10.0-9-amd64", False), ("overlay", "6.12.0", False), ("", "6.12.0", False),
    ("tmpfs", "6.1.0", False), ("tmpfs", "6.3.0-rc1", True), ("btrfs", "5.15", True), ("nfs4", "6.18.0", False)])
def test_owners_are_mapped_where_that_can_be(kind: str, kernel: str, mapped: bool) -> None:
    host = ROOT._replace(mounts=(("/", kind),), kernel=kernel)
    assert tree(host, "/")[1] is mapped
    assert bool(plan(host).notes) is not mapped
    assert tree(USER._replace(mounts=(("/", kind),)), "/")[1] is False


def test_the_launchers_program_is_nobodys_file() -> None:
    program = "/usr/bin/python3.11"
    assert tree(ROOT._replace(program=program), program) == (7, False)
    for host, wishes in ((ROOT, {"rootfs": "/x"}), (USER, {}), (ROOT._replace(mounts=(("/", "overlay"),)), {})):
        assert program not in [args[1] for args in steps(host._replace(program=program), "tree", **wishes)]


@pytest.mark.parametrize(("directory", "shown"), [
    ("/srv/x", None), ("/tmp", None), ("/tmp/x/y", "/tmp/x/y"), ("/run/x", "/run/x"), ("/var/tmp/x", "/var/tmp/x"),
    ("/dev/shm/x", "/dev/shm/x"), ("/home/me/x", "/home"), ("/tmpx", None)])
def test_the_working_directory_is_there(directory: str, shown: str | None) -> None:
    host = ROOT._replace(directory=directory)
    assert steps(host, "chdir") == [(directory,)]
    found = [args[1] for args in steps(host, "place") if not str(args[1]).startswith("/dev/") or args[1] == shown]
    assert found == ([shown] if shown else [])
    if shown:
        assert tree(host, shown)[0] == 7
        assert not [args for args in steps(host, "place", volume=f"/srv:{shown}") if args[1] == shown][1:]


def test_relative_paths_count_from_the_launcher() -> None:
    assert steps(ROOT, "chdir", cwd="x") == [("/srv/x",)]
    assert steps(ROOT, "chdir", cwd="x", rootfs="/r") == [("/x",)]
    assert steps(ROOT, "chdir", rootfs="/r") == steps(ROOT._replace(directory=""), "chdir") == [("/",)]
    assert tree(ROOT, "/srv/x", volume="./x:/mnt") == (6, True)


def test_a_planted_link_does_not_hide_where_the_working_directory_is() -> None:
    host = ROOT._replace(places=(Place("/srv/link", "directory", "/tmp/real"),))
    assert tree(host, "/tmp/real", cwd="/srv/link")[0] == 7


@pytest.mark.parametrize(("source", "target", "message"), [
    (Place("/a"), Place("/b", "directory", "/b"), "there is no /a"),
    (Place("/a", "file", "/a"), Place("/b", "directory", "/b"), "a directory"),
    (Place("/a", "directory", "/a"), Place("/b"), "has no /b")])
def test_volumes_that_cannot_be(source: Place, target: Place, message: str) -> None:
    host = ROOT._replace(places=(source, target))
    assert message in refusal(host, volume="/a:/b").message


@pytest.mark.parametrize("wishes", [{"overlay": True}, {"rootfs": "/r"}, {"tmpfs": "/b"}, {"volume": "/b:/b"}])
def test_places_are_made_where_that_can_be(wishes: dict[str, Any]) -> None:
    known = (*(Place(path, "directory", path) for path in ("/a", "/b", "/r")), Place("/b/x"))
    more = {"volume": ["/a:/b/x", *([wishes["volume"]] if "volume" in wishes else [])]}
    assert any(args[1] == "/b/x" for args in steps(ROOT._replace(places=known), "place", **wishes | more))


def test_what_is_deeper_is_mounted_later() -> None:
    wishes = {"volume": ["/a:/m/b/c", "/a:/m"], "tmpfs": ["/m/b"]}
    done = [step.args[1] for step in plan(ROOT, **wishes).steps
            if step.op in ("place", "mount") and str(step.args[1]).startswith("/m")]
    assert done == ["/m", "/m/b", "/m/b/c"]


def test_there_is_room_for_so_many() -> None:
    volumes_ = [f"/a:/m/{number}" for number in range(64)]
    assert "cannot be shown" in refusal(ROOT, volume=volumes_).message


def test_an_overlay_is_made_of_what_is_taken() -> None:
    made = [step for step in plan(ROOT, overlay=True).steps if step.where is Where.INIT]
    assert steps(ROOT, "overlay", overlay=True) == [(0, "/tmp/lower", "/tmp/layer/upper", "/tmp/layer/work")]
    order = [(step.op, step.args[1]) for step in made if step.op in ("place", "mount", "overlay")]
    assert order[:3] == [("mount", "/tmp"), ("place", "/tmp/lower"), ("overlay", "/tmp/lower")]
    assert [step.args[1] for step in made if step.op == "place"][-1] == "/home", "a file system of its own"
    kept = plan(ROOT, overlay=True, commit="/keep")
    assert [step.args[1:3] for step in kept.steps if step.op == "tree" and step.realises == "commit"] == [("/keep", 6)]


def test_the_kernels_own_files_are_hidden_or_shut() -> None:
    masked = {args[0] for args in steps(ROOT, "mask")}
    assert masked >= set(paths.MASKED)
    assert {args[0] for args in steps(ROOT, "read_only")} == set(paths.READ_ONLY)
    shared = {args[0] for args in steps(USER, "mask", network="host")}
    assert shared - {args[0] for args in steps(USER, "mask")} == set(paths.MASKED_SHARED)
    fresh = ("sysfs", "/sys", 15, "")
    assert fresh in steps(USER, "mount") and fresh in steps(ROOT, "mount", network="host")


def test_what_is_not_seen_inside_is_told() -> None:
    note = plan(ROOT, argv=("/tmp/x/prog",)).notes
    assert "-v /tmp/x/prog" in note[0]
    assert not plan(ROOT._replace(directory="/tmp/x"), argv=("/tmp/x/prog",)).notes
    assert not plan(ROOT, argv=("/tmp/x/prog",), volume="/tmp/x:/tmp/x").notes
    assert "was removed" in plan(ROOT._replace(directory="")).notes[0]


def test_landlock_where_it_has_scopes() -> None:
    def steps(abi: int | None) -> list[tuple[object, ...]]:
        return [step.args for step in plan(ROOT._replace(landlock_abi=abi)).steps if step.op == "landlock"]

    assert [steps(abi) for abi in (None, 0, 5, 6, 7)] == [[], [], [], [(3, 0, ())], [(3, 0, ())]]
    ops = [step.op for step in plan(ROOT._replace(landlock_abi=6)).steps]
    assert ops.index("no_new_privs") < ops.index("landlock") < ops.index("seccomp")
    assert landlock.scopes(plan(ROOT._replace(landlock_abi=6))) == ("abstract_unix_socket", "signal")
    assert landlock.scopes(plan(ROOT._replace(landlock_abi=2))) == ()


@pytest.mark.parametrize(("wishes", "paths"), [
    ({}, ()), ({"volume": "/srv/a:/mnt"}, ("/mnt",)), ({"unmask": "/etc/shadow"}, ("/etc/shadow",)),
    ({"rootfs": "/srv/root"}, None), ({"cap_add": "SYS_ADMIN"}, None), ({"nest": True}, None)])
def test_landlock_where_it_has_sockets(wishes: dict[str, Any], paths: tuple[str, ...] | None) -> None:
    """A ruleset about files would forbid every mount to a command that may mount."""
    [(_, rights, shown)] = steps(ROOT._replace(landlock_abi=9), "landlock", **wishes)
    assert (bool(rights), shown) == (paths is not None, paths or ())


def test_numbers_of_kernels() -> None:
    found = {"6.12.38+deb13-amd64": (6, 12), "5.15": (5, 15), "6.18.44-fc-v769": (6, 18), "x": (0, 0), "": (0, 0)}
    assert {text: paths.kernel(Host(kernel=text)) for text in found} == found


def test_records_are_what_the_options_make() -> None:
    spec: Spec = make_spec(["true"], ns=["net:/run/netns/x"], volume=[Volume("/a", "/b")])
    assert spec.ns == (Joined("net", "/run/netns/x"),)
    assert volumes.covers(spec, "/b/c") and volumes.covers(spec, "/b") and not volumes.covers(spec, "/bc")


def test_a_saved_host_keeps_it_all() -> None:
    saved = json.loads((HOSTS / "debian13-v2.json").read_text())
    host = from_json(json.dumps(saved))
    assert host.ids is True
    assert host.mount("/home/user/project") == ("/home", "xfs")
    assert host.mount("/homely") == ("/", "ext4")


@pytest.mark.parametrize("kind", ["overlay", "nfs4", "vfat"])
def test_a_layer_is_kept_where_the_kernel_can_write_one(kind: str) -> None:
    host = ROOT._replace(mounts=(("/", "ext4"), ("/keep", kind)))
    error = refusal(host, overlay=True, commit="/keep/here")
    assert kind in error.message and "findmnt" in error.hint
    assert plan(host, overlay=True, commit="/srv/here")
