"""Capabilities: the table, the names people give, docker's rules, and the steps."""

from __future__ import annotations

import _prctl
import pytest

from sandbox.errors import SpecError
from sandbox.isolation import capabilities
from sandbox.isolation.capabilities import BITS, NAMES
from sandbox.spec import Spec
from sandbox.steps import Step, Where

NOROOT, NO_SETUID_FIXUP, KEEP_CAPS, NO_CAP_AMBIENT_RAISE = 1, 4, 16, 64


def spec(*, add: tuple[str, ...] = (), drop: tuple[str, ...] = ()) -> Spec:
    return Spec(argv=("work",), cap_add=add, cap_drop=drop)


def by_op(wish: Spec, uid: int = 0) -> dict[str, Step]:
    names = capabilities.held(wish, uid)
    return {step.op: step for step in (*capabilities.before(names), *capabilities.after(names))}


def test_the_table_is_the_kernels() -> None:
    theirs = {name: getattr(_prctl, name) for name in dir(_prctl) if name.startswith("CAP_") and name in BITS}
    assert len(theirs) >= 38
    assert {name: 1 << number for name, number in theirs.items()} == {name: BITS[name] for name in theirs}
    assert (len(NAMES), NAMES[40]) == (41, "CAP_CHECKPOINT_RESTORE")


@pytest.mark.parametrize("text", ["NET_RAW", "net_raw", "CAP_NET_RAW", "cap_net_raw"])
def test_every_spelling(text: str) -> None:
    assert capabilities.parse(text, "cap_add") == "CAP_NET_RAW"


def test_root_may_map_its_id_into_a_sandbox_inside() -> None:
    """With --nest, uid 0 has CAP_SETFCAP, and no other user has anything."""
    wish = Spec(argv=("work",), nest=True)
    assert by_op(wish)["capset"].args == (BITS["CAP_SETFCAP"],) * 3
    assert by_op(wish)["capset"].realises == "nest"
    assert by_op(wish, uid=7) == by_op(Spec(argv=("work",)), uid=7)


def test_all_is_a_name_too() -> None:
    assert capabilities.parse("all", "cap_drop") == "ALL"


@pytest.mark.parametrize(("text", "hint"), [("NET_ROW", "NET_RAW"), ("CAP_SYS_ADMN", "CAP_SYS_ADMIN"), ("", "capab")])
def test_an_unknown_name_is_refused_with_a_suggestion(text: str, hint: str) -> None:
    with pytest.raises(SpecError, match="cap_add: there is no capability") as caught:
        capabilities.parse(text, "cap_add")
    assert hint in caught.value.hint
    assert caught.value.field == "cap_add"


@pytest.mark.parametrize(("add", "drop", "names"), [
    ((), (), ()),
    ((), ("ALL",), ()),
    (("CAP_KILL", "CAP_CHOWN"), (), ("CAP_CHOWN", "CAP_KILL")),
    (("CAP_KILL", "CAP_CHOWN"), ("CAP_KILL",), ("CAP_CHOWN",)),
    (("ALL",), (), NAMES),
    (("ALL",), ("CAP_SYS_ADMIN",), tuple(name for name in NAMES if name != "CAP_SYS_ADMIN")),
    (("ALL", "CAP_KILL"), ("ALL",), ("CAP_KILL",)),
])
def test_what_is_wanted(add: tuple[str, ...], drop: tuple[str, ...], names: tuple[str, ...]) -> None:
    assert capabilities.wanted(spec(add=add, drop=drop)) == names


def test_none_by_default_and_locked() -> None:
    steps = by_op(spec())
    assert list(steps) == ["securebits", "bounding", "capset", "ambient"]
    assert steps["capset"].args == (0, 0, 0)
    assert steps["bounding"].args == steps["ambient"].args == (0,)
    bits = steps["securebits"].args[0]
    assert isinstance(bits, int)
    for one in (NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE):
        assert bits & one and bits & one << 1
    assert not bits & (KEEP_CAPS | KEEP_CAPS << 1), "programs that drop privileges set it"
    assert {step.where for step in steps.values()} == {Where.WORKLOAD}


def test_what_was_added_survives_the_change_of_ids_and_the_execve() -> None:
    steps = by_op(spec(add=("CAP_NET_RAW", "CAP_SETUID")))
    mask = 1 << 13 | 1 << 7
    assert steps["capset"].args == (mask, mask, mask)
    assert steps["bounding"].args == steps["ambient"].args == (mask,)
    bits = steps["securebits"].args[0]
    assert isinstance(bits, int)
    assert bits & KEEP_CAPS and not bits & (KEEP_CAPS << 1 | NO_CAP_AMBIENT_RAISE)
    # Whoever gives its uid up for another gives up its capabilities with it.
    assert not bits & NO_SETUID_FIXUP
    assert {step.realises for step in steps.values()} == {"cap_add"}
