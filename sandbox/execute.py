"""The executor: carries out the host steps of a plan, in order, and remembers what was done.

It takes no decision. The steps of the guard, the init and the workload travel to ``sandbox-init``, which carries them
out the same way and reports the one that failed.
"""

from __future__ import annotations

import os
import stat
import time
from errno import EEXIST, ENOENT, EROFS

from .ancestors import Ancestors
from .cgroup import files
from .drivers.process import LAUNCHER, STREAMS, TERMINAL
from .errors import CgroupError, StepError
from .init import wire
from .isolation import seccomp
from .launch import Guard, Record, Stdio
from .spelling import spelled
from .stdlib import TYPE_CHECKING, Any, partial
from .steps import CHILDREN, Done, Phase, Plan, Step, Unmet, Where
from .verify import check, check_protection

if TYPE_CHECKING:
    from collections.abc import Callable

    from .isolation.link import Link

UNIT_OPS = ("property", "start_unit", "start_service", "split", "attach", "stop_unit", "read_property")


class Executor:
    """Carries out one plan.

    :param plan: what to do.
    :param stdio: the workload's standard streams.
    :param best_effort: a limit that cannot be set is noted in ``unmet`` instead of ending the run.
    """

    def __init__(self, plan: Plan, stdio: Stdio, *, best_effort: bool = False) -> None:
        self.plan = plan
        self.done: list[Done] = []
        self.unmet: list[Unmet] = []
        self.made: list[str] = []
        self.foreign = False
        self.guard: Guard | None = None
        self.filter: Any = None  # bytes, which are in no plan
        self.ancestors: Ancestors | None = None
        self.stdio = stdio
        self._best_effort = best_effort
        self._join_fds: list[int] = []
        self._preserved: tuple[int, ...] = ()
        self._told: dict[str, Record] = {}
        self._link: Link | None = None
        self._ops: dict[str, Callable[[Step], None]] = {
            "makedirs": self._makedirs, "spawn": self._spawn, "enable": self._enable, "mkdir": self._mkdir,
            "check_type": self._check_type, "inherit": self._inherit, "write": self._write,
            "read_back": self._read_back, "streams": self._streams, "open": self._open,
            "open_directory": self._open_directory, "go": self._go, "device_filter": self._device_filter,
            "has_filter": self._device_filter,
        }
        self._late: dict[str, Callable[[Step], Step | None]] = {
            "launcher": self._bind_launcher, "give_streams": self._bind_streams, "tree": self._bind_terminal,
            "seccomp": self._bind_filter, "label": self._bind_label, "preserve_fds": self._bind_preserved,
        }

    def run(self) -> None:
        """Carry out every host step but those of the cleanup.

        :raises StepError: the step that failed, with its number; what was made is the guard's to remove.
        """
        try:
            for number, step in enumerate(self.plan.steps, 1):
                if step.where is Where.HOST and step.phase is not Phase.CLEANUP:
                    self._carry_out(number, step)
        finally:
            for fd in self._join_fds:
                os.close(fd)
            self._join_fds.clear()

    def clean_up(self, *, unit: bool = True) -> bool:
        """Carry out the host steps of the cleanup, if there are any; the guard's come before, by itself.

        :param unit: also stop the systemd unit. systemd then waits until the unit's processes have ended.
        :raises StepError: something is left.
        """
        before = len(self.done)
        for number, step in enumerate(self.plan.steps, 1):
            if step.where is Where.HOST and step.phase is Phase.CLEANUP and (unit or step.op != "stop_unit"):
                self._carry_out(number, step)
        return len(self.done) > before

    def _carry_out(self, number: int, step: Step) -> None:
        if step.op not in self._ops:
            (self._add_unit_ops if step.op in UNIT_OPS else self._add_network_ops)()
        start = time.perf_counter()
        try:
            self._ops[step.op](step)
        except StepError as error:
            error.number = number
            if not (self._best_effort and step.realises):
                option = spelled(step.realises)
                if step.realises and not error.message.startswith(option):
                    error.message = f"{option}: {error.message}"
                raise
            if step.op != "read_back" or all(one.realises != step.realises for one in self.unmet):
                self.unmet.append(Unmet(realises=step.realises, reason=error.message, remedy=error.hint))
            return
        self.done.append(Done(number, time.perf_counter() - start))

    # -- the ops: the first argument of each is what `explain` prints first

    def _makedirs(self, step: Step) -> None:
        """Make the directory of the state files; it stays, like /run/lock. One that others may write to is refused."""
        path = str(step.args[0])
        try:
            if not os.path.lexists(path):
                os.makedirs(path, mode=0o700, exist_ok=True)
            status = os.lstat(path)
            if os.statvfs(path).f_flag & os.ST_RDONLY:
                raise OSError(EROFS, os.strerror(EROFS))
        except OSError as error:
            raise StepError(f"cannot keep anything in {path}", errno=error.errno or 0,
                            hint="the state of each run is kept there: mount a tmpfs at /run (in docker and podman, "
                                 "`run --tmpfs /run`), or set XDG_RUNTIME_DIR to a directory of your own") from error
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise StepError(f"{path} is not a directory of our own that nobody else may write to",
                            hint=f"see who made it: ls -ld {path}")

    def _spawn(self, step: Step) -> None:
        """Start sandbox-init with the steps of the guard, the init and the workload."""
        self.guard = Guard(self._child_steps(), self.stdio)

    def _child_steps(self) -> Callable[[], bytes]:
        """Their late values are put in now, for that may fail; the rest waits until there is somebody to read it."""
        late = self._late
        steps = [(number, late[step.op](step) if step.op in late else step)
                 for number, step in enumerate(self.plan.steps, 1) if step.where in CHILDREN]
        return partial(wire.encode, [(number, step) for number, step in steps if step is not None])

    def _add_unit_ops(self) -> None:
        """What goes through systemd; its modules are loaded for plans that need them."""
        from .unit import Unit

        def start_service(step: Step) -> None:
            self.guard = Guard(self._child_steps(), self.stdio, lambda fds: unit.start_service(step, fds))

        unit = Unit(self._process)
        self._ops |= {"property": unit.tell, "start_unit": unit.start, "start_service": start_service,
                      "split": unit.split, "attach": unit.attach, "stop_unit": unit.stop,
                      "read_property": unit.read}

    def _process(self, name: str) -> int:
        """The process id of the guard or the init."""
        assert self.guard is not None
        return self.guard.pid if name == "guard" else int(self._tell(name).words[0])

    def _tell(self, name: str) -> Record:
        """What sandbox-init tells of the init or of the namespaces."""
        assert self.guard is not None
        while name not in self._told:
            try:
                record = self.guard.receive()
            except EOFError:
                raise StepError(f"sandbox-init was killed before it had told of the {name}") from None
            if record is not None and record.kind in ("init", "namespaces"):
                self._told[record.kind] = record
            elif record is not None and record.kind == "failed":
                from .failures import step_failure

                raise step_failure(self.plan, record)
        return self._told[name]

    def counters(self) -> dict[str, tuple[int, str]]:
        """The counters of the network, which are in no file: figure -> its value and where it is from."""
        if self._link is None:
            return {}
        try:
            return self._link.counters()
        except StepError:
            return {}

    def _add_network_ops(self) -> None:
        """What makes a network; its modules are loaded for plans that need them."""
        from .isolation.link import Link

        self._link = Link(self._open_network)
        self._ops |= self._link.ops

    def _open_network(self) -> int:
        """The network namespace. Its holder may have ended by now, the init has it from its birth."""
        if any(step.op == "namespaces" for step in self.plan.steps):
            fd = self._tell("namespaces").fd
            assert fd is not None
            return fd
        return os.open(f"/proc/{self._process('init')}/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def _enable(self, step: Step) -> None:
        """Enable controllers for the children of a v2 cgroup, one by one, and never split a threaded one."""
        directory, *controllers = map(str, step.args)
        for controller in controllers:
            files.write(f"{directory}/cgroup.subtree_control", f"+{controller}")
        self._check_domain(directory)

    def _mkdir(self, step: Step) -> None:
        """Make a cgroup. One that exists is somebody else's: names are unique."""
        path = str(step.args[0])
        try:
            os.mkdir(path, 0o755)
        except OSError as error:
            self.foreign = error.errno == EEXIST
            raise files.failure("make", path, "", error) from error
        self.made.append(path)

    def _check_type(self, step: Step) -> None:
        """The new cgroup must be a domain: in a threaded one, limits on memory and I/O do nothing."""
        self._check_domain(str(step.args[0]))

    @staticmethod
    def _check_domain(directory: str) -> None:
        try:
            kind = files.read(f"{directory}/cgroup.type").strip()
        except CgroupError as error:
            if error.errno == ENOENT:
                return  # the real root has no type
            raise
        if kind != "domain":
            raise CgroupError(f"{directory} has cgroup.type '{kind}', not 'domain'",
                              hint=f"use a {spelled('cgroup_parent')} that is not threaded")

    def _inherit(self, step: Step) -> None:
        """Copy a cpuset file from the parent cgroup."""
        path = str(step.args[0])
        directory, file = os.path.split(path)
        files.write(path, files.read(f"{os.path.dirname(directory)}/{file}"))

    def _write(self, step: Step) -> None:
        """Write a limit."""
        path, value = map(str, step.args)
        files.write(path, value)

    def _read_back(self, step: Step) -> None:
        """Read what the kernel made of a limit; what differs from the wish refuses the run."""
        index, *paths = step.args
        texts = tuple(files.read(str(path)) for path in paths)
        limit = self.plan.limits[int(str(index))]
        check(limit, texts)
        check_protection(limit)

    def _device_filter(self, step: Step) -> None:
        """Say which devices may be opened, where no file does; its module is loaded for plans that need it."""
        from .isolation import device_filter

        cgroup, *rules = map(str, step.args)
        if step.op == "has_filter":
            device_filter.check(cgroup)
        else:
            device_filter.attach(cgroup, rules)

    def _streams(self, step: Step) -> None:
        """Give the workload its streams."""
        from .streams import give

        uid, gid = (int(str(arg)) for arg in step.args)
        give((*self.stdio, *self._preserved), uid, gid)

    def _open(self, step: Step) -> None:
        """Open ``tasks`` for the workload's ``join``."""
        self._hand_over(str(step.args[0]), os.O_WRONLY)

    def _open_directory(self, step: Step) -> None:
        """Open a v2 cgroup for the workload to be born in."""
        self._hand_over(str(step.args[0]), os.O_RDONLY | os.O_DIRECTORY)

    def _hand_over(self, path: str, flags: int) -> None:
        try:
            self._join_fds.append(os.open(path, flags | os.O_CLOEXEC))
        except OSError as error:
            raise files.failure("open", path, "", error) from error

    def _go(self, step: Step) -> None:
        """Everything holds: let the init start the workload."""
        assert self.guard is not None
        self.ancestors = Ancestors(self.plan.reads)  # while the init is still busy with its mounts
        self.guard.go((*self._join_fds, *self._preserved))

    # -- late values: of these steps the plan says what is wanted, and only who carries it out knows what that is

    def _bind_launcher(self, step: Step) -> Step:
        return step._replace(args=tuple(os.getpid() if arg == LAUNCHER else arg for arg in step.args))

    def _bind_streams(self, step: Step) -> Step:
        from .streams import given

        return step._replace(args=(*(arg for arg in step.args if arg != STREAMS), *given(self.stdio)))

    def _bind_preserved(self, step: Step) -> Step:
        from .streams import preserved

        first, last = map(int, map(str, step.args))
        self._preserved = tuple(preserved(first, last))
        return step._replace(args=self._preserved)

    def _bind_terminal(self, step: Step) -> Step:
        if TERMINAL not in step.args:
            return step
        from .streams import terminal

        path = terminal(self.stdio[0])
        return step._replace(args=tuple(path if arg == TERMINAL else arg for arg in step.args))

    def _bind_label(self, step: Step) -> Step | None:
        """None for a label that no security module here can set, in a run that goes on without it."""
        from .isolation import label

        problem = label.inactive(step)
        if problem is not None and self._best_effort:
            self.unmet.append(Unmet(realises=step.realises, remedy=problem.hint,
                                    reason=f"{label.wish(step)}: {label.reason(step, problem)}"))
            return None
        if problem is None and not self._best_effort:
            problem = label.toothless(step)
        if problem is not None:
            raise problem
        return step

    def _bind_filter(self, step: Step) -> Step:
        bound = seccomp.bind(step)
        self.filter = bound.args[0]
        return bound
