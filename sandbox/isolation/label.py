"""The label that SELinux or AppArmor puts on the workload: whether it can bind here, and which one the process got.

``sandbox-init`` sets the label for the execve and tells of it: ``entering`` before the execve, ``label`` after it.
"""

from __future__ import annotations

import os
import stat
from errno import EACCES, EINVAL, ENOENT, EOPNOTSUPP, EPERM
from fcntl import F_GETFL, fcntl

from ..errors import StepError, Unsupported
from ..report import LabelReport
from ..spelling import flag_of, spelled
from ..stdlib import TYPE_CHECKING, dataclass, suppress
from ..steps import Plan, Step, Unmet
from .security import LABEL_PARTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..launch import Stdio

SELINUX = "/sys/fs/selinux"
APPARMOR = "/sys/module/apparmor/parameters/enabled"
PERMISSIVE = 1
"""``SELINUX_AVD_FLAGS_PERMISSIVE`` of ``security/selinux/include/security.h``."""
BINDING_MODES = ("enforce", "kill")
"""Modes of an AppArmor profile in which it forbids what it does not allow."""
STREAMS = ("stdin", "stdout", "stderr")
KINDS = {stat.S_IFIFO: "fifo_file", stat.S_IFREG: "file", stat.S_IFCHR: "chr_file", stat.S_IFSOCK: "unix_stream_socket"}
"""Classes of SELinux's policy for files that may be streams."""
ENTERING = {"process": ("transition",), "process2": ("nnp_transition", "nosuid_transition")}
"""Permissions that a change of the context by an execve needs, by class: our no_new_privs and nosuid mounts need the
second (``check_nnp_nosuid`` in ``security/selinux/hooks.c``)."""


EVERY = frozenset(("use", "read", "write", "entrypoint", *(name for names in ENTERING.values() for name in names)))
"""Every permission that is asked for here."""


def wish(step: Step) -> str:
    """The values of ``security_opt`` that a ``label`` step comes from."""
    key = "apparmor" if step.args[0] == "apparmor" else "label"
    values = str(step.args[1]).split(" ") if key == "label" else [str(step.args[1])]
    return " ".join(f"{key}={value}" for value in values)


def _option(step: Step) -> str:
    """Return the option of a ``label`` step with its values, as an error names it."""
    return spelled("security_opt", wish(step))


def _or_without() -> str:
    return f"or run with {spelled('best_effort', True)}"


def reason(step: Step, problem: Unsupported) -> str:
    """Return the message of an error of :func:`inactive` or :func:`toothless` without the option in front."""
    return problem.message.removeprefix(f"{_option(step)}: ")


def inactive(step: Step) -> Unsupported | None:
    """The error if the module of a ``label`` step is not active on this machine."""
    if step.args[0] == "apparmor":
        module, file, good = "AppArmor", APPARMOR, "Y"
    else:
        module, file, good = "SELinux", f"{SELINUX}/enforce", ""
    try:
        with open(file) as parameter:
            found = parameter.read().strip()
        problem = "" if not good or found == good else f"{file} does not say {good}"
    except OSError as error:
        problem = f"{file}: {error.strerror}"
    return Unsupported(f"{_option(step)}: {module} is not active here ({problem})", hint="leave it out; the other "
                       "protections do not need it") if problem else None


def toothless(step: Step) -> Unsupported | None:
    """The error if SELinux would only log what the label of a ``label`` step forbids.

    Nothing is said of AppArmor: sandbox-init looks at the mode of the profile, which not everybody may list.
    """
    if step.args[0] == "apparmor":
        return None
    with open(f"{SELINUX}/enforce") as enforce:
        if enforce.read().strip() == "0":
            return Unsupported(f"{_option(step)}: SELinux is permissive here: it only logs what the label forbids",
                               hint=f"setenforce 1, {_or_without()}")
    name = _parts(step).get("type", _current()[2])
    if _is_permissive(name):
        return Unsupported(f"{_option(step)}: the policy has the type {name} permissive: it only logs what the type is "
                           "forbidden", hint=f"semanage permissive -d {name}, {_or_without()}")
    return None


@dataclass(slots=True)
class _Entry:
    """What sandbox-init has told of one label.

    :param source: label before the execve.
    :param wanted: label that the execve was to take on.
    :param got: label that the process had after the execve; empty when it could not be read.
    :param why_not: why the label does not bind; empty when it does.
    :param note: what else the label does to the process.
    """

    step: Step
    source: str
    wanted: str
    got: str = ""
    why_not: str = "the label of the process could not be read"
    note: str = ""


