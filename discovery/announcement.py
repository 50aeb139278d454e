"""What a device says of itself on the network: names, the TXT record, and the judgement of what others say.

An announcement is a DNS-SD service instance (RFC 6763) of type `_atop._tcp.local.`:

    instance  the device's name; where another device has that name, "name (first characters of the device
    id)" SRV       host `atop-<device id>.local.`, and the port on which the device accepts links A, AAAA
    the addresses of the interfaces in use TXT       version=1          protocol version, decimal, first
              device=<text>      short device id: letters, digits, hyphens
              group=<text>       tag of the group: a keyed hash, never the group id itself
              pairing=<number>   only while an invitation is open: the number that its code begins with
              revision=<number>  grows with every announcement that differs from the one before: caches report
                                 a record that they have not seen, and may miss the return of an old one

Unknown TXT keys are ignored, so that later versions may add some.

Promises: `judge` is the one place where what was heard is checked: types, sizes, ranges, characters. Pure: no
I/O, no clock.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from discovery.addresses import IPNetwork, choose_addresses
from discovery.errors import AnnouncementError, SettingError

SERVICE_TYPE = "_atop._tcp.local."
PROTOCOL_VERSION = 1

MAX_INSTANCE_BYTES = 63  # one DNS label, RFC 6763 section 4.1.1
MAX_HEARD_NAME = 256  # characters of a full instance name: the limit of a DNS name, RFC 1035 section 2.3.4
MAX_TEXT_BYTES = 1300  # of a TXT record: what RFC 6763 section 6.2 recommends as the most for one packet
MAX_TOKEN = 64  # characters of a device id or group tag: a 256-bit hash in hexadecimal
MAX_PAIRING = 999_999  # the number of a pairing code is meant to be typed

_TOKEN = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_TOKEN}}}")
_HOST_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,56}[A-Za-z0-9])?")  # 63 less "atop-"
_NUMBER = re.compile(rb"[0-9]{1,6}")
_SUFFIX_CHARACTERS = 7  # of the device id in a distinct name: its first group
_COUNTER_BYTES = 4  # left free in a distinct name for the "-2" that zeroconf adds should even that be taken
# Control characters, invisible format characters (which can turn text around), surrogates, private use,
# unassigned, line and paragraph separators: none belongs in a name that is shown to a person.
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


@dataclass(frozen=True, slots=True)
class Announcement:
    """One device as it announces itself, checked by `judge` but not trusted: anybody can send one.

    `name` is fit for display; `addresses` may be connected to, best first; `group_tag` is empty for a device
    that names none; `pairing` is the number of its open invitation, or None.
    """

    name: str
    device_id: str
    group_tag: str
    port: int
    addresses: tuple[str, ...]
    pairing: int | None = None
    version: int = PROTOCOL_VERSION


def display_name(text: str) -> str:
    """The text in one line without anything invisible, cut to MAX_INSTANCE_BYTES; never empty."""
    visible = (" " if character.isspace() else character for character in unicodedata.normalize("NFC", text))
    kept = "".join(c for c in visible if unicodedata.category(c) not in _HIDDEN_CATEGORIES)
    return _cut(" ".join(kept.split()), MAX_INSTANCE_BYTES) or "(unnamed)"


def _cut(text: str, size: int) -> str:
    """At most `size` bytes of UTF-8, never half a character."""
    return text.encode()[:size].decode(errors="ignore").rstrip()


def instance_label(device_name: str, device_id: str, *, distinct: bool = False) -> str:
    """The instance name to announce, at most MAX_INSTANCE_BYTES; with the device id in it if `distinct`.

    Dots separate the labels of a DNS name and a leading underscore marks a service type: neither is kept.
    """
    label = display_name(device_name).replace(".", "-").lstrip("_ ") or "device"
    if not distinct:
        return _cut(label, MAX_INSTANCE_BYTES)
    suffix = f" ({device_id[:_SUFFIX_CHARACTERS].strip('-')})"
    return _cut(label, MAX_INSTANCE_BYTES - len(suffix) - _COUNTER_BYTES) + suffix


def full_name(label: str) -> str:
    """The DNS name of an instance label."""
    return f"{label}.{SERVICE_TYPE}"


def host_name(device_id: str) -> str:
    """The DNS host name for a device's addresses: made of its id, so that equal names never mix them."""
    return f"atop-{device_id.lower()}.local."


