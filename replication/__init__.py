"""Replication: keeps the stores of several devices equal, over encrypted links. See `Device`."""

from replication.calls import RemoteInvitation
from replication.device import Device
from replication.device_status import DeviceStatus, FileCounts, PeerStatus, WorkStatus
from replication.errors import NotAMember, NotRunning
from replication.group import MAX_DEVICES
from replication.identity import DeviceId, IdentityError, InvalidDeviceId
from replication.invitation import InvalidDeviceName, InvalidPairingCode, PairingFailed
from replication.joining import StoreNotEmpty
from replication.listener import CannotListen
from replication.membership import Member, NoSuchDevice
from replication.pairing import Comparison
from replication.pairing_socket import InvitationStatus, OpenInvitation
from replication.settings import Settings, SettingsError

__all__ = [
    "MAX_DEVICES",
    "CannotListen",
    "Comparison",
    "Device",
    "DeviceId",
    "DeviceStatus",
    "FileCounts",
    "IdentityError",
    "InvalidDeviceId",
    "InvalidDeviceName",
    "InvalidPairingCode",
    "InvitationStatus",
    "Member",
    "NoSuchDevice",
    "NotAMember",
    "NotRunning",
    "OpenInvitation",
    "PairingFailed",
    "PeerStatus",
    "RemoteInvitation",
    "Settings",
    "SettingsError",
    "StoreNotEmpty",
    "WorkStatus",
]
