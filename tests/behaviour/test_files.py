"""What of the host is seen inside, and what comes out again."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from support.sandbox_run import Program, python
from support.warm_program import warm

sandbox = warm
pytestmark = [pytest.mark.matter("isolation"), pytest.mark.drivers("none")]


def sh(script: str) -> tuple[str, ...]:
    return "--", "sh", "-c", script


def test_the_hosts_files_are_there_but_cannot_be_changed(sandbox: Program) -> None:
    done = sandbox(*sh("cat /etc/os-release; for d in / /etc /usr /var /home; do touch $d/x && echo $d; done"))
    assert done.out == Path("/etc/os-release").read_bytes()
    assert done.err.count("Read-only file system") == 5


def test_private_directories(sandbox: Program) -> None:
    """Empty at the start, writable, gone at the end."""
    script = "ls -A $d; echo x >$d/sandbox-test && cat $d/sandbox-test"
    directories = ("/tmp", "/var/tmp", "/dev/shm", *(("/run",) if os.geteuid() == 0 else ()))
    for directory in directories:
        done = sandbox(*sh(f"d={directory}; {script}"), cwd="/")
        seen = {line for line in done.out.decode().split() if line != "x"}
        assert seen <= {sandbox.directory.parts[2], "x"}, "only the way to the test's own directory"
        assert b"x" in done.out.split()
        assert not Path(directory, "sandbox-test").exists()


def test_devices(sandbox: Program) -> None:
    done = sandbox(*sh("ls /dev; echo >/dev/null; head -c 2 /dev/zero | od -An -tx1; head -c 3 /dev/urandom | wc -c;"
                       "cp /etc/os-release /dev/full; touch /dev/new || echo shut"))
    names, _, rest = done.out.partition(b"zero\n")
    assert names.split() == [b"fd", b"full", *([b"mqueue"] if b"mqueue" in names else []), b"null", b"ptmx", b"pts",
                             b"random", b"shm", b"stderr", b"stdin", b"stdout", b"tty", b"urandom"]
    assert rest.split() == [b"00", b"00", b"3", b"shut"]
    assert "No space left" in done.err


def test_a_new_terminal_can_be_made(sandbox: Program) -> None:
    done = sandbox(*python("import os; a, b = os.openpty(); print(os.ttyname(b)); os.write(a, b'x\\n'); os.read(b, 9)"))
    assert done.out == b"/dev/pts/0\n", done.err


def test_streams_can_be_opened_again(sandbox: Program) -> None:
    done = sandbox(*sh("cat /dev/stdin >/dev/stdout; echo error >/dev/stderr"), input=b"words\n")
    assert (done.out, done.err) == (b"words\n", "error\n")
    if os.geteuid() == 0:
        done = sandbox("-u", "nobody", *sh("cat /dev/stdin >/dev/stdout"), input=b"words\n")
        assert done.out == b"words\n"


def test_the_terminal_has_a_name(sandbox: Program) -> None:
    assert sandbox("-t", *sh("tty; echo again >$(tty)")).out == b"/dev/console\r\nagain\r\n"


def test_volume(sandbox: Program, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("words\n")
    (tmp_path / "set").mkdir()
    done = sandbox("-v", f"{tmp_path}:/mnt", *sh("cat /mnt/file; echo more >/mnt/made; mkdir /mnt/set/sub; id -u"))
    assert done.out == b"words\n%d\n" % os.geteuid()
    made = (tmp_path / "made").stat()
    assert (made.st_uid, made.st_gid) == (os.geteuid(), os.getegid()), "as outside"
    assert (tmp_path / "set" / "sub").is_dir()


def test_volume_read_only(sandbox: Program, tmp_path: Path) -> None:
    for flags in (("-v", f"{tmp_path}:/mnt:ro"), ("--mount", f"type=bind,source={tmp_path},target=/mnt,readonly")):
        done = sandbox(*flags, *sh("ls /mnt; echo x >/mnt/made"))
        assert done.code == 2
        assert "Read-only" in done.err


def test_a_file_as_volume_in_a_directory_that_is_made(sandbox: Program, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("a\n")
    assert sandbox("-v", f"{file}:/tmp/deep/er/file", *sh("cd /tmp/deep/er; cat file; echo b >>file")).out == b"a\n"
    assert file.read_text() == "a\nb\n"


def test_relative_volume(sandbox: Program, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    assert sandbox("-v", "./sub:/mnt", *sh("touch /mnt/made"), cwd=tmp_path).code == 0
    assert (tmp_path / "sub" / "made").exists()


@pytest.mark.parametrize("flags", [
    ("-v", "/no/such:/mnt"), ("-v", "/etc:/no/such"), ("-v", "/etc/passwd:/mnt"), ("--rootfs", "/no/such"),
    ("--overlay", "--commit", "/no/such"), ("-v", "data:/mnt")])
def test_what_cannot_be_is_refused_before_anything_starts(sandbox: Program, flags: tuple[str, ...]) -> None:
    done = sandbox(*flags, "--", "echo", "ran")
    assert done.code in (2, 125)
    assert done.out == b""
    assert done.err.startswith("sandbox: --") and done.err.count("\n") <= 2


def test_tmpfs(sandbox: Program) -> None:
    done = sandbox("--tmpfs", "/mnt:size=64k,mode=700", *sh("stat -c %a /mnt; head -c 99999 /dev/zero >/mnt/big"))
    assert done.out == b"700\n"
    assert "No space left" in done.err


def test_working_directory_below_a_private_one(sandbox: Program, tmp_path: Path) -> None:
    """It is there, as everything else of the host's: to be read."""
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "file").write_text("words\n")
    # Without the volume that shows it to other tests.
    done = sandbox.other("run", *sandbox.way(), "--", "sh", "-c", "pwd; cat file; touch made", cwd=inner)
    assert done.out.decode() == f"{inner}\nwords\n"
    assert "Read-only" in done.err


