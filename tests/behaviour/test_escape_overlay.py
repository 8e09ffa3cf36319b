"""Writes on top of what is not to be written to: ``--overlay``, and ``--commit`` for what is to be kept."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from support.rootfs import MOUNTED, Rootfs
from support.sandbox_run import Program, Result
from support.warm_program import warm_bare

sandbox = warm_bare


def kind_of_root() -> str:
    """The type of the file system of ``/``."""
    rows = Path("/proc/self/mountinfo").read_text().splitlines()
    return next(row.rpartition(" - ")[2].split()[0] for row in rows if row.split()[4] == "/")


pytestmark = [pytest.mark.matter("isolation"), pytest.mark.drivers("none"),
              pytest.mark.skipif(kind_of_root() == "overlay", reason="an overlay maps no owners, and holds no other")]

INSTALL = """
set -e
cd "$1"
mkdir -p lib/new/deep etc/new.d
echo program >lib/new/program; chmod 755 lib/new/program
echo data >lib/new/deep/data
ln -s ../lib/new/program etc/new.d/link
echo changed >>etc/settings
echo other >etc/settings.tmp; mv etc/settings.tmp etc/replaced
rm etc/removed
rm -r lib/old
mv lib/moved lib/elsewhere
chmod 600 etc/private
cat etc/settings etc/unchanged lib/elsewhere/file
"""
"""What a package manager does: new files, changed, replaced and removed ones, directories that come, go and move."""


class Tree(NamedTuple):
    """A directory that belongs to us: on the host, and where it is seen inside."""

    host: Path
    inside: str
    flags: tuple[str, ...] = ()


def plant(path: Path) -> None:
    """Put files into it."""
    path.chmod(0o755)
    for file in ("etc/settings", "etc/replaced", "etc/removed", "etc/private", "etc/unchanged", "lib/old/file",
                 "lib/moved/file"):
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        (path / file).write_text(f"{file}\n")


@pytest.fixture
def place() -> Iterator[Path]:
    """On the host's own root, where nothing private lies over it."""
    with tempfile.TemporaryDirectory(prefix="sandbox-test-", dir="/srv" if os.geteuid() == 0 else Path.home()) as name:
        plant(Path(name))
        yield Path(name)


