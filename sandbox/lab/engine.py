"""Engines: how a lab is booted and reached. What both have in common is in :mod:`sandbox.lab.control`."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from ..errors import SpecError
from ..stdlib import TYPE_CHECKING, Protocol
from .image import Progress
from .record import Lab

if TYPE_CHECKING:
    import socket

NAMES = ("container", "vm")


class Engine(Protocol):
    """What an engine offers. It is a module-level object of its module, found by name through :func:`get`."""

    name: str
    default_image: str
    patience: float
    """Seconds a boot may take on a slow machine."""

    def problems(self) -> tuple[str, ...]:
        """Why it cannot serve here, a sentence each; empty is fine."""

    def prepare(self, lab: Lab, progress: Progress) -> Lab:
        """Build what the lab needs, and complete its record. Runs in the caller.

        :raises SandboxError: it cannot be built here.
        """

    def keeper_command(self, lab: Lab, argv: list[str]) -> list[str]:
        """How the keeper is to be started, whose own command line is ``argv``."""

    def boot(self, lab: Lab) -> list[int]:
        """Start it; runs in the keeper, whose death must kill all of it.

        :returns: the processes whose end is the lab's end.
        :raises OSError: it cannot be started.
        """

    def connect(self, lab: Lab) -> socket.socket:
        """A fresh channel to the agent.

        :raises OSError: not yet, or no more.
        """


def get(name: str) -> Engine:
    """The engine called ``name``; its module is imported on first use.

    :raises SpecError: there is none.
    """
    if name not in NAMES:
        raise SpecError(f"--engine: there is no engine {name!r}", field="engine", hint=f"use {' or '.join(NAMES)}")
    return cast(Engine, import_module(f".{name}", __package__).engine)
