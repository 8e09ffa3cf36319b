"""``--user`` without root, by a normal user to whom ids are lent: everything else needs no other id.

As root, the user is made up: in a mount namespace of the test's own, with its own /etc/passwd and /etc/subuid.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.isolation import lent
from support.sandbox_run import SANDBOX

pytestmark = [pytest.mark.matter("isolation"), pytest.mark.requires("uidmap", "lent")]

UID = 4321 if os.geteuid() == 0 else os.geteuid()
GID = 4321 if os.geteuid() == 0 else os.getegid()
FIRST = 700_000
"""Of the ids that are lent, as root."""
MAKE_UP = """
set -e
for file in passwd group subuid subgid; do mount --bind "$1/$file" "/etc/$file"; done
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
if [ -n "$3" ]; then
    mkdir -p "$1/python"; mount --rbind "$2" "$1/python"
    mount -t tmpfs -o mode=755 tmpfs "$3"
    mkdir -p "$2"; mount --rbind "$1/python" "$2"
fi
shift 3
exec setpriv --reuid 4321 --regid 4321 --clear-groups --reset-env env XDG_RUNTIME_DIR=/dev/shm "$@"
"""
"""As root, with: the directory with the files, the interpreter's, and the one above it that is closed to others."""
Shell = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Runs a script as a normal user; ``"$@"`` is ``sandbox run --driver none``."""
    def run(script: str, **options: object) -> subprocess.CompletedProcess[str]:
        argv = ["sh", "-c", script, "sh", *SANDBOX, "run", "--driver", "none"]
        return subprocess.run([*before, *argv], text=True, capture_output=True, timeout=60, check=False, **options)  # type: ignore[call-overload, no-any-return]

    before: list[str] = []
    if os.geteuid() == 0:
        closed = [str(path) for path in Path(sys.base_prefix).parents if not path.stat().st_mode & 0o001]
        make_up(tmp_path)
        before = ["unshare", "--mount", "--propagation", "private", "sh", "-c", MAKE_UP, "sh", str(tmp_path),
                  sys.base_prefix, closed[-1] if closed else ""]
    return run


def make_up(directory: Path, lines: str = f"tester:{FIRST}:65536\n") -> None:
    """The user, and what is lent to it."""
    (directory / "passwd").write_text(Path("/etc/passwd").read_text() + f"tester:x:{UID}:{GID}::/dev/shm:/bin/sh\n")
    (directory / "group").write_text(Path("/etc/group").read_text() + f"tester:x:{GID}:\n")
    for name in ("subuid", "subgid"):
        (directory / name).write_text(lines)
    for path in directory.iterdir():
        path.chmod(0o644)


def first_lent() -> int:
    return FIRST if os.geteuid() == 0 else lent.probe(os.geteuid()).uids[0][0]


def test_nobody_is_an_id_that_is_lent(shell: Shell) -> None:
    """Fails when it is the launcher under another name: then the map has no line for it."""
    done = shell('"$@" -u nobody -- sh -c "id -u; cat /proc/self/uid_map /proc/self/setgroups; id -G"')
    assert done.returncode == 0, done.stderr
    uid, *rest, setgroups, groups = done.stdout.splitlines()
    assert (uid, setgroups, groups) == ("65534", "allow", str(pwd.getpwnam("nobody").pw_gid))
    assert [list(map(int, line.split())) for line in rest] == [
        [0, first_lent(), UID], [UID, UID, 1], [UID + 1, first_lent() + UID, 65536 - UID]]


def test_others_own_neither_our_files_nor_the_hosts(shell: Shell) -> None:
    """What only the launcher may read stays closed; its owner is still told."""
    done = shell('d=$(mktemp -d); chmod 755 "$d"; echo secret >"$d/file"; chmod 600 "$d/file"; '
                 '"$@" -v "$d:$d" -u nobody -- sh -c "stat -c %u $d/file; cat $d/file; echo >$d/new"; echo $?; '
                 '"$@" -v "$d:$d" -- cat "$d/file"; rm -r "$d"')
    assert done.stdout.splitlines() == [str(UID), "2", "secret"], done.stderr
    assert done.stderr.count("Permission denied") == 2


def test_root_inside_is_the_launcher_outside(shell: Shell) -> None:
    """Root makes files of ours, and files of another that is lent to us when it gives one away."""
    done = shell('d=$(mktemp -d); "$@" -u 0 -v "$d:$d" --cap-add CHOWN -- '
                 'sh -c "id -u; touch $d/a $d/b; chown 5:5 $d/b; stat -c %u $d /tmp"; stat -c %u "$d/a" "$d/b"; '
                 'rm -rf "$d"')
    assert done.stdout.split() == ["0", "0", "0", str(UID), str(first_lent() + 4)], done.stderr


def test_root_inside_has_no_power_outside(shell: Shell) -> None:
    done = shell('"$@" -u 0 --cap-add ALL -- sh -c "cat /etc/shadow >/dev/null; mknod /tmp/disk b 7 0; '
                 'grep CapEff /proc/self/status"')
    assert done.stdout.split()[0] == "CapEff:" and int(done.stdout.split()[1], 16)
    assert "/etc/shadow: Permission denied" in done.stderr
    assert "/tmp/disk: Operation not permitted" in done.stderr


def test_streams_can_be_opened_again(shell: Shell) -> None:
    """Fails when the pipes stay the launcher's."""
    done = shell('echo in | "$@" -u nobody -- sh -c "cat /dev/stdin; echo err >/dev/stderr" 2>&1 | cat')
    assert done.stdout == "in\nerr\n", done.stderr


