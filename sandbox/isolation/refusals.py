"""``--seccomp-log``: which system calls the filter refused, and how often.

Instead of refusing by itself, the filter asks (``SECCOMP_RET_USER_NOTIF``, seccomp_unotify(2)), and :class:`Refusals`
answers with the very error that the filter would have given: the question has it in its lower half, where the kernel
takes no notice of it, and the program is run once more to find that question. This needs no root and no audit log.

No call is ever let through. When nobody is there to ask, the kernel answers ENOSYS; a filter that the workload adds
cannot have a listener of its own, so it cannot answer in our place either.
"""

from __future__ import annotations

import os
import struct
import threading
from collections import Counter
from fcntl import ioctl

from ..errors import SpecError, Unsupported
from ..report import RefusedCall
from ..spelling import spelled
from ..stdlib import TYPE_CHECKING, suppress
from . import bpf
from .bpf import Instruction
from .rules import ACTIONS, ALLOW, ERRNO

if TYPE_CHECKING:
    from collections.abc import Sequence

USER_NOTIF = 0x7FC0_0000
LOG = ACTIONS["SCMP_ACT_LOG"]
ACTION, DATA = 0xFFFF_0000, 0xFFFF

# <linux/seccomp.h>
RECEIVE, SEND = 0xC050_2100, 0xC018_2101
CALL = slice(16, 80)
"""Where ``struct seccomp_data`` is in ``struct seccomp_notif``; an id of 8 bytes comes first."""
ACTIONS_AVAILABLE = "/proc/sys/kernel/seccomp/actions_avail"
CONTROL, NO_SIGNAL = 4, 0x4000
"""sandbox-init's socket and its ``MSG_NOSIGNAL``: how the listener comes to us, through the filter itself."""

MOST = 1000
"""Different calls that are told apart. There are not so many, but any number can be called."""
OTHERS = -1


def asking(program: bytes, source: str) -> bytes:
    """The program, with a question in place of each refusal.

    :param source: the profile it was made from, for messages.
    :raises Unsupported: this kernel's filters cannot ask.
    :raises SpecError: the profile does not let the listener through.
    """
    _check_kernel()
    code = bpf.parse(program)
    strange = {one.op for one in code} - bpf.KNOWN
    if strange:
        raise Unsupported(f"{spelled('seccomp_log')}: libseccomp's program has an instruction {min(strange):#x} that "
                          "is not known", hint=f"leave {spelled('seccomp_log')} out")
    _check_sendmsg(code, source)
    return bpf.pack([one._replace(value=USER_NOTIF | one.value & DATA)
                     if one.op == bpf.RETURN and one.value & ACTION == ERRNO else one for one in code])


def _check_kernel() -> None:
    try:
        with open(ACTIONS_AVAILABLE) as file:
            if "user_notif" in file.read().split():
                return
        reason = "this kernel's filters cannot ask, which they learned in Linux 5.0"
    except OSError as error:
        reason = f"{ACTIONS_AVAILABLE}: {error.strerror}"
    raise Unsupported(f"{spelled('seccomp_log')}: {reason}",
                      hint=f"leave {spelled('seccomp_log')} out; the calls are refused all the same")


def _check_sendmsg(code: Sequence[Instruction], source: str) -> None:
    from .libseccomp import native, number_of

    call = struct.pack("=iIQ6Q", number_of("sendmsg"), native(), 0, CONTROL, 0, NO_SIGNAL, 0, 0, 0)
    if bpf.verdict(code, call) & ACTION not in (ALLOW, LOG):
        raise SpecError(f"{spelled('seccomp_log')}: the profile {source} does not allow sendmsg, which hands the "
                        "listener over", field="seccomp_log",
                        hint=f"allow sendmsg in it, or leave {spelled('seccomp_log')} out")


class Refusals:
    """Answers in a thread of its own, for the caller may be busy with anything else, until :meth:`end`.

    :param listener: the fd that seccomp(2) gave; it is closed here.
    :param program: what :func:`asking` made, as it was loaded.
    :param sizes: of the kernel's question and answer, as it says itself.
    """

    def __init__(self, listener: int, program: bytes, sizes: tuple[int, int]) -> None:
        self._listener, self._sizes = listener, sizes
        self._code = bpf.parse(program)
        self._count: Counter[tuple[int, int, int]] = Counter()
        self._ended = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._serve, name="seccomp-log", daemon=True)
        self._thread.start()

    def end(self) -> tuple[RefusedCall, ...]:
        """Answer no more. What was refused, the most frequent first."""
        os.eventfd_write(self._ended, 1)
        self._thread.join()
        os.close(self._ended)
        found = [RefusedCall(*key, count) for key, count in _named(self._count).items()]
        return tuple(sorted(found, key=lambda one: (-one.count, one)))

    def _serve(self) -> None:
        import select
        import signal

        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for the caller's threads
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._ended, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            # Since Linux 5.9 the kernel says when nobody is left who could be refused anything.
            if self._ended in ready or ready[self._listener] & ~select.POLLIN:
                break
            with suppress(OSError):  # ENOENT: the caller was killed meanwhile
                self._answer()
        os.close(self._listener)

    def _answer(self) -> None:
        question = bytearray(self._sizes[0])
        ioctl(self._listener, RECEIVE, question)
        call = bytes(question[CALL])
        error = bpf.verdict(self._code, call) & DATA
        answer = question[:8] + struct.pack("=qiI", 0, -error, 0)
        ioctl(self._listener, SEND, answer.ljust(self._sizes[1], b"\0"))
        number, architecture = struct.unpack_from("=iI", call)
        key = number, architecture, error
        self._count[key if key in self._count or len(self._count) < MOST else (OTHERS, 0, error)] += 1


def _named(count: Counter[tuple[int, int, int]]) -> Counter[tuple[str, str]]:
    from errno import errorcode

    from .libseccomp import name_of

    named: Counter[tuple[str, str]] = Counter()
    for (number, architecture, error), times in count.items():
        name = "others" if number == OTHERS else name_of(number, architecture)
        named[name, errorcode.get(error, str(error))] += times
    return named
