"""Pairing: how a new device joins, from a code that a person reads on one screen and types on another.

Two machines, `Inviter` and `Joiner`: a message comes in, messages go out. They know no socket, thread or clock;
`now` is seconds of any clock that does not go back. The caller carries each message whole (it adds the framing),
in order, and shows `comparison` to the person on its side.

SPAKE2 makes a key of the code such that a run gives an attacker one guess, which only the other side's answer
confirms, and nothing to search through at home; and an `Invitation` takes one guess. The words are 18 bits, so
an attacker wins one time in 262,144. SPAKE2 is used with its two roles (SPAKE2_A joins, SPAKE2_B invites), not in
the symmetric form: who is who is known here, and with roles a message sent back to its sender is useless.

The steps. Each message is a kind byte and what is listed, with sizes in bytes:

    1 OPEN      joiner   version (1), SPAKE2 share (33)
    2 SHARE     inviter  SPAKE2 share (33), commitment (32): hash of the ephemeral key that REPLY will show
    3 HELLO     joiner   Noise XXpsk3, first message. Its prologue is OPEN and SHARE, its psk the SPAKE2 key: so
                         roles, version and all that was said before are bound together
    4 REPLY     inviter  second message: the inviter's static key, encrypted
    5 PROOF     joiner   third message: the joiner's static key and name. Only who knows the code can write it;
                         the inviter spends the code on it before looking at it
    6 GREETING  inviter  its name, encrypted as everything from here on. It proves to the joiner that the inviter
                         knows the code. Both people now see both names and six digits, and compare
    7 CONFIRM   joiner   its person agreed; payload
    8 WELCOME   inviter  its person agreed, and CONFIRM came; payload (the member list)
    9 REFUSE    either   its person did not agree; or why the device does not, a byte (see `Refusal`)
    0 ABORT     either   in the clear, with a reason (1): it ends the pairing, as closing the connection would

The digits are for the case that somebody saw the code and put a machine between the two. It would have to hold
two handshakes, and the digits are made of both ephemeral keys of one. As the inviter commits to its key before it
sees the joiner's, nobody can search for keys until the digits agree: one chance in a million.

Who connects without the code learns the inviter's public key (REPLY) and nothing else. A joiner shows its public
key to whatever it connects to, and its name only to who knows the code.

WELCOME goes last: a joiner that has it is in the group, and the inviter knows. Where it is lost, the inviter has
a member that does not know it is one; pairing again with a new code mends that.

What this module never does: put a code or a key into `repr`, status or errors; decide who is a member; trust a
name or a payload. SPAKE2 in pure Python does not run in constant time; its secrets are used in one run only.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any, ClassVar, Final

from spake2 import SPAKE2_A, SPAKE2_B
from spake2.ed25519_basic import NotOnCurve
from spake2.spake2 import SPAKEError

from .identity import DeviceId, Identity
from .invitation import (
    MAX_NAME_BYTES,
    CodeExpired,
    CodeSpent,
    InvalidDeviceName,
    Invitation,
    PairingBroken,
    PairingCode,
    PairingFailed,
    PairingRefused,
    PairingTimeout,
    PairingVersion,
    SameDevice,
    WrongCode,
    check_name,
)
from .noise import KEY_BYTES, TAG_BYTES, CipherState, HandshakeState, NoiseError, public_key_of

PROTOCOL_VERSION: Final = 1

HANDSHAKE_SECONDS: Final = 30.0
"""From a connection to the proof of the code no person is needed: longer is a stalled or hostile peer."""

CONFIRM_SECONDS: Final = 300.0
"""For two people to compare six digits."""

MAX_PAYLOAD_BYTES: Final = 32_768
"""What each side hands over when its person agrees: a member list of over a hundred devices."""

_SHARE_BYTES: Final = 33  # SPAKE2 on Ed25519: a byte for the side and a point
_COMMITMENT_BYTES: Final = 32
_JOINER_NAME: Final = b"atop pairing %d joiner" % PROTOCOL_VERSION
_INVITER_NAME: Final = b"atop pairing %d inviter" % PROTOCOL_VERSION

__all__ = [
    "MAX_MESSAGE_BYTES",
    "MAX_PAYLOAD_BYTES",
    "PROTOCOL_VERSION",
    "Comparison",
    "Invitation",
    "Inviter",
    "Joiner",
    "PairingCode",
    "PairingFailed",
    "PairingOutcome",
    "PairingState",
    "Refusal",
]


class PairingState(Enum):
    """Where a pairing stands; the values are for status displays."""

    NEW = "not begun"
    AWAITING_OPEN = "waiting for the other device"
    AWAITING_SHARE = "waiting for the other device to answer"
    AWAITING_HELLO = "waiting for the other device's key"
    AWAITING_REPLY = "waiting for the other device's key and identity"
    AWAITING_PROOF = "waiting for the proof of the code"
    AWAITING_GREETING = "waiting for the code to be checked"
    COMPARING = "waiting for somebody to compare the digits on both devices"
    AGREED_HERE = "agreed here, waiting for the other device"
    AGREED_THERE = "agreed on the other device, waiting for this one"
    DONE = "paired"
    FAILED = "failed"


class _Event(IntEnum):
    """What moves a machine on: the kinds of messages, and (no byte can say it) this device's person."""

    ABORT = 0
    OPEN = 1
    SHARE = 2
    HELLO = 3
    REPLY = 4
    PROOF = 5
    GREETING = 6
    CONFIRM = 7
    WELCOME = 8
    REFUSE = 9
    AGREE_HERE = 256


