"""Run commands under resource limits on Linux, through a driver of your choice, and see what the kernel made of it.

Glossary, one word for one thing, in code and texts alike:

* **cgroup**: a directory of the kernel that holds processes and limits. A **controller** (cpu, memory, ...) enforces
  one kind of limit; a **hierarchy** is a mounted tree of cgroups; a **leaf** has no cgroups below it.
* **namespace**: what a process sees of a global resource: mounts, process ids, the network.
* **workload**: the command the user wants to run, and its children. The **launcher** is the process that uses this
  library. **sandbox-init** runs twice per sandbox: as the **guard** outside and as the **init** (pid 1) inside.
* **spec**: what the user wants; **limits** are part of it. A **knob** is one limit in every spelling. **host**: what
  this machine is.
* **driver**: compiles a spec for a host into a **plan**, an ordered list of **steps**. A **watch** is a file or a
  clock that the guard keeps an eye on; a **read** is a figure that is read at the end.
* **report**: how a run ended and what it used.

``run`` is the verb; the noun is ``report``. Bytes and seconds everywhere; "no limit" is None.
"""

from __future__ import annotations

from .stdlib import TYPE_CHECKING

if TYPE_CHECKING:
    from .box import Sandbox
    from .errors import (
        CgroupError,
        CleanupError,
        DriverUnavailable,
        ExecError,
        LimitExceeded,
        MountError,
        NamespaceError,
        SandboxError,
        SpecError,
        StepError,
        Unsupported,
    )
    from .host import Host, probe
    from .launcher import Launcher, plan, run, run_async
    from .options import make_spec
    from .process import Event, Process
    from .report import Outcome, Report
    from .spec import Limits, Spec
    from .steps import Plan, Step, Unmet
    from .usage import Usage

__version__ = "0.1.0"

_HOMES = {
    "errors": ("CgroupError", "CleanupError", "DriverUnavailable", "ExecError", "LimitExceeded", "MountError",
               "NamespaceError", "SandboxError", "SpecError", "StepError", "Unsupported"),
    "host": ("Host", "probe"),
    "options": ("make_spec",),
    "steps": ("Plan", "Step", "Unmet"),
    "box": ("Sandbox",),
    "launcher": ("Launcher", "plan", "run", "run_async"),
    "process": ("Event", "Process"),
    "report": ("Outcome", "Report"),
    "spec": ("Limits", "Spec"),
    "usage": ("Usage",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "CgroupError", "CleanupError", "DriverUnavailable", "Event", "ExecError", "Host", "Launcher", "LimitExceeded",
    "Limits", "MountError", "NamespaceError", "Outcome", "Plan", "Process", "Report", "Sandbox", "SandboxError", "Spec",
    "SpecError", "Step", "StepError", "Unmet", "Unsupported", "Usage", "make_spec", "plan", "probe", "run", "run_async",
]


def __getattr__(name: str) -> object:
    """Import a public name's module when it is first used: ``import sandbox`` alone costs next to nothing."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Not importlib.import_module: to load importlib costs 2 ms.
    return getattr(__import__(f"{__name__}.{_HOME[name]}", fromlist=(name,)), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
