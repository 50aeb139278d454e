"""Device ids as people write them, and the identity file as a hostile machine might leave it."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atop.errors import AtopError, StoreFull, StoreReadOnly
from replication import identity as identity_module
from replication.identity import (
    IDENTITY_FILE,
    DeviceId,
    Identity,
    IdentityDamaged,
    IdentityError,
    IdentityUnsafe,
    InvalidDeviceId,
)

# BLAKE2s-256 of the bytes 0 to 31, in base32, is AWBFMB6X7XZNQLXUYPEMFLVJMG WZRVQO3735AGEYHYQSATANSPIQ.
GOLDEN = "AWBFMB6-X7XZNQL-XUYPEMF-LVJMGVV-WZRVQO3-735AGEY-HYQSATA-NSPIQK4"
GOLDEN_ID = DeviceId.from_public_key(bytes(range(32)))
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
PLAIN = GOLDEN.replace("-", "")

ids = st.binary(min_size=32, max_size=32).map(DeviceId)


# -- the text of an id --------------------------------------------------------------------------------------


def test_the_text_of_an_id_never_changes() -> None:
    assert str(GOLDEN_ID) == GOLDEN
    assert GOLDEN_ID.short == "AWBFMB6"


@given(ids)
def test_an_id_is_read_back_from_its_text(device: DeviceId) -> None:
    assert DeviceId.parse(str(device)) == device


@pytest.mark.parametrize(
    "spelling",
    [
        GOLDEN,
        PLAIN,
        GOLDEN.lower(),
        GOLDEN.replace("-", " "),
        GOLDEN.replace("-", " - "),
        GOLDEN.replace("-", "–"),
        GOLDEN.replace("O", "0"),
        GOLDEN.replace("I", "1"),
        GOLDEN.replace("B", "8"),
        "  " + GOLDEN.lower().replace("o", "0").replace("i", "1").replace("b", "8") + "\n",
        " ".join(PLAIN),
        GOLDEN[:31] + "\n" + GOLDEN[32:],
        GOLDEN.replace("-", ":"),
    ],
)
def test_many_spellings_give_the_same_id(spelling: str) -> None:
    assert DeviceId.parse(spelling) == GOLDEN_ID
    assert str(DeviceId.parse(spelling)) == GOLDEN


def test_every_single_wrong_character_is_noticed() -> None:
    for place, right in enumerate(PLAIN):
        for wrong in set(ALPHABET) - {right}:
            with pytest.raises(InvalidDeviceId):
                DeviceId.parse(PLAIN[:place] + wrong + PLAIN[place + 1 :])


def test_the_error_names_the_group_of_a_single_wrong_character() -> None:
    for place, right in enumerate(PLAIN):
        wrong = "X" if right != "X" else "Y"
        with pytest.raises(InvalidDeviceId, match=f"look at group {place // 7 + 1} first"):
            DeviceId.parse(PLAIN[:place] + wrong + PLAIN[place + 1 :])


def test_every_swap_of_two_characters_is_noticed() -> None:
    for first in range(len(PLAIN)):
        for second in range(first):
            swapped = list(PLAIN)
            swapped[first], swapped[second] = swapped[second], swapped[first]
            if "".join(swapped) != PLAIN:
                with pytest.raises(InvalidDeviceId):
                    DeviceId.parse("".join(swapped))


@given(
    device=ids,
    places=st.sets(st.integers(0, 27), min_size=2, max_size=2),
    half=st.integers(0, 1),
    data=st.data(),
)
def test_two_wrong_characters_in_a_half_are_noticed(
    device: DeviceId, places: set[int], half: int, data: st.DataObject
) -> None:
    text = list(str(device).replace("-", ""))
    for place in places:
        text[half * 28 + place] = data.draw(st.sampled_from(sorted(set(ALPHABET) - {text[half * 28 + place]})))
    with pytest.raises(InvalidDeviceId):
        DeviceId.parse("".join(text))


def test_halves_in_the_wrong_order_are_noticed() -> None:
    with pytest.raises(InvalidDeviceId):
        DeviceId.parse(PLAIN[28:] + PLAIN[:28])


def test_an_id_has_one_text_only() -> None:
    """The four bits that the last data symbol has to spare must be zero, even with the right checks."""
    values = [ALPHABET.index(symbol) for symbol in PLAIN[28:54]]
    values[-1] |= 1
    checks = identity_module._check_values(values, 1)
    with pytest.raises(InvalidDeviceId, match="last group"):
        DeviceId.parse(PLAIN[:28] + "".join(ALPHABET[value] for value in (*values, *checks)))


@pytest.mark.parametrize(
    "text", ["", "-", PLAIN[:-1], PLAIN + "A", GOLDEN * 4, " " * 10_000, PLAIN[:-1] + "é", PLAIN[:-1] + "9"]
)
def test_what_is_no_id_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(InvalidDeviceId, match="device id"):
        DeviceId.parse(text)


@given(st.text(max_size=80))
def test_no_text_raises_anything_else(text: str) -> None:
    with pytest.raises(InvalidDeviceId):
        DeviceId.parse(text)


@pytest.mark.parametrize("digest", [b"", bytes(31), bytes(33), "x" * 32, bytearray(32), None])
def test_only_32_bytes_make_an_id(digest: Any) -> None:
    with pytest.raises(InvalidDeviceId):
        DeviceId(digest)
    with pytest.raises(InvalidDeviceId):
        DeviceId.from_public_key(digest)


def test_ids_are_values() -> None:
    assert {DeviceId(bytes(32)): 1}[DeviceId(bytes(32))] == 1
    assert DeviceId(bytes(32)) < GOLDEN_ID
    assert pickle.loads(pickle.dumps(GOLDEN_ID)) == GOLDEN_ID
    with pytest.raises(AttributeError):
        GOLDEN_ID.digest = bytes(32)  # type: ignore[misc] # that this is refused is what is tested


# -- the tag ------------------------------------------------------------------------------------------------


@given(ids)
def test_a_tag_is_24_bits_and_never_the_creators_zero(device: DeviceId) -> None:
    assert 0 < device.tag < 2**24


def test_the_tag_is_the_first_24_bits_or_the_next_that_are_not_zero() -> None:
    assert DeviceId(b"\x12\x34\x56" + bytes(29)).tag == 0x123456
    assert DeviceId(bytes(3) + b"\x00\x00\x07" + bytes(26)).tag == 7
    assert DeviceId(bytes(27) + b"\x00\x01\x00\xff\xff").tag == 256
    assert DeviceId(bytes(32)).tag == 1


# -- the key pair -------------------------------------------------------------------------------------------


def test_an_identity_is_its_key() -> None:
    first, second = Identity.generate(), Identity.generate()
    assert first != second
    assert first == Identity(first.private_key)
    assert first.device_id == DeviceId.from_public_key(first.public_key)
    assert hash(first) == hash(Identity(first.private_key))


def test_nothing_shows_or_carries_away_the_private_key() -> None:
    identity = Identity.generate()
    for text in (repr(identity), str(identity), f"{identity}"):
        assert identity.private_key.hex() not in text
        assert repr(identity.private_key) not in text
    for carry in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            carry(identity)


# -- the file -----------------------------------------------------------------------------------------------


def test_first_use_makes_an_identity_and_later_use_finds_it(tmp_path: Path) -> None:
    assert Identity.load(tmp_path) is None
    made = Identity.load_or_create(tmp_path)
    assert Identity.load_or_create(tmp_path) == made
    assert Identity.load(tmp_path) == made
    assert os.listdir(tmp_path) == [IDENTITY_FILE]


def test_the_file_is_as_documented(tmp_path: Path) -> None:
    identity = Identity.load_or_create(tmp_path)
    content = (tmp_path / IDENTITY_FILE).read_bytes()
    assert content == b"atop identity 1\n" + identity.private_key + identity.public_key


@pytest.mark.parametrize("umask", [0o000, 0o277])
def test_only_the_user_can_read_the_file_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        Identity.load_or_create(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / IDENTITY_FILE).stat().st_mode) == 0o600


def test_many_at_once_get_one_identity(tmp_path: Path) -> None:
    found: list[Identity] = []
    barrier = threading.Barrier(8)

    def use() -> None:
        barrier.wait()
        found.append(Identity.load_or_create(tmp_path))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601, 0o622, 0o777])
def test_a_file_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    Identity.load_or_create(tmp_path)
    (tmp_path / IDENTITY_FILE).chmod(mode)
    with pytest.raises(IdentityUnsafe, match="chmod 600"):
        Identity.load_or_create(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    Identity.load_or_create(tmp_path)
    os.chown(tmp_path / IDENTITY_FILE, 12345, -1)
    with pytest.raises(IdentityUnsafe, match="another user"):
        Identity.load(tmp_path)


def test_a_symbolic_link_is_refused_even_to_a_good_identity(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Identity.load_or_create(elsewhere)
    (tmp_path / IDENTITY_FILE).symlink_to(elsewhere / IDENTITY_FILE)
    with pytest.raises(IdentityUnsafe, match="symbolic link"):
        Identity.load_or_create(tmp_path)
    (tmp_path / IDENTITY_FILE).unlink()
    (tmp_path / IDENTITY_FILE).symlink_to(tmp_path / "nowhere")
    with pytest.raises(IdentityUnsafe):
        Identity.load_or_create(tmp_path)
    assert not (tmp_path / "nowhere").exists()


def test_a_directory_or_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    (tmp_path / IDENTITY_FILE).mkdir(mode=0o700)
    with pytest.raises(IdentityUnsafe, match="not a regular file"):
        Identity.load(tmp_path)
    (tmp_path / IDENTITY_FILE).rmdir()
    os.mkfifo(tmp_path / IDENTITY_FILE, 0o600)
    with pytest.raises(IdentityUnsafe, match="not a regular file"):
        Identity.load(tmp_path)


def test_a_file_cut_at_any_byte_or_longer_is_refused_and_kept(tmp_path: Path) -> None:
    Identity.load_or_create(tmp_path)
    file = tmp_path / IDENTITY_FILE
    whole = file.read_bytes()
    for content in (*(whole[:length] for length in range(len(whole))), whole + b"x", whole * 100):
        file.write_bytes(content)
        with pytest.raises(IdentityDamaged, match="80 bytes"):
            Identity.load_or_create(tmp_path)
        assert file.read_bytes() == content


def test_a_changed_byte_anywhere_is_refused(tmp_path: Path) -> None:
    Identity.load_or_create(tmp_path)
    file = tmp_path / IDENTITY_FILE
    whole = file.read_bytes()
    for place in range(len(whole)):
        # Bit 4 of each byte counts; five other bits of an X25519 private key mean nothing (RFC 7748, 5).
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << 4]) + whole[place + 1 :])
        with pytest.raises(IdentityDamaged):
            Identity.load(tmp_path)


def test_no_directory_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="No such file") as caught:
        Identity.load_or_create(tmp_path / "nowhere")
    assert caught.value.path == str(tmp_path / "nowhere" / IDENTITY_FILE)


# -- crashes and full disks ---------------------------------------------------------------------------------


def test_the_key_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []

    def record(name: str, real: Any) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            kind = ""
            if name == "fsync":
                kind = " directory" if stat.S_ISDIR(os.fstat(arguments[0]).st_mode) else " file"
            steps.append(name + kind)
            return real(*arguments, **keywords)

        return call

    for name in ("fsync", "rename"):
        monkeypatch.setattr(os, name, record(name, getattr(os, name)))
    Identity.load_or_create(tmp_path)
    assert steps == ["fsync file", "rename", "fsync directory"]


@pytest.mark.parametrize("step", ["fchmod", "fsync", "rename"])
@pytest.mark.parametrize(
    ("number", "raised"),
    [
        (errno.ENOSPC, StoreFull),
        (errno.EDQUOT, StoreFull),
        (errno.EROFS, StoreReadOnly),
        (errno.EIO, IdentityError),
    ],
)
def test_a_failure_at_any_step_leaves_no_half_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int, raised: type[AtopError]
) -> None:
    def fail(*arguments: Any, **keywords: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(raised) as caught:
            Identity.load_or_create(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert Identity.load(tmp_path) is None
    made = Identity.load_or_create(tmp_path)
    assert Identity.load(tmp_path) == made
    assert os.listdir(tmp_path) == [IDENTITY_FILE]


def test_what_a_crash_left_unfinished_is_never_used(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    unused = Identity.load_or_create(other)
    (other / IDENTITY_FILE).rename(tmp_path / (IDENTITY_FILE + ".new"))
    assert Identity.load(tmp_path) is None
    assert Identity.load_or_create(tmp_path) != unused


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreReadOnly):
        Identity.load_or_create(tmp_path)
