"""From rules to a program of classic BPF, by libseccomp through ctypes."""

from __future__ import annotations

import ctypes
import os
import sys
from errno import ENOSYS, EPERM

from ..errors import SpecError, Unsupported
from ..spelling import spelled
from ..stdlib import TYPE_CHECKING, NamedTuple, cache, contextmanager
from . import bpf
from .bpf import ARCHITECTURE, JUMP_ABOVE, JUMP_EQUAL, JUMP_FROM, LOAD, NUMBER, RETURN, Instruction
from .rules import ERRNO, Rules

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LIBRARY = "libseccomp.so.2"
KILL_PROCESS = 0x8000_0000
ATTRIBUTE_BAD_ARCHITECTURE, ATTRIBUTE_OPTIMIZE = 2, 8
BINARY_TREE = 2
MAX_INSTRUCTIONS = 4096
"""``BPF_MAXINSNS``."""

ACTION_MASK = 0xFFFF_0000

SECOND_ARGUMENT = 24
"""Offset in ``struct seccomp_data``; of the lower half on a little-endian machine."""
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
X86_64, X32 = 0xC000_003E, 0x4000_003E
"""libseccomp's tokens. Both have the same number for the kernel, as both are of one architecture."""
X32_CALLS = range(0x4000_0000, 0x4001_0000)
"""Numbers of x32's calls: ``__X32_SYSCALL_BIT`` and more numbers than are in use."""
NO_CALLS = range(bpf.HIGHEST, bpf.HIGHEST)
UNKNOWN = -1
"""``__NR_SCMP_ERROR``: no architecture has such a call."""


class _Comparison(ctypes.Structure):
    """``struct scmp_arg_cmp``."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("datum_a", ctypes.c_uint64),
                ("datum_b", ctypes.c_uint64))


class Interface(NamedTuple):
    """The system calls of one kind of program that the filter lets run: an architecture, or x32.

    :param token: libseccomp's.
    :param first: lowest number of a call.
    :param newest: highest number of a call that is in the profile; calls above it answer ENOSYS.
    """

    token: int
    first: int
    newest: int

    @property
    def architecture(self) -> int:
        """The number that the kernel has for it, such as ``AUDIT_ARCH_X86_64``."""
        return X86_64 if self.token == X32 else self.token

    def number_of(self, name: str) -> int:
        return int(_library().seccomp_syscall_resolve_name_arch(self.token, name.encode()))


def compile_rules(rules: Rules, source: str) -> bytes:
    """The program, as an array of ``struct sock_filter``.

    Calls of architectures that the rules do not allow, such as 32-bit ones, end the process. Calls whose number is
    above all that the rules name and libseccomp knows answer ENOSYS when the rest is refused, so that programs fall
    back to older ones.

    :param source: where the rules are from, for messages.
    :raises Unsupported: there is no libseccomp.
    :raises SpecError: libseccomp will not have the rules.
    """
    library = _library()
    with _context(library, rules.default) as context:
        library.seccomp_attr_set(context, ATTRIBUTE_BAD_ARCHITECTURE, KILL_PROCESS)
        # libseccomp before 2.5 goes through the calls one by one: slower, but the same.
        library.seccomp_attr_set(context, ATTRIBUTE_OPTIMIZE, BINARY_TREE)
        tokens = [native(), *(library.seccomp_arch_resolve_name(name.encode()) for name in rules.architectures)]
        for token in tokens[1:]:
            if code := library.seccomp_arch_add(context, token):
                raise Unsupported(f"libseccomp cannot add the architecture {token:#x}: {os.strerror(-code)}")
        for rule in rules.rules:
            # A call that only another architecture has gets a negative number, which libseccomp passes over here.
            number = number_of(rule.name)
            if number == UNKNOWN:  # newer than libseccomp
                continue
            comparisons = (_Comparison * len(rule.comparisons))(*(_Comparison(*one) for one in rule.comparisons))
            code = library.seccomp_rule_add_array(context, rule.action, number, len(comparisons), comparisons)
            if code:
                raise SpecError(f"{spelled('security_opt', f'seccomp={source}')}: libseccomp refuses the rule for "
                                f"{rule.name}: {os.strerror(-code)}", field="security_opt")
        # A list of what is forbidden says nothing of what is new.
        names = {rule.name for rule in rules.rules} if rules.default & ACTION_MASK == ERRNO else set()
        interfaces = [_interface(token, names) for token in tokens]
        program = bpf.shorten(b"".join(map(_prologue, interfaces)) + _export(library, context),
                              [*dict.fromkeys(one.architecture for one in interfaces)])
    if len(program) > 8 * MAX_INSTRUCTIONS:
        raise SpecError(f"{spelled('security_opt', f'seccomp={source}')}: makes {len(program) // 8} instructions, the "
                        f"kernel takes {MAX_INSTRUCTIONS}", field="security_opt")
    return program


def number_of(name: str) -> int:
    """The number of a system call here; negative when libseccomp knows none."""
    return int(_library().seccomp_syscall_resolve_name(name.encode()))


def name_of(number: int, architecture: int) -> str:
    """The name of a system call, or the number as text when it is newer than libseccomp, or none.

    :param architecture: as the kernel has it, such as ``AUDIT_ARCH_X86_64``.
    """
    library = _library()
    token = X32 if architecture == X86_64 and number in X32_CALLS else architecture
    found = library.seccomp_syscall_resolve_num_arch(token, number)
    if not found:
        return str(number)
    name = ctypes.string_at(found).decode()
    ctypes.CDLL(None).free(ctypes.c_void_p(found))
    return name


def native() -> int:
    """This machine's architecture, as ``AUDIT_ARCH_X86_64``."""
    return int(_library().seccomp_arch_native())


