"""``sandbox explain``: the plan of a run, printed instead of carried out."""

from __future__ import annotations

from sandbox.box import compile_plan, probe_for
from sandbox.errors import SpecError
from sandbox.host import Host, from_json
from sandbox.spec import Spec
from sandbox.steps import Plan, masked

from .messages import emit, emit_json, escaped, say

FORMATS = ("text", "sh", "json")


def explain(spec: Spec, *, host_file: str | None, format: str, export: str | None, show_env: bool) -> None:
    """Compile ``spec`` and print the plan.

    :param export: print what corresponds to it for another tool instead; what is lost goes to stderr.

    :param host_file: a saved ``sandbox info --json``; None for this machine.
    :param format: one of :data:`FORMATS`.
    :param show_env: environment values are secrets as likely as not; without it they print as ``***``.
    :raises SpecError: when the format or the file will not do.
    """
    if format not in FORMATS:
        raise SpecError(f"--format: {format!r} is neither text nor sh", field="format", hint="--format sh")
    host = probe_for(spec) if host_file is None else load_host(host_file)
    plan, _ = compile_plan(spec, host, name="example")
    if export is not None:
        from sandbox.teach.export import ask
        from sandbox.teach.export import export as translate

        host = ask(export, host) if host_file is None else host
        found = translate(export, spec, host, plan if show_env else without_values(plan))
        emit(found.text.rstrip("\n"))
        for one in found.lost:
            say(f"sandbox: lost in translation: {escaped(one)}")
        return
    if format == "sh":
        from sandbox.teach.shell import script

        emit(script(plan if show_env else without_values(plan)).rstrip("\n"))
        return
    from sandbox.teach.explain import data, text

    if format == "json":
        emit_json(data(plan, spec, host, show_env=show_env))
    else:
        emit(text(plan, spec, host, show_env=show_env))


def without_values(plan: Plan) -> Plan:
    """The plan with ``***`` for the value of each environment variable."""
    return plan._replace(steps=tuple(step._replace(args=masked(step)) for step in plan.steps))


def load_host(path: str) -> Host:
    """The machine saved in ``path``.

    :raises SpecError: when it cannot be read or is not that.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            return from_json(stream.read())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else getattr(error, "message", error)
        raise SpecError(f"--host: {path}: not a saved host: {reason}", field="host",
                        hint="make it with: sandbox info --json > FILE") from error
