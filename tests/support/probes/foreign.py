"""System calls by the ways of other architectures: int 0x80, and the numbers of x32. x86_64 only."""

import ctypes
import mmap
import struct

from calls import apart, call, name_of, show

MAP_32BIT = 0x40
page = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_32BIT,
                 prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
ARGUMENTS = 2048


def int80(number, first=0, second=0):
    page[:17] = b"\x53\xb8" + struct.pack("<I", number) + b"\xbb" + struct.pack("<I", first) + b"\xb9" + \
        struct.pack("<I", second) + b"\xcd"
    page[17:20] = b"\x80\x5b\xc3"
    result = ctypes.CFUNCTYPE(ctypes.c_int)(address)()
    return name_of(-result) if -4096 < result < 0 else "ok"


def socketcall(*kind):
    page[ARGUMENTS:ARGUMENTS + 12] = struct.pack("<III", *kind)
    return int80(102, 1, address + ARGUMENTS)


show({"int 0x80 getpid": apart(int80, 20), "int 0x80 keyctl": apart(int80, 288, 1, 0),
      "int 0x80 socketcall(AF_ALG)": apart(socketcall, 38, 5, 0),
      "int 0x80 socketcall(AF_VSOCK)": apart(socketcall, 40, 1, 0),
      "x32 getpid": apart(lambda: call(0x40000000 | 39)[1])})
