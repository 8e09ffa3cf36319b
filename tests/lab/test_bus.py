"""The bus against a real systemd: its own socket, the message bus, and what goes wrong on both."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from support.labs import Lab

pytestmark = pytest.mark.long_in_vm
ROOT = Path(__file__).resolve().parents[2]
PROLOGUE = """
import os, subprocess, threading
from contextlib import contextmanager
from sandbox.bus import Bus
from sandbox.errors import BusError

@contextmanager
def sleeper():
    process = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()

def around(process, *more):
    return [("PIDs", "au", (str(process.pid),)), ("MemoryMax", "t", 64 << 20), *more]

def status(unit):
    # systemctl of root insists on the socket that some tests hide from themselves.
    return subprocess.run(["nsenter", "-t", "1", "-m", "systemctl", "status", unit], capture_output=True).returncode

def refusal(work, *args):
    try:
        work(*args)
    except BusError as error:
        print(error)
        return str(error)
    raise AssertionError("not refused")

"""
WITHOUT_PRIVATE_SOCKET = ("unshare", "-m", "sh", "-c", 'mount --bind /dev/null /run/systemd/private && exec "$@"', "sh")
"""Makes root go through the message bus."""


def inside(lab: Lab, script: str, *, private: bool = True) -> None:
    """Run a script in the lab; its assertions are ours."""
    python = sys.executable if lab.engine == "container" else "python3"
    wrapper = () if private else WITHOUT_PRIVATE_SOCKET
    done = lab.run(*wrapper, python, "-W", "error", "-c", PROLOGUE + textwrap.dedent(script), cwd=ROOT)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


both_ways = pytest.mark.parametrize("private", [True, False], ids=["own-socket", "message-bus"])


@both_ways
def test_a_scope_from_start_to_stop(lab: Lab, private: bool) -> None:
    inside(lab, f"""
        with Bus.open() as bus, sleeper() as process:
            assert bus._link.private is {private}
            bus.start("one.scope", around(process, ("Description", "s", "number one")))
            assert "one.scope" in open(f"/proc/{{process.pid}}/cgroup").read()
            assert bus.get("one.scope", "Scope", "MemoryMax") == 64 << 20
            assert bus.get("one.scope", "Unit", "Description") == "number one"
            assert bus.get_all("one.scope", "Scope")["MemoryMax"] == 64 << 20
            assert bus.unit_of(bus.get("one.scope", "Scope", "ControlGroup")) == "one.scope"
            assert status("one.scope") == 0
            bus.stop("one.scope")
            assert status("one.scope") == 4
            assert process.wait(10) == -15
            bus.stop("one.scope")
            assert not os.path.exists("/run/systemd/transient/one.scope")
        """, private=private)


def test_the_manager(lab: Lab) -> None:
    inside(lab, """
        with Bus.open() as bus:
            assert 252 <= bus.version < 300, bus.version
            assert bus.control_group == "/"
            scope, service = bus.signatures("scope"), bus.signatures("service")
            assert scope["MemoryMax"] == service["MemoryMax"] == "t" and scope["Slice"] == "s"
            assert "ExecStart" in service and "ExecStart" not in scope
        """)


def test_a_process_by_its_pidfd(lab: Lab) -> None:
    inside(lab, """
        with Bus.open() as bus, sleeper() as process:
            fd = os.pidfd_open(process.pid)
            if bus.version >= 255:
                bus.start("fd.scope", [("PIDFDs", "ah", (str(fd),))])
                assert "fd.scope" in open(f"/proc/{process.pid}/cgroup").read()
            else:
                assert f"systemd {bus.version} does not know it" in refusal(
                    bus.start, "fd.scope", [("PIDFDs", "ah", (str(fd),))])
            bus.stop("fd.scope")
        """)


@both_ways
def test_what_is_left_of_a_failed_unit_is_forgotten(lab: Lab, private: bool) -> None:
    inside(lab, """
        subprocess.run(["systemd-run", "-q", "--wait", "--unit=left.service", "sh", "-c", "exit 3"])
        with Bus.open() as bus:
            assert bus.get("left.service", "Unit", "ActiveState") == "failed"
            bus.start("left.service", [("ExecStart", "a(sasb)", ("/bin/sleep", ("sleep", "600"), "0"))])
            assert bus.get("left.service", "Unit", "ActiveState") == "active"
            bus.stop("left.service")
            assert status("left.service") == 4
        """, private=private)


def test_a_failed_unit_can_be_stopped(lab: Lab) -> None:
    inside(lab, """
        subprocess.run(["systemd-run", "-q", "--wait", "--unit=left.service", "sh", "-c", "exit 3"])
        with Bus.open() as bus:
            assert status("left.service") == 3
            bus.stop("left.service")
            assert status("left.service") == 4
        """)


def test_a_unit_that_lives_keeps_its_name(lab: Lab) -> None:
    inside(lab, """
        with Bus.open() as bus, sleeper() as first, sleeper() as second:
            bus.start("taken.scope", around(first, ("Description", "s", "the first")))
            text = refusal(bus.start, "taken.scope", around(second))
            assert "taken.scope" in text and "active" in text and "the first" in text
            assert "systemctl stop taken.scope" in text
            assert "taken.scope" not in open(f"/proc/{second.pid}/cgroup").read()
            bus.stop("taken.scope")
        """)


@both_ways
def test_what_is_refused_leaves_nothing(lab: Lab, private: bool) -> None:
    inside(lab, """
        with Bus.open() as bus, sleeper() as process:
            gone = subprocess.Popen(["true"])
            gone.wait()
            for properties, word in ((around(gone), "UnixProcessIdUnknown"), ([], "refused"),
                                     (around(process, ("NoSuchThing", "t", 1)), "NoSuchThing"),
                                     (around(process, ("CPUWeight", "t", 10 ** 6)), "CPUWeight"),
                                     (around(process, ("CPUWeight", "t", -1)), "CPUWeight"),
                                     (around(process, ("CPUWeight", "s", "1")), "refused.scope")):
                assert word in refusal(bus.start, "refused.scope", properties)
                assert status("refused.scope") == 4
            bus.start("refused.scope", around(process))
            bus.stop("refused.scope")
        """, private=private)


def test_a_service_that_fails_leaves_nothing(lab: Lab) -> None:
    inside(lab, """
        with Bus.open() as bus:
            text = refusal(bus.start, "broken.service", [("Type", "s", "exec"), (
                "ExecStart", "a(sasb)", ("/no/such/program", ("program",), "0"))])
            assert "broken.service" in text and "failed" in text
            assert status("broken.service") == 4
        """)


@both_ways
def test_reload_and_reexec_between_two_calls(lab: Lab, private: bool) -> None:
    inside(lab, """
        with Bus.open() as bus, sleeper() as process:
            bus.start("kept.scope", around(process))
            bus.call("Reload")
            bus.call("Reexecute")
            assert bus.get("kept.scope", "Scope", "MemoryMax") == 64 << 20
            assert "kept.scope" in open(f"/proc/{process.pid}/cgroup").read()
            bus.stop("kept.scope")
            assert status("kept.scope") == 4
        """, private=private)


@pytest.mark.parametrize("word", ["daemon-reload", "daemon-reexec"])
@both_ways
def test_starting_while_systemd_is_at_it(lab: Lab, word: str, private: bool) -> None:
    inside(lab, f"""
        def again_and_again():
            for _ in range(5):
                subprocess.run(["nsenter", "-t", "1", "-m", "systemctl", "{word}"], check=True)

        busy = threading.Thread(target=again_and_again)
        busy.start()
        number = 0
        with Bus.open() as bus:
            while busy.is_alive() or number < 5:
                number += 1
                with sleeper() as process:
                    bus.start(f"busy-{{number}}.scope", around(process))
                    assert f"busy-{{number}}.scope" in open(f"/proc/{{process.pid}}/cgroup").read()
                    bus.stop(f"busy-{{number}}.scope")
        busy.join()
        with Bus.open() as bus:
            assert bus.call("ListUnitsByPatterns", "asas", [], ["busy-*"]) == ([],)
        """, private=private)


def test_the_first_user_of_a_message_bus(lab: Lab) -> None:
    """The first client starts dbus-daemon, and systemd connects to it a moment later. A unit can be started and stopped
    even if the client was connected before systemd."""
    inside(lab, """
        for number in range(20):
            for word in ("stop", "reset-failed"):  # reset-failed also resets the start rate limit
                subprocess.run(["nsenter", "-t", "1", "-m", "systemctl", word, "dbus.service"], check=True)
            with Bus.open() as bus, sleeper() as process:
                assert not bus._link.private
                bus.start(f"first-{number}.scope", around(process))
                bus.stop(f"first-{number}.scope")
        """, private=False)


def test_two_threads_share_a_connection(lab: Lab) -> None:
    inside(lab, """
        errors = []

        def work(letter):
            try:
                for number in range(20):
                    with sleeper() as process:
                        bus.start(f"{letter}-{number}.scope", around(process))
                        assert f"/{letter}-{number}.scope" in open(f"/proc/{process.pid}/cgroup").read()
                        bus.stop(f"{letter}-{number}.scope")
            except BaseException as error:
                errors.append(error)

        with Bus.open() as bus:
            threads = [threading.Thread(target=work, args=(letter,)) for letter in "ab"]
            for one in threads:
                one.start()
            for one in threads:
                one.join()
        assert errors == []
        """)


def test_a_connection_that_lay_idle_or_was_closed(lab: Lab) -> None:
    inside(lab, """
        with Bus.open() as bus:
            for _ in range(20):
                subprocess.run(["systemd-run", "-q", "--scope", "true"])
            assert bus.get("", "Manager", "ControlGroup") == ""
            bus.close()
            assert bus.get("", "Manager", "ControlGroup") == ""
        """)


def test_a_user_without_a_manager_is_told_what_to_do(lab: Lab) -> None:
    inside(lab, """
        import jeepney.bus
        os.setgid(65534)
        os.setuid(65534)
        os.environ.pop("XDG_RUNTIME_DIR", None)
        os.environ.pop("DBUS_SESSION_BUS_ADDRESS", None)
        text = refusal(lambda: Bus.open(user=True))
        assert "XDG_RUNTIME_DIR is not set" in text and "export XDG_RUNTIME_DIR=/run/user/65534" in text
        assert "loginctl enable-linger 65534" in text
        os.environ["XDG_RUNTIME_DIR"] = "/run/user/65534"
        text = refusal(lambda: Bus.open(user=True))
        assert "is not set" not in text and "loginctl enable-linger 65534" in text
        with Bus.open() as bus, sleeper() as process:
            assert not bus._link.private
            assert "systemd_user=True" in refusal(bus.start, "foreign.scope", around(process))
        """)