def test_a_working_directory_that_is_gone(sandbox: Program, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    away = ("sh", "-c", f'cd {gone}; rmdir {gone}; exec "$@"', "sh")
    assert sandbox("--", "pwd", wrap=away).out == b"/\n"


def test_a_working_directory_behind_a_link_of_proc(sandbox: Program) -> None:
    """Only who may trace that process may even read the link."""
    done = sandbox("--workdir", "/proc/1/cwd", "--", "pwd")
    assert done.code == 125
    assert "--workdir: cannot enter the directory /proc/1/cwd" in done.err
    assert "Traceback" not in done.err


@pytest.mark.requires("root")
def test_a_user_with_a_high_id(sandbox: Program, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path.parent):
        path.chmod(0o777)
    done = sandbox("-u", "4242424:4343434", *sh(f"id -u; id -g; touch {tmp_path}/made"))
    assert done.out == b"4242424\n4343434\n", done.err
    # Ids above 65535 are mapped for processes; on disk they stay what they are.
    assert (tmp_path / "made").stat().st_uid == 4242424


@pytest.mark.requires("root", "idmap")
def test_overlay(sandbox: Program) -> None:
    """As a package manager would: the system's own files are changed, added and removed, inside only."""
    before = Path("/etc/passwd").read_bytes()
    done = sandbox("--overlay", *sh("echo x >>/etc/passwd; rm /etc/group; mkdir /opt/new; tail -n 1 /etc/passwd;"
                                    "ls -d /etc/group /opt/new"))
    assert done.out == b"x\n/opt/new\n"
    assert Path("/etc/passwd").read_bytes() == before
    assert Path("/etc/group").exists() and not Path("/opt/new").exists()


@pytest.mark.requires("root", "idmap")
def test_commit_keeps_what_was_changed_and_nothing_else(sandbox: Program, tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    keep.mkdir()
    flags = ("--overlay", "--commit", str(keep))
    assert sandbox(*flags, *sh("echo x >/etc/issue; rm /etc/group; mkdir /opt/new; echo y >/opt/new/y")).code == 0
    upper = keep / "upper"
    found = {str(path.relative_to(upper)) for path in upper.rglob("*")}
    assert found == {"etc", "etc/issue", "etc/group", "opt", "opt/new", "opt/new/y"}
    assert (upper / "etc" / "issue").read_text() == "x\n"
    assert stat.S_ISCHR((upper / "etc" / "group").lstat().st_mode), "how overlayfs says that it was removed"
    assert {path.lstat().st_uid for path in upper.rglob("*")} == {0}
    assert sandbox(*flags, *sh("cat /etc/issue /opt/new/y; ls /etc/group")).out == b"x\ny\n", "it goes on from there"


@pytest.mark.requires("root")
def test_root_file_system_of_ones_own(sandbox: Program, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("usr", "bin", "lib", "lib64"):
        (root / name).mkdir(parents=True)
    flags = ["--rootfs", str(root)]
    for name in ("usr", "bin", "lib", "lib64"):
        flags += ["-v", f"/{name}:/{name}:ro"] if Path("/", name).exists() else []
    done = sandbox(*flags, *sh("pwd; ls /; echo x >/made"))
    assert done.out.split()[0] == b"/"
    assert {b"etc", b"home"}.isdisjoint(done.out.split())
    assert (root / "made").stat().st_uid == 0
    assert sandbox(*flags, "--read-only", *sh("echo x >/more")).code == 2
    assert sandbox(*flags, "--overlay", *sh("echo x >/more")).code == 0
    assert not (root / "more").exists()
