"""Labs are booted by ``make test-lab`` only, or whenever pytest is asked for the mark: ``pytest -m lab``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import lab_traces
from support.labs import Lab
from support.selection import TIER, is_long

OTHERS = ("tools", "labels")
"""Marks of tests that take minutes; they are no part of the mark ``lab``."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "lab: boots a lab")
    config.addinivalue_line("markers", "tools: what takes many minutes: docker and others in a VM, the newest Debian")
    config.addinivalue_line("markers", "labels: runs commands under SELinux and AppArmor in VMs, for some minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    if TIER == "quick":
        items[:] = [item for item in items if here not in item.path.parents or not _is_long(item)]
    ours = [item for item in items if here in item.path.parents]
    for item in ours:
        if not any(item.get_closest_marker(name) for name in OTHERS):
            item.add_marker(pytest.mark.lab)
        item.add_marker(pytest.mark.timeout(700))
    if ours and not {"lab", *OTHERS} & {*config.option.markexpr.split()}:
        config.hook.pytest_deselected(items=ours)
        items[:] = [item for item in items if item not in ours]


def _is_long(item: pytest.Item) -> bool:
    engine = item.callspec.params.get("lab") if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ""
    return is_long(item, in_vm=engine == "vm")


@pytest.fixture(scope="session")
def machine() -> Iterator[Lab]:
    """A VM with swap, a disk that honours weights, an image for docker, and dockerd, which needs no network here."""
    lab = Lab("vm", "trixie")
    try:
        lab.sh('udevadm settle; echo "$(cat /sys/block/vda/dev) enable=1" >/sys/fs/cgroup/io.cost.qos')
        lab.sh("swapon /dev/disk/by-id/virtio-swap; systemctl start containerd; "
               "systemd-run -q --unit=dockerd -p Type=notify dockerd --bridge=none --iptables=false --ip6tables=false; "
               "ldd /bin/sh | grep -o '/[^ ]*' | xargs tar -ch /bin/sh 2>/dev/null | docker import - shell")
        yield lab
    finally:
        lab.down()


@pytest.fixture(scope="session", params=["container", "vm"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A lab of each engine: booted once for all tests, and ended before the other engine's is booted."""
    lab = Lab(request.param)
    try:
        assert lab.out("systemctl", "is-system-running", "--wait") == "running"
        yield lab
    finally:
        lab.down()
    assert lab_traces.of(lab.name) == []
