"""The same run for other tools: nothing that was asked for goes missing in silence, and every word is quoted."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.drivers import get
from sandbox.errors import SpecError
from sandbox.facts import Disk, Node, Place
from sandbox.host import Host, from_json
from sandbox.options import make_spec
from sandbox.spec import Limits, Spec
from sandbox.teach.export import NAMES, Export, export, isolation
from sandbox.teach.export.quoting import shell_word, unit_word

SECRETS = ("/home/anna/.ssh", "/etc/shadow")
HOSTS = {path.stem: from_json(path.read_text()) for path in sorted((Path(__file__).parent / "hosts").glob("*.json"))}
V2, V1 = "debian13-v2", "bookworm-v1"
LIMITS: dict[str, object] = {
    "cpus": "0.5", "cpu_quota": "50000", "cpu_period": "50000", "cpu_weight": "200", "cpu_shares": "512",
    "cpu_idle": True, "cpu_burst": "5000", "cpuset_cpus": "0", "cpuset_mems": "0", "memory": "64m",
    "memory_high": "48m", "memory_low": "8m", "memory_min": "4m", "memory_swap": "96m", "swap_max": "0",
    "memory_swappiness": "10", "oom_group": True, "pids_limit": "20", "device_read_bps": ["/data:1m"],
    "device_write_bps": ["/data:2m"], "device_read_iops": ["/data:100"], "device_write_iops": ["/data:200"],
    "blkio_weight": "100", "io_weight": "304", "blkio_weight_device": ["/data:100"], "hugetlb": ["2M:64M"],
    "cgroup_conf": ["memory.swap.high=16777216"], "ulimit": ["nofile=64:128"], "timeout": "5", "cpu_time": "2",
}
DEVICES = ("/dev/fuse", "/dev/dri/renderD128")
ALONE = {"memory_swap": {"memory": "64m"}}
"""What a wish needs beside it."""


def made(tool: str, argv: list[str] | None = None, host: str = V2, **wishes: object) -> Export:
    spec = make_spec(argv or ["sh"], **wishes)
    return exported(tool, replace(spec, env=(("PATH", "/usr/bin:/bin"), ("SECRET", "hunter2"))), host)


def exported(tool: str, spec: Spec, host: str) -> Export:
    disks = (Disk(path="/data", device="254:0", chain=("/data", "254:1 vda1", "254:0 vda")),)
    nodes = tuple(Node(path, "c", 10, number, 0o666, 0, 0, "rwm") for number, path in enumerate(DEVICES))
    machine: Host = HOSTS[host]._replace(disks=disks, nodes=nodes, secrets=SECRETS,
                                         places=tuple(Place(path, "file", path) for path in DEVICES),
                                         mounts=(*HOSTS[host].mounts, ("/srv", "ext4")))
    plan = get("none" if host == "none" else "cgroupfs").compile(replace(spec, driver="auto"), machine,
                                                                    name=spec.name or "box")
    return export(tool, spec, machine, plan)


def options(tool: str, **wishes: object) -> list[str]:
    """The words of a command line before the command."""
    words = shlex.split(made(tool, **wishes).text)
    return words[:words.index({"docker": "IMAGE", "podman": "--rootfs", "systemd-run": "--"}[tool])]


def test_the_table_above_has_every_limit() -> None:
    assert set(LIMITS) == {field.name for field in fields(Limits)}


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("field", LIMITS)
@pytest.mark.parametrize("name", [name for name in NAMES if name != "sh"])
def test_each_limit_arrives_or_is_told(name: str, field: str, host: str) -> None:
    beside = ALONE.get(field, {})
    without, one = made(name, host=host, **beside), made(name, host=host, **beside, **{field: LIMITS[field]})
    flag = "--" + field.replace("_", "-")
    assert one.text != without.text or any(flag in sentence for sentence in one.lost)
    assert all(sentence.endswith(".") and "\n" not in sentence for sentence in one.lost)


@pytest.mark.parametrize("name", NAMES)
def test_secrets_stay_out(name: str) -> None:
    result = made(name)
    assert "hunter2" not in result.text + " ".join(result.lost)
    assert any("SECRET" in sentence for sentence in result.lost)
    assert "/usr/bin:/bin" in result.text


def test_unknown_tool() -> None:
    with pytest.raises(SpecError, match="did you mean podman"):
        made("podmann")


def test_swap_is_counted_as_each_tool_counts_it() -> None:
    wishes = {"memory": "64m", "memory_swap": "96m"}
    assert "MemorySwapMax=32M" in options("systemd-run", **wishes)
    assert f"--memory-swap={96 << 20}" in options("docker", **wishes)
    assert json.loads(made("oci", **wishes).text)["linux"]["resources"]["memory"]["swap"] == 96 << 20
    assert "--memory-swap=-1" in options("podman", memory="64m", swap_max="max")
    assert "--cgroup-conf=memory.swap.max=0" in options("podman", swap_max="0")


def test_rounding_is_told() -> None:
    scope, unit = made("systemd-run", host=V1, cpus="0.333"), made("unit", cpus="0.333")
    assert "CPUQuota=34%" in scope.text and any("34%" in sentence for sentence in scope.lost)
    assert "CPUQuota=33.3%" in made("systemd-run", cpus="0.333").text
    assert "CPUQuota=33.3%\n" in unit.text
    assert not any("rounded" in sentence for sentence in unit.lost)
    assert "activeDeadlineSeconds: 2" in made("k8s", timeout="1.2").text


def test_weights_by_the_formula_of_each_tool() -> None:
    assert json.loads(made("oci", cpu_shares="512").text)["linux"]["resources"]["unified"] == {"cpu.weight": "59"}
    legacy = json.loads(made("oci", host=V1, cpu_shares="512").text)["linux"]["resources"]
    assert (legacy["cpu"], "unified" in legacy) == ({"shares": 512}, False)


def test_what_only_the_other_cgroup_version_has() -> None:
    assert "MemoryHigh" not in made("systemd-run", host=V1, memory_high="48m").text
    assert "--memory-swappiness=10" in made("docker", host=V1, memory_swappiness="10").text
    assert "swappiness=" not in made("docker", memory_swappiness="10").text


def test_one_line_for_one_file() -> None:
    result = made("podman", cgroup_conf=["io.latency=254:0 target=1", "io.latency=254:16 target=2"])
    assert result.text.count("io.latency") == 1
    assert any("254:16 target=2" in sentence for sentence in result.lost)


WORDS = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1, max_size=5)


@given(WORDS)
def test_shell_quoting(words: list[str]) -> None:
    quoted = [shell_word(word) for word in words]
    plain = [(word, text) for word, text in zip(words, quoted, strict=True) if not text.startswith("$'")]
    assert shlex.split(" ".join(text for _, text in plain)) == [word for word, _ in plain]


@pytest.mark.parametrize("word", ["a\x01b", "\udcff'\\", "$'\x7f", "\x1b[0m\n"])
@pytest.mark.requires("bash")
def test_shell_quoting_of_what_cannot_be_typed(word: str) -> None:
    text = f"printf %s {shell_word(word)}"
    assert text.isascii()
    assert subprocess.run(["bash", "-c", text], capture_output=True, check=True).stdout == os.fsencode(word)


@pytest.mark.parametrize(("word", "text"), [
    ("plain", "plain"), ("", '""'), ("a b", '"a b"'), ('"', '"\\""'), ("\\", '"\\\\"'), ("%n", '"%%n"'),
    ("$HOME", '"$$HOME"'), ("a\nb\t", '"a\\nb\\t"'), ("\udcff", '"\\xff"'), ("é", '"é"'), (";", '";"'),
])
def test_unit_quoting(word: str, text: str) -> None:
    assert unit_word(word, command=True) == text


def test_dollars() -> None:
    assert "$$(HOME)" in made("k8s", ["sh", "-c", "echo $(HOME)"]).text
    assert "--expand-environment=no" in made("systemd-run", ["echo", "$HOME"]).text
    assert unit_word("$HOME") == '"$HOME"'


def test_a_command_line_ends_with_the_command() -> None:
    argv = ["sh", "-c", 'echo "$1"', "a b", "", "--", "-x"]
    for name in ("systemd-run", "docker", "podman"):
        assert shlex.split(made(name, argv).text)[-len(argv):] == argv


def test_bytes_that_are_no_text() -> None:
    for name in ("docker", "podman", "oci", "k8s"):
        assert any("UTF-8" in sentence for sentence in made(name, ["printf", "\udcff"]).lost)
        made(name, ["printf", "\udcff"]).text.encode()
    assert not any("UTF-8" in sentence for sentence in made("systemd-run", ["printf", "\udcff"]).lost)
    for name in ("systemd-run", "unit"):
        made(name, ["printf", "\udcff"], cwd="/\udcff").text.encode()


def test_scope_and_service() -> None:
    wishes = {"ulimit": ["nofile=64:128"], "cwd": "/usr", "user": "1000:1000"}
    scope = made("systemd-run", **wishes).text
    assert "LimitNOFILE" not in scope
    assert 'prlimit --core=0:0 --nofile=64:128 env -i PATH=/usr/bin:/bin SECRET="$SECRET"' in scope
    service = made("systemd-run", unit_type="service", **wishes).text
    assert "-p LimitNOFILE=64:128" in service
    assert "-E SECRET" in service
    for text in (scope, service):
        assert "--uid=1000 --gid=1000" in text
        assert "--working-directory=/usr" in text


def test_a_relative_command_in_a_unit() -> None:
    assert "ExecStart=@/srv/./go ./go x\n" in made("unit", ["./go", "x"], cwd="/srv").text
    assert "ExecSearchPath=/usr/bin:/bin\nExecStart=go\n" in made("unit", ["go"]).text


def test_config_json() -> None:
    config = json.loads(made("oci", cwd="/data/x", name="n", cgroup_parent="/ci", user="1000:1000",
                             device_read_bps="/data:1m", device_write_bps="/data:max", ulimit=["nofile=64:-1"]).text)
    assert config["linux"]["cgroupsPath"] == "/ci/sandbox-n"
    assert config["linux"]["resources"]["blockIO"] == {
        "throttleReadBpsDevice": [{"major": 254, "minor": 0, "rate": 1 << 20}]}
    assert config["process"]["rlimits"] == [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
                                            {"type": "RLIMIT_NOFILE", "soft": 64, "hard": 2**64 - 1}]
    assert config["process"]["user"] == {"uid": 1000, "gid": 1000}
    assert "/data" in [mount["destination"] for mount in config["mounts"]]
    assert "network" in [one["type"] for one in config["linux"]["namespaces"]]


def test_pod() -> None:
    text = made("k8s", name="My_Box", cpus="0.5", memory="64m", hugetlb=["2M:64M"]).text
    assert 'name: "sandbox-my-box"' in text
    for line in ('cpu: "500m"', f'memory: "{64 << 20}"', f'hugepages-2Mi: "{64 << 20}"', 'key: "SECRET"'):
        assert line in text


def test_a_disk_is_named() -> None:
    assert f"--device-read-bps=/dev/vda:{1 << 20}" in options("docker", device_read_bps=["/data:1m"])
    assert f"IOReadBandwidthMax=/dev/block/254:0 {1 << 20}" in options("systemd-run", device_read_bps=["/data:1m"])


def test_the_shell_script_is_the_plan() -> None:
    result = made("sh", memory="64m")
    assert result.text.startswith("#!/bin/sh\n")
    assert "SECRET=***" in result.text
    assert subprocess.run(["sh", "-n"], input=result.text.encode(), check=False).returncode == 0


# -- isolation

FILTER = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
    {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
    {"names": ["personality"], "action": "SCMP_ACT_KILL_PROCESS", "includes": {"caps": ["CAP_SYS_ADMIN"]},
     "args": [{"index": 0, "value": 8, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}]}
ISOLATION: dict[str, list[object]] = {
    "network": ["host", "veth"], "publish": [["8080:80"], ["127.0.0.1:53:53/udp"]], "net_rate": ["10mbit"],
    "net_delay": ["20ms"], "pid": ["host"], "ipc": ["host"], "uts": ["host"], "userns": ["host"], "cgroupns": ["host"],
    "ns": [[f"{kind}:/run/{kind}"] for kind in ("net", "ipc", "uts", "time", "cgroup")], "hostname": ["box"],
    "rootfs": ["/srv/root"], "read_only": [True], "overlay": [True], "commit": ["/srv/layer"],
    "volume": [["/srv/a,b:/mnt"], ["/srv:/mnt:ro"]], "tmpfs": [["/scratch:size=1m,mode=700"], ["/scratch:ro"]],
    "cap_add": [["net_raw"], ["ALL"]], "cap_drop": [["chown"]],
    "security_opt": [["seccomp=unconfined"], ["seccomp=moby"], ["seccomp={filter}"], ["apparmor=mine"],
                     ["label=container_t"]],
    "device": [["/dev/fuse"]], "gpu": [True], "nest": [True], "seccomp_log": [True], "preserve_fds": [2],
    "protect_home": ["tmpfs", "off"], "unmask": [["/etc/shadow"]],
}
"""A value for each field of the Spec about isolation that is not its default."""
WITH: dict[str, dict[str, object]] = {
    "publish": {"network": "veth"}, "net_rate": {"network": "veth"}, "net_delay": {"network": "veth"},
    "read_only": {"rootfs": "/srv/root"}, "commit": {"overlay": True}, "cap_drop": {"cap_add": ["ALL"]},
}
"""What it needs beside it."""
VALUES = [(field, value) for field, values in ISOLATION.items() for value in values
          if field in {one.name for one in fields(Spec)}]


def test_every_field_is_about_isolation_or_is_not() -> None:
    """A new one comes into the table, or into the list of those that are about something else."""
    assert {field.name for field in fields(Spec)} - isolation.ELSEWHERE <= set(ISOLATION)
    assert not isolation.ELSEWHERE & isolation.TRANSLATED


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    (tmp_path / "filter.json").write_text(json.dumps(FILTER))
    return tmp_path / "filter.json"


@pytest.mark.parametrize("host", [V2, V1])
@pytest.mark.parametrize(("field", "value"), VALUES)
@pytest.mark.parametrize("name", [*NAMES, "service"])
def test_isolation_arrives_or_is_told(name: str, field: str, value: object, host: str, profile: Path) -> None:
    beside = dict(WITH.get(field, {}))
    if name == "service":
        name, beside["unit_type"] = "systemd-run", "service"
    if isinstance(value, list):
        value = [one.replace("{filter}", str(profile)) for one in value]
    without, one = made(name, host=host, **beside), made(name, host=host, **beside, **{field: value})
    flag = "--" + field.replace("_", "-")
    assert one.text != without.text or any(flag in sentence for sentence in one.lost) or (
        set(without.lost) - set(one.lost)), "it went missing in silence"
    assert all(sentence.endswith(".") and "\n" not in sentence for sentence in one.lost)


def test_what_no_tool_knows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "TRANSLATED", isolation.TRANSLATED - {"hostname"})
    assert "--hostname: oci is not told of it." in made("oci", hostname="box").lost


@pytest.mark.parametrize("name", [name for name in NAMES if name != "sh"])
@pytest.mark.parametrize(("abi", "wishes", "told"), [
    (6, {"pid": "host"}, True), (6, {"network": "host"}, True), (6, {}, False), (5, {"pid": "host"}, False)])
def test_landlock_is_missed_where_namespaces_are_shared(name: str, abi: int, wishes: dict[str, str], told: bool,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HOSTS, V2, HOSTS[V2]._replace(landlock_abi=abi))
    assert any("Landlock" in sentence for sentence in made(name, **wishes).lost) is told


@pytest.mark.parametrize("name", ["docker", "podman"])
def test_containers_are_closed_by_default(name: str) -> None:
    words = options(name)
    for word in ("--network=none", "--ipc=private", "--cgroupns=private", "--cap-drop=ALL", "--read-only",
                 "--security-opt=no-new-privileges", "--ulimit=core=0:0"):
        assert word in words
    assert any(word.startswith("--tmpfs=/tmp:") and "mode=1777" in word for word in words)
    file = next(word for word in words if word.startswith("--security-opt=seccomp="))
    assert json.loads(Path(file.rpartition("=")[2]).read_text())["defaultAction"] == "SCMP_ACT_ERRNO"
    assert not any(word.startswith(("--pid=", "--uts=", "--userns=", "--cap-add=")) for word in words)


def test_containers_are_opened_as_asked() -> None:
    words = options("docker", network="veth", publish=["127.0.0.1:8080:80"], pid="host", cap_add=["net_raw"],
                    volume=["/srv/a,b:/mnt:ro"], overlay=True, security_opt=["seccomp=unconfined"])
    for word in ("--network=bridge", "--publish=127.0.0.1:8080:80/tcp", "--pid=host", "--cap-add=NET_RAW",
                 '--mount=type=bind,"source=/srv/a,b",target=/mnt,readonly', "--security-opt=seccomp=unconfined"):
        assert word in words
    assert "--read-only" not in words
    assert "--device=/dev/fuse:/dev/fuse:rwm" in options("docker", device=["/dev/fuse"])
    assert "--device=/dev/dri/renderD128:/dev/dri/renderD128:rw" in options("podman", gpu=True)
    assert "--network=ns:/run/netns/blue" in options("podman", ns=["net:/run/netns/blue"])
    assert shlex.split(made("podman", rootfs="/srv/root").text)[-3:] == ["--rootfs", "/srv/root", "sh"]


def test_a_service_is_closed_by_default_and_a_scope_in_no_way() -> None:
    closed = ("NoNewPrivileges=yes", "CapabilityBoundingSet=", "PrivateNetwork=yes", "PrivateIPC=yes", "LimitCORE=0",
              "PrivateUsers=yes", "PrivateDevices=yes", "ProtectSystem=strict", "ProtectHome=read-only",
              "TemporaryFileSystem=/tmp:rw,nosuid,nodev,exec,mode=1777,size=50%", "RestrictNamespaces=yes")
    service, unit = made("systemd-run", unit_type="service"), made("unit")
    for line in closed:
        assert line in unit.text.splitlines()
        assert line in shlex.split(service.text)
    scope = made("systemd-run", volume=["/srv:/mnt"], cap_add=["net_raw"])
    assert not any(line in scope.text for line in closed)
    told = [sentence for sentence in scope.lost if "isolates nothing" in sentence]
    assert len(told) == 1
    assert told[0].endswith("Lost are --volume, --cap-add.")


def test_paths_of_a_service() -> None:
    wishes = {"volume": ["/srv/a b:/mnt", "/srv/50%:/opt:ro"]}
    assert {'BindPaths="/srv/a b":/mnt:rbind', 'BindReadOnlyPaths="/srv/50%%":/opt:rbind'} <= set(
        made("unit", **wishes).text.splitlines())
    assert 'BindReadOnlyPaths="/srv/50%":/opt:rbind' in shlex.split(
        made("systemd-run", unit_type="service", **wishes).text)


def test_config_json_is_closed_by_default() -> None:
    config = json.loads(made("oci").text)
    kinds = {one["type"] for one in config["linux"]["namespaces"]}
    assert kinds == {"mount", "pid", "user", "network", "ipc", "uts", "cgroup"}
    assert config["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 1_000_000_000, "size": 65_536}]
    assert config["process"]["noNewPrivileges"] is True
    assert not any(config["process"]["capabilities"].values())
    assert config["root"] == {"path": "rootfs", "readonly": True}
    assert "/proc/kcore" in config["linux"]["maskedPaths"]
    for mount in config["mounts"]:
        assert mount["type"] != "bind" or {"ro", "nosuid", "nodev"} <= set(mount["options"])
    assert [mount["type"] for mount in config["mounts"] if mount["destination"] == "/tmp"] == ["tmpfs"]


def test_config_json_with_the_host_s_namespaces() -> None:
    config = json.loads(made("oci", network="host", pid="host", ipc="host", volume=["/srv:/mnt"]).text)
    binds = {mount["destination"]: mount["options"] for mount in config["mounts"] if mount["type"] == "bind"}
    assert {"/proc", "/sys", "/dev/shm"} <= set(binds), "a new user namespace may not mount those anew"
    assert "rw" in binds["/mnt"]
    assert {"type": "network", "path": "/run/netns/blue"} in json.loads(
        made("oci", ns=["net:/run/netns/blue"]).text)["linux"]["namespaces"]


def test_the_filter_is_settled_for_the_machine(profile: Path) -> None:
    def filtered(**wishes: object) -> dict[str, object]:
        text = made("oci", security_opt=[f"seccomp={profile}"], **wishes).text
        found: dict[str, object] = json.loads(text)["linux"]["seccomp"]
        return found

    refused = {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
    killed = {"names": ["personality"], "action": "SCMP_ACT_KILL_PROCESS", "args": [
        {"index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": 8, "valueTwo": 0}]}
    assert filtered() == {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [refused]}
    assert filtered(cap_add=["SYS_ADMIN"])["syscalls"] == [refused, killed]
    whole = json.loads(made("oci").text)["linux"]["seccomp"]
    assert whole["defaultAction"] == "SCMP_ACT_ERRNO"
    assert "seccomp" not in json.loads(made("oci", security_opt=["seccomp=unconfined"]).text)["linux"]


def test_a_pod_is_closed_by_default() -> None:
    text = made("k8s").text
    for line in ("allowPrivilegeEscalation: false", 'drop: ["ALL"]', "readOnlyRootFilesystem: true", "hostUsers: false",
                 'type: "RuntimeDefault"', "automountServiceAccountToken: false", 'mountPath: "/tmp"'):
        assert line in text
    text = made("k8s", network="host", volume=["/srv:/mnt:ro"], security_opt=["label=level:s0"]).text
    for line in ("hostNetwork: true", 'path: "/srv"', 'level: "s0"'):
        assert line in text
    assert "hostUsers" not in text
