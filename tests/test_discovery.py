"""Discovery: its pure parts one by one, and the whole on the loopback interface."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import logging
import subprocess
import sys
import threading
import time
import unicodedata
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import discovery
from discovery import (
    AddressError,
    Candidate,
    Change,
    Discovery,
    PeerAddress,
    SettingError,
    Timing,
    parse_peer,
    parse_peers,
)
from discovery.addresses import MAX_ADDRESSES, MAX_FIXED_PEERS, choose_addresses, usable_address
from discovery.announcement import (
    MAX_INSTANCE_BYTES,
    MAX_TEXT_BYTES,
    SERVICE_TYPE,
    Announcement,
    display_name,
    full_name,
    instance_label,
    judge,
    text_record,
)
from discovery.candidates import MAX_CANDIDATES, MAX_PER_DEVICE, CandidateTable, differences
from discovery.damping import Damper, StateChanges, TokenBucket, WakeDetector
from discovery.errors import AnnouncementError
from discovery.interfaces import MAX_INTERFACES, Interface, announced_addresses, multicast_choice, select
from discovery.multicast import Multicast
from discovery.notifier import Notifier
from discovery.quiet import QuietLog
from discovery.resolving import FixedPeers
from discovery.settings import Surroundings

PATIENCE = 30.0  # seconds until a condition counts as never coming true


def wait_until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    waiting = threading.Event()
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, "never came true"
        waiting.wait(0.01)


# --- fixed addresses


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("desktop.lan:4747", "desktop.lan", 4747),
        ("[fe80::1%eth0]:4747", "fe80::1%eth0", 4747),
        ("10.0.0.2", "10.0.0.2", 4747),
        ("  Desktop.LAN.  ", "desktop.lan", 4747),
        ("my_nas:80", "my_nas", 80),
        ("[2001:DB8::0:1]", "2001:db8::1", 4747),
        ("[fd00::2]:65535", "fd00::2", 65535),
        ("127.0.0.1:1", "127.0.0.1", 1),
    ],
)
def test_a_fixed_address_is_read_as_documented(text: str, host: str, port: int) -> None:
    assert parse_peer(text) == PeerAddress(host, port)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("desktop:", "port from 1 to 65535"),
        ("desktop:0", "port from 1 to 65535"),
        ("desktop:65536", "port from 1 to 65535"),
        ("desktop:+80", "port from 1 to 65535"),
        ("desktop:٨٠", "port from 1 to 65535"),
        ("fe80::1", "brackets"),
        ("fd00::2:4747", "brackets"),
        ("[fd00::2", "unbalanced"),
        ("[fd00::2]4747", "unbalanced"),
        ("[10.0.0.2]:4747", "no IPv6 address"),
        ("[fe80::1]:4747", "name the interface"),
        ("[fe80::1%]:4747", "interface after the %"),
        ("[fe80::1%a/b]:4747", "interface after the %"),
        ("[ff02::fb]:4747", "not the address of one device"),
        ("[::]", "not the address of one device"),
        ("0.0.0.0", "not the address of one device"),  # noqa: S104 - refused, not bound to
        ("255.255.255.255:4747", "not the address of one device"),
        ("224.0.0.251", "not the address of one device"),
        ("10.0.0.300", "looks like an IPv4 address"),
        ("10.0.0", "looks like an IPv4 address"),
        ("http://desktop.lan", "no sound host name|port from"),
        ("desk top", "no sound host name"),
        ("-desktop", "no sound host name"),
        ("desktop..lan", "no sound host name"),
        ("a" * 64, "no sound host name"),
        ("a" * 301, "too long"),
    ],
)
def test_a_fixed_address_that_cannot_be_read_says_what_is_wrong(text: str, hint: str) -> None:
    with pytest.raises(AddressError, match=hint) as caught:
        parse_peer(text)
    assert caught.value.text == text


@given(st.text() | st.from_regex(r"\[?[0-9a-f.:%\[\]]*", fullmatch=True))
def test_any_text_is_an_address_or_a_clear_error_and_reads_back(text: str) -> None:
    try:
        peer = parse_peer(text)
    except AddressError:
        return
    assert parse_peer(str(peer)) == peer


def test_a_list_of_fixed_addresses_keeps_each_once_and_is_bounded() -> None:
    assert parse_peers(["b.lan", "a.lan:4747", "B.LAN:4747"]) == (PeerAddress("b.lan"), PeerAddress("a.lan"))
    with pytest.raises(AddressError, match="remove some"):
        parse_peers([f"host{number}" for number in range(MAX_FIXED_PEERS + 1)])
    with pytest.raises(AddressError, match="is a list"):
        parse_peers("desktop.lan")


# --- addresses heard


@pytest.mark.parametrize(
    "address",
    ["10.1.2.3", "192.168.0.9", "100.64.0.1", "169.254.3.4", "fd00::1", "fe80::1%3"],
)
def test_addresses_of_local_networks_are_usable(address: str) -> None:
    assert usable_address(address, [], loopback=False)


@pytest.mark.parametrize(
    "address",
    [
        *("0.1.2.3", "255.255.255.255", "224.0.0.251", "240.0.0.1", "127.0.0.1"),
        *("::", "::1", "ff02::fb", "::ffff:8.8.8.8", "fe80::1", "64:ff9b::808:808"),
        *("8.8.8.8", "2600::1", "nonsense", "", "10.0.0.1/8"),
    ],
)
def test_addresses_that_lead_elsewhere_or_nowhere_are_not_usable(address: str) -> None:
    assert not usable_address(address, [ipaddress.ip_network("10.0.0.0/8")], loopback=False)


def test_a_public_address_is_usable_only_on_a_network_this_device_is_on() -> None:
    assert usable_address("2600::1", [ipaddress.ip_network("2600::/64")], loopback=False)
    assert not usable_address("2600:0:0:1::1", [ipaddress.ip_network("2600::/64")], loopback=False)


def test_loopback_addresses_are_usable_only_among_stores_of_one_machine() -> None:
    assert usable_address("127.0.0.1", [], loopback=True)
    assert usable_address("::1", [], loopback=True)


def test_addresses_on_a_shared_network_come_first_and_link_local_ones_last() -> None:
    networks = [ipaddress.ip_network("10.2.0.0/16"), ipaddress.ip_network("fd02::/64")]
    heard = ["fe80::9%2", "10.1.0.9", "fd02::9", "10.2.0.9", "fd01::9", "10.1.0.9"]
    wanted = ("10.2.0.9", "fd02::9", "10.1.0.9", "fd01::9", "fe80::9%2")
    assert choose_addresses(heard, networks, loopback=False) == wanted
    assert choose_addresses(reversed(heard), networks, loopback=False) == wanted


def test_the_addresses_of_one_candidate_are_bounded() -> None:
    heard = [f"10.0.{high}.{low}" for high in range(10) for low in range(100)]
    assert len(choose_addresses(heard, [], loopback=False)) == MAX_ADDRESSES


# --- names and announcements


@given(st.text())
def test_a_name_for_display_is_one_visible_line_that_fits(text: str) -> None:
    name = display_name(text)
    assert name == name.strip()
    assert 1 <= len(name.encode()) <= MAX_INSTANCE_BYTES
    assert not any(unicodedata.category(character) in {"Cc", "Cf", "Zl", "Zp"} for character in name)
    assert display_name(name) == name


def test_control_and_direction_characters_are_not_displayed() -> None:
    assert display_name("desk\x1b[31m\ttop\n\u202eevil\u200b") == "desk[31m top evil"
    assert display_name("\x00\u202e") == "(unnamed)"


@given(st.text(), st.booleans())
def test_an_instance_name_is_one_dns_label(name: str, distinct: bool) -> None:
    label = instance_label(name, "abcdefg-hijklmn", distinct=distinct)
    assert 1 <= len(label.encode()) <= MAX_INSTANCE_BYTES
    assert "." not in label
    assert not label.startswith("_")
    assert label.endswith(" (abcdefg)") or not distinct


SOUND: dict[bytes, bytes | None] = {b"version": b"1", b"device": b"aaa", b"group": b"family"}


def judged(instance: str = full_name("desk"), **changes: Any) -> Announcement:
    heard: dict[str, Any] = {
        "host": "atop-aaa.local.",
        "port": 4747,
        "addresses": ["10.0.0.2"],
        "text_size": 100,
        "properties": SOUND,
        "networks": [],
        "loopback": False,
    }
    return judge(instance, **{**heard, **changes})


def test_what_a_device_announces_is_what_others_understand() -> None:
    record = {key.encode(): value.encode() for key, value in text_record("aaa", "family", 7, 1).items()}
    assert judged(properties=record) == Announcement("desk", "aaa", "family", 4747, ("10.0.0.2",), pairing=7)


def test_unknown_keys_and_a_later_version_are_no_reason_to_refuse() -> None:
    heard = judged(properties={**SOUND, b"version": b"12", b"colour": None})
    assert heard.version == 12
    assert heard.pairing is None


@pytest.mark.parametrize(
    "changes",
    [
        {"instance": "desk._http._tcp.local."},
        {"instance": "x" * 300 + "." + SERVICE_TYPE},
        {"host": None},
        {"host": "atop-bbb.local."},
        {"port": None},
        {"port": 0},
        {"port": 65536},
        {"addresses": []},
        {"addresses": ["127.0.0.1", "8.8.8.8"]},
        {"text_size": MAX_TEXT_BYTES + 1},
        {"properties": {}},
        {"properties": {**SOUND, b"version": None}},
        {"properties": {**SOUND, b"version": b"0"}},
        {"properties": {**SOUND, b"version": b"one"}},
        {"properties": {**SOUND, b"device": b""}},
        {"properties": {**SOUND, b"device": b"a b"}},
        {"properties": {**SOUND, b"device": b"a" * 65}},
        {"properties": {**SOUND, b"device": b"\xff\xfe"}},
        {"properties": {**SOUND, b"group": b"../x"}},
        {"properties": {**SOUND, b"pairing": b"-1"}},
        {"properties": {**SOUND, b"pairing": b"9" * 40}},
    ],
)
def test_an_unsound_announcement_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(AnnouncementError):
        judged(**changes)


# --- interfaces

LAN = Interface("eth0", 2, ("192.168.1.5",), ("2001:db8::5", "fe80::5"), link_local="fe80::5")
LOOPBACK = Interface("lo", 1, ("127.0.0.1",), ("::1",), loopback=True, multicast=False)


@pytest.mark.parametrize(
    ("interface", "reason"),
    [
        (LOOPBACK, "loopback"),
        (replace(LAN, up=False), "down"),
        (replace(LAN, ipv4=(), ipv6=()), "no address"),
        (replace(LAN, multicast=False), "no multicast"),
        (replace(LAN, name="ppp7", point_to_point=True), "container, virtual machine or tunnel"),
        (replace(LAN, name="vpn7", point_to_point=True), "tunnel"),
        *(
            (replace(LAN, name=name), "container, virtual machine or tunnel")
            for name in ("docker0", "br-1a2b3c", "veth12", "virbr0", "tailscale0", "wg0")
        ),
    ],
)
def test_interfaces_that_lead_to_no_other_device_are_left_out_with_the_reason(
    interface: Interface, reason: str
) -> None:
    selection = select([interface, replace(LAN, name="wlan0")], None)
    assert selection.left_out == ((interface.name, reason),)
    assert [used.name for used in selection.used] == ["wlan0"]


def test_an_interface_that_is_named_is_used_whatever_it_is() -> None:
    docker = replace(LAN, name="docker0")
    everything = [LAN, LOOPBACK, docker]
    assert select(everything, ["docker*", "lo"]).used == (docker, LOOPBACK)
    assert select(everything, "loopback").used == (LOOPBACK,)
    assert select(everything, None, ignored=()).used == (docker, LAN)


def test_the_number_of_interfaces_in_use_is_bounded() -> None:
    selection = select([replace(LAN, name=f"eth{number}") for number in range(50)], None)
    assert len(selection.used) == MAX_INTERFACES
    assert len(selection.left_out) == 50 - MAX_INTERFACES


def test_each_interface_listens_once_for_each_family_and_announces_all_its_addresses() -> None:
    twin = replace(LAN, name="eth1", index=3, ipv4=("169.254.1.1", "10.0.0.5"), link_local=None)
    assert multicast_choice([LAN, twin, LOOPBACK]) == ["192.168.1.5", "fe80::5", "10.0.0.5", 3, "127.0.0.1"]
    assert announced_addresses([LAN]) == ["192.168.1.5", "2001:db8::5", "fe80::5"]


def test_a_loopback_address_is_announced_only_where_there_is_no_other() -> None:
    assert announced_addresses([LOOPBACK, LAN]) == announced_addresses([LAN])
    assert announced_addresses([LOOPBACK]) == ["127.0.0.1"]


# --- damping


@given(
    st.integers(1, 5),
    st.floats(0.5, 50),
    st.lists(st.floats(0, 10), max_size=60),
)
def test_in_any_span_a_bucket_gives_no_more_than_its_burst_and_what_it_refilled(
    burst: int, refill: float, waits: list[float]
) -> None:
    bucket = TokenBucket(burst, refill)
    now, taken = 0.0, []
    for wait in waits:
        now += wait
        if bucket.take(now):
            taken.append(now)
    for first, begin in enumerate(taken):
        for last, end in enumerate(taken[first:], start=first):
            assert last - first + 1 <= burst + (end - begin) / refill + 1e-6


def test_a_flapping_interface_is_held_back_alone_and_settles_in_the_end() -> None:
    damper: Damper[str, int] = Damper(burst=2, refill_seconds=10)
    flaps = [damper.observe(second, {"good": 1} if second % 2 else {"good": 1, "bad": 1}) for second in range(9)]
    assert flaps == [True, True, *[False] * 7]  # there, gone, and from then on held
    assert damper.observe(9, {"good": 2, "bad": 7})
    assert damper.applied == {"good": 2}
    assert damper.held == {"bad"}
    assert damper.observe(30, {"good": 2, "bad": 7})
    assert damper.applied == {"good": 2, "bad": 7}
    assert not damper.held


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 3)), min_size=1, max_size=20))
def test_what_is_held_is_just_what_differs_from_the_last_look(looks: list[dict[str, int]]) -> None:
    damper: Damper[str, int] = Damper(burst=2, refill_seconds=1000)
    for second, seen in enumerate(looks):
        damper.observe(second, seen)
        keys = {*seen, *damper.applied}
        assert damper.held == {key for key in keys if seen.get(key) != damper.applied.get(key)}


@pytest.mark.parametrize(
    ("looks", "woke"),
    [
        ([(0.0, 100.0), (2.0, 102.0)], False),
        ([(0.0, 100.0), (2.0, 103.0)], False),  # the clock was set by a second
        ([(0.0, 100.0), (2.0, 3702.0)], True),  # an hour that the monotonic clock did not count
        ([(0.0, 100.0), (2.0, 50.0)], False),  # the clock was set back
        ([(0.0, 100.0), (60.0, 160.0)], True),  # the process was stopped for a minute
    ],
)
def test_a_wake_is_noticed_by_clocks_that_drift_apart_or_a_late_look(
    looks: list[tuple[float, float]], woke: bool
) -> None:
    detector = WakeDetector(jump_seconds=4.0, stall_seconds=15.0)
    assert [detector.observe(*look) for look in looks] == [False, woke]


def test_a_problem_is_news_when_it_begins_and_when_it_ends() -> None:
    changes: StateChanges[str] = StateChanges()
    told = [changes.is_news("net", problem) for problem in (None, "no route", "no route", "no link", None, None)]
    assert told == [False, True, False, False, True, False]
    assert changes.problems() == ()


# --- candidates


def heard(device_id: str, group_tag: str = "family", pairing: int | None = None) -> Announcement:
    return Announcement(device_id, device_id, group_tag, 4747, ("10.0.0.2",), pairing)


def test_only_devices_of_the_group_or_with_the_invitation_sought_are_candidates() -> None:
    table = CandidateTable("self", "family", 7)
    table.heard(0, "a", heard("a"))
    table.heard(0, "b", heard("b", "others"))
    table.heard(0, "c", heard("c", "others", pairing=7))
    table.heard(0, "d", heard("d", "others", pairing=8))
    table.heard(0, "self", heard("self"))
    assert set(table.snapshot()) == {"a", "c"}
    assert table.other_groups == 2


def test_a_candidate_that_leaves_the_group_is_lost() -> None:
    table = CandidateTable("self", "family", None)
    table.heard(0, "a", heard("a"))
    table.heard(1, "a", heard("a", "others"))
    assert table.snapshot() == {}


def test_strangers_fill_the_table_but_never_push_out_a_known_device() -> None:
    table = CandidateTable("self", "family", None)
    table.prefer(["known1", "known2"])
    table.heard(0, "known1", heard("known1"))
    for number in range(1000):
        table.heard(number, f"forged{number}", heard(f"forged{number}"))
    assert len(table.snapshot()) == MAX_CANDIDATES
    assert table.crowded_out == 1000 - (MAX_CANDIDATES - 1)

    table.heard(2000, "known2", heard("known2"))
    assert {"known1", "known2"} <= set(table.snapshot())
    assert len(table.snapshot()) == MAX_CANDIDATES


def test_one_device_id_is_kept_under_a_few_names_only() -> None:
    table = CandidateTable("self", "family", None)
    table.prefer(["a"])
    for number in range(100):
        table.heard(number, f"name{number}", heard("a"))
    assert len(table.snapshot()) == MAX_PER_DEVICE


def test_a_sweep_takes_what_was_not_heard_again() -> None:
    table = CandidateTable("self", "family", None)
    table.heard(0, "a", heard("a"))
    table.heard(0, "b", heard("b"))
    table.heard(10, "b", heard("b"))
    table.sweep(heard_before=5)
    assert set(table.snapshot()) == {"b"}


CANDIDATES = st.dictionaries(
    st.sampled_from("abcdef"), st.builds(Candidate, st.just(""), st.sampled_from("xy"), st.just(()), st.integers(1, 2))
).map(lambda found: {key: replace(candidate, key=key) for key, candidate in found.items()})


@given(CANDIDATES, CANDIDATES)
def test_the_differences_lead_from_one_set_to_the_other(
    before: dict[str, Candidate], after: dict[str, Candidate]
) -> None:
    replayed = dict(before)
    for change, candidate in differences(before, after):
        if change is Change.LOST:
            assert replayed.pop(candidate.key) == candidate
        else:
            assert (candidate.key in replayed) == (change is Change.CHANGED)
            assert replayed.get(candidate.key) != candidate
            replayed[candidate.key] = candidate
    assert replayed == after


# --- fixed addresses: when


DESKTOP = PeerAddress("desktop.lan")


def test_an_ip_address_is_a_candidate_at_once_and_never_looked_up() -> None:
    fixed = FixedPeers([PeerAddress("10.0.0.2", 99)], refresh_seconds=60)
    assert fixed.take_due(0) == []
    [candidate] = fixed.snapshot().values()
    assert (candidate.addresses, candidate.port, candidate.fixed) == (("10.0.0.2",), 99, True)


def test_a_name_is_looked_up_again_at_intervals_and_not_twice_at_once() -> None:
    fixed = FixedPeers([DESKTOP], refresh_seconds=60)
    assert fixed.take_due(0) == [DESKTOP]
    assert fixed.take_due(500) == []
    fixed.succeeded(500, DESKTOP, ("10.0.0.2",))
    assert fixed.take_due(559) == []
    assert fixed.take_due(560) == [DESKTOP]


def test_a_name_that_fails_is_tried_less_and_less_often_and_keeps_its_addresses() -> None:
    fixed = FixedPeers([DESKTOP], refresh_seconds=60)
    fixed.take_due(0)
    fixed.succeeded(0, DESKTOP, ("10.0.0.2",))
    now, tries = 60, []
    for _ in range(20):
        while not fixed.take_due(now):
            now += 1
        tries.append(now)
        fixed.failed(now, DESKTOP, "no answer")
    waits = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (2, 300)
    assert next(iter(fixed.snapshot().values())).addresses == ("10.0.0.2",)
    assert fixed.statuses()[0].error == "no answer"


def test_a_changed_network_makes_names_due_but_not_again_and_again() -> None:
    fixed = FixedPeers([DESKTOP], refresh_seconds=60)
    fixed.take_due(0)
    fixed.failed(0, DESKTOP, "no answer")
    due = 0
    for tenth in range(1, 21):
        fixed.hurry(tenth / 10)
        for peer in fixed.take_due(tenth / 10):
            due += 1
            fixed.failed(tenth / 10, peer, "no answer")
    assert due == 1


# --- telling the application


def candidate(key: str, port: int = 1) -> Candidate:
    return Candidate(key, key, ("10.0.0.2",), port)


def test_changes_during_a_slow_callback_are_put_together() -> None:
    told: list[tuple[Change, int]] = []
    entered, go_on = threading.Event(), threading.Event()

    def callback(change: Change, what: Candidate) -> None:
        told.append((change, what.port))
        entered.set()
        assert go_on.wait(PATIENCE)

    notifier = Notifier(callback)
    notifier.offer({"a": candidate("a", 1)})
    assert entered.wait(PATIENCE)
    for port in range(2, 100):
        notifier.offer({"a": candidate("a", port)})
    go_on.set()
    wait_until(lambda: len(told) == 2)
    notifier.stop()
    assert told == [(Change.FOUND, 1), (Change.CHANGED, 99)]


def test_a_callback_that_raises_is_reported_once_and_called_again(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []

    def callback(change: Change, what: Candidate) -> None:
        told.append(what.key)
        raise RuntimeError("full moon")

    notifier = Notifier(callback)
    notifier.offer({key: candidate(key) for key in "abc"})
    wait_until(lambda: len(told) == 3)
    notifier.stop()
    assert "full moon" in (notifier.error or "")
    assert len(caplog.records) == 1


def test_the_log_of_a_dead_network_is_one_line_an_hour_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    trouble: list[str] = []
    quiet = QuietLog(lambda: now[0], trouble.append)
    quiet.install()
    try:
        for hour in range(3):
            now[0] = hour * 3600.0
            for _ in range(100):
                logging.getLogger("zeroconf").warning("cannot send", exc_info=OSError(101, "unreachable"))
    finally:
        quiet.remove()
    assert len(caplog.records) == 3
    assert "Traceback" not in caplog.text
    assert len(trouble) == 300


# --- the whole, on loopback


@pytest.mark.parametrize(
    "setting",
    [
        {"port": 0},
        {"port": 65536},
        {"port": True},
        {"device_id": "a b"},
        {"device_id": "-a"},
        {"device_id": ""},
        {"group_tag": b""},
        {"group_tag": b"x" * 33},
        {"group_tag": "a.b"},
        {"seeking": -1},
        {"seeking": "7"},
        {"interfaces": "eth0"},
        {"interfaces": []},
        {"fixed": ["fe80::1"]},
    ],
)
def test_a_setting_that_cannot_work_is_refused_before_anything_starts(setting: dict[str, Any]) -> None:
    with pytest.raises((SettingError, AddressError)):
        Discovery(name="desk", **setting)


def test_discovery_imports_neither_the_store_nor_replication() -> None:
    program = "import discovery, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    root = Path(discovery.__file__).parent.parent
    loaded = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert "discovery" in loaded.stdout.split()
    assert not {"atop", "replication"} & set(loaded.stdout.split())


def test_the_public_names_are_sorted_and_there() -> None:
    names = discovery.__all__
    assert sorted(names, key=lambda name: (not name.isupper(), name.islower(), name)) == names
    assert all(getattr(discovery, name) is not None for name in names)


class Ear:
    """A callback that remembers."""

    def __init__(self) -> None:
        self.told: list[tuple[Change, Candidate]] = []

    def __call__(self, change: Change, candidate: Candidate) -> None:
        self.told.append((change, candidate))

    def wait(self, change: Change, device_id: str) -> Candidate:
        def fitting() -> list[Candidate]:
            return [what for how, what in self.told if how is change and what.device_id == device_id]

        return wait_until(fitting)[0]


@pytest.fixture
def tag() -> bytes:
    """A group of this test's own: other tests may use the loopback interface at the same time."""
    return uuid.uuid4().bytes


