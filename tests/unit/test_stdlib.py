"""The light parts do what the standard library's do, as far as this package uses them."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import enum
import functools
import inspect
import pickle
import signal
import typing

import pytest

from sandbox import stdlib
from sandbox.report import Outcome, Report
from sandbox.spec import Limits, Spec
from sandbox.steps import Step

LIGHT: typing.Any = stdlib
"""Type checkers see the originals."""


def kinds(source: typing.Any) -> dict[str, typing.Any]:
    """The same classes made by ``source``: the light module, or one with the originals."""
    class Pair(source.NamedTuple):  # type: ignore[misc]
        """Two."""

        left: int
        right: str = "r"

        def both(self) -> str:
            return f"{self.left}{self.right}"

    class Many(source.NamedTuple):  # type: ignore[misc]
        a: int
        b: int
        c: int
        d: int
        e: int
        f: int
        g: int
        h: int
        i: int
        j: int = 10
        k: int = 11

    @source.dataclass(frozen=True, slots=True, kw_only=True)
    class Frozen:
        name: str
        items: tuple[int, ...] = ()
        hidden: int = source.field(default=3, repr=False)
        made: list[int] = source.field(default_factory=list)

        def __post_init__(self) -> None:
            if not self.name:
                raise ValueError("no name")

    @source.dataclass(slots=True)
    class Open:
        first: int
        second: int = 2

    class Word(source.StrEnum):  # type: ignore[misc]
        ONE = "one"
        """Documented."""
        TWO = "two"

    return {"Pair": Pair, "Many": Many, "Frozen": Frozen, "Open": Open, "Word": Word}


class Originals:
    NamedTuple = typing.NamedTuple
    dataclass = staticmethod(dataclasses.dataclass)
    field = staticmethod(dataclasses.field)
    StrEnum = enum.StrEnum


OURS, THEIRS = kinds(LIGHT), kinds(Originals)

EXPRESSIONS = (
    "Pair(1)", "Pair(1, 'x')", "Pair(right='x', left=2)", "Pair(1)._replace(left=5)", "Pair(1)._asdict()",
    "Pair._fields", "Pair._make([1, 2])", "Pair._field_defaults", "Pair(1) == (1, 'r')",
    "hash(Pair(1)) == hash((1, 'r'))", "Pair(1).both()", "Pair(1)[0]", "tuple(Pair(1))",
    "[a + b for a, b in [Pair('1')]]", "Pair.__doc__", "len(Many(*range(9)))", "Many(*range(9))",
    "Many(1, 2, 3, i=4, h=5, g=6, f=7, e=8, d=9)", "Many(*range(11))._replace(k=0)",
    "[*inspect.signature(Many).parameters]", "Many.__mro__[1:]", "Pair.__match_args__",
    "isinstance(Pair(1), tuple)", "Frozen(name='x').items",
    "Frozen(name='x', items=(1,)) == Frozen(name='x', items=(1,))", "Frozen(name='x') == Frozen(name='y')",
    "Frozen(name='x') == 3", "Frozen(name='x').made is Frozen(name='x').made",
    "repr(Frozen(name='x')).rpartition('.')[2]", "hash(Open(1))", "Open(1).second", "Open(1, second=5).second",
    "Open(1) == Open(1, 2)", "[one.name for one in dataclasses.fields(Frozen)]",
    "dataclasses.fields(Frozen(name='x'))[2].repr", "dataclasses.replace(Frozen(name='x'), items=(7,)).items",
    "sorted(dataclasses.asdict(Frozen(name='x')))", "copy.copy(Frozen(name='x', items=(2,))).items",
    "copy.deepcopy(Frozen(name='x', items=(2,))).items", "Word('one') is Word.ONE", "[str(one) for one in Word]",
    "Word.ONE == 'one'", "Word.TWO.name", "Word.TWO.value", "repr(Word.ONE)", "f'{Word.ONE}'",
    "Word['TWO'] is Word.TWO", "len(Word)", "sorted({Word.ONE, 'one', Word.TWO})",
    "copy.copy(Word.ONE) is Word.ONE", "list(Word.__members__)",
)
ERRORS = (
    "Pair()", "Pair(1, 2, 3)", "Pair(1, left=2)", "Pair(1, other=2)", "Pair(1)._replace(other=2)",
    "Pair._make([1])", "Many(1)", "Many(*range(12))", "Many(*range(9), a=1)", "Many(*range(9), z=1)", "Frozen()",
    "Frozen('x')", "Frozen(name='x', other=1)", "Frozen(name='')", "setattr(Frozen(name='x'), 'name', 'y')",
    "delattr(Frozen(name='x'), 'name')", "Open()", "Open(1, 2, 3)", "Open(1, first=1)", "Word('three')",
    "Word['ONCE']", "setattr(Pair(1), 'left', 3)", "setattr(Pair(1), 'other', 3)", "setattr(Open(1), 'x', 3)",
)


def result(expression: str, names: dict[str, typing.Any]) -> object:
    tools = {"copy": copy, "dataclasses": dataclasses, "inspect": inspect}
    try:
        return eval(expression, tools | names)
    except Exception as error:
        return type(error)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_does_what_the_original_does(expression: str) -> None:
    ours, theirs = result(expression, OURS), result(expression, THEIRS)
    assert ours == theirs
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("expression", ERRORS)
def test_fails_as_the_original_does(expression: str) -> None:
    ours = result(expression, OURS)
    assert isinstance(ours, type) and issubclass(ours, Exception)
    assert ours is result(expression, THEIRS)


def test_records_survive_pickle() -> None:
    spec = Spec(argv=("true",), limits=Limits(memory=1 << 20))
    step = Step("mkdir", "PREPARE", ("/x",))  # type: ignore[arg-type]
    report = Report(outcome=Outcome.OOM, spec=spec)
    for record in (spec, step, report, Outcome.OOM):
        assert pickle.loads(pickle.dumps(record)) == record
    assert pickle.loads(pickle.dumps(Outcome.OOM)) is Outcome.OOM


def test_public_records_are_dataclasses() -> None:
    spec = dataclasses.replace(Spec(argv=("true",)), name="x")
    assert (spec.name, spec.argv) == ("x", ("true",))
    assert [one.name for one in dataclasses.fields(Limits)] == list(stdlib.field_names(Limits))
    assert "memory" in inspect.signature(Limits).parameters


def test_contextmanager_and_suppress() -> None:
    log = []

    @LIGHT.contextmanager
    def block(answer: str) -> typing.Any:
        """Cleans up."""
        try:
            yield answer
        except KeyError:
            log.append("key")
        finally:
            log.append("end")

    with block("x") as value, contextlib.suppress(ZeroDivisionError):
        assert value == "x"
    with block("y"):
        raise KeyError
    error = ValueError("z")
    with pytest.raises(ValueError, match="z") as caught, block("z"):
        raise error
    assert caught.value is error
    assert log == ["end", "key", "end", "end"]
    with LIGHT.suppress(OSError, KeyError):
        raise FileNotFoundError
    with pytest.raises(TypeError), LIGHT.suppress(OSError):
        raise TypeError


def test_caches_keep_and_forget() -> None:
    calls: list[int] = []

    @LIGHT.lru_cache(maxsize=2)
    def double(number: int) -> int:
        calls.append(number)
        return number * 2

    assert [double(one) for one in (1, 1, 2, 3, 3, 1)] == [2, 2, 4, 6, 6, 2]
    assert calls == [1, 2, 3, 1]
    double.cache_clear()
    assert double(3) == 6
    assert calls[-1] == 3
    assert LIGHT.cache(double.__wrapped__)(4) == 8
    assert LIGHT.partial is functools.partial


def test_signals_have_their_names() -> None:
    assert {int(one): one.name for one in signal.Signals} == stdlib.SIGNALS
    assert stdlib.signal_name(9) == "SIGKILL"
    assert stdlib.signal_name(99) == "signal 99"
