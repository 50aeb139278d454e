"""Shipping the transaction log: Berkeley DB's replication messages, between an environment and whatever carries them.

Berkeley DB decides what to send, and what a message means: generations, elections, verification of the log, rollback
and full copy are its own. This module hands its messages to an `Outlet`, gives it those that arrive, one batch after
the other on one thread, and changes its role when told to. What happens is told to a `Listener`.

Promises:
- What is announced as applied (`Applied`) is on this disk: one flush of the log for each batch.
- Nothing of ours is inside Berkeley DB when a role changes, so that it does not wait in its steps of a second.
- After a new master has been found, nothing here is rolled back or replaced before `sync` is called.

- Berkeley DB gets no message whose form could lead it astray (`screening`).

Never: a decision about who is master, a call of Berkeley DB's from its own callbacks, an exception out of them, an
exception of Berkeley DB's.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from berkeleydb import db

from atop.engine import TABLES, Engine, Head
from atop.environment import explained
from atop.errors import StoreClosed, StoreError

from .messages import Log, MessageRefused
from .screening import MAX_PAGES_BEYOND, SMALLEST_PAGE, pages_asked, screen

log = logging.getLogger(__name__)

Device = bytes  # a device's id, as it is on links

SELF = 0  # Berkeley DB's number for this environment; the others get 1, 2, 3 ... as they are first heard of
# Messages given to Berkeley DB between two flushes of the log: more means fewer flushes and later acknowledgements.
BATCH_MESSAGES = 512
# Bytes of messages that may wait to be applied: past this they are dropped, and Berkeley DB asks for them again.
INBOX_BYTES = 64 << 20
# How much a master sends for one request before it waits to be asked again, in bytes.
RESPONSE_LIMIT = 8 << 20
# How long a replica waits, in microseconds, before it asks for log records that it misses: at first, and at most.
REQUEST_AFTER, REQUEST_AT_MOST = 4_000, 128_000
# How long an election waits for the votes of devices that do not answer, in microseconds.
ELECTION_TIMEOUT = 500_000
PRIORITY = 100
MAX_FLAGS = 2**32 - 1  # what a message has room for
# How soon a batch after which the tables could not be read is looked at again, in seconds; and how soon what could not
# be written to the disk is written.
RETRY_SECONDS, FLUSH_SECONDS = 0.01, 0.5


class Outlet(Protocol):
    """Takes messages away."""

    def ship(self, device: Device | None, message: Log) -> None:
        """Queue a message for a device, or for all; returns at once, and never raises. Called inside commits."""


# -- what a Shipping tells


@dataclass(frozen=True)
class MasterFound:
    """A device is the master of a new generation. This one's data waits for `sync`, unless it follows already."""

    device: Device


@dataclass(frozen=True)
class Elected:
    """This device has won an election, and is to become the master."""


@dataclass(frozen=True)
class ElectionNeeded:
    """Another device asks for an election."""


@dataclass(frozen=True)
class ElectionEnded:
    """The election that this device called is over; `failed` if it brought no master."""

    failed: bool


@dataclass(frozen=True)
class TwoMasters:
    """A message has arrived that only another master sends, and this device is one."""


@dataclass(frozen=True)
class InStep:
    """This replica has what the master had when it began to follow."""


@dataclass(frozen=True)
class Applied:
    """Log records are applied, and on the disk; the journal ends at `head`."""

    head: Head


@dataclass(frozen=True)
class Broken:
    """Berkeley DB has failed, here; `reason` is for people. `dead`: nothing works before it is opened anew."""

    reason: str
    dead: bool = False


Notice = MasterFound | Elected | ElectionNeeded | ElectionEnded | TwoMasters | InStep | Applied | Broken


