"""``--security-opt``: docker's words for the filter of system calls and for the labels of security modules."""

from __future__ import annotations

from ..errors import SpecError, Unsupported
from ..spec import Spec
from ..stdlib import TYPE_CHECKING
from ..steps import Phase, Step, Where

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT, MOBY, UNCONFINED = "default", "moby", "unconfined"
LABEL_PARTS = ("user", "role", "type", "level")
"""Of an SELinux context, in their order."""


def parse(text: str, flag: str) -> str:
    """One option as ``KEY=VALUE``: ``seccomp=FILE|moby|unconfined``, ``apparmor=PROFILE|unconfined``, ``label=TYPE``.

    ``label`` is the type of an SELinux context, or ``user:``, ``role:``, ``type:`` or ``level:`` and that part, or
    ``disable``. ``no-new-privileges`` is on in any case.

    :raises SpecError: there is no such option, or it has no value.
    """
    key, _, value = text.replace(":", "=", 1).partition("=") if text.startswith("no-new") else text.partition("=")
    if key == "no-new-privileges":
        if value not in ("", "true"):
            raise SpecError(f"{flag}: {text!r}: no_new_privs cannot be left off here", field="security_opt",
                            hint="without it a filter of system calls would take privileges")
        return "no-new-privileges=true"
    if key not in ("seccomp", "apparmor", "label"):
        raise SpecError(f"{flag}: {text!r} is no option of security", field="security_opt",
                        hint="seccomp=FILE, apparmor=PROFILE, label=TYPE; unconfined instead of FILE and PROFILE")
    if not value or "\0" in value or (key == "label" and len(value.split()) != 1):
        raise SpecError(f"{flag}: {text!r} has no value that could be one", field="security_opt",
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
        raise SpecError(f"--security-opt: {key} is given as {found[0]!r} and as {found[1]!r}", field="security_opt",
                        hint="give one of them")
    return found[0] if found else ""


def label_steps(spec: Spec) -> Iterator[Step]:
    """The label that the execve is to take on; the workload reads it back."""
    apparmor = _only(spec, "apparmor")
    if apparmor not in ("", UNCONFINED):
        yield _label("apparmor/exec", f"exec {apparmor}")
    parts = values(spec, "label")
    if parts and "disable" not in parts:
        yield _label("exec", " ".join(parts))


def _label(file: str, value: str) -> Step:
    return Step(op="label", args=(file, value), phase=Phase.EXEC, where=Where.WORKLOAD, realises="security_opt")


def bind(step: Step) -> Step:
    """A ``label`` step with the whole context in it, as SELinux wants it: the launcher's with other parts.

    :raises Unsupported: the security module is not active here.
    """
    file, value = map(str, step.args)
    if file == "apparmor/exec":
        _check_active("apparmor", "/sys/module/apparmor/parameters/enabled", "Y")
        return step
    _check_active("label", "/sys/fs/selinux/enforce")
    with open("/proc/self/attr/current") as current:
        context = current.read().rstrip("\0\n").split(":", 3)
    for name, part in (one.split(":", 1) for one in value.split()):
        context[LABEL_PARTS.index(name)] = part
    return step._replace(args=(file, ":".join(context)))


def _check_active(option: str, file: str, text: str = "") -> None:
    """The module says so itself in a file of the kernel's."""
    try:
        with open(file) as parameter:
            if parameter.read().strip() == text or not text:
                return
        problem = f"{file} does not say {text}"
    except OSError as error:
        problem = f"{file}: {error.strerror}"
    module = "AppArmor" if option == "apparmor" else "SELinux"
    raise Unsupported(f"--security-opt {option}: {module} is not active here ({problem})",
                      hint=f"leave {option} out; the other protections do not need it")
