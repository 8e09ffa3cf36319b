"""Files of the host and of the kernel that nothing inside may change or read: S06 to S09, S20, S23 to S25, S29."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sandbox as package
from support.machine import eventually
from support.probes import REFUSED, probe, python
from support.sandbox_run import Program
from support.warm_program import warm_bare

sandbox = warm_bare
pytestmark = [pytest.mark.matter("isolation"), pytest.mark.drivers("none")]
PROTECTED = frozenset({"EACCES", "EROFS", "ENOENT"})
READ_ONLY = PROTECTED | {"EPERM"}
WRITABLE_KERNEL_FILES = frozenset[str]()
"""Files of /proc and /sys that may be opened for writing: none, not even those of the sandbox's own namespaces."""
PRIVATE = frozenset({"/tmp", "/var/tmp", "/run", "/dev/shm", "/dev/mqueue"})
DEVICES = frozenset(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty", "pts", "ptmx"))
KERNEL_FILES = ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hostname",
                "/proc/sys/vm/overcommit_memory", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper",
                "/proc/sys/kernel/core_pipe_limit", "/proc/sys/fs/binfmt_misc/register")


def test_s06_no_file_of_the_kernel_can_be_written(sandbox: Program) -> None:
    """Every file of /proc (but those of processes) and /sys. Fails when /proc/sys is not read-only, or /sys not."""
    before = {path: Path(path).read_bytes() for path in KERNEL_FILES[:4] if os.path.exists(path)}
    found = probe(sandbox, "writable", "/proc", "/sys", timeout=110)
    print(found["number"], found["errors"], *found["writable"], sep="\n")
    assert found["number"] > 500
    assert set(found["writable"]) <= WRITABLE_KERNEL_FILES
    assert set(found["errors"]) <= READ_ONLY | {"ok", "EINVAL", "ENODEV", "ENXIO", "EIO", "EBUSY"}, found["errors"]
    assert {path: Path(path).read_bytes() for path in before} == before


def test_s06_files_that_run_code_as_root(sandbox: Program) -> None:
    """The same for those that matter most, whatever ``os.walk`` found."""
    found = probe(sandbox, "replace", given=list(KERNEL_FILES))
    assert set(found) <= READ_ONLY, found


@pytest.mark.requires("root")
def test_s06_nor_by_a_volume(sandbox: Program) -> None:
    """Fails without the user namespace on host ids other than 0: sysctl files look at nothing else (finding 1)."""
    found = probe(sandbox, "replace", given=["/mnt/kernel/core_pattern", "/mnt/kernel/modprobe"],
                  flags=("-v", "/proc/sys:/mnt:rw"))
    assert set(found) <= READ_ONLY, found


def runner_files() -> list[str]:
    """All that the runner consists of: what is mapped into us is the same interpreter; and every module."""
    mapped = {line.split(None, 5)[5].strip() for line in Path("/proc/self/maps").read_text().splitlines()
              if len(line.split(None, 5)) == 6}
    modules = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    root = Path(package.__file__).parent
    ours = {str(path) for path in (*root.rglob("*"), *(root.parent / "cli").rglob("*"))}
    found = {os.path.realpath(path) for path in {*mapped, *filter(None, modules), *ours, sys.executable}
             if path.startswith("/") and not path.endswith("(deleted)")}
    return sorted(path for path in found if os.path.isfile(path) and not path.startswith(("/proc/", "/dev/")))


def test_s07_the_runner_cannot_be_overwritten(sandbox: Program) -> None:
    """CVE-2019-5736. Fails when the root is writable, when the init can be traced, or when it is a file of the host.
    ETXTBSY would mean that nothing but its being executed keeps a file from being written to."""
    files = runner_files()
    assert len(files) > 100
    before = _hashes(files)
    found = probe(sandbox, "replace", given=["/proc/1/exe", *files])
    print({error: len(paths) for error, paths in found.items()})
    # While any process of the machine is in execve(2), the kernel answers ETXTBSY for the dynamic loader as well.
    busy = found.pop("ETXTBSY", [])
    assert not busy or eventually(lambda: set(probe(sandbox, "replace", given=busy)) <= PROTECTED), busy
    assert {error: paths[:5] for error, paths in found.items() if error not in PROTECTED} == {}
    assert _hashes(files) == before


def _hashes(files: list[str]) -> dict[str, str]:
    return {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in files}


def test_s07_a_script_whose_interpreter_is_the_runner(sandbox: Program, tmp_path: Path) -> None:
    """``#!/proc/self/exe`` would run whoever execs it: the init, opened for writing by the next one."""
    share = tmp_path / "share"
    share.mkdir(mode=0o755)
    (share / "script").write_text("#!/proc/self/exe\n")
    (share / "script").chmod(0o755)
    done = sandbox("-v", f"{share}:/mnt:ro", "--", "/mnt/script")
    assert done.code != 0
    assert done.out == b""


