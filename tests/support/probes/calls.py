"""What all probes share: system calls by number, each with the name of its error."""

import ctypes
import errno
import json
import os
import signal
import sys

libc = ctypes.CDLL(None, use_errno=True)
MACHINE = os.uname().machine
# Name: number on x86_64, number on machines with the generic table.
NUMBERS = {
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218), "io_uring_setup": (425, 425),
    "bpf": (321, 280), "userfaultfd": (323, 282), "perf_event_open": (298, 241), "unshare": (272, 97),
    "clone": (56, 220), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "move_mount": (429, 429),
    "open_tree": (428, 428), "mount_setattr": (442, 442), "fsopen": (430, 430), "pivot_root": (155, 41),
    "open_by_handle_at": (304, 265), "kexec_load": (246, 104), "init_module": (175, 105), "acct": (163, 89),
    "swapon": (167, 224), "quotactl": (179, 60), "clone3": (435, 435), "process_vm_readv": (310, 270),
    "ptrace": (101, 117), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "mknodat": (259, 33),
    "shmget": (29, 194), "shmctl": (31, 195), "mq_open": (240, 180), "mq_unlink": (241, 181), "chroot": (161, 51),
}


def name_of(error):
    return errno.errorcode.get(error, str(error))


def name_of_raised(error):
    return name_of(error.errno) if error.errno else type(error).__name__


def call(name, *args):
    """Result and error of a system call: a number and ``ok``, or -1 and a name."""
    number = NUMBERS[name][MACHINE != "x86_64"] if isinstance(name, str) else name
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args))
    return result, "ok" if result != -1 else name_of(ctypes.get_errno())


def tried(function, *args):
    """``ok``, or the name of the error that the function of Python raises."""
    try:
        function(*args)
    except OSError as error:
        return name_of_raised(error)
    return "ok"


def apart(function, *args):
    """What the function returns in a child process, or the signal that the child dies of."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, str(function(*args)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        text = file.read().decode()
    status = os.waitpid(pid, 0)[1]
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else text


def opened(path, flags=os.O_WRONLY):
    """``ok``, or why the file cannot be opened so."""
    try:
        os.close(os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY))
    except OSError as error:
        return name_of(error.errno)
    return "ok"


def made(directory):
    """``ok``, or why no file can be made there; nothing stays."""
    path = os.path.join(directory, f"sandbox-probe-{os.getpid()}")
    found = opened(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    if found == "ok":
        os.unlink(path)
    return found


def given():
    """What the test has sent: one line, for the rest may be for somebody else."""
    return json.loads(sys.stdin.readline())


def show(found):
    print(json.dumps(found), flush=True)
