"""Keys, passwords and sockets that the command's user may read, and that are masked by default.

The tables are data: a path, and why it is there. What there is of them is in the plan.
"""

from __future__ import annotations

import os

from ..errors import SpecError
from ..host import Host
from ..records import Tmpfs
from ..spec import Spec
from ..spelling import spelled
from ..stdlib import TYPE_CHECKING, lru_cache, suppress
from . import paths, volumes
from .mounts import step, tmpfs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..steps import Step

IN_HOME = (
    (".ssh", "private keys, and where they are accepted"),
    (".gnupg", "private keys, and the agent's socket"),
    (".password-store", "passwords of pass(1)"),
    (".local/share/keyrings", "passwords of the GNOME keyring"),
    (".local/share/kwalletd", "passwords of KWallet"),
    (".netrc", "passwords for curl, git and ftp"),
    (".git-credentials", "passwords for git"),
    (".config/git/credentials", "passwords for git"),
    (".config/gh", "GitHub's token"),
    (".config/glab-cli", "GitLab's token"),
    (".aws", "keys of Amazon's cloud"),
    (".azure", "tokens of Microsoft's cloud"),
    (".config/gcloud", "tokens of Google's cloud"),
    (".boto", "keys of Google's and Amazon's storage"),
    (".s3cfg", "keys of Amazon's storage"),
    (".oci", "keys of Oracle's cloud"),
    (".config/doctl", "DigitalOcean's token"),
    (".config/hcloud", "Hetzner's token"),
    (".config/rclone", "passwords for remote storage"),
    (".kube", "the way into Kubernetes clusters"),
    (".docker/config.json", "passwords for container registries"), (".docker/run", "the socket of Docker Desktop"),
    (".docker/desktop", "the socket of Docker Desktop"), (".1password", "the socket of the password manager's agent"),
    (".config/containers/auth.json", "passwords for container registries"),
    (".vault-token", "HashiCorp Vault's token"),
    (".terraform.d/credentials.tfrc.json", "Terraform's token"),
    (".npmrc", "the token for npm's registry"),
    (".yarnrc.yml", "the token for npm's registry"),
    (".pypirc", "the token for PyPI"),
    (".gem/credentials", "the token for RubyGems"),
    (".cargo/credentials", "the token for crates.io"),
    (".cargo/credentials.toml", "the token for crates.io"),
    (".m2/settings.xml", "passwords for Maven's repositories"),
    (".config/composer/auth.json", "passwords for PHP's repositories"),
    (".pgpass", "passwords for PostgreSQL"),
    (".my.cnf", "passwords for MySQL"),
    (".mozilla", "passwords and cookies of Firefox"),
    (".config/google-chrome", "passwords and cookies of Chrome"),
    (".config/chromium", "passwords and cookies of Chromium"),
    (".bash_history", "passwords that were typed on a command line"),
    (".zsh_history", "passwords that were typed on a command line"),
)
"""Below the home directories of the launcher and of the command's user."""
OF_SYSTEM = (
    ("/etc/shadow", "hashes of passwords"), ("/etc/shadow-", "hashes of passwords"),
    ("/etc/gshadow", "hashes of groups' passwords"), ("/etc/gshadow-", "hashes of groups' passwords"),
    ("/etc/security/opasswd", "hashes of old passwords"),
    ("/etc/ssh/ssh_host_rsa_key", "the machine's identity"),
    ("/etc/ssh/ssh_host_ecdsa_key", "the machine's identity"),
    ("/etc/ssh/ssh_host_ed25519_key", "the machine's identity"),
    ("/etc/krb5.keytab", "the machine's identity"),
    ("/etc/ssl/private", "private keys of services"), ("/etc/letsencrypt", "private keys of services"),
    ("/etc/pki/tls/private", "private keys of services"), ("/etc/mysql/debian.cnf", "the database's password"),
    ("/etc/wireguard", "keys of networks"), ("/etc/ipsec.secrets", "keys of networks"),
    ("/etc/openvpn", "keys of networks"), ("/etc/NetworkManager/system-connections", "passwords of networks"),
    ("/etc/wpa_supplicant", "passwords of networks"),
    ("/etc/kubernetes", "the way into the Kubernetes cluster"),
    ("/var/lib/kubelet", "the node's identity, pods' secrets"),
    ("/etc/rancher", "the way into the Kubernetes cluster"),
)
"""Nobody but root, or members of some groups, may read these."""
SYSTEM = frozenset(path for path, _ in OF_SYSTEM)
SOCKETS = ("SSH_AUTH_SOCK", "DOCKER_HOST", "DBUS_SESSION_BUS_ADDRESS")
"""Variables of the launcher that name a socket; whoever may connect acts as the user."""
HOMES = ("/home", "/root")
"""What ``protect_home="tmpfs"`` leaves empty, besides the launcher's own home."""


