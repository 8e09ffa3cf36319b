"""What ``--export`` prints, run by the tool it is for: the kernel then holds what it holds for ``sandbox run``.

Where a translation says that a value changes, the changed value is in :data:`DIFFERENT`, to the digit.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Iterator

import pytest

from sandbox.isolation.namespaces import BASE
from support.labs import Lab

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


def _exports(lab: Lab, names: Iterable[str], argv: list[str], cases: dict[str, dict[str, object]]
             ) -> dict[str, dict[str, str]]:
    """Texts by case and tool, for the lab's kernel."""
    asked = json.dumps([list(names), argv, cases]).encode()
    # A container lab has this machine's programs, the interpreter that runs the tests among them.
    done = lab.run("python3" if lab.engine == "vm" else sys.executable, "-c", EXPORT, input=asked, stdin=None)
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
        text += "StandardOutput=truncate:/run/exported.out\n"
        return lab.sh(f"cat >/run/systemd/system/exported.service <<'END'\n{text}END\n"
                      "systemctl daemon-reload; systemctl start --wait exported; cat /run/exported.out")
    assert name == "oci"
    # Root inside is another id outside, and makes the places for mounts.
    return _piped(lab, f"rm -rf /tmp/oci; mkdir -p /tmp/oci/rootfs; chown {BASE}:{BASE} /tmp/oci/rootfs; "
                       f"cat >/tmp/oci/config.json <<'END'\n{text}END\n"
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
    flags = ["--cgroup-parent=/"]  # in a cgroup below one whose memory.low is 0, it is refused
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


# -- isolation

LOOK = """
while read -r name value; do case $name in NoNewPrivs:|CapBnd:|CapEff:|Seccomp:) echo "$name $value";; esac
done </proc/self/status
while read -r name rest; do case $name in *:*) echo "device ${name%%:*}";; esac; done </proc/net/dev
for place in / /etc /tmp /run /mnt; do
    if (: >"$place/written") 2>/dev/null; then echo "writes $place"; else echo "cannot write $place"; fi
done
read -r line </mnt/file; echo "file $line"
read -r line </proc/sys/kernel/hostname; echo "host $line"
ulimit -c
"""
SEEN = ["CapEff: 0000000000000000", "CapBnd: 0000000000000000", "NoNewPrivs: 1", "Seccomp: 2", "device lo",
        "cannot write /", "cannot write /etc", "writes /tmp", "writes /run", "cannot write /mnt", "file shown"]
SHARE = "mkdir -p /srv/shared; echo shown >/srv/shared/file"
WISHES: dict[str, object] = {"volume": ["/srv/shared:/mnt:ro"], "hostname": "box"}


def _looks(lab: Lab, name: str, **more: object) -> list[str]:
    lab.sh(SHARE)
    return _run(lab, name, _export(lab, name, ["/bin/sh", "-c", LOOK], WISHES | more)).splitlines()


@pytest.mark.parametrize("name", ["unit", "docker", "podman", "oci"])
def test_isolation_arrives(machine: Lab, name: str) -> None:
    # A service has no host name of its own, as the translation says.
    host = machine.out("hostname") if name == "unit" else "box"
    assert _looks(machine, name) == [*SEEN, f"host {host}", "0"]


def test_isolation_arrives_in_a_service(machine: Lab) -> None:
    assert _looks(machine, "systemd-run", unit_type="service")[:len(SEEN)] == SEEN


@pytest.mark.parametrize("name", ["unit", "docker", "podman", "oci"])
def test_openings_arrive(machine: Lab, name: str) -> None:
    machine.sh("ip link show shown0 >/dev/null 2>&1 || ip link add shown0 type veth peer name shown1")
    shown = _looks(machine, name, network="host", cap_add=["net_raw"], hostname=None, uts="host",
                   volume=["/srv/shared:/mnt"], security_opt=["seccomp=unconfined"])
    # Root of a user namespace is nobody to the owner of the volume.
    volume = "cannot write /mnt" if name == "oci" else "writes /mnt"
    assert {"CapEff: 0000000000002000", "CapBnd: 0000000000002000", "file shown", volume,
            f"host {machine.out('hostname')}", "device shown0"} <= {*shown}


@pytest.fixture(scope="module")
def contained() -> Iterator[Lab]:
    """systemd 252 on cgroup v1, which has no PrivatePIDs=."""
    lab = Lab("container")
    try:
        yield lab
    finally:
        lab.down()


def test_isolation_arrives_with_an_older_systemd(contained: Lab) -> None:
    host = contained.out("hostname")
    assert _looks(contained, "unit") == [*SEEN, f"host {host}", "0"]
    assert _looks(contained, "systemd-run", unit_type="service") == [*SEEN, f"host {host}", "0"]
    opened = _looks(contained, "unit", network="host", cap_add=["net_raw"], volume=["/srv/shared:/mnt"],
                    security_opt=["seccomp=unconfined"])
    assert {"CapEff: 0000000000002000", "CapBnd: 0000000000002000", "writes /mnt"} <= {*opened}
