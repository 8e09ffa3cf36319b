"""One table for flags, TOML keys and keywords; identity and environment."""

from __future__ import annotations

import os
import signal
from dataclasses import fields
from pathlib import Path

import pytest

from sandbox.errors import SpecError
from sandbox.foreign_words import OTHERWISE, OURS
from sandbox.identity import DEFAULT_PATH, environment, lookup
from sandbox.options import KEYS, TABLE, find, make_spec
from sandbox.records import UNLIMITED, DeviceRate, FileValue, Hugetlb, Percent, Ulimit, User
from sandbox.spec import Limits, Spec


def limits(**wishes):
    return make_spec(["true"], **wishes).limits


def refusal(function, *arguments, **wishes):
    with pytest.raises(SpecError) as caught:
        function(*arguments, **wishes)
    return caught.value


def refused(**wishes):
    return refusal(make_spec, ["true"], **wishes)


def test_every_field_has_an_option():
    wanted = {field.name for field in fields(Limits)} | {field.name for field in fields(Spec)} | {"env_file", "mount"}
    assert {option.name for option in TABLE} == wanted - {"argv", "limits"}


def test_text_and_numbers_mean_the_same():
    assert limits(memory="512M", cpus="1.5", timeout="60", pids_limit="100", oom_group=True) == limits(
        memory=512 << 20, cpus=1.5, timeout=60, pids_limit=100, oom_group=True)


@pytest.mark.parametrize("value", [
    Percent(50), DeviceRate("/a:b", 5), Hugetlb(2 << 20, "max"), FileValue("memory.swap.high", "1"),
    Ulimit("nofile", 5, None)])
def test_values_of_the_spec_are_taken_as_they_are(value):
    name = {Percent: "memory", DeviceRate: "device_read_bps", Hugetlb: "hugetlb", FileValue: "cgroup_conf",
            Ulimit: "ulimit"}[type(value)]
    settled = getattr(limits(**{name: value}), name)
    assert settled in (value, (value,))


@pytest.mark.parametrize("wishes", [
    {"memory": 0}, {"memory": -1}, {"memory": 2**63}, {"memory": 10**6000}, {"memory": 1.5}, {"memory": True},
    {"memory": b"5m"}, {"cpus": float("nan")}, {"cpus": float("inf")}, {"cpus": 0}, {"cpus": -1.5}, {"timeout": 0},
    {"timeout": -0.0}, {"timeout": float("inf")}, {"pids_limit": 0}, {"pids_limit": 4194305}, {"cpu_period": 999},
    {"cpu_quota": 999}, {"cpu_weight": 10001}, {"cpu_shares": 1}, {"io_weight": 0}, {"blkio_weight": 9},
    {"memory_swappiness": 101}, {"oom_group": 1}, {"oom_group": "yes"}, {"stop_signal": 99}, {"user": ""},
    {"cwd": ""}, {"cwd": "a\0b"}, {"seccomp_log": "yes"}, {"seccomp_log": 1},
    {"cgroup_parent": "/a/../b"}, {"name": "a/b"}, {"ulimit": [None]}])
def test_values_out_of_range_are_refused_whatever_their_type(wishes):
    error = refused(**wishes)
    assert error.message.startswith(next(iter(wishes)) + ": ")


def test_unknown_names_get_a_suggestion():
    assert refused(memry=1).hint == "did you mean memory?"
    assert refused(memory_hihg=1).hint == "did you mean memory_high?"


def test_docker_and_systemd_names_are_one_wish():
    assert limits(memory_reservation="5m").memory_low == 5 << 20
    assert "twice" in refused(memory_reservation=1, memory_low=2).message


def test_none_is_no_wish():
    assert limits(memory=None, ulimit=None) == Limits()


def test_no_limit_in_words():
    wished = limits(memory="max", pids_limit=-1, memory_swap=-1, cpu_quota="-1")
    assert (wished.memory, wished.pids_limit, wished.memory_swap, wished.cpu_quota) == (UNLIMITED,) * 4


