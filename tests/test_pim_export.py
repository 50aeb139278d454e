"""Exports out of a store: an import of one gives the same items, and no file is ever cut short."""

from __future__ import annotations

import csv
import datetime
import decimal
import email.policy
import io
import itertools
import json
import mailbox
import uuid
import zoneinfo
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_pim_import import load_samples  # noqa: F401 - a fixture

from atop import Item, Store
from atop.errors import NoSuchPool, UnknownFormat
from atop.pim import Contact, Event, Message, Note, Report, export_pool, import_file, open_pool

UTC = datetime.UTC

# Attributes that are about an import, and not about what was imported.
IMPORTS = {"fingerprint", "import_key", "import_mark"}


class Author(Item, type_name="example.Author"):
    """An application's own class, without a uid."""

    name: str
    born: datetime.date | None = None
    pages: int = 0
    friend: Item | None = None
    works: list[Any] = []


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store", durability="buffered") as store:
        yield store


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "other", durability="buffered") as store:
        yield store


def plain(value: Any) -> Any:
    """A value that can be compared across stores: files by what they are, items by name, times with their zone."""
    if isinstance(value, Item):
        return f"item {getattr(value, 'name', '')}"
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if hasattr(value, "digest") and hasattr(value, "media_type"):
        return (value.digest, value.name, value.media_type, value.read())
    return (type(value), repr(value)) if isinstance(value, (datetime.datetime, float)) else value


def attributes(store: Store, pool: str, key: str = "uid") -> dict[str, dict[str, Any]]:
    """All attributes of all items of a pool, by uid."""
    return {
        getattr(item, key): {name: plain(v) for name, v in item.attributes.items() if name not in IMPORTS}
        for item in store.pool(pool)
    }


def counts(report: Report) -> tuple[int, int, int, int, int]:
    return report.added, report.updated, report.unchanged, report.skipped_count, report.incomplete_count


def commits(store: Store) -> int:
    return sum(1 for _ in store.history())


CASES = [
    *((pool, "a.jsonl", None) for pool in ("contacts", "events", "messages", "notes")),
    *((pool, "a.csv", None) for pool in ("contacts", "events", "notes")),
    ("contacts", "a.vcf", None),
    ("contacts", "a.vcf", "vcard3"),
    ("events", "a.ics", None),
    ("notes", "a.ics", None),
    ("messages", "a.mbox", None),
]


@pytest.mark.parametrize(("pool", "name", "kind"), CASES)
def test_sample_data_comes_back_attribute_for_attribute_and_changes_nothing_where_it_came_from(
    store: Store, other: Store, tmp_path: Path, samples: Any, pool: str, name: str, kind: Any
) -> None:
    samples.write_contacts(tmp_path / "contacts.vcf", 40)
    samples.write_calendar(tmp_path / "calendar.ics", 40)
    samples.write_mailbox(tmp_path / "mail.mbox", 40)
    for source in ("contacts.vcf", "calendar.ics", "mail.mbox"):
        import_file(store, tmp_path / source)
    if name.endswith(".csv"):  # which has no contents of files
        for item in store.pool(pool):
            item.photo = item.attachments = None
            del item.photo, item.attachments
    report = export_pool(store, pool, tmp_path / name, kind)
    size = len(store.pool(pool))
    assert (report.written, report.left_out) == (size, [])
    assert counts(import_file(other, tmp_path / name)) == (size, 0, 0, 0, 0)
    assert attributes(other, pool) == attributes(store, pool)
    before = commits(store)
    assert counts(import_file(store, tmp_path / name)) == (0, 0, size, 0, 0)
    assert commits(store) == before


