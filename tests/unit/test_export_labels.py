"""SELinux labels for other tools: only a whole context can be passed on."""

from __future__ import annotations

import json

from sandbox.box import compile_plan
from sandbox.options import make_spec
from sandbox.teach.export import Export, export
from support.saved_hosts import HOSTS


def made(tool: str, options: list[str]) -> Export:
    spec, host = make_spec(["sh"], security_opt=options), HOSTS["debian13-v2"]
    return export(tool, spec, host, compile_plan(spec, host, name="example")[0])


def test_a_whole_context_is_passed_on() -> None:
    parts = ["label=user:u", "label=role:r", "label=type:t", "label=level:s0:c1,c2"]
    assert "SELinuxContext=u:r:t:s0:c1,c2" in made("unit", parts).text
    assert json.loads(made("oci", parts).text)["process"]["selinuxLabel"] == "u:r:t:s0:c1,c2"
    some = made("unit", parts[:3])
    assert "SELinuxContext" not in some.text
    assert any("--security-opt label" in line for line in some.lost)
    assert not any("--security-opt label" in line for line in made("unit", ["label=disable"]).lost)
