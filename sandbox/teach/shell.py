"""A plan as shell commands that a learner can type by hand: ``sandbox explain --format sh``.

What sandbox-init does in C is done here by util-linux and coreutils; the comments say where that differs.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from ..isolation import namespaces
from ..records import IO_CLASSES, IoPriority
from ..steps import Arg, Phase, Plan, Step, Where
from . import net_commands

UNSHARE = {namespaces.CLONE_NEWUSER: "--user", namespaces.CLONE_NEWPID: "--pid --fork --kill-child",
           namespaces.CLONE_NEWNS: "--mount --mount-proc", namespaces.CLONE_NEWNET: "--net",
           namespaces.CLONE_NEWIPC: "--ipc", namespaces.CLONE_NEWUTS: "--uts", namespaces.CLONE_NEWTIME: "--time"}
"""What unshare(1) calls each namespace. ``--cgroup`` is left out, so that one can look where the command is."""
BY_INIT = ("private", "subreaper", "setns", "hold")
"""Steps of the init for which there is nothing to type."""
UNSPOKEN = ("chdir", "reset_signals", "close_fds")
"""Steps of the workload that a shell does in another place, or does anyway."""


def script(plan: Plan) -> str:
    """The commands, in the plan's order, as a POSIX shell script for root."""
    made = [step for step in plan.steps if step.op in _HOST and not net_commands.is_setting(step)]
    files = dict.fromkeys(read.file for read in plan.reads if not read.figure.startswith("net_"))
    lines = [
        "#!/bin/sh",
        f"# what `sandbox run` does with the {plan.driver} driver; each line may be typed by hand",
        *_unit(plan),
        *(f"# not done: {one.reason}" for one in plan.unmet),
        *(line for step in made for line in _HOST[step.op](step)),
        "",
        *_inside(plan),
        *net_commands.lines(plan),
        "# the child joins its cgroup last, then becomes the command",
        f"{_workload(plan)} &",
        "pid=$!",
        "clocks=",
        *(f'{line}\nclocks="$clocks $!"' for line in _watches(plan)),
        'wait "$pid"; status=$?',
        "kill $clocks 2>/dev/null; wait",
        "",
        "# what it used",
        *(f"cat {shlex.quote(file)}" for file in files),
        "",
        "# a cgroup goes when it is empty",
        *(f"rmdir {shlex.quote(str(step.args[0]))}" for step in plan.steps if step.op == "remove"),
        'exit "$status"',
    ]
    return "\n".join(lines) + "\n"


def _unit(plan: Plan) -> Iterator[str]:
    """The script goes on inside the unit; it is the process that holds it."""
    start = next((step for step in plan.steps if step.op in ("start_unit", "start_service")), None)
    if start is None:
        return
    from ..property import text
    from ..unit import plain

    told = (tuple(map(str, step.args)) for step in plan.steps if step.op == "property")
    words = [text(name, signature, plain(signature, value)) for name, signature, *value in told]
    kind = ["--scope"] if start.op == "start_unit" else ["--pipe", "--wait", "--service-type=exec"]
    manager = ["--user"] if start.args[0] == "user" else []
    yield "# systemd makes the cgroup and writes what it has a property for; the rest is done inside"
    yield (f'[ "$IN_UNIT" ] || exec env IN_UNIT=1 systemd-run {shlex.join([*manager, *kind])} --quiet '
           f"--unit={shlex.quote(str(start.args[1]))} \\")
    for word in words:
        yield f"    -p {shlex.quote(word)} \\"
    yield '    sh "$0"' if start.op == "start_unit" else '    env IN_UNIT=1 sh "$0"'


def _split(step: Step) -> Iterator[str]:
    source, target = map(shlex.quote, map(str, step.args))
    yield f"mkdir -p {target}"
    yield f"for pid in $(cat {source}/cgroup.procs); do echo $pid > {target}/cgroup.procs; done"


def _enable(step: Step) -> Iterator[str]:
    directory, *controllers = map(str, step.args)
    for controller in controllers:
        yield f"echo +{controller} > {shlex.quote(directory)}/cgroup.subtree_control"


def _mkdir(step: Step) -> Iterator[str]:
    yield f"mkdir {shlex.quote(str(step.args[0]))}"


def _check_type(step: Step) -> Iterator[str]:
    yield f"cat {shlex.quote(str(step.args[0]))}/cgroup.type   # must say: domain"


def _inherit(step: Step) -> Iterator[str]:
    directory, _, file = str(step.args[0]).rpartition("/")
    yield f"cat {shlex.quote(directory.rpartition('/')[0])}/{file} > {shlex.quote(str(step.args[0]))}"


def _write(step: Step) -> Iterator[str]:
    yield f"echo {shlex.quote(str(step.args[1]))} > {shlex.quote(str(step.args[0]))}"


def _read_back(step: Step) -> Iterator[str]:
    for path in step.args[1:]:
        yield f"cat {shlex.quote(str(path))}   # is it what was asked?"


def _filter(step: Step) -> Iterator[str]:
    rules = ", ".join(map(str, step.args[1:])) or "those that systemd was told of"
    yield f"# a BPF program, which no command of the shell loads: {step.args[0]} may open these devices only: {rules}"


