"""Prints the seccomp filter that a tool loads for a command, in hexadecimal: ``loaded_filter.py TOOL [FLAG...]``.

The tool is started with a shell as its command. The kernel gives a tracer the filter of a stopped process
(ptrace(2), PTRACE_SECCOMP_GET_FILTER), if the tracer is root. Only the standard library: a lab gets this as text.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

PTRACE_ATTACH, PTRACE_DETACH, PTRACE_SECCOMP_GET_FILTER = 16, 17, 0x420C
COMMAND = ("/bin/sh", "-c", "echo; read line", "filtered")
"""It prints a line once the filter is loaded, then waits for the end of its stdin."""

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_char_p)
libc.ptrace.restype = ctypes.c_long


def ptrace(request: int, pid: int, address: int = 0, data: ctypes.Array[ctypes.c_char] | None = None) -> int:
    found = int(libc.ptrace(request, pid, address, data))
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found


def pid_of(command: tuple[str, ...]) -> int:
    """Return the one process that runs ``command``. The tool has the same words in its command line, after its own."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                if file.read() == "".join(f"{word}\0" for word in command).encode():
                    found.append(int(entry))
        except OSError:  # the process has ended
            continue
    [pid] = found
    return pid


def filter_of(pid: int) -> bytes:
    """Return the only filter of a process, as an array of ``struct sock_filter``."""
    with open(f"/proc/{pid}/status") as file:
        assert "Seccomp_filters:\t1\n" in file.read()
    ptrace(PTRACE_ATTACH, pid)
    try:
        os.waitpid(pid, 0)
        buffer = ctypes.create_string_buffer(8 * ptrace(PTRACE_SECCOMP_GET_FILTER, pid))
        ptrace(PTRACE_SECCOMP_GET_FILTER, pid, 0, buffer)
    finally:
        ptrace(PTRACE_DETACH, pid)
    return buffer.raw


if __name__ == "__main__":
    with subprocess.Popen([*sys.argv[1:], *COMMAND], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tool:
        assert tool.stdout is not None
        if tool.stdout.readline():
            print(filter_of(pid_of(COMMAND)).hex())
    sys.exit(0 if tool.returncode == 1 else f"{sys.argv[1]}: exit code {tool.returncode}")  # 1 is read's at the end