def test_idle_is_a_weight_in_words():
    assert limits(cpu_weight="idle") == Limits(cpu_idle=True)


def test_device_rates_are_split_at_the_last_colon():
    assert limits(device_write_bps=["/dev/sda:1m", "/a:b:2k"]).device_write_bps == (
        DeviceRate("/dev/sda", 1 << 20), DeviceRate("/a:b", 2048))
    assert limits(device_read_iops="/:1k").device_read_iops == (DeviceRate("/", 1000),)


@pytest.mark.parametrize("text", ["", "/", "/:", ":1", "/:0", "/:-1", "/:1.5", "/:1e3", "a\0b:1", "/dev/sda 1m",
                                  "/:50%"])
def test_device_rates_that_are_none(text):
    assert "device_read_bps: " in refused(device_read_bps=text).message


@pytest.mark.parametrize("text", [
    "", "memory.max", "memory.max=", "=1", "memory=1", "../memory.max=1", "a/b.c=1", "memory.max=1\n2", "MEMORY.MAX=1",
    "tasks=1", "cgroup.procs=1", "cgroup.kill=1", "cgroup.freeze=1", "cgroup.subtree_control=+cpu", "cgroup.type=x",
    "release_agent=/x", "notify_on_release=1", "freezer.state=FROZEN", "cgroup.event_control=1", "memory.max=é"])
def test_files_that_are_no_limits(text):
    assert "cgroup_conf: " in refused(cgroup_conf=text).message


def test_files_that_are_limits():
    wished = limits(cgroup_conf=["cgroup.max.depth=3", "hugetlb.2MB.max=0", "rdma.max=mlx4_0 hca_handle=2"])
    assert wished.cgroup_conf == (FileValue("cgroup.max.depth", "3"), FileValue("hugetlb.2MB.max", "0"),
                                  FileValue("rdma.max", "mlx4_0 hca_handle=2"))


@pytest.mark.parametrize(("text", "value"), [
    ("nofile=1024", Ulimit("nofile", 1024, 1024)), ("nofile=1024:4096", Ulimit("nofile", 1024, 4096)),
    ("core=0", Ulimit("core", 0, 0)), ("core=-1", Ulimit("core", None, None)),
    ("stack=8m:max", Ulimit("stack", 8 << 20, None))])
def test_ulimits(text, value):
    assert limits(ulimit=text).ulimit == (value,)


@pytest.mark.parametrize("text", ["", "nofile", "nofile=", "nofile=:1", "nofile=1:", "nofile=2:1", "nofile=max:1", "=1",
                                  "NOFILE=1", "nofile=1k", "nofile=-2", "nofile=1:2:3", "nothing=1"])
def test_ulimits_that_are_none(text):
    assert "ulimit: " in refused(ulimit=text).message


def test_hugetlb():
    assert limits(hugetlb="2M:64M").hugetlb == (Hugetlb(2 << 20, 64 << 20),)
    assert limits(hugetlb="1G:0").hugetlb == (Hugetlb(1 << 30, 0),)
    for text in ("", "2M", "3M:1M", "2M:", ":1", "1:1"):
        assert "hugetlb: " in refused(hugetlb=text).message


def test_the_command_is_a_list():
    assert "list" in refusal(make_spec, "true").hint
    assert "no command" in refusal(make_spec, []).message


def test_contradictions_are_refused():
    assert "cpu_quota" in refused(cpus=1, cpu_quota=5000).message
    assert "seccomp_log" in refused(seccomp_log=True, security_opt="seccomp=unconfined").message


def test_signals_of_the_signal_module():
    assert make_spec(["true"], stop_signal=signal.SIGINT).stop_signal == 2


def test_only_harmless_variables_are_inherited(monkeypatch):
    monkeypatch.setenv("AWS_SECRET", "x")
    monkeypatch.setenv("LC_TIME", "C")
    env = dict(make_spec(["true"], env={"A": "1", "EMPTY": ""}).env)
    assert "AWS_SECRET" not in env
    assert (env["LC_TIME"], env["A"], env["EMPTY"]) == ("C", "1", "")


