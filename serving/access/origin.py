"""From which address a request came: the peer's, unless a proxy that is believed says otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

UNKNOWN = "unknown"
MARK_HEADER = "x-factotum-proxy"  # by which this installation's own proxy vouches for itself
PROXY_MARK = "FACTOTUM_PROXY_MARK"  # the environment's word for what it says there, made anew at each start
_LONGEST = 60  # characters of one hop: an IPv6 address in brackets with a zone and a port

_Address = IPv4Address | IPv6Address


def client_address(peer: str, forwarded_for: Sequence[str], proxies: Sequence[str], through_own: bool = False) -> str:
    """The client's address in its shortest form, or "unknown".

    peer: the other end of the connection. forwarded_for: the values of all X-Forwarded-For headers in their order, each a list of hops with
    commas between; every proxy appends whom it heard, so that what a client made up stands on the left. Hops are taken from the right, and
    only while the one before is believed: it lies in `proxies` (networks as in deployment.access.proxies), or it is the peer and
    `through_own`: this installation's own proxy has vouched for itself. A hop that is no address ends the walk where it stands.
    Raises nothing.
    """
    networks = _networks(tuple(proxies))
    current = _parsed(peer)
    believed = through_own or (current is not None and _within(current, networks))
    hops = _from_the_right(forwarded_for) if believed else ()
    for hop in hops:
        heard = _parsed(hop)
        if heard is None:
            break
        current = heard
        if not _within(current, networks):
            break
    return UNKNOWN if current is None else str(current)


def counted_address(address: str) -> str:
    """Under which name an address is counted: an IPv6 client has a whole /64 and would otherwise have as many limits."""
    parsed = _parsed(address)
    return str(IPv6Network((int(parsed), 64), strict=False)) if isinstance(parsed, IPv6Address) else address


def _from_the_right(values: Sequence[str]) -> list[str]:
    return [hop for value in reversed(values) for hop in reversed(value.split(","))]


def _parsed(text: str) -> _Address | None:
    """`1.2.3.4`, `1.2.3.4:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`, any of them in quotes; with a zone, which is dropped."""
    text = text.strip(" \t").strip('"')
    if not text or len(text) > _LONGEST:
        return None
    if text.startswith("["):
        text, bracket, port = text[1:].partition("]")
        if not bracket or (port and not _is_port(port)):
            return None
        if ":" not in text:
            return None
    elif text.count(":") == 1:
        text, _, port = text.partition(":")
        if not _is_port(f":{port}"):
            return None
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _is_port(text: str) -> bool:
    digits = text[1:]
    return text[0] == ":" and digits.isascii() and digits.isdigit() and len(digits) <= 5


@lru_cache(maxsize=16)
def _networks(proxies: tuple[str, ...]) -> tuple[tuple[int, int, int], ...]:
    """(version, network, mask) of each."""
    parsed = [ip_network(proxy) for proxy in proxies]
    return tuple((network.version, int(network.network_address), int(network.netmask)) for network in parsed)


def _within(address: _Address, networks: tuple[tuple[int, int, int], ...]) -> bool:
    number = int(address)
    return any(version == address.version and number & mask == network for version, network, mask in networks)
