"""nftables tables that exist only as long as a socket of ours, or a namespace: :class:`Table`.

A rule is written as for nft(8), so that what ``explain`` prints can be typed. An owned table has the flag ``owner``
(Linux 5.12): the kernel removes it, all at once, when the netlink socket that made it is closed, also by SIGKILL, and
nobody else can change it. Neither nft(8) nor pyroute2 can be used for that: nft's socket ends with the program;
pyroute2's (0.9) ends with its event loop, it commits each rule alone, and encodes the results of ``fib`` as bits of a
mask.
"""

from __future__ import annotations

import socket
from errno import EEXIST, EOPNOTSUPP
from struct import Struct, pack

from ..errors import StepError
from ..stdlib import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# <linux/netlink.h>, <linux/netfilter/nfnetlink.h>
NETLINK_NETFILTER, NLMSG_ERROR = 12, 2
NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x1, 0x4, 0x200, 0x400, 0x800
NFNL_SUBSYS_NFTABLES, BATCH_BEGIN, BATCH_END = 10, 0x10, 0x11
NESTED = 0x8000
HEADER, FAMILY = Struct("=IHHII"), Struct(">BBH")
# <linux/netfilter/nf_tables.h>; attributes are numbered alike in the table, chain and rule messages.
NEWTABLE, DELTABLE, NEWCHAIN, NEWRULE = 0, 2, 3, 6
TABLE_FLAGS, CHAIN_NAME, CHAIN_HOOK, CHAIN_TYPE, RULE_CHAIN, RULE_EXPRESSIONS = 2, 3, 4, 7, 2, 4
OWNER = 0x2
EQUAL, NOT_EQUAL = 0, 1
NETWORK, TRANSPORT = 1, 2
IIFNAME, OIFNAME, L4PROTO = 6, 7, 16
CT_STATE, CT_STATUS = 0, 2
ESTABLISHED_OR_RELATED, IPS_DST_NAT = 0x2 | 0x4, 0x20
FIB_ADDRTYPE, FIB_DADDR, RTN_LOCAL = 3, 0x2, 2
HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
PROTOCOLS = {"tcp": 6, "udp": 17}
PATIENCE = 10.0


class Table:
    """A table of family ``ip`` in the network namespace of the calling thread, made in one transaction.

    :param name: of the table.
    :param commands: nft(8) commands: ``add chain ip NAME CHAIN { type ... hook ... priority ...; }`` and
        ``add rule ip NAME CHAIN ...`` with the phrases of :data:`MATCHES` and one of :data:`STATEMENTS`.
    :param owned: it ends with the socket; else with the namespace.
    :raises StepError: the kernel refuses it.
    """

    def __init__(self, name: str, commands: Sequence[str], *, owned: bool = True) -> None:
        self._name = name
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        self._socket.settimeout(PATIENCE)
        try:
            self._socket.bind((0, 0))
            self._commit([(NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, _text(1, name) + _number(TABLE_FLAGS, OWNER * owned)),
                          *(message(command) for command in commands)])
        except OSError as error:
            self._socket.close()
            hint = {EEXIST: f"nft delete table ip {name}, if nobody uses it",
                    EOPNOTSUPP: "it takes Linux 5.12 and nf_tables with NAT"}.get(error.errno or 0, "")
            raise StepError(f"cannot make the nftables table ip {name}", errno=error.errno or 0, hint=hint) from error

    def close(self) -> None:
        """Close the socket, which removes the table if it is owned."""
        self._socket.close()

    def _commit(self, messages: Sequence[tuple[int, int, bytes]]) -> None:
        """Send a transaction; the kernel answers for those that fail, and for the last one in any case."""
        packets = [_packet(BATCH_BEGIN, 0, b"", subsystem=0, resource=NFNL_SUBSYS_NFTABLES)]
        last = len(messages) - 1
        for index, (kind, flags, attributes) in enumerate(messages):
            packets.append(_packet(kind, flags | (NLM_F_ACK if index == last else 0), attributes, family=2))
        packets.append(_packet(BATCH_END, 0, b"", subsystem=0, resource=NFNL_SUBSYS_NFTABLES))
        self._socket.send(b"".join(packets))
        answer = self._socket.recv(1 << 16)
        code = int.from_bytes(answer[HEADER.size:HEADER.size + 4], "little", signed=True)
        if HEADER.unpack_from(answer)[1] != NLMSG_ERROR or code:
            raise OSError(-code, "nfnetlink")


def message(command: str) -> tuple[int, int, bytes]:
    """A message's type, flags and attributes for one command.

    :raises ValueError: a phrase that is not known here.
    """
    verb, what, family, table, chain, *words = command.replace(";", " ").split()
    if (verb, family) != ("add", "ip") or what not in ("chain", "rule"):
        raise ValueError(command)
    if what == "rule":
        attributes = _text(1, table) + _text(RULE_CHAIN, chain) + _nested(RULE_EXPRESSIONS, _expressions(words))
        return NEWRULE, NLM_F_CREATE | NLM_F_APPEND, attributes
    _, _, kind, _, hook, _, priority, _ = words
    where = _number(1, HOOKS[hook]) + _attribute(2, pack(">i", int(priority)))
    return NEWCHAIN, NLM_F_CREATE, _text(1, table) + _text(CHAIN_NAME, chain) + _nested(CHAIN_HOOK, where) + _text(
        CHAIN_TYPE, kind)