def test_path_has_a_default_and_names_copy_the_callers():
    assert dict(environment({})) == {"PATH": DEFAULT_PATH}
    assert dict(environment({"PATH": "/x", "B": "b"}, ["B", "MISSING"])) == {"PATH": "/x", "B": "b"}


@pytest.mark.parametrize("text", ["", "=x", "A B=1", "A\0=1"])
def test_variables_without_a_name_are_refused(text):
    assert "env: " in refused(env=[text]).message


def test_env_file(tmp_path):
    file = tmp_path / "env"
    file.write_bytes(b"\xef\xbb\xbf# comment\n\n  A=1\r\nB= two = 2 # kept \nCALLER\nNONE\nBYTES=\xff\n")
    env = dict(environment({"CALLER": "c"}, ["A=over"], [str(file)]))
    assert env == {"PATH": DEFAULT_PATH, "A": "over", "B": " two = 2 # kept ", "CALLER": "c",
                   "BYTES": os.fsdecode(b"\xff")}


def test_bad_env_files_name_file_and_line(tmp_path):
    file = tmp_path / "env"
    file.write_text("A=1\nB C=2\n")
    assert f"{file} line 2" in refused(env_file=str(file)).message
    assert "/nowhere/env" in refused(env_file="/nowhere/env").message


def test_users_by_number_need_no_entry_but_then_a_group():
    assert lookup("4242424:4343434") == User(uid=4242424, gid=4343434, groups=(4343434,))
    assert "4242424:4242424" in refusal(lookup, "4242424").hint


def test_users_by_name_bring_home_and_groups():
    user = lookup("root")
    assert (user.uid, user.gid, user.name, user.home) == (0, 0, "root", "/root")
    assert 0 in user.groups
    assert lookup("0") == user
    assert lookup("root:65534").groups == (65534,)


@pytest.mark.parametrize("text", [":", "root:", ":0", "no such user", "root:no such group", "-1", "4294967295:0",
                                  "99999999999999999999:0", "0:4294967295", "root\0", "\u0660:\u0660"])
def test_users_that_are_none(text):
    assert "user: " in refusal(lookup, text).message


def test_the_users_own_variables_follow():
    caller = {"HOME": "/root", "USER": "root", "LOGNAME": "root", "PATH": "/bin"}
    named = User(uid=5, gid=5, name="games", home="/games")
    assert dict(environment(caller, user=named)) == {"PATH": "/bin", "HOME": "/games", "USER": "games",
                                                     "LOGNAME": "games"}
    assert dict(environment(caller, user=User(uid=5, gid=5))) == {"PATH": "/bin", "HOME": "/"}


def test_the_same_wishes_once_more() -> None:
    """They are not read again, but what looks alike is not the same, and what has changed meanwhile is seen."""
    assert make_spec(["work"], overlay=True, cpus=1) == make_spec(["work"], overlay=True, cpus=1)
    with pytest.raises(SpecError, match="overlay: 1 is not true or false"):
        make_spec(["work"], overlay=1, cpus=1)
    with pytest.raises(SpecError, match="cpus: True is not a value"):
        make_spec(["work"], overlay=True, cpus=True)
    volumes = ["/a:/b"]
    first = make_spec(["work"], volume=volumes)
    volumes.append("/c:/d")
    assert (len(first.volume), len(make_spec(["work"], volume=volumes).volume)) == (1, 2)
    tmpfs = "type=tmpfs,target=/x"
    assert make_spec(["work"], mount=tmpfs) == make_spec(["work"], mount=tmpfs)


def test_the_environment_is_always_the_present_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for word in ("one", "two"):
        monkeypatch.setenv("TOKEN", word)
        assert dict(make_spec(["work"], env="TOKEN").env)["TOKEN"] == word


@pytest.mark.parametrize(("name", "hint"), [
    ("stdout", "Sandbox(make_spec(argv)).start() takes stdin, stdout and stderr"),
    ("mem_limit", "write memory"), ("wall_time", "write timeout"), ("nano_cpus", "write cpus"),
    ("check", "call check() of the report"), ("memory_max", "write memory"), ("CPUQuota", "write cpus"),
    ("time", "write cpu_time, or timeout for wall time"), ("zzz", ""), ("swordfish", "")])
