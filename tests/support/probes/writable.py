"""Opens every file below the directories it is given for writing, without writing, and shows what could be opened.

What is a symlink, or the null device in the place of a masked file, is none.
"""

import os
import stat
import sys

from calls import opened, show

errors, number, writable = {}, 0, []


def is_null(path):
    facts = os.lstat(path)
    return stat.S_ISCHR(facts.st_mode) and facts.st_rdev == os.makedev(1, 3)


for top in sys.argv[1:]:
    for directory, names, files in os.walk(top):
        names[:] = [name for name in names if top != "/proc" or not name.isdigit()]
        for name in files:
            path = os.path.join(directory, name)
            if os.path.islink(path) or is_null(path):
                continue
            number += 1
            error = opened(path)
            errors[error] = errors.get(error, 0) + 1
            if error == "ok":
                writable.append(path)
show({"number": number, "writable": writable, "errors": errors})