def _interface(token: int, names: Iterable[str]) -> Interface:
    """:param names: calls in the profile; empty if calls that are not in it are allowed."""
    interface = Interface(token, X32_CALLS.start if token == X32 else 0, bpf.HIGHEST)
    numbers = [number for name in names if (number := interface.number_of(name)) >= 0]
    return interface._replace(newest=max(numbers, default=interface.first)) if names else interface


def _prologue(interface: Interface) -> bytes:
    """What comes before libseccomp's program: ENOSYS for newer calls, and no typing into terminals.

    An x86_64 program that makes calls of x32 is left to libseccomp, which ends it if the profile does not allow x32.

    ioctl(2) takes 32 bits of its second argument and drops the others, which the comparisons of libseccomp would take
    into account: TIOCSTI with a bit above them would get through. The loads here are of 32 bits.
    """
    others = X32_CALLS if interface.token == X86_64 else NO_CALLS
    return bpf.pack([Instruction(*line) for line in (
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_EQUAL, 0, 11, interface.architecture),
        (LOAD, 0, 0, NUMBER),
        (JUMP_FROM, 0, 9, interface.first),
        (JUMP_ABOVE, 0, 2, interface.newest),
        (JUMP_FROM, 0, 5, others.start),
        (JUMP_ABOVE, 4, 6, others.stop - 1),
        (JUMP_EQUAL, 0, 5, interface.number_of("ioctl")),
        (LOAD, 0, 0, SECOND_ARGUMENT if sys.byteorder == "little" else SECOND_ARGUMENT + 4),
        (JUMP_EQUAL, 2, 0, TIOCSTI),
        (JUMP_EQUAL, 1, 2, TIOCLINUX),
        (RETURN, 0, 0, ERRNO | ENOSYS),
        (RETURN, 0, 0, ERRNO | EPERM),
    )])


@contextmanager
def _context(library: ctypes.CDLL, default: int) -> Iterator[int]:
    context = library.seccomp_init(default)
    if not context:
        raise SpecError(f"{spelled('security_opt')}: libseccomp refuses the default action {default:#x}",
                        field="security_opt")
    try:
        yield context
    finally:
        library.seccomp_release(context)


def _export(library: ctypes.CDLL, context: int) -> bytes:
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        code = library.seccomp_export_bpf(context, fd)
        if code:
            raise Unsupported(f"libseccomp cannot make the program: {os.strerror(-code)}")
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise Unsupported(f"the filter of system calls needs {LIBRARY}, which is not installed",
                          hint="apt-get install libseccomp2, or "
                          f"{spelled('security_opt', 'seccomp=unconfined')}") from error
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_release.restype = None
    library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_syscall_resolve_num_arch.argtypes = [ctypes.c_uint32, ctypes.c_int]
    library.seccomp_syscall_resolve_num_arch.restype = ctypes.c_void_p
    library.seccomp_arch_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.seccomp_syscall_resolve_name_arch.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    library.seccomp_rule_add_array.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint,
                                               ctypes.c_void_p]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.seccomp_arch_native.restype = ctypes.c_uint32
    return library
