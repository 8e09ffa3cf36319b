"""A message names an option as its reader writes it: as a flag, as a keyword, or as a key of a file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sandbox_cli import commands

import sandbox
from sandbox import config
from sandbox.box import compile_plan
from sandbox.errors import SandboxError, SpecError, StepError
from sandbox.execute import Executor
from sandbox.options import TABLE, Option, make_spec
from sandbox.records import Device, Joined, Tmpfs, Ulimit, Volume
from sandbox.spec import Limits, Spec
from sandbox.spelling import as_flag, as_toml, speaking, spelled
from sandbox.steps import Phase, Plan, Step
from support.saved_hosts import HOSTS

TYPED = "a\0--memory"
"""A value that no option takes. What looks like a flag in it must stay as it is."""
SHOWN = repr(TYPED)
OTHERS = re.compile(r"(systemctl|systemd-run|docker run|mount|usermod|sysctl)( [\w./:=-]+)* --[a-z-]+")
"""Flags of other programs in what is to be typed."""


def value_and_shown(option: Option) -> tuple[object, str]:
    """A bad value, and how an error shows it."""
    return (TYPED, SHOWN) if option.parse else ("maybe", "'maybe'")


@pytest.mark.parametrize("option", TABLE, ids=lambda option: option.name)
def test_an_error_of_the_library_names_keywords(option: Option) -> None:
    bad, shown = value_and_shown(option)
    with pytest.raises(SpecError) as caught:
        make_spec(["true"], **{option.name: bad})
    assert caught.value.message.startswith(f"{option.name}: ") and shown in caught.value.message
    assert "--" not in str(caught.value).replace(shown, "")
    assert caught.value.field in (option.name, f"limits.{option.name}")


@pytest.mark.parametrize("option", TABLE, ids=lambda option: option.name)
def test_an_error_of_the_program_names_flags(option: Option, capfd: pytest.CaptureFixture[str]) -> None:
    bad, shown = value_and_shown(option)
    values = {option.name: [bad] if option.repeatable else bad}
    assert commands.exit_code(lambda: commands.run(["true"], values)) == 2
    told = capfd.readouterr().err
    assert told.startswith(f"sandbox: {option.flag}: ") and shown in told
    assert f"{option.name}=" not in told
    assert spelled(option.name) == option.name  # what the program did does not stay


@pytest.mark.parametrize("option", TABLE, ids=lambda option: option.name)
def test_an_error_of_a_file_names_keys(option: Option, tmp_path: Path) -> None:
    bad, shown = value_and_shown(option)
    file = tmp_path / "config.toml"
    file.write_text(f'[profile.a]\n{option.flag[2:]} = "{str(bad).replace(chr(0), chr(92) + "u0000")}"\n')
    with pytest.raises(SpecError) as caught:
        config.defaults({"HOME": str(tmp_path)}, system_file=str(file))
    assert caught.value.message.startswith(f"{file}: [profile.a] {option.flag[2:]}: ") and shown in caught.value.message
    assert "--" not in str(caught.value).replace(shown, "")


@pytest.mark.parametrize(("field", "values", "flag", "keyword", "key"), [
    ("limits.memory_high", (), "--memory-high", "memory_high", "memory-high"),
    ("memory", ("64m",), "--memory 64m", 'memory="64m"', 'memory = "64m"'),
    ("cwd", ("/a",), "--workdir /a", 'cwd="/a"', 'workdir = "/a"'),
    ("overlay", (True,), "--overlay", "overlay=True", "overlay = true"),
    ("driver", ("systemd", "cgroupfs"), "--driver systemd or cgroupfs", 'driver="systemd" or "cgroupfs"',
     'driver = "systemd" or "cgroupfs"'),
    ("oom_score_adj", (-1000,), "--oom-score-adj -1000", "oom_score_adj=-1000", "oom-score-adj = -1000"),
    ("name", ('a"b', "c'd"), "--name a\"b or c'd", """name='a"b' or "c'd\"""", """name = 'a"b' or "c'd\""""),
    ("argv", (), "", "", "")])
def test_each_style(field: str, values: tuple[object, ...], flag: str, keyword: str, key: str) -> None:
    assert spelled(field, *values) == keyword
    with speaking(as_flag):
        assert spelled(field, *values) == flag
    with speaking(as_toml):
        assert spelled(field, *values) == key
    assert spelled(field, *values) == keyword


