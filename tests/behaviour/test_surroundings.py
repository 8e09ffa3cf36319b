"""A sandbox in a sandbox, a chroot, a user namespace, or among read-only mounts: it works, or one sentence says how."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.sandbox_run import SANDBOX, Program, Result, python

pytestmark = [pytest.mark.matter("isolation"), pytest.mark.only("none"), pytest.mark.drivers("none")]
ROOT = os.geteuid() == 0
TREE = Path(__file__).resolve().parents[2]
LOOK = "id -u; cd /proc; echo [0-9]*; cat /proc/sys/kernel/hostname"
PRIVATE = 'mount --make-rprivate /; {}; exec "$@"'
"""A script of a mount namespace of its own, as words in front of a command."""


def within(script: str) -> tuple[str, ...]:
    return ("unshare", "--mount", "sh", "-ec", PRIVATE.format(script), "sh")


def run(*words: str) -> tuple[str, ...]:
    """A sandbox inside, as words."""
    return (*SANDBOX, "run", *words)


def said(done: Result) -> list[str]:
    """What was said, without the warning of what --nest opens."""
    return [line for line in done.err.splitlines() if "warning: --nest" not in line]


# -- a sandbox in a sandbox

def test_a_sandbox_in_a_sandbox(sandbox: Program) -> None:
    """Fails without the rules of the filter, with a mask in /proc or /sys, or, as root, without CAP_SETFCAP."""
    done = sandbox("--nest", "--", *run("--hostname", "inner", "--", "sh", "-c", LOOK))
    assert (done.code, said(done)) == (0, [])
    assert done.out.decode().splitlines() == [str(os.geteuid()), "1 2", "inner"]
    assert [item["item"] for item in done.report["exposure"]["items"] if item["open"] and item["flag"] == "--nest"] == [
        "ProcSubset", "RestrictNamespaces", "SystemCallFilter @mount"]


@pytest.mark.parametrize("flags", [
    (), ("--security-opt", "seccomp=unconfined", *(("--cap-add", "SETFCAP") if ROOT else ()))])
def test_without_nest_one_sentence_names_it(sandbox: Program, flags: tuple[str, ...]) -> None:
    """Fails without the look at process 1: what the kernel refuses is a system call, or to mount /proc."""
    done = sandbox(*flags, "--", *run("--", "true"))
    assert done.code == 125
    assert done.err.splitlines()[-1] == "hint: this is a sandbox itself: start the outer one with `sandbox run --nest`"


def test_what_is_closed_stays_closed(sandbox: Program) -> None:
    """Neither a command with --nest nor one with all capabilities in a user namespace inside changes the machine."""
    settings = ("sys/kernel/core_pattern", "sys/vm/drop_caches", "sys/kernel/sysrq", "sysrq-trigger")
    write = f'for name in {" ".join(settings)}; do (echo 0 >/proc/$name) 2>&- && echo $name; done'
    inner = f"unshare --map-root-user --mount --pid --fork --mount-proc sh -c '{write}; echo $$'"
    done = sandbox("--nest", "--", "sh", "-c", f"{write}; {inner}")
    assert (done.code, done.out) == (0, b"1\n")
    calls = python("import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
                   "for number in (321, 250, 425, 308, 101):\n"  # of x86: bpf keyctl io_uring_setup setns ptrace
                   "    libc.syscall(number, 0, 0, 0, 0)\n    print(ctypes.get_errno())")
    if os.uname().machine == "x86_64":
        assert sandbox("--nest", *calls).out.split()[:4] == [b"1"] * 4


@pytest.mark.requires("bwrap")
def test_another_tools_sandbox_inside(sandbox: Program) -> None:
    """Fails without mount(2) in the filter: bwrap calls it, and we do not."""
    inside = ("bwrap", "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--")
    assert sandbox("--nest", "--", *inside, "echo", "hi").out == b"hi\n"
    assert sandbox("--nest", "--", "unshare", "--map-root-user", "chroot", "/", "echo", "hi").out == b"hi\n"


@pytest.mark.requires("chromium")
def test_chromium_makes_its_own_sandbox_inside(sandbox: Program) -> None:
    """Without --nest it ends with "No usable sandbox!"."""
    user = ("-u", "1000:1000") if ROOT else ()  # it does not start as root
    page = ("chromium", "--headless=new", "--disable-gpu", "--dump-dom", "data:text/html,<p>hello</p>")
    for flags, code in ((("--nest",), 0), ((), 1)):
        done = sandbox("-w", "/", *user, "-e", "HOME=/tmp", *flags, "--", *page)
        assert (done.code, b"<p>hello</p>" in done.out) == (code, code == 0), done.err


def test_limits_are_the_outer_ones(sandbox: Program) -> None:
    done = sandbox("--nest", "--", *run("-m", "64m", "--", "true"))
    assert (done.code, said(done)[-1]) == (125, "hint: this is a sandbox itself: give the limit to the outer one")
    assert sandbox("--nest", "--", *run("--timeout", "0.1", "--", "sleep", "100")).code == 124


@pytest.mark.only("cgroupfs")
@pytest.mark.drivers()
@pytest.mark.requires("root")
def test_limits_are_the_outer_ones_beside_a_cgroup(sandbox: Program) -> None:
    """The outer sandbox's own cgroup is seen inside, read-only."""
    done = sandbox("--nest", "-m", "64m", "--", *run("-m", "32m", "--", "true"))
    assert (done.code, said(done)[-1]) == (125, "hint: this is a sandbox itself: give the limit to the outer one")


