"""The manager of one store among the devices of a group: does what `roles` decides, takes commits to the master.

It stands between three: the store's engine, which asks it to forward commits (`atop/replicated.py`); Berkeley DB,
through `shipping`; and the links to other devices, whose handler it is.

Promises:
- A commit that `forward` has returned for was applied once, and is applied here: who wrote it reads it.
- A master that is known to be gone is replaced: by an election where other devices are reachable, by this device where
  none is and something is to be written.
- No commit that is here and not on the new master is rolled back before it is in safety (`reconcile`). This device
  stops before that, its data readable.

Never: a decision of its own about who is master (`roles` has them), an exception of Berkeley DB's or of a link.
"""

from __future__ import annotations

import functools
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from atop import clock
from atop.disk import explained
from atop.engine import COMMITS, TABLES, Engine, Head
from atop.environment import try_writing
from atop.errors import AtopError, NoMaster, StoreClosed, StoreError
from atop.records import pack_u64, unpack_u64
from atop.values import FileInfo
from atop.writeset import WriteSet

from . import roles, shipping
from .copying import CopyMeter, CopyStatus, size_of_tables
from .fileserving import LinkForFiles
from .filesync import FilesStatus, FileSync
from .forwarding import NotMaster, to_commit, to_error
from .handshake import LinkError
from .identity import DeviceId
from .link import Position
from .messages import (
    Ack,
    Commit,
    Committed,
    CommonAnswered,
    CommonAsked,
    Elect,
    FileMessage,
    Gap,
    HistoryAnswered,
    HistoryAsked,
    Incoming,
    Log,
    Lsn,
    Message,
    MessageRefused,
    MessageTooLong,
    Ping,
    Refused,
    Role,
    Size,
    Status,
)
from .reconcile import Reconciler, ReconcileStatus
from .relay import LinkToDevice, Relay, RelayedLink
from .requests import Requests

if TYPE_CHECKING:
    from atop.store import Store

log = logging.getLogger(__name__)

Id = bytes

TICK_SECONDS: Final = 0.25
"""How often decisions are looked at again when nothing happens."""

SETTLED_TICK_SECONDS: Final = 1.0
"""The same where there is a master and it is followed: then only what happens changes anything."""

WRITE_SECONDS: Final = 15.0
"""How long a commit waits for a master before it fails with NoMaster."""

COPY_SECONDS: Final = 600.0
"""How long a device that has just joined waits for its copy of the store while nothing comes."""

STILL_SECONDS: Final = 2.0
"""How long nothing of a copy has come before it is looked whether there is room for more."""

HAND_OVER_SECONDS: Final = 2.0
"""How long a master keeps commits waiting so that the device it gives way for has all of them."""

LOG_FILES: Final = 16
"""Log files of 16 MiB that are kept for a device that is away; past that it gets a full copy."""

MAX_EVENTS: Final = 10_000
"""What may have been said and not been looked at yet, by all devices: past that, who says more loses its link."""

RETRY_SECONDS: Final = 0.05
"""How often a commit that waits for a master says so again."""

ASK_AGAIN_SECONDS: Final = 5.0
"""How long an answer to a commit is awaited before it is sent again: a device in between may have lost it."""

CHAIN_BYTES: Final = 32


class DirectLink(LinkToDevice, LinkForFiles, Protocol):
    """What is needed of a link that leads to its device and through no other one: see `link.Link`."""


@dataclass(frozen=True)
class PeerStatus:
    """Another device that is reachable, as it was heard of last."""

    device: DeviceId
    role: Role | None  # None before it has said
    number: int  # of the last commit that it is known to have on its disk
    in_sync: bool
    via: DeviceId | None = None  # the device that passes messages on to it, where it is not linked directly


@dataclass(frozen=True)
class ManagerStatus:
    """How this device stands in its group."""

    role: Role
    master: DeviceId | None
    generation: int
    head: Head
    parted: bool  # the master lacks commits that are here: this device waits, its data readable
    problem: str | None  # what went wrong last, for people
    peers: tuple[PeerStatus, ...]
    reconcile: ReconcileStatus  # how far what was committed while devices were apart is brought together
    files: FilesStatus  # contents that are not here
    copy: CopyStatus | None = None  # how far the full copy is that this device receives


