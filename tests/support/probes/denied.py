"""Calls that a program needs for nothing but to get at the kernel. Unhindered, each does something or complains of
its arguments; none does harm: files are not there, segments are too many."""

import ctypes
import os
import signal

from calls import apart, call, show

CLONE_NEWUSER, CLONE_NEWNS = 0x10000000, 0x20000
NOWHERE = b"/nonexistent/file"


def result(name, *args):
    value, error = call(name, *args)
    if value == 0 and name in ("clone", "clone3"):
        os._exit(0)
    return error


def perf_event():
    attr = (ctypes.c_uint32 * 32)(1, 128)  # PERF_TYPE_SOFTWARE, size; config 0 is the CPU clock
    attr[10] = 0x60  # exclude_kernel, exclude_hv
    return result("perf_event_open", attr, 0, -1, -1, 0)


CALLS = {
    "keyctl": lambda: result("keyctl", 1, None),  # KEYCTL_JOIN_SESSION_KEYRING
    "add_key": lambda: result("add_key", b"user", b"sandbox-probe", b"x", 1, -2),
    "request_key": lambda: result("request_key", b"user", b"sandbox-probe", None, 0),
    "io_uring_setup": lambda: result("io_uring_setup", 1, (ctypes.c_char * 120)()),
    "bpf": lambda: result("bpf", 0, (ctypes.c_uint32 * 16)(2, 4, 4, 1), 64),  # BPF_MAP_CREATE, an array
    "userfaultfd": lambda: result("userfaultfd", 1),  # UFFD_USER_MODE_ONLY
    "perf_event_open": perf_event,
    "unshare": lambda: result("unshare", CLONE_NEWUSER),
    "clone": lambda: result("clone", CLONE_NEWUSER | signal.SIGCHLD, 0, 0, 0, 0),
    "setns": lambda: result("setns", -1, 0),
    "mount": lambda: result("mount", b"none", b"/tmp", b"tmpfs", 0, None),
    "move_mount": lambda: result("move_mount", -1, b"", -1, b"", 0),
    "open_by_handle_at": lambda: result("open_by_handle_at", -100, (ctypes.c_uint32 * 4)(8, 1), 0),
    "kexec_load": lambda: result("kexec_load", 0, 1000, None, 0),
    "init_module": lambda: result("init_module", None, 0, b""),
    "acct": lambda: result("acct", NOWHERE),
    "swapon": lambda: result("swapon", NOWHERE, 0),
    "quotactl": lambda: result("quotactl", 0x800001 << 8, None, 0, None),  # Q_SYNC of everything
}
found = {name: apart(function) for name, function in CALLS.items()}
found["clone3"] = apart(result, "clone3", (ctypes.c_uint64 * 11)(0, 0, 0, 0, signal.SIGCHLD), 88)
found["unknown"] = apart(lambda: call(10000)[1])
show(found)
