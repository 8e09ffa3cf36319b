"""The short forms: :func:`run`, :func:`run_async`, :func:`plan`, and the :class:`Launcher` for many launches."""

from __future__ import annotations

from .box import Sandbox, checked, compile_plan, look_further, prepare, probe_for, rates
from .drivers import ASKING, get
from .errors import SandboxError, SpecError
from .host import Host, here
from .isolation.filesystem import wanted_places
from .spec import Spec
from .stdlib import TYPE_CHECKING
from .steps import Plan

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from contextlib import ExitStack
    from types import TracebackType

    from .report import Report


def plan(spec: Spec, *, host: Host | None = None) -> Plan:
    """What a run of ``spec`` would do, without doing it.

    :param host: facts about the machine, e.g. another one's; this one is probed when None.
    :raises DriverUnavailable: the wanted driver cannot be used.
    """
    return compile_plan(checked(spec), host or probe_for(spec))[0]


def run_spec(spec: Spec, *, host: Host | None = None) -> Report:
    """Run ``spec`` to its end with the caller's standard streams.

    :raises Unsupported: a limit cannot be enforced here.
    :raises StepError: a step failed.
    """
    with Sandbox(spec, host=host) as box:
        box.start().wait()
    return box.report


def run(argv: Sequence[str | bytes | os.PathLike[str]], **wishes: object) -> Report:
    """Run a command under limits and wait for it.

    :param argv: the command.
    :param wishes: the flags of ``sandbox run`` with underscores, as text or as numbers: ``memory="512M", cpus=1.5``.
    :raises SpecError: a value is malformed.
    :raises Unsupported: a limit cannot be enforced here.
    :raises StepError: a step failed.
    """
    from .options import make_spec

    return run_spec(make_spec(argv, **wishes))


async def run_async(argv: Sequence[str | bytes | os.PathLike[str]], **wishes: object) -> Report:
    """:func:`run` for asyncio: the loop goes on meanwhile; cancelling it kills the sandbox and cleans up."""
    import asyncio

    from .options import make_spec

    loop = asyncio.get_running_loop()
    with Sandbox(make_spec(argv, **wishes)) as box:
        process = box.start()
        ended = asyncio.Event()

        def take() -> None:
            if process.poll() is not None:
                ended.set()
                loop.remove_reader(fd)

        fd = process.fileno()
        loop.add_reader(fd, take)
        try:
            take()
            await ended.wait()
        finally:
            loop.remove_reader(fd)
    return box.report


class Launcher:
    """What many launches share: the facts about the host and, with systemd, the connection to it and a delegated unit.

    A context manager; safe from any thread. With ``driver="systemd"`` the connection stays open, and systemd sends
    over it whatever it has to say: keep such a Launcher for as long as there is something to launch, not longer.

    :param host: facts to use; probed once when None.
    :param driver: what ``driver="auto"`` means in :meth:`run`; a delegated unit is made for ``auto`` and ``delegated``.
    :raises SpecError: on entry, when there is no such driver.
    :raises StepError: the unit cannot be made.
    """

    def __init__(self, host: Host | None = None, *, driver: str = "auto") -> None:
        if not isinstance(host, Host | None):
            raise SpecError(f"host: {host!r} is no Host", field="host", hint="use sandbox.host.probe()")
        self._host = host
        self._driver = driver
        self._shared: ExitStack | None = None

    def __enter__(self) -> Launcher:
        from contextlib import ExitStack

        spec = Spec(argv=("true",), driver=self._driver)
        if self._driver != "auto":
            get(self._driver)  # an error now if there is no such driver
        with ExitStack() as shared:
            host = self._host or probe_for(spec)
            if host.systemd_running and self._driver in ASKING and not host.manager.problem:
                from .systemd import borrow, delegation

                if self._driver == "systemd":
                    shared.enter_context(borrow(user=host.manager.user))
                elif not host.manager.delegated:
                    host = shared.enter_context(delegation(host, spec))
            self._host = host
            self._shared = shared.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self._host = None
        if self._shared is not None:
            self._shared.close()

    @property
    def host(self) -> Host:
        """The facts that it goes by; with a delegated unit, with the place that was given to it.

        :raises SandboxError: outside the ``with`` block.
        """
        if self._host is None:
            raise SandboxError("the launcher knows no host yet", hint="use it in a `with` block")
        return self._host

    def run(self, argv: Sequence[str | bytes | os.PathLike[str]], **wishes: object) -> Report:
        """As :func:`run`, without looking at the machine again."""
        from .options import make_spec

        spec = make_spec(argv, **{"driver": self._driver} | wishes)
        known = look_further(here(self.host, wanted_places(spec)), spec)
        if rates(spec) or spec.cgroup_parent or spec.property or spec.slice or spec.unit:
            known = probe_for(spec)
        with Sandbox(spec, host=known) as box:
            process = box.start()
            prepare(spec, known)
            process.wait()
        return box.report
