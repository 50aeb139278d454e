"""The Noise handshake and the ciphers of a link: bytes in, bytes out.

Implements Noise_XX_25519_ChaChaPoly_BLAKE2s and Noise_XXpsk3_25519_ChaChaPoly_BLAKE2s after the Noise
Protocol Framework, revision 34 (sections are given as "Noise 5.3"). The names are those of the specification.

    XX                       XXpsk3 (when `psk` is given)
      -> e                     -> e
      <- e, ee, s, es          <- e, ee, s, es
      -> s, se                 -> s, se, psk

What it promises, beyond the specification:

- A message that was altered, cut, repeated, reordered or left out is refused, and after the first refusal the
  state is dead: every later call raises `NoiseDead`. A stream that failed once cannot be carried on.
- A nonce is never used twice with a key. `CipherState` claims each one in a single step that threads cannot
  split, nothing here can be copied, pickled or used in a forked child, and `split` works only once.
- A key agreement whose result is all zeros (the other side sent a point of low order) is refused.
- Everything that arrives is at most `MAX_MESSAGE_BYTES`, checked before any work is done on it.

What it never does: touch a socket, read a clock, start a thread, say whose key is trusted (compare
`remote_static_public_key` with the members), or show a key in `repr`, in an error or in a log. Python cannot
wipe memory, so keys live until they are collected.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import os
import secrets
from typing import Final, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from atop.errors import AtopError

KEY_BYTES: Final = 32
"""X25519 keys, ChaCha20-Poly1305 keys, BLAKE2s-256 hashes and the psk (Noise 4 and 9: DHLEN and HASHLEN)."""

TAG_BYTES: Final = 16
"""The authentication tag that ChaCha20-Poly1305 adds to each plaintext (RFC 8439)."""

MAX_MESSAGE_BYTES: Final = 65_535
"""The longest Noise message, handshake or transport (Noise 3)."""

MAX_PLAINTEXT_BYTES: Final = MAX_MESSAGE_BYTES - TAG_BYTES
"""The longest plaintext of one transport message."""

MAX_NONCE: Final = 2**64 - 1
"""Reserved for `rekey` (Noise 5.1): messages use the nonces below it."""

Readable = bytes | bytearray | memoryview


class NoiseError(AtopError):
    """The root of what this module raises."""


class NoiseMisuse(NoiseError):
    """A call out of turn, or with an argument of the wrong type or size: a mistake of our own program.

    The state is as it was before the call.
    """


class NoiseRefused(NoiseError):
    """A message of the other side is not what it should be: altered, forged, repeated, out of order or cut.

    Also raised where the two sides differ in prologue or psk. Close the connection.
    """


class NoiseKeyRefused(NoiseRefused):
    """The other side's key leads to a shared secret that everybody knows (a point of low order)."""


class NoiseTooLong(NoiseRefused):
    """The other side sent more than the protocol's largest message."""


class NoiseDead(NoiseError):
    """An earlier message was refused: this connection is over. Close it and connect again."""


class NoiseNonceExhausted(NoiseError):
    """All nonces of this key are used up. Close the connection and connect again, for new keys."""


