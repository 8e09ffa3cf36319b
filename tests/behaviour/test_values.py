"""Malformed values are refused before anything starts, in one line that names the flag."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.sandbox_run import Program
from support.warm_program import warm

sandbox = warm
pytestmark = [pytest.mark.matter("program"), pytest.mark.once]
WRONG = {
    "--memory": [
        "", " ", "abc", "-1", "-64m", "nan", "inf", "1e3", "0x10", "64q", "64 m", "m", "6_4m", "\u0666\u0664m",
        "\uff16\uff14m", "64mmb", "1..5g", "1.5.5g", ".", "9999999999999999999999", "18446744073709551616", "16e",
        "0", "0%", "101%", "-5%", "%", "64m\n", "+64m", "1,5g", "64m64m", "\u00bdg", "1.5",
    ],
    "--cpus": [
        "", "0", "-1", "nan", "inf", "1e3", "1e-3", "0x1", "1,5", "1.5.5", " 1", "1 ", "+1", "\u0663", "\uff11",
        "1_0", "abc", "%", "0%", "-50%", "0.0001", "999999", "1.5c", "--", "0m", "1/2", "\u00b2", "1\n",
    ],
    "--pids-limit": [
        "", "0", "-2", "1.5", "nan", "1e3", "0x10", "abc", "4194305", "99999999999999999999", " 5", "5 ", "+5",
        "\u0665", "\uff15", "1_000", "1k", "10%", "--", "5,5", "5-7", "none", "5\n", "1e9", "\u00b2",
    ],
    "--timeout": [
        "", "0", "-1", "nan", "inf", "1e3", "0x10", "abc", "1x", "1.5.5", "s", "5 s", " 5", "+5", "\u0665",
        "\uff15", "1_0", "1h1h", "1s1h", "99999999999", "-5s", "5%", "1:30", "5,5", "0ms", "1e-3", "5\n",
    ],
    "--cpuset-cpus": [
        "", "a", "-1", "1-", "-", "1--2", "3-1", "0,", ",0", "0,,1", "0;1", "0 1", " 0", "0 ", "0x1", "1.5",
        "\u0660", "\uff10", "99999", "8192", "0-8192", "nan", "1e3", "+1", "0-1-2", "all", "0\n",
    ],
    "--device": [
        "", " ", ":", "fuse", "dev/fuse", "/", "/dev/fuse:", "/dev/fuse:x", "/dev/fuse:rr", "/dev/fuse:rwx",
        "/dev/fuse::r", "/dev/fuse:/dev/x:", "/dev/fuse:/dev/x:r:w", "/dev/fuse:/dev/x:/dev/y", "/dev/fuse:r:/dev/x",
        "/dev/../x", "/dev/fuse:/../x", "/dev/fuse:/", "/dev/fuse:/proc/x", "/dev/fuse:/sys", "/dev/fuse:RW",
        "/dev/fuse:rw ", "/dev/fuse:./x", "/dev/no-such-device", "/etc/passwd", "/dev/null", "/dev/fuse:/dev/pts/1",
    ],
    "--device-write-bps": [
        "", "/", "/tmp", ":", ":1m", "/:", "/:0", "/:-1", "/:nan", "/:1e3", "/:abc", "/:1q", "/:0x10", "/:\u0665",
        "/:\uff15", "/:1_0", "/: 1", "/:1 ", "/:+1", "/:1.5.5", "/:99999999999999999999", "/:16e", "/:1%",
        "/:1m/s", "/:1mbps", "/:1:", "1m:/",
    ],
}


@pytest.mark.parametrize("flag", WRONG)
def test_wrong_values_are_refused(sandbox: Program, tmp_path: Path, flag: str) -> None:
    assert len(WRONG[flag]) >= 25

    def complaint(value: str) -> str:
        done = sandbox(f"{flag}={value}", "--", "touch", str(tmp_path / "ran"))
        if done.code == 2 and len(done.err.splitlines()) == 1 and flag in done.err and not done.report:
            return ""
        return f"{flag}={value!r}: {done.code} {done.err!r}"

    with ThreadPoolExecutor(4) as pool:
        complaints = [text for text in pool.map(complaint, WRONG[flag]) if text]
    assert complaints == []
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("words", [("--cpus", "1", "--cpu-quota", "50000"), ("--cpu-weight", "5", "--cpu-shares", "5"),
                                   ("--memory-swap", "1g"), ("--ulimit", "nofile=5:4"), ("--ulimit", "nofiles=5"),
                                   ("--cgroup-conf", "cgroup.procs=1"), ("--cgroup-conf", "../x=1"),
                                   ("--stop-signal", "TREM"), ("-u", "no-such-user"), ("-e", "=x"),
                                   ("--env-file", "/no/such/file"), ("--cgroup-parent", "../..")])
def test_contradictions_and_misspellings(sandbox: Program, tmp_path: Path, words: tuple[str, ...]) -> None:
    done = sandbox(*words, "--", "touch", str(tmp_path / "ran"))
    assert (done.code, len(done.err.splitlines())) == (2, 1), done.err
    assert words[0].lstrip("-")[0] in done.err
    assert not (tmp_path / "ran").exists()