@pytest.fixture
def no_threads_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.mark.slow
def test_two_stores_on_one_machine_find_each_other_and_a_restart_is_found_again(
    tag: bytes, no_threads_left: None
) -> None:
    ear = Ear()
    one = Discovery(name="one", port=5001, device_id="aaa", group_tag=tag, on_candidate=ear, interfaces="loopback")
    other = Discovery(name="other", port=5002, device_id="bbb", group_tag=tag, interfaces="loopback")
    with one:
        with other:
            found = ear.wait(Change.FOUND, "bbb")
            assert (found.addresses, found.port, found.group_tag) == (("127.0.0.1",), 5002, tag.hex())
            assert one.candidates() == (found,)
            wait_until(other.candidates)
            assert other.status().announced_as == "other"
        ear.wait(Change.LOST, "bbb")
        assert other.candidates() == ()
        assert not other.status().running

        ear.told.clear()
        with other:
            ear.wait(Change.FOUND, "bbb")


@pytest.mark.slow
def test_the_callback_may_use_and_close_discovery(tag: bytes, no_threads_left: None) -> None:
    closed = threading.Event()

    def callback(change: Change, found: Candidate) -> None:
        assert found in one.candidates()
        one.close()
        closed.set()

    one = Discovery(name="one", device_id="aaa", group_tag=tag, on_candidate=callback, interfaces="loopback")
    with Discovery(name="other", port=5002, device_id="bbb", group_tag=tag, interfaces="loopback"), one:
        assert closed.wait(PATIENCE)
        assert not one.status().running
    wait_until(lambda: not any(thread.name == "atop-discovery-notify" for thread in threading.enumerate()))