class Labels:
    """What is known of the labels of one run.

    :param plan: with the ``label`` steps.
    :param stdio: the workload's standard streams; None for one of the launcher's own.
    """

    def __init__(self, plan: Plan, stdio: Stdio = (None, None, None)) -> None:
        self._plan = plan
        self._stdio = stdio
        self._entries: dict[int, _Entry] = {}

    def entering(self, number: int, source: str, wanted: str) -> None:
        """The kernel has accepted the label of step ``number`` for the next execve."""
        self._entries[number] = _Entry(self._plan.steps[number - 1], source, wanted)

    def got(self, number: int, label: str) -> None:
        """The process has ``label``."""
        entry = self._entries[number]
        entry.got = label
        entry.why_not = _why_not(entry)
        if not entry.why_not and entry.step.args[0] == "selinux":
            entry.note = _cut_off(entry, self._stdio)

    def refused(self, errno: int, path: str, root: str) -> StepError | None:
        """The error for an execve that a label is to blame for; None if none is.

        :param root: where the files inside are seen from outside; empty for ``/``.
        """
        for number, entry in self._entries.items():
            if errno in (EPERM, EACCES) and entry.source != entry.wanted:
                module = "AppArmor" if entry.step.args[0] == "apparmor" else "SELinux"
                hint = _how_to_allow(entry, root + path) if module == "SELinux" else "dmesg | grep apparmor= tells more"
                return StepError(f"{_option(entry.step)}: {module} does not let {entry.source} start {path} as "
                                 f"{entry.wanted}", errno=errno, number=number, hint=hint)
        return None

    def reports(self) -> tuple[LabelReport, ...]:
        """One for each label that was set."""
        return tuple(LabelReport(
            module=str(one.step.args[0]), flag=f"{flag_of('security_opt')} {wish(one.step)}", label=one.got or None,
            enforced=not one.why_not, note=one.note) for one in self._entries.values())

    def unmet(self) -> Iterable[Unmet]:
        """The labels that do not bind."""
        for one in self._entries.values():
            if one.why_not:
                yield Unmet(realises="security_opt", reason=f"{wish(one.step)}: {one.why_not}")


def _why_not(entry: _Entry) -> str:
    if entry.got != entry.wanted:
        return f"the process had the label {entry.got} after its start, not {entry.wanted}"
    if entry.step.args[0] == "apparmor":
        return "" if mode_of(entry.got) in BINDING_MODES else _loose(entry.got)
    problem = toothless(entry.step)
    return "" if problem is None else reason(entry.step, problem)


def mode_of(label: str) -> str:
    """``enforce`` of AppArmor's ``NAME (enforce)``; empty for ``unconfined``."""
    return label.rpartition(" (")[2].removesuffix(")") if label.endswith(")") else ""


def _loose(label: str) -> str:
    return f"the profile is in {mode_of(label) or 'no'} mode, which does not enforce it"


def _cut_off(entry: _Entry, stdio: Stdio) -> str:
    """What is to be said of streams that the context may not use.

    The kernel replaces them by ``/dev/null`` at the execve, without an error (``flush_unauthorized_files`` in
    ``security/selinux/hooks.c``). It is asked for the policy instead of looking into the process, which may have ended.
    """
    names, rules = [], []
    for name, number, fd in zip(STREAMS, range(3), stdio, strict=True):
        with suppress(OSError):
            lacking = _lacking(entry, number if fd is None else fd)
            names += [name] if lacking else []
            rules += lacking
    told = " ".join(dict.fromkeys(rules))
    return (f"the policy does not let it use {', '.join(names)}: /dev/null is in their place; it would need: {told}"
            if names else "")


def _lacking(entry: _Entry, fd: int) -> list[str]:
    """The rules that the policy lacks for the use of an open file by the new context."""
    kind = KINDS.get(stat.S_IFMT(os.fstat(fd).st_mode))
    if kind is None:
        return []
    mode = fcntl(fd, F_GETFL) & os.O_ACCMODE
    needed = {os.O_RDONLY: ("read",), os.O_WRONLY: ("write",)}.get(mode, ("read", "write"))
    context = os.getxattr(fd, "security.selinux").decode().rstrip("\0")
    return [*_rule(entry.wanted, entry.source, "fd", ("use",)), *_rule(entry.wanted, context, kind, needed)]


# -- a label that the kernel refused

