"""Discovery: announce this device on the local network, and hear of the others of its group.

Knows neither the store nor replication. What it finds is nowhere trusted: it says where a handshake may be
tried. See `Discovery`.
"""

from discovery.addresses import DEFAULT_PORT, PeerAddress, parse_peer, parse_peers
from discovery.candidates import Candidate, Change
from discovery.errors import AddressError, DiscoveryError, SettingError
from discovery.interfaces import IGNORED_INTERFACES
from discovery.resolving import FixedStatus
from discovery.service import Discovery
from discovery.settings import Timing
from discovery.status import DiscoveryStatus, InterfaceStatus

__all__ = [
    "DEFAULT_PORT",
    "IGNORED_INTERFACES",
    "AddressError",
    "Candidate",
    "Change",
    "Discovery",
    "DiscoveryError",
    "DiscoveryStatus",
    "FixedStatus",
    "InterfaceStatus",
    "PeerAddress",
    "SettingError",
    "Timing",
    "parse_peer",
    "parse_peers",
]