def test_starting_and_closing_twice_does_nothing_more(no_threads_left: None) -> None:
    one = Discovery(name="one", fixed=["127.0.0.1:5001"], multicast=False)
    one.close()
    one.start()
    one.start()
    [found] = wait_until(one.candidates)
    assert (found.name, found.addresses, found.port) == ("127.0.0.1:5001", ("127.0.0.1",), 5001)
    one.close()
    one.close()


def test_a_fixed_name_is_resolved_and_one_that_is_not_shows_in_the_status(no_threads_left: None) -> None:
    fixed = ["localhost:5001", "no-such-host.invalid"]
    with Discovery(name="one", fixed=fixed, multicast=False) as one:
        wait_until(lambda: one.status().problems)
        [found] = wait_until(one.candidates)
        assert set(found.addresses) <= {"127.0.0.1", "::1"}
        problem = one.status().problems[0]
        assert "no-such-host.invalid:4747 cannot be found" in problem
        assert one.status().fixed[1].error == problem


def test_a_wake_from_sleep_asks_the_network_anew(tag: bytes, no_threads_left: None) -> None:
    slept = [0.0]
    surroundings = Surroundings(wall=lambda: time.time() + slept[0])
    timing = Timing(poll=0.05, refresh_refill=0.01)
    with Discovery(name="one", group_tag=tag, interfaces="loopback", timing=timing, surroundings=surroundings) as one:
        wait_until(lambda: one.status().refreshes == 1)
        slept[0] = 3600.0
        wait_until(lambda: one.status().refreshes == 2)
        assert not one.status().problems