texts = st.text(max_size=12)
stored = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        texts,
        st.binary(max_size=8),
        st.decimals(allow_nan=False),
        st.uuids(),
        st.dates(),
        st.datetimes(timezones=st.sampled_from([None, UTC, zoneinfo.ZoneInfo("Asia/Tokyo")])),
        st.timedeltas(),
    ),
    lambda inner: st.lists(inner, max_size=2) | st.tuples(inner) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=5,
)
numbers = itertools.count()


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(items=st.lists(st.dictionaries(st.sampled_from(["name", "born", "colour", "note_2", "x"]), stored), max_size=4))
def test_any_items_come_back_attribute_for_attribute(
    store: Store, other: Store, tmp_path: Path, suffix: str, items: list[dict[str, Any]]
) -> None:
    pool = store.pool(f"things {next(numbers)}")
    with store.transaction():
        for number, values in enumerate(items):
            pool.add(Item(store, **{**values, "number": number}))
    path = tmp_path / f"{pool.name}{suffix}"
    export_pool(store, pool, path)
    assert counts(import_file(other, path)) == (len(items), 0, 0, 0, 0)
    if items:
        assert attributes(other, pool.name, "number") == attributes(store, pool.name, "number")
    assert counts(import_file(other, path)) == (0, 0, len(items), 0, 0)


def authors(store: Store) -> None:
    """Three authors, two of whom refer to each other, and one of whom refers outside of the pool."""
    pool = store.pool("authors", indexes=["name"])
    with store.transaction():
        ada = Author(store, name="Ada", born=datetime.date(1815, 12, 10))
        charles = Author(store, name="Charles", friend=ada, pages=300)
        ada.friend = charles
        ada.works = [charles, {"with": ada}, store.file(b"notes", name="G.txt", media_type="text/plain")]
        mary = Author(store, name="Mary", friend=Item(store, name="elsewhere"))
        for author in (ada, charles, mary):
            pool.add(author)


def test_items_that_refer_to_each_other_do_so_again(store: Store, other: Store, tmp_path: Path) -> None:
    authors(store)
    export_pool(store, "authors", tmp_path / "a.jsonl")
    report = import_file(other, tmp_path / "a.jsonl")
    assert counts(report) == (3, 0, 0, 0, 1)
    assert "refers to item" in report.incomplete[0].reason
    ada, charles, mary = other.pool("authors")
    assert (ada.friend, charles.friend, mary.friend) == (charles, ada, None)
    assert (ada.works[:2], ada.works[2].read()) == ([charles, {"with": ada}], b"notes")
    assert type(ada) is Author
    before = commits(other)
    assert counts(import_file(other, tmp_path / "a.jsonl"))[:4] == (0, 0, 3, 0)
    assert commits(other) == before


@pytest.mark.parametrize("name", ["events.jsonl", "events.csv"])
def test_a_number_of_thousands_of_digits_comes_back(store: Store, other: Store, tmp_path: Path, name: str) -> None:
    huge = 1 << 40_000
    open_pool(store, "event").add(Event(store, summary="Lunch", percent=huge, own=[-huge]))
    export_pool(store, "events", tmp_path / name)
    assert import_file(other, tmp_path / name).added == 1
    assert [(event.percent, event.own) for event in other.pool("events")] == [(huge, [-huge])]