class CipherState:
    """One direction of an encrypted connection: a key and a counter (Noise 5.1).

    Made by `HandshakeState.split`. Messages must be decrypted in the order in which they were encrypted.
    One thread at a time; a program that breaks this garbles its stream, but repeats no nonce.

    Invariant: no nonce is used for two plaintexts under one key.
    """

    __slots__ = ("_cipher", "_dead", "_key", "_nonces", "_where")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._cipher = ChaCha20Poly1305(key)
        # `next` on a count is one step under the interpreter's lock: two threads never get the same number.
        # Encrypting and decrypting share one count (Noise 5.1): a handshake does both under the same key.
        self._nonces = itertools.count()
        self._dead = False
        self._where = os.getpid()

    def encrypt(self, ad: Readable, plaintext: Readable) -> bytes:
        """Return the ciphertext of `plaintext`, `TAG_BYTES` longer; `ad` is authenticated and not sent.

        Raises NoiseMisuse for a plaintext over `MAX_PLAINTEXT_BYTES` or in a forked child,
        NoiseNonceExhausted, NoiseDead.
        """
        if len(plaintext) > MAX_PLAINTEXT_BYTES:
            raise NoiseMisuse(
                f"a plaintext of {len(plaintext)} bytes does not fit one message: "
                f"send it in parts of at most {MAX_PLAINTEXT_BYTES}"
            )
        self._check_usable()
        return self._cipher.encrypt(self._claim_nonce(), plaintext, ad)

    def decrypt(self, ad: Readable, ciphertext: Readable) -> bytes:
        """Return the plaintext of the next message.

        Raises NoiseRefused (and its subclasses) if it is not exactly the message that the other side
        encrypted next; every call after that raises NoiseDead.
        """
        self._check_usable()
        if len(ciphertext) > MAX_MESSAGE_BYTES:
            self._dead = True
            raise NoiseTooLong(f"a message of {len(ciphertext)} bytes is over the {MAX_MESSAGE_BYTES} of the protocol")
        try:
            return self._cipher.decrypt(self._claim_nonce(), ciphertext, ad)
        except InvalidTag:
            self._dead = True
            raise NoiseRefused(
                "a message could not be authenticated: it was altered, cut, repeated or left out on the way, "
                "or the two devices do not share the same secret"
            ) from None

    def rekey(self) -> None:
        """Replace the key by one that follows from it (Noise 4.2). Both sides must do it at the same message.

        Who learns the new key cannot decrypt what was sent before. The count goes on.
        """
        self._check_usable()
        self._key = self._cipher.encrypt(_nonce(MAX_NONCE), bytes(KEY_BYTES), None)[:KEY_BYTES]
        self._cipher = ChaCha20Poly1305(self._key)

    def _claim_nonce(self) -> bytes:
        number = next(self._nonces)
        if number >= MAX_NONCE:
            self._dead = True
            raise NoiseNonceExhausted("this connection has used up its nonces: close it and connect again")
        return _nonce(number)

    def _check_usable(self) -> None:
        if self._dead:
            raise NoiseDead("an earlier message was refused, so this connection is over: connect again")
        if self._where != os.getpid():
            raise NoiseMisuse("a connection belongs to the process that opened it, not to one forked from it")

    def __repr__(self) -> str:
        return f"<CipherState {'dead' if self._dead else 'usable'}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a CipherState cannot be copied or pickled: the copy would repeat its nonces")


class _SymmetricState:
    """The chaining key, the handshake hash and the cipher of a handshake (Noise 5.2)."""

    __slots__ = ("chaining_key", "cipher", "handshake_hash")

    def __init__(self, protocol_name: bytes) -> None:
        if len(protocol_name) <= KEY_BYTES:
            self.handshake_hash = protocol_name.ljust(KEY_BYTES, b"\0")
        else:
            self.handshake_hash = hashlib.blake2s(protocol_name).digest()
        self.chaining_key = self.handshake_hash
        self.cipher: CipherState | None = None

    def mix_hash(self, data: Readable) -> None:
        state = hashlib.blake2s(self.handshake_hash)
        state.update(data)
        self.handshake_hash = state.digest()

    def mix_key(self, secret: bytes) -> None:
        self.chaining_key, key = _hkdf(self.chaining_key, secret, 2)
        self.cipher = CipherState(key)

    def mix_key_and_hash(self, secret: bytes) -> None:
        self.chaining_key, to_hash, key = _hkdf(self.chaining_key, secret, 3)
        self.mix_hash(to_hash)
        self.cipher = CipherState(key)

    @property
    def added_bytes(self) -> int:
        """What `encrypt_and_hash` adds to a plaintext now."""
        return TAG_BYTES if self.cipher is not None else 0

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        ciphertext = plaintext if self.cipher is None else self.cipher.encrypt(self.handshake_hash, plaintext)
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        plaintext = ciphertext if self.cipher is None else self.cipher.decrypt(self.handshake_hash, ciphertext)
        self.mix_hash(ciphertext)
        return plaintext

    def split(self) -> tuple[CipherState, CipherState]:
        first, second = _hkdf(self.chaining_key, b"", 2)
        return CipherState(first), CipherState(second)


# The tokens that each message is made of (Noise 7.5 and 9.4). The initiator writes the first and the third.
_XX: Final = (("e",), ("e", "ee", "s", "es"), ("s", "se"))
_XX_PSK3: Final = (("e",), ("e", "ee", "s", "es"), ("s", "se", "psk"))


