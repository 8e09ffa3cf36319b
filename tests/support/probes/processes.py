"""What can be done to a process of the host, by its number there, and to the first process inside."""

import ctypes
import os
import sys

from calls import apart, call, opened, show, tried

host = int(sys.argv[1])


def read(pid):
    buffer = ctypes.create_string_buffer(8)
    vector = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8)
    return call("process_vm_readv", pid, vector, 1, vector, 1, 0)[1]


def traced(pid):
    return apart(lambda: call("ptrace", 0x4206, pid, 0, 0)[1])  # PTRACE_SEIZE: stops nobody


def steal(pid):
    handle, error = call("pidfd_open", pid, 0)
    return error if handle < 0 else [call("pidfd_getfd", handle, number, 0)[1] for number in range(3, 12)]


def files(pid):
    return {name: opened(f"/proc/{pid}/{name}", flags) for name, flags in
            (("mem", os.O_RDWR), ("environ", os.O_RDONLY), ("maps", os.O_RDONLY))} | \
        {name: tried(os.listdir, f"/proc/{pid}/{name}") for name in ("root", "cwd", "fd", "map_files")}


show({str(pid): {"kill": tried(os.kill, pid, 0), "process_vm_readv": read(pid), "ptrace": traced(pid),
                 "pidfd_getfd": steal(pid), **files(pid)} for pid in (host, 1)}
     | {"visible": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()), "own": os.getpid()})
