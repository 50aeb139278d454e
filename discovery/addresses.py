"""Addresses: those that a user wrote down, and those that the network claims.

Promises: `parse_peer` accepts exactly the documented spellings and explains every refusal; `usable_address`
lets nothing through that would make this device talk to itself, to everybody, or to a stranger on the
internet because a packet on the local network said so.

Never does I/O: no name is looked up here.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from discovery.errors import AddressError

DEFAULT_PORT = 4747
MAX_FIXED_PEERS = 64  # entries; one person's devices, with room. Each costs a lookup a minute
MAX_PEER_TEXT = 300  # characters: a host name has at most 253, then zone and port
MAX_ADDRESSES = 16  # of one candidate: bounds the connection attempts that one announcement can cause

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

# RFC 1123, and the underscore that home networks have
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_ZONE = re.compile(r"[A-Za-z0-9_.-]{1,15}")  # an interface name (at most 15 on Linux) or its number
_THIS_NETWORK = ipaddress.IPv4Network("0.0.0.0/8")
_HOW_TO_WRITE = "write it as desktop.lan, desktop.lan:4747, 10.0.0.2:4747 or [fe80::1%eth0]:4747"


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Where a device listens, as the user gave it: a host name or an address, and a port.

    `host` is a lower-case name without a final dot, or an IP address in its canonical text (with `%zone` if
    it needs one). `str()` gives back a spelling that `parse_peer` reads as the same value.
    """

    host: str
    port: int = DEFAULT_PORT

    @property
    def is_literal(self) -> bool:
        """Whether the host is an IP address, so that there is nothing to look up."""
        return _literal(self.host) is not None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_peers(texts: Iterable[str]) -> tuple[PeerAddress, ...]:
    """Read a list of fixed addresses, each once, in the order given; raises AddressError."""
    if isinstance(texts, str):
        raise AddressError(f'peers is a list of addresses: write ["{texts[:MAX_PEER_TEXT]}"]', texts)
    peers: dict[PeerAddress, None] = {}
    for text in texts:
        peers[parse_peer(text)] = None
        if len(peers) > MAX_FIXED_PEERS:
            raise AddressError(f"more than {MAX_FIXED_PEERS} fixed addresses: remove some", text)
    return tuple(peers)


def parse_peer(text: str) -> PeerAddress:
    """Read one fixed address: `host`, `host:port`, `[ipv6]` or `[ipv6]:port`; raises AddressError."""
    if not isinstance(text, str):
        raise AddressError(f"a fixed address is text, not {type(text).__name__}: {_HOW_TO_WRITE}", repr(text))
    stripped = text.strip()
    if not stripped:
        raise AddressError(f"a fixed address is empty: {_HOW_TO_WRITE}", text)
    if len(stripped) > MAX_PEER_TEXT:
        raise AddressError(f"fixed address {stripped[:40]!r}... is too long: {_HOW_TO_WRITE}", text)
    if stripped.startswith("["):
        host, bracket, rest = stripped[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise AddressError(f"fixed address {text!r} has unbalanced brackets: {_HOW_TO_WRITE}", text)
        return PeerAddress(_bracketed_host(host, text), _port(rest[1:], text) if rest else DEFAULT_PORT)
    host, colon, port = stripped.partition(":")
    if ":" in port:
        raise AddressError(
            f"fixed address {text!r} has several colons: IPv6 takes brackets, as in [fe80::1%eth0]:4747", text
        )
    return PeerAddress(_plain_host(host, text), _port(port, text) if colon else DEFAULT_PORT)


def _port(digits: str, text: str) -> int:
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 5 and 1 <= int(digits) <= 65535):
        raise AddressError(f"fixed address {text!r} needs a port from 1 to 65535 after the last colon", text)
    return int(digits)


def _bracketed_host(host: str, text: str) -> str:
    address, percent, zone = host.partition("%")
    if percent and not _ZONE.fullmatch(zone):
        raise AddressError(f"fixed address {text!r} names no sound network interface after the %", text)
    literal = _literal(address)
    if not isinstance(literal, ipaddress.IPv6Address):
        raise AddressError(f"fixed address {text!r} has no IPv6 address in its brackets: {_HOW_TO_WRITE}", text)
    if literal.is_multicast or literal.is_unspecified:
        raise AddressError(f"fixed address {text!r} is not the address of one device", text)
    if literal.is_link_local and not zone:
        raise AddressError(
            f"fixed address {text!r} is link-local: name the interface too, as in [{literal}%eth0]:4747", text
        )
    return f"{literal}%{zone}" if percent else str(literal)


def _plain_host(host: str, text: str) -> str:
    literal = _literal(host)
    if literal is not None:
        limited = literal == ipaddress.IPv4Address("255.255.255.255")
        if literal.is_multicast or limited or literal in _THIS_NETWORK:
            raise AddressError(f"fixed address {text!r} is not the address of one device", text)
        return str(literal)
    name = host.removesuffix(".").lower()
    labels = name.split(".")
    if not name or len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise AddressError(f"fixed address {text!r} has no sound host name: {_HOW_TO_WRITE}", text)
    if labels[-1].isdigit():
        raise AddressError(f"fixed address {text!r} looks like an IPv4 address and is none: {_HOW_TO_WRITE}", text)
    return name


def _literal(host: str) -> IPAddress | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_connectable(text: str) -> bool:
    """Whether an address can be connected to at all: it is that of one device, and complete.

    An IPv6 link-local address without its zone is not.
    """
    address = _literal(text)
    if address is None or address.is_multicast or address.is_unspecified:
        return False
    return not (isinstance(address, ipaddress.IPv6Address) and address.is_link_local and not address.scope_id)


def usable_address(text: str, networks: Sequence[IPNetwork], *, loopback: bool) -> bool:
    """Whether an address heard on the network may be connected to.

    Private, link-local and shared (100.64.0.0/10) addresses may; an address of the public internet only where
    one of `networks`, those this device is on, contains it: otherwise one forged packet could make every
    device knock on a stranger's door. Loopback only where `loopback` says that announcements come from this
    machine.
    """
    address = _literal(text)
    if address is None or not is_connectable(text):
        return False
    if address.is_loopback:
        return loopback
    if address.is_reserved or address in _THIS_NETWORK:
        return False
    return not address.is_global or any(address in network for network in networks)


def choose_addresses(texts: Iterable[str], networks: Sequence[IPNetwork], *, loopback: bool) -> tuple[str, ...]:
    """The usable ones of these addresses, the most promising first, at most MAX_ADDRESSES.

    First those on a network that this device is on too; link-local ones last, because they say least; IPv4
    before IPv6 among equals; then by number, so that the same set always gives the same order.
    """
    usable = {text for text in texts if usable_address(text, networks, loopback=loopback)}
    return tuple(sorted(usable, key=lambda text: _promise(text, networks))[:MAX_ADDRESSES])


def _promise(text: str, networks: Sequence[IPNetwork]) -> tuple[bool, bool, int, int, str]:
    address = ipaddress.ip_address(text)
    elsewhere = not any(address in network for network in networks)
    return address.is_link_local, elsewhere, address.version, int(address), text