# Bytes after the kind byte: least and most. OPEN may be longer in versions to come.
_SIZES: Final = {
    _Event.ABORT: (1, 1),
    _Event.OPEN: (1, 255),
    _Event.SHARE: (_SHARE_BYTES + _COMMITMENT_BYTES, _SHARE_BYTES + _COMMITMENT_BYTES),
    _Event.HELLO: (KEY_BYTES + TAG_BYTES, KEY_BYTES + TAG_BYTES),
    _Event.REPLY: (2 * KEY_BYTES + 2 * TAG_BYTES, 2 * KEY_BYTES + 2 * TAG_BYTES),
    _Event.PROOF: (KEY_BYTES + 2 * TAG_BYTES + 1, KEY_BYTES + 2 * TAG_BYTES + MAX_NAME_BYTES),
    _Event.GREETING: (TAG_BYTES + 1, TAG_BYTES + MAX_NAME_BYTES),
    _Event.CONFIRM: (TAG_BYTES, TAG_BYTES + MAX_PAYLOAD_BYTES),
    _Event.WELCOME: (TAG_BYTES, TAG_BYTES + MAX_PAYLOAD_BYTES),
    _Event.REFUSE: (TAG_BYTES, TAG_BYTES + 1),
}

MAX_MESSAGE_BYTES: Final = 1 + max(most for _, most in _SIZES.values())
"""The longest message: the caller's framing may refuse longer ones unread."""

# The reason byte of ABORT, and what it means to the device that receives it.
_REASONS: Final[dict[int, tuple[type[PairingFailed], str]]] = {
    1: (WrongCode, "the other device has another code, and it is spent now: make a new one and type that"),
    2: (CodeExpired, "the code is older than ten minutes: make a new one on the inviting device"),
    3: (CodeSpent, "the code was used already: make a new one on the inviting device"),
    4: (PairingVersion, "the devices speak different versions of pairing: update Atop on both"),
    5: (PairingTimeout, "the other device stopped waiting: begin again"),
    6: (PairingBroken, "the other device did not understand this one: begin again with a new code"),
    7: (SameDevice, "the other device has the same identity as this one: it says how to mend that"),
    8: (PairingRefused, "pairing was stopped on the other device"),
}
_REASON_FOR: Final = {kind: reason for reason, (kind, _) in _REASONS.items()}


class Refusal(IntEnum):
    """Why a device that knows the code is turned away all the same; travels in REFUSE."""

    PERSON = 0
    TAG_TAKEN = 1
    REMOVED = 2
    FULL = 3

    @property
    def text(self) -> str:
        """What the device that is turned away tells its person."""
        return _REFUSALS[self]