@pytest.fixture(params=["host", "rootfs"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Tree:
    """On the host's root, which only root can put a layer over, and in a root of its own."""
    if request.param == "host":
        if os.geteuid() != 0:
            pytest.skip("without root there is no layer over /")
        path = request.getfixturevalue("place")
        return Tree(path, str(path))
    rootfs = Rootfs(tmp_path)
    path = rootfs.path / "srv" / "tree"
    path.mkdir(parents=True)
    plant(path)
    return Tree(path, "/srv/tree", (*rootfs.flags, "-w", "/"))


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """The directory for what has changed."""
    path = tmp_path / "kept"
    path.mkdir(mode=0o755)
    return path


def picture(path: Path) -> dict[str, tuple[int, int, str]]:
    """Everything below a directory: mode, owner, and what it holds."""
    found = {}
    for directory, names, files in os.walk(path):
        for name in (*names, *files):
            one = Path(directory, name)
            facts = one.lstat()
            held = os.readlink(one) if one.is_symlink() else one.read_text() if stat.S_ISREG(facts.st_mode) else ""
            found[str(one.relative_to(path))] = (facts.st_mode, facts.st_uid, held)
    return found


INSTALLED = b"etc/settings\nchanged\netc/unchanged\nlib/moved/file\n"


def test_overlay_leaves_the_host_as_it_is(sandbox: Program, tree: Tree) -> None:
    """Fails when the layer is not there: then the writes fail, or are the host's."""
    before = picture(tree.host)
    done = sandbox(*tree.flags, "--overlay", "--", "sh", "-c", INSTALL, "sh", tree.inside)
    assert (done.code, done.out) == (0, INSTALLED), done.err
    assert picture(tree.host) == before


def test_without_an_overlay_nothing_can_be_written(sandbox: Program, place: Path) -> None:
    """The same writes: fails when the root is not read-only."""
    before = picture(place)
    done = sandbox("--", "sh", "-c", INSTALL, "sh", str(place))
    assert done.code != 0
    assert "Read-only" in done.err
    assert picture(place) == before


def test_two_overlays_know_nothing_of_each_other(sandbox: Program, tree: Tree) -> None:
    for _ in range(2):
        assert sandbox(*tree.flags, "--overlay", "--", "mkdir", f"{tree.inside}/once").code == 0


def test_commit_keeps_exactly_what_has_changed(sandbox: Program, tree: Tree, kept: Path) -> None:
    """Files that are new or changed are there, whole; what was only read, or written in private memory, is not."""
    before = picture(tree.host)
    done = sandbox(*tree.flags, "--overlay", "--commit", str(kept), "--", "sh", "-c", INSTALL + "echo x >/dev/shm/x",
                   "sh", tree.inside)
    assert (done.code, done.out) == (0, INSTALLED), done.err
    assert picture(tree.host) == before
    changes = next((path for path in (kept / tree.inside[1:], kept / "upper" / tree.inside[1:]) if path.exists()), None)
    assert changes is not None, sorted(str(path) for path in kept.rglob("*"))
    files = {name: held for name, (mode, _, held) in picture(changes).items() if stat.S_ISREG(mode)}
    assert files == {"lib/new/program": "program\n", "lib/new/deep/data": "data\n",
                     "etc/settings": "etc/settings\nchanged\n", "etc/replaced": "other\n",
                     "etc/private": "etc/private\n", "lib/elsewhere/file": "lib/moved/file\n"}
    others = {str(path) for path in kept.rglob("*") if path.is_file() and changes not in path.parents}
    assert others == set(), "files that nobody changed"
    assert (changes / "lib/new/program").stat().st_mode & 0o777 == 0o755
    assert os.readlink(changes / "etc/new.d/link") == "../lib/new/program"


def test_commit_marks_what_was_removed(sandbox: Program, tree: Tree, kept: Path) -> None:
    """As overlayfs does it: a character device 0:0 (or an attribute) in the place of the file."""
    done = sandbox(*tree.flags, "--overlay", "--commit", str(kept), "--", "rm", f"{tree.inside}/etc/removed")
    assert done.code == 0, done.err
    [mark] = list(kept.rglob("removed"))
    facts = mark.lstat()
    assert (stat.S_ISCHR(facts.st_mode) and facts.st_rdev == 0) or "overlay.whiteout" in str(os.listxattr(mark))


def test_what_was_committed_belongs_to_the_caller(sandbox: Program, tree: Tree, kept: Path) -> None:
    """Fails when files are left with ids of the sandbox's user namespace: nobody could read or remove them."""
    done = sandbox(*tree.flags, "--overlay", "--commit", str(kept), "--", "touch", f"{tree.inside}/new")
    assert done.code == 0, done.err
    [new] = list(kept.rglob("new"))
    assert new.stat().st_uid == os.geteuid()


def test_a_second_run_goes_on_where_the_first_ended(sandbox: Program, tree: Tree, kept: Path) -> None:
    flags = (*tree.flags, "--overlay", "--commit", str(kept))
    assert sandbox(*flags, "--", "sh", "-c", f"echo x >{tree.inside}/new").code == 0
    assert sandbox(*flags, "--", "cat", f"{tree.inside}/new").out == b"x\n"
    assert not (tree.host / "new").exists()


LAYERED = """
set -e
cd "$1"; shift
for name in one two; do mkdir -p $name/lower/tmp $name/upper $name/work $name/made; done
mount -t overlay -o lowerdir=one/lower,upperdir=one/upper,workdir=one/work overlay one/made
mount -t overlay -o lowerdir=one/made,upperdir=two/upper,workdir=two/work overlay two/made
exec "$@"
"""
"""In a mount namespace of the test's own: an overlay, and an overlay on it."""
LAYERS = ("unshare", "--mount", "--propagation", "private", "sh", "-c", LAYERED, "sh")


@pytest.mark.requires("root")
def test_a_layer_on_an_overlay_is_refused_before_anything_starts(sandbox: Program, tmp_path: Path) -> None:
    path = tmp_path / "one" / "made"
    done = sandbox("--overlay", "--commit", str(path), "--", "true", wrap=(*LAYERS, str(tmp_path)))
    assert done.code == 125
    assert f"--commit: {path} is on overlay" in done.err
    assert "hint: give a directory on another file system" in done.err


@pytest.mark.only("cgroupfs", "systemd", "delegated")  # a service does not start in the mount namespace of `wrap`
@pytest.mark.requires("root")
def test_an_overlay_goes_on_an_overlay_once(sandbox: Program, tmp_path: Path) -> None:
    """The kernel's limit; a refusal names it."""
    def run(name: str) -> Result:
        rootfs = tmp_path / name / "made"
        volumes = [word for one in MOUNTED if os.path.isdir(one) for word in ("-v", f"{one}:{one}:ro")]
        return sandbox("--rootfs", str(rootfs), "--overlay", *volumes, "--", "/usr/bin/true",
                       wrap=(*LAYERS, str(tmp_path)))

    assert run("one").code == 0
    done = run("two")
    assert done.code == 125
    assert "hint: the kernel puts an overlay on an overlay once, not twice" in done.err