class HandshakeState:
    """One side of a handshake (Noise 5.3). Write and read in turn until `finished`, then `split`.

    The initiator writes first. One thread at a time. Once a message was refused, every call raises NoiseDead.
    """

    def __init__(
        self,
        initiator: bool,
        static_private_key: bytes,
        prologue: bytes = b"",
        psk: bytes | None = None,
        ephemeral_private_key: bytes | None = None,
    ) -> None:
        """Begin a handshake.

        `prologue` is any data that both sides must agree on, `psk` 32 secret bytes that both know (then the
        pattern is XXpsk3). `ephemeral_private_key` is drawn from the system's randomness when it is left out;
        give it only for test vectors, or where a protocol commits to it beforehand, and then fresh each time.
        Raises NoiseMisuse for arguments of the wrong type or size.
        """
        self._initiator = bool(initiator)
        self._static = _private_key("static_private_key", static_private_key)
        if ephemeral_private_key is None:
            ephemeral_private_key = secrets.token_bytes(KEY_BYTES)
        self._ephemeral = _private_key("ephemeral_private_key", ephemeral_private_key)
        self._psk = None if psk is None else _secret("psk", psk)
        self._pattern = _XX if psk is None else _XX_PSK3
        self._remote_static: bytes | None = None
        self._remote_ephemeral: bytes | None = None
        self._position = 0
        self._split = False
        self._dead = False
        self._where = os.getpid()
        pattern_name = b"XX" if psk is None else b"XXpsk3"
        self._symmetric = _SymmetricState(b"Noise_%s_25519_ChaChaPoly_BLAKE2s" % pattern_name)
        self._symmetric.mix_hash(prologue)

    @property
    def finished(self) -> bool:
        """Whether the last message of the handshake was written or read, and nothing was refused."""
        return self._position == len(self._pattern) and not self._dead

    @property
    def my_turn(self) -> bool:
        """Whether the next call is `write_message` (else it is `read_message`, unless `finished`)."""
        return not self.finished and self._initiator == (self._position % 2 == 0)

    @property
    def remote_static_public_key(self) -> bytes:
        """The other side's static public key, 32 bytes, proven to be held by it.

        The initiator knows it from the second message on (before it has shown its own), the responder from
        the third. Raises NoiseMisuse before that.
        """
        self._check_alive()
        if self._remote_static is None:
            raise NoiseMisuse("the other side has not sent its static key yet: read its message first")
        return self._remote_static

    @property
    def handshake_hash(self) -> bytes:
        """32 bytes, equal on both sides, that no other handshake has. Raises NoiseMisuse until `finished`."""
        self._check_alive()
        if not self.finished:
            raise NoiseMisuse("the handshake hash is fixed only when the handshake is finished")
        return self._symmetric.handshake_hash

    def write_message(self, payload: bytes = b"") -> bytes:
        """Return the next message to send, with `payload` in it.

        The first message's payload can be read by everybody; the second's is encrypted, to whoever answered;
        the third's is encrypted to the proven holder of the other side's key. Raises NoiseMisuse if it is not
        our turn or the payload is too long, NoiseKeyRefused if the other side's key is of low order.
        """
        self._check_turn(writing=True)
        room = MAX_MESSAGE_BYTES - self._overhead()
        if len(payload) > room:
            raise NoiseMisuse(f"a payload of {len(payload)} bytes is over the {room} that this message has room for")
        try:
            message = b"".join(self._write(part) for part in self._pattern[self._position])
            message += self._symmetric.encrypt_and_hash(payload)
        except BaseException:
            self._dead = True
            raise
        self._position += 1
        return message

    def read_message(self, message: bytes) -> bytes:
        """Take in the other side's next message and return its payload.

        Raises NoiseRefused (and its subclasses) unless it is exactly what the other side wrote next; every
        call after that raises NoiseDead.
        """
        self._check_turn(writing=False)
        try:
            if len(message) > MAX_MESSAGE_BYTES:
                raise NoiseTooLong(f"a handshake message of {len(message)} bytes is over {MAX_MESSAGE_BYTES}")
            shortest = self._overhead()
            if len(message) < shortest:
                raise NoiseRefused(f"a handshake message was cut to {len(message)} of at least {shortest} bytes")
            remaining = bytes(message)
            for part in self._pattern[self._position]:
                remaining = self._read(part, remaining)
            payload = self._symmetric.decrypt_and_hash(remaining)
        except BaseException:
            self._dead = True
            raise
        self._position += 1
        return payload

    def split(self) -> tuple[CipherState, CipherState]:
        """Return the ciphers of the connection: the one to send with and the one to receive with.

        Works once, after the handshake is `finished`: a second pair would repeat the nonces of the first.
        Raises NoiseMisuse otherwise.
        """
        self._check_alive()
        if not self.finished:
            raise NoiseMisuse("the handshake is not finished: there are no keys to split yet")
        if self._split:
            raise NoiseMisuse("the keys of this handshake were handed out before: use those")
        self._split = True
        from_initiator, from_responder = self._symmetric.split()
        self._symmetric.chaining_key = b""
        return (from_initiator, from_responder) if self._initiator else (from_responder, from_initiator)

    def _write(self, part: str) -> bytes:
        if part == "e":
            public = self._ephemeral.public_key().public_bytes_raw()
            self._mix_ephemeral(public)
            return public
        if part == "s":
            return self._symmetric.encrypt_and_hash(self._static.public_key().public_bytes_raw())
        self._mix_secret(part)
        return b""

    def _read(self, part: str, remaining: bytes) -> bytes:
        """Take the part off the front of `remaining` and return what is left."""
        if part == "e":
            self._remote_ephemeral, remaining = remaining[:KEY_BYTES], remaining[KEY_BYTES:]
            self._mix_ephemeral(self._remote_ephemeral)
            return remaining
        if part == "s":
            end = KEY_BYTES + self._symmetric.added_bytes
            self._remote_static = self._symmetric.decrypt_and_hash(remaining[:end])
            return remaining[end:]
        self._mix_secret(part)
        return remaining

    def _mix_ephemeral(self, public: bytes) -> None:
        self._symmetric.mix_hash(public)
        if self._psk is not None:
            self._symmetric.mix_key(public)  # Noise 9.2: what is sent before the psk must be random as well

    def _mix_secret(self, part: str) -> None:
        if part == "psk":
            assert self._psk is not None  # noqa: S101 - the pattern has this part only with a psk
            self._symmetric.mix_key_and_hash(self._psk)
            return
        ours_is_static = part == ("se" if self._initiator else "es")
        theirs_is_static = part == ("es" if self._initiator else "se")
        private = self._static if ours_is_static else self._ephemeral
        public = self._remote_static if theirs_is_static else self._remote_ephemeral
        assert public is not None  # noqa: S101 - both patterns send a key before they use it
        self._symmetric.mix_key(_agree(private, public))

    def _overhead(self) -> int:
        """The length in bytes of the next message when its payload is empty."""
        encrypted = self._symmetric.cipher is not None
        total = 0
        for part in self._pattern[self._position]:
            if part == "s":
                total += KEY_BYTES + (TAG_BYTES if encrypted else 0)
            else:
                total += KEY_BYTES if part == "e" else 0
                encrypted = encrypted or part != "e" or self._psk is not None
        return total + (TAG_BYTES if encrypted else 0)

    def _check_turn(self, *, writing: bool) -> None:
        self._check_alive()
        if self.finished:
            raise NoiseMisuse("the handshake is finished: use the ciphers that split() returned")
        if writing != self.my_turn:
            raise NoiseMisuse("it is the other side's turn" if writing else "it is our turn to write")

    def _check_alive(self) -> None:
        if self._dead:
            raise NoiseDead("an earlier message was refused, so this handshake is over: connect again")
        # A fork that went on with the same keys would encrypt two different payloads with one nonce.
        if self._where != os.getpid():
            raise NoiseMisuse("a handshake belongs to the process that began it, not to one forked from it")

    def __repr__(self) -> str:
        role = "initiator" if self._initiator else "responder"
        state = "dead" if self._dead else f"{self._position} of {len(self._pattern)} messages done"
        return f"<HandshakeState {role}, {state}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a HandshakeState cannot be copied or pickled: the copy would repeat its nonces")