_REFUSALS: Final = {
    Refusal.PERSON: "somebody said no on the other device",
    Refusal.TAG_TAKEN: (
        "the group has a device whose items would get the same numbers as this one's, which happens once in millions "
        "of times: this device has a new identity now; try again with a new code"
    ),
    Refusal.REMOVED: "this device was removed from the group, and its key with it: join with a new, empty store",
    Refusal.FULL: "the group has as many devices as it can have: remove one that is not used any more",
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a person sees before agreeing. Nothing in it is secret."""

    own_name: str
    own_id: DeviceId
    other_name: str
    other_id: DeviceId
    digits: str

    @property
    def text(self) -> str:
        """The whole question, to be answered with yes or no."""
        return (
            f"This device is {self.own_name} ({self.own_id.short}); "
            f"the other is {self.other_name} ({self.other_id.short}).\n"
            f"Does the other device show the number {self.digits} too? "
            "If it shows another one, somebody is in between: say no, and make a new code."
        )


@dataclass(frozen=True, slots=True)
class PairingOutcome:
    """The other device, proven, and what it handed over (at most `MAX_PAYLOAD_BYTES`, not looked at)."""

    remote_public_key: bytes
    remote_name: str
    payload: bytes = field(repr=False)

    @property
    def remote_id(self) -> DeviceId:
        """The id that follows from the key."""
        return DeviceId.from_public_key(self.remote_public_key)


_Table = dict[tuple[PairingState, _Event], tuple[Callable[..., list[bytes]], PairingState]]


class _Machine:
    """What `Inviter` and `Joiner` share. One thread at a time.

    Fields to read: `state`; `deadline`, the time at which `tick` will end it; `failure`, what ended it.
    """

    _TABLE: ClassVar[_Table]
    """(state, event) -> (what to do, the state after it). What is not in there may not happen."""

    _INITIATOR: ClassVar[bool]

    def __init__(
        self, state: PairingState, identity: Identity, name: str, now: float, random_bytes: Callable[[int], bytes]
    ) -> None:
        self.state = state
        self.failure: PairingFailed | None = None
        self.deadline = now + HANDSHAKE_SECONDS
        self._identity = identity
        self._name = check_name(name)
        self._ephemeral = random_bytes(KEY_BYTES)
        self._spake: Any = None
        self._noise: HandshakeState | None = None
        self._ciphers: tuple[CipherState, CipherState] | None = None
        self._comparison: Comparison | None = None
        self._remote_public_key = b""
        self._ephemerals = b""  # the public ones: the joiner's, then the inviter's
        self._own_payload = b""
        self._other_payload = b""

    @property
    def finished(self) -> bool:
        """Whether it is over, well or not: see `outcome`."""
        return self.state in (PairingState.DONE, PairingState.FAILED)

    @property
    def comparison(self) -> Comparison | None:
        """What to show to the person, once both sides have proven the code; None before, or if it failed."""
        return self._comparison

    @property
    def remote_public_key(self) -> bytes:
        """The other device's key, once it has shown it; empty before."""
        return self._remote_public_key

    @property
    def outcome(self) -> PairingOutcome:
        """The result. Raises `failure` if there is one, and PairingFailed while it goes on."""
        if self.failure is not None:
            raise self.failure
        if self.state is not PairingState.DONE or self._comparison is None:
            raise PairingFailed(f"the pairing is not finished: {self.state.value}")
        return PairingOutcome(self._remote_public_key, self._comparison.other_name, self._other_payload)

    def receive(self, message: bytes, now: float) -> list[bytes]:
        """Take in a message of the other side; return those to send.

        Raises nothing for what the other side does: a message that does not belong there ends the pairing with
        a `failure`. When it is over, messages are ignored.
        """
        if self.finished:
            return []
        if farewell := self.tick(now):
            return farewell
        event = _event_of(message)
        if event is None or (self.state, event) not in self._TABLE:
            return self._fail(PairingBroken(f"the other side sent a wrong message while {self.state.value}"))
        least, most = _SIZES[event]
        if not least <= len(message) - 1 <= most:
            return self._fail(PairingBroken(f"the other side sent {event.name} of {len(message)} bytes"))
        return self._step(event, bytes(message[1:]), now)

    def agree(self, now: float, payload: bytes = b"") -> list[bytes]:
        """The person says that the digits are equal: return what to send.

        `payload` (at most `MAX_PAYLOAD_BYTES`) goes to the other device; the inviter's only once the person
        there has agreed too. Raises PairingFailed if there is nothing to agree to, or the payload is too long.
        """
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise PairingFailed(f"{len(payload)} bytes to hand over are more than {MAX_PAYLOAD_BYTES}")
        if farewell := self.tick(now):
            return farewell
        if (self.state, _Event.AGREE_HERE) not in self._TABLE:
            raise self.failure or PairingFailed(f"there is nothing to agree to while {self.state.value}")
        return self._step(_Event.AGREE_HERE, payload, now)

    def refuse(self, why: Refusal = Refusal.PERSON, text: str = "pairing was stopped on this device") -> list[bytes]:
        """The person says no, or the device gives up: end the pairing, and return what to send.

        `text` is what this device's own failure says.
        """
        if self.finished:
            return []
        body = bytes([why]) if why else b""
        refusal = [] if self._ciphers is None else [self._seal(_Event.REFUSE, body)]
        farewell = self._fail(PairingRefused(text))
        return refusal or farewell

    def tick(self, now: float) -> list[bytes]:
        """End the pairing if its `deadline` has come; return what to send."""
        if self.finished or now < self.deadline:
            return []
        return self._fail(PairingTimeout(f"pairing took too long while {self.state.value}: begin again"))

    def _step(self, event: _Event, body: bytes, now: float) -> list[bytes]:
        act, after = self._TABLE[self.state, event]
        try:
            messages = act(self, body, now)
        except NoiseError:
            return self._fail(PairingBroken("the other side's message could not be authenticated"))
        except PairingFailed as error:
            farewell = self._fail(error)
            return [] if after is PairingState.FAILED else farewell  # the other side has ended it: no answer
        self.state = after
        if after is PairingState.COMPARING:
            self.deadline = now + CONFIRM_SECONDS
        if after is PairingState.DONE:
            self._forget_secrets()
        return messages

    def _fail(self, error: PairingFailed) -> list[bytes]:
        self.state = PairingState.FAILED
        self.failure = error
        self._comparison = None
        self._forget_secrets()
        return [bytes([_Event.ABORT, _REASON_FOR.get(type(error), _REASON_FOR[PairingBroken])])]

    def _forget_secrets(self) -> None:
        self._spake = self._noise = self._ciphers = None
        self._ephemeral = self._own_payload = b""

    # -- steps that both have

    def _on_abort(self, body: bytes, now: float) -> list[bytes]:
        kind, text = _REASONS.get(body[0], _REASONS[_REASON_FOR[PairingBroken]])
        raise kind(text)

    def _on_refuse(self, body: bytes, now: float) -> list[bytes]:
        reason = self._open(_Event.REFUSE, body)
        known = reason and reason[0] in _REFUSALS
        error = PairingRefused((Refusal(reason[0]) if known else Refusal.PERSON).text)
        error.why = reason[0] if known else 0
        raise error

    # -- parts of steps

    def _begin_noise(self, opening: bytes, sharing: bytes, other_share: bytes) -> None:
        """Start the handshake whose psk is the SPAKE2 key; `opening` and `sharing` are what was said before."""
        try:
            key = self._spake.finish(other_share)
        except (SPAKEError, NotOnCurve, ValueError, AssertionError):
            raise PairingBroken("the other side sent what is no SPAKE2 share of its role") from None
        psk = hashlib.blake2s(key, person=b"atop psk").digest()
        prologue = b"atop pairing" + opening + sharing
        self._noise = HandshakeState(self._INITIATOR, self._identity.private_key, prologue, psk, self._ephemeral)

    def _check_other_device(self, public_key: bytes) -> None:
        if public_key == self._identity.public_key:
            raise SameDevice(
                "both devices have the same identity, so one store is a copy of the other. On the copy: stop "
                "Atop, remove the file local/identity from its store, and pair it again"
            )
        self._remote_public_key = public_key

    def _compare(self, other_name: bytes) -> None:
        """Both sides are proven: make what the people compare."""
        try:
            name = check_name(other_name.decode())
        except (InvalidDeviceName, UnicodeDecodeError):
            raise PairingBroken("the other device has a name that cannot be shown: rename it there") from None
        both = hashlib.blake2s(self._ephemerals, person=b"atopdigi").digest()
        number = int.from_bytes(both) % 1_000_000
        self._comparison = Comparison(
            own_name=self._name,
            own_id=self._identity.device_id,
            other_name=name,
            other_id=DeviceId.from_public_key(self._remote_public_key),
            digits=f"{number // 1000:03d} {number % 1000:03d}",
        )

    @property
    def _handshake(self) -> HandshakeState:
        assert self._noise is not None  # noqa: S101 - the table's order: SHARE begins it
        return self._noise

    def _seal(self, event: _Event, body: bytes) -> bytes:
        assert self._ciphers is not None  # noqa: S101 - the table's order: PROOF makes them
        kind = bytes([event])
        return kind + self._ciphers[0].encrypt(kind, body)  # so that the kind is authenticated too

    def _open(self, event: _Event, body: bytes) -> bytes:
        assert self._ciphers is not None  # noqa: S101 - the table's order: PROOF makes them
        return self._ciphers[1].decrypt(bytes([event]), body)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.state.name}>"


