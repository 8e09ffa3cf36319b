"""How much can be read of each file, or of the first files below each directory, that it is given."""

import os

from calls import given, name_of, show, tried

found = {}


def read(path):
    try:
        with open(path, "rb") as file:
            return len(file.read(4096))
    except OSError as error:
        return name_of(error.errno)


for path in given():
    if os.path.isdir(path):
        found[path] = tried(os.listdir, path)
        if found[path] == "ok":
            found[path] = len(os.listdir(path))
    else:
        found[path] = read(path)
show(found)
