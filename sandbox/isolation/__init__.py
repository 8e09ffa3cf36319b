"""What keeps a sandbox from the machine: each module compiles its part of a Spec for a Host into steps, purely.

==================  ==================================================================================================
``namespaces``      which namespaces are its own, the ids inside, and how the init and the workload get there
``filesystem``      the root, the kernel's file systems, and what of the host is seen; ``paths`` and ``devices`` are
                    the lists, ``volumes`` is what ``-v``, ``--mount`` and ``--tmpfs`` ask for
``capabilities``    what root inside may do: nothing, by default
``seccomp``         which system calls there are; ``security`` is ``--security-opt``
``exposure``        what a Spec opens of all this
==================  ==================================================================================================
"""
