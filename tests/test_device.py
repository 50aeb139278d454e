"""Devices: made, paired over real sockets, kept equal, removed, opened again."""

from __future__ import annotations

import errno
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from berkeleydb import db
from devices import CACHE, Home, Note, equal, member_names, texts
from waiting import PATIENCE, until

from atop import NoMaster, NoSuchStore, Store, StoreDamaged, StoreError, StoreFull
from discovery import Candidate, Change, Discovery
from replication import (
    MAX_DEVICES,
    Device,
    NoSuchDevice,
    NotAMember,
    PairingFailed,
    PeerStatus,
    StoreNotEmpty,
    WorkStatus,
    device,
    settings,
)
from replication.device_status import _clock_problem
from replication.group import Group, distinct_name, merged
from replication.identity import Identity
from replication.joining import pair, prepare
from replication.link import Position
from replication.membership import Member as DeviceItem
from replication.messages import Member
from replication.places import Places


@pytest.fixture
def home(store_path: Path) -> Iterator[Home]:
    home = Home(store_path.parent)
    yield home
    home.end()


# -- a device on its own


def test_a_device_on_its_own_is_master_and_listens_nowhere(home: Home) -> None:
    a = home.open("laptop")
    Note(a.store, text="x")
    status = a.status()
    assert (status.role, status.port, status.grouped, status.peers) == ("master", None, False, ())
    assert a.store.head.number == 1, "opening a device writes nothing into its store"


def test_what_is_secret_is_readable_by_its_user_only(home: Home) -> None:
    a = home.open("laptop")
    a.invite()
    for name in ("identity", "group.json", "settings.toml"):
        assert stat.S_IMODE((a.path / "local" / name).stat().st_mode) == 0o600


def test_a_device_keeps_its_name(home: Home) -> None:
    home.open("laptop").close()
    again = Device.open(home.directory / "laptop", name="another", cache_size=CACHE)
    home.devices["laptop"] = again
    assert again.name == "laptop"
    again.rename("notebook")
    home.close("laptop")
    assert home.open("laptop").name == "notebook"


# -- pairing


def test_a_joined_device_has_everything_and_what_comes_later_both_ways(home: Home) -> None:
    a = home.open("laptop")
    Note(a.store, text="before")
    b = home.join("desktop", a)
    assert texts(b.store) == ["before"]
    Note(b.store, text="from b")
    Note(a.store, text="from a")
    until(lambda: equal(a, b) and texts(b.store) == ["before", "from a", "from b"])
    assert member_names(a) == member_names(b) == ["desktop", "laptop"]
    until(lambda: a.status().in_sync and b.status().in_sync)
    assert (a.status().summary, b.status().master) == ("in sync", "laptop")
    assert b.store.verify().problems == []


def test_who_watches_is_told_of_each_commit_whoever_made_it(home: Home) -> None:
    a = home.open("laptop")
    b = home.join("desktop", a)
    note = Note(a.store, text="0")
    until(lambda: equal(a, b))
    for writer in (a, b):
        for number in range(10):  # each time nothing else happens that could wake the watchers
            told: dict[str, threading.Event] = {"a": threading.Event(), "b": threading.Event()}
            with (
                a.store.watch(lambda _, told=told: told["a"].set()),
                b.store.watch(lambda _, told=told: told["b"].set()),
            ):
                writer.store.get(note.item_id).text = f"{writer.name} {number}"
                assert all(event.wait(PATIENCE) for event in told.values())


def test_devices_find_each_other_again_after_being_closed(home: Home) -> None:
    a = home.open("laptop")
    b = home.join("desktop", a)
    home.close("laptop")
    Note(b.store, text="while a was away")
    until(lambda: b.role == "master")
    a = home.open("laptop", b)
    until(lambda: equal(a, b) and texts(a.store) == ["while a was away"])


def test_a_store_written_without_devices_becomes_a_group(home: Home) -> None:
    for text in ("first", "second"):
        with Store(home.directory / "laptop", cache_size=CACHE) as store:
            Note(store, text=text)
    b = home.join("desktop", home.open("laptop"))
    assert texts(b.store) == ["first", "second"]


def test_a_third_device_hears_of_the_others_from_its_inviter(home: Home) -> None:
    a = home.open("laptop")
    b = home.join("desktop", a)
    c = home.join("server", b, peers=[f"127.0.0.1:{a.port}"])
    Note(c.store, text="x")
    until(lambda: equal(a, b, c) and member_names(a) == ["desktop", "laptop", "server"])
    until(lambda: sorted(peer.name for peer in a.peers if peer.online) == ["desktop", "server"])