@pytest.mark.requires("root")
@pytest.mark.parametrize(("flags", "why"), [
    (("--userns", "host"), "leave --userns host out"), (("--pid", "host"), "give one of them"),
    (("--security-opt", "seccomp=moby"), "leave one of them out")])
def test_what_nest_cannot_be_beside(sandbox: Program, flags: tuple[str, ...], why: str) -> None:
    done = sandbox("--nest", *flags, "--", "true", report=False)
    assert done.code in (2, 125)
    assert f"hint: {why}" in done.err


@pytest.mark.requires("root")
def test_root_inside_gets_no_unmasked_proc(sandbox: Program) -> None:
    """There root has no ids to give, so that its /proc could be that of the machine's root."""
    for around in (("unshare", "--map-root-user"), tuple(sandbox.argv("--nest", "--", name="outer"))):
        done = sandbox("--nest", "--", "true", wrap=around, report=False)
        assert (done.code, said(done)[-1]) == (125, "hint: start it as another user, or outside")


# -- a user namespace

def test_in_a_user_namespace(sandbox: Program) -> None:
    """Fails without the look whether root may write to /run: "/run/sandbox is not a directory of our own"."""
    done = sandbox("--", "sh", "-c", LOOK, wrap=("unshare", "--map-root-user"))
    assert (done.code, done.out.splitlines()[:2]) == (0, [b"0", b"1 2"]), done.err


def test_in_a_user_namespace_without_a_map(sandbox: Program) -> None:
    done = sandbox("--", "true", wrap=("unshare", "--user"), report=False)
    assert (done.code, done.err.splitlines()[-1]) == (
        125, "hint: no user is mapped into this user namespace: make it with `unshare --map-root-user`")


@pytest.mark.requires("root")
def test_a_proc_with_masks(sandbox: Program) -> None:
    """Some container, of which nothing is known: the kernel mounts no other /proc."""
    cover = ("for one in $(findmnt -rno TARGET -t proc); do "
             "[ ! -e $one/interrupts ] || mount --bind /dev/null $one/interrupts; done")
    masked = (*within(cover), "unshare", "--map-root-user")
    done = sandbox("--", "true", wrap=masked, report=False)
    assert done.code == 125
    assert done.err.splitlines()[-1].endswith("see findmnt -R /proc, or share the one that is there with --pid host")
    assert sandbox("--pid", "host", "--", "true", wrap=masked).code == 0


# -- mounts that are read-only or missing

@pytest.mark.requires("root")
def test_a_read_only_run(sandbox: Program) -> None:
    """The state of the run is kept in /tmp. Fails where it is always in /run."""
    done = sandbox("--", "echo", "hi", wrap=within("mount -t tmpfs -o ro none /run"))
    assert (done.code, done.out, done.err) == (0, b"hi\n", "")
    closed = within("for one in /run /tmp; do mount --bind $one $one; mount -o remount,bind,ro $one; done")
    done = sandbox("--", "true", wrap=closed, report=False)
    assert (done.code, done.err.splitlines()[0]) == (
        125, "sandbox: cannot keep anything in /tmp/sandbox-0: Read-only file system")
    assert "mount a tmpfs at /run (in docker and podman, `run --tmpfs /run`)" in done.err


