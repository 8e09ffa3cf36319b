"""What the command finds inside: nothing of the caller's that was not meant for it."""

from __future__ import annotations

import os
import pwd
import signal
from pathlib import Path

import pytest

from support.sandbox_run import Program, python
from support.warm_program import warm

sandbox = warm
pytestmark = [pytest.mark.matter("process"), pytest.mark.drivers("none")]

SHOW_FDS = """
import os
def there(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
print(*filter(there, range(4096)))
"""


def test_only_the_standard_fds(sandbox: Program) -> None:
    extra = [os.open("/", os.O_RDONLY) for _ in range(3)]
    high = os.dup2(extra[0], 777)
    try:
        done = sandbox(*python(SHOW_FDS), pass_fds=[*extra, high])
    finally:
        for fd in (*extra, high):
            os.close(fd)
    assert done.out == b"0 1 2\n"


def test_signals_are_fresh(sandbox: Program) -> None:
    def spoil() -> None:
        for number in (signal.SIGPIPE, signal.SIGCHLD, signal.SIGUSR1, signal.SIGXFSZ, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM, signal.SIGUSR2, signal.SIGTERM, signal.SIGRTMIN + 1})

    done = sandbox("--", "cat", "/proc/self/status", preexec_fn=spoil, restore_signals=False)
    assert done.code == 0, done.err
    facts = dict(line.split(":\t", 1) for line in done.out.decode().splitlines())
    for key in ("SigPnd", "SigBlk", "SigIgn", "SigCgt", "ShdPnd"):
        assert int(facts[key], 16) == 0, (key, facts[key])


def test_caller_that_ignores_sigchld_gets_the_exit_code(sandbox: Program) -> None:
    done = sandbox("--", "sh", "-c", "exit 7", preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))
    assert (done.code, done.report["exit_code"]) == (7, 7)


def test_broken_pipe_kills_as_usual(sandbox: Program) -> None:
    done = sandbox("--", "sh", "-c", "yes | head -n 1; exit 0",
                   preexec_fn=lambda: signal.signal(signal.SIGPIPE, signal.SIG_IGN), restore_signals=False)
    assert (done.code, done.out, done.err) == (0, b"y\n", "")


ORPHANS = """
import os, time
for _ in range(100):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.wait()
def states():
    for entry in os.listdir('/proc'):
        if entry.isdigit():
            try:
                with open(f'/proc/{entry}/stat') as file:
                    yield file.read().rpartition(')')[2].split()[0]
            except (FileNotFoundError, ProcessLookupError):
                pass
deadline = time.monotonic() + 30
while len(seen := list(states())) > 2 and time.monotonic() < deadline:
    time.sleep(0.01)
print(seen.count('Z'), len(seen))
"""


def test_no_zombies(sandbox: Program) -> None:
    assert sandbox(*python(ORPHANS)).out == b"0 2\n"


def test_first_process_is_our_init(sandbox: Program) -> None:
    done = sandbox("--", "sh", "-c", "echo $PPID; read name </proc/1/comm; echo $name; cat /proc/1/cmdline")
    assert done.out == b"1\nsandbox-init\nsandbox-init\0" + (b"--adopt\0" if sandbox.driver == "service" else b"")


def test_init_cannot_be_killed_from_inside(sandbox: Program) -> None:
    assert sandbox("--", "sh", "-c", "kill -9 1; kill -TERM 1; exit 6").code == 6


def test_init_is_not_a_way_to_a_file_of_the_host(sandbox: Program) -> None:
    done = sandbox(*python("import os; fd = os.open('/proc/1/exe', os.O_RDONLY); print(os.readlink('/proc/1/exe'));"
                           "import fcntl; print(fcntl.fcntl(fd, 1034))"))
    # Unreadable is fine; a file that is no sealed memfd is not.
    assert done.code == 1 or (b"memfd:" in done.out and int(done.out.split()[-1]) & 0x8)


def test_init_holds_nothing(sandbox: Program) -> None:
    done = sandbox(*python("import os\nfor fd in os.listdir('/proc/1/fd'): print(os.readlink(f'/proc/1/fd/{fd}'))"))
    for line in done.out.decode().splitlines():
        assert line.startswith(("pipe:", "socket:", "anon_inode:", "/dev/null")), line


