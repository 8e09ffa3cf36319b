"""Defaults from files, and which layer wins."""

from __future__ import annotations

import pytest

from sandbox.config import defaults, overlay, user_file
from sandbox.errors import SpecError
from sandbox.options import make_spec


@pytest.fixture
def layers(tmp_path):
    """Writes both files; returns what comes out of them."""
    system, home = tmp_path / "system.toml", tmp_path / "home"
    environ = {"HOME": str(home)}

    def merge(system_text="", user_text="", profile=None, **variables):
        system.write_text(system_text)
        own = home / ".config" / "sandbox" / "config.toml"
        own.parent.mkdir(parents=True, exist_ok=True)
        own.write_text(user_text)
        return defaults(environ | variables, profile, system_file=str(system))

    return merge


def test_no_files_are_no_defaults(tmp_path):
    assert defaults({"HOME": str(tmp_path)}, system_file=str(tmp_path / "none")) == {}


def test_later_layers_win(layers):
    system = 'driver = "cgroupfs"\n[limits]\nmemory = "1G"\npids-limit = 5\nulimit = ["nofile=1", "core=0"]'
    user = 'driver = "none"\n[limits]\nmemory = "2G"\nulimit = ["nofile=2"]'
    assert layers(system, user) == {"driver": "none", "memory": "2G", "pids_limit": 5, "ulimit": ["nofile=2"]}
    assert layers(system, user, SANDBOX_DRIVER="auto")["driver"] == "auto"
    with pytest.raises(SpecError, match=r"SANDBOX_DRIVER: there is no driver 'bogus'"):
        layers(system, user, SANDBOX_DRIVER="bogus")


def test_a_profile_lies_over_the_limits_of_every_file(layers):
    system = '[limits]\nmemory = "1G"\n[profile.ci]\nmemory = "3G"\ntimeout = "1h"'
    user = '[limits]\nmemory = "2G"\n[profile.ci]\ntimeout = 60\ntty = true'
    assert layers(system, user, "ci") == {"memory": "3G", "timeout": 60, "tty": True}
    assert layers(system, user) == {"memory": "2G"}


def test_a_later_wish_puts_out_what_it_excludes(layers):
    merged = layers("[limits]\ncpus = 1.5\nswap-max = 0\nmemory = 1000000", "[limits]\ncpu-quota = 5000")
    assert merged == {"cpu_quota": 5000, "swap_max": 0, "memory": 1000000}
    overlay(merged, {"memory_swap": "2m", "cpu_weight": "idle"})
    limits = make_spec(["true"], **merged).limits
    assert (limits.swap_max, limits.memory_swap, limits.cpu_idle) == (None, 2 << 20, True)


def test_a_missing_profile_is_an_error(layers):
    with pytest.raises(SpecError) as caught:
        layers("[profile.build]\n", "", "biuld")
    error = caught.value
    assert "'biuld'" in error.message
    assert error.hint == "did you mean build?"


@pytest.mark.parametrize(("text", "words", "hint"), [
    ("drivr = 'none'", ("unknown key 'drivr'",), "did you mean driver?"),
    ("memory = 1", ("unknown key 'memory'",), "limits go into [limits]"),
    ("[limits]\nmemry = 1", ("[limits]", "unknown key 'memry'"), "did you mean memory?"),
    ("[limits]\nmemory-hihg = 1", ("[limits]", "unknown key 'memory-hihg'"), "did you mean memory-high?"),
    ("[profile.a]\npids-limt = 1", ("[profile.a]", "unknown key 'pids-limt'"), "did you mean pids-limit?"),
    ("[limits]\nmemory = '1e3'", ("[limits] memory", "'1e3'"), 'for example memory = "512m"'),
    ("[limits]\ncpus = nan", ("[limits] cpus", "'nan'"), ""),
    ("[limits]\nmemory = true", ("[limits] memory", "True"), ""),
    ("[limits]\noom-group = 'yes'", ("[limits] oom-group",), ""),
    ("[limits]\nulimit = [1979-05-27]", ("[limits] ulimit",), ""),
    ("[limits]\ntty = true", ("[limits] tty is not a limit",), "put it into a profile: [profile.NAME]"),
    ("[limits]\nmemory-low = 1\nmemory-reservation = 1", ("given twice",), "keep memory-low"),
    ("limits = 5", ("[limits] is not a table",), "write [limits]"),
    ("profile = 5", ("profile is not a table",), ""),
    ("[profile]\na = 5", ("[profile.a] is not a table",), ""),
    ("driver = 5\n= 6", ("not TOML",), ""),
])
def test_errors_name_the_file_and_the_key(layers, tmp_path, text, words, hint):
    with pytest.raises(SpecError) as caught:
        layers(text)
    error = caught.value
    assert str(tmp_path / "system.toml") in error.message
    for word in words:
        assert word in error.message
    assert hint in error.hint


def test_a_file_that_is_not_text_is_an_error(tmp_path):
    file = tmp_path / "c.toml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(SpecError, match="not TOML"):
        defaults({"HOME": str(tmp_path)}, system_file=str(file))


def test_where_the_users_file_is():
    assert user_file({"HOME": "/h"}) == "/h/.config/sandbox/config.toml"
    assert user_file({"HOME": "/h", "XDG_CONFIG_HOME": "/x"}) == "/x/sandbox/config.toml"
    assert user_file({"HOME": "/h", "XDG_CONFIG_HOME": "relative"}) == "/h/.config/sandbox/config.toml"
