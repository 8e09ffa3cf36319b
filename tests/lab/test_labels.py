"""Labels of SELinux and AppArmor, verified by what they forbid, in VMs that have the modules."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import sandbox
from support.labs import Lab

pytestmark = pytest.mark.labels
SCHEMA = json.loads((Path(sandbox.__file__).parent / "report.schema.json").read_text())
DRIVERS = ("systemd", "delegated", "cgroupfs", "none")
SERVICE = ("systemd", "--unit-type", "service")
REFUSED = 125

FILES = """mkdir -p /srv/in /srv/out; chmod 777 /srv/out; cp /usr/bin/cat /usr/bin/dash /usr/bin/touch /srv/in
for name in fine other; do echo $name >/srv/in/$name; done; echo secret >/srv/secret
"""
SELINUX = FILES + """chcon -R -t container_file_t -l s0 /srv/in /srv/out; chcon -l s0:c3 /srv/in/other
chcon -t user_home_t /srv/secret; cp /usr/bin/dash /srv/server; chcon -t httpd_exec_t /srv/server
"""
APPARMOR = FILES + """cat >/tmp/profiles <<'END'
abi <abi/4.0>,
profile shut { file, deny /srv/secret r, }
profile loose flags=(complain) { /usr/bin/true mr, }
profile open flags=(unconfined) { }
END
apparmor_parser -r /tmp/profiles
"""
CONTAINER = ("--security-opt", "label=container_t")


def read(name: str, shell: str = "/srv/in/dash") -> tuple[str, ...]:
    """A command that exits with 0 if it can read a file, else with 2. Its output may be cut off, its exit code not."""
    return shell, "-c", f"read line <{name}"


def sandboxed(lab: Lab, *words: str, driver: str = "systemd") -> int:
    return lab.run("sandbox", "run", "--driver", driver, *words).returncode


def report(lab: Lab, *words: str) -> dict[str, Any]:
    """The report of a run, valid by the schema."""
    lab.run("sandbox", "run", "--json", "/tmp/report", *words)
    found = json.loads(lab.out("cat", "/tmp/report"))
    jsonschema.validate(found, SCHEMA)
    return found  # type: ignore[no-any-return]


def refusal(lab: Lab, *words: str) -> str:
    """What is said of a run that is refused before its command starts."""
    start = ("-v", "/srv/out:/srv/out", *words, "--", "/srv/in/touch", "/srv/out/started")
    done = lab.run("sandbox", "run", *start)
    assert lab.sh("ls /srv/out") == "", "it was started"
    said = [line for line in done.stderr.decode().splitlines() if not line.startswith("sandbox: warning: ")]
    assert done.returncode == REFUSED, said
    assert len(said) == 2 and said[1].startswith("hint: "), said
    return " ".join(said)


@pytest.fixture(scope="module")
def selinux() -> Iterator[Lab]:
    yield from booted("trixie-selinux", SELINUX)


@pytest.fixture(scope="module")
def apparmor() -> Iterator[Lab]:
    yield from booted("trixie-apparmor", APPARMOR)


def booted(image: str, script: str) -> Iterator[Lab]:
    lab = Lab("vm", image)
    try:
        assert lab.out("systemctl", "is-system-running", "--wait") == "running"
        lab.sh(script)
        yield lab
    finally:
        lab.down()


@pytest.fixture
def permissive(selinux: Lab) -> Iterator[Lab]:
    selinux.out("setenforce", "0")
    yield selinux
    selinux.out("setenforce", "1")


# -- SELinux

def test_selinux_boots_enforcing_and_can_be_switched(selinux: Lab) -> None:
    shown = selinux.sh("getenforce; id -Z; setenforce 0; getenforce; sandbox info | grep -A1 SELinux:; setenforce 1; "
                       "sandbox info | grep -A1 SELinux:").splitlines()
    own = "unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023"
    assert shown[:3] == ["Enforcing", own, "Permissive"]
    assert shown[3:5] == [" SELinux: permissive (it only logs what it would forbid)", f"  Own Context: {own}"]
    assert shown[5:7] == [" SELinux: enforcing", f"  Own Context: {own}"]
    selinux.sh("! runcon -t container_t true; dmesg | grep -q 'avc: *denied *{ entrypoint }.*comm=\"runcon\"'")


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_type_forbids(selinux: Lab, driver: str) -> None:
    assert sandboxed(selinux, "--", *read("/srv/secret"), driver=driver) == 0
    assert sandboxed(selinux, *CONTAINER, "--", *read("/srv/secret"), driver=driver) == 2
    assert sandboxed(selinux, *CONTAINER, "--", *read("/srv/in/fine"), driver=driver) == 0


def test_a_level_forbids(selinux: Lab) -> None:
    assert sandboxed(selinux, *CONTAINER, "--", *read("/srv/in/other")) == 0
    level = ("--security-opt", "label=level:s0:c1,c2")
    assert sandboxed(selinux, *CONTAINER, *level, "--", *read("/srv/in/other")) == 2
    assert sandboxed(selinux, *CONTAINER, *level, "--", *read("/srv/in/fine")) == 0


def test_a_service_enters_what_systemd_may_start(selinux: Lab) -> None:
    """Its guard is in the domain that systemd gave it, where the other parts of the context are from."""
    server = (*SERVICE[1:], "--security-opt", "label=httpd_t", "--")
    assert sandboxed(selinux, *server, *read("/srv/secret", "/srv/server")) == 2
    [label] = report(selinux, "--driver", "systemd", *server, *read("/etc/hostname", "/srv/server"))["labels"]
    assert (label["label"], label["enforced"]) == ("system_u:system_r:httpd_t:s0", True)


def test_the_report_has_the_context_that_the_process_got(selinux: Lab) -> None:
    options = ("--security-opt", "label=type:container_t", "--security-opt", "label=level:s0:c2,c1")
    [label] = report(selinux, *options, "--", "/srv/in/cat", "/srv/in/fine")["labels"]
    assert label["label"] == "unconfined_u:unconfined_r:container_t:s0:c1,c2"
    assert (label["module"], label["enforced"]) == ("selinux", True)
    assert label["flag"] == "--security-opt label=type:container_t label=level:s0:c2,c1"
    assert report(selinux, "--", "true")["labels"] == []


def test_a_stream_that_the_label_may_not_use_is_told(selinux: Lab) -> None:
    done = selinux.run("sandbox", "run", *CONTAINER, "--", "/srv/in/cat", "/srv/in/fine")
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"label=type:container_t: the policy does not let it use stdin, stdout, stderr: /dev/null" in done.stderr


@pytest.mark.parametrize(("options", "told"), [
    (("nosuch_t",), "label=type:nosuch_t: the policy has no type nosuch_t hint: seinfo -t"),
    (("level:s7",), "label=level:s7: the policy has no level s7"),
    (("user:nobody_u",), "label=user:nobody_u: the policy has no user nobody_u"),
    (("httpd_t",), "label=type:httpd_t: the policy allows no context unconfined_u:unconfined_r:httpd_t:"),
    (("user:system_u", "role:system_r", "httpd_t"), "would need: allow unconfined_t httpd_t:process transition;"),
    (("unconfined_execmem_t",), "allow unconfined_t unconfined_execmem_t:process2 { nnp_transition nosuid_t"),
])
def test_a_context_that_may_not_be_entered_is_refused(selinux: Lab, options: tuple[str, ...], told: str) -> None:
    assert told in refusal(selinux, *(word for one in options for word in ("--security-opt", f"label={one}")))


def test_a_file_that_is_no_entry_is_refused(selinux: Lab) -> None:
    done = selinux.run("sandbox", "run", *CONTAINER, "--", "true")
    assert done.returncode == REFUSED
    assert b"hint: the policy would need: allow container_t bin_t:file entrypoint;" in done.stderr


def test_permissive_is_refused_or_told(permissive: Lab) -> None:
    assert "label=type:container_t: SELinux is permissive here" in refusal(permissive, *CONTAINER)
    found = report(permissive, "--best-effort", *CONTAINER, "--", *read("/srv/secret"))
    assert found["exit_code"] == 0
    [label], [unmet] = found["labels"], found["unmet"]
    assert (label["label"].split(":")[2], label["enforced"]) == ("container_t", False)
    assert "SELinux is permissive here" in unmet["reason"]


def test_a_module_that_is_off_is_refused_or_told(selinux: Lab) -> None:
    assert "apparmor=shut: AppArmor is not active here" in refusal(selinux, "--security-opt", "apparmor=shut")
    found = report(selinux, "--best-effort", "--security-opt", "apparmor=shut", "--", "true")
    assert (found["exit_code"], found["labels"]) == (0, [])
    assert "AppArmor is not active here" in found["unmet"][0]["reason"]


# -- AppArmor

@pytest.mark.parametrize("driver", DRIVERS)
def test_a_profile_forbids(apparmor: Lab, driver: str) -> None:
    assert sandboxed(apparmor, "--", *read("/srv/secret"), driver=driver) == 0
    shut = ("--security-opt", "apparmor=shut", "--")
    assert sandboxed(apparmor, *shut, *read("/srv/secret"), driver=driver) == 2
    assert sandboxed(apparmor, *shut, *read("/srv/in/fine"), driver=driver) == 0


def test_a_profile_forbids_in_a_service(apparmor: Lab) -> None:
    shut = (*SERVICE[1:], "--security-opt", "apparmor=shut", "--")
    assert sandboxed(apparmor, *SERVICE[1:], "--", *read("/srv/secret")) == 0
    assert sandboxed(apparmor, *shut, *read("/srv/secret")) == 2
    assert sandboxed(apparmor, *shut, *read("/srv/in/fine")) == 0


def test_the_report_has_the_profile_that_the_process_got(apparmor: Lab) -> None:
    [label] = report(apparmor, "--security-opt", "apparmor=shut", "--", "true")["labels"]
    assert label == {"module": "apparmor", "flag": "--security-opt apparmor=shut", "label": "shut (enforce)",
                     "enforced": True, "note": ""}


@pytest.mark.parametrize(("profile", "told"), [
    ("nosuch", "no profile of that name is loaded hint: aa-status"),
    ("loose", "the profile is in complain mode, which does not enforce it hint: aa-enforce loose, or run with --best"),
    ("open", "the profile is in unconfined mode, which does not enforce it"),
])
def test_a_profile_that_does_not_bind_is_refused(apparmor: Lab, profile: str, told: str) -> None:
    assert f"--security-opt apparmor={profile}: {told}" in refusal(apparmor, "--security-opt", f"apparmor={profile}")


def test_complain_mode_is_told(apparmor: Lab) -> None:
    found = report(apparmor, "--best-effort", "--security-opt", "apparmor=loose", "--", *read("/srv/secret"))
    assert found["exit_code"] == 0
    assert (found["labels"][0]["label"], found["labels"][0]["enforced"]) == ("loose (complain)", False)
    assert found["unmet"][0]["reason"] == ("apparmor=loose: the profile is in complain mode, which does not enforce it")


def test_a_user_who_may_not_list_profiles(apparmor: Lab) -> None:
    run = "sandbox run --driver none --security-opt apparmor={} -- /srv/in/dash -c 'read line <{}'; echo $?"
    assert apparmor.out("su", "user", "-c", run.format("shut", "/srv/in/fine")) == "0"
    assert apparmor.out("su", "user", "-c", run.format("shut", "/srv/secret")) == "2"
    assert apparmor.out("su", "user", "-c", run.format("loose", "/srv/in/fine")) == str(REFUSED)


def test_apparmor_in_the_info(apparmor: Lab) -> None:
    shown = apparmor.sh("sandbox info | grep -A2 AppArmor:").splitlines()
    assert shown[:2] == ["AppArmor: yes", "  Own Profile: unconfined"]
    assert sorted(shown[2].removeprefix("  Profiles: ").split(", ")) == ["1 complain", "1 enforce", "1 unconfined"]