def failure(step: Step, number: int, errno: int, words: tuple[str, ...]) -> StepError:
    """The error for a ``label`` step that failed.

    :param words: what sandbox-init said of it: the label before, and the one that was wanted.
    """
    source, wanted = words[0] if words else "", " ".join(words[1:])
    name = str(step.args[1])
    if step.args[0] == "apparmor":
        if errno == ENOENT:
            return StepError(f"{_option(step)}: no profile of that name is loaded", number=number,
                             hint="aa-status lists the profiles, apparmor_parser -r FILE loads one")
        if errno == EOPNOTSUPP:
            return StepError(f"{_option(step)}: {_loose(wanted)}", number=number,
                             hint=f"aa-enforce {name}, {_or_without()}")
        return StepError(f"{_option(step)}: AppArmor does not let {source or 'this process'} change to it", errno=errno,
                         number=number, hint="dmesg | grep apparmor= tells more")
    if errno == EINVAL and wanted:
        unknown, hint = _unknown(step)
        problem = unknown or f"the policy allows no context {wanted}"
        return StepError(f"{_option(step)}: {problem}", number=number, hint=hint)
    if errno == EACCES and source:
        return StepError(f"{_option(step)}: SELinux does not let {source} choose a context for an execve", errno=errno,
                         number=number, hint=f"the policy would need: allow {_type(source)} self:process setexec;")
    return StepError(f"{_option(step)}: the kernel does not take the label", errno=errno, number=number,
                     hint="dmesg may tell more")


def _unknown(step: Step) -> tuple[str, str]:
    """The part of a context that the policy does not know, and what to type. Any role and type go with object_r."""
    own = _current()
    for name, part in _parts(step).items():
        context = [own[0], "object_r", *own[2:]]
        if name != "role":
            context[LABEL_PARTS.index(name)] = part
            if _is_context(":".join(context)) is False:
                listed = {"user": "seinfo -u", "type": "seinfo -t"}.get(name, "seinfo --sensitivity --category")
                return f"the policy has no {name} {part}", f"{listed} lists what it has (package setools)"
    return "", ("a type goes with some roles only, and a role with some users: add the options label=user:U and "
                "label=role:R, for example label=user:system_u and label=role:system_r")


def _how_to_allow(entry: _Entry, path: str) -> str:
    """The rules that the policy lacks for a change of the context by an execve."""
    source, wanted = entry.source, entry.wanted
    rules = []
    for name, permissions in ENTERING.items():
        rules += _rule(source, wanted, name, permissions)
    with suppress(OSError):
        rules += _rule(wanted, os.getxattr(path, "security.selinux").decode().rstrip("\0"), "file", ("entrypoint",))
    if rules:
        return f"the policy would need: {' '.join(rules)}"
    return "its constraints forbid it, for example a change of the role and the user; dmesg | grep avc: tells more"


def _rule(source: str, target: str, kind: str, permissions: tuple[str, ...]) -> list[str]:
    """An ``allow`` rule for those of ``permissions`` that the policy does not give."""
    missing = [one for one in permissions if one not in _allowed(source, target, kind)]
    words = f"{{ {' '.join(missing)} }}" if len(missing) > 1 else "".join(missing)
    return [f"allow {_type(source)} {_type(target)}:{kind} {words};"] if missing else []


# -- what the policy says, by selinuxfs

def _parts(step: Step) -> dict[str, str]:
    return dict(one.split(":", 1) for one in str(step.args[1]).split(" "))


def _current() -> list[str]:
    """The parts of our own context."""
    with open("/proc/self/attr/current") as current:
        return current.read().rstrip("\0\n").split(":", 3)


def _type(context: str) -> str:
    return [*context.split(":"), "", "", ""][2]


def _ask(file: str, question: str) -> str:
    """The answer of a file of selinuxfs to what is written to it."""
    fd = os.open(f"{SELINUX}/{file}", os.O_RDWR | os.O_CLOEXEC)
    try:
        os.write(fd, question.encode())
        return os.read(fd, 4096).decode()
    finally:
        os.close(fd)


def _is_context(context: str) -> bool | None:
    """Whether the policy allows a context; None if we may not ask."""
    try:
        _ask("context", context)
    except OSError as error:
        return False if error.errno == EINVAL else None
    return True


def _decision(source: str, target: str, kind: str) -> list[str]:
    """``allowed decided auditallow auditdeny seqno flags``, the first four in hexadecimal."""
    with open(f"{SELINUX}/class/{kind}/index") as index:
        return _ask("access", f"{source} {target} {index.read().strip()}").split()


def _allowed(source: str, target: str, kind: str) -> frozenset[str]:
    """The permissions that the policy gives; all of them if we may not ask."""
    directory = f"{SELINUX}/class/{kind}/perms"
    try:
        bits = int(_decision(source, target, kind)[0], 16)
        names = os.listdir(directory)
    except OSError:
        return EVERY
    found = set()
    for name in names:
        with open(f"{directory}/{name}") as number:
            if bits >> int(number.read()) - 1 & 1:
                found.add(name)
    return frozenset(found)


def _is_permissive(name: str) -> bool:
    """Whether a type is permissive; one that the policy does not have is not."""
    own = _current()
    context = ":".join([own[0], "object_r", name, *own[3:]])
    try:
        return bool(int(_decision(context, context, "process")[5]) & PERMISSIVE)
    except OSError:
        return False
