"""What people type, and what must never be taken for a number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import units
from sandbox.errors import SpecError
from sandbox.records import UNLIMITED, Percent

MALFORMED = ["", " ", "-", "+5", "-5", "--5", "1e3", "1E3", "0x10", "0b1", "0o7", "1_000", "1'000", " 64", "64 ",
             "64\n", "\t64", "\u0666\u0664", "\uff16\uff14", "6\xb2", "nan", "NaN", "inf", "-inf", "1..5", ".5", "1.",
             "1.5.5", "64mm", "64km", "64\u212a", "9" * 23, "64\0", "five", "0x", "1/2", "%", "1 m", "\xbd"]


def refused(parse, text, flag, **settings):
    with pytest.raises(SpecError) as caught:
        parse(text, flag, **settings)
    error = caught.value
    assert flag in error.message
    assert flag in error.hint
    assert "\n" not in str(error)
    assert error.exit_code == 2


@pytest.mark.parametrize("text", MALFORMED)
@pytest.mark.parametrize(("parse", "flag"), [
    (units.parse_memory, "memory"), (units.parse_cpus, "cpus"), (units.parse_limit, "pids_limit"),
    (units.parse_seconds, "timeout"), (units.parse_cpu_list, "cpuset_cpus"),
    (units.parse_size, "device_write_bps"), (units.parse_iops, "device_write_iops"),
    (units.parse_signal, "stop_signal")])
def test_malformed_values_are_refused_by_every_parser(parse, flag, text):
    refused(parse, text, flag)


@pytest.mark.parametrize(("text", "value"), [
    ("1", 1), ("512", 512), ("1b", 1), ("64k", 64 << 10), ("64m", 64 << 20), ("64M", 64 << 20), ("64mb", 64 << 20),
    ("64MB", 64 << 20), ("64MiB", 64 << 20), ("1.5g", 3 << 29), ("2T", 2 << 40), ("0.1k", 102),
    (str(2**63 - 1), 2**63 - 1), ("0010", 10)])
def test_bytes(text, value):
    assert units.parse_memory(text, "memory") == value


@pytest.mark.parametrize("text", ["0", "0k", "0.0001k", "1.5", "1.5b", "64ib", "64i", str(2**63), "8e", str(2**64 + 5),
                                  "99999999999999999999G", "0%", "100.1%", "-5%", "1e1%", "-1", "MAX", "Infinity"])
def test_bytes_that_are_none(text):
    refused(units.parse_memory, text, "memory")


def test_share_of_memory():
    assert units.parse_memory("12.5%", "memory") == Percent(12.5)
    assert units.parse_memory("100%", "memory") == Percent(100)


@pytest.mark.parametrize("word", ["max", "infinity", "unlimited"])
def test_words_for_no_limit(word):
    assert units.parse_memory(word, "memory") == UNLIMITED
    assert units.parse_limit(word, "pids_limit") == UNLIMITED


def test_minus_one_is_no_limit_only_where_docker_has_it():
    assert units.parse_memory("-1", "memory_swap", minus_one=True) == UNLIMITED
    assert units.parse_limit("-1", "pids_limit") == UNLIMITED
    refused(units.parse_memory, "-1", "memory")


@pytest.mark.parametrize(("text", "value"), [("1.5", 1.5), ("150%", 1.5), ("1500m", 1.5), ("2", 2.0), ("0.001", 0.001),
                                             ("1m", 0.001), ("33.3%", 0.333)])
def test_cpus(text, value):
    assert units.parse_cpus(text, "cpus") == value


@pytest.mark.parametrize("text", ["0", "0.0009", "0%", "8193", "max", "1.5M", "1.5%%"])
def test_cpus_that_are_none(text):
    refused(units.parse_cpus, text, "cpus")


@pytest.mark.parametrize(("text", "value"), [
    ("60", 60.0), ("1.5", 1.5), ("500ms", 0.5), ("2min", 120.0), ("2m", 120.0), ("1h30m", 5400.0), ("1d", 86400.0),
    ("1m0.5s", 60.5), ("250us", 0.00025), ("10sec", 10.0)])
def test_durations(text, value):
    assert units.parse_seconds(text, "timeout") == value


@pytest.mark.parametrize("text", ["0", "0s", "0.0000001", "1h1h", "30m1h", "5ss", "5S", "5 s", "1000000001", "max",
                                  "m"])
def test_durations_that_are_none(text):
    refused(units.parse_seconds, text, "timeout")


def test_zero_is_a_duration_only_where_it_means_something():
    assert units.parse_seconds("0", "stop_timeout", zero=True) == 0


@pytest.mark.parametrize(("text", "value"), [("-1000", -1000), ("-0", 0), ("0", 0), ("1000", 1000)])
def test_numbers_that_may_be_negative(text, value):
    assert units.parse_signed(text, "oom_score_adj", low=-1000, high=1000, example="500") == value


@pytest.mark.parametrize("text", ["", "-", "--1", "+1", "1.5", "-1k", "1001", "-1001", "max"])
def test_numbers_that_are_not_whole_or_too_large(text):
    with pytest.raises(SpecError, match="oom_score_adj"):
        units.parse_signed(text, "oom_score_adj", low=-1000, high=1000, example="500")


@pytest.mark.parametrize(("text", "value"), [("0", "0"), ("0-2,4", "0-2,4"), ("4,2,0-1", "0-2,4"), ("1,1,0-1", "0-1"),
                                             ("3-3", "3"), ("8191", "8191")])
def test_cpu_lists_are_canonical(text, value):
    assert units.parse_cpu_list(text, "cpuset_cpus") == value


@pytest.mark.parametrize("text", ["2-1", "0-", "-1", ",", "0,", ",0", "0,,1", "0-1-2", "8192", "0-99999", "0:2", "all"])
def test_cpu_lists_that_are_none(text):
    refused(units.parse_cpu_list, text, "cpuset_cpus")


@pytest.mark.parametrize(("text", "value"), [("TERM", 15), ("SIGTERM", 15), ("sigterm", 15), ("15", 15), ("KILL", 9),
                                             ("RTMIN", 34), ("RTMIN+3", 37), ("SIGRTMAX-1", 63), ("64", 64)])
def test_signals(text, value):
    assert units.parse_signal(text, "stop_signal") == value


@pytest.mark.parametrize("text", ["0", "65", "STOPX", "SIG", "_DFL", "RTMIN-1", "RTMIN+31", "RTMIN+", "TERM "])
def test_signals_that_are_none(text):
    refused(units.parse_signal, text, "stop_signal")


def test_operations_count_in_thousands_and_bytes_in_1024():
    assert units.parse_iops("2k", "device_read_iops") == 2000
    assert units.parse_size("2k", "device_read_bps") == 2048


def test_a_long_value_is_not_echoed_whole():
    with pytest.raises(SpecError) as caught:
        units.parse_bytes("9" * 100_000, "memory")
    assert len(str(caught.value)) < 300


@given(st.integers(1, 2**63 - 1))
def test_shown_bytes_are_read_back_as_the_same_number(value):
    assert units.parse_bytes(units.show_bytes(value), "memory") == value


@given(st.integers(1, 10**15))
def test_shown_seconds_are_read_back_as_the_same_number(microseconds):
    value = microseconds / 10**6
    assert units.parse_seconds(units.show_seconds(value), "timeout") == value


@given(st.sets(st.integers(0, 300), min_size=1))
def test_shown_cpu_lists_are_read_back_as_the_same_list(numbers):
    shown = units.show_cpu_list(numbers)
    assert units.parse_cpu_list(shown, "cpuset_cpus") == shown
    assert units.parse_cpu_list(",".join(map(str, numbers)), "cpuset_cpus") == shown


@given(st.text(max_size=12))
def test_any_text_is_read_or_refused(text):
    for parse in (units.parse_memory, units.parse_cpus, units.parse_seconds, units.parse_cpu_list, units.parse_signal,
                  units.parse_limit, units.parse_iops):
        try:
            parse(text, "flag")
        except SpecError:
            continue
        assert text.isascii()
        assert text == text.strip()


def test_sizes_for_people():
    assert [units.show_size(value) for value in (0, 1023, 1024, 66_900_000, 2**50)] == [
        "0 B", "1023 B", "1.0 KiB", "63.8 MiB", "1024.0 TiB"]