def test_a_taken_name_gets_a_number(home: Home) -> None:
    a = home.open("laptop")
    joined = Device.join(
        home.directory / "b", a.invite().code, name="laptop", address=f"127.0.0.1:{a.port}", port=0, multicast=False
    )
    home.devices["b"] = joined
    assert joined.name == "laptop 2"


@pytest.mark.parametrize(
    ("name", "taken", "given"),
    [("a", [], "a"), ("a", ["a"], "a 2"), ("a", ["a", "a 2"], "a 3"), ("é" * 31, ["é" * 31], "é" * 30 + " 2")],
)
def test_distinct_name(name: str, taken: list[str], given: str) -> None:
    assert distinct_name(name, taken) == given


def test_a_wrong_code_lets_nobody_in_and_is_spent(home: Home) -> None:
    a = home.open("laptop")
    invitation = a.invite()
    number, *_ = invitation.code.split("-")
    wrong = f"{number}-zebra-zebra" if "zebra" not in invitation.code else f"{number}-acorn-acorn"
    with pytest.raises(PairingFailed):
        home.join("desktop", a, wrong)
    with pytest.raises(PairingFailed, match="used already"):
        home.join("desktop", a, invitation.code)
    assert invitation.status.state == "failed"
    assert len(a.status().peers) == 0


def test_a_code_is_good_once(home: Home) -> None:
    a = home.open("laptop")
    code = a.invite().code
    home.join("desktop", a, code)
    with pytest.raises(PairingFailed):
        home.join("other", a, code)
    assert member_names(a) == ["desktop", "laptop"]


def test_both_people_see_the_same_digits_and_either_can_say_no(home: Home) -> None:
    a = home.open("laptop")
    seen: list[str] = []
    for yes in (False, True):
        invitation = a.invite(ask=True)

        def answer(invitation: Any = invitation, yes: bool = yes) -> None:
            status = invitation.wait(PATIENCE, states=("comparing",))
            seen.append(status.digits)
            invitation.answer(yes)

        person = threading.Thread(target=answer)
        person.start()

        def confirm(comparison: Any) -> bool:
            seen.append(comparison.digits)
            return True

        if yes:
            home.join("desktop", a, invitation.code, confirm=confirm)
        else:
            with pytest.raises(PairingFailed, match="somebody said no"):
                home.join("desktop", a, invitation.code, confirm=confirm)
        person.join()
    assert seen[0] == seen[1]
    assert seen[2] == seen[3]
    assert member_names(a) == ["desktop", "laptop"]


def test_a_store_with_content_does_not_join(home: Home) -> None:
    a = home.open("laptop")
    with Store(home.directory / "desktop", cache_size=CACHE) as store:
        Note(store, text="mine")
    with pytest.raises(StoreNotEmpty):
        home.join("desktop", a)
    with Store(home.directory / "desktop", cache_size=CACHE) as store:
        assert texts(store) == ["mine"]


def test_an_empty_store_joins(home: Home) -> None:
    a = home.open("laptop")
    Note(a.store, text="x")
    Store(home.directory / "desktop", cache_size=CACHE).close()
    assert texts(home.join("desktop", a).store) == ["x"]


def test_a_device_is_tried_again_where_it_was_reached_last(home: Home) -> None:
    a = home.open("laptop")
    b = home.join("desktop", a)
    port = a.port
    assert port is not None
    until(b.links)
    connections = b._participant._steward.connections  # type: ignore[union-attr]
    announced = Candidate("x", "laptop", ("127.0.0.1",), port, device_id=a.device_id.short)
    connections._on_candidate(Change.FOUND, announced)  # type: ignore[union-attr]
    until((b.path / "local" / "places.json").exists)
    home.close("desktop")
    home.close("laptop")
    (b.path / "local" / "settings.toml").write_text('name = "desktop"\nmulticast = false\n')
    a = home.open("laptop", port=port)
    b = home.open("desktop")
    until(b.links)


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"A": {"addresses": [], "port": 1}}', b"\xff" * 100])
def test_places_that_cannot_be_read_are_forgotten(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "places.json").write_bytes(damage)
    places = Places(tmp_path)
    assert places.known() == {}
    places.remember("ABCDEFG", ("10.0.0.1",), 4747)
    assert Places(tmp_path).known()["ABCDEFG"].port == 4747


