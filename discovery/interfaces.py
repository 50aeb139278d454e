"""The network interfaces of this machine, and which of them discovery uses.

Promises: `select` is pure and says of every interface that it leaves out why. `read_interfaces` reports only
addresses that a socket can be bound to now: an IPv6 address is listed by the system for a second or two
before duplicate address detection (RFC 4862 section 5.4) lets anybody use it.

Never sends anything.
"""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal

import ifaddr

from discovery.addresses import IPNetwork
from discovery.errors import SettingError

# In use at once: Linux lets a socket join 20 multicast groups (net.ipv4.igmp_max_memberships).
MAX_INTERFACES = 16
MAX_IPV6_ANNOUNCED = 3  # addresses of one interface: link-local, and two more where prefixes make many
MAX_IPV4_ANNOUNCED = 2  # addresses of one interface: an alias beside the first

# Names of interfaces that lead to containers, virtual machines and tunnels, not to other devices: bridges of Docker,
# Podman, LXC, libvirt, VirtualBox, VMware and Kubernetes, their ends, VPNs, and Apple's direct links.
IGNORED_INTERFACES: tuple[str, ...] = (
    *("docker*", "br-*", "veth*", "podman*", "cni*", "lxcbr*", "lxdbr*", "incusbr*", "virbr*", "vnet*"),
    *("vboxnet*", "vmnet*", "cali*", "flannel*", "cilium*", "lxc*", "kube-*", "dummy*", "ifb*"),
    *("sit*", "ip6tnl*", "tun*", "tap*", "wg*", "tailscale*", "zt*", "ppp*", "utun*"),
    *("awdl*", "llw*", "nordlynx*", "proton*"),
)

# net/if.h and linux/sockios.h
_SIOCGIFFLAGS = 0x8913
_IFF_UP, _IFF_LOOPBACK, _IFF_POINTOPOINT, _IFF_RUNNING, _IFF_MULTICAST = 0x1, 0x8, 0x10, 0x40, 0x1000
_INTERFACE_NAME_BYTES = 15
_LINK_LOCAL_IPV4 = ipaddress.IPv4Network("169.254.0.0/16")

