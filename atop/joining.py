"""How a process comes to a store: as its owner, or attached to the process that is.

Whoever has the lock is the owner. Whoever has not asks the owner, at its socket, to be answered. An owner that has died
leaves a lock that is free and a socket that nobody listens at; one that is just coming up, a lock that is held and no
socket yet: so both are tried in turn, for a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from atop.errors import StoreBusy, UnsafePickle
from atop.owner import LOCK_NAME, Holder, OwnerLock, busy, connect, holder_of, is_ours, peer_of
from atop.passing import plain_from
from atop.wire import HELLO, OK, REFUSED, Channel, News, WireError, pack_hello, present, unpack_list, unpack_news

# How long an owner may take to say welcome, and how long to be ready to, in seconds: it may have much to recover.
GREET_SECONDS, JOIN_SECONDS = 5.0, 20.0
# How long a process waits for others to take over that have what it lacks, in seconds.
COURTESY_SECONDS: Final = 0.3
# The pauses between tries, in seconds.
FIRST_PAUSE, LONGEST_PAUSE = 0.002, 0.05
# How often an owner must be seen to be one that answers nobody: the lock's file may be its predecessor's.
LOOKS: Final = 4


class Welcome(NamedTuple):
    """An owner, and a connection to it."""

    pid: int
    instance: bytes  # tells this owner from all others
    replicated: bool  # whether it keeps the store equal to those on other devices
    news: News
    channel: Channel


def join(
    local: Path,
    asker: bytes,
    *,
    patient: bool = False,
    stopped: Callable[[], bool] = lambda: False,
) -> Welcome | OwnerLock:
    """Become the owner of the store in whose `local` directory this is, or attach to it.

    Args:
        asker: 8 bytes that tell this store, here, from all others.
        patient: leave it to others, for a moment, to become the owner.
        stopped: asked now and then whether this is still wanted.

    Raises:
        StoreBusy: neither is possible, or it is not wanted any more.
        StoreReadOnly, StoreFull, StoreError: the lock's file cannot be opened.
    """
    started = time.monotonic()
    pause, alone = FIRST_PAUSE, 0
    why = "it is not ready to share it"
    while True:
        if not patient or time.monotonic() - started >= COURTESY_SECONDS:
            try:
                return OwnerLock(local / LOCK_NAME, local.parent)
            except StoreBusy:
                pass
        try:
            return greet(local, asker)
        except TimeoutError:
            why = "it does not answer: it is stopped, or hangs"
        except (OSError, EOFError, WireError):
            pass  # it has just gone, or is just coming
        holder = _holder(local)
        alone = alone + 1 if holder.alone else 0
        if alone >= LOOKS:
            raise busy(local.parent, holder)
        if time.monotonic() - started >= JOIN_SECONDS or stopped():
            raise busy(local.parent, holder, f"{why}: close it there first")
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def greet(local: Path, asker: bytes) -> Welcome:
    """A new connection to the owner, one of those of `asker`, which is 8 bytes.

    Raises:
        OSError, EOFError, WireError: there is none to be had.
        StoreBusy: it does not answer this process, for good.
    """
    connected = connect(local, GREET_SECONDS)
    channel = Channel(connected)
    try:
        pid, user = peer_of(connected)
        if not is_ours(connected):
            raise busy(local.parent, Holder(pid, True), f"it belongs to the user {user}: only theirs can share it")
        channel.send(HELLO, pack_hello(asker))
        kind, body = channel.receive()
        if kind == REFUSED:
            raise busy(local.parent, Holder(pid, True), f"{body.decode(errors='replace')}: close it there first")
        if kind != OK:
            raise WireError("a welcome is none")
        news, end = unpack_news(body)
        said = plain_from(present(unpack_list(body, end), 1)[0])
        return Welcome(pid, bytes(said["instance"]), bool(said["replicated"]), news, channel)
    except (UnsafePickle, LookupError, TypeError) as error:
        channel.close()
        raise WireError("a welcome is none") from error
    except BaseException:
        channel.close()
        raise


def _holder(local: Path) -> Holder:
    try:
        return holder_of(local)
    except OSError:
        return Holder(None, False)
