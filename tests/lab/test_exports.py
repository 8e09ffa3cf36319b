"""What ``--export`` prints, run by the tool it is for: the kernel then holds what it holds for ``sandbox run``.

Where a translation says that a value changes, the changed value is in :data:`DIFFERENT`, to the digit.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator

import pytest
from labs import Lab

pytestmark = pytest.mark.tools
TOOLS = ("systemd-run", "unit", "docker", "podman", "oci")
FILES = ("memory.max", "memory.high", "memory.low", "memory.swap.max", "memory.oom.group", "cpu.max", "cpu.weight",
         "cpu.idle", "cpuset.cpus", "pids.max", "io.max", "io.weight")
# Nothing but the shell: the image for docker holds no more. In a cgroup namespace the path is that of its root.
SHOW = ["/bin/sh", "-c", 'IFS= read -r line </proc/self/cgroup; cd "/sys/fs/cgroup${line#0::}" && for file; do '
        '[ ! -e "$file" ] || while IFS= read -r line; do echo "$file=$line"; done <"$file"; done', "show", *FILES]
WORDS = ["$HOME", "${HOME}", "$$", "$(HOME)", "%n", "%%", ";", ";;", '"', "'", "\\", "\\n", "a\nb", "\t", "", "-x",
         "--", "&", "*", "~", "#", "é", " "]
ECHO = ["/bin/sh", "-c", 'for word; do printf "[%s]" "$word"; done', "echo", *WORDS]

DEFAULTS = {"memory.max": "max", "memory.high": "max", "memory.low": "0", "memory.swap.max": "max",
            "memory.oom.group": "0", "cpu.max": "max 100000", "cpu.weight": "100", "cpu.idle": "0", "pids.max": "max",
            "io.weight": "default 100"}
"""Of files that are not there when nothing is asked of their controller."""

CASES: dict[str, dict[str, object]] = {
    "all": {"memory": "64m", "memory_swap": "96m", "memory_high": "48m", "memory_low": "8m", "oom_group": True,
            "cpus": "0.5", "cpu_weight": "200", "cpuset_cpus": "0", "pids_limit": "20", "io_weight": "304",
            "device_read_bps": ["/dev/vda:1m"], "device_write_iops": ["/dev/vda:100"]},
    "memory": {"memory": "64m"},
    "fine": {"memory": "32m", "swap_max": "0", "cpus": "0.333", "cpu_shares": "512", "blkio_weight": "100"},
    "period": {"cpu_quota": "60000", "cpu_period": "200000", "cpu_idle": True,
               "cgroup_conf": ["memory.swap.high=16777216"]},
}
DIFFERENT: dict[tuple[str, str], dict[str, str | None]] = {
    ("systemd-run", "fine"): {"cpu.max": "34000 100000"},
    ("docker", "all"): {"memory.high": "max", "memory.oom.group": "0", "cpu.weight": "93", "io.max": None},
    ("docker", "fine"): {"cpu.weight": "20"},
    ("docker", "period"): {"cpu.idle": "0", "cpu.weight": "100"},
}
"""By (tool, case); None where the file is empty. docker's runc 1.1 makes weights of shares by the old formula, and
its command drops the rates of devices without a word before version 27.1.2 (docker/cli#5321)."""

EXPORT = """
import json, sys
from dataclasses import replace
from sandbox.box import probe_for
from sandbox.drivers import get
from sandbox.options import make_spec
from sandbox.teach.export import export
names, argv, cases = json.load(sys.stdin)
texts = {}
for case, wishes in cases.items():
    spec = make_spec(argv, **wishes)
    spec = replace(spec, env=tuple(pair for pair in spec.env if pair[0] in ("PATH", "HOME")))
    host = probe_for(spec)
    plan = get("cgroupfs").compile(spec, host, name="export")
    texts[case] = {name: export(name, spec, host, plan).text for name in names}
print(json.dumps(texts))
"""


@pytest.fixture(scope="module")
def machine() -> Iterator[Lab]:
    """A VM with swap, an image for docker, and dockerd, which needs no network of its own here."""
    lab = Lab("vm", "trixie")
    try:
        lab.sh("udevadm settle; swapon /dev/disk/by-id/virtio-swap; systemctl start containerd; "
               "systemd-run -q --unit=dockerd -p Type=notify dockerd --bridge=none --iptables=false --ip6tables=false; "
               "ldd /bin/sh | grep -o '/[^ ]*' | xargs tar -ch /bin/sh 2>/dev/null | docker import - shell")
        yield lab
    finally:
        lab.down()


def _exports(lab: Lab, names: Iterable[str], argv: list[str], cases: dict[str, dict[str, object]]
             ) -> dict[str, dict[str, str]]:
    """Texts by case and tool, for the lab's kernel."""
    asked = json.dumps([list(names), argv, cases]).encode()
    done = lab.run("python3", "-c", EXPORT, input=asked, stdin=None)
    assert done.returncode == 0, done.stderr.decode()
    texts: dict[str, dict[str, str]] = json.loads(done.stdout)
    return texts


def _export(lab: Lab, name: str, argv: list[str], wishes: dict[str, object]) -> str:
    return _exports(lab, [name], argv, {"": wishes})[""][name]


def _run(lab: Lab, name: str, text: str, *, runtime: str = "crun") -> str:
    """What the exported thing prints, run by its tool."""
    if name in ("systemd-run", "podman"):
        return _piped(lab, text)
    if name == "docker":
        return _piped(lab, text.replace("\n    IMAGE ", "\n    shell "))
    if name == "unit":
        text += "StandardOutput=truncate:/tmp/out\n"
        return lab.sh(f"cat >/run/systemd/system/exported.service <<'END'\n{text}END\n"
                      "systemctl daemon-reload; systemctl start --wait exported; cat /tmp/out")
    assert name == "oci"
    return _piped(lab, f"mkdir -p /tmp/oci/rootfs; cat >/tmp/oci/config.json <<'END'\n{text}END\n"
                       f"{runtime} run -b /tmp/oci oci")


def _piped(lab: Lab, script: str) -> str:
    """crun gives its stdin to the container's user: a pipe, not somebody's /dev/null."""
    return lab.sh(f": | {{ {script}\n}}")


def _values(output: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in output.splitlines():
        file, _, value = line.partition("=")
        found[file] = f"{found[file]}\n{value}" if file in found else value
    return DEFAULTS | found


@pytest.fixture(scope="module")
def ours(machine: Lab) -> dict[str, dict[str, str]]:
    """What the files say under ``sandbox run``, by case."""
    return {case: _ours(machine, wishes) for case, wishes in CASES.items()}


def _ours(lab: Lab, wishes: dict[str, object]) -> dict[str, str]:
    flags = []
    for name, value in wishes.items():
        flag = "--" + name.replace("_", "-")
        values = value if isinstance(value, list) else [value]
        flags += [flag] if value is True else [f"{flag}={one}" for one in values]
    return _values(lab.out("sandbox", "run", "--driver", "cgroupfs", *flags, "--", *SHOW))


@pytest.fixture(scope="module")
def texts(machine: Lab) -> dict[str, dict[str, str]]:
    return _exports(machine, TOOLS, SHOW, CASES)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", TOOLS)
def test_the_kernel_holds_the_same(machine: Lab, ours: dict[str, dict[str, str]], texts: dict[str, dict[str, str]],
                                   name: str, case: str) -> None:
    changed: dict[str, str | None] = {**ours[case], **DIFFERENT.get((name, case), {})}
    expected = {file: text for file, text in changed.items() if text is not None}
    if name == "docker" and expected["pids.max"] == "max":
        expected["pids.max"] = machine.out("systemctl", "show", "--value", "-p", "DefaultTasksMax")
    assert _values(_run(machine, name, texts[case][name])) == expected


def test_runc_reads_the_same_config(machine: Lab, ours: dict[str, dict[str, str]],
                                    texts: dict[str, dict[str, str]]) -> None:
    assert _values(_run(machine, "oci", texts["all"]["oci"], runtime="runc")) == ours["all"]


@pytest.mark.parametrize("name", TOOLS)
def test_words_arrive_as_they_are(machine: Lab, name: str) -> None:
    assert _run(machine, name, _export(machine, name, ECHO, {})) == "".join(f"[{word}]" for word in WORDS)


def test_a_service_by_systemd_run(machine: Lab) -> None:
    text = _export(machine, "systemd-run", ECHO, {"unit_type": "service", "ulimit": ["nofile=64:128"]})
    assert _piped(machine, text) == "".join(f"[{word}]" for word in WORDS)
    text = _export(machine, "systemd-run", ["sh", "-c", "ulimit -Sn; ulimit -Hn; pwd"], {
        "unit_type": "service", "ulimit": ["nofile=64:128"], "cwd": "/usr"})
    assert _piped(machine, text).split() == ["64", "128", "/usr"]


@pytest.mark.parametrize("name", ["systemd-run", "unit", "podman", "oci"])
def test_identity_directory_and_resource_limits(machine: Lab, name: str) -> None:
    argv = ["/bin/sh", "-c", "id -u; id -g; id -G; pwd; ulimit -Sn; ulimit -Hn; env | sort"]
    shown = _run(machine, name, _export(machine, name, argv, {
        "user": "user:user", "cwd": "/usr", "ulimit": ["nofile=64:128"]})).split()
    assert shown[:6] == ["1000", "1000", "1000", "/usr", "64", "128"]
    assert "HOME=/home/user" in shown


def test_wall_time(machine: Lab) -> None:
    for name in ("systemd-run", "podman"):
        text = _export(machine, name, ["sleep", "60"], {"timeout": "1"})
        assert machine.run("sh", "-c", f": | {{ {text}\n}}").returncode != 0
    assert machine.out("sh", "-c", "pgrep -x sleep || true") == ""


def test_quoting_of_bytes_that_are_no_text(machine: Lab) -> None:
    """The scope's command line is for bash, and a unit file takes bytes as escapes."""
    argv = ["/bin/sh", "-c", 'printf %s "$1" | od -An -tx1', "od", "a\udcffb\x01"]
    for name in ("systemd-run", "unit"):
        text = _export(machine, name, argv, {})
        shown = _run(machine, name, f"bash -c {shlex.quote(text)}" if name == "systemd-run" else text)
        assert shown.split() == ["61", "ff", "62", "01"]