def test_what_it_has_of_its_own_is_roots(shell: Shell) -> None:
    """The mode of /tmp keeps one from the other's files, /run is not for everybody, and a terminal has its group."""
    done = shell('"$@" -u nobody -- sh -c "stat -c %u:%g:%a /tmp /run /dev/shm; touch /tmp/x && stat -c %u /tmp/x; '
                 'touch /run/x"')
    assert done.stdout.split() == ["0:0:1777", "0:0:755", "0:0:1777", "65534"], done.stderr
    done = shell('"$@" -u nobody -- python3 -c "import os; print(os.fstat(os.openpty()[1]).st_gid)"')
    assert done.stdout == "5\n", done.stderr


@pytest.mark.parametrize("flags", ["", "--pid host"])
def test_nothing_of_another_id_is_left(shell: Shell, flags: str) -> None:
    """The launcher may not kill it, the init may."""
    done = shell(f'"$@" {flags} --timeout 1 --stop-timeout 0 -u nobody -- sh -c "sleep 4242 & sleep 4242"; echo $?; '
                 f'pgrep -x -f "sleep 4242" -u {first_lent() + 65533}')
    assert done.stdout == "124\n", done.stderr


def test_what_newuidmap_says_is_said_in_one_line(shell: Shell) -> None:
    """With no_new_privs, its set-uid bit does nothing."""
    done = shell('setpriv --no-new-privs "$@" -u nobody -- echo ran')
    assert (done.returncode, done.stdout) == (125, "")
    error, hint = done.stderr.splitlines()
    assert "newuidmap" in error and "--user" in error
    assert hint.startswith("hint: ")


@pytest.mark.requires("root")
def test_without_ids_it_is_refused_before_anything_starts(shell: Shell, tmp_path: Path) -> None:
    make_up(tmp_path, "somebody:1:65536\n")
    done = shell('"$@" -u nobody -- echo ran')
    assert (done.returncode, done.stdout) == (125, "")
    assert "/etc/subuid" in done.stderr
    assert "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 tester" in done.stderr
    done = shell('"$@" -- id -u')
    assert (done.returncode, done.stdout) == (0, f"{UID}\n"), done.stderr