# How either side ends it: what the other one then knows already, so there is no answer.
_ENDINGS: Final[_Table] = {
    **{
        (state, _Event.ABORT): (_Machine._on_abort, PairingState.FAILED)
        for state in PairingState
        if state not in (PairingState.NEW, PairingState.DONE, PairingState.FAILED)
    },
    **{
        (state, _Event.REFUSE): (_Machine._on_refuse, PairingState.FAILED)
        for state in (PairingState.COMPARING, PairingState.AGREED_HERE, PairingState.AGREED_THERE)
    },
}


def _event_of(message: bytes) -> _Event | None:
    try:
        return _Event(message[0])
    except (IndexError, ValueError):
        return None


def _commitment(ephemeral_public_key: bytes) -> bytes:
    return hashlib.blake2s(ephemeral_public_key, person=b"atopcomm").digest()


# -- the two sides ------------------------------------------------------------------------------------------


class Inviter(_Machine):
    """The inviting device's side of one connection. Make one for each device that connects.

    `agree` takes the member list as payload; it leaves this device in WELCOME.
    """

    _INITIATOR = False

    def __init__(
        self,
        invitation: Invitation,
        identity: Identity,
        name: str,
        now: float,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """`name` is this device's, `random_bytes(n)` the source of its keys. Raises InvalidDeviceName."""
        super().__init__(PairingState.AWAITING_OPEN, identity, name, now, random_bytes)
        self._invitation = invitation
        self._random_bytes = random_bytes

    def _on_open(self, body: bytes, now: float) -> list[bytes]:
        if body[0] != PROTOCOL_VERSION:
            raise PairingVersion(_REASONS[_REASON_FOR[PairingVersion]][1])
        if len(body) != 1 + _SHARE_BYTES:
            raise PairingBroken(f"the other side sent OPEN of {len(body)} bytes")
        self._invitation.begin_attempt(now)
        password = self._invitation.code.text.encode()
        self._spake = SPAKE2_B(password, _JOINER_NAME, _INVITER_NAME, entropy_f=self._random_bytes)
        sharing = self._spake.start() + _commitment(public_key_of(self._ephemeral))
        self._begin_noise(body, sharing, body[1:])
        return [bytes([_Event.SHARE]) + sharing]

    def _on_hello(self, body: bytes, now: float) -> list[bytes]:
        self._handshake.read_message(body)
        reply = self._handshake.write_message()
        self._ephemerals = body[:KEY_BYTES] + reply[:KEY_BYTES]
        return [bytes([_Event.REPLY]) + reply]

    def _on_proof(self, body: bytes, now: float) -> list[bytes]:
        self._invitation.take_guess(now)  # before looking: whatever this is, nobody guesses a second time
        try:
            other_name = self._handshake.read_message(body)
        except NoiseError:
            raise WrongCode("a device tried to join with a wrong code, which is spent now: make a new one") from None
        self._invitation.mark_used()
        self._check_other_device(self._handshake.remote_static_public_key)
        self._compare(other_name)
        self._ciphers = self._handshake.split()
        return [self._seal(_Event.GREETING, self._name.encode())]

    def _agree_first(self, payload: bytes, now: float) -> list[bytes]:
        self._own_payload = payload
        return []

    def _agree_last(self, payload: bytes, now: float) -> list[bytes]:
        return [self._seal(_Event.WELCOME, payload)]

    def _on_first_confirm(self, body: bytes, now: float) -> list[bytes]:
        self._other_payload = self._open(_Event.CONFIRM, body)
        return []

    def _on_last_confirm(self, body: bytes, now: float) -> list[bytes]:
        self._other_payload = self._open(_Event.CONFIRM, body)
        return [self._seal(_Event.WELCOME, self._own_payload)]

    _TABLE = _ENDINGS | {
        (PairingState.AWAITING_OPEN, _Event.OPEN): (_on_open, PairingState.AWAITING_HELLO),
        (PairingState.AWAITING_HELLO, _Event.HELLO): (_on_hello, PairingState.AWAITING_PROOF),
        (PairingState.AWAITING_PROOF, _Event.PROOF): (_on_proof, PairingState.COMPARING),
        (PairingState.COMPARING, _Event.AGREE_HERE): (_agree_first, PairingState.AGREED_HERE),
        (PairingState.COMPARING, _Event.CONFIRM): (_on_first_confirm, PairingState.AGREED_THERE),
        (PairingState.AGREED_THERE, _Event.AGREE_HERE): (_agree_last, PairingState.DONE),
        (PairingState.AGREED_HERE, _Event.CONFIRM): (_on_last_confirm, PairingState.DONE),
    }


class Joiner(_Machine):
    """The joining device's side: one attempt with one code. Begin with `start`."""

    _INITIATOR = True

    def __init__(
        self,
        code: PairingCode,
        identity: Identity,
        name: str,
        now: float,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """`name` is this device's, `random_bytes(n)` the source of its keys. Raises InvalidDeviceName."""
        super().__init__(PairingState.NEW, identity, name, now, random_bytes)
        self._spake = SPAKE2_A(code.text.encode(), _JOINER_NAME, _INVITER_NAME, entropy_f=random_bytes)
        self._opening = b""
        self._promised = b""

    def start(self) -> list[bytes]:
        """Return the first message to send. Raises PairingFailed the second time."""
        if self.state is not PairingState.NEW:
            raise PairingFailed(f"this pairing was begun before: it is {self.state.value}")
        self._opening = bytes([PROTOCOL_VERSION]) + self._spake.start()
        self.state = PairingState.AWAITING_SHARE
        return [bytes([_Event.OPEN]) + self._opening]

    def _on_share(self, body: bytes, now: float) -> list[bytes]:
        self._promised = body[_SHARE_BYTES:]
        self._begin_noise(self._opening, body, body[:_SHARE_BYTES])
        hello = self._handshake.write_message()
        self._ephemerals = hello[:KEY_BYTES]
        return [bytes([_Event.HELLO]) + hello]

    def _on_reply(self, body: bytes, now: float) -> list[bytes]:
        if not hmac.compare_digest(_commitment(body[:KEY_BYTES]), self._promised):
            raise PairingBroken("the other side shows another key than it promised: somebody may be in between")
        self._handshake.read_message(body)
        self._ephemerals += body[:KEY_BYTES]
        self._check_other_device(self._handshake.remote_static_public_key)
        proof = self._handshake.write_message(self._name.encode())
        self._ciphers = self._handshake.split()
        return [bytes([_Event.PROOF]) + proof]

    def _on_greeting(self, body: bytes, now: float) -> list[bytes]:
        try:
            other_name = self._open(_Event.GREETING, body)
        except NoiseError:
            raise WrongCode("the other device does not prove that it knows the code: make a new one") from None
        self._compare(other_name)
        return []

    def _agree(self, payload: bytes, now: float) -> list[bytes]:
        return [self._seal(_Event.CONFIRM, payload)]

    def _on_welcome(self, body: bytes, now: float) -> list[bytes]:
        self._other_payload = self._open(_Event.WELCOME, body)
        return []

    _TABLE = _ENDINGS | {
        (PairingState.AWAITING_SHARE, _Event.SHARE): (_on_share, PairingState.AWAITING_REPLY),
        (PairingState.AWAITING_REPLY, _Event.REPLY): (_on_reply, PairingState.AWAITING_GREETING),
        (PairingState.AWAITING_GREETING, _Event.GREETING): (_on_greeting, PairingState.COMPARING),
        (PairingState.COMPARING, _Event.AGREE_HERE): (_agree, PairingState.AGREED_HERE),
        (PairingState.AGREED_HERE, _Event.WELCOME): (_on_welcome, PairingState.DONE),
    }
