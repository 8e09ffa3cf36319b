"""Tries to write to each file it is given, and to make a new one beside it. Shows error: paths."""

import os

from calls import given, made, opened, show

found = {}
paths = given()
for path in paths:
    for flags in (os.O_WRONLY, os.O_RDWR | os.O_APPEND):
        found.setdefault(opened(path, flags), []).append(path)
for directory in {os.path.dirname(path) for path in paths if not path.startswith("/proc/")}:
    found.setdefault(made(directory), []).append(directory + "/")
show({error: sorted(set(paths)) for error, paths in found.items()})
