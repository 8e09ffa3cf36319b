"""Leaves a word in every place where another sandbox might find it, or looks for it: offer NAME, look NAME."""

import os
import socket
import sys

from calls import call, opened, show, tried

MODE, NAME = sys.argv[1], sys.argv[2]
KEY = int.from_bytes(NAME.encode()[-4:], "little") & 0x7FFFFFFF
IPC_CREAT, O_CREAT, VMADDR_CID_LOCAL = 0o1000, os.O_CREAT, 1
kept = []


def file(directory):
    return opened(f"{directory}/{NAME}", os.O_RDWR | (os.O_CREAT if MODE == "offer" else 0))


def abstract():
    with_name = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    kept.append(with_name)
    if MODE == "offer":
        with_name.bind("\0" + NAME)
        with_name.listen()
    else:
        with_name.connect("\0" + NAME)


def vsock():
    one = socket.socket(40, socket.SOCK_STREAM)
    kept.append(one)
    one.settimeout(2)
    port = KEY | 0x400
    if MODE == "offer":
        one.bind((0xFFFFFFFF, port))
        one.listen()
    else:
        one.connect((VMADDR_CID_LOCAL, port))


def tcp():
    one = socket.socket()
    kept.append(one)
    one.settimeout(2)
    port = 20000 + KEY % 10000
    if MODE == "offer":
        one.bind(("127.0.0.1", port))
        one.listen()
    else:
        one.connect(("127.0.0.1", port))


def queue():
    return call("mq_open", NAME.encode(), os.O_RDWR | (os.O_CREAT if MODE == "offer" else 0), 0o666, None)[1]


def shm():
    return call("shmget", KEY, 4096, 0o666 | (IPC_CREAT if MODE == "offer" else 0))[1]


def attempts():
    return {"/dev/shm": file("/dev/shm"), "/tmp": file("/tmp"), "/var/tmp": file("/var/tmp"), "SysV": shm(),
            "mq": queue(), "abstract": tried(abstract), "vsock": tried(vsock), "tcp": tried(tcp)}


found = {MODE: attempts()}
if MODE == "offer":
    MODE = "look"
    found["look"] = attempts()  # shows that the place can be found at all
    show(found)
    sys.stdout.flush()
    sys.stdin.readline()
    call("mq_unlink", NAME.encode())
    call("shmctl", call("shmget", KEY, 0, 0)[0], 0, None)  # IPC_RMID
    for directory in ("/dev/shm", "/tmp", "/var/tmp"):
        tried(os.unlink, f"{directory}/{NAME}")
else:
    show(found)
