"""Who is master: the decisions, and nothing else. Events go in, actions come out; no thread, socket or clock inside.

Berkeley DB counts votes, compares logs and numbers the generations of masters. What is decided here is when to hold
an election, when to take over without one, which of two masters gives way, and whether a master that was found may be
followed: only if its history has all that is here.

States (`messages.Role`), and what leads on from them:

    STARTING   no link yet, no master; reads only. A link, the end of `start_grace`, a master.
    REPLICA    follows `master`, or, where that is None, looks for one.
    ELECTING   an election is being held. Its end, a master.
    WAITING    a master was found, and this device's own history is still in place: either the answer is awaited
               whether the master has all of it, or the copy that follows; or it has not (`parted`), and then nothing
               is given up before it is in safety.
    MASTER     commits are applied here.

Devices are named by the 32 bytes of their id, here as on links. Time is in seconds, of any clock that goes forward.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from .messages import Role, Status

Id = bytes

START_GRACE: Final = 2.0
"""Seconds after the start in which a write waits for other devices before this one takes over without them."""

ASK_SECONDS: Final = 0.5
"""How often a device that knows of a master, and is not followed up by it, makes itself known again."""

STUCK_SECONDS: Final = 3.0
"""How long a replica may stand still behind its master, asking, before it looks for a master anew."""

PATIENT_ASKS: Final = 2
"""How often a device makes itself known to a master in vain before it asks that one for a new generation."""

ELECTION_PAUSE: Final = 0.2
"""Seconds between an election that brought no master and the next."""

PRIORITY: Final = 100
"""The priority of every device, as long as no setting says otherwise."""

COPY_STALL_SECONDS: Final = 5.0
"""How long a full copy may stand still, once pages have come, before it is begun anew; twice as long each time."""

NUDGE_SECONDS: Final = 1.0
"""How long a rollback or copy may stand still before it is seen whether something was lost."""

STALL_SECONDS: Final = 0.5
"""How long a replica may stand still behind its master before it asks for what it lacks."""


class Self(NamedTuple):
    """How this device stands when something happens: read from the database."""

    generation: int
    number: int  # of the last commit
    chain: bytes
    found: Id | None = None  # the master that Berkeley DB goes by; it may be gone, and need not be followed yet
    pages: int = 0  # received in full copies
    in_step: bool = False  # whether what the master that was found had then is here


# -- events


@dataclass(frozen=True)
class LinkUp:
    """There is a link to a device."""

    device: Id


@dataclass(frozen=True)
class LinkDown:
    """There is none any more."""

    device: Id


@dataclass(frozen=True)
class Heard:
    """A device has said how it stands."""

    device: Id
    status: Status


@dataclass(frozen=True)
class MasterFound:
    """Berkeley DB has found the master of a new generation, and waits for `Sync`."""

    device: Id


@dataclass(frozen=True)
class HistoryAnswered:
    """The master has said whether its history contains this device's commit `number` with its chain value."""

    device: Id
    number: int
    same: bool


@dataclass(frozen=True)
class Secured:
    """What this device has up to a commit, and a master lacks, is in safety beside the database."""

    device: Id
    number: int
    chain: bytes


@dataclass(frozen=True)
class Elected:
    """This device has won an election."""


@dataclass(frozen=True)
class ElectionEnded:
    """An election that this device took part in is over."""

    failed: bool


@dataclass(frozen=True)
class ElectionWanted:
    """Another device has called an election."""


@dataclass(frozen=True)
class InStep:
    """What the master had when this device began to follow is here."""


@dataclass(frozen=True)
class Behind:
    """The master says that it has more commits than this device, or that it had to drop log records."""

    dropped: bool = False


@dataclass(frozen=True)
class WriteWanted:
    """The program wants to commit."""


@dataclass(frozen=True)
class Appointed:
    """The device that was master has given way for this one."""


@dataclass(frozen=True)
class GenerationWanted:
    """A replica cannot follow this device before it begins a generation after `generation`."""

    generation: int


@dataclass(frozen=True)
class GaveWay:
    """This device was master and has given way for another; `to` is to say that it is master."""

    to: Id


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


Event = (
    LinkUp | LinkDown | Heard | MasterFound | HistoryAnswered | Secured | Elected | ElectionEnded | ElectionWanted
    | InStep | Behind | WriteWanted | Appointed | GenerationWanted | GaveWay | Tick
)  # fmt: skip


# -- actions


@dataclass(frozen=True)
class HoldElection:
    """Hold an election among this many devices; at least `votes` must take part."""

    sites: int
    votes: int


