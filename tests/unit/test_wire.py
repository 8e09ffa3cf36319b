"""The plan on the wire: what wire.py writes, wire.c reads back, and nothing else."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox.errors import SpecError
from sandbox.init import build, wire
from sandbox.steps import Arg, Phase, Step, Where

Dump = Callable[[bytes], list[str]]

LETTERS = {"g": Where.GUARD, "i": Where.INIT, "w": Where.WORKLOAD}

numbers = st.integers(-(1 << 63), (1 << 63) - 1)
# Whatever a file name or an argument may be: any bytes but NUL.
texts = st.binary(max_size=60).map(lambda data: data.replace(b"\0", b"").decode("utf-8", "surrogateescape"))
values: dict[str, st.SearchStrategy[Arg]] = {"i": numbers, "s": texts, "l": st.lists(texts, max_size=5).map(tuple),
                                             "b": st.binary(max_size=60)}


@st.composite
def steps(draw: st.DrawFn) -> tuple[int, Step]:
    op, (where, signature) = draw(st.sampled_from(sorted(wire.OPS.items())))
    types = "i" * draw(st.integers(0, 20)) if signature == "i*" else signature
    args = tuple(draw(values[one]) for one in types)
    return draw(st.integers(1, 0xFFFF)), Step(op=op, args=args, phase=Phase.EXEC, where=where)


def step(op: str, *args: Arg) -> Step:
    return Step(op=op, args=args, phase=Phase.EXEC, where=wire.OPS[op][0])


@pytest.fixture(scope="session")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dump]:
    """wire.c, under sanitizers, as a function: a plan's bytes to the lines that it makes of them."""
    program = tmp_path_factory.mktemp("wire") / "dump"
    build.compile_to(program, ("dump", *build.PARTS), build.SANITIZED)
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None

        def ask(data: bytes) -> list[str]:
            stdin.write(struct.pack("<I", len(data)) + data)
            stdin.flush()
            lines: list[str] = []
            while not lines or not (lines[-1] == "end" or lines[-1].startswith("error")):
                line = stdout.readline()
                assert line, "the parser has crashed"
                lines.append(line.decode().rstrip("\n"))
            return lines

        yield ask
        stdin.close()
    assert process.returncode == 0


def expected(plan: list[tuple[int, Step]]) -> Iterator[str]:
    for number, one in plan:
        yield f"{one.where[0]} {number} {one.op}"
        for arg in one.args:
            if isinstance(arg, int):
                yield f"i {arg}"
            elif isinstance(arg, bytes):
                yield f"b x{arg.hex()}"
            else:
                listed = (arg,) if isinstance(arg, str) else arg
                letter = "s" if isinstance(arg, str) else "l"
                yield " ".join([letter, *(f"x{text.encode('utf-8', 'surrogateescape').hex()}" for text in listed)])
    yield "end"


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(plan=st.lists(steps(), max_size=12))
def test_c_reads_back_what_python_writes(dump: Dump, plan: list[tuple[int, Step]]) -> None:
    assert dump(wire.encode(plan)) == list(expected(plan))


def test_long_texts_and_lists_arrive_whole(dump: Dump) -> None:
    plan = [(1, step("execve", ("/" + "x" * 5000,), tuple(str(i) for i in range(20000)), ("A=" + "y" * 130000,)))]
    assert dump(wire.encode(plan)) == list(expected(plan))


def test_many_small_things_fit_into_the_room(dump: Dump) -> None:
    """The worst that the format has: empty lists, and steps without arguments."""
    plan = [*((i, step("execve", (), (), ())) for i in range(1, 1000)), *((i, step("setsid")) for i in range(1, 1000))]
    assert dump(wire.encode(plan)) == list(expected(plan))


def test_bytes_are_any_bytes(dump: Dump) -> None:
    """No end is read from them, no NUL is refused, and many of them fit into the room too."""
    plan = [(i, step("seccomp", b"\0" * (i % 3), 0)) for i in range(1, 1000)]
    assert dump(wire.encode(plan)) == list(expected(plan))


def test_ops_are_the_same_on_both_sides(tmp_path: Path) -> None:
    build.build(tmp_path / "sandbox-init")
    printed = subprocess.run([tmp_path / "sandbox-init", "--ops"], capture_output=True, text=True, check=True).stdout
    table = {}
    for line in printed.splitlines():
        where, name, signature = line.split(" ")
        table[name] = (LETTERS[where], signature)
    assert table == wire.OPS


def text(value: bytes) -> bytes:
    return struct.pack("<I", len(value)) + value + b"\0"


def wrap(body: bytes, count: int = 1, extra: int = 0) -> bytes:
    return b"SBX1" + struct.pack("<II", len(body) + 12 + extra, count) + body


CHDIR = b"w\x01\x01\x00" + text(b"chdir") + b"s" + text(b"/tmp")