def test_a_device_with_the_tag_of_another_is_refused_and_gets_a_new_identity(home: Home) -> None:
    a = home.open("laptop")
    a.invite()
    local = home.directory / "desktop" / "local"
    local.mkdir(parents=True)
    unlucky = Identity.load_or_create(local)
    group = a._participant.group  # type: ignore[union-attr]
    group.merge([Member(Identity.generate().public_key, "other", unlucky.device_id.tag, None, None)])  # type: ignore[union-attr]
    with pytest.raises(PairingFailed, match="new identity"):
        home.join("desktop", a)
    b = home.join("desktop", a)
    assert b.device_id != unlucky.device_id


def test_a_full_group_invites_nobody(home: Home) -> None:
    a = home.open("laptop")
    a.invite()
    group = a._participant.group  # type: ignore[union-attr]
    group.merge([Member(Identity.generate().public_key, f"{n}", n, None, None) for n in range(1, MAX_DEVICES)])  # type: ignore[union-attr]
    with pytest.raises(PairingFailed, match="as many devices"):
        a.invite()


# -- members


def test_a_master_that_is_removed_gives_way_to_the_others(home: Home) -> None:
    a = home.open("laptop")
    b = home.join("desktop", a)
    c = home.join("server", a, peers=[f"127.0.0.1:{b.port}"])
    until(lambda: len(b.links()) == len(c.links()) == 2)
    b.remove("laptop")
    until(lambda: a.status().removed and "master" in (b.role, c.role))
    Note(c.store, text="goes on")
    until(lambda: equal(b, c) and texts(b.store) == ["goes on"])
    assert texts(a.store) == []


def test_two_devices_that_removed_each_other_are_both_on_their_own(home: Home) -> None:
    a = home.open("laptop")
    b = home.join("desktop", a)
    until(lambda: equal(a, b))
    home.close("desktop")
    a.remove("desktop")
    home.close("laptop")
    b = home.open("desktop")
    b.remove("laptop")
    a = home.open("laptop", b)
    until(lambda: not a.links() and not b.links())
    Note(a.store, text="a")
    Note(b.store, text="b")
    assert (texts(a.store), texts(b.store)) == (["a"], ["b"])


def test_a_removed_device_is_told_keeps_its_data_and_goes_on_alone(home: Home) -> None:
    a = home.open("laptop")
    b = home.join("desktop", a)
    c = home.join("server", a)
    until(lambda: equal(a, b, c))
    a.remove("desktop")
    until(lambda: b.status().removed and not b.links())
    until(lambda: (b.status().role, b.status().master) == ("master", "desktop"))
    Note(a.store, text="after")
    until(lambda: equal(a, c) and texts(c.store) == ["after"])
    Note(b.store, text="alone")
    assert texts(b.store) == ["alone"]
    assert member_names(c) == ["laptop", "server"]
    home.close("desktop")
    b = home.open("desktop", a)
    assert b.status().removed
    assert texts(b.store) == ["alone"]


def test_a_device_removed_while_it_was_off_is_told_when_it_comes_back(home: Home) -> None:
    a = home.open("laptop")
    home.join("desktop", a)
    home.close("desktop")
    a.remove("desktop")
    Note(a.store, text="secret")
    b = home.open("desktop", a)
    until(lambda: b.status().removed)
    assert texts(b.store) == []


def test_the_last_device_removes_the_lost_ones_and_goes_on(home: Home) -> None:
    a = home.open("laptop", consistency="majority")
    for name in ("desktop", "server"):
        home.join(name, a)
    until(lambda: len(a.links()) == 2)
    for name in ("desktop", "server"):
        home.close(name)
    until(lambda: not any(peer.online for peer in a.peers))
    with pytest.raises(NoMaster):
        a.remove("desktop")
    for name in ("desktop", "server"):
        a.remove(name, lost=True)
    Note(a.store, text="goes on")
    until(lambda: member_names(a) == ["laptop"])


def test_what_is_asked_of_a_device_that_is_not_there(home: Home) -> None:
    a = home.open("laptop")
    with pytest.raises(NotAMember):
        a.remove("desktop")
    a.invite()
    with pytest.raises(NoSuchDevice, match="laptop"):
        a.remove("desktop")


