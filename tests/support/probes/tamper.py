"""Tries to change mounts, and to write below each of them."""

import ctypes
import os

from calls import apart, call, made, opened, show

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_MOVE = 1, 32, 4096, 16384, 8192
MNT_DETACH = 2


def error(*args):
    return call(*args)[1]


def pivot():
    os.chdir("/tmp")
    return error("pivot_root", b".", b".")


with open("/proc/self/mountinfo") as file:
    mounts = {words[4]: {"options": words[5].split(","), "type": words[words.index("-") + 1], "root": words[3],
                         "new file": made(words[4]) if os.path.isdir(words[4]) else opened(words[4])}
              for words in map(str.split, file)}
CALLS = {
    "remount / rw": lambda: error("mount", None, b"/", None, MS_REMOUNT | MS_BIND, None),
    "remount /proc/sys rw": lambda: error("mount", None, b"/proc/sys", None, MS_REMOUNT | MS_BIND, None),
    "umount /proc": lambda: error("umount2", b"/proc", MNT_DETACH),
    "umount /proc/sys": lambda: error("umount2", b"/proc/sys", MNT_DETACH),
    "umount /proc/keys": lambda: error("umount2", b"/proc/keys", MNT_DETACH),
    "bind": lambda: error("mount", b"/", b"/tmp", None, MS_BIND | MS_REC, None),
    "move": lambda: error("mount", b"/proc", b"/tmp", None, MS_MOVE, None),
    "tmpfs": lambda: error("mount", b"none", b"/tmp", b"tmpfs", 0, None),
    "proc": lambda: error("mount", b"none", b"/tmp", b"proc", 0, None),
    "fsopen": lambda: error("fsopen", b"tmpfs", 0),
    "open_tree clone": lambda: error("open_tree", -100, b"/", 1),
    "mount_setattr": lambda: error("mount_setattr", -100, b"/", 0, (ctypes.c_uint64 * 4)(0, 1), 32),
    "pivot_root": pivot,
    "chroot": lambda: error("chroot", b"/tmp"),
}
show({"calls": {name: apart(function) for name, function in CALLS.items()}, "mounts": mounts})
