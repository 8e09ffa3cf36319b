"""Keys, passwords and sockets of the command's user: masked by default, and shown by the flag that says so."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.isolation import secrets
from support.sandbox_run import Program, Result, python

pytestmark = [pytest.mark.matter("isolation"), pytest.mark.drivers("none")]


@pytest.fixture
def home() -> Iterator[Path]:
    """A home outside the directories that are hidden in any case, with a key and something that is no secret."""
    directory = Path(tempfile.mkdtemp(prefix="sandbox-test-", dir="/srv" if os.geteuid() == 0 else Path.home()))
    directory.chmod(0o755)
    for name in (".ssh/id", ".aws/credentials", "project/file"):
        (directory / name).parent.mkdir()
        (directory / name).write_text("what it holds\n")
    (directory / ".netrc").write_text("what it holds\n")
    (directory / "link").symlink_to(".ssh")
    yield directory
    shutil.rmtree(directory)


def run(sandbox: Program, home: Path, *words: str, **more: str) -> Result:
    """Run it as a user with this home."""
    variables = (f"{name}={value}" for name, value in {"HOME": str(home), **more}.items())
    return sandbox(*words, wrap=("env", *variables))


@pytest.mark.parametrize("name", [".ssh/id", ".aws/credentials", ".netrc", "link/id"])
def test_masked_by_default(sandbox: Program, home: Path, name: str) -> None:
    done = run(sandbox, home, "--", "sh", "-c", f"cat {home}/{name}; cat {home}/project/file")
    assert done.out == b"what it holds\n", "only the file that is no secret"


@pytest.mark.requires("root", "idmap")
@pytest.mark.parametrize("flags, seen", [((), False), (("--protect-home", "off"), False),
                                         (("--unmask", "/etc/shadow"), True)])
def test_password_hashes(sandbox: Program, home: Path, flags: tuple[str, ...], seen: bool) -> None:
    """Fails without the masks: the root of the sandbox owns the file."""
    done = run(sandbox, home, *flags, "--", "cat", "/etc/shadow")
    assert (b"root:" in done.out) is seen


@pytest.mark.parametrize("flags", [("--unmask", "{home}/.ssh"), ("--unmask", "{home}"), ("--protect-home", "off"),
                                   ("-v", "{home}/.ssh:{home}/.ssh:ro"), ("-v", "{home}/.ssh/id:{home}/.ssh/id:ro"),
                                   ("--protect-home", "tmpfs", "-v", "{home}/.ssh:{home}/.ssh:ro")], ids=" ".join)
def test_shown_again(sandbox: Program, home: Path, flags: tuple[str, ...]) -> None:
    done = run(sandbox, home, *(flag.replace("{home}", str(home)) for flag in flags), "--", "cat", f"{home}/.ssh/id")
    assert done.out == b"what it holds\n", done


def test_a_file_of_a_masked_directory_alone(sandbox: Program, home: Path) -> None:
    (home / ".ssh/config").touch()
    file = f"{home}/.ssh/config"
    assert run(sandbox, home, "-v", f"{file}:{file}:ro", "--", "ls", f"{home}/.ssh").out == b"config\n"


def test_an_empty_home(sandbox: Program, home: Path) -> None:
    done = run(sandbox, home, "--protect-home", "tmpfs", "--", "sh", "-c", f"ls -A {home} /home; touch {home}/new")
    assert done.out.split() == [b"/home:", f"{home}:".encode()], done
    assert done.code == 1


def test_what_is_masked_cannot_be_moved_away(sandbox: Program, home: Path) -> None:
    """Fails where an overlay is put over the masks."""
    script = f"mv {home}/.ssh {home}/moved; rm -r {home}/.netrc; cat {home}/*/id {home}/.ssh/id"
    done = run(sandbox, home, "--overlay", "--", "sh", "-c", script)
    assert b"what it holds" not in done.out, done


def test_a_working_directory_that_is_masked(sandbox: Program, home: Path) -> None:
    done = sandbox("--", "pwd", wrap=("env", "-C", f"{home}/.ssh", f"HOME={home}"))
    assert done.out == b"/\n", done
    done = run(sandbox, home, "-w", f"{home}/.ssh", "--", "pwd")
    assert (done.code, f"--workdir {home}/.ssh: it is masked inside" in done.err) == (2, True)


def test_a_working_directory_below_a_tmpfs(sandbox: Program, home: Path) -> None:
    """Fails where the command is started in a directory that is not there: 125."""
    wrap = ("env", "-C", f"{home}/project", f"HOME={home}")
    assert sandbox("--tmpfs", str(home), "--", "pwd", wrap=wrap).out == b"/\n"
    project = f"{home}/project"
    done = sandbox("--tmpfs", str(home), "-v", f"{project}:{project}", "--", "pwd", wrap=wrap)
    assert done.out == f"{project}\n".encode(), done


@pytest.mark.parametrize("flag, told", [("/tmp/agent", "the sandbox has a /tmp of its own"),
                                        ("~/.ssh", "the shell has not put your home in the place of ~")])
def test_unmask_of_what_it_cannot_show(sandbox: Program, home: Path, flag: str, told: str) -> None:
    done = run(sandbox, home, "--unmask", flag, "--", "true")
    assert (done.code, told in done.err) == (2, True), done


@pytest.mark.parametrize("name", [".", "{home}", "{home}/link", "{home}/project/../.netrc"])
def test_a_volume_of_secrets_is_told(sandbox: Program, home: Path, name: str) -> None:
    """Fails where a relative path, or a link, is taken for a name of its own."""
    volume = f"{name.replace('{home}', str(home))}:/tmp/there:ro"
    done = sandbox("-v", volume, "--", "true", wrap=("env", "-C", str(home), f"HOME={home}"))
    assert "keys, passwords and tokens" in done.err
    assert {one["item"]: one["open"] for one in done.report["exposure"]["items"]}["Secrets"]


def test_unmask_wants_what_is_masked(sandbox: Program, home: Path) -> None:
    done = run(sandbox, home, "--unmask", f"{home}/project", "--", "true")
    assert (done.code, f"--unmask {home}/project: it is not masked" in done.err) == (2, True)
    done = run(sandbox, home, "--unmask", f"{home}/.ssh/id", "--", "true")
    assert f"--volume {home}/.ssh/id:{home}/.ssh/id:ro" in done.err


@pytest.fixture
def agent(home: Path) -> Iterator[Path]:
    """Somebody listens on a socket in the home."""
    path = home / "project/agent"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o777)
        listener.listen()
        yield path


def connect(path: Path) -> list[str]:
    return python(f"import socket\ntry: socket.socket(socket.AF_UNIX).connect('{path}')\n"
                  "except OSError as error: print(error.strerror)\nelse: print('connected')")


def test_the_socket_that_a_variable_names(sandbox: Program, agent: Path, home: Path) -> None:
    """agent-safehouse#36."""
    done = run(sandbox, home, *connect(agent), SSH_AUTH_SOCK=str(agent))
    assert done.out == b"Connection refused\n", done
    done = run(sandbox, home, "--unmask", str(agent), *connect(agent), SSH_AUTH_SOCK=str(agent))
    assert done.out == b"connected\n", done