_HOST = {"enable": _enable, "mkdir": _mkdir, "check_type": _check_type, "inherit": _inherit, "write": _write,
         "read_back": _read_back, "split": _split, "device_filter": _filter, "has_filter": _filter}


def _workload(plan: Plan) -> str:
    """A shell that joins the cgroups and turns, by one exec after the other, into the command in its namespaces."""
    joins = [f"echo 0 > {shlex.quote(str(step.args[0]))}" for step in plan.steps if step.op == "open"]
    joins += [f"echo 0 > {shlex.quote(str(step.args[0]))}/cgroup.procs" for step in plan.steps
              if step.op == "open_directory"]
    words = [word for step in plan.steps for word in _exec_words(step)]
    return "\n".join(["(", *(f"    {line}" for line in joins), *_shell_words(plan), "    exec " + " ".join(words), ")"])


def _shell_words(plan: Plan) -> list[str]:
    return [f"    cd {shlex.quote(str(step.args[0]))}" for step in plan.steps if step.op == "chdir"]


def ionice(priority: IoPriority) -> str:
    """Return the ionice(1) command line in front of a command."""
    return f"ionice -c {priority.kind}" + ("" if priority.kind == "idle" else f" -n {priority.level}")


def _exec_words(step: Step) -> list[str]:
    if step.op in ("clone3", "namespaces"):
        return _unshare(step)
    if step.op == "new_id_map":
        assert isinstance(step.args[0], tuple)
        return ["--map-auto", *["--map-root-user"] * (step.args[0][4] == "1")]  # who 0 is outside
    if step.op == "oom_score_adj":
        score, _, asked = step.args
        return [f"choom -n {score} --"] if asked else []
    if step.op == "nice":
        return [f"nice -n {step.args[0]}"]
    if step.op == "ionice":
        level, kind = (int(str(arg)) for arg in step.args)
        return [ionice(IoPriority(IO_CLASSES[kind], level))]
    if step.op == "rlimit":
        import resource

        number, soft, hard = step.args
        name = next(name for name in dir(resource) if name.startswith("RLIMIT_") and getattr(resource, name) == number)
        return [f"prlimit --{name.removeprefix('RLIMIT_').lower()}={_bound(soft)}:{_bound(hard)}"]
    if step.op == "setgroups":
        groups = ",".join(map(str, step.args))
        return [f"setpriv --groups={groups}" if groups else "setpriv --clear-groups"]
    if step.op in ("setresgid", "setresuid"):
        return [f"setpriv --re{step.op.removeprefix('setres')}={step.args[0]}"
                + (" --keep-groups" if step.op == "setresgid" else "")]
    if step.op == "setsid":
        return ["setsid"]
    if step.op == "ctty":
        return ["--ctty"]
    if step.op == "execve":
        _, argv, env = step.args
        assert isinstance(argv, tuple) and isinstance(env, tuple)
        return ["env -i", *map(shlex.quote, env), *map(shlex.quote, argv)]
    return []


def _unshare(step: Step) -> list[str]:
    """The holder's user namespace is left out: unshare(1) cannot stay root of the host to mount what is next."""
    flags = step.args[0]
    assert isinstance(flags, int)
    if step.op == "namespaces":
        flags &= ~namespaces.CLONE_NEWUSER
    mapped = ["--map-current-user"] if flags & namespaces.CLONE_NEWUSER else []
    words = [words for bit, words in UNSHARE.items() if flags & bit]
    return ["unshare", *words, *mapped] if words else []


def _inside(plan: Plan) -> Iterator[str]:
    """What is done inside before the command runs, for which a script would need a script inside."""
    from .explain import arguments

    done = [step for step in plan.steps if step.where is Where.INIT and step.op not in BY_INIT]
    if done:
        yield "# not typed here, the file system and the privileges inside; sandbox-init does:"
    done += [step for step in plan.steps if step.where is Where.WORKLOAD and step.phase is Phase.EXEC
             and step.op not in UNSPOKEN and not _exec_words(step)]
    yield from (f"#   {step.op} {arguments(step)}".replace("\n", " ").rstrip() for step in done)


def _bound(value: Arg) -> str:
    return "unlimited" if value == -1 else str(value)


def _watches(plan: Plan) -> Iterator[str]:
    """Limits on time are loops, not files."""
    number, grace = next((step.args for step in plan.steps if step.op == "stop"), (15, 0))
    stop = f"kill -{number} $pid; sleep {int(str(grace)) / 1000:g}; kill -9 $pid"
    for step in plan.steps:
        if step.op == "deadline":
            seconds = int(str(step.args[0])) / 1000
            # The trap: a shell that is killed would leave its sleep behind.
            yield f"(trap 'kill $!; exit' TERM; sleep {seconds:g} & wait; {stop}) >/dev/null 2>&1 &"
        elif step.op == "watch" and step.args[3]:
            _, path, key, limit, interval = step.args
            value = f"awk '$1 == \"{key}\" {{print $2}}' {path}" if key else f"cat {path}"
            yield (f"(while [ \"$({value})\" -lt {limit} ]; do sleep {int(str(interval)) / 1000:g}; done; {stop}) "
                   ">/dev/null 2>&1 &")
