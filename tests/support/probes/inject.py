"""Pushes characters into the terminal it stands on, and tries to take it over."""

import fcntl
import os
import termios

from calls import opened, show, tried

TIOCLINUX = 0x541C


def ioctl(request, argument):
    return tried(fcntl.ioctl, 0, request, argument)


found = {"TIOCSTI": [ioctl(termios.TIOCSTI, bytes([letter])) for letter in b"touch injected\n"],
         "TIOCLINUX": ioctl(TIOCLINUX, b"\x03"), "/dev/tty": opened("/dev/tty", os.O_RDWR),
         "TIOCSCTTY": ioctl(termios.TIOCSCTTY, 0), "TIOCSCTTY steal": ioctl(termios.TIOCSCTTY, 1),
         "again": ioctl(termios.TIOCSTI, b"x"), "terminal": os.isatty(0)}
show(found)
