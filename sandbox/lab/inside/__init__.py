"""The agent: runs inside of a lab as a service, starts commands and passes their input, output and signals through.

It is started from these very files (the host's are visible below ``/host``) as ``python3 -m inside``, with nothing but
a Python, so nothing here imports anything of the rest.
"""