def test_words_of_other_tools_are_answered_with_ours(name: str, hint: str) -> None:
    """And a word is offered only if it is near."""
    assert refused(**{name: 1}).hint == hint


def test_what_is_written_for_them_is_an_option() -> None:
    assert not set(OURS.values()) - KEYS.keys()
    assert not (OURS.keys() | OTHERWISE.keys()) & KEYS.keys()


@pytest.mark.parametrize(("wishes", "shown"), [
    ({"env": 5}, "5"), ({"cwd": 1.5}, "1.5"), ({"env": {"A": None}}, "None"), ({"env": {"A": True}}, "True"),
    ({"network": True}, "True"), ({"volume": [("/a", "/b")]}, "a tuple"), ({"cap_add": {"NET_RAW"}}, "a set"),
    ({"cwd": b"/"}, "a bytes"), ({"volume": {"/a": {"bind": "/b"}}}, "a dict")])
def test_values_of_a_wrong_type_are_refused_with_what_is_right(wishes: dict[str, object], shown: str) -> None:
    [name] = wishes
    error = refused(**wishes)
    assert error.message == f"{name}: {shown} is not a value"
    assert error.hint == f'give {name}="{find(name).metavar}"'


def test_mappings() -> None:
    """Each has the mark between its halves that the text has."""
    made = make_spec(["true"], tmpfs={"/mnt": "size=1M"}, volume={"/a": "/b:ro"}, device={"/dev/fuse": "rw"},
                     network="veth", publish={8080: 80}, ulimit={"nofile": 64}, env={"A": 1},
                     device_read_bps={"/": "1m"}, property={"MemoryHigh": "1G"})
    assert made == make_spec(["true"], tmpfs="/mnt:size=1M", volume="/a:/b:ro", device="/dev/fuse:rw", network="veth",
                             publish="8080:80", ulimit="nofile=64", env="A=1", device_read_bps="/:1m",
                             property="MemoryHigh=1G")


@pytest.mark.parametrize("env", [{"A=B": "x"}, {1: "x"}])
def test_a_mapping_whose_key_is_no_name(env: dict[object, str]) -> None:
    assert refused(env=env).message == f"env: {next(iter(env))!r} is no name"


@pytest.mark.parametrize(("wishes", "same"), [
    ({"timeout": 5e-5}, {"timeout": "50us"}), ({"timeout": 2.0}, {"timeout": 2}), ({"memory": 1e6}, {"memory": 10**6}),
    ({"cpus": 2.0}, {"cpus": 2})])
def test_floats(wishes: dict[str, object], same: dict[str, object]) -> None:
    """What is left of a deadline is small, and a computed size is a float."""
    assert limits(**wishes) == limits(**same)


def test_less_than_a_microsecond_is_refused_as_what_it_is() -> None:
    assert "'0.000000001' is not between 1us and" in refused(timeout=1e-9).message


@pytest.mark.parametrize(("argv", "words"), [
    ("true", "is one text"), (b"true", "is one text"), (None, "None is no list"), (5, "5 is no list"),
    (["sleep", 1], "has 1 in it, which is no text (hint: write '1')")])
def test_commands_that_are_none(argv: object, words: str) -> None:
    assert words in str(refusal(make_spec, argv))


def test_a_command_of_bytes_and_paths() -> None:
    assert make_spec([b"echo", Path("/a"), b"\xff"]).argv == ("echo", "/a", "\udcff")
    assert "tuple" in refusal(Spec, argv=["true"]).message


def test_a_path_with_a_mark_in_it_is_sent_to_the_other_option() -> None:
    assert 'for a path with \':\', mount="type=bind,' in refused(volume="/a:b:/mnt").hint
    assert "mount" not in refused(volume="/a").hint
    assert 'for a path with \',\', volume="SRC:DST"' in refused(mount="type=bind,source=/a,b,target=/mnt").hint
