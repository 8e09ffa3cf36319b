"""The same run for other tools: a command line or a file to paste, and what gets lost in translation."""

from __future__ import annotations

from typing import NamedTuple

from ...errors import SpecError
from ...host import Host
from ...options import suggest
from ...spec import Spec
from ...steps import Plan
from . import containers, isolation, kubernetes, oci, script, systemd
from .values import collect, sort

_TOOLS = {"systemd-run": systemd.command, "unit": systemd.unit, "docker": containers.docker,
          "podman": containers.podman, "oci": oci.config, "k8s": kubernetes.pod, "sh": script.shell}
NAMES = tuple(_TOOLS)
"""What :func:`export` knows."""


class Export(NamedTuple):
    """One translation.

    :param text: ready to paste: a command line, a unit file, a ``config.json``, a Pod, or a shell script.
    :param lost: one sentence each: what has no equivalent there, or changes its value or its meaning.
    """

    text: str
    lost: tuple[str, ...]


def ask(name: str, host: Host) -> Host:
    """Return ``host`` with the versions of the tool that is exported to. It starts the tool to ask for them.

    :param name: one of :data:`NAMES`; any other asks nothing.
    """
    if name != "docker":
        return host
    from ..facts import docker

    return host._replace(docker=docker())


def export(name: str, spec: Spec, host: Host, plan: Plan) -> Export:
    """``spec`` in the words of another tool; values of variables that are not on the allow-list stay out of it.

    :param name: one of :data:`NAMES`.
    :param host: the machine whose kernel, disks and memory the values are for.
    :param plan: what ``sandbox run`` would do there.
    :raises SpecError: there is no such tool.
    """
    if name not in _TOOLS:
        raise SpecError(f"--export: {name!r} is no tool that is known here", field="export",
                        hint=suggest(name, NAMES) or f"use one of {', '.join(NAMES)}")
    values = collect(spec, host, plan)
    text, lost = _TOOLS[name](values)
    strange = sort(isolation.unknown(values, name))[1] if name != "sh" else []  # a script has every step
    return Export(text=text, lost=tuple(dict.fromkeys([*values.lost, *lost, *strange])))
