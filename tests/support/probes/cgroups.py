"""Tries to change limits and to leave the cgroup, by every file that can be seen, and by the paths of the host."""

import os

from calls import apart, call, given, name_of, opened, show, tried

CLONE = {"NEWUSER": 0x10000000, "NEWNS": 0x20000, "NEWCGROUP": 0x2000000}
found = {"unshare": {name: apart(lambda flag=flag: call("unshare", flag)[1]) for name, flag in CLONE.items()}}


def release_agent():
    call("unshare", CLONE["NEWUSER"] | CLONE["NEWNS"] | CLONE["NEWCGROUP"])
    os.mkdir("/tmp/rdma")
    for options in (b"rdma", b"memory", b"cpu", b"pids"):
        error = call("mount", b"cgroup", b"/tmp/rdma", b"cgroup", 0, options)[1]
        if error == "ok":
            return "ok"
    return call("mount", b"cgroup2", b"/tmp/rdma", b"cgroup2", 0, None)[1]


def written(path, text):
    try:
        fd = os.open(path, os.O_WRONLY)
        try:
            os.write(fd, text)
        finally:
            os.close(fd)
    except OSError as error:
        return name_of(error.errno)
    return "ok"


found["mount"] = apart(release_agent)
found["paths"] = {path: written(path, text.encode()) for path, text in given().items()}
visible = [os.path.join(directory, name) for directory, _, files in os.walk("/sys/fs/cgroup") for name in files]
found["visible"] = len(visible)
found["writable"] = [path for path in visible if opened(path) == "ok"]
found["made"] = []
for directory in [directory for directory, _, _ in os.walk("/sys/fs/cgroup")]:
    new = os.path.join(directory, "sandbox-probe")
    if tried(os.mkdir, new) == "ok":
        os.rmdir(new)
        found["made"].append(directory)
with open("/proc/self/cgroup") as file:
    found["own"] = [line.rstrip("\n").split(":", 2)[2] for line in file]
show(found)
