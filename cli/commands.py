"""The commands that need no typer: what they do once their words are read, by :mod:`.quick` or by typer."""

from __future__ import annotations

import os

from sandbox.errors import SandboxError, SpecError
from sandbox.spelling import as_flag, speaking
from sandbox.stdlib import TYPE_CHECKING, Any

from .messages import complain, emit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sandbox.spec import Spec

PARENT = os.getppid()
"""Process id of our parent, taken at once: ``--die-with-parent`` must notice a parent that dies while we load."""
LAB_USAGE = "sandbox lab run -- COMMAND"


def run(argv: list[str], wishes: Mapping[str, Any], *, profile: str | None = None, json: str | None = None,
        verbose: bool = False, die_with_parent: bool = True) -> int:
    """``sandbox run``: the exit code of the command, or what stands for it.

    :param argv: the command.
    :param wishes: flags of :data:`sandbox.options.TABLE` by name, as text; absent or None when not given.
    :param json: the file for the report; ``-`` is stdout.
    :raises SandboxError: the command was not run.
    """
    spec = _spec(argv, wishes, profile)
    from .foreground import run as run_in_foreground

    return run_in_foreground(spec, json=json, verbose=verbose, parent=PARENT if die_with_parent else None)


def explain(argv: list[str], wishes: Mapping[str, Any], *, profile: str | None = None, json: bool = False,
            host: str | None = None, format: str = "text", export: str | None = None, show_env: bool = False) -> int:
    """``sandbox explain``: print the plan; see :func:`.explain.explain`.

    :raises SandboxError: there is no plan for it.
    """
    spec = _spec(argv, wishes, profile)
    from .explain import explain as print_plan

    print_plan(spec, host_file=host, format="json" if json else format, export=export, show_env=show_env)
    return 0


def info(*, json: bool = False) -> int:
    """``sandbox info``: print what this machine offers."""
    from sandbox import config
    from sandbox.drivers import choose
    from sandbox.host import probe, to_json
    from sandbox.spec import Spec
    from sandbox.systemd import with_manager

    spec = Spec(argv=("true",), driver=str(config.defaults(os.environ).get("driver", "auto")))
    host = with_manager(probe(detail=True), spec)
    if json:
        emit(to_json(host))
        return 0
    from sandbox.teach.info import text

    driver, reason = choose(spec, host)
    emit(text(host, driver.name, reason))
    return 0


def lab_run(argv: list[str], *, engine: str = "", image: str = "", name: str = "", tty: bool = False) -> int:
    """``sandbox lab run``: the exit code of the command in the lab.

    :raises SandboxError: there is no lab to run it in.
    """
    if not argv:
        raise SpecError("there is no command to run", hint=LAB_USAGE)
    from .lab_session import run as run_in_lab

    return run_in_lab(argv, engine=engine, image=image, name=name, tty=tty)


def _spec(argv: list[str], wishes: Mapping[str, Any], profile: str | None) -> Spec:
    from sandbox.options import make_spec

    if not argv or not argv[0]:
        raise SpecError("no command given", hint="sandbox run [flags] -- COMMAND [ARG...]")
    return make_spec(argv, **with_defaults(wishes, profile))


def with_defaults(wishes: Mapping[str, Any], profile: str | None = None) -> dict[str, Any]:
    """The wishes of the config files and the environment, and over them those of the command line.

    :param wishes: values of the flags by name.
    :param profile: name given to ``--profile``.
    :raises SpecError: as :func:`sandbox.config.defaults`.
    """
    from sandbox import config

    merged = config.defaults(os.environ, profile)
    # A flag that was not given is None, or an empty list if it can be repeated.
    config.overlay(merged, {name: value for name, value in wishes.items() if value not in (None, [])})
    return merged


def exit_code(work: Callable[[], object]) -> int:
    """What ``work`` returns, or the exit code for its error, which is printed. Errors of ours have no traceback."""
    try:
        with speaking(as_flag):
            code = work()
        return code if isinstance(code, int) else 0
    except SandboxError as error:
        complain(error.message, error.hint, one_line=isinstance(error, SpecError))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        complain(str(error))
        return 125