@dataclass(frozen=True)
class BecomeMaster:
    """Apply commits here, as the master of a new generation."""


@dataclass(frozen=True)
class BecomeReplica:
    """Apply none; say to all that this device looks for a master, and for what it lacks."""


@dataclass(frozen=True)
class RaiseGeneration:
    """Being master, begin a new generation, so that devices which have seen a later one follow."""


@dataclass(frozen=True)
class AskHistory:
    """Ask a master whether its history contains this device's last commit."""

    device: Id
    number: int


@dataclass(frozen=True)
class AskForGeneration:
    """Ask a master to begin a new generation: this device knows another master of the one it is in."""

    device: Id


@dataclass(frozen=True)
class Sync:
    """Let Berkeley DB follow the master it has found."""


@dataclass(frozen=True)
class Tell:
    """Send this device's status to all."""


Action = HoldElection | BecomeMaster | BecomeReplica | RaiseGeneration | AskHistory | AskForGeneration | Sync | Tell


@dataclass
class Roles:
    """The decisions of one device. `step` is the only way in.

    Args:
        own: this device's id.
        members: how many devices the group has, this one included.
        has_copy: whether there is a database here; without one a device only ever follows.
        majority: whether only a side with more than half of the devices may have a master.
    """

    own: Id
    members: int = 1
    has_copy: bool = True
    majority: bool = False
    start_grace: float = START_GRACE
    role: Role = Role.STARTING
    master: Id | None = None  # the device that is followed, or about to be; this one's own id where it is master
    parted: bool = False  # Invariant: only while WAITING: the master lacks commits that are here
    peers: dict[Id, Status | None] = field(default_factory=dict)  # reachable devices, and what they said last
    _started: float | None = None
    _ask_at: float = 0.0
    _elect_at: float = 0.0
    _asked: int = 0  # how often in vain since a master was followed last
    _synced: tuple[Id, int] | None = None  # the master that was followed to the end last, and its generation
    _rivals: set[Id] = field(default_factory=set)  # devices that were master while this one was
    _behind_since: float | None = None
    _behind_at: int = 0
    _stuck_at: float = 0.0
    _waiting_since: float = 0.0
    _sync_at: tuple[int, int] = (0, 0)  # last commit and received pages when a rollback or copy moved last
    _copy_stalls_at: float | None = None  # None while no page of a copy has come that is not complete
    _copy_patience: float = COPY_STALL_SECONDS
    _copy_broken: bool = False  # whether the link to the master was lost since it was followed
    _syncing: bool = False  # whether what is waited for is the copy; else it is the answer about the history

    def step(self, event: Event, now: float, me: Self) -> list[Action]:
        """What is to be done about an event, in this order."""
        if self._started is None:
            self._started = now
        before = (self.role, self.master, self.parted)
        actions = self._react(event, now, me)
        actions += self._consider(now, me)
        changed = before != (self.role, self.master, self.parted) or RaiseGeneration() in actions
        if (changed or isinstance(event, (LinkUp, LinkDown))) and Tell() not in actions:
            actions.append(Tell())
        return actions

    def may_write(self) -> bool:
        """Whether enough devices are reachable for a master among them."""
        return not self.majority or 2 * (len(self.peers) + 1) > self.members

    def may_take_over(self, now: float) -> bool:
        """Whether this device may become master without asking: nobody is there to ask."""
        started = self._started if self._started is not None else now
        looked = self.members <= 1 or self.role is not Role.STARTING or now >= started + self.start_grace
        return self.has_copy and not self.parted and not self.peers and self.may_write() and looked

    # -- events

    def _react(self, event: Event, now: float, me: Self) -> list[Action]:
        match event:
            case LinkUp(device):
                self.peers[device] = None
                if self.role is Role.STARTING:
                    self._become_replica(None)
            case LinkDown(device):
                self.peers.pop(device, None)
                if self.master == device:
                    self._copy_broken = True  # if there is one: pages that were on their way are lost
                    self._become_replica(None)
                    self._elect_at = self._ask_at = now
            case Heard(device, status):
                if device in self.peers:
                    self.peers[device] = status
            case MasterFound(device):
                self._synced = None  # Berkeley DB waits for `Sync` again, whoever it is
                if self.role is not Role.MASTER:  # else it was found before this device became master
                    return self._follow(device, now, me)
            case HistoryAnswered(device, number, same):
                return self._judge_history(device, number, same, now, me)
            case InStep():
                self._note_in_step(me)
            case Secured(device, number, chain):
                return self._sync_secured(device, number, chain, me)
            case Elected():
                return self._become_master()
            case ElectionEnded():
                if self.role is Role.ELECTING:
                    self._become_replica(None)
                    self._elect_at = now + ELECTION_PAUSE
            case ElectionWanted():
                if self.role in (Role.REPLICA, Role.STARTING) and self.master is None:
                    self._elect_at = now
            case Behind(dropped):
                return self._catch_up(dropped, now, me)
            case WriteWanted():
                if self.role in (Role.REPLICA, Role.STARTING) and self.master is None and self.may_take_over(now):
                    return self._become_master()
            case Appointed():
                if self.has_copy and not self.parted and self.may_write():
                    return self._become_master()
            case GenerationWanted(generation):
                if self.role is Role.MASTER and me.generation <= generation:
                    return [RaiseGeneration()]
            case GaveWay(to):
                self._become_replica(None)
                self._elect_at = now + 5 * ELECTION_PAUSE if to in self.peers else now
            case Tick():
                pass
        return []

    def _follow(self, device: Id, now: float, me: Self) -> list[Action]:
        if self.role is not Role.WAITING or self.master != device:
            self._waiting_since = now
        self.role, self.master, self.parted = Role.WAITING, device, False
        self._asked = 0
        self._ask_at = now + ASK_SECONDS
        self._syncing = not self.has_copy or not me.number
        self._sync_at = (me.number, me.pages)
        if self._copy_stalls_at is not None:
            self._copy_stalls_at = now + (NUDGE_SECONDS if self._copy_broken else self._copy_patience)
        self._copy_broken = False
        if self._syncing:
            return [Sync()]
        return [AskHistory(device, me.number)]

    def _judge_history(self, device: Id, number: int, same: bool, now: float, me: Self) -> list[Action]:
        if self.role is not Role.WAITING or device != self.master:
            return []  # the answer of one that is master no longer
        if number != me.number:
            return [AskHistory(device, me.number)]
        self.parted, self._syncing = not same, same
        self._ask_at = max(self._ask_at, now + NUDGE_SECONDS) if same else self._ask_at
        return [Sync()] if same else []

    def _note_in_step(self, me: Self) -> None:
        """What was waited for is here. Berkeley DB may have said so while another master was thought of."""
        if self.role is Role.WAITING and self.master is not None:
            self.has_copy = True
            self._synced = (self.master, me.generation)
            self._copy_stalls_at, self._copy_patience = None, COPY_STALL_SECONDS
            self._become_replica(self.master)

    def _sync_secured(self, device: Id, number: int, chain: bytes, me: Self) -> list[Action]:
        if self.role is not Role.WAITING or device != self.master or (number, chain) != (me.number, me.chain):
            return []  # it was about another history than the one to give up now
        self.parted, self._syncing = False, True
        return [Sync()]

    def _catch_up(self, dropped: bool, now: float, me: Self) -> list[Action]:
        """Ask for log records that did not arrive, if none came for a while, or it is known that some were lost."""
        if dropped and self._copy_stalls_at is not None:  # pages may be among what was lost
            self._copy_stalls_at = min(self._copy_stalls_at, now + STALL_SECONDS)
        if self.role is not Role.REPLICA or self.master is None:
            return []
        if self._behind_since is None or self._behind_at != me.number:
            self._behind_since, self._behind_at, self._stuck_at = now, me.number, now + STUCK_SECONDS
        if now >= self._stuck_at:  # asking does not help: look for a master as if there had been none
            self._become_replica(None)
            self._asked, self._ask_at = PATIENT_ASKS, now
            return []
        if dropped or now - self._behind_since >= STALL_SECONDS:
            self._behind_since = now
            return [BecomeReplica()]
        return []

    # -- states

    def _become_replica(self, master: Id | None) -> None:
        self.role, self.master, self.parted = Role.REPLICA, master, False
        self._behind_since = None

    def _become_master(self) -> list[Action]:
        self.role, self.master, self.parted, self._synced = Role.MASTER, self.own, False, None
        for device, status in self.peers.items():
            if status is not None and status.role is Role.MASTER:
                self.peers[device] = None  # it was before; if it is still, it will say so again when it hears of us
        return [BecomeMaster()]

    # -- what follows from how things stand

    def _consider(self, now: float, me: Self) -> list[Action]:
        if self.role is Role.MASTER:
            return self._consider_as_master(now, me)
        if self.master is not None and self._has_given_up(self.master, now, me):
            self._become_replica(None)
        if self.master is not None:
            if self.role is Role.WAITING and self._syncing:
                return self._push_sync(self.master, now, me)
            if self.role is Role.WAITING and self.master in self.peers and now >= self._ask_at:
                self._ask_at = now + ASK_SECONDS
                return [AskHistory(self.master, me.number)]  # the answer was lost, or it has what it lacked by now
            return []
        if self.role is not Role.ELECTING:
            return self._look_for_master(now, me)
        return []

    def _consider_as_master(self, now: float, me: Self) -> list[Action]:
        if not self.may_write():
            self._become_replica(None)
            return [BecomeReplica()]
        known = {device: status for device, status in self.peers.items() if status is not None}
        for device, status in known.items():
            if status.role is Role.MASTER:
                self._rivals.add(device)
                if (status.number, status.priority, device) > (me.number, PRIORITY, self.own):
                    self._become_replica(None)
                    return [BecomeReplica()]
        self._rivals &= known.keys()
        given_way = {device for device in self._rivals if known[device].role is not Role.MASTER}
        self._rivals -= given_way
        if any(
            status.role is not Role.MASTER
            and status.master in (None, self.own)  # one that follows another master is that one's to care for
            and (status.generation > me.generation or (device in given_way and status.generation == me.generation))
            for device, status in known.items()
        ):
            self._rivals |= given_way
            return [RaiseGeneration()]
        if self._rivals and now >= self._ask_at:
            self._ask_at = now + ASK_SECONDS
            return [Tell()]  # until one of the two knows that it is to give way
        return []

    def _push_sync(self, master: Id, now: float, me: Self) -> list[Action]:
        """See to it that a rollback or copy comes to its end, whatever of it gets lost on the way."""
        if me.in_step and me.found == master:
            self._note_in_step(me)
            return []
        if (me.number, me.pages) != self._sync_at:
            if me.pages != self._sync_at[1]:
                self._copy_stalls_at = now + self._copy_patience
            self._sync_at, self._ask_at = (me.number, me.pages), now + NUDGE_SECONDS
        if self._copy_stalls_at is not None:  # Berkeley DB would ask for one page each time, not for all that lack
            if now < self._copy_stalls_at:
                return []
            self._copy_patience *= 2  # it may be the disk that is slow
            self._copy_stalls_at = now + self._copy_patience
            return [AskForGeneration(master)]
        if now >= self._ask_at:
            self._ask_at = now + NUDGE_SECONDS
            return [BecomeReplica()]
        return []

    def _has_given_up(self, device: Id, now: float, me: Self) -> bool:
        """Whether a device that was a master of this generation has said since that it is none."""
        status = self.peers.get(device)
        if status is None or status.role is Role.MASTER:
            return False
        late = self.role is Role.WAITING and now >= self._waiting_since + STALL_SECONDS
        return late or status.generation >= me.generation

    def _look_for_master(self, now: float, me: Self) -> list[Action]:
        known = {device: status for device, status in self.peers.items() if status is not None}
        masters = [device for device, status in known.items() if status.role is Role.MASTER]
        if masters:
            if now < self._ask_at:
                return []
            self._ask_at = now + ASK_SECONDS
            return [*self._resume(masters, known, now, me), BecomeReplica()]
        if self.members <= 1 and not self.peers and self._copy_stalls_at is None and self.may_take_over(now):
            return self._become_master()  # it was removed from its group, or all others were
        voters = [device for device, status in known.items() if status.role is not Role.WAITING]
        if not voters or len(known) < len(self.peers) or not self.has_copy or not self.may_write():
            return []
        if me.number and self._copy_stalls_at is None and all(status.number == 0 for status in known.values()):
            return self._become_master()  # the others wait for their first copy, and could not vote
        if now < self._elect_at:
            return []
        self.role = Role.ELECTING
        sites = len(voters) + 1
        votes = sites // 2 + 1
        if self.majority:
            votes = max(votes, self.members // 2 + 1)
        return [HoldElection(max(sites, votes), votes)]

    def _resume(self, masters: list[Id], known: dict[Id, Status], now: float, me: Self) -> list[Action]:
        """Go on with the master that Berkeley DB has been told of before, so that it will not tell of it again."""
        # Berkeley DB takes one master of a generation, and may have taken another, or counted an election for one.
        others = [device for device in masters if device != me.found]
        taken = me.found is not None and any(known[device].generation == me.generation for device in others)
        self._asked += 1
        stubborn = self._asked > PATIENT_ASKS
        if stubborn or (others and taken):
            self._asked = 0
            return [AskForGeneration((others or masters)[0])]
        if me.found is None or me.found not in masters or known[me.found].generation != me.generation:
            return []
        if self._synced == (me.found, me.generation):
            self._become_replica(me.found)
            return []
        return self._follow(me.found, now, me)