def test_s08_only_the_standard_streams_are_open(sandbox: Program) -> None:
    """A shell's fd 9 on a secret must not be readable. Fails when neither the guard closes what it inherits, nor the
    workload what it has: each alone is enough."""
    done = sandbox("--", "sh", "-c", "cat <&9; ls /proc/self/fd", wrap=with_fd_9("/etc/passwd"))
    assert set(done.out.split()) == {b"0", b"1", b"2", b"3"}, "3 is the directory that ls reads"


def with_fd_9(path: str) -> tuple[str, ...]:
    """Words that open a file of the host as fd 9, and then exec the rest."""
    return ("sh", "-c", f'exec 9<{path}; exec "$@"', "sh")


WORKING_DIRECTORIES = """
import json, sandbox, sys
wishes, *paths = json.loads(sys.argv[1])
for path in paths:
    try:
        print(path, sandbox.run(["pwd"], workdir=path, **wishes).code, flush=True)
    except (sandbox.SandboxError, OSError):
        print(path, "refused", flush=True)
"""


@pytest.mark.once
def test_s08_the_working_directory_is_no_fd_of_ours(sandbox: Program) -> None:
    """CVE-2024-21626. Fails when the working directory is looked up through a descriptor that is still open."""
    paths = [*(f"/proc/self/fd/{number}" for number in range(3, 16)), "/proc/1/fd/9", "/proc/self/fd/9/root"]
    code = [sys.executable, "-c", WORKING_DIRECTORIES, json.dumps([sandbox.wishes(), *paths])]
    done = subprocess.run([*with_fd_9("/"), *code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done.stderr
    found = dict(line.partition(" ")[::2] for line in done.stdout.splitlines())
    assert found.keys() == {*paths}, "pwd has printed a directory"
    assert "0" not in found.values()


def test_s08_the_working_directory_is_inside(sandbox: Program) -> None:
    """Fails when the command starts in a directory that is not below the new root."""
    done = sandbox("--", "sh", "-c", "readlink /proc/self/cwd; readlink /proc/self/root; pwd", cwd="/usr")
    assert done.out.split() == [b"/usr", b"/", b"/usr"]


def test_s09_dot_dot_ends_at_the_root(sandbox: Program, tmp_path: Path) -> None:
    """Fails without ``pivot`` (the old root would still be there) and without a private /tmp."""
    (tmp_path / "only-on-host").write_text("secret")
    ways = [f"{start}/{depth * '../'}{str(tmp_path)[1:]}/only-on-host" for depth in (0, 1, 5, 20)
            for start in ("", ".", "/proc/self/root", "/proc/1/root", "/proc/self/cwd", "/usr/..")]
    code = "import os, sys; print([path for path in sys.argv[1:] if os.path.exists(path)])"
    done = sandbox(*python(code), *ways, cwd="/")
    assert done.out == b"[]\n", done.out


@pytest.fixture
def set_id_copies(tmp_path: Path) -> Iterator[Path]:
    """Programs with the set-user-id bit, and with a file capability: CAP_NET_RAW, permitted and effective."""
    share = tmp_path / "share"
    share.mkdir(mode=0o755)
    for name in ("id", "grep"):
        shutil.copy2(shutil.which(name) or "", share / name)
    (share / "id").chmod(0o6755)
    os.setxattr(share / "grep", "security.capability", bytes.fromhex("0100000200200000" + 24 * "0"))
    yield share


@pytest.mark.requires("root")
def test_s20_set_id_programs_and_file_capabilities_give_nothing(sandbox: Program, set_id_copies: Path) -> None:
    """Fails when ``no_new_privs`` and the volume's ``nosuid`` are both missing; each alone is seen in S01 and S24."""
    flags = ("-u", "nobody", "-v", f"{set_id_copies}:/mnt")
    assert sandbox(*flags, "--", "/mnt/id", "-u").out.strip() not in (b"0", b"")
    done = sandbox(*flags, "--", "/mnt/grep", "-E", "^Cap(Prm|Eff)", "/proc/self/status")
    assert {int(word, 16) for word in done.out.split()[1::2]} == {0}


def test_s23_devices(sandbox: Program, tmp_path: Path) -> None:
    """Fails without the private /dev, without ``nodev`` on a volume, and without CAP_MKNOD dropped."""
    share = tmp_path / "share"
    share.mkdir(mode=0o777)
    found = probe(sandbox, "devices", "/tmp", "/dev/shm", "/mnt", flags=("-v", f"{share}:/mnt"))
    assert {where: error for where, error in found["nodes"].items() if error not in READ_ONLY} == {}
    assert {path: error for path, error in found["open"].items() if error not in READ_ONLY} == {}
    listing = {path: kind for path, kind in found["listing"].items() if "/pts/" not in path}
    assert listing == {**dict.fromkeys(("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom",
                                        "/dev/tty"), "device"),
                       **dict.fromkeys(("/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/ptmx"), "link"),
                       **dict.fromkeys(("/dev/pts", "/dev/shm", "/dev/mqueue"), "directory")}
    assert found["new file"] in READ_ONLY
    assert {found["writable"][f"/dev/{name}"] for name in ("null", "zero", "full")} == {"ok"}


def test_s24_mounts_cannot_be_changed(sandbox: Program) -> None:
    """Fails with CAP_SYS_ADMIN in the mounts' user namespace: neither filter nor dropped capabilities."""
    found = probe(sandbox, "tamper")["calls"]
    assert {name: error for name, error in found.items() if error not in REFUSED | {"EROFS"}} == {}


def test_s24_nothing_but_private_memory_is_writable(sandbox: Program) -> None:
    """Fails when read-only is not recursive: a mount of the host below the root stays writable then."""
    mounts = probe(sandbox, "tamper")["mounts"]
    assert len(mounts) > 8
    writable = {target for target, facts in mounts.items() if facts["new file"] == "ok" and facts["root"] != "/null"}
    assert writable <= PRIVATE | DEVICES
    assert {target for target, facts in mounts.items() if "nosuid" not in facts["options"]} == set()
    assert {target for target, facts in mounts.items()
            if "nodev" not in facts["options"] and facts["root"] != "/null"} <= DEVICES | {"/dev"}


@pytest.mark.requires("root")
def test_s24_a_read_only_volume_is_so_to_its_last_mount(sandbox: Program, tmp_path: Path) -> None:
    """Fails when ``:ro`` is not recursive: the file system mounted below the source would be writable."""
    share = tmp_path / "share"
    (share / "below").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=777", "none", str(share / "below")], check=True)
    try:
        for flags, wanted in ((":ro", "EROFS"), ("", "ok")):
            mounts = probe(sandbox, "tamper", flags=("-v", f"{share}:/mnt{flags}"))["mounts"]
            assert mounts["/mnt/below"]["new file"] == wanted
            assert {"nosuid", "nodev"} <= set(mounts["/mnt/below"]["options"])
    finally:
        subprocess.run(["umount", str(share / "below")], check=True)


MASKED = ("/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
          "/proc/sched_debug", "/proc/interrupts", "/proc/acpi", "/proc/asound", "/proc/scsi", "/sys/firmware",
          "/sys/devices/virtual/powercap", "/sys/fs/selinux", "/proc/kmsg", "/proc/kpagecount", "/proc/kpageflags")


def test_s25_what_tells_about_the_host_is_empty(sandbox: Program) -> None:
    """Fails without the ``mask`` steps."""
    throttle = [str(path) for path in Path("/sys/devices/system/cpu").glob("cpu*/thermal_throttle")]
    found = probe(sandbox, "masked", given=[*MASKED, *throttle])
    assert len(found) == len(MASKED) + len(throttle)
    assert {path: seen for path, seen in found.items() if seen not in (0, "ENOENT", "EACCES", "EPERM")} == {}


@pytest.mark.once
def test_s25_there_is_something_to_hide(sandbox: Program) -> None:
    """The same files on the host are not empty: otherwise the test above could not fail."""
    assert sandbox is not None
    seen = [path for path in MASKED if os.path.isdir(path) and os.listdir(path)]
    assert Path("/proc/interrupts").read_bytes()
    assert seen or Path("/proc/timer_list").exists()


@pytest.mark.parametrize("swap", ["file", "directory"])
def test_s29_the_report_goes_nowhere_else(sandbox: Program, tmp_path: Path, swap: str) -> None:
    """The command replaces the report's path, or the directory it is in, by a symlink. Fails when the path is looked
    up again at the end."""
    share, victim = tmp_path / "share", tmp_path / "victim"
    (share / "out").mkdir(parents=True)
    for directory in (share, share / "out"):
        directory.chmod(0o777)
    victim.mkdir()
    (victim / "report.json").write_text("precious")
    report = share / "out" / "report.json"
    script = {"file": f"rm -f /mnt/out/report.json && ln -s {victim}/report.json /mnt/out/report.json",
              "directory": f"mv /mnt/out /mnt/old && ln -s {victim} /mnt/out"}[swap]
    done = sandbox("--json", str(report), "-v", f"{share}:/mnt", "--", "sh", "-c", f"{script} && echo swapped",
                   report=False)
    assert done.out == b"swapped\n", done.err
    assert (victim / "report.json").read_text() == "precious"
    assert os.listdir(victim) == ["report.json"]
    assert not os.path.islink(share / "out") or json.loads((share / "old" / "report.json").read_bytes())