Wanted = Literal["loopback"] | Sequence[str] | None


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface as it is now. Two equal values mean that nothing happened to it in between.

    `index` is the system's number: an interface that was removed and made again has another. Addresses are
    text without prefix or zone, in the system's order; `networks` are the prefixes they are in. `link_local`
    is an IPv6 link-local address that no other interface has (those on one cable may have the same).
    """

    name: str
    index: int
    ipv4: tuple[str, ...] = ()
    ipv6: tuple[str, ...] = ()
    link_local: str | None = None
    networks: tuple[IPNetwork, ...] = ()
    up: bool = True
    loopback: bool = False
    point_to_point: bool = False
    multicast: bool = True


@dataclass(frozen=True, slots=True)
class Selection:
    """`used` interfaces in order of name, and the names of the others with the reason for each."""

    used: tuple[Interface, ...]
    left_out: tuple[tuple[str, str], ...]


def checked_interfaces(wanted: Wanted) -> Wanted:
    """None for all that make sense, "loopback", or names and patterns ("eth*"); raises SettingError."""
    if wanted is None or wanted == "loopback":
        return wanted
    if isinstance(wanted, str):
        raise SettingError(f'interfaces {wanted!r} is neither None nor "loopback": give a list of names')
    names = tuple(wanted)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise SettingError(f"interfaces {wanted!r} is no list of interface names: leave it out to use all")
    return names


def select(interfaces: Sequence[Interface], wanted: Wanted, ignored: Sequence[str] = IGNORED_INTERFACES) -> Selection:
    """Choose the interfaces to announce and listen on.

    None takes all but loopback, tunnels and those that match `ignored`; "loopback" takes that alone; names or
    patterns take exactly what they match, whatever it is.
    """
    used: list[Interface] = []
    left_out: list[tuple[str, str]] = []
    for interface in sorted(interfaces, key=lambda one: one.name):
        reason = _reason_against(interface, wanted, ignored)
        if not reason and len(used) == MAX_INTERFACES:
            reason = f"only {MAX_INTERFACES} interfaces are used at once"
        if reason:
            left_out.append((interface.name, reason))
        else:
            used.append(interface)
    return Selection(tuple(used), tuple(left_out))


def _reason_against(interface: Interface, wanted: Wanted, ignored: Sequence[str]) -> str:
    """Why an interface is not used; empty if it is."""
    if wanted is None:
        if interface.loopback:
            return "loopback"
        if any(fnmatchcase(interface.name, pattern) for pattern in ignored):
            return "container, virtual machine or tunnel"
        if interface.point_to_point:
            return "tunnel"
    elif wanted == "loopback":
        if not interface.loopback:
            return "only loopback is wanted"
    elif not any(fnmatchcase(interface.name, pattern) for pattern in wanted):
        return "not among those wanted"
    if not interface.up:
        return "down"
    # The loopback interface has no multicast flag on Linux, and carries multicast all the same.
    if not interface.multicast and not interface.loopback:
        return "no multicast"
    if not _multicast_choice_of(interface):
        return "no address"
    return ""


def multicast_choice(interfaces: Sequence[Interface]) -> list[str | int]:
    """The interfaces as zeroconf takes them: of each one IPv4 address, and one IPv6 address or its index.

    One, because a group can be joined only once on an interface; its other addresses are announced all the
    same. Link-local where possible: only what is sent from there tells others through which of their
    interfaces they heard it, so that they can use the link-local addresses in it; and it stays when other
    addresses come and go.
    """
    return [choice for interface in interfaces for choice in _multicast_choice_of(interface)]


def _multicast_choice_of(interface: Interface) -> list[str | int]:
    choice: list[str | int] = []
    if interface.ipv4:
        choice.append(_routable_first(interface.ipv4)[0])
    # Multicast to ::1 reaches nobody: the loopback interface is used with IPv4 alone.
    if interface.ipv6 and not interface.loopback:
        choice.append(interface.link_local or interface.index)
    return choice


def announced_addresses(interfaces: Sequence[Interface]) -> list[str]:
    """The addresses that others may connect to; loopback addresses only if there is nothing else."""
    outward = [interface for interface in interfaces if not interface.loopback]
    addresses: dict[str, None] = {}
    for interface in outward or interfaces:
        addresses.update(dict.fromkeys(_routable_first(interface.ipv4)[:MAX_IPV4_ANNOUNCED]))
        if not interface.loopback:
            addresses.update(dict.fromkeys(interface.ipv6[:MAX_IPV6_ANNOUNCED]))
    return list(addresses)


def _routable_first(addresses: Sequence[str]) -> list[str]:
    """Self-assigned IPv4 addresses (RFC 3927) last."""
    return sorted(addresses, key=lambda address: ipaddress.ip_address(address) in _LINK_LOCAL_IPV4)


def networks_of(interfaces: Sequence[Interface]) -> tuple[IPNetwork, ...]:
    """Every network that these interfaces are on."""
    return tuple(dict.fromkeys(network for interface in interfaces for network in interface.networks))


def read_interfaces() -> tuple[Interface, ...]:
    """Ask the system; takes about a millisecond; raises OSError if it cannot say."""
    addresses: dict[tuple[int, str], list[ifaddr.IP]] = {}
    for adapter in ifaddr.get_adapters():
        if adapter.index is not None:  # None if it was removed since the system listed it
            # A labelled address is listed under a name such as eth0:1, and is one of eth0 all the same.
            addresses.setdefault((adapter.index, adapter.name.partition(":")[0]), []).extend(adapter.ips)
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as control:
        interfaces = [
            _describe(name, index, listed, _flags(control, name)) for (index, name), listed in addresses.items()
        ]
    return tuple(_with_link_local(interface, interfaces) for interface in interfaces)


def _with_link_local(interface: Interface, interfaces: Sequence[Interface]) -> Interface:
    elsewhere = {address for other in interfaces if other is not interface for address in other.ipv6}
    own = (one for one in interface.ipv6 if one not in elsewhere and ipaddress.ip_address(one).is_link_local)
    return replace(interface, link_local=next(own, None))


def _describe(name: str, index: int, addresses: Sequence[ifaddr.IP], flags: int) -> Interface:
    ipv4: list[str] = []
    ipv6: list[str] = []
    networks: dict[IPNetwork, None] = {}
    for address in addresses:
        if isinstance(address.ip, tuple):
            text, _, zone = address.ip
            if not _can_bind(text, zone):
                continue
            ipv6.append(text)
        else:
            text = address.ip
            ipv4.append(text)
        networks[ipaddress.ip_network(f"{text}/{address.network_prefix}", strict=False)] = None
    return Interface(
        name=name,
        index=index,
        ipv4=tuple(ipv4),
        ipv6=tuple(ipv6),
        networks=tuple(networks),
        up=bool(flags & _IFF_UP and flags & _IFF_RUNNING),
        loopback=bool(flags & _IFF_LOOPBACK),
        point_to_point=bool(flags & _IFF_POINTOPOINT),
        multicast=bool(flags & _IFF_MULTICAST),
    )


def _flags(control: socket.socket, name: str) -> int:
    """The interface's flags; none at all for one that is gone."""
    if not sys.platform.startswith("linux"):
        return _IFF_UP | _IFF_RUNNING | _IFF_MULTICAST | (_IFF_LOOPBACK if name.startswith("lo") else 0)
    request = struct.pack("16s16x", name.encode()[:_INTERFACE_NAME_BYTES])
    try:
        answer = fcntl.ioctl(control.fileno(), _SIOCGIFFLAGS, request)
    except OSError:  # removed since the system listed it: counts as down
        return 0
    return int(struct.unpack_from("H", answer, 16)[0])


def _can_bind(address: str, zone: int) -> bool:
    """Whether an IPv6 address is ready for use; it is not while the system still checks it for duplicates."""
    with closing(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as probe:
        try:
            probe.bind((address, 0, 0, zone))
        except OSError:
            return False
    return True
