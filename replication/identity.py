"""Who a device is: its key pair, the id that follows from it, and how people write that id down.

A device is its X25519 key. `DeviceId` is BLAKE2s-256 of the public key: short enough to compare, and nobody
can make a second key with the same id. `Identity` is the key pair itself, kept in the file `identity` in the
store's `local/` directory, which never leaves the device.

The text of an id is 56 characters of RFC 4648 base32 (A to Z and 2 to 7) in eight groups of seven:

    AWBFMB6-X7XZNQL-XUYPEMF-LVJMGVV-WZRVQO3-735AGEY-HYQSATA-NSPIQK4

    characters 1 to 26           data: the first 130 bits of the 256, 5 bits in each
    characters 27 and 28         check symbols of those 26
    characters 29 to 54          data: the other 126 bits, then four zero bits
    characters 55 and 56         check symbols of these 26

The check symbols make each half a code word over GF(32) (polynomial x^5 + x^2 + 1, a = x). With the data
symbols d[0] to d[25], and h = 0 in the first half and 1 in the second:

    check[0] = h + d[0] + ... + d[25]
    check[1] = d[0] + a d[1] + ... + a^25 d[25]

Any one or two wrong characters in a half are noticed, and so is any swap of two characters; `h` makes a swap
of the halves noticed too. Of greater mistakes one in 1,024 gets past each half. One wrong character can be
located, so the error names the group to look at.

The identity file is 80 bytes: 16 of `b"atop identity 1\\n"`, the private key, the public key. The public key
is there so that damage is noticed: another private key would silently be another device.

What this module never does: show a private key in `repr`, in an error or in a log; let one be pickled; read a
key that somebody else on the machine could have read or put there.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import xor
from typing import Final, NoReturn, final

from atop.errors import AtopError, StoreError, StoreFull, StoreReadOnly

from .noise import KEY_BYTES, public_key_of

DIGEST_BYTES: Final = 32
"""BLAKE2s-256."""

TAG_BYTES: Final = 3
"""The device's part of an item id: 24 bits."""

GROUP_CHARACTERS: Final = 7
"""Characters between two dashes: as many as people keep in mind at a time."""

MAX_TEXT_CHARACTERS: Final = 200
"""The longest text that `DeviceId.parse` looks at: an id with generous spacing."""

IDENTITY_FILE: Final = "identity"
"""The file's name in the store's `local/` directory."""

_MAGIC: Final = b"atop identity 1\n"
_FILE_BYTES: Final = len(_MAGIC) + 2 * KEY_BYTES
_UNFINISHED_FILE: Final = IDENTITY_FILE + ".new"

_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_VALUE: Final = {symbol: value for value, symbol in enumerate(_ALPHABET)}
_READ_AS: Final = str.maketrans("018", "OIB", "-‐‑‒–—−_.:,")
_HALF_DATA: Final = 26
_HALF: Final = _HALF_DATA + 2


class InvalidDeviceId(AtopError, ValueError):
    """A text is not a device id: mistyped, cut, or something else. The message says where to look."""


class IdentityError(StoreError):
    """The device's identity file cannot be used; `path` is the file."""


class IdentityUnsafe(IdentityError):
    """Others on this machine could have read or replaced the identity file, so it is not trusted."""


class IdentityDamaged(IdentityError):
    """The identity file is not what was written."""


