"""What a :class:`~sandbox.host.Host` consists of: a disk, a place, a network, a device, ids, a systemd manager."""

from __future__ import annotations

from .stdlib import NamedTuple


class Hierarchy(NamedTuple):
    """One mounted cgroup tree and the place in it where we may work.

    :param version: 1 or 2.
    :param controllers: kernel names; on v1 those it is mounted with, on v2 what the root's ``cgroup.controllers`` says.
    :param mount: where it is mounted, e.g. ``/sys/fs/cgroup/memory`` (symlinks such as ``cpu`` are not followed).
    :param own: the caller's cgroup as a path below ``mount``, starting with ``/``.
    :param parent: the cgroup that new ones are made in, below ``mount``; None when there is none we may use.
    :param reason: why ``parent`` is not ``own``, or why there is none; empty when they are the same.
    :param usable: controllers that a child of ``parent`` has or can be given.
    :param enable: v2: the cgroups from the top down, below ``mount``, in whose ``cgroup.subtree_control`` the usable
        controllers may have to be enabled, each with the controllers that are on there already.
    :param files: names of the kernel files a non-root cgroup of it has, as far as could be seen.
    :param root: the cgroup that is mounted at ``mount``, as in ``/proc/self/mountinfo``.
    """

    version: int
    controllers: tuple[str, ...]
    mount: str
    own: str = "/"
    parent: str | None = "/"
    reason: str = ""
    usable: tuple[str, ...] = ()
    enable: tuple[tuple[str, tuple[str, ...]], ...] = ()
    files: tuple[str, ...] = ()
    root: str = "/"


class Disk(NamedTuple):
    """What a path was resolved to for I/O limits.

    :param path: as the user gave it.
    :param device: ``MAJ:MIN`` of the whole disk; empty when there is none.
    :param chain: what was gone through, e.g. ``("/var/tmp", "254:1 vda1", "254:0 vda")``.
    :param reason: why there is no disk; empty when there is one.
    """

    path: str
    device: str = ""
    chain: tuple[str, ...] = ()
    reason: str = ""


class Place(NamedTuple):
    """What a path of the Spec leads to.

    :param path: as the Spec has it, made absolute.
    :param kind: ``directory``, ``file`` for anything else, empty when there is nothing that the launcher can see.
    :param real: the path without symbolic links.
    """

    path: str
    kind: str = ""
    real: str = ""


class Network(NamedTuple):
    """What ``--network veth`` must know of the machine's own network.

    :param taken: IPv4 networks that have addresses or routes here, as ``10.0.0.0/8``.
    :param uplink: the device of the default route; empty when there is none.
    :param mtu: of the uplink.
    :param forwarding: what comes in by the uplink is passed on to other devices.
    :param ipv6: the kernel has IPv6.
    :param filters: nftables chains that drop what is forwarded unless a rule lets it pass, as ``ip filter FORWARD``.
    :param resolv_conf: ``/etc/resolv.conf`` without symbolic links; empty when it is not there.
    :param nameservers: the name servers in it.
    :param upstream: systemd-resolved's file of the servers that it asks itself; empty when there is none.
    :param lacks: what was tried and cannot be done here: ``veth``, ``nftables``, ``tbf`` or ``netem``, and why.
    """

    taken: tuple[str, ...] = ()
    uplink: str = ""
    mtu: int = 1500
    forwarding: bool = False
    ipv6: bool = False
    filters: tuple[str, ...] = ()
    resolv_conf: str = ""
    nameservers: tuple[str, ...] = ()
    upstream: str = ""
    lacks: tuple[tuple[str, str], ...] = ()


class Property(NamedTuple):
    """One property of a systemd unit.

    :param name: as on D-Bus, e.g. ``CPUQuotaPerSecUSec``.
    :param signature: its D-Bus type.
    :param words: the value: one word, or the members of an array one after another.
    """

    name: str
    signature: str
    words: tuple[str, ...]


class Manager(NamedTuple):
    """The systemd manager that is asked for units: the system's, or the user's own.

    :param version: of systemd, e.g. 252; 0 when there is no manager to ask.
    :param user: it is the user's.
    :param control_group: the cgroup that its units are in, as ``/`` or ``/user.slice/.../user@1000.service``.
    :param controllers: v2: those that its units can be given.
    :param delegated: the cgroup below which the launcher may do as it likes, because a unit was delegated to it; empty
        when there is none.
    :param properties: what the texts of ``--property`` mean, each as name, D-Bus type and words.
    :param problem: why it cannot be asked; empty when it can.
    :param remedy: what to do about that; empty when there is no systemd to do anything about.
    """

    version: int = 0
    user: bool = False
    control_group: str = "/"
    controllers: tuple[str, ...] = ()
    delegated: str = ""
    properties: tuple[Property, ...] = ()
    problem: str = "systemd is not running"
    remedy: str = ""


class Docker(NamedTuple):
    """Versions of docker and its OCI runtime, by ``docker version``. A text is empty if that does not tell it.

    :param client: version of the docker command, e.g. ``28.2.2``.
    :param runtime: name of the OCI runtime that the daemon starts containers with, e.g. ``runc``.
    :param runtime_version: e.g. ``1.1.15``.
    """

    client: str = ""
    runtime: str = ""
    runtime_version: str = ""


class Node(NamedTuple):
    """A device node.

    :param path: as the Spec has it, or below what it has.
    :param kind: ``c`` or ``b``.
    :param major: its numbers.
    :param mode: permissions, without the type.
    :param uid: its owner and group.
    :param access: what the launcher may do: of ``r`` read and ``w`` write.
    """

    path: str
    kind: str
    major: int
    minor: int
    mode: int
    uid: int
    gid: int
    access: str = "rw"


class Lent(NamedTuple):
    """Ids that subuid(5) and subgid(5) lend to the launcher's user, and the tools that map them.

    :param user: the user's name; empty when nobody has looked.
    :param uids: first id outside and how many, as in ``/etc/subuid``.
    :param gids: the same of ``/etc/subgid``.
    :param newuidmap: path of newuidmap(1); empty when it is not there, or has not the privileges it needs.
    :param newgidmap: path of newgidmap(1).
    """

    user: str = ""
    uids: tuple[tuple[int, int], ...] = ()
    gids: tuple[tuple[int, int], ...] = ()
    newuidmap: str = ""
    newgidmap: str = ""