def test_a_new_name_that_cannot_be_announced_is_announced_later(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    a = home.open("laptop")
    invitation = a.invite()

    def start(discovery: Discovery) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(Discovery, "start", start)
        a.rename("notebook")
        until(lambda: any("no thread left" in problem for problem in a.status().problems))
    connections = a._participant._steward.connections  # type: ignore[union-attr]
    assert connections is not None
    until(lambda: connections.announces == "notebook" and connections.status()[1].running)
    until(lambda: not a.status().problems)
    assert connections._discovery._pairing == invitation.number
    home.join("desktop", a, invitation.code)


def test_a_device_is_renamed_everywhere(home: Home) -> None:
    a = home.open("laptop")
    b = home.join("desktop", a)
    b.rename("workstation")
    a.rename("notebook", "laptop")
    until(
        lambda: [peer.name for peer in a.peers] == ["workstation"] and [peer.name for peer in b.peers] == ["notebook"]
    )


# -- knowledge of members


def _member(name: str, revoked_at: int | None = None) -> Member:
    return Member(Identity.generate().public_key, name, 1, None, revoked_at)


def test_knowledge_of_members_comes_to_the_same_in_any_order() -> None:
    one, two = _member("one"), _member("two")
    gone_early = Member(one.public_key, "one", 1, None, 5)
    gone_late = Member(one.public_key, "one", 1, None, 9)
    news = [[one, two], [gone_late], [gone_early], [two]]
    for order in (news, news[::-1], news[2:] + news[:2]):
        known: dict[bytes, Member] = {}
        for heard in order:
            known = merged(known, heard)
        assert {member.name: member.revoked_at for member in known.values()} == {"one": 5, "two": None}


def test_a_group_file_of_another_identity_is_refused(tmp_path: Path) -> None:
    Group.found(tmp_path, Identity.generate(), "laptop", tag=0, majority=False).write()
    with pytest.raises(Exception, match="another device"):
        Group.load(tmp_path, Identity.generate())


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b"\xff\xfe", b'{"tag": -1, "majority": 0}', b"[" * 5000])
def test_a_damaged_group_file_is_named_and_nothing_is_written_without_it(home: Home, damage: bytes) -> None:
    a = home.open("laptop")
    a.invite()
    home.close("laptop")
    (a.path / "local" / "group.json").write_bytes(damage)
    for opened in (lambda: home.open("laptop"), lambda: Store(a.path, cache_size=CACHE)):
        with pytest.raises(StoreDamaged, match=r"group\.json"):
            opened()


def test_a_removal_holds_even_where_it_cannot_be_written_down(tmp_path: Path) -> None:
    own, lost = Identity.generate(), Identity.generate()
    group = Group.found(tmp_path, own, "laptop", tag=0, majority=False)
    group.merge([Member(lost.public_key, "lost", 1, None, None)])
    assert group.accepts(lost.public_key)
    (tmp_path / "group.json.new").mkdir()
    with pytest.raises(StoreError):
        group.revoke([lost.public_key], 1)
    assert not group.accepts(lost.public_key)
    assert group.is_removed(lost.public_key)


def test_a_removal_that_cannot_be_written_down_ends_the_link_and_is_written_when_it_can_be(home: Home) -> None:
    a = home.open("laptop")
    b = home.join("desktop", a)
    until(lambda: a.links() and b.links())
    in_the_way = a.path / "local" / "group.json.new"
    in_the_way.mkdir()
    with pytest.raises(StoreError):
        a.remove("desktop")
    until(lambda: not a.links() and b.status().removed)
    in_the_way.rmdir()
    until(lambda: member_names(a) == ["laptop"])
    home.close("laptop")
    written = Group.load(a.path / "local", Identity.load_or_create(a.path / "local"))
    assert written is not None
    assert written.count == 1


def test_a_copy_that_is_complete_is_written_down_when_it_can_be(tmp_path: Path) -> None:
    own = Identity.generate()
    group = Group.found(tmp_path, own, "laptop", tag=0, majority=False)
    group._mark(copied=False)
    (tmp_path / "group.json.new").mkdir()
    for _ in range(2):
        with pytest.raises(StoreError):
            group.mark_copied()
    (tmp_path / "group.json.new").rmdir()
    group.mark_copied()
    written = Group.load(tmp_path, own)
    assert written is not None
    assert written.copied