@final
@dataclass(frozen=True, order=True, slots=True, repr=False)
class DeviceId:
    """The name of a device: BLAKE2s-256 of its public key. `str` gives the text, `parse` reads it."""

    digest: bytes

    def __post_init__(self) -> None:
        if not isinstance(self.digest, bytes) or len(self.digest) != DIGEST_BYTES:
            raise InvalidDeviceId(f"a device id is made of {DIGEST_BYTES} bytes")

    @classmethod
    def from_public_key(cls, public_key: bytes) -> DeviceId:
        """The id of the device that has this X25519 public key (32 bytes)."""
        if not isinstance(public_key, bytes) or len(public_key) != KEY_BYTES:
            raise InvalidDeviceId(f"a device id is derived from a public key of {KEY_BYTES} bytes")
        return cls(hashlib.blake2s(public_key).digest())

    @classmethod
    def parse(cls, text: str) -> DeviceId:
        """Read an id as people write it: any case, spaces and dashes anywhere, 0 for O, 1 for I, 8 for B.

        Raises InvalidDeviceId, and never returns the id of another device for up to two wrong characters.
        """
        if len(text) > MAX_TEXT_CHARACTERS:
            raise InvalidDeviceId(f"a device id has 56 characters; this text has {len(text)}")
        symbols = "".join(text.upper().translate(_READ_AS).split())
        if len(symbols) != 2 * _HALF:
            raise InvalidDeviceId(f"a device id has 56 letters and digits; this one has {len(symbols)}")
        if strange := sorted(set(symbols) - set(_ALPHABET)):
            raise InvalidDeviceId(f"a device id has the letters A to Z and the digits 2 to 7, not {strange[0]!r}")
        values = [_VALUE[symbol] for symbol in symbols]
        for half in range(2):
            _check_half(values[half * _HALF : (half + 1) * _HALF], half)
        data = symbols[:_HALF_DATA] + symbols[_HALF:-2]
        digest = base64.b32decode(data + "====")
        if _encode(digest) != symbols:  # the last four bits say nothing, so only zeros are accepted
            raise InvalidDeviceId("this is not a device id: its last group is wrong")
        return cls(digest)

    @property
    def short(self) -> str:
        """The first group, for logs and lists: not unique against an attacker, so never decide by it."""
        return _encode(self.digest)[:GROUP_CHARACTERS]

    @property
    def tag(self) -> int:
        """24 bits, 1 to 2**24 - 1, that go into the ids of what this device creates.

        The first 24 bits of the id; but 0 belongs to the device that created the group, whatever its key, so
        an id that begins with 24 zero bits takes the next 24 bits that are not all zero. Two devices may have
        the same tag; pairing refuses the second.
        """
        for start in range(0, DIGEST_BYTES - TAG_BYTES + 1, TAG_BYTES):
            if tag := int.from_bytes(self.digest[start : start + TAG_BYTES]):
                return tag
        return 1  # no key has such an id; the tag must not be 0 all the same

    def __str__(self) -> str:
        symbols = _encode(self.digest)
        return "-".join(symbols[start : start + GROUP_CHARACTERS] for start in range(0, len(symbols), GROUP_CHARACTERS))

    def __repr__(self) -> str:
        return f"<DeviceId {self.short}>"


@final
class Identity:
    """This device's key pair. Made once, on first use; whoever has it is this device.

    Fields: `public_key` (32 bytes) and `device_id`. Equal if the keys are.
    """

    __slots__ = ("_private_key", "device_id", "public_key")

    def __init__(self, private_key: bytes) -> None:
        self._private_key = private_key
        self.public_key: Final = public_key_of(private_key)
        self.device_id: Final = DeviceId.from_public_key(self.public_key)

    @classmethod
    def generate(cls) -> Identity:
        """A new identity, kept nowhere."""
        return cls(secrets.token_bytes(KEY_BYTES))

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Identity | None:
        """Read the identity in `directory` (the store's `local/`), or return None if it has none yet.

        Raises IdentityUnsafe, IdentityDamaged, IdentityError.
        """
        with _opened(directory) as folder:
            return _read(folder, os.path.join(directory, IDENTITY_FILE))

    @classmethod
    def load_or_create(cls, directory: str | os.PathLike[str]) -> Identity:
        """Read the identity in `directory`, or make one that is on the disk when this returns.

        Any number of processes may call it at once: all get the same identity. Raises as `load`, and
        StoreFull or StoreReadOnly.
        """
        path = os.path.join(directory, IDENTITY_FILE)
        with _opened(directory) as folder:
            fcntl.flock(folder, fcntl.LOCK_EX)
            identity = _read(folder, path)
            if identity is None:
                identity = cls.generate()
                _write(folder, path, identity)
            return identity

    @property
    def private_key(self) -> bytes:
        """The secret itself, for the handshake and nothing else."""
        return self._private_key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self.public_key == other.public_key

    def __hash__(self) -> int:
        return hash(self.public_key)

    def __repr__(self) -> str:
        return f"<Identity of {self.device_id.short}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an Identity holds a private key: it cannot be copied or pickled")


# -- the file -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(directory: str | os.PathLike[str]) -> Iterator[int]:
    """A descriptor of the directory; every file is named relative to it, so that none is swapped under us."""
    path = os.path.join(directory, IDENTITY_FILE)
    try:
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise IdentityError(f"cannot open the directory of {path}: {error.strerror}", path) from error
    try:
        yield folder
    finally:
        os.close(folder)


def _read(folder: int, path: str) -> Identity | None:
    # O_NONBLOCK: a named pipe put in place of the file must not make us wait.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(IDENTITY_FILE, flags, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise IdentityUnsafe(f"{path} is a symbolic link: put the identity file itself there", path) from None
        raise IdentityError(f"cannot open the identity file {path}: {error.strerror}", path) from error
    try:
        _check_private(os.fstat(descriptor), path)
        content = os.read(descriptor, _FILE_BYTES + 1)
    except OSError as error:
        raise IdentityError(f"cannot read the identity file {path}: {error.strerror}", path) from error
    finally:
        os.close(descriptor)
    return _decode(content, path)


