"""Our messages are those of jeepney, byte for byte, and are read back as it reads them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jeepney import DBusAddress, Message, MessageFlag, new_error, new_method_call, new_method_return

from sandbox import dbus

INTEGERS = {"y": (0, 2**8), "n": (-2**15, 2**15), "q": (0, 2**16), "i": (-2**31, 2**31), "u": (0, 2**32),
            "x": (-2**63, 2**63), "t": (0, 2**64)}
TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)
LEAVES: dict[str, Any] = {
    **{code: st.integers(low, high - 1) for code, (low, high) in INTEGERS.items()},
    "b": st.booleans(), "d": st.floats(allow_nan=False), "s": TEXT, "o": st.sampled_from(["/", "/a/b_c1"]),
    "g": st.sampled_from(["", "a(sv)", "u"]), "ay": st.binary(max_size=9)}


@st.composite
def values(draw: st.DrawFn, depth: int = 3) -> tuple[str, Any]:
    """A complete type and a value of it."""
    kind = draw(st.sampled_from(["leaf", "array", "struct", "variant", "pairs"] if depth else ["leaf"]))
    if kind == "variant":
        return "v", draw(values(depth=depth - 1))
    if kind == "struct":
        members = draw(st.lists(values(depth=depth - 1), min_size=1, max_size=3))
        return f"({''.join(one for one, _ in members)})", tuple(value for _, value in members)
    if kind in ("array", "pairs"):
        signature, value = draw(values(depth=depth - 1))
        count = draw(st.integers(0, 3))
        if kind == "pairs":
            return f"a{{s{signature}}}", {str(number): value for number in range(count)}
        return ("ay", b"x" * count) if signature == "y" else (f"a{signature}", [value] * count)
    code = draw(st.sampled_from(sorted(LEAVES)))
    return code, draw(LEAVES[code])


BODIES = st.lists(values(), max_size=4)


def called(message: Message, serial: int) -> bytes:
    return bytes(message.serialise(serial))


@given(BODIES, st.integers(1, 2**32 - 1))
def test_calls_are_written_as_jeepney_writes_them(body: list[tuple[str, Any]], serial: int) -> None:
    signature, content = "".join(kind for kind, _ in body), tuple(value for _, value in body)
    message = new_method_call(DBusAddress("/org/x", "org.x", "org.x.I"), "Do", signature or None, content)
    message.header.flags = MessageFlag(dbus.NO_AUTO_START)
    ours, fds = dbus.call(serial, "org.x", "/org/x", "org.x.I", "Do", signature, content, flags=dbus.NO_AUTO_START)
    assert fds == []
    assert ours == called(message, serial)
    assert dbus.size(ours) == dbus.size(ours + b"more") == len(ours)


@given(BODIES)
def test_answers_are_read_as_jeepney_reads_them(body: list[tuple[str, Any]]) -> None:
    asked = new_method_call(DBusAddress("/org/x", "org.x", "org.x.I"), "Do")
    asked.header.serial = 7
    signature, content = "".join(kind for kind, _ in body), tuple(value for _, value in body)
    raw = called(new_method_return(asked, signature or None, content), 1)
    found = dbus.answer(raw)
    assert (found.kind, found.serial, found.error) == (dbus.METHOD_RETURN, 7, "")
    assert found.body == Message.from_buffer(raw).body == content


def test_errors_have_their_name() -> None:
    asked = new_method_call(DBusAddress("/org/x", "org.x", "org.x.I"), "Do")
    asked.header.serial = 9
    found = dbus.answer(called(new_error(asked, "org.x.Bad", "s", ("no",)), 1))
    assert (found.serial, found.error, found.body) == (9, "org.x.Bad", ("no",))


def test_fds_are_numbered() -> None:
    from array import array

    message = new_method_call(DBusAddress("/o", "n.n", "i.i"), "M", "a(sv)", ([("PIDFDs", ("ah", [5, 6]))],))
    passed = array("i")
    message.header.flags = MessageFlag(0)
    theirs = bytes(message.serialise(1, passed))
    assert dbus.call(1, "n.n", "/o", "i.i", "M", "a(sv)", ([("PIDFDs", ("ah", [5, 6]))],)) == (theirs, list(passed))


@pytest.mark.parametrize("length", [0, 15])
def test_a_part_of_a_header_has_no_size(length: int) -> None:
    data, _ = dbus.call(1, "n.n", "/o", "i.i", "M")
    assert dbus.size(data[:length]) == 0


@pytest.mark.parametrize(("signature", "parts"), [
    ("", []), ("sa(st)b", ["s", "a(st)", "b"]), ("aau(v)", ["aau", "(v)"])])
def test_split(signature: str, parts: list[str]) -> None:
    assert dbus.split(signature) == parts
