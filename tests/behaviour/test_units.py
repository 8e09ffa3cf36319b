"""What a sandbox is to systemd: a unit with the asked properties, there for as long as the run, gone afterwards."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.machine import SLOWER, cgroup_file, charged, eventually, holders
from support.sandbox_run import BESIDE_SYSTEMD, Program, Running, names, python
from support.selection import DRIVERS
from support.systemctl import MANAGER, systemctl
from support.systemd_connections import ALTOGETHER, MESSAGE_BUS, OWN_SOCKET, PER_USER, Crowd
from support.warm_program import warm

sandbox = warm
pytestmark = [pytest.mark.matter("units"), pytest.mark.requires("systemd")]

NO_SUCH_UNIT = 4
"""What ``systemctl status`` exits with, by the LSB's rules."""


def shown(unit: str, *properties: str) -> dict[str, str]:
    done = systemctl("show", unit, *(f"-p{name}" for name in properties))
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def status(unit: str) -> int:
    return systemctl("status", unit).returncode


@pytest.fixture
def kind(sandbox: Program) -> str:
    return "service" if sandbox.driver == "service" else "scope"


UNITS = pytest.mark.only("systemd", "service", "delegated")


WAIT = ("--", "sh", "-c", "echo up; read line")


@UNITS
def test_the_unit_has_the_limits(sandbox: Program, kind: str) -> None:
    with sandbox.start("-m", "64m", "--cpus", "0.5", "--pids-limit", "20", *WAIT) as running:
        running.read_line()
        unit = f"sandbox-{running.name}.{kind}"
        found = shown(unit, "MemoryMax", "CPUQuotaPerSecUSec", "TasksMax", "NeedDaemonReload", "ActiveState",
                      "Delegate")
        assert (found["ActiveState"], found["NeedDaemonReload"]) == ("active", "no")
        if sandbox.driver == "delegated":
            assert (found["Delegate"], found["MemoryMax"]) == ("yes", "infinity")
        else:
            assert found["MemoryMax"] == str((64 << 20) + charged(sandbox.driver))
            assert found["CPUQuotaPerSecUSec"] == "500ms"
            assert found["TasksMax"] == str(20 + holders(sandbox.driver))
        done = running.finish(b"\n")
    assert done.code == 0, done.err
    assert status(unit) == NO_SUCH_UNIT


@UNITS
def test_gone_after_an_oom_kill_and_the_name_is_free(sandbox: Program, kind: str) -> None:
    name = names()
    eat = python("b = bytearray(b'x' * (200 << 20))")
    for _ in range(2):
        done = sandbox("-m", "32m", "--swap-max", "0", *eat, name=name) if _swap() else sandbox("-m", "32m", *eat,
                                                                                             name=name)
        assert (done.code, done.report["outcome"]) == (137, "oom"), done.err
        assert status(f"sandbox-{name}.{kind}") == NO_SUCH_UNIT


def _swap() -> bool:
    return len(Path("/proc/swaps").read_text().splitlines()) > 1