@pytest.mark.requires("sockets")
def test_any_other_socket(sandbox: Program, agent: Path, home: Path) -> None:
    """Fails without the right in the step ``landlock``."""
    assert run(sandbox, home, *connect(agent)).out == b"Permission denied\n"
    assert run(sandbox, home, "-v", f"{agent}:{agent}:ro", *connect(agent)).out == b"connected\n"
    assert run(sandbox, home, "-v", f"{agent.parent}:/mnt", *connect(Path("/mnt/agent"))).out == b"connected\n"


@pytest.mark.requires("sockets")
def test_sockets_of_its_own_and_renames(sandbox: Program, home: Path) -> None:
    """Fails without a rule for renames from one directory to another, and with a ruleset of scopes before that one."""
    code = ("import os, socket\nlistener = socket.socket(socket.AF_UNIX)\nlistener.bind('/tmp/own')\n"
            "listener.listen()\nsocket.socket(socket.AF_UNIX).connect('/tmp/own')\nos.mkdir('/tmp/a')\nos.mkdir('/tmp/b')\n"
            "open('/tmp/a/file', 'w')\nos.rename('/tmp/a/file', '/tmp/b/file')\nprint('done')")
    assert run(sandbox, home, *python(code)).out == b"done\n"


@pytest.mark.parametrize("how", ["a link in /tmp", "no HOME"])
def test_a_home_by_another_name(sandbox: Program, home: Path, tmp_path: Path, how: str) -> None:
    """Fails where the path of the home is looked for inside, or only HOME says where it is."""
    (tmp_path / "link").symlink_to(home)
    if how == "a link in /tmp":
        done = run(sandbox, tmp_path / "link", "--", "cat", f"{home}/.ssh/id")
        assert b"what it holds" not in done.out
    else:
        explained = sandbox.other("explain", "--", "true", env={"PATH": os.environ["PATH"]}).out.decode()
        of_user = Path(pwd.getpwuid(os.geteuid()).pw_dir)
        there = [name for name, _ in secrets.IN_HOME if (of_user / name).exists()]
        assert all(f"mask          {of_user}/{name}" in explained for name in there)


def test_the_root_of_the_host_is_no_rootfs(sandbox: Program) -> None:
    """Fails where all that is closed to other runs could be written to."""
    done = sandbox("--rootfs", "/", "--", "true")
    assert (done.code, "--rootfs /: that is the host's own root" in done.err) == (2, True)


def test_the_plan_has_them(sandbox: Program, home: Path) -> None:
    done = sandbox.other("explain", "--", "true", env={**os.environ, "HOME": str(home)})
    masks = [line.split()[-1] for line in done.out.decode().splitlines() if " mask " in line]
    assert {f"{home}/.ssh", f"{home}/.aws", f"{home}/.netrc"} <= {*masks}
    assert not any(path.startswith(f"{home}/.gnupg") for path in masks), "there is none"