class Shipping:
    """The replication of one environment. Its methods may be called by any thread but Berkeley DB's callbacks.

    Args:
        outlet: takes the messages for other devices.
        listener: is told what happens: called inside Berkeley DB, so it queues and returns.
        master: whether to begin as the master. That is for a store that no other device has.
        await_copy: called when the environment has no tables yet; returns when they are there, or raises.
    """

    def __init__(
        self,
        outlet: Outlet,
        listener: Callable[[Notice], None],
        *,
        master: bool,
        await_copy: Callable[[], None],
    ) -> None:
        self.is_master = master  # Invariant: changes only while everything is at rest
        self.election_timeout = ELECTION_TIMEOUT
        self._outlet = outlet
        self._listener = listener
        self._await_copy = await_copy
        self._environment: Any = None
        self._engine: Engine | None = None
        self._devices: list[Device] = [b""]  # by Berkeley DB's number
        self._numbers: dict[Device, int] = {}
        self._naming = threading.Lock()
        self._data = Path()
        self._inbox: deque[tuple[int, Log]] = deque()
        self._inbox_bytes = 0
        self._inbox_lock = threading.Lock()  # guards the two above
        self._arrived = threading.Event()
        self._processing = threading.Lock()  # held while messages are processed, and while a role changes
        self._applier: threading.Thread | None = None
        self._election: threading.Thread | None = None
        self._unflushed = False  # whether commits were applied that are not known to be on this disk
        self._generation = 0  # as of the last `standing`
        self.flushed: Head | None = None  # the last head that is on this disk, where what came after it could not be
        self.position = (0, 0)  # the last commit record that is on this disk: number of the log file, offset in it
        self.pages = 0  # received in full copies since the environment was opened, as of the last `standing`
        self.in_step = False  # whether this replica has what the master it goes by had; as of the last `standing`
        self.requests = 0  # messages for one device: on a replica, what it asks its master for
        self.copies = 0  # full copies that were complete
        self.dropped = 0  # messages that arrived and found the inbox full

    # -- as the engine sees it (see atop/replicated.py)

    def configure(self, environment: Any) -> int:
        """Prepare an environment that is about to be opened; returns the flags to add."""
        environment.set_flags(db.DB_TXN_NOSYNC, 1)
        environment.rep_set_transport(SELF, self._send)
        environment.set_event_notify(self._event)
        environment.rep_set_config(db.DB_REP_CONF_BULK, 1)
        environment.rep_set_config(db.DB_REP_CONF_DELAYCLIENT, 1)
        environment.rep_set_timeout(db.DB_REP_CHECKPOINT_DELAY, 0)
        environment.rep_set_timeout(db.DB_REP_ELECTION_TIMEOUT, self.election_timeout)
        environment.rep_set_limit(RESPONSE_LIMIT)
        environment.rep_set_request(REQUEST_AFTER, REQUEST_AT_MOST)
        environment.rep_set_priority(PRIORITY)
        return int(db.DB_INIT_REP)

    def start(self, environment: Any, data: Path) -> None:
        """Take up an open environment; returns when its tables can be opened."""
        environment.rep_set_config(db.DB_REP_CONF_NOWAIT, 1)
        self._data = data
        with self._inbox_lock:
            self._inbox.clear()
            self._inbox_bytes = 0
        self._unflushed, self.flushed = False, None
        environment.rep_start(db.DB_REP_MASTER if self.is_master else db.DB_REP_CLIENT)
        self._environment = environment
        self._engine = None
        self._applier = None
        if not self.is_master and not all((data / f"{name}.db").exists() for name in TABLES):
            self._begin()
            self._await_copy()

    def _begin(self) -> None:
        environment = self._environment
        self._applier = threading.Thread(
            target=self._run, args=(environment,), name="atop-replication-apply", daemon=True
        )
        self._applier.start()

    def attach(self, engine: Engine) -> None:
        """The tables are open: what was applied since they were first read is looked at now."""
        engine.behind = True
        self._engine = engine
        if self._applier is None:  # nothing is applied, or replaced, while the tables are being opened
            self._begin()
        self._arrived.set()

    def detach(self) -> None:
        """The engine is about to exchange its environment: roles change without waiting for its locks."""
        self._engine = None

    def stop(self) -> None:
        """Leave the environment. Threads that wait for the engine's locks, maybe held by the caller, find out later."""
        with self._processing:
            self._environment = None
        self._arrived.set()
        election = self._election
        if election is not None and election is not threading.current_thread():
            election.join()

    # -- messages

    def number_of(self, device: Device) -> int:
        """Berkeley DB's number for a device."""
        with self._naming:
            number = self._numbers.get(device)
            if number is None:
                number = self._numbers[device] = len(self._devices)
                self._devices.append(device)
            return number

    def receive(self, device: Device, message: Log) -> bool:
        """Queue a message that has arrived from a device; False if the queue is full, and it was dropped.

        Raises MessageRefused for a message that Berkeley DB must not see.
        """
        screen(message, self._generation)
        asked = pages_asked(message)
        if asked is not None and asked[1] > self._pages_of(asked[0]) + MAX_PAGES_BEYOND:
            raise MessageRefused("a request for pages that are not there")
        number = self._numbers.get(device) or self.number_of(device)
        with self._inbox_lock:
            if self._inbox_bytes > INBOX_BYTES:
                self.dropped += 1
                return False
            self._inbox.append((number, message))
            self._inbox_bytes += len(message.record)
        if not self._arrived.is_set():
            self._arrived.set()
        return True

    def _pages_of(self, name: str) -> int:
        try:
            return (self._data / name).stat().st_size // SMALLEST_PAGE
        except OSError:
            return 0

    def _send(self, environment: Any, control: bytes, body: bytes, lsn: Any, number: int, flags: int) -> int:
        try:
            device = None if number == db.DB_EID_BROADCAST else self._devices[number]
            self.requests += device is not None
            self._outlet.ship(device, Log(flags & MAX_FLAGS, control, body))
        except Exception:  # it must not get into Berkeley DB, which asks again for what is not delivered
            log.exception("a log record was not sent")
            return 1
        return 0

    def _event(self, environment: Any, event: int, detail: Any) -> None:
        if event == db.DB_EVENT_REP_NEWMASTER and detail != SELF:
            self._listener(MasterFound(self._devices[detail]))
        elif event == db.DB_EVENT_REP_ELECTED:
            self._listener(Elected())
        elif event == db.DB_EVENT_REP_STARTUPDONE:
            self._listener(InStep())
        elif event == db.DB_EVENT_REP_INIT_DONE:
            self.copies += 1
            if self._engine is not None:
                self._engine.replaced = True
        elif event == db.DB_EVENT_PANIC:
            self._listener(Broken("the database has failed", dead=True))

    # -- applying

    def _run(self, environment: Any) -> None:
        while self._environment is environment:
            if not self._inbox:
                self._arrived.wait(self._patience())
                self._arrived.clear()
                if not self._inbox and self._patience() is None:
                    continue
            try:
                self._apply_batch(environment, self._engine)
            except StoreClosed:
                return
            except StoreError as error:
                self._listener(Broken(str(error)))

    def _patience(self) -> float | None:
        """How long to wait for a message before there is something to do without one; None where there is nothing."""
        if self.is_master or self._engine is None:
            return None
        if self._engine.behind:
            return RETRY_SECONDS
        return FLUSH_SECONDS if self._unflushed else None

    def _apply_batch(self, environment: Any, engine: Engine | None) -> None:
        if engine is None or self.is_master:
            self._deliver(environment, self.is_master)
            return
        before = engine.head
        with engine.applying():
            flushed = self._deliver(environment, False)
            if self._unflushed and self.flushed is None:
                self.flushed = before  # said before the head moves
        if flushed or (engine.head != before and not self._unflushed):
            self._listener(Applied(engine.head))

    def _deliver(self, environment: Any, as_master: bool) -> bool:
        """Give Berkeley DB what has arrived; returns whether commits were among it, which are then on the disk."""
        with self._processing:
            if self._environment is not environment or self.is_master is not as_master:
                return False  # it has changed while this thread waited for its turn
            for number, message in self._taken():
                self._unflushed |= self._process(environment, number, message)
            return self._unflushed and self._flush(environment)

    def _taken(self) -> list[tuple[int, Log]]:
        """A batch of the messages that have arrived, which are in the inbox no longer."""
        with self._inbox_lock:
            taken = [self._inbox.popleft() for _ in range(min(len(self._inbox), BATCH_MESSAGES))]
            self._inbox_bytes -= sum(len(message.record) for _, message in taken)
            return taken

    def _flush(self, environment: Any) -> bool:
        """Write what was applied to the disk; False, and nothing is acknowledged, if that cannot be done now."""
        try:
            environment.log_flush()
        except db.DBError as error:  # a full disk; it is tried again
            self._listener(Broken(f"what other devices committed cannot be written: {error}"))
            return False
        self._unflushed, self.flushed = False, None
        return True

    def _process(self, environment: Any, number: int, message: Log) -> bool:
        """Give Berkeley DB one message; returns whether it made commits permanent."""
        try:
            result, detail = environment.rep_process_message(message.control, message.record, number)
        except db.DBRunRecoveryError as error:
            self._listener(Broken(str(error), dead=True))
            return False
        except (db.DBError, MemoryError) as error:  # the latter when no lock, or no memory, is left
            # A message that cannot be processed is lost as if the link had lost it. Berkeley DB asks again.
            log.debug("a message was not processed: %s", error)
            return False
        if result == db.DB_REP_HOLDELECTION:
            self._listener(ElectionNeeded())
        elif result == db.DB_REP_DUPMASTER:
            self._listener(TwoMasters())
        if result != db.DB_REP_ISPERM:
            return False
        self.position = detail
        return True

    # -- roles

    @contextlib.contextmanager
    def _at_rest(self) -> Iterator[Any]:
        """The environment, with nobody of ours in it."""
        engine = self._engine
        with engine.at_rest() if engine is not None else contextlib.nullcontext(), self._processing:
            if self._environment is None:
                raise StoreClosed("the store is closed")
            with self._failures_explained():
                yield self._environment

    @contextlib.contextmanager
    def _failures_explained(self) -> Iterator[None]:
        """Turn Berkeley DB's errors in the block into ours; after one that it does not survive, have it recovered."""
        try:
            yield
        except (db.DBError, MemoryError) as error:
            engine = self._engine
            if isinstance(error, db.DBRunRecoveryError) and engine is not None:
                engine.maintain_soon()  # not here: who decides about roles is not to wait for what may wait for a role
            elif isinstance(error, db.DBRunRecoveryError):
                self._listener(Broken(str(error), dead=True))
            raise explained(error, self._data.parent) from error

    def become_master(self) -> None:
        """Make this environment the master, of a generation after the last."""
        if self._engine is not None:
            with self._engine.applying():
                pass  # what the last batch brought is known, so that the next commit comes after it
        with self._at_rest() as environment:
            environment.rep_start(db.DB_REP_MASTER)
            self.is_master = True

    def become_replica(self) -> None:
        """Make this environment a replica; if it is one, ask all devices who the master is, and what was missed."""
        if self._environment is None and not self.is_master:
            return  # it will do so when it is opened
        with self._at_rest() as environment:
            environment.rep_start(db.DB_REP_CLIENT)
            self.is_master = False

    def sync(self, device: Device) -> bool:
        """Follow the master that was found, if it is this device: rolls back, or replaces, what it does not have.

        False if Berkeley DB goes by another one meanwhile: whose history may be another, so nothing is done.
        """
        with self._processing:
            if self._environment is None:
                return True
            with self._failures_explained():
                number = int(self._environment.rep_stat()["master"])
                if not (0 <= number < len(self._devices) and self._devices[number] == device):
                    return False
                self._environment.rep_sync()
                return True

    def elect(self, sites: int, votes: int, priority: int = PRIORITY) -> bool:
        """Hold an election among `sites` devices, of which `votes` must take part; returns at once.

        Its end is told as `ElectionEnded`, after `Elected` or `MasterFound` if it brought a master. False if the last
        one has not ended yet: then nothing is done.
        """
        if self._environment is None or (self._election is not None and self._election.is_alive()):
            return False
        self._election = threading.Thread(
            target=self._elect, args=(self._environment, sites, votes, priority), name="atop-election", daemon=True
        )
        self._election.start()
        return True

    def _elect(self, environment: Any, sites: int, votes: int, priority: int) -> None:
        failed = False
        try:
            environment.rep_set_priority(priority)
            environment.rep_elect(sites, votes)
        except db.DBError as error:
            log.debug("an election failed: %s", error)
            failed = True
        self._listener(ElectionEnded(failed))

    # -- figures

    def standing(self) -> tuple[int, Device | None]:
        """The generation of masters that this environment is in, and the master that Berkeley DB goes by, if any.

        That one may be gone, and may not be followed yet. It is not told of again (`MasterFound`) while it stays.
        """
        with self._processing:
            if self._environment is None:
                return 0, None
            with self._failures_explained():
                found = self._environment.rep_stat()
        self.pages = int(found["pg_records"])
        self.in_step = bool(found["startup_complete"])
        number = int(found["master"])
        self._generation = int(found["gen"])
        # An election may leave this environment itself there, although another device was faster.
        return self._generation, self._devices[number] if 0 <= number < len(self._devices) else None