CONTRADICTIONS: list[dict[str, object]] = [
    {"unit": "a.service"}, {"oom_score_adj": -1000, "limits": Limits(memory=1 << 20)}, {"name": "a/b"},
    {"name": "tasks"}, {"name": "a.service"}, {"limits": Limits(cpus=1, cpu_quota=5000)},
    {"limits": Limits(cpu_weight=1, cpu_shares=2)}, {"limits": Limits(cpu_weight=1, cpu_idle=True)},
    {"limits": Limits(memory_swap=1, swap_max=1)}, {"limits": Limits(memory_swap=1)},
    {"limits": Limits(memory_swap=1, memory=2)}, {"limits": Limits(io_weight=1, blkio_weight=10)},
    {"limits": Limits(ulimit=(Ulimit("core", 0, 0), Ulimit("core", 1, 1)))}, {"commit": "/c"},
    {"overlay": True, "read_only": True}, {"hostname": "a", "uts": "host"}, {"net_delay": 1.0},
    {"nest": True, "pid": "host"}, {"nest": True, "security_opt": ("seccomp=moby",)},
    {"seccomp_log": True, "security_opt": ("seccomp=unconfined",)}, {"ns": (Joined("net", "/n"), Joined("net", "/m"))},
    {"volume": (Volume("/a", "/b", False),), "tmpfs": (Tmpfs("/b"),)}, {"device": (Device("/a", "/b"),) * 2}]


@pytest.mark.parametrize("wishes", CONTRADICTIONS, ids=str)
def test_contradictions(wishes: dict[str, object]) -> None:
    with pytest.raises(SpecError) as caught:
        Spec(argv=("true",), **wishes)  # type: ignore[arg-type]
    assert "--" not in str(caught.value)
    with speaking(as_flag), pytest.raises(SpecError, match=r"--[a-z]") as caught:
        Spec(argv=("true",), **wishes)  # type: ignore[arg-type]
    assert not re.search(r"\b[a-z]+_[a-z]+\b|[a-z]=[\"T]", str(caught.value))


REFUSED: list[dict[str, object]] = [
    {"driver": "none", "memory": "1m", "cpu_time": 1}, {"driver": "cgroupfs", "memory": "1m", "slice": "a"},
    {"driver": "cgroupfs", "cgroup_parent": "/nowhere"}, {"driver": "systemd", "memory": "1m"}, {"driver": "nosuch"},
    {"driver": "systemd", "cpu_idle": True, "cgroup_conf": ["cpu.weight=5"]}, {"memory_swap": "64m", "memory": "32m"},
    {"swap_max": "1m"}, {"memory_swappiness": 5}, {"oom_group": True}, {"cpuset_cpus": "0"}, {"io_weight": 5},
    {"rootfs": "/etc/passwd"}, {"overlay": True}, {"overlay": True, "commit": "/nowhere"}, {"gpu": True},
    {"volume": "/nowhere:/mnt"}, {"volume": "/etc/passwd:/mnt"}, {"volume": "/usr:/nowhere"}, {"userns": "host"},
    {"nest": True, "network": "host"}, {"nest": True, "userns": "host"}, {"device": "/dev/nothing"},
    {"device": "/dev/null"}, {"network": "veth"}, {"user": "1:1"}, {"tmpfs": "/no/where"},
    {"device_read_bps": "/nowhere:1m"}, {"hugetlb": "2M:4M", "cgroup_conf": "hugetlb.2MB.max=1"}]


@pytest.mark.parametrize("name", HOSTS)
def test_plans_that_are_refused(name: str) -> None:
    """Every reason and remedy that the saved hosts lead to, as an error of either."""
    def told(wishes: dict[str, object]) -> str:
        try:
            plan = compile_plan(make_spec(["true"], **wishes), HOSTS[name], name="x")[0]
        except SandboxError as error:
            return str(error)
        return " ".join(f"{one.reason}: {one.remedy}" for one in plan.unmet)

    for wishes in REFUSED:
        text = told(wishes)
        assert "--" not in OTHERS.sub("", text), (wishes, text)
        with speaking(as_flag):
            text = told(wishes)
        assert not re.search(r'\b[a-z]+=(?:"|True)', text), (wishes, text)


@pytest.mark.parametrize("call", [sandbox.Sandbox, sandbox.plan])
@pytest.mark.parametrize("spec", [["true"], "true", None])
def test_what_is_no_spec(call: Callable[[Any], object], spec: object) -> None:
    with pytest.raises(SpecError, match=r"a \w+ is no Spec \(hint: make_spec\(\[program"):
        call(spec)


def test_a_launcher_for_no_driver() -> None:
    with pytest.raises(SpecError, match="driver: there is no driver 'nosuch'"), sandbox.Launcher(driver="nosuch"):
        pass


def test_a_state_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    executor = Executor(Plan(driver="none", name="x", steps=()), (None, None, None))
    with pytest.raises(StepError, match=r"cannot keep anything in .*/file/sandbox: Not a directory") as caught:
        executor._makedirs(Step("makedirs", Phase.SPAWN, (f"{tmp_path}/file/sandbox",)))
    assert caught.value.hint.startswith("the state of each run is kept there: mount a tmpfs at /run")