@pytest.mark.only("systemd", "delegated")
def test_a_living_unit_of_that_name_is_somebody_elses(sandbox: Program, kind: str) -> None:
    unit = f"sandbox-foreign-{os.getpid()}.scope"
    with subprocess.Popen(["systemd-run", *MANAGER, "--scope", "-q", f"--unit={unit}", *WAIT], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as foreign:
        assert foreign.stdin is not None and foreign.stdout is not None
        foreign.stdout.readline()
        done = sandbox("-m", "64m", "--unit", unit, "--", "true")
        assert done.code == 125
        assert unit in done.err
        assert foreign.poll() is None
        assert shown(unit, "ActiveState") == {"ActiveState": "active"}
        foreign.stdin.close()
    systemctl("stop", unit)


@pytest.mark.only("service")
def test_what_is_left_of_a_failed_unit_is_no_hindrance(sandbox: Program) -> None:
    unit = f"sandbox-failed-{os.getpid()}"
    assert subprocess.run(["systemd-run", *MANAGER, "-q", "--wait", f"--unit={unit}", "false"], check=False).returncode
    assert shown(f"{unit}.service", "ActiveState") == {"ActiveState": "failed"}
    assert sandbox("-m", "64m", "--unit", unit, "--", "true").code == 0
    systemctl("reset-failed", f"{unit}.service")


@UNITS
def test_commands_that_end_at_once(sandbox: Program) -> None:
    for _ in range(max(3, 10 // SLOWER)):
        done = sandbox("-m", "64m", "--", "true")
        assert (done.code, done.report["outcome"]) == (0, "exited"), done.err


@UNITS
def test_the_slice(sandbox: Program) -> None:
    with sandbox.start("--slice", "sandboxtest-a.slice", "-m", "64m", "--cgroupns", "host", "--", "sh", "-c",
                       "cat /proc/self/cgroup; echo; read line") as running:
        text = b"".join(iter(running.read_line, b"\n"))
        assert b"/sandboxtest.slice/sandboxtest-a.slice/" in text
        assert running.finish(b"\n").code == 0
    systemctl("stop", "sandboxtest.slice")


@UNITS
def test_any_property(sandbox: Program, kind: str) -> None:
    flags = ("--property", "CPUWeight=50", "--property", "Documentation=https://example.org",
             "--property", "IgnoreOnIsolate=yes", "--property", "SendSIGHUP=no")
    with sandbox.start(*flags, *WAIT) as running:
        running.read_line()
        found = shown(f"sandbox-{running.name}.{kind}", "CPUWeight", "Documentation", "IgnoreOnIsolate", "SendSIGHUP")
        assert found == {"CPUWeight": "50", "Documentation": "https://example.org", "IgnoreOnIsolate": "yes",
                         "SendSIGHUP": "no"}
        assert running.finish(b"\n").code == 0


ON_TOP = ["NoNewPrivileges=yes", *(["PrivateNetwork=yes", "PrivateIPC=yes"] if os.geteuid() == 0 else [])]
"""A user's own manager would need a user namespace for the others, in which the guard could do little."""


@pytest.mark.parametrize("text", ON_TOP)
@pytest.mark.only("service")
def test_systemd_s_isolation_comes_on_top(sandbox: Program, text: str) -> None:
    """It is the guard's, whose own steps are the same as under every driver."""
    show = "echo up; grep NoNewPrivs /proc/self/status; tail -n +3 /proc/net/dev; read line"
    with sandbox.start("--network", "host", "--property", text, "--", "sh", "-c", show) as running:
        running.read_line()
        assert running.read_line().split() == [b"NoNewPrivs:", b"1"]
        device = running.read_line().split()[0]
        name, _, value = text.partition("=")
        assert shown(f"sandbox-{running.name}.service", name) == {name: value}
        done = running.finish(b"\n")
    assert done.code == 0, done.err
    if name == "PrivateNetwork":
        assert (device, done.out) == (b"lo:", b""), "the host's network that is shared is the guard's"


@pytest.mark.parametrize("text", ["ProtectSystem=strict", "RootDirectory=/srv", "User=nobody"])
@pytest.mark.skipif(os.geteuid() != 0, reason="a user's own manager cannot do so")
@pytest.mark.only("service")
def test_what_would_keep_the_guard_from_its_work_is_refused(sandbox: Program, text: str) -> None:
    done = sandbox("--property", text, "--", "true", report=False)
    assert (done.code, done.out) == (125, b"")
    assert len([line for line in done.err.splitlines() if line.startswith("sandbox: ")]) == 1
    assert "Traceback" not in done.err


@pytest.mark.parametrize("text", ["NoSuchProperty=1", "MemoryMax=lots", "CPUWeight=10001x", "memorymax=1"])
@UNITS
def test_bad_properties(sandbox: Program, text: str) -> None:
    done = sandbox("--property", text, "--", "true", report=False)
    assert done.code == 2, done.err
    assert text.partition("=")[0] in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.alone
@pytest.mark.only("systemd")
def test_limits_survive_reloads_and_a_reexec(sandbox: Program) -> None:
    """One test for the units of every driver, because each reload takes an emulated CPU four seconds."""
    drivers = [name for name in DRIVERS if name != "cgroupfs"]
    count = max(1, 10 // SLOWER)
    with ExitStack() as stack:
        runs: dict[str, Running] = {}
        for driver in drivers:
            kind = "service" if driver == "service" else "scope"
            for number in range(count):
                run = stack.enter_context(sandbox.under(driver).start(
                    "-m", "64m", "--cpus", "0.5", "--pids-limit", "30", "--", "sh", "-c",
                    f"echo up; read line; exit {number}"))
                runs[f"sandbox-{run.name}.{kind}"] = run
        for run in runs.values():
            assert run.read_line() == b"up\n"
        for number in range(10 // SLOWER):
            assert systemctl("daemon-reload").returncode == 0
            subprocess.run(["systemd-run", *MANAGER, "--scope", "-q", "-p", f"CPUWeight={100 + number}", "true"],
                           check=True)
        assert systemctl("daemon-reexec").returncode == 0
        assert eventually(lambda: systemctl("is-system-running").stdout.strip() in ("running", "degraded"))
        assert {shown(unit, "NeedDaemonReload")["NeedDaemonReload"] for unit in runs} == {"no"}
        done = [run.finish(b"\n") for run in runs.values()]
    assert [one.code for one in done] == [*range(count)] * len(drivers), [one.err for one in done]
    assert all(row["enforced"] for one in done for row in one.report["limits"])
    assert {status(unit) for unit in runs} == {NO_SUCH_UNIT}


@pytest.mark.long_in_vm
@pytest.mark.alone
@UNITS
@pytest.mark.requires("root")
def test_a_restart_of_dbus_changes_nothing(sandbox: Program, kind: str) -> None:
    with sandbox.start("-m", "64m", *WAIT) as running:
        running.read_line()
        assert systemctl("restart", "dbus.service").returncode == 0
        assert sandbox("-m", "64m", "--", "true").code == 0
        done = running.finish(b"\n")
    assert done.code == 0, done.err
    assert all(row["enforced"] for row in done.report["limits"])
    assert status(f"sandbox-{running.name}.{kind}") == NO_SUCH_UNIT


@pytest.mark.long_in_vm
@pytest.mark.alone
@UNITS
def test_starting_while_systemd_reloads(sandbox: Program) -> None:
    count = max(4, 10 // SLOWER)
    with subprocess.Popen(["sh", "-c", f"while systemctl {' '.join(MANAGER)} daemon-reload; do :; done"],
                          stderr=subprocess.DEVNULL) as storm:
        try:
            with ThreadPoolExecutor(2) as pool:
                done = list(pool.map(lambda code: sandbox("-m", "64m", "--", "sh", "-c", f"exit {code}"), range(count)))
        finally:
            storm.kill()
    assert [one.code for one in done] == list(range(count)), [one.err for one in done]


LIMITS = ("-m", "64m", "--pids-limit", "20")
WITHOUT_OWN_SOCKET = ("unshare", "-m", "sh", "-c", f'mount --bind /dev/null {OWN_SOCKET} && exec "$@"', "sh")
"""The message bus is the only way left."""


def held(unit: str, name: str) -> dict[str, str]:
    """The limits, as systemd has them and as the kernel has them."""
    return {**shown(unit, "MemoryMax", "TasksMax", "NeedDaemonReload", "ActiveState"),
            "kernel": cgroup_file(name, "pids.max").read_text()}


@pytest.mark.long_in_vm
@pytest.mark.alone
@UNITS
def test_a_full_bus_changes_nothing(sandbox: Program, kind: str) -> None:
    with Crowd() as crowd, sandbox.start(*LIMITS, *WAIT) as running:
        running.read_line()
        unit = f"sandbox-{running.name}.{kind}"
        before = held(unit, running.name)
        assert crowd.join(OWN_SOCKET, PER_USER) == PER_USER
        taken = crowd.join(MESSAGE_BUS, PER_USER + 1)
        assert taken <= PER_USER or os.geteuid() != 0  # a user's own bus has no such limit
        for code in range(max(3, 10 // SLOWER)):
            done = sandbox(*LIMITS, "--", "sh", "-c", f"exit {code}")
            assert done.code == code, done.err
            assert all(row["enforced"] for row in done.report["limits"])
        assert held(unit, running.name) == before
        done = running.finish(b"\n")
    assert done.code == 0, done.err
    assert all(row["enforced"] for row in done.report["limits"])
    assert status(unit) == NO_SUCH_UNIT


@pytest.mark.alone
@pytest.mark.long
@UNITS
@pytest.mark.once
@pytest.mark.timeout(600)  # each connection takes systemd longer than the one before, 10 to 30 ms
@pytest.mark.requires("root")
def test_a_full_socket_of_systemd_leaves_the_message_bus(sandbox: Program, kind: str) -> None:
    if SLOWER > 1:
        pytest.skip("systemd takes minutes for so many connections when its CPU is emulated")
    with Crowd() as crowd, sandbox.start(*LIMITS, *WAIT) as running:
        running.read_line()
        assert crowd.join(OWN_SOCKET, ALTOGETHER + 1) <= ALTOGETHER
        assert sandbox(*LIMITS, "--", "sh", "-c", "exit 7").code == 7
        done = running.finish(b"\n")
    assert done.code == 0, done.err
    assert all(row["enforced"] for row in done.report["limits"])
    assert status(f"sandbox-{running.name}.{kind}") == NO_SUCH_UNIT


def is_on_the_bus() -> bool:
    return subprocess.run(["busctl", "status", "org.freedesktop.systemd1"], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, check=False).returncode == 0


@pytest.fixture
def bus() -> None:
    """systemd may lose a message bus that is restarted while it reloads; a signal has it come back (systemd(1))."""
    if not is_on_the_bus():
        os.kill(1, signal.SIGUSR1)
        assert eventually(is_on_the_bus)


@pytest.mark.alone
@pytest.mark.long
@UNITS
@pytest.mark.usefixtures("bus")
@pytest.mark.requires("root")
def test_with_no_way_to_systemd_nothing_starts_and_what_runs_ends_well(sandbox: Program, kind: str) -> None:
    end = ("--", "sh", "-c", "echo up; read line; exit 7")
    with sandbox.start(*LIMITS, *end, wrap=WITHOUT_OWN_SOCKET) as running, Crowd() as crowd:
        running.read_line()
        unit = f"sandbox-{running.name}.{kind}"
        before = held(unit, running.name)
        assert crowd.join(MESSAGE_BUS, PER_USER + 1) <= PER_USER
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(sandbox, *LIMITS, "--", "true", wrap=WITHOUT_OWN_SOCKET)
            assert held(unit, running.name) == before
            ended, refused = running.finish(b"\n"), other.result()
    assert (refused.code, refused.report) == (125, {})
    # A bus may say that it takes no more, or, as dbus 1.16 does, not answer at all.
    assert re.search("maximum number of active connections|timed out", refused.err.splitlines()[0]), refused.err
    assert status(f"sandbox-{refused.name}.{kind}") == NO_SUCH_UNIT
    assert (ended.code, ended.report["outcome"]) == (7, "exited"), ended.err
    assert all(row["enforced"] for row in ended.report["limits"])
    assert max(ended.seconds, refused.seconds) < 40 + 4 * SLOWER, "asked twice, for 25 s each time"
    assert running.gone()
    assert status(unit) == NO_SUCH_UNIT


@pytest.mark.only("systemd", "service")
def test_a_command_outside_its_cgroup_never_starts(sandbox: Program, tmp_path: Path) -> None:
    """Break the prediction of where systemd makes the unit: the run must be refused, before the execve."""
    started = tmp_path / "started"
    code = f"""
import sandbox
from sandbox.drivers import unit
unit.in_cgroup = lambda tree, cgroup, real=unit.in_cgroup: real(tree, cgroup + "x")
sandbox.run(["touch", {str(started)!r}], memory="64m", driver="systemd", volume=["{tmp_path}:{tmp_path}"],
            unit_type={'service' if sandbox.driver == 'service' else 'scope'!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not started.exists()
    assert "would not have been in" in done.stderr


LITERAL = ["$HOME", "${X}", "%n", "%%", "$$", ";", '"', "'", "a\nb", "", "-x", "--", "\\", "*", "\udcff\udcfe",
           "\u00e4"]


def test_arguments_arrive_as_they_are(sandbox: Program) -> None:
    code = "import os, sys; sys.stdout.buffer.write(b'\\0'.join(map(os.fsencode, sys.argv[1:])))"
    done = sandbox("--", sys.executable, "-I", "-S", "-c", code, *LITERAL)
    assert done.code == 0, done.err
    assert [os.fsdecode(word) for word in done.out.split(b"\0")] == LITERAL


def test_flags_for_another_driver_are_refused(sandbox: Program) -> None:
    strange = {"cgroupfs": ["--slice", "x.slice"], "delegated": ["--unit-type", "service"]}
    done = sandbox(*strange.get(sandbox.driver, ["--cgroup-parent", "/x"]), "--", "true", report=False)
    assert done.code == 125
    assert "means nothing to the" in done.err


@UNITS
def test_the_report_names_the_driver(sandbox: Program, kind: str) -> None:
    with sandbox.start("-m", "64m", *WAIT) as running:
        running.read_line()
        group = shown(f"sandbox-{running.name}.{kind}", "ControlGroup")["ControlGroup"]
        done = running.finish(b"\n")
    assert done.report["driver"] == ("delegated" if sandbox.driver == "delegated" else "systemd")
    assert f"{group}/" in json.dumps(done.report["limits"])


@pytest.mark.only("cgroupfs")
@pytest.mark.requires("root")
def test_who_goes_behind_the_back_of_systemd_is_warned(sandbox: Program) -> None:
    argv = sandbox.argv("--", "true", name=names())
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stderr.startswith(BESIDE_SYSTEMD)