def _expressions(words: list[str]) -> bytes:
    """The expressions of a rule: matches, each with one word or two, then a statement."""
    found, at = b"", 0
    while at < len(words):
        phrase = next((one for size in (4, 3, 2, 1) if (one := " ".join(words[at:at + size])) in PHRASES), None)
        if phrase is None:
            raise ValueError(f"nft: {' '.join(words[at:])}")
        at += phrase.count(" ") + 1
        taken = []
        if phrase in MATCHES_WITH_VALUE:
            if words[at] == "!=":
                taken, at = ["!="], at + 1
            taken, at = [*taken, words[at]], at + 1
        found += PHRASES[phrase](*taken)
    return found


# -- phrases: each loads something into register 1 and compares it, or decides

def _name(key: int) -> Callable[..., bytes]:
    """The name of a device, with its zeros: no other name begins like it."""
    return lambda *words: _expression("meta", _number(1, 1), _number(2, key)) + _compare(
        words[-1].encode().ljust(16, b"\0"), NOT_EQUAL if words[0] == "!=" else EQUAL)


def _address(offset: int) -> Callable[..., bytes]:
    def match(*words: str) -> bytes:
        address, _, length = words[-1].partition("/")
        mask = (0xFFFF_FFFF << (32 - int(length or 32))) & 0xFFFF_FFFF
        return _payload(NETWORK, offset, 4) + _masked(pack(">I", mask)) + _compare(
            socket.inet_aton(address), NOT_EQUAL if words[0] == "!=" else EQUAL)

    return match


def _port(protocol: int) -> Callable[..., bytes]:
    return lambda port: (_expression("meta", _number(1, 1), _number(2, L4PROTO)) + _compare(bytes([protocol]))
                         + _payload(TRANSPORT, 2, 2) + _compare(pack(">H", int(port))))


def _connection(key: int, bits: int) -> Callable[..., bytes]:
    return lambda: (_expression("ct", _number(1, 1), _number(2, key)) + _masked(pack("=I", bits))
                    + _compare(pack("=I", 0), NOT_EQUAL))


def _is_local() -> bytes:
    return _expression("fib", _number(1, 1), _number(2, FIB_ADDRTYPE), _number(3, FIB_DADDR)) + _compare(
        pack("=I", RTN_LOCAL))


def _verdict(code: int) -> Callable[..., bytes]:
    return lambda: _expression("immediate", _number(1, 0), _nested(2, _nested(2, _number(1, code))))


def _masquerade() -> bytes:
    return _expression("masq")


def _dnat(target: str) -> bytes:
    address, _, port = target.partition(":")
    return (_expression("immediate", _number(1, 1), _nested(2, _attribute(1, socket.inet_aton(address))))
            + _expression("immediate", _number(1, 2), _nested(2, _attribute(1, pack(">H", int(port)))))
            + _expression("nat", _number(1, 1), _number(2, 2), _number(3, 1), _number(5, 2)))


MATCHES_WITH_VALUE: dict[str, Callable[..., bytes]] = {
    "iifname": _name(IIFNAME), "oifname": _name(OIFNAME), "ip saddr": _address(12), "ip daddr": _address(16),
    "tcp dport": _port(PROTOCOLS["tcp"]), "udp dport": _port(PROTOCOLS["udp"]), "dnat to": _dnat,
}
PHRASES: dict[str, Callable[..., bytes]] = MATCHES_WITH_VALUE | {
    "fib daddr type local": _is_local, "ct state established,related": _connection(CT_STATE, ESTABLISHED_OR_RELATED),
    "ct status dnat": _connection(CT_STATUS, IPS_DST_NAT), "masquerade": _masquerade,
    "accept": _verdict(1), "drop": _verdict(0),
}
"""What a rule may say, in nft's words."""


# -- expressions and attributes

def _payload(base: int, offset: int, length: int) -> bytes:
    return _expression("payload", _number(1, 1), _number(2, base), _number(3, offset), _number(4, length))


def _masked(mask: bytes) -> bytes:
    return _expression("bitwise", _number(1, 1), _number(2, 1), _number(3, len(mask)),
                       _nested(4, _attribute(1, mask)), _nested(5, _attribute(1, bytes(len(mask)))))


def _compare(value: bytes, operator: int = EQUAL) -> bytes:
    return _expression("cmp", _number(1, 1), _number(2, operator), _nested(3, _attribute(1, value)))


def _expression(name: str, *attributes: bytes) -> bytes:
    return _nested(1, _text(1, name) + _nested(2, b"".join(attributes)))


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, pack(">I", value))


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _nested(kind: int, value: bytes) -> bytes:
    return _attribute(kind | NESTED, value)


def _attribute(kind: int, value: bytes) -> bytes:
    return pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _packet(kind: int, flags: int, attributes: bytes, *, family: int = 0, resource: int = 0,
            subsystem: int = NFNL_SUBSYS_NFTABLES) -> bytes:
    body = FAMILY.pack(family, 0, resource) + attributes
    return HEADER.pack(HEADER.size + len(body), subsystem << 8 | kind, flags | NLM_F_REQUEST, 1, 0) + body
