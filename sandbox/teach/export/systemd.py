"""The run as a ``systemd-run`` command line and as a unit file.

Sources: systemd-run(1), systemd.resource-control(5), systemd.exec(5), systemd.kill(5), systemd.service(5),
systemd.scope(5). A scope is only a cgroup around what systemd-run itself becomes; a service is started by systemd,
which then does the rest too.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

from ...drivers.properties import FINE_SINCE, properties
from ...drivers.unit import unit_name
from ...facts import Property
from ...knobs import bfq_from_io_weight, blkio_from_io_weight, shares_from_weight
from ...property import text
from ...records import UNLIMITED
from ...unit import plain
from ...units import show_seconds
from ...wishes import DEFAULT_PERIOD, Wish
from . import isolation, isolation_unit
from .quoting import shell_lines, shell_word, unit_word
from .values import Lost, Values, as_utf8, bound, environment, file_text, flag, mangled, priorities, rlimit, sort

Setting = tuple[str, str]
NEWEST = 999
LEGACY = ("cpus", "cpu_weight", "memory", "pids_limit", "device_read_bps", "device_write_bps", "io_weight")
"""What systemd translates into the files of cgroup v1."""
SECOND = 1_000_000


# -- systemd-run ---------------------------------------------------------------------------------------------------

def command(values: Values) -> tuple[str, list[str]]:
    """``systemd-run``, with a scope or, for ``--unit-type service``, a service."""
    words, lost = sort(_command(values))
    return shell_lines(words), lost


def _command(values: Values) -> Iterator[str | Lost]:
    spec, scope = values.spec, values.spec.unit_type == "scope"
    kind = "--scope" if scope else f"--wait --service-type=exec {'--pty' if spec.tty else '--pipe'}"
    yield f"systemd-run {'--user ' if _is_users(values) else ''}{kind} --collect --quiet"
    if spec.unit or spec.name:
        yield f"--unit={shell_word(unit_name(spec, values.plan.name, spec.unit_type))}"
    if spec.slice:
        yield f"--slice={shell_word(spec.slice)}"
    isolated = () if scope else isolation_unit.service(values, _version(values), file=False)
    parts = 1 if _version(values) < FINE_SINCE else 100
    for setting in (*_limits(values, parts=parts), *_ends(values, scope=scope), *_process(values, scope=scope),
                    *isolated, *_own(values)):
        yield setting if isinstance(setting, Lost) else f"-p {shell_word('='.join(setting))}"
    if _version(values) == NEWEST:
        yield from _in_whole_percent(values)
    if spec.cwd is not None:
        yield f"--working-directory={shell_word(spec.cwd)}"
    elif not scope:
        yield "--same-dir"
    if spec.user is not None:
        yield f"--uid={spec.user.uid} --gid={spec.user.gid}"
    if any("$" in word for word in spec.argv) and (_version(values) >= 254):
        yield "--expand-environment=no"
    yield from _in_scope(values) if scope else _in_service(values)


def _in_scope(values: Values) -> Iterator[str | Lost]:
    """A scope has neither limits of processes nor an environment, so that programs in front of CMD set them."""
    spec, (shown, hidden) = values.spec, environment(values.spec)
    rlimits = [f"--{rlimit(item).lower()}={bound(item.soft, 'unlimited')}:{bound(item.hard, 'unlimited')}"
               for item in spec.limits.ulimit]
    if not isolation.has_core_limit(spec):
        rlimits = ["--core=0:0", *rlimits]
    if spec.limits.ulimit:
        yield Lost("--ulimit: a scope has no LimitNOFILE= and the like; prlimit(1) in front of the command sets them.")
    if spec.user is not None and set(spec.user.groups) - {spec.user.gid}:
        yield Lost("--user: systemd-run takes the supplementary groups from the group database.")
    yield Lost("A scope has the caller's environment; env(1) in front of the command replaces it.")
    yield isolation_unit.scope(spec)
    yield from (Lost(f"The value of {name} is not printed: it is taken from your shell.") for name in hidden)
    yield "-- " + " ".join([*priorities(spec), "prlimit", *rlimits, "env -i",
                            *(f"{name}={shell_word(value)}" for name, value in shown),
                            *(f'{name}="${name}"' for name in hidden)])
    yield " ".join(map(shell_word, spec.argv))


def _in_service(values: Values) -> Iterator[str | Lost]:
    spec, (shown, hidden) = values.spec, environment(values.spec)
    yield from (f"-E {shell_word(f'{name}={value}')}" for name, value in shown)
    yield from (f"-E {shell_word(name)}" for name in hidden)
    yield from (Lost(f"The value of {name} is not printed: it is taken from your shell.") for name in hidden)
    yield from _service_lost(values)
    yield from mangled(spec, "D-Bus")
    yield "-- " + " ".join(map(shell_word, _doubled(values)))


def _doubled(values: Values) -> tuple[str, ...]:
    """Before systemd 254 nothing but a second dollar keeps the service manager from replacing variables."""
    old = _version(values) < 254
    return tuple(word.replace("$", "$$") if old else word for word in values.spec.argv)


# -- a unit file ---------------------------------------------------------------------------------------------------

def unit(values: Values) -> tuple[str, list[str]]:
    """A service for ``/etc/systemd/system``."""
    settings, lost = sort(_service(values))
    name = unit_name(values.spec, values.plan.name, "service")
    where, ctl = (("~/.config/systemd/user", "systemctl --user") if _is_users(values)
                  else ("/etc/systemd/system", "systemctl"))
    lines = [f"# {where}/{name}", f"# {ctl} daemon-reload && {ctl} start {name}", "[Unit]",
             f"Description=sandbox {values.plan.name}", "CollectMode=inactive-or-failed", "", "[Service]",
             *(f"{key}={value}" for key, value in settings)]
    return "\n".join(lines) + "\n", lost


def _service(values: Values) -> Iterator[Setting | Lost]:
    spec, (shown, hidden) = values.spec, environment(values.spec)
    yield "Type", "exec"
    if spec.slice:
        yield "Slice", spec.slice
    yield from _exec_start(values)
    yield from (("Environment", unit_word(f"{name}={value}")) for name, value in shown)
    yield from (("PassEnvironment", name) for name in hidden)
    yield from (Lost(f"The value of {name} is not printed: give it to the manager with systemctl set-environment.")
                for name in hidden)
    if spec.cwd is not None:
        yield "WorkingDirectory", as_utf8(spec.cwd).replace("%", "%%")
        if as_utf8(spec.cwd) != spec.cwd:
            yield Lost("--workdir: a unit file holds only UTF-8: other bytes are replaced by U+FFFD.")
    else:
        yield Lost("A service starts in /, not in the caller's directory: give --workdir.")
    if spec.user is not None:
        yield "User", str(spec.user.uid)
        yield "Group", str(spec.user.gid)
    if spec.tty:
        yield Lost("--tty: a service has no terminal of the caller's; see TTYPath= in systemd.exec(5).")
    yield Lost("Standard input is /dev/null and the output goes to the journal: see StandardOutput=.")
    yield from (*_limits(values, parts=100), *_ends(values, scope=False), *_process(values, scope=False),
                *isolation_unit.service(values, _version(values), file=True), *_own(values), *_service_lost(values))


def _exec_start(values: Values) -> Iterator[Setting | Lost]:
    spec = values.spec
    program, first = spec.argv[0], ""
    path = dict(spec.env).get("PATH")
    if "/" not in program:
        # systemd looks in directories of its own otherwise (systemd.exec(5), since 250).
        if path and _version(values) >= 250:
            yield "ExecSearchPath", as_utf8(path).replace("%", "%%")
        else:
            yield Lost(f"systemd looks for {program} in its own list of directories, not in PATH.")
    elif not program.startswith("/"):
        first, program = "@", f"{(spec.cwd or '').rstrip('/')}/{program}"
    words = [program, *(spec.argv if first else spec.argv[1:])]
    yield "ExecStart", first + " ".join(unit_word(word, command=True) for word in words)


# -- both ----------------------------------------------------------------------------------------------------------

def _limits(values: Values, *, parts: int) -> Iterator[Setting | Lost]:
    for wish in (wish for wishes in values.wishes.values() for wish in wishes):
        field, (file, _) = wish.knob.field, file_text(wish)
        told = properties(wish, _version(values))
        if field == "oom_group":
            continue  # told by OOMPolicy=
        if values.version == 1 and field not in LEGACY:
            yield Lost(f"{flag(wish)}: systemd sets {wish.knob.files(1)[0]} of cgroup v1 by no property.")
        elif not told:
            yield Lost(f"{flag(wish)}: systemd has no property for {file}; with Delegate=yes the command could write "
                       "it, below the unit's own cgroup.")
        elif field == "cpus":
            yield from _quota(wish, parts)
        elif values.version == 1 and field == "cpu_weight":
            # systemd would convert CPUWeight= to shares, and the result is not the number of shares that the user gave.
            yield "CPUShares", str(values.spec.limits.cpu_shares or shares_from_weight(wish.value))
        elif values.version == 1 and field == "io_weight":
            yield from map(_setting, told)
            made = bfq_from_io_weight(blkio_from_io_weight(wish.value))
            yield Lost(f"{flag(wish)}: on cgroup v1, systemd 252 makes blkio.bfq.weight {made} of "
                       f"IOWeight={wish.value}.")
        else:
            yield from (_setting(one) for one in told)
    if "pids_limit" not in values.wishes:
        yield "TasksMax", "infinity"  # DefaultTasksMax= is 15 % of what the machine can have
    if values.spec.limits.memory_swappiness is not None:
        yield Lost("--memory-swappiness: systemd has no property for memory.swappiness.")


def _quota(wish: Wish, parts: int) -> Iterator[Setting | Lost]:
    """``CPUQuota=`` has two decimals, but older versions of systemd write a transient unit's down in whole percent.

    :param parts: of a percent that the value is rounded up to.
    """
    quota, period = wish.value
    if quota != UNLIMITED:
        count = -(-quota * 100 * parts // period)
        percent = f"{count // parts}{f'.{count % parts:02}'.rstrip('0') if count % parts else ''}%"
        yield "CPUQuota", percent
        if count * period != quota * 100 * parts:
            kept = "whole percent, at the latest after daemon-reload" if parts == 1 else "hundredths of a percent"
            yield Lost(f"{flag(wish)}: {quota} us of {period} us are rounded up to {percent}: systemd keeps {kept}.")
    if period != DEFAULT_PERIOD:
        yield "CPUQuotaPeriodSec", show_seconds(period / SECOND)


def _in_whole_percent(values: Values) -> Iterator[Lost]:
    """Yield what systemd before 257 makes of the CPU quota, for an export to a systemd of unknown version."""
    for wish in values.all("cpus"):
        quota, period = wish.value
        if quota != UNLIMITED and quota * 100 % period:
            yield Lost(f"{flag(wish)}: an older systemd than {FINE_SINCE} keeps CPUQuota={quota * 100 // period}% from "
                       "the next daemon-reload on.")


def _setting(one: Property) -> Setting:
    name, _, value = text(one.name, one.signature, plain(one.signature, one.words)).partition("=")
    return name, value


def _ends(values: Values, *, scope: bool) -> Iterator[Setting | Lost]:
    """How it ends: for want of memory, of time, by a signal."""
    spec = values.spec
    policy = "kill" if "oom_group" in values.wishes else "continue"
    if not scope or _version(values) >= 253:
        yield "OOMPolicy", policy
    elif policy == "kill":
        yield Lost("--oom-group: a scope has no OOMPolicy= before systemd 253.")
    if spec.limits.timeout is not None:
        yield "RuntimeMaxSec", show_seconds(spec.limits.timeout)
        yield Lost("--timeout: the exit code is that of the signal, not 124; the unit's result says `timeout`.")
    if spec.limits.cpu_time is not None:
        yield Lost("--cpu-time: systemd does not limit the CPU time of a whole unit; LimitCPU= is of each process.")
    if spec.stop_signal != signal.SIGTERM:
        yield "KillSignal", str(int(spec.stop_signal))
    yield "TimeoutStopSec", show_seconds(max(spec.stop_timeout, 0.001))  # 0 would be: wait for ever


def _process(values: Values, *, scope: bool) -> Iterator[Setting]:
    """What systemd does for the process itself, if it starts it."""
    spec = values.spec
    if scope:
        return
    for item in spec.limits.ulimit:
        yield f"Limit{rlimit(item)}", f"{bound(item.soft, 'infinity')}:{bound(item.hard, 'infinity')}"
    if spec.oom_score_adj is not None:
        yield "OOMScoreAdjust", str(spec.oom_score_adj)
    if spec.nice is not None:
        yield "Nice", str(spec.nice)
    if spec.ionice is not None:
        yield "IOSchedulingClass", spec.ionice.kind
        if spec.ionice.kind != "idle":
            yield "IOSchedulingPriority", str(spec.ionice.level)
    if spec.user is not None and (groups := [str(one) for one in spec.user.groups if one != spec.user.gid]):
        yield "SupplementaryGroups", " ".join(groups)


def _own(values: Values) -> Iterator[Setting]:
    for one in values.spec.property:
        name, _, value = one.partition("=")
        yield name, value


def _service_lost(values: Values) -> Iterator[Lost]:
    yield Lost("systemd adds variables of its own, such as INVOCATION_ID, to the environment.")


def _is_users(values: Values) -> bool:
    return values.spec.systemd_user or values.host.uid != 0


def _version(values: Values) -> int:
    """Of the machine's systemd; the newest when it has none, as the text is for another machine then."""
    detail = values.host.systemd_version or ""
    return values.host.manager.version or int(detail if detail.isdigit() else 0) or NEWEST

