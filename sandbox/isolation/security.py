"""``--security-opt``: docker's words for the filter of system calls and for the labels of security modules."""

from __future__ import annotations

from ..errors import SpecError
from ..spec import Spec
from ..spelling import spelled
from ..stdlib import TYPE_CHECKING
from ..steps import Phase, Step, Where

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT, MOBY, UNCONFINED = "default", "moby", "unconfined"
LABEL_PARTS = ("user", "role", "type", "level")
"""Of an SELinux context, in their order."""


def parse(text: str, field: str) -> str:
    """One option as ``KEY=VALUE``: ``seccomp=FILE|moby|unconfined``, ``apparmor=PROFILE|unconfined``, ``label=TYPE``.

    ``label`` is the type of an SELinux context, or ``user:``, ``role:``, ``type:`` or ``level:`` and that part, or
    ``disable``. ``no-new-privileges`` is on in any case.

    :raises SpecError: there is no such option, or it has no value.
    """
    key, _, value = text.replace(":", "=", 1).partition("=") if text.startswith("no-new") else text.partition("=")
    if key == "no-new-privileges":
        if value not in ("", "true"):
            raise SpecError(f"{spelled(field)}: {text!r}: no_new_privs cannot be left off here", field="security_opt",
                            hint="without it a filter of system calls would take privileges")
        return "no-new-privileges=true"
    if key not in ("seccomp", "apparmor", "label"):
        raise SpecError(f"{spelled(field)}: {text!r} is no option of security", field="security_opt",
                        hint="seccomp=FILE, apparmor=PROFILE, label=TYPE; unconfined instead of FILE and PROFILE")
    if not value or "\0" in value or (key == "label" and len(value.split()) != 1):
        raise SpecError(f"{spelled(field)}: {text!r} has no value that could be one", field="security_opt",
                        hint=f"for example {'label=container_t' if key == 'label' else key + '=unconfined'}")
    if key == "label" and value != "disable" and value.partition(":")[0] not in LABEL_PARTS:
        value = f"type:{value}"
    return f"{key}={value}"


def values(spec: Spec, key: str) -> tuple[str, ...]:
    """What was said of ``key``, in order."""
    return tuple(value for name, _, value in (one.partition("=") for one in spec.security_opt) if name == key)


def profile(spec: Spec) -> str:
    """Where the filter of system calls comes from: ``default``, ``moby``, ``unconfined``, or a file.

    :raises SpecError: two were given.
    """
    return _only(spec, "seccomp") or DEFAULT


def _only(spec: Spec, key: str) -> str:
    found = tuple(dict.fromkeys(values(spec, key)))
    if len(found) > 1:
        raise SpecError(f"{spelled('security_opt')}: {key} is given as {found[0]!r} and as {found[1]!r}",
                        field="security_opt", hint="give one of them")
    return found[0] if found else ""


def context(spec: Spec) -> str:
    """Return the SELinux context if all its parts were given; the launcher's own context has those that were not."""
    parts = dict(one.split(":", 1) for one in values(spec, "label") if ":" in one)
    return ":".join(parts[name] for name in LABEL_PARTS) if set(LABEL_PARTS) <= set(parts) else ""


def has_label(spec: Spec) -> bool:
    """True if some part of an SELinux context is to be set."""
    found = values(spec, "label")
    return bool(found) and "disable" not in found


def label_steps(spec: Spec) -> Iterator[Step]:
    """The label that the execve is to take on. Where only a log would be written, it is refused without best_effort."""
    apparmor = _only(spec, "apparmor")
    if apparmor not in ("", UNCONFINED):
        yield _label("apparmor", apparmor, spec)
    if has_label(spec):
        yield _label("selinux", " ".join(values(spec, "label")), spec)


def _label(module: str, value: str, spec: Spec) -> Step:
    return Step(op="label", args=(module, value, int(not spec.best_effort)), phase=Phase.EXEC, where=Where.WORKLOAD,
                realises="security_opt")
