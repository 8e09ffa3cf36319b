"""The command line: ``sandbox run``, ``explain``, ``info``, ``gc``. Everything it does goes through the library."""

import gc

# Looking for garbage during the imports costs each start 3 ms, and one run makes next to none.
gc.disable()