def test_after_a_sleep_every_socket_is_made_anew() -> None:
    async def sockets() -> list[set[object]]:
        multicast = Multicast([LOOPBACK])
        await multicast.zeroconf.zeroconf.async_wait_for_start()
        seen: list[set[object]] = []
        for asleep in (None, False, True):
            if asleep is not None:
                await multicast.release([LOOPBACK], all_of_them=asleep)
                await multicast.use([LOOPBACK])
            assert multicast.is_settled
            seen.append({sender.transport for sender in multicast.zeroconf.zeroconf.engine.senders})
        await multicast.close()
        return seen

    first, awake, woken = asyncio.run(sockets())
    assert len(first) == 1
    assert first == awake
    assert first != woken


def test_interfaces_that_cannot_be_read_are_a_problem_and_not_an_end(no_threads_left: None) -> None:
    broken = [True]

    def read() -> tuple[Interface, ...]:
        if broken[0]:
            raise OSError(24, "Too many open files")
        return (LOOPBACK,)

    surroundings = Surroundings(interfaces=read)
    with Discovery(name="one", interfaces="loopback", timing=Timing(poll=0.05), surroundings=surroundings) as one:
        wait_until(lambda: any("Too many open files" in problem for problem in one.status().problems))
        broken[0] = False
        wait_until(lambda: one.status().interfaces and not one.status().problems)
        assert "Too many open files" in (one.status().last_error or "")


def test_whatever_goes_wrong_inside_discovery_starts_over(
    no_threads_left: None, caplog: pytest.LogCaptureFixture
) -> None:
    looks = iter([*range(5), None])

    def read() -> tuple[Interface, ...]:
        if next(looks, None) is not None:
            raise RuntimeError("impossible")
        return (LOOPBACK,)

    with Discovery(
        name="one",
        interfaces="loopback",
        timing=Timing(poll=0.01, reopen_first=0.01),
        surroundings=Surroundings(interfaces=read),
    ) as one:
        wait_until(lambda: "impossible" in (one.status().last_error or ""))
        wait_until(lambda: one.status().interfaces and not one.status().problems)
    assert len([record for record in caplog.records if "impossible" in record.getMessage()]) == 1
