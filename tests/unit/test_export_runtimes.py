"""Weights and rates in translations, by the version of the tool that is there; and how that is learnt."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.drivers import get
from sandbox.facts import Disk, Docker, Manager
from sandbox.host import Host, from_json, to_json
from sandbox.knobs import weight_from_shares
from sandbox.options import make_spec
from sandbox.teach import facts
from sandbox.teach.export import Export, ask, export
from sandbox.teach.export.runtimes import fewest_shares, linear
from sandbox.teach.info import text

HOSTS = Path(__file__).parent / "hosts"
OLD, NEW, UNKNOWN = Docker("28.2.2", "runc", "1.1.15+ds1-2"), Docker("28.2.2", "runc", "1.3.2"), Docker()


def saved(name: str, docker: Docker = UNKNOWN) -> Host:
    disks = (Disk("/data", "254:0", ("/data", "254:1 vda1", "254:0 vda")),)
    return from_json((HOSTS / f"{name}.json").read_text())._replace(disks=disks, docker=docker)


def made(tool: str, host: Host, **wishes: object) -> Export:
    spec = replace(make_spec(["sh"], best_effort=True, **wishes), env=())
    return export(tool, spec, host, get("cgroupfs").compile(spec, host, name="box"))


def told(found: Export, flag: str) -> str:
    return " ".join(sentence for sentence in found.lost if sentence.startswith(f"{flag}: "))


@pytest.mark.parametrize(("docker", "sentence"), [
    (OLD, "1536 shares become cpu.weight 59 by runc 1.1.15+ds1-2, docker's runtime here; sandbox writes 138."),
    (Docker("28.2.2", "crun", "1.22"), "become cpu.weight 59 by crun 1.22,"),
    (NEW, ""), (Docker("28.2.2", "runc", "1.4.0-rc.1"), ""), (Docker("28.2.2", "crun", "1.23"), ""),
    (UNKNOWN, "become cpu.weight 138 by runc 1.3.2 and crun 1.23 or later, but 59 by older ones; sandbox writes 138."),
    (Docker("28.2.2", "nvidia", "1.13"), "but 59 by older ones"), (Docker("28.2.2", "runc", "unknown"), "but 59 by"),
])
def test_shares_by_the_runtime_that_is_there(docker: Docker, sentence: str) -> None:
    found = made("docker", saved("debian13-v2", docker), cpu_shares="1536")
    assert "--cpu-shares=1536" in found.text
    assert sentence in told(found, "--cpu-shares")
    assert bool(sentence) == bool(told(found, "--cpu-shares"))


@pytest.mark.parametrize(("docker", "shares"), [(OLD, 5220), (NEW, 2437), (UNKNOWN, 2437)])
def test_a_weight_is_translated_back_for_the_runtime_that_is_there(docker: Docker, shares: int) -> None:
    found = made("docker", saved("debian13-v2", docker), cpu_weight="200")
    assert f"--cpu-shares={shares}" in found.text
    assert ("200 by runc 1.3.2 and crun 1.23 or later, but 93 by older" in told(found, "--cpu-weight")) == (
        docker == UNKNOWN)


def test_nothing_is_converted_on_cgroup_v1() -> None:
    host = saved("bookworm-v1", OLD)
    for wishes, word in (({"cpu_shares": "512"}, "--cpu-shares=512"), ({"blkio_weight": "500"}, "--blkio-weight=500"),
                         ({"blkio_weight_device": ["/data:300"]}, "--blkio-weight-device=/dev/vda:300")):
        found = made("docker", host, **wishes)
        assert word in found.text
        assert "weight" not in " ".join(found.lost)
    assert "--blkio-weight=118" in made("docker", host, io_weight="304").text
    pod = made("k8s", host, cpu_weight="200")
    assert 'cpu: "2000m"' in pod.text  # 2048 shares
    assert "cpu.weight" not in " ".join(pod.lost)
    limited = " ".join(made("k8s", host, cpus="0.5").lost)
    assert "512 shares, cpu.shares of cgroup v1" in limited


def test_a_pod_s_runtime_is_not_known() -> None:
    host = saved("debian13-v2", NEW)
    for found in (made("k8s", host, cpu_shares="512"), made("k8s", host, cpus="0.5")):
        assert "cpu.weight 59 by runc 1.3.2 and crun 1.23 or later, but 20 by older ones" in " ".join(found.lost)


def test_block_io_weights_by_the_runtime_that_is_there() -> None:
    def sentence(docker: Docker, **wishes: object) -> str:
        found = made("docker", saved("debian13-v2", docker), **wishes)
        return told(found, "--" + next(iter(wishes)).replace("_", "-"))

    either = "weight 500 becomes io.bfq.weight 500 where the kernel has that file, else io.weight 4950"
    assert sentence(OLD, blkio_weight="500").endswith(f"{either}; sandbox writes io.weight 4950.")
    assert f"{either} by runc and crun 1.5 or later;" in sentence(UNKNOWN, blkio_weight="500")
    assert "crun 1.4.5, docker's runtime here, starts no container" in sentence(Docker("20.10.5", "crun", "1.4.5"),
                                                                                blkio_weight="500")
    device = sentence(OLD, blkio_weight_device=["/data:500"])
    assert "weight 500 goes to io.bfq.weight; where the kernel has no such file, runc drops it" in device


@pytest.mark.parametrize(("client", "sentence"), [
    ("26.1.5+dfsg1", "the docker command 26.1.5+dfsg1, which is here, drops it"), ("27.1.1", "drops it"),
    ("25.0.6", "drops it"), ("25.0.7", ""), ("24.0.7", ""), ("28.2.2", ""),
    ("", "the docker command from 25.0 to 25.0.6 and from 26.0 to 27.1.1 drops it")])
def test_rates_by_the_command_that_is_there(client: str, sentence: str) -> None:
    found = made("docker", saved("debian13-v2", Docker(client)), device_read_bps=["/data:1m"])
    assert sentence in told(found, "--device-read-bps")
    assert bool(sentence) == bool(told(found, "--device-read-bps"))


def test_systemd_gets_shares_as_they_are_on_cgroup_v1() -> None:
    """systemd makes 604 shares of CPUWeight=59, which is what cgroup v2 would have for 512 shares."""
    for tool in ("systemd-run", "unit"):
        assert "CPUShares=512" in made(tool, saved("bookworm-v1"), cpu_shares="512").text
        assert "CPUShares=2048" in made(tool, saved("bookworm-v1"), cpu_weight="200").text
        assert "CPUWeight=59" in made(tool, saved("debian13-v2"), cpu_shares="512").text
        found = made(tool, saved("bookworm-v1"), io_weight="304")
        assert told(found, "--io-weight").endswith("systemd 252 makes blkio.bfq.weight 181 of IOWeight=304.")


@pytest.mark.parametrize(("version", "sentence"), [(0, "an older systemd than 257 keeps CPUQuota=33% from"), (257, "")])
def test_a_quota_where_the_version_of_systemd_is_not_known(version: int, sentence: str) -> None:
    host = saved("debian13-v2")._replace(manager=Manager(version=version), systemd_version=None)
    assert told(made("systemd-run", host, cpus="0.333"), "--cpus") == (
        sentence and f"--cpus: {sentence} the next daemon-reload on.")
    assert told(made("systemd-run", host, cpus="0.5"), "--cpus") == ""


@given(st.integers(1, 10000), st.sampled_from([linear, weight_from_shares]))
def test_the_fewest_shares_for_a_weight(weight: int, convert: Callable[[int], int]) -> None:
    shares = fewest_shares(weight, convert)
    assert convert(shares) >= weight
    assert shares == 2 or convert(shares - 1) < weight


# -- what docker says

CLIENT = {"Version": "26.1.5+dfsg1", "ApiVersion": "1.45"}
PARTS = [{"Name": "Engine", "Version": "26.1.5+dfsg1"}, {"Name": "containerd", "Version": "1.7.24"},
         {"Name": "runc", "Version": "1.1.15+ds1"}, {"Name": "docker-init", "Version": "0.19.0"}]


def install(directory: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int = 0) -> None:
    """A docker that answers so, and that notes that it was started."""
    program = directory / "docker"
    program.write_text(f"#!/bin/sh\n: >{directory}/started\ncat <<'END'\n{answer}\nEND\nexit {code}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")


@pytest.mark.parametrize(("answer", "code", "docker"), [
    (json.dumps({"Client": CLIENT, "Server": {"Components": PARTS}}), 0, Docker("26.1.5+dfsg1", "runc", "1.1.15+ds1")),
    (json.dumps({"Client": CLIENT, "Server": {"Components": PARTS[:2]}}), 0, Docker("26.1.5+dfsg1")),
    (json.dumps({"Client": CLIENT, "Server": None}), 1, Docker("26.1.5+dfsg1")),
    (json.dumps({"Client": {"APIVersion": "4.3.1", "Version": "4.3.1"}}), 0, Docker()),  # podman's
    ("no such flag", 125, Docker()), ("[]", 0, Docker()), ('{"Client": null}', 0, Docker()), ("", 0, Docker())])
def test_docker_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, docker: Docker
                         ) -> None:
    install(tmp_path, monkeypatch, answer, code)
    assert facts.docker() == docker
    assert ask("docker", Host(kernel="6")).docker == docker


def test_only_an_export_to_docker_starts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "{}")
    for name in ("podman", "oci", "k8s", "unit", "sh", "none of them"):
        assert ask(name, Host(kernel="6")) == Host(kernel="6")
    assert not (tmp_path / "started").exists()
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert facts.docker() == Docker()


def test_a_saved_host_has_it() -> None:
    host = Host(kernel="6", docker=OLD)
    assert from_json(to_json(host)).docker == OLD
    assert " Docker: 28.2.2, OCI runtime: runc 1.1.15+ds1-2\n" in text(host, "none", "")
    assert "unknown, the daemon does not answer\n" in text(Host(kernel="6", docker=Docker("28.2.2")), "none", "")
    assert "Docker" not in text(Host(kernel="6"), "none", "")