def checked_device_id(device_id: str) -> str:
    """The device id itself, if it can be announced; raises SettingError."""
    if not isinstance(device_id, str) or not _HOST_LABEL.fullmatch(device_id):
        raise SettingError(
            f"device id {device_id!r} cannot be announced: it needs 1 to 58 letters, digits or inner hyphens"
        )
    return device_id


def checked_group_tag(tag: bytes | str) -> str:
    """The group tag as text, bytes in hexadecimal; raises SettingError."""
    text = tag.hex() if isinstance(tag, bytes) else tag
    if not isinstance(text, str) or not _TOKEN.fullmatch(text):
        raise SettingError(
            f"group tag {tag!r} cannot be announced: it needs 1 to {MAX_TOKEN // 2} bytes, or as text "
            f"1 to {MAX_TOKEN} letters, digits, hyphens or underscores"
        )
    return text


def checked_pairing(number: int | None) -> int | None:
    """The number of a pairing code, or None for no open invitation; raises SettingError."""
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= MAX_PAIRING:
        raise SettingError(f"pairing number {number!r} is not a whole number from 0 to {MAX_PAIRING}")
    return number


def checked_port(port: int) -> int:
    """The port to announce; raises SettingError."""
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise SettingError(f"port {port!r} cannot be announced: give the one listened on, 1 to 65535")
    return port


def text_record(device_id: str, group_tag: str, pairing: int | None, revision: int) -> dict[str, str]:
    """The keys and values of the TXT record, in the order in which they are sent."""
    record = {
        "version": str(PROTOCOL_VERSION),
        "device": device_id,
        "group": group_tag,
        "revision": str(revision),
    }
    if pairing is not None:
        record["pairing"] = str(pairing)
    return record


def judge(
    instance: str,
    *,
    host: str | None,
    port: int | None,
    addresses: Iterable[str],
    text_size: int,
    properties: Mapping[bytes, bytes | None],
    networks: Sequence[IPNetwork],
    loopback: bool,
) -> Announcement:
    """Check what was heard under the full name `instance`; raises AnnouncementError with the reason.

    `text_size` is the size of the TXT record in bytes, `networks` are those this device is on, `loopback`
    whether loopback addresses make sense (see `usable_address`).
    """
    if len(instance) > MAX_HEARD_NAME or not instance.lower().endswith("." + SERVICE_TYPE):
        raise AnnouncementError("its name is no name of this service")
    name = display_name(instance[: -len(SERVICE_TYPE) - 1])
    if text_size > MAX_TEXT_BYTES:
        raise AnnouncementError(f"{name!r} has a TXT record of {text_size} bytes")
    if port is None or not 1 <= port <= 65535:
        raise AnnouncementError(f"{name!r} gives no port")
    version = _number(properties, b"version", name)
    if not version:
        raise AnnouncementError(f"{name!r} names no protocol version")
    device_id = _token(properties, b"device", name)
    if not device_id:
        raise AnnouncementError(f"{name!r} names no device id")
    if host is None or host.lower() != host_name(device_id):
        # Where two devices have one name for a moment, a cache has the TXT of one and the SRV of the other.
        raise AnnouncementError(f"{name!r} has records of different devices")
    usable = choose_addresses(addresses, networks, loopback=loopback)
    if not usable:
        raise AnnouncementError(f"{name!r} gives no address that this device would connect to")
    return Announcement(
        name=name,
        device_id=device_id,
        group_tag=_token(properties, b"group", name),
        port=port,
        addresses=usable,
        pairing=_number(properties, b"pairing", name),
        version=version,
    )


def _token(properties: Mapping[bytes, bytes | None], key: bytes, name: str) -> str:
    value = properties.get(key)
    if not value:
        return ""
    text = value.decode("ascii", errors="replace")
    if not _TOKEN.fullmatch(text):
        raise AnnouncementError(f"{name!r} has an unsound {key.decode()} in its TXT record")
    return text


def _number(properties: Mapping[bytes, bytes | None], key: bytes, name: str) -> int | None:
    value = properties.get(key)
    if value is None:
        return None
    if not _NUMBER.fullmatch(value):
        raise AnnouncementError(f"{name!r} has an unsound {key.decode()} in its TXT record")
    return int(value)
