"""What ``-v``, ``--mount`` and ``--tmpfs`` ask for: checked against the Host, so that little is left to go wrong."""

from __future__ import annotations

from posixpath import dirname

from ..errors import SpecError
from ..host import Host
from ..records import Tmpfs, Volume
from ..spec import Spec
from ..spelling import spelled
from ..stdlib import TYPE_CHECKING
from . import paths
from .mounts import INERT, RDONLY, Tree
from .namespaces import is_shifted

if TYPE_CHECKING:
    from collections.abc import Iterator

WRITABLE = (*paths.PRIVATE, "/dev/shm")
"""Where places can be made in any case."""


def trees(spec: Spec, host: Host) -> Iterator[Tree]:
    """The volumes.

    :raises SpecError: a source is not there, or its place inside cannot be.
    """
    for volume in spec.volume:
        _check(volume, spec, host)
        yield Tree(host.absolute(volume.source), volume.target, INERT | (RDONLY if volume.read_only else 0),
                   shifted(volume.source, spec, host), realises="volume")


def shifted(source: str, spec: Spec, host: Host) -> bool:
    """It can be, and has to be, mounted with other ids."""
    return is_shifted(spec, host) and paths.may_shift(file_system(source, host), host)


def file_system(source: str, host: Host) -> str:
    """The type of the file system that ``source`` leads to."""
    path = host.absolute(source)
    place = host.place(path)
    return host.mount(place.real if place else path)[1]


def by_depth(item: Tree | Tmpfs) -> int:
    """What is mounted first must not hide the rest."""
    return item.target.count("/")


def covers(spec: Spec, path: str) -> bool:
    """``path`` is one of them, or in one of them."""
    targets = [*(one.target for one in spec.volume), *(one.target for one in spec.tmpfs)]
    return any(paths.is_within(path, target) for target in targets)


def _check(volume: Volume, spec: Spec, host: Host) -> None:
    source, wish = host.place(host.absolute(volume.source)), f"{volume.source}:{volume.target}"
    if source is not None and not source.kind:
        raise SpecError(f"{spelled('volume', wish)}: there is no {source.path}", field="volume",
                        hint="make it first: an empty directory in its place would hide the mistake")
    if source is not None:
        check_target("volume", wish, source.kind, volume.target, spec, host)


def check_target(field: str, wish: str, kind: str, path: str, spec: Spec, host: Host) -> None:
    """Whether a ``file`` or ``directory`` can be put at ``path`` inside.

    :param field: the Spec's, for messages, and ``wish`` its value.
    :raises SpecError: it cannot.
    """
    target = host.place(path)
    if spec.rootfs or target is None:
        return
    if target.kind and target.kind != kind and not _is_made(target.real, spec):
        raise SpecError(f"{spelled(field, wish)}: one is a {kind}, the other a {target.kind}",
                        field=field, hint="a file goes on a file, a directory on a directory")
    if not target.kind and not spec.overlay and not _is_made(target.real, spec) and not _is_made(path, spec):
        raise SpecError(f"{spelled(field, wish)}: / is read-only and has no {path}", field=field,
                        hint=f"choose a place that is there, or one in /tmp, or add {spelled('overlay', True)}")


def _is_made(target: str, spec: Spec) -> bool:
    """It is in a directory that is made anew, or in another volume, which may have it or take it."""
    return any(paths.is_below(target, one) for one in WRITABLE) or covers(spec, dirname(target))
