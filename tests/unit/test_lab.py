"""What of the labs needs no lab."""

from __future__ import annotations

import dataclasses
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.errors import SpecError
from sandbox.lab import control, image, process, recipe, remains
from sandbox.lab.inside import place
from sandbox.lab.inside.frames import LARGEST, MAGIC, Frames, frame
from sandbox.lab.record import Lab, check_name

CONTENT = st.lists(st.tuples(st.sampled_from([b"I", b"O", b"X"]), st.binary(max_size=300)), max_size=6)


def _feed(frames: Frames, data: bytes, cuts: list[int]) -> list[tuple[bytes, bytes]]:
    ends = sorted({cut % (len(data) + 1) for cut in cuts} | {len(data)})
    return [found for begin, end in zip([0, *ends], ends, strict=False) for found in frames.feed(data[begin:end])]


@given(CONTENT, st.lists(st.integers(min_value=0), max_size=8), st.binary(max_size=100))
def test_frames_come_out_as_they_went_in(content: list[tuple[bytes, bytes]], cuts: list[int], noise: bytes) -> None:
    """However the bytes are cut, and whatever was on the channel before."""
    data = noise.replace(MAGIC, b"") + MAGIC + b"".join(frame(kind, payload) for kind, payload in content)
    assert _feed(Frames(MAGIC), data, cuts) == content


def test_nothing_has_begun_before_the_mark() -> None:
    frames = Frames(MAGIC)
    assert list(frames.feed(frame(b"X", b"0") + MAGIC[:-1])) == []
    assert not frames.begun
    assert list(frames.feed(MAGIC[-1:] + frame(b"X", b"7"))) == [(b"X", b"7")]
    assert frames.begun


def test_noise_is_no_frame() -> None:
    with pytest.raises(ValueError, match="a frame of"):
        list(Frames(MAGIC).feed(MAGIC + b"I" + (LARGEST + 1).to_bytes(4, "big")))


@pytest.mark.parametrize("name", ["", "-a", "A", "a/b", "..", "a" * 32, "a b", "a\n"])
def test_names_that_would_be_bad_paths(name: str) -> None:
    with pytest.raises(SpecError, match="--name"):
        check_name(name)


def test_names() -> None:
    assert check_name("bookworm-legacy") == "bookworm-legacy"


def test_unknown_images_are_refused_with_the_known_ones() -> None:
    with pytest.raises(SpecError, match="bookworm-legacy"):
        recipe.image("potato")


def test_another_recipe_is_another_image(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    more = dataclasses.replace(recipe.TRIXIE, packages=(*recipe.TRIXIE.packages, "hello"))
    assert image.path_of(recipe.TRIXIE) == image.path_of(recipe.TRIXIE)
    assert len({image.path_of(one) for one in (recipe.TRIXIE, recipe.BOOKWORM, more)}) == 3
    monkeypatch.setattr(image, "SERVICE", "[Unit]\n")
    assert image.path_of(recipe.TRIXIE) != image.path_of(more)


def test_both_security_modules_share_a_disk_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other disks stay what they are: their docker would begin to use AppArmor."""
    selinux, apparmor = recipe.image("trixie-selinux"), recipe.image("trixie-apparmor")
    assert selinux.recipe == apparmor.recipe != recipe.TRIXIE
    assert [one.name for one in {image.recipe for image in recipe.IMAGES.values()} if one.labelled] == ["trixie-labels"]
    before = {one: image.path_of(one) for one in (recipe.TRIXIE, selinux.recipe)}
    monkeypatch.setattr(image, "UNCONFINED", "")
    assert [image.path_of(one) == path for one, path in before.items()] == [True, False]


def test_legacy_and_hybrid_share_a_disk() -> None:
    images = [recipe.image(name) for name in ("bookworm", "bookworm-legacy", "bookworm-hybrid")]
    assert len({one.recipe for one in images}) == 1
    assert len({one.options for one in images}) == 3


@pytest.mark.parametrize("path", ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/sandbox-lab-a/../memory", "sandbox-lab-a",
                                  "/sys/fs/cgroup/sandbox-a"])
def test_only_our_cgroups_are_ever_removed(path: str) -> None:
    assert not remains.is_ours(path)
    assert remains.is_ours("/sys/fs/cgroup/memory/a/sandbox-lab-a")


@pytest.mark.parametrize("directory", ["/", "/usr", "/usr/share/doc", "/etc", "/var/lib/x"])
def test_directories_of_the_system_are_not_covered(directory: str) -> None:
    assert place.is_system(directory)


@pytest.mark.parametrize("directory", ["/home/a", "/srv", "/var/tmp/a", "/usrx"])
def test_other_directories_are_shown_from_the_host(directory: str) -> None:
    assert not place.is_system(directory)


def test_which_of_two_labs_is_to_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    labs = [Lab(name=name, engine="container", image="", since=0) for name in ("one", "two")]
    monkeypatch.setattr(control, "running", lambda: labs)
    with pytest.raises(SpecError, match=r"there are 2 labs: one, two \(hint: name one: --name one\)"):
        control.up()
    monkeypatch.setattr(control, "running", lambda: labs[:1])
    assert control._wanted("", "", "") is labs[0]


def test_a_process_that_outlives_its_parent_before_it_could_ask_ends() -> None:
    """The kernel sends the signal of PR_SET_PDEATHSIG only if the parent ends after the call (prctl(2))."""
    lives, writing = os.pipe()
    parent = os.fork()
    if parent == 0:
        parent = os.getpid()
        if os.fork() == 0:
            while os.getppid() == parent:
                os.sched_yield()
            process.die_with_parent(parent)
            os.write(writing, b"alive")
        os._exit(0)
    os.close(writing)
    os.waitpid(parent, 0)
    assert os.read(lives, 5) == b""
