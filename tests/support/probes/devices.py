"""Makes device nodes in the directories it is given, and opens devices of the host."""

import os
import stat
import sys

from calls import name_of, opened, show

PATHS = ("/dev/vda", "/dev/vda1", "/dev/sda", "/dev/mem", "/dev/kmsg", "/dev/fuse", "/dev/kvm", "/dev/net/tun",
         "/dev/loop-control", "/dev/port", "/dev/vhost-vsock", "/dev/console", "/dev/tty0", "/dev/initctl")


def node(directory, kind, major, minor):
    path = os.path.join(directory, f"sandbox-probe-{os.getpid()}")
    try:
        os.mknod(path, kind | 0o666, os.makedev(major, minor))
    except OSError as error:
        return name_of(error.errno)
    found = opened(path, os.O_RDONLY)
    os.unlink(path)
    return f"made, open: {found}"


listing = {}
for directory, names, files in os.walk("/dev"):
    for name in (*names, *files):
        path = os.path.join(directory, name)
        facts = os.lstat(path)
        kind = "device" if stat.S_ISCHR(facts.st_mode) or stat.S_ISBLK(facts.st_mode) else \
            "link" if stat.S_ISLNK(facts.st_mode) else "directory" if stat.S_ISDIR(facts.st_mode) else "file"
        listing[path] = kind
NODES = {"b 254 0": (stat.S_IFBLK, 254, 0), "c 1 1": (stat.S_IFCHR, 1, 1), "c 1 3": (stat.S_IFCHR, 1, 3)}
show({"nodes": {f"{directory} {label}": node(directory, *what)
                for directory in sys.argv[1:] for label, what in NODES.items()},
      "open": {path: opened(path, os.O_RDONLY) for path in PATHS}, "listing": listing,
      "writable": {path: opened(path, os.O_RDWR) for path in listing if listing[path] == "device"},
      "new file": opened("/dev/sandbox-probe", os.O_CREAT | os.O_WRONLY)})
