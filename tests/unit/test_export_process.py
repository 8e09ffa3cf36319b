"""Exports of process attributes: SELinux labels, of which only complete ones can be exported, OOM score, priorities."""

from __future__ import annotations

import json

from sandbox.box import compile_plan
from sandbox.options import make_spec
from sandbox.teach.export import Export, export
from support.saved_hosts import HOSTS


def made(tool: str, options: list[str] | None = None, **wishes: object) -> Export:
    spec, host = make_spec(["sh"], security_opt=options, **wishes), HOSTS["debian13-v2"]
    return export(tool, spec, host, compile_plan(spec, host, name="example")[0])


def test_a_whole_context_is_passed_on() -> None:
    parts = ["label=user:u", "label=role:r", "label=type:t", "label=level:s0:c1,c2"]
    assert "SELinuxContext=u:r:t:s0:c1,c2" in made("unit", parts).text
    assert json.loads(made("oci", parts).text)["process"]["selinuxLabel"] == "u:r:t:s0:c1,c2"
    some = made("unit", parts[:3])
    assert "SELinuxContext" not in some.text
    assert any("--security-opt label" in line for line in some.lost)
    assert not any("--security-opt label" in line for line in made("unit", ["label=disable"]).lost)


def test_the_oom_score() -> None:
    tools = ("docker", "podman", "systemd-run", "unit", "oci", "sh")
    text = {tool: made(tool, oom_score_adj=500).text for tool in tools}
    assert "--oom-score-adj=500 " in text["docker"]
    assert "--oom-score-adj=500 " in text["podman"]
    assert " choom -n 500 -- prlimit" in text["systemd-run"]
    assert "OOMScoreAdjust=500\n" in text["unit"]
    assert json.loads(text["oci"])["process"]["oomScoreAdj"] == 500
    assert "choom -n 500 -- " in text["sh"]
    assert any("--oom-score-adj" in sentence for sentence in made("k8s", oom_score_adj=500).lost)


def test_nice_and_ionice() -> None:
    wishes = {"nice": 7, "ionice": "best-effort:6"}
    assert " nice -n 7 ionice -c best-effort -n 6 prlimit" in made("systemd-run", **wishes).text
    assert "Nice=7\nIOSchedulingClass=best-effort\nIOSchedulingPriority=6\n" in made("unit", **wishes).text
    process = json.loads(made("oci", **wishes).text)["process"]
    assert process["scheduler"] == {"policy": "SCHED_OTHER", "nice": 7}
    assert process["ioPriority"] == {"class": "IOPRIO_CLASS_BE", "priority": 6}
    assert "nice -n 7 ionice -c best-effort -n 6 " in made("sh", **wishes).text
    for tool in ("docker", "podman", "k8s"):
        assert any("--nice" in sentence for sentence in made(tool, **wishes).lost)
        assert any("--ionice" in sentence for sentence in made(tool, **wishes).lost)