def public_key_of(private_key: bytes) -> bytes:
    """Return the X25519 public key, 32 bytes, of a private key of 32 bytes. Raises NoiseMisuse."""
    return _private_key("private_key", private_key).public_key().public_bytes_raw()


def _private_key(name: str, value: bytes) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(_secret(name, value))


def _secret(name: str, value: bytes) -> bytes:
    if not isinstance(value, bytes) or len(value) != KEY_BYTES:
        raise NoiseMisuse(f"{name} must be {KEY_BYTES} bytes")
    return value


def _agree(private: X25519PrivateKey, public: bytes) -> bytes:
    """DH of Noise 4.1, refusing an all-zero result (RFC 7748, section 6.1)."""
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:  # the library refuses an all-zero result too
        shared = bytes(KEY_BYTES)
    if hmac.compare_digest(shared, bytes(KEY_BYTES)):
        raise NoiseKeyRefused("the other side sent a key that gives no secrecy: it is broken or an attack")
    return shared


def _hkdf(chaining_key: bytes, secret: bytes, outputs: int) -> list[bytes]:
    """HKDF of Noise 4.3: `outputs` keys of 32 bytes from the chaining key and the new secret."""
    extracted = hmac.digest(chaining_key, secret, hashlib.blake2s)
    keys: list[bytes] = []
    previous = b""
    for number in range(1, outputs + 1):
        previous = hmac.digest(extracted, previous + bytes([number]), hashlib.blake2s)
        keys.append(previous)
    return keys


def _nonce(number: int) -> bytes:
    """The 96-bit nonce of ChaChaPoly: 32 zero bits, then the count, little-endian (Noise 12.3)."""
    return b"\0\0\0\0" + number.to_bytes(8, "little")
