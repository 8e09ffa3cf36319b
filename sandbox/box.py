"""A sandbox as an object: :class:`Sandbox` compiles a Spec for this machine, starts it once, and cleans up."""

from __future__ import annotations

import os
from errno import EEXIST
from stat import S_ISDIR

from .cgroup import files
from .draft import Draft, random_name
from .drivers import choose
from .errors import SandboxError, SpecError, StepError, Unsupported
from .execute import Executor
from .host import Host
from .isolation import secrets
from .isolation.filesystem import wanted_places
from .launch import Stdio
from .spec import Spec
from .spelling import spelled
from .stdlib import TYPE_CHECKING, Lock, lru_cache, suppress
from .steps import Plan, Unmet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from .process import Event, Process
    from .records import DeviceRate
    from .report import Report
    from .usage import Usage

SAME = 8
"""Pairs of a Spec and a Host for which a draft is kept."""
ADDRESSES = 5
"""How often others may be faster with the addresses of a network."""


def probe_for(spec: Spec) -> Host:
    """The Host, with what this very Spec needs to know of it: its disks and its parent cgroup."""
    from .host import probe

    paths = tuple(dict.fromkeys(rate.path for rate in rates(spec)))
    host = probe(paths=paths, cgroup_parent=spec.cgroup_parent, places=wanted_places(spec))
    host = look_further(host, spec)
    if not host.systemd_running:
        return host
    from .systemd import with_manager

    return with_manager(host, spec)


def look_further(host: Host, spec: Spec) -> Host:
    """``host`` with what may change from run to run, and what few Specs must know: of networks, devices, lent ids."""
    host = host._replace(secrets=secrets.probe(spec, host))
    if spec.network == "veth":
        from .isolation import uplink

        host = host._replace(network=uplink.probe(delay=spec.net_delay is not None, rate=spec.net_rate is not None))
    if spec.limits.has_io_weight:
        from . import io_weights

        host = io_weights.probe(host)
    if spec.device or spec.gpu:
        from .isolation import nodes

        host = host._replace(nodes=nodes.probe(spec))
    if host.uid and spec.user is not None and (spec.user.uid, spec.user.gid) != (host.uid, host.gid):
        from .isolation import lent

        host = host._replace(lent=lent.probe(host.uid))
    return host


def rates(spec: Spec) -> tuple[DeviceRate, ...]:
    """Every wish that is about a disk."""
    limits = spec.limits
    return (*limits.device_read_bps, *limits.device_write_bps, *limits.device_read_iops, *limits.device_write_iops,
            *limits.blkio_weight_device)


def compile_plan(spec: Spec, host: Host, *, name: str = "") -> tuple[Plan, str]:
    """The plan for ``spec`` on ``host`` and why its driver was chosen.

    :param name: name of the sandbox if the Spec has none; random when empty.
    :raises DriverUnavailable: the wanted driver cannot be used.
    """
    name = spec.name or name
    if not name and _may_draft(spec):
        draft, reason = _draft(spec, host)
        return draft.next(), reason
    driver, reason = choose(spec, host)
    return driver.compile(spec, host, name=name or random_name()), reason


def checked(spec: Spec) -> Spec:
    """Return ``spec``.

    :raises SpecError: it is something else, such as the command itself.
    """
    if not isinstance(spec, Spec):
        raise SpecError(f"a {type(spec).__name__} is no Spec", hint="make_spec([program, argument, ...]) makes one")
    return spec


def _check_stream(name: str, number: int, fd: object) -> None:
    """Refuse what cannot be a stream of the command.

    :param number: the fd of the caller that the command gets if ``fd`` is None.
    :raises SpecError: it is neither None nor the number of an open file, or it is a directory.
    """
    inherited = fd is None
    if fd is None:
        fd = number
    if not isinstance(fd, int) or isinstance(fd, bool):
        raise SpecError(f"{name}: a {type(fd).__name__} is no file descriptor", field=name,
                        hint="give the fileno() of an open file")
    if fd < 0:
        raise SpecError(f"{name}: {fd} is no file descriptor", field=name, hint="for subprocess.PIPE give an end of "
                        "os.pipe(), for DEVNULL open os.devnull, and for STDOUT give the number that stdout has")
    try:
        mode = os.fstat(fd).st_mode
    except OSError as error:
        if inherited:  # the caller has closed it, and the command starts without it, too
            return
        raise SpecError(f"{name}: file descriptor {fd}: {error.strerror}", field=name,
                        hint="keep the file open until start()") from None
    if S_ISDIR(mode):
        from .streams import directory

        raise directory(name, name, fd)


def prepare(spec: Spec, host: Host) -> None:
    """Have the next plan for them ready: for the time while a command runs."""
    if not spec.name and _may_draft(spec):
        _draft(spec, host)[0].prepare()


def _may_draft(spec: Spec) -> bool:
    return spec.network != "veth"  # whose addresses come of the name


@lru_cache(maxsize=SAME)
def _draft(spec: Spec, host: Host) -> tuple[Draft, str]:
    driver, reason = choose(spec, host)
    return Draft(driver.compile(spec, host, name=random_name())), reason