def test_items_that_are_alike_stay_as_many(other: Store, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    items = [{"type": "atop.Item", "id": n, "attributes": {"name": "Mary"}} for n in range(1, 6)]
    lines = [{"atop_export": 1, "pool": "x", "origin": "o"}, *items]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert counts(import_file(other, path))[:3] == (5, 0, 0)
    assert counts(import_file(other, path))[:3] == (0, 0, 5)
    assert len(other.pool("x")) == 5


def test_references_are_set_some_hundreds_at_a_time(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    items = [{"type": "atop.Item", "id": n, "attributes": {"r": [{"$ref": 101 - n}] * n}} for n in range(1, 101)]
    items[49]["attributes"] = {"r": {"$set": [[{"$ref": 1}]]}}  # a list is no member of a set
    lines = [{"atop_export": 1, "pool": "x", "origin": "o"}, *items]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    report = import_file(store, path)
    assert [(loss.line, loss.reason[:36]) for loss in report.incomplete] == [
        (51, "its references cannot be stored: has")
    ]
    found = list(store.pool("x"))
    assert [item.r for n, item in enumerate(found, 1) if n != 50] == [
        [found[100 - n]] * n for n in range(1, 101) if n != 50
    ]
    assert commits(store) < 20
    before = commits(store)
    assert counts(import_file(store, path))[:3] == (0, 0, 100)
    assert commits(store) == before


def test_an_import_stopped_before_its_references_were_set_is_finished_by_the_next(
    store: Store, other: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authors(store)
    export_pool(store, "authors", tmp_path / "a.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr("atop.pim.intake.Intake.refer", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            import_file(other, tmp_path / "a.jsonl")
    assert [author.friend for author in other.pool("authors")] == [None] * 3
    assert counts(import_file(other, tmp_path / "a.jsonl"))[:4] == (0, 2, 1, 0)
    ada, charles, _mary = other.pool("authors")
    assert (ada.friend, charles.friend) == (charles, ada)


def test_an_item_of_another_class_changed_here_stays_changed(store: Store, other: Store, tmp_path: Path) -> None:
    authors(store)
    export_pool(store, "authors", tmp_path / "a.jsonl")
    import_file(other, tmp_path / "a.jsonl")
    ada, charles, mary = other.pool("authors")
    ada.pages, ada.friend, mary.friend = 7, mary, ada
    assert counts(import_file(other, tmp_path / "a.jsonl")) == (0, 0, 3, 0, 0)
    assert (ada.pages, ada.friend, mary.friend, charles.friend) == (7, mary, ada, ada)


def test_an_applications_own_fingerprint_is_exported(store: Store, other: Store, tmp_path: Path) -> None:
    store.pool("keys").add(Item(store, name="k", fingerprint="ab:cd"))
    for name in ("keys.jsonl", "keys.csv"):
        export_pool(store, "keys", tmp_path / name)
        import_file(other, tmp_path / name)
    assert [key.fingerprint for key in other.pool("keys")] == ["ab:cd"] * 2


def test_an_export_of_other_items_brought_back_to_its_own_store_changes_nothing(store: Store, tmp_path: Path) -> None:
    authors(store)
    export_pool(store, "authors", tmp_path / "a.jsonl")
    for _ in range(2):
        versions = [author.version for author in store.pool("authors")]
        assert counts(import_file(store, tmp_path / "a.jsonl")) == (0, 0, 3, 0, 0)
        assert [author.version for author in store.pool("authors")] == versions


def test_contents_of_files_are_in_json_lines_at_any_size(
    store: Store, other: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atop.pim.jsonl.PART_BYTES", 1000)
    monkeypatch.setattr("atop.pim.jsonl.SPOOL_BYTES", 2000)
    contents = [b"", b"x", b"y" * 1000, bytes(range(256)) * 40]
    with store.transaction():
        for number, data in enumerate(contents):
            photo = store.file(data, name=f"{number}.png", media_type="image/png")
            open_pool(store, "contact").add(Contact(store, name=str(number), photo=photo))
    export_pool(store, "contacts", tmp_path / "a.jsonl")
    import_file(other, tmp_path / "a.jsonl")
    assert [contact.photo.read() for contact in other.pool("contacts").query("name")] == contents


def test_a_file_whose_contents_are_elsewhere_is_named_and_left_out(store: Store, tmp_path: Path) -> None:
    with store.transaction():
        open_pool(store, "contact").add(Contact(store, name="Ada", photo=store.file(b"hello")))
    (ada,) = store.pool("contacts")
    (tmp_path / "store" / "files" / ada.photo.digest.hex()[:2] / ada.photo.digest.hex()[2:]).unlink()
    for name in ("a.vcf", "a.jsonl"):
        report = export_pool(store, "contacts", tmp_path / name)
        assert report.written == 1
        assert [item_id for item_id, _ in report.left_out] == [ada.item_id]
        assert "not on this device" in report.left_out[0][1]


def test_a_table_opens_in_a_spreadsheet(store: Store, tmp_path: Path) -> None:
    with store.transaction():
        open_pool(store, "contact").add(
            Contact(store, name="=cmd()", phone="+49 30 1", note="Zoë", birthday=datetime.date(1815, 12, 10))
        )
    export_pool(store, "contacts", tmp_path / "a.csv")
    octets = (tmp_path / "a.csv").read_bytes()
    assert octets.startswith(b"\xef\xbb\xbf")
    (row,) = csv.DictReader(io.StringIO(octets.decode("utf-8-sig")))
    assert (row["name"], row["phone"], row["note"], row["birthday"]) == ("'=cmd()", "+49 30 1", "Zoë", "1815-12-10")


def test_json_lines_are_json(store: Store, tmp_path: Path) -> None:
    with store.transaction():
        open_pool(store, "note").add(Note(store, title="Rain", tags=["weather"]))
    target = io.BytesIO()
    export_pool(store, "notes", target, "jsonl")
    header, note = map(json.loads, target.getvalue().splitlines())
    assert (header["atop_export"], header["pool"], note["type"]) == (1, "notes", "pim.Note")
    assert (note["attributes"]["title"], note["attributes"]["tags"]) == ("Rain", ["weather"])


def test_an_export_that_fails_leaves_what_was_there(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.transaction():
        open_pool(store, "contact").add(Contact(store, name="Ada"))
    path = tmp_path / "a.vcf"
    path.write_text("precious")

    def fail(*_: Any) -> bytes:
        raise OSError("the disk is full")

    monkeypatch.setattr("atop.pim.exporting.write_card", fail)
    with pytest.raises(OSError, match="full"):
        export_pool(store, "contacts", path)
    assert path.read_text() == "precious"
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_a_link_is_written_through(store: Store, tmp_path: Path) -> None:
    with store.transaction():
        open_pool(store, "contact").add(Contact(store, name="Ada"))
    (tmp_path / "real.vcf").write_text("old")
    (tmp_path / "a.vcf").symlink_to(tmp_path / "real.vcf")
    export_pool(store, "contacts", tmp_path / "a.vcf")
    assert (tmp_path / "a.vcf").is_symlink()
    assert "Ada" in (tmp_path / "real.vcf").read_text()


def test_what_a_format_cannot_hold_is_named_or_refused(store: Store, tmp_path: Path) -> None:
    with store.transaction():
        mixed = store.pool("mixed")
        for item in (Contact(store, name="Ada"), Event(store, summary="Lunch"), Message(store, subject="Hi")):
            mixed.add(item)
    report = export_pool(store, mixed, tmp_path / "a.vcf")
    assert (report.written, report.left_out_count) == (1, 2)
    open_pool(store, "message").add(Message(store, subject="Hi"))
    with pytest.raises(UnknownFormat, match="no item"):
        export_pool(store, "messages", tmp_path / "b.ics")
    with pytest.raises(UnknownFormat, match="in which format"):
        export_pool(store, mixed, tmp_path / "a.doc")
    with pytest.raises(NoSuchPool):
        export_pool(store, "absent", tmp_path / "a.vcf")


def test_an_item_with_an_attribute_of_a_wrong_type_does_not_stop_an_export(store: Store, tmp_path: Path) -> None:
    pool = open_pool(store, "contact")
    with store.transaction():
        pool.add(Contact(store, name="Ada", emails=[5]))
        pool.add(Contact(store, name="Charles"))
    report = export_pool(store, "contacts", tmp_path / "a.vcf")
    assert (report.written, report.left_out_count) == (2, 1)
    assert "its emails has an entry that is a int" in report.left_out[0][1]


@pytest.mark.parametrize("kind", ["vcard", "vcard3"])
def test_of_a_contact_that_is_wrong_in_part_the_rest_is_written(store: Store, tmp_path: Path, kind: Any) -> None:
    wrong = {"emails": [{"value": "a@b"}, 5, {"value": "c@d"}], "note": 7, "phones": "12", "birthday": "tomorrow"}
    open_pool(store, "contact").add(Contact(store, name="Ada", city="Rome", **wrong))
    report = export_pool(store, "contacts", tmp_path / "a.vcf", kind)
    card = (tmp_path / "a.vcf").read_text()
    assert all(line in card for line in ("FN:Ada", "EMAIL:a@b", "EMAIL:c@d", "Rome", "END:VCARD"))
    assert not any(line in card for line in ("NOTE", "TEL", "BDAY"))
    assert report.written == 1
    named = " ".join(reason for _, reason in report.left_out)
    assert report.left_out_count == 4
    assert all(f"its {name} " in named for name in wrong)


def test_an_export_whose_values_are_of_wrong_types_does_not_go_in(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    header = '{"atop_export": 1, "pool": "contacts", "origin": "o"}'
    path.write_text(f'{header}\n{{"type": "pim.Contact", "id": 1, "attributes": {{"name": "Ada", "emails": 5}}}}\n')
    report = import_file(store, path)
    assert [skipped.reason for skipped in report.skipped] == ["its emails is a int, not a list"]


def test_an_empty_pool_is_a_file_without_items(store: Store, other: Store, tmp_path: Path) -> None:
    open_pool(store, "contact")
    for name in ("a.vcf", "a.csv", "a.jsonl", "a.ics"):
        assert export_pool(store, "contacts", tmp_path / name).written == 0
        assert counts(import_file(other, tmp_path / name)) == (0, 0, 0, 0, 0)


def test_progress_counts_the_items(store: Store) -> None:
    with store.transaction():
        for number in range(450):
            open_pool(store, "note").add(Note(store, title=str(number)))
    seen: list[tuple[int, int]] = []
    export_pool(store, "notes", io.BytesIO(), "csv", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 450), (200, 450), (400, 450), (450, 450)]


def test_values_that_only_atop_has_survive(store: Store, other: Store, tmp_path: Path) -> None:
    thing = {
        "exact": decimal.Decimal("1.10"),
        "key": uuid.UUID(int=7),
        "half": "\ud800",
        "members": {1, "a", (2, 3)},
        "moment": datetime.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Paris")),
        "huge": 10**40,
        "nothing": "",
    }
    store.pool("things").add(Item(store, **thing))
    for name in ("things.jsonl", "things.csv"):
        export_pool(store, "things", tmp_path / name)
        import_file(other, tmp_path / name)
        (found,) = other.pool("things")
        assert {name: getattr(found, name) for name in thing} == thing
        assert found.moment.fold == 1
        found.delete()


# ------------------------------------------------------------------------------------ mail

NESTED = b"Subject: inner\nFrom: c@d\n\nFrom here on\n"
RICH = b"""\
From: a@b
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=X

--X
Content-Type: multipart/alternative; boundary=Y

--Y

plain
--Y
Content-Type: multipart/related; boundary=Z

--Z
Content-Type: text/html

<p>html

--Z
Content-Type: image/png
Content-ID: <p@q>
Content-Transfer-Encoding: base64

iVBORw==
--Z--
--Y--
--X
Content-Type: application/pdf
Content-Disposition: attachment; filename*=utf-8''Z%C3%BCge%20%22.pdf

%PDF
--X
Content-Type: text/plain
Content-Disposition: attachment

unnamed
--X
Content-Type: message/rfc822

Subject: inner
From: c@d

From here on

--X
Content-Type: message/delivery-status

Status: 5.0.0

--X--
"""
MAILS = [
    b"From: a@b\nMessage-ID: <1@b>\nDate: Mon, 1 Jan 2024 10:00:00 +0100\n\nFrom the start\n>From quoted\n",
    b"From: a@b\nSubject: no line end\n\nlast line",
    b'From: a@b\nTo: c@d\nTo: "Lovelace, Ada" <e@f>\nContent-Type: text/plain; charset=latin1\n\nZo\xeb \x0c\n\tx \n\n',
    b"From: =?utf-8?Q?M=C3=BCller=2C_J=C3=B6rg?= <j@x>\nTo: =?utf-8?B?w4Q=?= <a@b>, =?utf-8?B?w5Y=?= <o@b>\n"
    b"Subject: =?utf-8?Q?=C3=84rger_=3D=3FX?=\nDate: Thu, 4 Jul 2024 10:00:00 -0000\n\nx\n",
    "From: Zoë <z@b>\nTo: undisclosed-recipients:;\nSubject: raw 8 bit ë\n\nx\n".encode(),
    b"From: nobody at all\nSubject:\nReferences: <a@b> <c@d>\nIn-Reply-To: <c@d>\n"
    b"Received: by x; Mon, 1 Jan 2024 10:00:00 +0000\n\n",
    b"Sender: s@b\nSubject: " + b"long words and more of them, " * 40 + b"\nX-Long: " + b"y" * 3000 + b"\n\nx\n",
    b'From: a@b\nStatus: RO\nX-Status: AF\nX-Mozilla-Status: 1001\nX-Gmail-Labels: Inbox,"Trains, old",\n\n'
    + b"z" * 3000
    + b"\n",
    RICH,
    b"From: a@b\nContent-Type: image/png; name=a.png\nContent-Transfer-Encoding: base64\n\niVBORw==\n",
]


@pytest.mark.parametrize("octets", MAILS)
def test_a_message_comes_back_from_a_mailbox_attribute_for_attribute(
    store: Store, other: Store, tmp_path: Path, octets: bytes
) -> None:
    (tmp_path / "first.eml").write_bytes(octets)
    assert counts(import_file(store, tmp_path / "first.eml")) == (1, 0, 0, 0, 0)
    next(iter(store.pool("messages"))).folder = "Zügig/Post"
    report = export_pool(store, "messages", tmp_path / "a.mbox")
    assert (report.written, report.left_out) == (1, [])
    assert counts(import_file(other, tmp_path / "a.mbox")) == (1, 0, 0, 0, 0)
    assert attributes(other, "messages") == attributes(store, "messages")
    before = commits(store)
    assert counts(import_file(store, tmp_path / "a.mbox")) == (0, 0, 1, 0, 0)
    assert commits(store) == before


def test_a_message_changed_or_made_here_is_written_as_it_is(store: Store, other: Store, tmp_path: Path) -> None:
    (tmp_path / "first.eml").write_bytes(MAILS[0])
    import_file(store, tmp_path / "first.eml")
    with store.transaction():
        (changed,) = store.pool("messages")
        changed.subject, changed.to, changed.flags = "Änderung", ["Ö, Ü <o@b>", "p@b"], ["draft", "forwarded", "seen"]
        date = datetime.datetime(2024, 7, 4, 9, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
        made = Message(store, subject="made", sender="Ada (x), y <a@b>", date=date, text="hello")
        made.attachments = [store.file(b"x" * 100_000, name="b.bin", media_type="application/x-y")]
        store.pool("messages").add(made)
    export_pool(store, "messages", tmp_path / "a.mbox")
    import_file(other, tmp_path / "a.mbox")
    expected, found = attributes(store, "messages"), attributes(other, "messages")
    assert expected.keys() == found.keys()
    for uid, here in expected.items():
        assert {**found[uid], "digest": b""} == {**here, "digest": b""}


def test_another_library_reads_the_mailbox(store: Store, tmp_path: Path) -> None:
    for number, octets in enumerate(MAILS):
        (tmp_path / f"{number}.eml").write_bytes(octets)
        import_file(store, tmp_path / f"{number}.eml")
    export_pool(store, "messages", tmp_path / "a.mbox")
    box = mailbox.mbox(tmp_path / "a.mbox")
    keys = box.keys()
    found = [email.message_from_bytes(box.get_bytes(key), policy=email.policy.default) for key in keys]
    assert len(found) == len(MAILS)
    assert 'Züge ".pdf' in [part.get_filename() for mail in found for part in mail.walk()]
    assert any(mail["to"] and "Ä <a@b>" in mail["to"] for mail in found)
    assert not any(part.defects for mail in found for part in mail.walk())


def test_a_header_field_from_outside_cannot_become_two(store: Store, other: Store, tmp_path: Path) -> None:
    with store.transaction():
        headers = [["Subject", "a\nBcc: evil@x"], ["X-Note", "b\r\n\r\nbody"]]
        message = Message(store, subject="a\nBcc: evil@x", sender="e\nCc: f@x <a\n@b>", headers=headers)
        open_pool(store, "message").add(message)
        open_pool(store, "message").add(Message(store, subject="bad", headers=[["a b:", "c"]]))
    report = export_pool(store, "messages", tmp_path / "a.mbox")
    assert (report.written, report.left_out_count) == (1, 1)
    octets = (tmp_path / "a.mbox").read_bytes()
    assert b"\nBcc:" not in octets
    assert b"\nCc:" not in octets
    import_file(other, tmp_path / "a.mbox")
    assert [message.text for message in other.pool("messages")] == [""]


def test_a_flag_that_no_mailbox_has_is_named(store: Store, tmp_path: Path) -> None:
    open_pool(store, "message").add(Message(store, subject="x", flags=["seen", "mine"]))
    assert "mine" in export_pool(store, "messages", tmp_path / "a.mbox").left_out[0][1]


# ------------------------------------------------------------------------------------ contacts changed here


def exported(store: Store, tmp_path: Path, kind: Any = "vcard") -> list[str]:
    report = export_pool(store, "contacts", tmp_path / "a.vcf", kind)
    assert report.left_out == []
    return (tmp_path / "a.vcf").read_text().splitlines()


CARD = "N:Lovelace;Ada;;;\nFN:The Countess\nEMAIL;TYPE=home:a@b\nEMAIL;TYPE=work:c@d\nTEL:1\n"


@pytest.fixture
def ada(store: Store, tmp_path: Path) -> Any:
    """A contact that was imported."""
    (tmp_path / "in.vcf").write_text(f"BEGIN:VCARD\nVERSION:3.0\nUID:1\n{CARD}END:VCARD\n")
    import_file(store, tmp_path / "in.vcf")
    return next(iter(store.pool("contacts")))


def test_entries_without_some_of_their_keys_are_written(store: Store, tmp_path: Path) -> None:
    entry = {"value": "x@y.z"}
    contact = Contact(store, name="Ada", emails=[entry], phones=[{}], urls=[entry], addresses=[{"city": "Rome"}])
    open_pool(store, "contact").add(contact)
    assert "EMAIL:x@y.z" in exported(store, tmp_path)


def test_an_item_that_cannot_be_written_is_named_with_its_attribute(store: Store, tmp_path: Path) -> None:
    with store.transaction():
        for values in ({"name": "Ada", "emails": ["a@b"]}, {"name": "Charles", "note": 5}, {"name": "Luigi"}):
            open_pool(store, "contact").add(Contact(store, **values))
    reasons = [reason for _, reason in export_pool(store, "contacts", tmp_path / "a.vcf").left_out]
    assert reasons == [
        "('Ada') is written in part: its emails has an entry that is a str, not a dict",
        "('Charles') is written in part: its note is a int, not a str",
    ]


def test_what_one_sees_changed_replaces_what_it_was(store: Store, tmp_path: Path, ada: Any) -> None:
    ada.email, ada.phone, ada.name = "new@b", "999", "Ada Augusta King"
    lines = exported(store, tmp_path)
    assert [line for line in lines if line.startswith(("EMAIL", "TEL", "N:", "FN"))] == [
        "FN:Ada Augusta King",
        "N:King;Ada Augusta;;;",
        "EMAIL;TYPE=home:new@b",
        "EMAIL;TYPE=work:c@d",
        "TEL:999",
    ]


def test_another_of_the_addresses_made_the_first_loses_none(store: Store, tmp_path: Path, ada: Any) -> None:
    ada.email = "c@d"
    lines = exported(store, tmp_path)
    assert [line for line in lines if line.startswith("EMAIL")] == ["EMAIL;TYPE=work:c@d", "EMAIL;TYPE=home:a@b"]


def test_a_changed_list_wins_over_the_attribute_beside_it(store: Store, tmp_path: Path, ada: Any) -> None:
    ada.emails = [{"value": "list@b"}]
    assert "EMAIL:list@b" in exported(store, tmp_path)


def test_a_name_that_came_so_and_a_changed_part_stay(store: Store, tmp_path: Path, ada: Any) -> None:
    assert {"FN:The Countess", "N:Lovelace;Ada;;;"} <= set(exported(store, tmp_path))
    ada.name = "Ada"
    ada.family = "King"
    assert {"FN:Ada", "N:King;Ada;;;"} <= set(exported(store, tmp_path))


def test_attendees_and_alarms_without_some_of_their_keys_are_written(store: Store, tmp_path: Path) -> None:
    start = datetime.datetime(2024, 7, 5, 9, tzinfo=UTC)
    event = Event(store, summary="Tea", start=start, attendees=[{"name": "Ada"}], alarms=[{"trigger": "-PT5M"}])
    open_pool(store, "event").add(event)
    assert export_pool(store, "events", tmp_path / "a.ics").left_out == []
    assert "TRIGGER:-PT5M" in (tmp_path / "a.ics").read_text().splitlines()
