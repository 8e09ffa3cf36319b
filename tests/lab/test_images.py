"""Each image shows the cgroup layout it is there for."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator

import pytest

from support.labs import Lab


@pytest.fixture
def boot() -> Iterator[Callable[[str], Lab]]:
    made: list[Lab] = []

    def boot(image: str) -> Lab:
        made.append(Lab("vm", image))
        return made[-1]

    yield boot
    for lab in made:
        lab.down()


@pytest.mark.parametrize("lab", ["vm"], indirect=True)
def test_trixie(lab: Lab) -> None:
    """The image of a VM for which none is named."""
    words = lab.sh("stat -fc %T /sys/fs/cgroup; systemctl --version | head -1; uname -r").splitlines()
    assert (words[0], words[1].split()[1], words[2][:5]) == ("cgroup2fs", "257", "6.12.")
    assert lab.sh("udevadm settle; swapon /dev/disk/by-id/virtio-swap; wc -l </proc/swaps; swapoff -a; "
                  "blockdev --getsz /dev/disk/by-id/virtio-data") == "2\n2097152"


@pytest.mark.tools  # the image is large and changes daily: for make test-all
def test_sid(boot: Callable[[str], Lab]) -> None:
    """Newer than any release: which versions it has is for the day of the build to say."""
    lab = boot("sid")
    words = lab.sh("stat -fc %T /sys/fs/cgroup; systemctl --version | head -1; "
                   "systemctl is-system-running --wait").splitlines()
    assert words[0] == "cgroup2fs"
    assert int(words[1].split()[1]) >= 258, "it still has cgroup v1"
    assert words[-1] == "running"
    killed = ["systemd-run", "-q", "--scope", "-p", "MemoryMax=32M", "python3", "-c", "b=bytearray(100<<20)"]
    assert lab.run(*killed).returncode == 137
    assert "exited" in lab.sh("sandbox run --verbose -m 64m -- python3 -c pass 2>&1")


@pytest.mark.long
def test_container_lab_in_the_vm(boot: Callable[[str], Lab]) -> None:
    """systemd below systemd, in a subtree that was delegated, on pure cgroup v2."""
    lab = boot("trixie")
    inner = "sandbox lab run --engine container -- sh -c"
    assert lab.sh(f"{inner} 'systemctl is-system-running --wait; stat -fc %T /sys/fs/cgroup'").split() == [
        "running", "cgroup2fs"]
    killed = f"{inner} \"systemd-run --scope -p MemoryMax=32M python3 -c 'b=bytearray(100<<20)'\""
    assert lab.run("sh", "-c", killed).returncode == 137
    assert "sandbox-lab-container" in lab.sh("systemctl status sandbox-lab-container.scope")
    assert lab.sh("sandbox lab down; find /sys/fs/cgroup -name 'sandbox-lab-container*'; ls /run/sandbox-lab") == ""


@pytest.mark.long
@pytest.mark.parametrize(("image", "mode"), [("bookworm", "v2"), ("bookworm-hybrid", "hybrid"),
                                             ("bookworm-legacy", "v1")])
def test_bookworm(boot: Callable[[str], Lab], image: str, mode: str) -> None:
    lab = boot(image)
    shown = lab.sh("uname -r; systemctl --version | head -1; ls /sys/fs/cgroup").splitlines()
    assert shown[0].startswith("6.1.")
    assert shown[1].split()[1] == "252"
    trees = {"cpu,cpuacct", "blkio", "memory", "pids"}
    assert trees & set(shown) == (set() if mode == "v2" else trees)
    assert ("unified" in shown) == (mode == "hybrid")
    group = lab.sh("systemd-run -q --scope -p MemoryMax=32M cat /proc/self/cgroup")
    assert (":memory:/system.slice/run-" in group) == (mode != "v2")
    assert f"Cgroup Mode: {mode}" in lab.out("sandbox", "info")
    if mode == "v1":
        tagged = lab.out("sandbox", "run", "--cgroupns", "host", "--cgroup-conf", "net_cls.classid=1048577",
                         "--cgroup-conf", "net_prio.ifpriomap=lo 5", "--", "cat", "/proc/self/cgroup")
        assert re.search(r":net_cls,net_prio:.*/sandbox-\w+$", tagged, re.MULTILINE)


def test_a_machine_without_systemd() -> None:
    """The container lab brings a Debian of its own, and our program with it."""
    lab = Lab("container", name=f"tree-{os.getpid()}")
    script = ("systemctl is-system-running --wait; cat /proc/1/comm; "
              "sandbox run -m 32m -- python3 -c 'b=bytearray(100<<20)' 2>/dev/null; echo $?")
    hidden = ["unshare", "--mount", "sh", "-ec", 'mount -t tmpfs none "$(readlink -f /lib/systemd)"; exec "$@"', "sh"]
    try:
        done = subprocess.run([*hidden, *lab.argv("sh", "-c", script)], stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=280, check=False)
        assert done.stdout.split() == [b"running", b"systemd", b"137"], done.stderr
    finally:
        lab.down()
