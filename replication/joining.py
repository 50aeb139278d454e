"""Becoming a device of a group: the store that may join, finding the inviter, what the two hand over.

Promises: a store that holds anything joins no group, and is left as it is. What fails leaves nothing but an identity.
A code is tried on `MAX_TRIED` devices at most: each one is a guess, for whoever forges announcements.
"""

from __future__ import annotations

import contextlib
import queue
import shutil
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from atop import StoreError
from atop.disk import check_directory, explained
from atop.engine import TABLES, Engine
from atop.environment import MARK
from discovery import Candidate, Change, Discovery, DiscoveryError, parse_peer

from . import settings
from .copying import CopyStatus
from .group import GROUP_FILE, GROUP_ID_BYTES, MAX_DEVICES, Group
from .handshake import LinkError
from .identity import IDENTITY_FILE, Identity
from .invitation import (
    InvalidDeviceName,
    PairingBroken,
    PairingCode,
    PairingFailed,
    PairingRefused,
    PairingVersion,
    check_name,
)
from .messages import Member
from .pairing import PairingOutcome, Refusal
from .pairing_socket import Confirm, join
from .places import Places

SEARCH_SECONDS: Final = 30.0
"""How long the inviter is looked for on the network."""

OTHERS_SECONDS: Final = 2.0
"""How long others are looked for once one that invites under the number has failed."""

MAX_TRIED: Final = 3
"""Devices that a code is tried on: with one right code, somebody else's invitation may have the same number."""

Place = tuple[Sequence[str], int]
"""Numeric addresses, and a port."""

WELCOME_VERSION: Final = 1

PROGRESS_SECONDS: Final = 0.2

Progress = Callable[[int, int | None], object]
"""Is told how many bytes of a copy have come, and about how many there will be."""


class Welcome(msgspec.Struct, frozen=True, array_like=True):
    """What the inviter hands over: the group's secret and its members, the new one last. Later versions append."""

    group_id: Annotated[bytes, Meta(min_length=GROUP_ID_BYTES, max_length=GROUP_ID_BYTES)]
    majority: bool
    members: Annotated[list[Member], Meta(min_length=2, max_length=MAX_DEVICES)]
    version: int = WELCOME_VERSION

    def __repr__(self) -> str:
        return f"<Welcome of {len(self.members)} devices>"


class StoreNotEmpty(StoreError):
    """A store that holds something cannot join a group: joining is a copy of the group's store."""


def welcome_bytes(welcome: Welcome) -> bytes:
    """A Welcome as the payload of a pairing."""
    return msgspec.msgpack.encode(welcome)


def read_welcome(outcome: PairingOutcome, identity: Identity) -> Welcome:
    """What the inviter has handed over, checked. Raises PairingBroken, PairingVersion."""
    try:
        welcome = msgspec.msgpack.decode(outcome.payload, type=Welcome)
        for member in welcome.members:
            check_name(member.name)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidDeviceName):
        raise PairingBroken("the other device handed over what is no list of members: update Atop on both") from None
    if welcome.version > WELCOME_VERSION:
        raise PairingVersion("the other device has a newer version of Atop: update it on this one")
    keys = [member.public_key for member in welcome.members if member.revoked_at is None]
    own = welcome.members[-1]
    if (
        len(set(keys)) < len(welcome.members)
        or own.public_key != identity.public_key
        or own.tag != identity.device_id.tag
        or outcome.remote_public_key not in keys
    ):
        raise PairingBroken("the other device handed over a list of members that is not about this device")
    return welcome


def prepare(path: Path) -> Path:
    """Make the directory of a store's device, if need be; returns its `local`. Raises StoreError, StoreReadOnly."""
    local = path / "local"
    try:
        check_directory(local)
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        elif not (path / "data").is_dir() and not local.is_dir():
            raise StoreError(f"{path} is there and is not a store: choose another path", path)
        local.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise explained(error, path) from error
    return local


def check_empty(path: Path) -> None:
    """Raise StoreNotEmpty if the store holds anything. The owner's lock is held: nothing comes in afterwards."""
    if (path / "local" / GROUP_FILE).exists():
        raise StoreNotEmpty(f"the store {path} is in a group already: open it, or join with another path", path)
    if not any((path / "data" / f"{name}.db").exists() for name in TABLES):
        return
    engine = Engine(path / "data")
    number = engine.head.number
    engine.close()
    if number:
        raise StoreNotEmpty(
            f"the store {path} holds {number:,} commits, and joining replaces a store by the group's: join with "
            "another path (--store), and import there what you want to keep (atop export, atop import)",
            path,
        )


