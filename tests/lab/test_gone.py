"""Of a lab nothing stays, however it ends."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import lab_traces
from support.labs import Lab, sandbox_lab
from support.machine import alive, descendants, eventually
from support.sandbox_run import SANDBOX


@pytest.fixture(params=["container", "vm"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A lab that the test itself boots and ends."""
    lab = Lab(request.param, name=f"gone-{request.param}-{os.getpid()}")
    yield lab
    lab.down()
    subprocess.run([*SANDBOX, "gc"], check=True, stdout=subprocess.DEVNULL)
    assert lab_traces.of(lab.name) == []


def _keeper(lab: Lab) -> int:
    return int((lab_traces.RUNTIME / lab.name / "pid").read_text())


@pytest.mark.long_in_vm
def test_down(lab: Lab) -> None:
    lab.out("sh", "-c", "systemd-run -q --unit=stays sleep 1000; setsid sleep 1000 >/dev/null 2>&1 &")
    assert lab_traces.of(lab.name)
    assert sandbox_lab("down", lab.name).returncode == 0
    assert lab_traces.of(lab.name) == []


@pytest.mark.long_in_vm
def test_poweroff_inside(lab: Lab) -> None:
    lab.out("true")
    pidfd = os.pidfd_open(_keeper(lab))
    lab.run("systemctl", "poweroff", "-ff")
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(30_000)
    assert lab_traces.of(lab.name) == []


def test_keeper_killed_and_gc(lab: Lab) -> None:
    """The keeper is killed as soon as it has started the lab's processes, as an emulated CPU boots for a minute."""
    with subprocess.Popen([*SANDBOX, "lab", "up", *lab.flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        pid = lab_traces.RUNTIME / lab.name / "pid"
        assert eventually(lambda: pid.exists() and pid.read_text())
        assert eventually(lambda: len(descendants(_keeper(lab))) >= 2)
        started = descendants(_keeper(lab))
        os.kill(_keeper(lab), signal.SIGKILL)
    assert eventually(lambda: not any(map(alive, started)) and not lab_traces.processes(lab.name))
    done = subprocess.run([*SANDBOX, "gc"], capture_output=True, check=True)
    assert str(lab_traces.RUNTIME / lab.name).encode() in done.stdout
    assert lab_traces.of(lab.name) == []


@pytest.mark.long_in_vm
def test_keeper_killed_and_up_again(lab: Lab) -> None:
    lab.out("touch", "/var/mark")
    os.kill(_keeper(lab), signal.SIGKILL)
    assert lab.run("test", "-e", "/var/mark").returncode == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_boot(lab: Lab, number: signal.Signals) -> None:
    process = subprocess.Popen([*SANDBOX, "lab", "up", *lab.flags], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (lab_traces.RUNTIME / lab.name / "pid").exists():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(number)
    assert process.wait(30) == (130 if number == signal.SIGINT else -9)
    while lab_traces.of(lab.name):
        assert time.monotonic() < deadline, lab_traces.of(lab.name)
        time.sleep(0.02)


@pytest.mark.long_in_vm
def test_the_host_is_what_it_was(lab: Lab) -> None:
    before = _host()
    lab.sh("mount -t tmpfs none /mnt; hostname other; chmod 600 /dev/null; mkdir -p /etc/made; "
           "sysctl -qw kernel.hostname=third || true; ip link add left type veth peer name right || true")
    assert sandbox_lab("down", lab.name).returncode == 0
    assert _host() == before


def _host() -> tuple[object, ...]:
    null = os.stat("/dev/null")
    return (Path("/proc/self/mountinfo").read_text(), os.uname().nodename, null.st_mode, null.st_uid,
            os.path.exists("/etc/made"), sorted(os.listdir("/sys/class/net")))
