"""Programs of classic BPF that decide on system calls (<linux/filter.h>), and how to make them shorter.

libseccomp compares the number of a call with each one that a profile names, and the kernel translates every instruction
at every start of a sandbox. Neighbours mostly share their fate, so :func:`shorten` asks for ranges of numbers instead:
the same decisions, in a third of the instructions.
"""

from __future__ import annotations

import struct

from ..stdlib import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RETURN, LOAD, AND, JUMP = 0x06, 0x20, 0x54, 0x05
JUMP_EQUAL, JUMP_ABOVE, JUMP_FROM, JUMP_BITS = 0x15, 0x25, 0x35, 0x45
JUMPS = {JUMP_EQUAL: int.__eq__, JUMP_ABOVE: int.__gt__, JUMP_FROM: int.__ge__, JUMP_BITS: int.__and__}
KNOWN = frozenset((RETURN, LOAD, AND, JUMP, *JUMPS))
"""The instructions that libseccomp makes programs of."""
REACH = 255
"""Instructions that a conditional jump can skip."""
NUMBER, ARCHITECTURE = 0, 4
"""Offsets in ``struct seccomp_data``."""
NO_ARCHITECTURE = 0
HIGHEST = 0xFFFF_FFFF


class Instruction(NamedTuple):
    """A ``struct sock_filter``; ``yes`` and ``no`` are how many to skip."""

    op: int
    yes: int
    no: int
    value: int


def parse(program: bytes) -> list[Instruction]:
    """The instructions of a program."""
    return [Instruction(*words) for words in struct.iter_unpack("=HBBI", program)]


def pack(code: Sequence[Instruction]) -> bytes:
    """The program of these instructions."""
    return b"".join([struct.pack("=HBBI", *one) for one in code])


def verdict(code: Sequence[Instruction], call: bytes) -> int:
    """What a program returns for a ``struct seccomp_data``."""
    at = accumulator = 0
    while True:
        op, yes, no, value = code[at]
        at += 1
        if op == RETURN:
            return value
        if op == LOAD:
            accumulator = struct.unpack_from("=I", call, value)[0]
        elif op == AND:
            accumulator &= value
        elif op == JUMP:
            at += value
        else:
            at += yes if JUMPS[op](accumulator, value) else no


def shorten(program: bytes, architectures: Sequence[int]) -> bytes:
    """A program with the same answers.

    :param program: of libseccomp, with whatever stands before it.
    :param architectures: those that the program tells apart.
    :returns: ``program`` itself when it is not understood, or no longer than what would be made of it.
    """
    code = parse(program)
    decisions = Decisions(code)
    try:
        shorter = decisions.assemble(decisions.of(architectures))
    except (Unfit, RecursionError):
        return program
    return pack(shorter) if len(shorter) < len(code) else program


class Unfit(Exception):
    """The program does more with a number than to compare it."""


class Node(NamedTuple):
    """An instruction whose ways on are the numbers of other nodes; equal ones are one."""

    op: int
    value: int
    yes: int = -1
    no: int = -1


class Decisions:
    """What a program decides, as a graph without what is known beforehand.

    :param code: the program.
    """

    def __init__(self, code: Sequence[Instruction]) -> None:
        self._code = code
        self._nodes: list[Node] = []
        self._numbers: dict[Node, int] = {}

    def of(self, architectures: Sequence[int]) -> int:
        """Return the node that the program begins with."""
        node = self._follow({ARCHITECTURE: NO_ARCHITECTURE})
        for one in reversed(architectures):
            node = self._add(JUMP_EQUAL, one, self._numbers_of(one), node)
        return self._add(LOAD, ARCHITECTURE, node)

    def _numbers_of(self, architecture: int) -> int:
        """Return the node that the calls of one architecture begin with."""
        runs: list[tuple[int, int]] = []
        for start in self._starts():
            node = self._follow({NUMBER: start, ARCHITECTURE: architecture})
            if not runs or runs[-1][1] != node:
                runs.append((start, node))
        return self._add(LOAD, NUMBER, self._range(runs))

    def _add(self, op: int, value: int, yes: int = -1, no: int = -1) -> int:
        node = Node(op, value, yes, no)
        if node not in self._numbers:
            self._numbers[node] = len(self._nodes)
            self._nodes.append(node)
        return self._numbers[node]

    def _starts(self) -> list[int]:
        """Between two of these, numbers are not told apart."""
        values = {one.value for one in self._code if one.op in JUMPS}
        return sorted({0, *values, *(value + 1 for value in values if value < HIGHEST)})

    def _range(self, runs: Sequence[tuple[int, int]]) -> int:
        """Which run a number is in: by halves."""
        if len(runs) == 1:
            return runs[0][1]
        middle = len(runs) // 2
        return self._add(JUMP_FROM, runs[middle][0], self._range(runs[middle:]), self._range(runs[:middle]))

    def _follow(self, facts: Mapping[int, int]) -> int:
        """What is left of the program when some words of ``struct seccomp_data`` are known.

        :raises Unfit: it has an instruction that is not understood.
        """
        seen: dict[tuple[int, int | None], int] = {}

        def follow(at: int, known: int | None) -> int:
            if (at, known) not in seen:
                seen[at, known] = step(self._code[at], at + 1, known)
            return seen[at, known]

        def step(one: Instruction, at: int, known: int | None) -> int:
            if one.op == RETURN:
                return self._add(RETURN, one.value)
            if one.op == JUMP:
                return follow(at + one.value, known)
            if one.op == LOAD and one.value in facts:
                return follow(at, facts[one.value])
            if one.op == LOAD or (one.op == AND and known is None):
                return self._add(one.op, one.value, follow(at, None))
            if one.op not in JUMPS or (one.op == JUMP_BITS and known is not None):
                raise Unfit
            if known is not None:
                return follow(at + (one.yes if JUMPS[one.op](known, one.value) else one.no), known)
            yes, no = follow(at + one.yes, None), follow(at + one.no, None)
            return yes if yes == no else self._add(one.op, one.value, yes, no)

        return follow(0, None)

    def assemble(self, start: int) -> list[Instruction]:
        """The program that begins with the node ``start``. It is written from its end, for jumps lead forward."""
        code: list[Instruction] = []
        places: dict[int, int] = {}

        def skipped(number: int) -> int:
            """How many instructions are between the next one and that node's."""
            return len(code) - 1 - places[number]

        def write(number: int, *instruction: int) -> None:
            code.append(Instruction(*instruction))
            places[number] = len(code) - 1

        def bring_near(number: int) -> None:
            node = self._nodes[number]
            write(number, *(RETURN, 0, 0, node.value) if node.op == RETURN else (JUMP, 0, 0, skipped(number)))

        def place(number: int) -> None:
            if number in places:
                return
            op, value, yes, no = self._nodes[number]
            if op in JUMPS:
                place(yes)
                place(no)
                while far := [one for one in (yes, no) if skipped(one) > REACH]:
                    bring_near(far[0])
                write(number, op, skipped(yes), skipped(no), value)
                return
            if op != RETURN:
                place(yes)
                if skipped(yes):
                    bring_near(yes)
            write(number, op, 0, 0, value)

        place(start)
        return code[::-1]