def test_proc_shows_only_what_is_inside(sandbox: Program) -> None:
    done = sandbox(*python("import os; print(sorted(int(e) for e in os.listdir('/proc') if e.isdigit()) ==  [1,"
                           " os.getpid()])"))
    assert done.out == b"True\n"


def test_mounts_inside_do_not_show_outside(sandbox: Program) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    script = "grep -c ' /mnt tmpfs \\| /mnt .* tmpfs ' /proc/self/mountinfo; read line"
    with sandbox.start("--tmpfs", "/mnt", "--", "sh", "-c", script) as running:
        assert running.read_line() == b"1\n"
        assert Path("/proc/self/mountinfo").read_text() == before
        assert running.finish(b"\n").code == 0


def test_environment_is_an_allow_list(sandbox: Program) -> None:
    caller = {"PATH": "/usr/bin:/bin", "HOME": "/home/x", "SECRET_TOKEN": "s", "LC_ALL": "C", "LD_PRELOAD": "",
              "TERM": "dumb", "PYTHONPATH": "/x", "SSH_AUTH_SOCK": "/x"}
    done = sandbox("--", "env", env=caller)
    assert sorted(done.out.decode().split()) == ["HOME=/home/x", "LC_ALL=C", "PATH=/usr/bin:/bin", "TERM=dumb"]


def test_environment_can_be_added_to(sandbox: Program, tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# comment\nFROM_FILE=a b = c\n\nCOPIED\nLATER=file\n")
    done = sandbox("--env-file", str(file), "-e", "SET=x\ny", "-e", "ALSO_COPIED", "-e", "ABSENT", "-e", "LATER=flag",
                   "--", "env", "-0", env={"COPIED": "1", "ALSO_COPIED": "2", "HOME": "/"})
    found = set(done.out.rstrip(b"\0").split(b"\0"))
    assert {b"FROM_FILE=a b = c", b"COPIED=1", b"ALSO_COPIED=2", b"SET=x\ny", b"LATER=flag", b"HOME=/"} <= found
    assert not any(word.startswith(b"ABSENT") for word in found)


def test_bytes_that_are_no_text_survive(sandbox: Program) -> None:
    done = sandbox("-e", "ODD=\udcff\udcfe", "--", "sh", "-c", 'printf %s "$ODD"')
    assert done.out == b"\xff\xfe"


def test_working_directory(sandbox: Program, tmp_path: Path) -> None:
    assert sandbox("-w", str(tmp_path), "--", "pwd").out.decode().strip() == str(tmp_path)
    assert sandbox("--", "pwd", cwd="/usr").out == b"/usr\n"


IDENTITY = "grep -E '^(Uid|Gid|Groups)' /proc/self/status"


@pytest.mark.requires("root")
def test_user_by_name(sandbox: Program) -> None:
    nobody = pwd.getpwnam("nobody")
    done = sandbox("-u", "nobody", "--", "sh", "-c", f"{IDENTITY}; echo $HOME $USER")
    groups = os.getgrouplist("nobody", nobody.pw_gid)
    assert done.out.decode().split() == [
        "Uid:", *4 * [str(nobody.pw_uid)], "Gid:", *4 * [str(nobody.pw_gid)], "Groups:", *map(str, groups),
        nobody.pw_dir, "nobody"]


@pytest.mark.requires("root")
def test_user_by_number(sandbox: Program) -> None:
    done = sandbox("-u", "12345:54321", "--", "sh", "-c", IDENTITY)
    assert done.out.split() == [b"Uid:", *4 * [b"12345"], b"Gid:", *4 * [b"54321"], b"Groups:", b"54321"]


@pytest.mark.requires("root")
def test_other_user_cannot_become_root_again(sandbox: Program) -> None:
    assert sandbox("-u", "nobody", "--", "perl", "-e", "($<, $>) = (0, 0); exit($< && $> ? 7 : 0)").code == 7
    caps = sandbox("-u", "nobody", "--", "grep", "-E", "^Cap(Prm|Eff)", "/proc/self/status").out.split()
    assert {int(word, 16) for word in caps[1::2]} == {0}