def _check_private(status: os.stat_result, path: str) -> None:
    """Raise IdentityUnsafe unless only this user can read or write the file."""
    if not stat.S_ISREG(status.st_mode):
        raise IdentityUnsafe(f"{path} is not a regular file: remove it, and restore the identity file", path)
    if status.st_uid != os.geteuid():
        raise IdentityUnsafe(f"{path} belongs to another user of this machine: it is not used", path)
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise IdentityUnsafe(
            f"{path} can be read or changed by others on this machine (its mode is {mode:o}). "
            f"If nobody can have copied it, run: chmod 600 {path}. "
            "If somebody can, remove this device from the group on another one and pair it again",
            path,
        )


def _decode(content: bytes, path: str) -> Identity:
    mend = "restore it from a backup of this device, or move it away and pair this device again"
    if len(content) != _FILE_BYTES:
        size = "more" if len(content) > _FILE_BYTES else str(len(content))
        raise IdentityDamaged(f"{path} should be {_FILE_BYTES} bytes long and has {size}: {mend}", path)
    if not content.startswith(_MAGIC):
        raise IdentityDamaged(f"{path} is not an identity file of this version of Atop: {mend}", path)
    identity = Identity(content[len(_MAGIC) : -KEY_BYTES])
    if identity.public_key != content[-KEY_BYTES:]:
        raise IdentityDamaged(f"{path} is damaged, its keys do not belong together: {mend}", path)
    return identity


def _write(folder: int, path: str, identity: Identity) -> None:
    """Put the file there whole or not at all. The caller holds the directory's lock and saw no file."""
    try:
        with contextlib.suppress(FileNotFoundError):  # what a crash left behind; nobody has used that key
            os.unlink(_UNFINISHED_FILE, dir_fd=folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(_UNFINISHED_FILE, flags, 0o600, dir_fd=folder)
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)  # whatever the umask is
            file.write(_MAGIC + identity.private_key + identity.public_key)
            file.flush()
            os.fsync(descriptor)
        os.rename(_UNFINISHED_FILE, IDENTITY_FILE, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
    except OSError as error:
        what = f"cannot write the identity file {path}: {error.strerror}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(f"{what}. Make room and try again", path) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise StoreReadOnly(f"{what}. Make the directory writable", path) from error
        raise IdentityError(what, path) from error


# -- the text -----------------------------------------------------------------------------------------------


def _powers() -> tuple[list[int], dict[int, int]]:
    """The powers of a in GF(32), and the exponent of each element but 0."""
    powers = [1]
    while len(powers) < 31:
        doubled = powers[-1] << 1
        powers.append(doubled ^ 0b100101 if doubled & 32 else doubled)
    return powers, {power: exponent for exponent, power in enumerate(powers)}


_POWER, _EXPONENT = _powers()


def _times_power(value: int, exponent: int) -> int:
    """`value` times a to the `exponent` in GF(32)."""
    return _POWER[(_EXPONENT[value] + exponent) % 31] if value else 0


def _check_values(data: list[int], half: int) -> tuple[int, int]:
    return (
        reduce(xor, data, half),
        reduce(xor, (_times_power(value, place) for place, value in enumerate(data))),
    )


def _check_half(values: list[int], half: int) -> None:
    first, second = _check_values(values[:_HALF_DATA], half)
    off, weighted = first ^ values[-2], second ^ values[-1]
    if not off and not weighted:
        return
    # Where one wrong character would explain what is seen; past the end, there must be more than one.
    in_data = bool(off and weighted)
    place = (_EXPONENT[weighted] - _EXPONENT[off]) % 31 if in_data else _HALF_DATA + (0 if off else 1)
    groups = _HALF // GROUP_CHARACTERS
    if place < (_HALF_DATA if in_data else _HALF):
        hint = f"look at group {half * groups + place // GROUP_CHARACTERS + 1} first"
    else:
        hint = f"look at groups {half * groups + 1} to {(half + 1) * groups}"
    raise InvalidDeviceId(f"this device id has a typing mistake: {hint}, and compare with the other device")


def _encode(digest: bytes) -> str:
    """All 56 characters without dashes."""
    data = base64.b32encode(digest).decode().rstrip("=")
    text = ""
    for half in range(2):
        part = data[half * _HALF_DATA : (half + 1) * _HALF_DATA]
        checks = _check_values([_VALUE[symbol] for symbol in part], half)
        text += part + "".join(_ALPHABET[value] for value in checks)
    return text