class Sandbox:
    """One run of one Spec. A context manager: leaving it kills what still runs and removes everything.

    ::

        with Sandbox(spec) as box:
            process = box.start()
            process.wait()
        print(box.report.outcome)

    :param spec: what to run.
    :param host: facts about the machine; probed when None.
    :raises SpecError: it is no Spec.
    :raises Unsupported: on entry, when a limit cannot be enforced here and the Spec is not ``best_effort``.
    """

    def __init__(self, spec: Spec, *, host: Host | None = None) -> None:
        self.spec = checked(spec)
        self.host = host
        self._process: Process | None = None
        self._plan: Plan | None = None
        self._driver_reason = ""

    def __enter__(self) -> Sandbox:
        self.host = self.host or probe_for(self.spec)
        _collect_once(self.host)
        self._plan, self._driver_reason = compile_plan(self.spec, self.host)
        if self._plan.unmet and not self.spec.best_effort:
            raise _refusal(self._plan)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            self._process.wait()

    @property
    def plan(self) -> Plan:
        """The compiled plan.

        :raises SandboxError: outside the ``with`` block.
        """
        if self._plan is None:
            raise SandboxError("the sandbox has no plan yet", hint="use it in a `with` block")
        return self._plan

    def start(self, *, stdin: int | None = None, stdout: int | None = None, stderr: int | None = None) -> Process:
        """Make the cgroup, set and verify the limits, and start the command. Once per Sandbox.

        :param stdin: fd for the command's standard input; None passes the caller's on. Likewise the others.
        :raises SpecError: one of them is no open file, or a directory.
        :raises StepError: a step failed; everything is removed again.
        """
        stdio = (stdin, stdout, stderr)
        for number, (name, fd) in enumerate(zip(("stdin", "stdout", "stderr"), stdio, strict=True)):
            _check_stream(name, number, fd)
        if self._process is not None:
            raise SandboxError("the sandbox was started before", hint="make a new Sandbox for each run")
        for _ in range(ADDRESSES):
            try:
                return self._start(stdio)
            except StepError as error:
                if error.errno != EEXIST or not error.number or self.plan.steps[error.number - 1].op != "address":
                    raise
                # Another sandbox has taken the addresses since the plan was made; now they are seen to be taken.
                assert self.host is not None
                self.host = look_further(self.host, self.spec)
                self._plan, self._driver_reason = compile_plan(self.spec, self.host, name=self.plan.name)
        return self._start(stdio)

    def _start(self, stdio: Stdio) -> Process:
        executor = Executor(self.plan, stdio, best_effort=self.spec.best_effort)
        try:
            executor.run()
        except BaseException as error:
            cause = abandon(executor)
            if cause is not None:
                raise cause from error
            raise
        # This import takes 4 ms. The guard and the init start at the same time, so it costs nothing here.
        from .process import Process

        assert executor.guard is not None
        self._process = Process(self.spec, self.plan, executor, executor.guard, self._driver_reason,
                                self.host.landlock_abi if self.host else None)
        self._process.wait_started()
        return self._process

    @property
    def unmet(self) -> tuple[Unmet, ...]:
        """What is not enforced (``best_effort``). What only the start can tell is in it once the command has started.

        :raises SandboxError: outside the ``with`` block.
        """
        return (*self.plan.unmet, *(self._process.unmet if self._process else ()))

    @property
    def report(self) -> Report:
        """The report, once the command has ended.

        :raises SandboxError: before.
        """
        if self._process is None or self._process.report is None:
            raise SandboxError("the sandbox has not ended yet", hint="wait() for its process")
        return self._process.report

    def usage(self) -> Usage:
        """What it has used so far."""
        from .usage import collect, kept

        reads = self.plan.reads
        return collect(reads, files.read_all(kept(reads)))

    def events(self) -> Iterator[Event]:
        """Yield what happens until the run has ended; waits for it."""
        if self._process is None:
            raise SandboxError("the sandbox was not started", hint="call start() first")
        return self._process.events()


_collected = Lock()


def _collect_once(host: Host) -> None:
    """Once per process, remove what dead sandboxes left. What will not go is for `sandbox gc` to tell of."""
    if _collected.acquire(blocking=False):
        from .gc import collect

        with suppress(SandboxError):
            collect(host)


def _refusal(plan: Plan) -> Unsupported:
    first, *rest = plan.unmet
    more = f" (and {len(rest)} more: {', '.join(sorted({spelled(one.realises) for one in rest}))})" if rest else ""
    return Unsupported(f"{spelled(first.realises)} cannot be enforced here: {first.reason}{more}",
                       hint=first.remedy or f"run with {spelled('best_effort', True)}")


def abandon(executor: Executor) -> StepError | None:
    """No sandbox will start: the guard removes what was made. Returns a failure of its own, which came before."""
    from .failures import step_failure
    from .process import arguments, is_taken, remove

    if executor.guard is None:
        with suppress(SandboxError):
            executor.clean_up()
        return None
    guard, failure = executor.guard, None
    if executor.foreign:
        guard.send("keep")  # a cgroup of that name is somebody else's, and the guard would remove it
    guard.send("kill")
    with suppress(EOFError):
        while (record := guard.receive()) is not None and record.kind != "done":
            if record.kind == "failed":
                failure = step_failure(executor.plan, record)
    taken = is_taken(executor.plan, failure)
    if executor.foreign and not taken:
        # The state file lists all cgroups of the plan, and one of them is somebody else's. It must go before the guard
        # ends: gc() of another process removes every cgroup in the state file of a guard that is dead.
        remove((), arguments(executor.plan, "unlink"))
    guard.send("bye")
    guard.reap()
    with suppress(SandboxError):  # what went wrong before says more
        executor.clean_up()
    if taken or executor.foreign:
        remove(executor.made)
    return failure
