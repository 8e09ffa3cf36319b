"""Exchanges two names in a directory as fast as it can, until its stdin is closed. This one runs outside."""

import ctypes
import os
import select
import sys

RENAME_EXCHANGE = 2
directory, one, other = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
os.chdir(directory)
count = 0
while not select.select([0], [], [], 0)[0]:
    for _ in range(100):
        if libc.renameat2(-100, one.encode(), -100, other.encode(), RENAME_EXCHANGE):
            raise OSError(ctypes.get_errno(), "renameat2")
    count += 100
print(count)