def pair(path: Path, code: str, chosen: settings.Settings, address: str | None, confirm: Confirm | None) -> None:
    """Pair the empty store at `path` with the device that shows `code`; then it is a member. Raises PairingFailed."""
    local = path / "local"
    parsed = PairingCode.parse(code)
    identity = Identity.load_or_create(local)
    outcome, place = _try_places(parsed, identity, chosen, address, confirm, local)
    welcome = read_welcome(outcome, identity)
    try:
        for name in (MARK, "counters"):  # of the empty store: how far its log reached, numbers with another tag
            (local / name).unlink(missing_ok=True)
        if (path / "data").exists():
            shutil.rmtree(path / "data")
        peers = dict.fromkeys([*chosen.peers, *([] if address is None else [str(parse_peer(address))])])
        if peers:
            settings.change(local, peers=tuple(peers))
        own = welcome.members[-1]
        if own.name != chosen.name:
            settings.change(local, name=own.name)
        Group.joined(
            local,
            identity,
            welcome.group_id,
            welcome.members,
            majority=welcome.majority,
        )
        Places(local).remember(outcome.remote_id.short, tuple(place[0]), place[1])
    except OSError as error:
        raise explained(error, path) from error


def _try_places(
    code: PairingCode,
    identity: Identity,
    chosen: settings.Settings,
    address: str | None,
    confirm: Confirm | None,
    local: Path,
) -> tuple[PairingOutcome, Place]:
    until = [time.monotonic() + SEARCH_SECONDS]
    places = _at(address) if address is not None else _on_the_network(code.number, chosen, until)
    failure: PairingFailed | None = None
    trouble = ""
    tried = 0
    with contextlib.closing(places):
        for addresses, port in places:
            try:
                return join(code, identity, chosen.name, addresses, port, confirm), (addresses, port)
            except LinkError as error:  # nothing was said: it is no guess
                trouble = str(error)
            except PairingRefused as error:  # by somebody who knows the code
                if error.why == Refusal.TAG_TAKEN:  # nobody knows this identity yet
                    (local / IDENTITY_FILE).unlink(missing_ok=True)
                raise
            except PairingFailed as error:  # maybe of another invitation with this number, or a forged one
                failure = failure or error
                tried += 1
                until[0] = min(until[0], time.monotonic() + OTHERS_SECONDS)
                if tried >= MAX_TRIED:
                    break
    if failure is not None:
        raise failure
    if address is not None:
        raise PairingFailed(f"no device answers at {address} ({trouble}): is atop invite running there?")
    raise PairingFailed(
        f"no device that invites under the number {code.number} was found on this network"
        + (f" ({trouble})" if trouble else "")
        + ": is the code still shown there? Networks that keep devices apart need an address: "
        "atop join CODE --address HOST"
    )


def _at(address: str) -> Generator[Place, None, None]:
    try:
        peer = parse_peer(address)
    except DiscoveryError as error:
        raise PairingFailed(str(error)) from None
    try:
        found = socket.getaddrinfo(peer.host, peer.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise PairingFailed(f"the address {address} cannot be found: {error.strerror or error}") from None
    yield list(dict.fromkeys(str(place[4][0]) for place in found)), peer.port


def _on_the_network(number: int, chosen: settings.Settings, until: list[float]) -> Generator[Place, None, None]:
    """Where devices invite under this number, as they are found, up to the time that is in `until`."""
    found: queue.SimpleQueue[Candidate] = queue.SimpleQueue()
    seen: set[tuple[Sequence[str], int]] = set()

    def on_candidate(change: Change, candidate: Candidate) -> None:
        if change is not Change.LOST and candidate.pairing == number:
            found.put(candidate)

    try:
        discovery = Discovery(
            name=chosen.name,
            on_candidate=on_candidate,
            interfaces=chosen.interfaces,
            seeking=number,
            multicast=chosen.multicast,
        )
    except DiscoveryError as error:
        raise settings.SettingsError(f"devices cannot be looked for: {error}") from None
    with discovery:
        while (left := until[0] - time.monotonic()) > 0:
            try:
                candidate = found.get(timeout=left)
            except queue.Empty:
                return
            place = (candidate.addresses, candidate.port)
            if place not in seen:
                seen.add(place)
                yield place


@contextlib.contextmanager
def copying(progress: Progress | None, copy: Callable[[], CopyStatus | None]) -> Iterator[None]:
    """Tell how far the copy is that the block waits for, if it waits for one."""
    if progress is None:
        yield
        return
    done = threading.Event()

    def tell() -> None:
        while not done.wait(PROGRESS_SECONDS):
            status = copy()
            if status is not None:
                progress(status.received, status.total)

    thread = threading.Thread(target=tell, name="atop-copy-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
