"""The run as a shell script."""

from __future__ import annotations

from ...spelling import flag_of
from ...steps import masked
from ..shell import script
from .values import Values, environment


def shell(values: Values) -> tuple[str, list[str]]:
    """The plan itself, by hand."""
    plan = values.plan._replace(steps=tuple(step._replace(args=masked(step)) for step in values.plan.steps))
    lost = ["Nothing guards the script: when its shell is killed, the command runs on and its cgroup stays.",
            "There is no report: the script prints the raw figures, and a timeout is not exit code 124.",
            "Of the isolation the script has namespaces alone, without one for users; files, capabilities, ids inside, "
            "system calls and network devices are comments in it, so that the command reaches what the shell does."]
    lost += [f"{flag_of(one.realises)}: {one.reason}." for one in plan.unmet]
    lost += [f"The value of {name} is not printed: put it in place of ***." for name in environment(values.spec)[1]]
    return script(plan), lost
