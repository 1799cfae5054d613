"""Addresses of servers on this machine: how they are written, who may ask for them, and past which proxy."""

import ipaddress
import socket
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

LOOPBACK = ("localhost", "127.0.0.1", "::1")
# What MLflow lets ask by default (MLFLOW_SERVER_ALLOWED_HOSTS): the private networks of RFC 1918.
PRIVATE = ("10.*", "192.168.*", *(f"172.{number}.*" for number in range(16, 32)))
PROXIES = ("http_proxy", "https_proxy", "all_proxy")  # variables that name one, in any case
SERVERS = ("MLFLOW_TRACKING_URI", "PREFECT_API_URL")


def url(host: str, port: int) -> str:
    """Where a server that listens on `host` is asked: http://HOST:PORT, IPv6 in brackets (RFC 3986).

    An address that stands for every address of the machine (0.0.0.0, ::) is asked at its loopback address.
    """
    return f"http://{bracketed(reachable(host))}:{port}"


def reachable(host: str) -> str:
    """The host itself, or the loopback address in place of 0.0.0.0 and ::."""
    address = _address(host)
    if address is None or not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"


def bracketed(host: str) -> str:
    """A host as it is written in URLs: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Whether only this machine can ask a server that listens on `host`."""
    address = _address(host)
    return address.is_loopback if address else host.lower() in LOOPBACK


def is_here(host: str) -> bool:
    """Whether `host` is a name or an address of this machine. Asks no name server, which may take seconds."""
    address = _address(host)
    if address is None:
        own = socket.gethostname().lower()
        return host.lower() in ("localhost", own, own.partition(".")[0]) or host.lower().endswith(".localhost")
    with socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET) as probe:
        try:
            probe.bind((host, 0))  # only addresses of this machine can be bound
        except OSError:
            return False
    return True


def names_here(host: str) -> list[str]:
    """What people may write to reach a server that listens on `host`: names and addresses, without brackets."""
    if is_loopback(host):
        return list(dict.fromkeys([*LOOPBACK, host]))
    import psutil

    # A link-local address carries its interface, as fe80::1%eth0, which no browser accepts.
    addresses = [entry.address for entries in psutil.net_if_addrs().values() for entry in entries]
    found = [address for address in addresses if _address(address) and "%" not in address]
    return list(dict.fromkeys([*LOOPBACK, reachable(host), socket.gethostname(), socket.getfqdn(), *found]))


def admitted(host: str, port: int, environment: Mapping[str, str]) -> dict[str, str]:
    """MLflow's variables that let browsers in at every name of this machine, beside what `environment` lets in.

    MLflow 3 answers 403 where the Host or Origin header is none that it knows. By default it knows localhost and
    private networks as hosts, and only localhost as origins: pages open, and stay empty.
    """
    hosts, origins = ("MLFLOW_SERVER_ALLOWED_HOSTS", "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS")
    names = [bracketed(name) for name in names_here(host)]
    # With the port as it is here, or another one that is forwarded to it; [ would begin a set of characters.
    patterns = [pattern for name in names for pattern in (name, f"{name.replace('[', '[[]')}:*")]
    return {
        hosts: _joined(environment.get(hosts) or ",".join(PRIVATE), patterns),
        origins: _joined(environment.get(origins, ""), [f"http://{name}:{port}" for name in names]),
    }


def direct(
    environment: Mapping[str, str], hosts: Iterable[str], system: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Variables under which this machine and `hosts` are asked without a proxy, and all others as before.

    Args:
        environment: variables as they are; not changed.
        hosts: names and addresses, without brackets.
        system: proxies of the operating system, {scheme: address}; none: those that Python finds. On Windows and
            macOS no_proxy alone would hide them, so they are repeated where the environment names no proxy.

    Entries of no_proxy at which httpx, Prefect's client, ends are written as it reads them ([::1] as ::1) or left
    out (networks of IPv6, which none of our clients understands).
    """
    found: dict[str, str] = {}
    if not any(name.lower() in PROXIES for name in environment):
        from urllib.request import getproxies  # 30 ms, which commands without such a server do without

        proxies = getproxies() if system is None else system
        found = {f"{scheme}_proxy": address for scheme, address in proxies.items() if scheme != "no"}
    for name, other in (("no_proxy", "NO_PROXY"), ("NO_PROXY", "no_proxy")):
        known = environment.get(name) or environment.get(other, "")
        readable = [entry for entry in map(_readable, known.split(",")) if entry]
        # Beside other entries a * is no longer one for urllib.
        found[name] = "*" if "*" in readable else _joined(",".join(readable), [*LOOPBACK, *hosts])
    return found


def direct_servers(environment: Mapping[str, str]) -> dict[str, str]:
    """`direct` for the servers that MLFLOW_TRACKING_URI and PREFECT_API_URL name, if they are this machine's."""
    own = [host for host in map(host_of, (environment.get(name, "") for name in SERVERS)) if host and is_here(host)]
    return direct(environment, own) if own else {}


def host_of(address: str) -> str:
    """The host that a URL names, without brackets; "" where it names none."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:  # half a bracket
        return ""


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _readable(entry: str) -> str:
    entry = entry.strip()
    if entry.startswith("[") and entry.endswith("]"):
        return entry[1:-1]
    return "" if ":" in entry and "/" in entry and "://" not in entry else entry


def _joined(known: str, added: Iterable[str]) -> str:
    """Comma-separated entries, each once, the known ones first."""
    return ",".join(dict.fromkeys([entry.strip() for entry in known.split(",") if entry.strip()] + list(added)))
