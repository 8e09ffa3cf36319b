"""Ids that are lent to a user: how they are found, how they are laid out, and what is said when there are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.box import compile_plan
from sandbox.errors import Unsupported
from sandbox.facts import Lent
from sandbox.host import Host, from_json, to_json
from sandbox.isolation import lent
from sandbox.options import make_spec
from sandbox.records import User
from sandbox.steps import Step

LENT = Lent("user", ((100_000, 65_536),), ((200_000, 65_536),), "/usr/bin/newuidmap", "/usr/bin/newgidmap")
USER = Host(kernel="6.12.0", uid=1000, gid=1000, userns=True, directory="/srv", mounts=(("/", "ext4"),), lent=LENT,
            namespaces=("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"))


def steps(host: Host, **wishes: Any) -> dict[str, Step]:
    made = compile_plan(replace(make_spec(("true",), **wishes), driver="none"), host, name="x")[0].steps
    return {step.op: step for step in made}


def lines(step: Step) -> list[str]:
    return [" ".join(argv) for argv in step.args if isinstance(argv, tuple)]


def test_the_launcher_is_itself_inside_and_what_is_lent_lies_around_it() -> None:
    found = steps(USER, user="65534:65534")
    assert lines(found["new_id_map"]) == [
        "/usr/bin/newuidmap {init} 0 100000 1000 1000 1000 1 1001 101000 64536",
        "/usr/bin/newgidmap {init} 0 200000 1000 1000 1000 1 1001 201000 64536"]
    assert found["setresuid"].args == found["setresgid"].args == found["setgroups"].args == (65534,)
    assert found["give_streams"].args[:2] == (65534, 65534)
    assert "id_map" not in found and "streams" not in found


def test_root_inside_is_the_launcher() -> None:
    found = steps(USER, user="0:5")
    assert lines(found["new_id_map"]) == ["/usr/bin/newuidmap {init} 0 1000 1 1 100000 65536",
                                          "/usr/bin/newgidmap {init} 0 1000 1 1 200000 65536"]
    assert (found["setresuid"].args, found["setresgid"].args) == ((0,), (5,))


@pytest.mark.parametrize("wishes", [{}, {"user": "1000:1000"}])
def test_who_stays_who_he_is_needs_one_id_only(wishes: dict[str, str]) -> None:
    found = steps(USER._replace(lent=Lent()), **wishes)
    assert found["id_map"].args == ("deny", "1000 1000 1", "1000 1000 1")
    assert not {"new_id_map", "give_streams", "setresuid"} & found.keys()


@pytest.mark.parametrize(("without", "reason", "remedy"), [
    ({"newuidmap": ""}, "newuidmap", "apt-get install uidmap"),
    ({"uids": ()}, "/etc/subuid", "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 user"),
    ({"gids": ((1, 3),)}, "/etc/subgid", "usermod --add-subuids"),
    ({"uids": (), "newgidmap": ""}, "newgidmap; nothing", "apt-get install uidmap && usermod")])
def test_what_is_missing_is_said_with_the_remedy(without: dict[str, Any], reason: str, remedy: str) -> None:
    with pytest.raises(Unsupported) as caught:
        steps(USER._replace(lent=LENT._replace(**without)), user="65534:65534")
    assert reason in caught.value.message
    assert remedy in caught.value.hint


RANGES = st.lists(st.integers(1, 50), min_size=1, max_size=4).map(
    lambda counts: tuple((1000 * (place + 1), count) for place, count in enumerate(counts)))


@given(ranges=RANGES, inside=st.integers(0, 300), used=st.lists(st.integers(0, 400), max_size=4),
       extra=st.integers(0, 9))
def test_every_layout_is_a_map(ranges: tuple[tuple[int, int], ...], inside: int, used: list[int], extra: int) -> None:
    """No id twice on either side, everything that is needed in it, and nothing that is not lent but ourselves."""
    ranges = (*ranges, (9000, 4 + extra))
    lines = lent.layout(ranges, (inside, 77), used)
    pairs = [(first + place, outer + place) for first, outer, count in lines for place in range(count)]
    inner, outer = [one for one, _ in pairs], [one for _, one in pairs]
    assert len(set(inner)) == len(inner) and len(set(outer)) == len(outer)
    assert (inside, 77) in pairs
    assert {*used, 0} - {inside} <= set(inner)
    assert set(outer) - {77} <= {first + place for first, count in ranges for place in range(count)}


def test_the_ranges_of_a_user_are_found(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "usr" / "bin").mkdir(parents=True)
    (tmp_path / "etc" / "subuid").write_text("other:1:2\n54321:100000:10\n# 54321\n54321:x:3\n54321:7:0\n54321:5:6\n")
    (tmp_path / "etc" / "subgid").write_text("54321:300000:10")
    for name, mode in (("newuidmap", 0o4755), ("newgidmap", 0o755)):
        (tmp_path / "usr" / "bin" / name).touch()
        (tmp_path / "usr" / "bin" / name).chmod(mode)
    found = lent.probe(54321, str(tmp_path))
    assert found == Lent("54321", ((100000, 10), (5, 6)), ((300000, 10),), "/usr/bin/newuidmap", "")
    assert lent.probe(54321, str(tmp_path / "none")) == Lent("54321")


def test_a_saved_host_keeps_them() -> None:
    assert from_json(to_json(USER)) == USER


def test_a_number_is_no_name() -> None:
    with pytest.raises(Unsupported, match="#1000"):
        lent.commands(User(uid=5, gid=5), USER._replace(lent=Lent()))