class ReplicationManager:
    """Replication of one store. Give it to `Store(replication=...)` and to the links as their handler.

    Args:
        own: this device's id.
        members: how many devices the group has. With 1, this device becomes master at once.
        majority: whether only more than half of the devices may have a master.
        joining: whether an empty store is to be filled from the group; else an empty store is a new one.
        is_member: whether a device (its id's 32 bytes) may be reached through another one. It must not wait.
    """

    def __init__(
        self,
        own: DeviceId,
        *,
        members: int = 1,
        majority: bool = False,
        joining: bool = False,
        is_member: Callable[[Id], bool] = lambda device: True,
    ) -> None:
        self.write_seconds = WRITE_SECONDS
        self.copy_seconds = COPY_SECONDS
        self.log_files = LOG_FILES
        self.own = own
        self._roles = roles.Roles(own.digest, members=members, majority=majority)
        self._shipping = shipping.Shipping(
            self, self._noticed, master=members <= 1 and not joining, await_copy=self._await_copy
        )
        self.reconciler = Reconciler(self._send_to, self._report, self._copy_anew)
        self.files: Final = FileSync(lambda: self._roles.members)
        self._engine: Engine | None = None
        self._data: Path | None = None
        self._changed = threading.Condition()  # guards what follows; notified when anything of it changes
        self._links: dict[Id, LinkToDevice] = {}  # direct ones, and relayed ones
        self.is_member: Final = is_member
        self._relay = Relay(own, self, is_member)
        self._acknowledged: dict[Id, int] = {}  # device -> number of its last commit that is on its disk
        self._logs_needed: dict[Id, int] = {}  # device -> first log file that it may ask for
        self._asked: dict[int, Id] = {}  # id of a commit -> the device that was asked to make it
        self._answers: dict[int, Committed | Refused] = {}  # what that one has said
        self._generation = 0
        self._give_way_at = 0.0  # commits waited in vain for another device to take over: not again before this
        self._in_step = False
        self._copying = CopyMeter()
        self._problem: str | None = None  # of the database
        self._dead = False  # whether the database is to be opened anew before anything works
        self._trouble: str | None = None  # why what was decided last could not be done
        self._closed = False
        self._events: queue.SimpleQueue[roles.Event | Callable[[], None] | None] = queue.SimpleQueue()
        self._requests = Requests(lambda: self.is_master, lambda: self._generation, self._send)
        if self._shipping.is_master:
            self._roles.role, self._roles.master = Role.MASTER, own.digest
        self._thread = threading.Thread(target=self._run, name="atop-replication", daemon=True)
        self._thread.start()

    # -- for the program

    @property
    def role(self) -> Role:
        """What this device is doing in its group."""
        return self._roles.role

    def set_members(self, count: int, majority: bool | None = None) -> None:
        """The group has this many devices now; with `majority`, it wants one from now on, or no longer."""

        self._roles.members = count  # at once: what the caller writes next goes by it
        if majority is not None:
            self._roles.majority = majority

    def status(self) -> ManagerStatus:
        """How things stand."""
        engine, decided = self._engine, self._roles
        head = engine.head if engine is not None else Head(0, bytes(CHAIN_BYTES))
        with self._changed:
            links = dict(self._links)
            acknowledged = dict(self._acknowledged)
        peers = []
        for device, link in links.items():
            via = link.via.device_id if isinstance(link, RelayedLink) else None
            said = decided.peers.get(device)
            number = max(acknowledged.get(device, 0), said.number if said is not None else 0)
            following = said is not None and decided.master is not None and said.master == decided.master
            peers.append(
                PeerStatus(
                    DeviceId(device), said.role if said else None, number, following and number == head.number, via
                )
            )
        master = DeviceId(decided.master) if decided.master is not None else None
        reconcile = self.reconciler.status
        problem = reconcile.problem or self._problem or self._trouble
        return ManagerStatus(
            decided.role,
            master,
            self._generation,
            head,
            decided.parted,
            problem,
            tuple(peers),
            reconcile,
            self.files.status(),
            self._copying.status,
        )

    def take_over(self, timeout: float = WRITE_SECONDS) -> None:
        """Make this device the master. Raises NoMaster if that could not be done in `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not self.is_master:
            master = self._roles.master
            link = self._links.get(master) if master is not None else None
            if link is not None:
                self._send(link, Elect(self._generation, self.own.digest))
            else:
                self._events.put(roles.WriteWanted())
            self._wait(lambda: self.is_master, min(deadline, time.monotonic() + 2 * HAND_OVER_SECONDS))
            if time.monotonic() >= deadline and not self.is_master:
                raise NoMaster("this device could not take over: the master did not give way in time; try again")

    def close(self) -> None:
        """Hand over, if this device is master and another one can take its place; then take part no longer."""
        if self._closed:
            return
        done = threading.Event()
        self._events.put(self._retire)
        self._events.put(done.set)
        done.wait(2 * HAND_OVER_SECONDS)
        self._events.put(None)
        self._thread.join()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.reconciler.close()
        self._requests.close()

    # -- as the engine sees it (see atop/replicated.py)

    @property
    def is_master(self) -> bool:
        """Whether commits are applied here."""
        return self._shipping.is_master

    def configure(self, environment: Any) -> int:
        """Prepare an environment that is about to be opened; returns the flags to add."""
        return self._shipping.configure(environment)

    def start(self, environment: Any, data: Path) -> None:
        """Take up an open environment; returns when its tables can be opened."""
        self._roles.has_copy = self.is_master or all((data / f"{name}.db").exists() for name in TABLES)
        self._data = data
        self._dead = False
        self._shipping.start(environment, data)

    def attach(self, engine: Engine) -> None:
        """The tables are open."""
        self._engine = engine
        self._problem = None
        self.reconciler.attach(engine)
        self._requests.attach(engine)
        self._shipping.attach(engine)
        self._events.put(self._tell)  # before, it had no last commit to tell of

    def serve(self, store: Store) -> None:
        """The store is open: commits that were salvaged can be made in it."""
        self.reconciler.serve(store)
        self.files.open(store)

    def forward(self, write_set: WriteSet) -> int | None:
        """Have the master commit a WriteSet; returns its number when it is applied here, None if it is for us to do."""
        engine, deadline = self._engine, time.monotonic() + self.write_seconds
        if engine is None:
            raise NoMaster("the store is not open yet")
        message, key = to_commit(write_set), pack_u64(write_set.commit_id)
        while True:
            known = engine.get(COMMITS, key)
            if known is not None:
                return int(unpack_u64(known)[0])
            link = self._await_master(deadline)
            if link is None:
                return None
            answer = self._ask(link, message, deadline)
            if isinstance(answer, Committed):
                self._await_number(answer.number, link, deadline)
            elif answer is not None:
                error = to_error(answer)
                if not isinstance(error, NotMaster):
                    raise error
                time.sleep(RETRY_SECONDS)
            if time.monotonic() >= deadline:
                raise NoMaster("the master did not answer in time; whether it has the commit will be seen later")

    def await_replicated(self, number: int) -> None:
        """Return when another device has the commit of this number on its disk, or none is following."""

        def there() -> bool:
            following = [n for device, n in self._acknowledged.items() if device in self._links]
            return self._closed or not following or max(following) >= number

        self._wait(there, time.monotonic() + self.write_seconds)

    def close_files(self) -> None:
        """Exchange no more contents of files."""
        self.files.close()

    def items_changed(self, item_ids: list[int] | None) -> None:
        """Commits made elsewhere have changed these items, or anything."""
        self.files.items_changed(item_ids)

    def fetch_file(self, info: FileInfo, timeout: float) -> None:
        """Return when the contents of a file are here."""
        self.files.fetch(info, timeout)

    def mend_file(self, digest: bytes, size: int) -> bool:
        """Have damaged contents fetched again, if there is another device."""
        return self.files.mend(digest, size)

    def await_files(self, digests: Iterable[bytes]) -> None:
        """Return when another device has these contents, or none is there to have them."""
        self.files.await_elsewhere(digests, self.write_seconds)

    def named_elsewhere(self, digests: list[bytes]) -> set[bytes]:
        """Those of these contents that another device names, or may name."""
        return self.files.named_elsewhere(digests)

    def stop(self) -> None:
        """Leave the environment."""
        self._shipping.stop()

    def log_needed(self) -> int:
        """The number of the first log file that another device may still ask for, within `log_files`."""
        newest = max((int(path.suffix[1:]) for path in self._data.glob("log.*")), default=0) if self._data else 0
        with self._changed:
            for device in [device for device in self._logs_needed if not self.is_member(device)]:
                del self._logs_needed[device]  # removed from the group: it asks for nothing any more
            known = list(self._logs_needed.values())
        everybody = len(known) >= self._roles.members - 1
        return max(newest - self.log_files, min(known, default=newest) if everybody else 0)

    # -- as the links see it (see link.Handler)

    def on_link(self, link: DirectLink) -> None:
        """There is a link."""
        self._relay.on_link(link)
        self.files.on_link(link)

    def on_closed(self, link: DirectLink) -> None:
        """A link has ended."""
        self.files.on_closed(link)
        self._relay.on_closed(link)

    def position(self) -> Position:
        """What a PING tells."""
        engine = self._engine
        if engine is None:
            return Position(clock.wall())
        return Position(clock.wall(), self._generation, engine.head.number, Lsn(0, 0))

    def on_messages(self, link: DirectLink, messages: list[Incoming]) -> None:
        """These have arrived."""
        for incoming in messages:
            message: Message = incoming.message
            if isinstance(message, FileMessage):
                self.files.receive(link, message)
                continue
            sender: LinkToDevice = link
            if incoming.route is not None:
                relayed = self._relay.take(link, incoming)
                if relayed is None:
                    continue
                sender = relayed
            if type(message) is Log:
                self._take_log(sender, message)
            elif self._events.qsize() > MAX_EVENTS:
                raise MessageRefused("more is said than a device has to say")
            else:
                self._receive(sender.device_id.digest, sender, message)

    def _take_log(self, sender: LinkToDevice, message: Log) -> None:
        if self._closed:
            return
        try:
            self._shipping.receive(sender.device_id.digest, message)
        except MessageRefused as error:
            if not isinstance(sender, RelayedLink):
                raise
            log.warning("a log message of device %s, which was passed on, was refused: %s", sender.device_id, error)

    # -- as the relay sees it (see relay.User)

    def link_up(self, link: LinkToDevice) -> None:
        """Messages can be sent to a device."""
        device = link.device_id.digest
        self._shipping.number_of(device)
        with self._changed:
            self._links[device] = link
            self._changed.notify_all()
        self._events.put(roles.LinkUp(device))

    def link_moved(self, link: LinkToDevice) -> None:
        """Messages to a device go another way from now on; those on the old way are lost."""
        device = link.device_id.digest
        with self._changed:
            self._links[device] = link
            self._changed.notify_all()
        self._events.put(self._tell)
        if device == self._roles.master:
            self._events.put(roles.Behind(dropped=True))

    def link_down(self, link: LinkToDevice) -> None:
        """A device cannot be reached any more."""
        device = link.device_id.digest
        with self._changed:
            self._links.pop(device, None)
            self._acknowledged.pop(device, None)
            self._changed.notify_all()
        self._events.put(roles.LinkDown(device))

    def tick_soon(self) -> None:
        """A device was heard of that another one reaches."""
        self._events.put(self._tick_relay)

    def _tick_relay(self) -> None:
        self._relay.tick(self._status)

    def _receive(self, device: Id, link: LinkToDevice, message: Message) -> None:
        if isinstance(message, Ping):
            self._notice_position(device, message.commit)
        elif isinstance(message, Gap):
            self._events.put(roles.Behind(dropped=True))
            self._relay.on_gap(link, message)
        elif isinstance(message, Ack):
            with self._changed:
                self._acknowledged[device] = message.commit
                self._logs_needed[device] = message.lsn.file
                self._changed.notify_all()
        elif isinstance(message, (Commit, HistoryAsked, CommonAsked)):
            self._requests.take(link, message)
        elif isinstance(message, (Committed, Refused)):
            with self._changed:
                asked = self._asked.get(message.commit_id)
                # Who passes a commit on may say that it cannot; else another's answer is of an earlier question.
                passing = isinstance(message, Refused) and isinstance(to_error(message), NotMaster)
                if asked is not None and (asked == device or passing):
                    self._answers[message.commit_id] = message
                    self._changed.notify_all()
        elif isinstance(message, Status):
            if message.role is Role.REPLICA and message.master == self.own.digest:
                with self._changed:
                    self._acknowledged[device] = max(message.number, self._acknowledged.get(device, 0))
                    self._changed.notify_all()
            self._events.put(roles.Heard(device, message))
            if isinstance(link, RelayedLink):  # what a PING tells where there is a direct link
                self._notice_position(device, message.number)
            else:
                self._relay.on_status(link, message)
            if message.role is Role.WAITING and message.master == self.own.digest and self._data is not None:
                self._send(link, Size(size_of_tables(self._data)))
        elif isinstance(message, Size):
            self._copying.expect(message.total)
        elif isinstance(message, Elect):
            self._events.put(lambda: self._elect_for(device, message))
        elif isinstance(message, HistoryAnswered):
            self._events.put(roles.HistoryAnswered(device, message.number, message.same))
        elif isinstance(message, CommonAnswered):
            self.reconciler.answered(device, message)

    def _notice_position(self, device: Id, number: int) -> None:
        engine = self._engine
        if engine is not None and device == self._roles.master and number > engine.head.number:
            self._events.put(roles.Behind())

    # -- for shipping

    def ship(self, device: Id | None, message: Log) -> None:
        """Queue a message of Berkeley DB's for one device or all. Called inside commits."""
        if device is None:
            for link in list(self._links.values()):
                link.send_log(message)
        else:
            link_to_it = self._links.get(device)
            if link_to_it is not None:
                link_to_it.send_log(message, asked=True)

    def _noticed(self, notice: shipping.Notice) -> None:
        match notice:
            case shipping.Applied(head):
                self._acknowledge(head)
            case shipping.MasterFound(device):
                self._events.put(roles.MasterFound(device))
            case shipping.Elected():
                self._events.put(roles.Elected())
            case shipping.ElectionNeeded():
                self._events.put(roles.ElectionWanted())
            case shipping.ElectionEnded(failed):
                self._events.put(roles.ElectionEnded(failed))
            case shipping.InStep():
                self._events.put(roles.InStep())
            case shipping.TwoMasters():
                self._events.put(roles.Tick())
            case shipping.Broken(reason, dead):
                self._problem = reason
                self._dead |= dead

    def _acknowledge(self, head: Head) -> None:
        """Tell the master what is on this disk, and those who wait for their commit that it may be here."""
        self._problem = None
        with self._changed:
            self._changed.notify_all()
        master = self._roles.master
        link = self._links.get(master) if master is not None else None
        if link is not None:
            self._send(link, Ack(self._generation, head.number, Lsn(*self._shipping.position)))

    # -- commits for the master

    def _await_master(self, deadline: float) -> LinkToDevice | None:
        """The link to the master, once there is one; None if this device is it. Raises NoMaster."""
        while True:
            decided = self._roles
            with self._changed:
                if self._closed:
                    raise StoreClosed("the store is closed")
                if self.is_master:
                    return None
                link = self._links.get(decided.master) if decided.master is not None else None
                if link is not None and decided.role is Role.REPLICA:
                    return link
            why = self.reconciler.status.problem if decided.parted else None
            if why is not None:
                raise NoMaster(
                    "this device has commits that the master lacks, and they could not be put in safety yet, so it "
                    f"can be read, not written: {why}"
                )
            if not decided.may_write():
                raise NoMaster("less than half of the group's devices are reachable: writing waits for the others")
            if time.monotonic() >= deadline:
                raise NoMaster("no master was found in time: see the status of the devices")
            self._events.put(roles.WriteWanted())
            with self._changed:
                self._changed.wait(RETRY_SECONDS)

    def _ask(self, link: LinkToDevice, message: Commit, deadline: float) -> Committed | Refused | None:
        """Send a commit and await the answer; None if there was none, and it is to be seen whether it was applied."""
        commit_id = message.commit_id
        with self._changed:
            self._asked[commit_id] = link.device_id.digest
        try:
            link.send(message)
            deadline = min(deadline, time.monotonic() + ASK_AGAIN_SECONDS)
            self._wait(lambda: commit_id in self._answers or not link.open or self._closed, deadline)
        except MessageTooLong:
            raise
        except LinkError:
            log.debug("the link to the master ended before a commit was sent")
        finally:
            with self._changed:
                del self._asked[commit_id]
                answer = self._answers.pop(commit_id, None)
        return answer

    def _await_number(self, number: int, link: LinkToDevice, deadline: float) -> None:
        """Wait until the commit of this number is applied here, or cannot be expected any more."""
        engine = self._engine
        self._wait(lambda: engine is None or engine.head.number >= number or not link.open or self._closed, deadline)

    def _wait(self, condition: Callable[[], bool], deadline: float) -> bool:
        """Wait until `condition` holds, or `deadline`; returns whether it does."""
        with self._changed:
            return self._changed.wait_for(condition, max(0.0, deadline - time.monotonic()))

    def _await_copy(self) -> None:
        """Wait until the tables of a joining device are here, as long as something comes and the database lives."""
        pages, last = -1, 0.0
        while not self._in_step:
            if self._shipping.pages != pages:
                pages, last = self._shipping.pages, time.monotonic()
            if self._closed or time.monotonic() >= last + self.copy_seconds:
                raise NoMaster("no device sent a copy of the store: keep one of the group's devices on, and try again")
            if self._dead or time.monotonic() >= last + STILL_SECONDS:
                self._check_room()
            if self._dead:
                why = self._problem or self._trouble
                raise StoreError(f"the store could not be copied: {why}; open it again to go on with the copy")
            self._wait(lambda: self._in_step or self._closed or self._dead, time.monotonic() + TICK_SECONDS)

    def _check_room(self) -> None:
        """Raise StoreFull or the like if what the copy has failed on is the disk. The next opening goes on with it."""
        if self._data is None:
            return
        try:
            try_writing(self._data)
        except FileNotFoundError:  # Berkeley DB has just removed one
            return
        except OSError as error:
            raise explained(error, self._data.parent) from error

    # -- deciding, and doing it: all on one thread

    def _run(self) -> None:
        while True:
            try:
                settled = self._roles.role in (Role.MASTER, Role.REPLICA) and self._roles.master is not None
                event = self._events.get(timeout=SETTLED_TICK_SECONDS if settled else TICK_SECONDS)
            except queue.Empty:
                event = roles.Tick()
            if event is None:
                return
            work = functools.partial(self._step, event) if isinstance(event, roles.Event) else event
            trouble = self._attempt(work)
            self._trouble = self._attempt(self._tick_relay) or trouble
            with self._changed:
                self._changed.notify_all()

    @staticmethod
    def _attempt(work: Callable[[], None]) -> str | None:
        """Do something; returns why it failed. Without this thread nobody would decide any more."""
        try:
            work()
        except AtopError as error:
            log.debug("a change of role failed: %s", error)
            return str(error)
        except Exception as error:
            log.exception("a mistake in deciding who is master")
            return f"a mistake in deciding who is master: {error!r}"
        return None

    def _step(self, event: roles.Event) -> None:
        if isinstance(event, roles.InStep):
            self._in_step = True
        if isinstance(event, roles.Secured) and not self.reconciler.secures(
            event.device, Head(event.number, event.chain)
        ):
            return  # it was, and has been made anew and removed since: then it is salvaged again
        for action in self._roles.step(event, time.monotonic(), self._me()):
            self._do(action)
        if self.is_master and self._roles.role is not Role.MASTER:
            self._shipping.become_replica()
        elif self._roles.role is Role.MASTER and not self.is_master:  # it failed, or the database was opened anew
            self._shipping.become_master()
        self.reconciler.consider(self._roles.role, self._roles.master, self._roles.parted, self._shipping.requests)

    def _me(self) -> roles.Self:
        self._generation, found = self._shipping.standing()
        self._copying.saw(self._shipping.pages, self._shipping.copies, time.monotonic())
        head = self._engine.head if self._engine is not None else Head(0, bytes(CHAIN_BYTES))
        return roles.Self(
            self._generation, head.number, head.chain, found, self._shipping.pages, self._shipping.in_step
        )

    def _do(self, action: roles.Action) -> None:
        match action:
            case roles.HoldElection(sites, votes):
                if not self._shipping.elect(sites, votes):
                    self._events.put(roles.ElectionEnded(failed=True))
            case roles.BecomeMaster():
                with self._changed:
                    self._acknowledged.clear()  # by numbers of a history that may have been given up since
                self._shipping.become_master()
            case roles.BecomeReplica():
                self._shipping.become_replica()
            case roles.RaiseGeneration():
                self._shipping.become_replica()
                self._shipping.become_master()
            case roles.AskHistory(device, number):
                link = self._links.get(device)
                me = self._me()
                if link is not None and me.number == number:
                    self._send(link, HistoryAsked(number, me.chain))
            case roles.AskForGeneration(device):
                link = self._links.get(device)
                if link is not None:
                    self._send(link, Elect(self._generation, device))
            case roles.Sync():
                self._sync()
            case roles.Tell():
                self._tell()

    def _sync(self) -> None:
        master = self._roles.master
        if master is not None and not self._shipping.sync(master):
            found = self._me().found
            if found is not None and found != self.own.digest:
                self._events.put(roles.MasterFound(found))

    def _tell(self) -> None:
        status = self._status()
        with self._changed:
            links = list(self._links.values())
        for link in links:
            self._send(link, status)

    def _status(self) -> Status:
        """What other devices are told."""
        me, decided, reachable = self._me(), self._roles, self._relay.devices()
        flushed = None if self.is_master else self._shipping.flushed
        # The master takes what a replica says for acknowledged: only what is on the disk is said.
        number, chain = (me.number, me.chain) if flushed is None or flushed.number > me.number else flushed
        return Status(decided.role, me.generation, decided.master, roles.PRIORITY, number, chain, reachable)

    def _report(self, event: roles.Event) -> None:
        self._events.put(event)

    def _copy_anew(self, master: Id, head: Head) -> bool:
        """Take a full copy from a master that was found, instead of following it; returns whether it came."""
        engine, decided = self._engine, threading.Event()
        agreed = False

        def begin() -> None:
            nonlocal agreed
            me = self._me()
            agreed = self._roles.parted and self._roles.master == master and (me.number, me.chain) == head
            agreed = agreed and self.reconciler.secures(master, head)
            if agreed:
                self._in_step = False
                self._shipping.detach()
            decided.set()

        self._events.put(begin)
        while not decided.wait(TICK_SECONDS):
            if not self._thread.is_alive():
                return False
        return agreed and engine is not None and engine.start_over()

    def _send_to(self, device: Id, message: Message) -> bool:
        link = self._links.get(device)
        if link is not None:
            self._send(link, message)
        return link is not None

    @staticmethod
    def _send(link: LinkToDevice, message: Message) -> None:
        try:
            link.send(message)
        except LinkError as error:  # the link tells of its end by itself
            log.debug("not sent: %s", error)

    # -- giving way

    def _elect_for(self, device: Id, message: Elect) -> None:
        """A device is to be master: give way for it, or be it, of a later generation than the one named."""
        if message.winner == self.own.digest:
            if self.is_master:
                self._step(roles.GenerationWanted(message.generation))
            elif device == self._roles.master:
                self._step(roles.Appointed())
        elif (
            self.is_master
            and message.winner in self._links
            and time.monotonic() >= self._give_way_at
            and not self._give_way(message.winner)
        ):
            self._give_way_at = time.monotonic() + 2 * HAND_OVER_SECONDS

    def _retire(self) -> None:
        """Being about to leave: give way for the device that has most."""
        if not self.is_master:
            return
        with self._changed:
            there = [device for device, status in self._roles.peers.items() if device in self._links and status]
            acknowledged = dict(self._acknowledged)
        if there:
            self._give_way(max(there, key=lambda device: (acknowledged.get(device, 0), device)))

    def _give_way(self, winner: Id) -> bool:
        """Let a device be master in the place of this one, once it has every commit; False if it does not get them."""
        engine = self._engine
        if engine is None:
            return False
        deadline = time.monotonic() + HAND_OVER_SECONDS
        with engine.no_commits():
            if not self._wait(lambda: self._acknowledged.get(winner, -1) >= engine.head.number, deadline):
                return False
            self._shipping.become_replica()
        with self._changed:
            links = list(self._links.values())
        for link in links:
            self._send(link, Elect(self._generation, winner))
        self._step(roles.GaveWay(winner))
        return True
