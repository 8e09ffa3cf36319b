"""Option names of subprocess, docker, systemd and isolate(1), and what to write in their place."""

from __future__ import annotations

from .spelling import spelled

OURS = {
    "environment": "env", "setenv": "env", "mem": "memory", "mem_limit": "memory", "memory_limit": "memory",
    "memory_max": "memory", "memorymax": "memory", "cg_mem": "memory", "memswap_limit": "memory_swap",
    "mem_reservation": "memory_low", "nano_cpus": "cpus", "cpu_limit": "cpus", "cpuquota": "cpus",
    "cpuweight": "cpu_weight", "network_mode": "network", "share_net": "network", "working_dir": "cwd", "chdir": "cwd",
    "volumes": "volume", "dir": "volume", "ports": "publish", "devices": "device", "ulimits": "ulimit",
    "stack": "ulimit", "fsize": "ulimit", "pids": "pids_limit", "processes": "pids_limit", "tasks_max": "pids_limit",
    "tasksmax": "pids_limit", "wall_time": "timeout", "uid": "user", "gid": "user", "gpus": "gpu",
}
"""The word, and the option that is meant."""
OTHERWISE = {
    **dict.fromkeys(("stdin", "stdout", "stderr", "capture_output", "input"),
                    "Sandbox(make_spec(argv)).start() takes stdin, stdout and stderr"),
    "check": "call check() of the report", "shell": 'give ["sh", "-c", TEXT] as the command',
    "time": "write {cpu_time}, or {timeout} for wall time",
    "rm": "leave it out: nothing of a run stays", "init": "leave it out: sandbox-init is always there",
    **dict.fromkeys(("i", "interactive", "pipe"), "leave it out: the command has the caller's streams; {tty} is for a "
                                                  "terminal"),
    "wait": "leave it out: a run is always waited for", **dict.fromkeys(("d", "detach"), "write & behind the command"),
    "entrypoint": "the first word after the options is the program", "dry_run": "write sandbox explain",
    "privileged": "open what is needed: {cap_add}, {device}, {security_opt}", "scope": "write {unit_type}",
    "dns": "write {volume}", "shm_size": "write {tmpfs}", "oom_kill_disable": "write {oom_score_adj}",
}
"""Words for what is done otherwise here, with the options in braces."""
VALUES = {"tty": (True,), "cap_add": ("ALL",), "security_opt": ("seccomp=unconfined",), "unit_type": ("scope",),
          "volume": ("FILE:/etc/resolv.conf:ro",), "tmpfs": ("/dev/shm:size=64m",), "oom_score_adj": ("-999",)}
"""Values that are shown with the options in braces."""


def answer(name: str) -> str:
    """Return what to write in place of another tool's option name; empty if the name is not known."""
    word = name.lower().replace("-", "_")
    if word in OURS:
        return f"write {spelled(OURS[word])}"
    fields = ("cpu_time", "timeout", "device", *VALUES)
    return OTHERWISE.get(word, "").format(**{field: spelled(field, *VALUES.get(field, ())) for field in fields})