def test_a_device_that_cannot_begin_leaves_nothing_open(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.open("laptop").invite()
    home.close("laptop")

    def mark_copied(self: Group) -> None:
        raise StoreFull("the disk is full")

    with monkeypatch.context() as patch, pytest.raises(StoreFull):
        patch.setattr(Group, "mark_copied", mark_copied)
        home.open("laptop")
    assert home.open("laptop").role == "master"


def test_what_is_written_just_before_a_device_joins_is_not_lost(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    a = home.open("laptop")
    prepare = device.prepare

    def prepared(path: Path) -> Path:
        local = prepare(path)
        with Store(path, cache_size=CACHE) as store:
            Note(store, text="mine")
        return local

    monkeypatch.setattr(device, "prepare", prepared)
    with pytest.raises(StoreNotEmpty):
        home.join("desktop", a)
    with Store(home.directory / "desktop", cache_size=CACHE) as store:
        assert texts(store) == ["mine"]


# -- a store of a group, opened without its device


@pytest.mark.parametrize("meanwhile", [False, True])
def test_what_is_written_without_the_device_comes_to_the_others_when_it_runs(home: Home, meanwhile: bool) -> None:
    a = home.open("laptop")
    b = home.join("desktop", a)
    until(lambda: equal(a, b))
    home.close("desktop")
    with Store(home.directory / "desktop", cache_size=CACHE) as store:
        note = Note(store, text="imported")
        assert note.item_id >> 39 == b.device_id.tag
    with Store(home.directory / "desktop", cache_size=CACHE) as store:
        assert texts(store) == ["imported"]
    if meanwhile:
        Note(a.store, text="meanwhile")
    b = home.open("desktop", a)
    until(lambda: equal(a, b) and texts(a.store) == ["imported", "meanwhile"][: 1 + meanwhile])
    assert b.store.verify().problems == []
    until(lambda: a.status().in_sync and b.status().in_sync)


def test_a_store_that_is_only_read_without_its_device_stays_as_it_was(home: Home) -> None:
    a = home.open("laptop")
    home.join("desktop", a)
    home.close("desktop")
    with Store(home.directory / "desktop", cache_size=CACHE) as store:
        assert texts(store) == []
    Note(a.store, text="x")
    b = home.open("desktop", a)
    until(lambda: texts(b.store) == ["x"] and b.role == "replica")


def test_where_no_generation_can_be_begun_the_error_is_ours(home: Home) -> None:
    a = home.open("laptop")
    home.join("desktop", a)
    home.close("desktop")

    class Full:
        def rep_start(self, flags: int) -> None:
            raise db.DBError(errno.ENOSPC, "No space left on device")

    with Store(home.directory / "desktop", cache_size=CACHE) as store:
        alone = store._tenure.replication
        environment, alone._environment = alone._environment, Full()  # type: ignore[union-attr]
        with pytest.raises(StoreFull):
            Note(store, text="x")
        alone._environment = environment  # type: ignore[union-attr]
        Note(store, text="y")
        assert texts(store) == ["y"]


def test_a_majority_group_is_not_written_without_its_device(home: Home) -> None:
    a = home.open("laptop", consistency="majority")
    home.join("desktop", a)
    home.close("desktop")
    with Store(home.directory / "desktop", cache_size=CACHE) as store, pytest.raises(NoMaster):
        Note(store, text="x")


def test_a_store_that_was_paired_and_not_copied_is_not_made_anew(home: Home) -> None:
    a = home.open("laptop")
    b = home.join("desktop", a)
    home.close("desktop")
    path = b.path / "local" / "group.json"
    path.write_text(path.read_text().replace('"copied": true', '"copied": false'))
    with pytest.raises(NoSuchStore, match="atop run"):
        Store(b.path, cache_size=CACHE)


def test_a_device_that_only_a_third_one_reaches_is_shown_as_reached_through_it(home: Home) -> None:
    a = home.open("laptop")
    b = home.join("desktop", a)
    home.join("server", a)
    home.close("server")
    c = home.open("server", a)  # it knows no other address, and nobody finds it
    until(lambda: any(peer.through == "laptop" and peer.in_sync for peer in b.peers) and c.status().in_sync)
    assert {peer.name for peer in c.peers if peer.online} == {"laptop", "desktop"}


def test_a_group_whose_making_failed_trusts_nobody_of_a_former_one(home: Home) -> None:
    a = home.open("laptop")
    stranger = Identity.generate()
    a.store.pool("devices").add(DeviceItem(a.store, name="former", public_key=stranger.public_key, tag=7))
    local = a.path / "local"
    (local / "group.json.new").mkdir()  # the file cannot be written
    with pytest.raises(StoreError):
        a.invite()
    (local / "group.json.new").rmdir()
    a.invite()
    group = a._participant.group  # type: ignore[union-attr]
    assert not group.accepts(stranger.public_key)  # type: ignore[union-attr]
    assert member_names(a) == ["laptop"]


def test_clocks_that_are_years_apart_are_a_problem_in_the_status(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    laptop = home.open("laptop")
    desktop = home.join("desktop", laptop)
    until(lambda: desktop.peers[0].clock_ahead is not None)
    assert not any("clock" in problem for problem in (*laptop.status().problems, *desktop.status().problems))
    manager = desktop._participant.manager  # type: ignore[union-attr]
    position = manager.position

    def ahead() -> Position:
        there = position()
        return there._replace(clock=there.clock + 2 * 365 * 86_400 * 10**6)

    monkeypatch.setattr(manager, "position", ahead)
    until(lambda: any("clock" in problem for problem in laptop.status().problems))
    told = "desktop's clock is 2 years ahead of this device's: set the one that is wrong"
    assert told in laptop.status().problems


@pytest.mark.parametrize(
    ("ahead", "text"),
    [
        (None, ""),
        (250.0, ""),
        (-301.0, "5 minutes behind"),
        (7_200.0, "2 hours ahead of"),
        (-86_400.0, "24 hours behind"),
        (400 * 86_400.0, "400 days ahead of"),
    ],
    ids=str,
)
def test_a_clock_that_is_minutes_off_is_told(ahead: float | None, text: str) -> None:
    problem = _clock_problem(PeerStatus("desktop", "d", True, clock_ahead=ahead))
    assert problem == (f"desktop's clock is {text} this device's: set the one that is wrong" if text else "")


def test_a_device_that_has_no_master_yet_is_not_said_to_be_in_sync(home: Home) -> None:
    laptop = home.open("laptop")
    desktop = home.join("desktop", laptop)
    until(lambda: desktop.status().in_sync and desktop.status().role == "replica")
    status = desktop.status()
    assert status.summary == "in sync"
    assert replace(status, role="waiting").summary == "about to follow laptop"
    assert replace(status, role="electing").summary == "agreeing on a master"


def test_a_device_that_was_paired_and_never_came_is_told_until_it_does(home: Home) -> None:
    def told() -> bool:
        hint = "desktop: paired, and has never been here: remove it if the pairing was broken off"
        return any(problem.startswith(hint) for problem in laptop.status().problems)

    laptop = home.open("laptop")
    identity = Identity.load_or_create(prepare(home.directory / "desktop"))
    code = laptop.invite().code
    address = f"127.0.0.1:{laptop.port}"
    chosen = settings.chosen(home.directory / "desktop" / "local", {"name": "desktop", "port": 0, "multicast": False})
    pair(home.directory / "desktop", code, chosen, address, None)
    until(lambda: laptop.peers)
    assert not told(), "it may come yet"
    home.close("laptop")
    laptop = home.open("laptop")
    assert told()
    desktop = home.open("desktop", laptop)
    assert desktop.device_id == identity.device_id
    until(lambda: equal(laptop, desktop) and not told())
    home.close("desktop")
    until(lambda: not laptop.links())
    assert not told()


def test_why_a_device_is_not_reached_is_told_once_and_by_its_name(home: Home) -> None:
    laptop = home.open("laptop")
    desktop = home.join("desktop", laptop)
    until(lambda: equal(laptop, desktop))
    laptop.close()
    until(lambda: any("refused" in problem for problem in desktop.status().problems))
    assert [problem.partition(":")[0] for problem in desktop.status().problems] == ["laptop"]


@pytest.mark.parametrize(
    ("done", "total", "text"),
    [(0, 900, ": 0 of 1 kB"), (7_000, 900_000, ": 7 of 900 kB"), (5_000_000, 20_000_000, ": 5 of 20 MB"), (0, 0, "")],
    ids=str,
)
def test_bytes_of_work_are_told_in_a_unit_that_shows_them(done: int, total: int, text: str) -> None:
    assert WorkStatus("fetching files", "bytes", done, total).text == f"fetching files{text}"