@pytest.mark.requires("root")
def test_read_only_cgroups(sandbox: Program) -> None:
    """As in Kubernetes: a command without limits runs, and for one with a limit the sentence is there. A systemd of the
    machine would make the cgroups; the empty /run hides it."""
    closed = within("mount -t tmpfs none /run; "
                    "for one in $(findmnt -rno TARGET -t cgroup,cgroup2); do mount -o remount,bind,ro $one; done")
    sandbox = sandbox.under("")
    assert sandbox("--", "true", wrap=closed).code == 0
    for limit in ("--memory=64m", "--cpu-time=5"):
        done = sandbox(limit, "--", "true", wrap=closed, report=False)
        assert done.code == 125
        assert "is mounted read-only" in done.err
        assert done.err.splitlines()[-1].endswith("mount it read-write")


# -- a chroot

@pytest.fixture
def chroot(tmp_path: Path) -> Iterator[Path]:
    """A directory with what a Python program needs, as debootstrap makes one: no /dev, no /proc, no /sys in it."""
    root = tmp_path / "chroot"
    for name in ("usr", "proc", "sys", "dev", "run", "tmp", "etc", "var/tmp", "root"):
        (root / name).mkdir(parents=True)
    for name in ("tmp", "var/tmp"):
        (root / name).chmod(0o1777)
    for name in ("bin", "sbin", "lib", "lib64"):
        if Path("/", name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    for name in ("passwd", "group", "ld.so.cache"):
        (root / "etc" / name).write_bytes(Path("/etc", name).read_bytes())
    for path in shown(tmp_path):
        (root / path.relative_to("/")).mkdir(parents=True, exist_ok=True)
    yield root


def shown(directory: Path) -> list[Path]:
    """The programs, this tree, and the directory of the report. A container lab has the interpreter below /host."""
    prefix = Path(sys.base_prefix).resolve()
    paths = [Path("/usr"), TREE, prefix, directory, *(path for path in (Path(f"/host{prefix}"),) if path.exists())]
    return [path for path in dict.fromkeys(paths) if path == Path("/usr") or Path("/usr") not in path.parents]


def into(root: Path, *mounts: str, bound: bool = False) -> tuple[str, ...]:
    """Words that enter the chroot."""
    binds = [f"mount --rbind {path} {root}{path}" for path in shown(root.parent)]
    first = [f"mount --bind {root} {root}"] if bound else []
    script = "; ".join([*first, *binds, *(one.format(root=root) for one in mounts)])
    return (*within(script), "chroot", str(root))


PROC = "mount -t proc proc {root}/proc"


@pytest.mark.requires("root", "mknod")
@pytest.mark.parametrize("bound", [False, pytest.param(True, marks=pytest.mark.requires("process1"))])
def test_root_in_a_chroot(sandbox: Program, chroot: Path, bound: bool) -> None:
    """Fails without the step leave_chroot, and without the masks that are made of the /dev/null inside."""
    done = sandbox("--", "sh", "-c", "ls -d /usr /boot 2>&- ; wc -c </proc/interrupts; cat /proc/self/uid_map",
                   wrap=into(chroot, PROC, bound=bound))
    assert (done.code, done.err) == (0, "")
    assert done.out.split()[:3] == [b"/usr", b"0", b"0"]


@pytest.mark.requires("root")
def test_nobody_else_in_a_chroot(sandbox: Program, chroot: Path) -> None:
    user = ("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups")
    done = sandbox("--", "true", wrap=(*into(chroot, PROC), *user), report=False)
    assert done.code == 125
    assert done.err.splitlines()[-1].startswith("hint: in a chroot the kernel makes no user namespace")


@pytest.mark.requires("root")
def test_what_a_chroot_lacks_is_named(sandbox: Program, chroot: Path) -> None:
    done = sandbox("--", "true", wrap=into(chroot), report=False)
    assert (done.code, done.err.splitlines()[0]) == (125, "sandbox: /proc is not mounted")
    assert "mount -t proc proc NEWROOT/proc" in done.err
    done = sandbox("-m", "64m", "--", "true", wrap=into(chroot, PROC), report=False)
    assert done.code == 125
    assert "no cgroup file system is mounted" in done.err
    assert "mount --rbind --make-rslave /sys NEWROOT/sys" in done.err


@pytest.mark.only("cgroupfs")
@pytest.mark.drivers()
@pytest.mark.requires("root")
def test_limits_in_a_chroot(sandbox: Program, chroot: Path) -> None:
    done = sandbox("-m", "64m", "--", "true", wrap=into(chroot, PROC, "mount --rbind /sys {root}/sys"))
    assert (done.code, done.limit("--memory")["applied"]) == (0, str(64 << 20)), done.err