def probe(spec: Spec, host: Host, root: str = "") -> tuple[str, ...]:
    """What there is of the tables.

    :param root: a directory that stands for ``/``, for tests.
    """
    if spec.rootfs:
        return ()
    named = dict.fromkeys((os.environ.get("HOME", "") or _home_of(host.uid), _home(spec),
                           "/root" if host.uid == 0 else ""))
    homes = tuple([path for home in named if home.startswith("/") for path in (home, os.path.realpath(home))])
    # access(2) makes no exception for each of the many that are not there.
    found = [path for path in _wanted(homes, tuple([os.environ.get(name, "") for name in SOCKETS]))
             if os.access(root + path, os.F_OK)]
    # Some of the system's may be read by a group, and without root the command keeps its user's groups.
    readable = os.F_OK if host.uid == 0 else os.R_OK
    return tuple(dict.fromkeys([*found, *[path for path, _ in OF_SYSTEM if os.access(root + path, readable)]]))


@lru_cache(maxsize=8)
def _wanted(homes: tuple[str, ...], sockets: tuple[str, ...]) -> tuple[str, ...]:
    """The paths of the tables, but for the system's, each once."""
    return tuple(dict.fromkeys((*_below(homes), *(path for value in sockets if (path := _socket(value))))))


def _below(homes: Iterable[str]) -> Iterator[str]:
    """The paths of :data:`IN_HOME` in these homes; an empty one and ``/`` are none."""
    yield from (f"{home}/{name}" for home in dict.fromkeys(home.rstrip("/") for home in homes) if home
                for name, _ in IN_HOME)


def _home_of(uid: int) -> str:
    """The home that the user database has, for a launcher without HOME."""
    import pwd

    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_dir
    return ""


def masks(spec: Spec, host: Host, owner: int | None) -> Iterator[Step]:
    """Cover them, by a file system of its own where something is to be mounted in one.

    :raises SpecError: ``unmask`` names what is not masked.
    """
    for path in spec.unmask:
        _check(host.absolute(path), path, spec, host)
    places = [*(one.target for one in spec.volume), *(one.target for one in spec.tmpfs)]
    for path in masked(spec, host):
        if any(paths.is_below(place, path) for place in places):
            yield tmpfs(Tmpfs(path, mode=0o755), owner)
        elif path not in places:
            yield step("mask", path)


def masked(spec: Spec, host: Host) -> tuple[str, ...]:
    """What is covered: what there is of the tables as far as ``protect_home`` says so, but for what is opened again."""
    found = [*host.secrets]
    if spec.protect_home == "off":
        found = [path for path in found if path in SYSTEM]
    elif spec.protect_home == "tmpfs" and not spec.rootfs:
        emptied = [path for path in dict.fromkeys((*HOMES, _home(spec))) if path.strip("/")]
        emptied = [path for path in emptied if not any(paths.is_below(path, one) for one in emptied)]
        found = [*emptied, *(path for path in found if not any(paths.is_below(path, one) for one in emptied))]
    opened = [host.absolute(path).rstrip("/") for path in spec.unmask]
    return tuple(path for path in found if not any(paths.is_within(path, one) for one in opened))


def hides(spec: Spec, host: Host, path: str) -> bool:
    """``path`` cannot be seen inside, because it is one of them or in one."""
    return not volumes.covers(spec, path) and any(paths.is_within(path, one) for one in masked(spec, host))


def reveals(path: str) -> bool:
    """A volume of this path of the host shows something of the tables, in whose home it may be."""
    first, *rest = path.strip("/").split("/")
    homes = ("/root", os.environ.get("HOME", ""), *(f"/home/{one}" for one in rest[:1] if first == "home"))
    return path in ("/", *HOMES) or any(paths.is_within(path, one) or paths.is_below(one, path)
                                        for one in (*SYSTEM, *_below(homes)))


def _check(path: str, given: str, spec: Spec, host: Host) -> None:
    known = (*host.secrets, *HOMES, *SYSTEM, *_below([_home(spec)]))
    path = path.rstrip("/")
    private = next((one for one in paths.PRIVATE if paths.is_below(path, one)), "")
    if private:
        raise SpecError(f"{spelled('unmask', given)}: the sandbox has a {private} of its own", field="unmask",
                        hint=f"show the host's file with {spelled('volume', f'{path}:{path}')}")
    if given.startswith("~"):
        raise SpecError(f"{spelled('unmask', given)}: the shell has not put your home in the place of ~",
                        field="unmask", hint="write $HOME")
    if not any(paths.is_within(one, path) for one in known):
        above = next((one for one in masked(spec, host) if paths.is_below(path, one)), "")
        raise SpecError(f"{spelled('unmask', given)}: it is not masked", field="unmask",
                        hint=f"{above} is: unmask that, or show this one with {spelled('volume', f'{path}:{path}:ro')}"
                        if above else "explain lists what is")


def _home(spec: Spec) -> str:
    """The home of the command's user."""
    return dict(spec.env).get("HOME", "").rstrip("/")


def _socket(value: str) -> str:
    """The path in the value of one of :data:`SOCKETS`."""
    path = value.partition("unix:path=")[2].partition(",")[0] or value.removeprefix("unix://")
    return path if path.startswith("/") else ""