def test_the_example_that_the_bad_ones_are_made_of_is_good(dump: Dump) -> None:
    assert dump(wrap(CHDIR)) == ["w 1 chdir", "s x2f746d70", "end"]


@pytest.mark.parametrize("data", [
    pytest.param(b"", id="empty"),
    pytest.param(b"SBX1", id="no header"),
    pytest.param(b"SBX2" + wrap(CHDIR)[4:], id="magic"),
    pytest.param(wrap(CHDIR, extra=1), id="length too large"),
    pytest.param(wrap(CHDIR, extra=-1), id="length too small"),
    pytest.param(wrap(CHDIR) + b"\0", id="bytes behind the end"),
    pytest.param(wrap(CHDIR + b"\0"), id="bytes behind the last step"),
    pytest.param(wrap(CHDIR, count=2), id="fewer steps than announced"),
    pytest.param(wrap(CHDIR, count=0), id="more steps than announced"),
    pytest.param(wrap(CHDIR, count=0xFFFFFFFF), id="four billion steps"),
    pytest.param(wrap(CHDIR[:-1]), id="no NUL at the end"),
    pytest.param(wrap(CHDIR.replace(b"/tmp\0", b"/tmp!")), id="something else than NUL at the end"),
    pytest.param(wrap(CHDIR.replace(b"/tmp", b"/t\0p")), id="NUL inside"),
    pytest.param(wrap(CHDIR.replace(b"chdir", b"chdiR")), id="unknown op"),
    pytest.param(wrap(b"g" + CHDIR[1:]), id="an op of somebody else"),
    pytest.param(wrap(b"h" + CHDIR[1:]), id="nobody's op"),
    pytest.param(wrap(CHDIR.replace(b"s\x04", b"l\x04")), id="a list for a text"),
    pytest.param(wrap(CHDIR.replace(b"s\x04", b"x\x04")), id="no type at all"),
    pytest.param(wrap(CHDIR.replace(b"w\x01", b"w\x02") + b"s" + text(b"")), id="an argument too many"),
    pytest.param(wrap(CHDIR.replace(b"w\x01", b"w\x00")), id="an argument too few"),
    pytest.param(wrap(CHDIR.replace(b"\x04\0\0\0/tmp", b"\xff\xff\xff\xff/tmp")), id="a text of four billion bytes"),
    pytest.param(wrap(b"w\x03\x01\x00" + text(b"execve") + b"l\xff\xff\xff\xff" * 3), id="lists of four billion texts"),
    pytest.param(wrap(b"w\x02\x01\x00" + text(b"seccomp") + b"b\x09\0\0\0" + bytes(8)), id="more bytes than there are"),
    pytest.param(wrap(b"w\x02\x01\x00" + text(b"seccomp") + b"b\xff\xff\xff\xff"), id="four billion bytes"),
    pytest.param(wrap(b"w\x01\x01\x00" + text(b"join") + b"i\0\0\0"), id="half a number"),
])
def test_anything_else_is_refused(dump: Dump, data: bytes) -> None:
    assert dump(data) == ["error 22"]


@pytest.mark.parametrize("plan", [
    pytest.param(Step(op="nonsense", phase=Phase.EXEC, where=Where.GUARD), id="unknown op"),
    pytest.param(Step(op="setsid", phase=Phase.EXEC, where=Where.GUARD), id="wrong place"),
    pytest.param(step("chdir", 1), id="wrong type"),
    pytest.param(step("chdir"), id="too few"),
    pytest.param(step("setgroups", *range(256)), id="too many for the wire"),
])
def test_python_does_not_write_what_c_would_refuse(plan: Step) -> None:
    with pytest.raises(TypeError, match=plan.op):
        wire.encode([(1, plan)])


@pytest.mark.parametrize("plan", [
    step("chdir", "/a\0b"), step("execve", ("/bin/true",), ("a\0",), ()), step("deadline", 1 << 63),
])
def test_what_the_wire_cannot_carry_is_the_users_error(plan: Step) -> None:
    with pytest.raises(SpecError):
        wire.encode([(1, plan)])


def test_mutated_plans_do_not_crash_the_parser(tmp_path: Path) -> None:
    samples: dict[str, Arg] = {"i": 7, "*": 7, "s": "/some/text", "l": ("a", "bc", ""), "b": bytes(range(16))}
    every = [step(op, *(samples[one] for one in signature))
             for op, (_, signature) in sorted(wire.OPS.items())]
    seeds = [every, [step("execve", ("/bin/true",), ("true",), ("PATH=/bin",))],
             [step("setsid")] * 3, [step("execve", (), (), ())] * 3, []]
    for index, seed in enumerate(seeds):
        (tmp_path / f"seed{index}").write_bytes(wire.encode(list(enumerate(seed, 1))))
    build.compile_to(tmp_path / "fuzz", ("fuzz", *build.PARTS), build.SANITIZED)
    subprocess.run([tmp_path / "fuzz", "20000", *sorted(tmp_path.glob("seed*"))], check=True)
