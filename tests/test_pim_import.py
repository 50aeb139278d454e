"""Imports into a store: what is the same, what is newer, what is skipped, and that nothing is lost or done twice."""

from __future__ import annotations

import datetime
import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from atop import AtopError, Item, Store
from atop.errors import UnknownFormat
from atop.pim import Contact, Event, Report, Skipped, export_pool, import_file, intake
from atop.pim.incoming import Content
from atop.pim.sniffing import sniff

UTC = datetime.UTC
SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store", durability="buffered") as store:
        yield store


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Makes a file of lines, or of octets."""

    def write(name: str, *lines: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\r\n".join(line.encode() if isinstance(line, str) else line for line in (*lines, "")))
        return path

    return write


@pytest.fixture(scope="module", name="samples")
def load_samples() -> ModuleType:
    """The generator of sample data."""
    spec = importlib.util.spec_from_file_location("sample_data", SCRIPTS / "sample_data.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def card(uid: str = "", name: str = "Ada", *more: str) -> list[str]:
    return ["BEGIN:VCARD", "VERSION:3.0", *([f"UID:{uid}"] if uid else []), f"FN:{name}", *more, "END:VCARD"]


def event(uid: str, summary: str, *more: str) -> list[str]:
    return ["BEGIN:VEVENT", f"UID:{uid}", "DTSTART:20240705T090000Z", f"SUMMARY:{summary}", *more, "END:VEVENT"]


def mail(message_id: str, subject: str, text: str, *headers: str) -> list[str]:
    start = ["From a@b Mon Jan  1 10:00:00 2024", "From: a@b", f"Subject: {subject}"]
    return [*start, *([f"Message-ID: <{message_id}>"] if message_id else []), *headers, "", text, ""]


def commits(store: Store) -> int:
    return sum(1 for _ in store.history())


def counts(report: Report) -> tuple[int, int, int, int]:
    return report.added, report.updated, report.unchanged, report.skipped_count


def names(store: Store, pool: str, attribute: str) -> list[str]:
    return sorted(getattr(item, attribute) for item in store.pool(pool))


# ------------------------------------------------------------------------------------ the same again


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("a.vcf", [*card("1"), *card("", "Charles"), *card("", "Charles")]),
        ("a.ics", ["BEGIN:VCALENDAR", *event("1", "Lunch"), *event("", "Tea"), "END:VCALENDAR"]),
        ("a.mbox", [*mail("1@b", "Hi", "text"), *mail("", "Hi", "other")]),
        ("a.csv", ["Name,Email", "Ada,a@b", "Charles,c@d"]),
        ("b.csv", ["isbn,price", "1,2", "3,4"]),
        ("c.csv", ["id,price", "1,2", "3,4"]),
        ("a.jsonl", ['{"id": 1, "price": 2}', '{"price": [3, {"a": null}]}']),
    ],
)
def test_importing_a_file_again_changes_nothing_and_makes_no_commit(
    store: Store, write: Write, name: str, lines: list[str]
) -> None:
    path = write(name, *lines)
    first = import_file(store, path)
    before = commits(store)
    again = import_file(store, path)
    assert first.added == 2
    assert counts(again) == (0, 0, first.added + first.unchanged, 0)
    assert commits(store) == before


def test_sample_data_goes_in_whole_and_again_changes_nothing(store: Store, tmp_path: Path, samples: ModuleType) -> None:
    samples.write_contacts(tmp_path / "contacts.vcf", 60)
    samples.write_calendar(tmp_path / "calendar.ics", 60)
    samples.write_mailbox(tmp_path / "mail.mbox", 60)
    for name in ("contacts.vcf", "calendar.ics", "mail.mbox"):
        report = import_file(store, tmp_path / name)
        assert (counts(report), report.incomplete_count) == ((60, 0, 0, 0), 0)
    before = commits(store)
    for name in ("contacts.vcf", "calendar.ics", "mail.mbox"):
        assert counts(import_file(store, tmp_path / name)) == (0, 0, 60, 0)
    assert commits(store) == before


def test_an_item_changed_here_stays_changed_when_the_same_file_comes_again(store: Store, write: Write) -> None:
    path = write("a.vcf", *card("1", "Ada", "TITLE:Countess"))
    import_file(store, path)
    (ada,) = store.pool("contacts")
    ada.title = "Programmer"
    assert counts(import_file(store, path)) == (0, 0, 1, 0)
    assert ada.title == "Programmer"


def test_a_deleted_item_comes_back_whole_and_stays(store: Store, write: Write) -> None:
    path = write("a.ics", "BEGIN:VCALENDAR", *event("1", "Lunch"), "END:VCALENDAR")
    import_file(store, path)
    next(iter(store.pool("events"))).delete()
    assert counts(import_file(store, path)) == (1, 0, 0, 0)
    assert counts(import_file(store, path)) == (0, 0, 1, 0)


# ------------------------------------------------------------------------------------ contacts without a UID


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("Ada,a@b,1,x",), ("Ada,A@B,2,y",)),  # the e-mail address tells
        (("Ada,a@b,030 1,x",), ("Ada,c@d,(030) 1,y",)),  # the number
        (("Ada,a@b,,",), ("ada,c@d,,",)),  # nothing but the name
        (("Ada,a@b,,x", "Ada,c@d,,x"), ("Ada,c@d,,y", "Ada,a@b,,y")),  # two of that name, told apart
        (("Ada,a@b,,x", "Charles,c@d,,"), ("Charles,c@d,,z", "Ada,e@f,,y")),
    ],
)
def test_a_contact_without_a_uid_that_has_changed_in_the_file_is_updated(
    store: Store, write: Write, before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    import_file(store, write("a.csv", "Name,Email,Phone,Notes", *before))
    uids = names(store, "contacts", "uid")
    path = write("a.csv", "Name,Email,Phone,Notes", *after)
    assert counts(import_file(store, path)) == (0, len(after), 0, 0)
    assert names(store, "contacts", "email") == sorted(line.split(",")[1] for line in after)
    assert names(store, "contacts", "uid") == uids  # other devices know it by that
    done = commits(store)
    assert counts(import_file(store, path)) == (0, 0, len(after), 0)
    assert commits(store) == done


@pytest.mark.parametrize(
    ("before", "after", "added"),
    [
        (("Ada,a@b,,x",), ("Ada,c@d,,x", "Ada,e@f,,x"), 2),  # two in the file
        (("Ada,a@b,,x", "Ada,c@d,,x"), ("Ada,e@f,,x",), 1),  # two here
        (("Ada,a@b,,x",), ("Ada,a@b,,x", "Ada,c@d,,x"), 1),  # the one here is in the file as it was
        (("Ada,a@b,,x", "Ada,a@b,,y"), ("Ada,a@b,,z",), 1),
        (("Ada,a@b,,x",), ("Charles,a@b,,x",), 1),  # a family's address
    ],
)
def test_contacts_without_a_uid_that_may_be_two_people_stay_two(
    store: Store, write: Write, before: tuple[str, ...], after: tuple[str, ...], added: int
) -> None:
    import_file(store, write("a.csv", "Name,Email,Phone,Notes", *before))
    report = import_file(store, write("a.csv", "Name,Email,Phone,Notes", *after))
    assert (report.added, report.updated) == (added, 0)
    assert len(store.pool("contacts")) == len(before) + added


def test_a_name_alone_matches_no_contact_of_another_table_or_with_a_uid(store: Store, write: Write) -> None:
    import_file(store, write("a.csv", "Name,Email", "Ada,a@b"))
    import_file(store, write("b.vcf", *card("1", "Charles", "EMAIL:c@d")))
    report = import_file(store, write("c.csv", "Name,E-mail,Notes", "Ada,e@f,x", "Charles,c@d,y"))
    assert counts(report) == (2, 0, 0, 0)


def test_a_card_without_a_uid_that_has_changed_is_updated_also_after_its_batch(
    store: Store, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "BATCH_RECORDS", 2)
    people = ["Ada", "Charles", "Luigi", "Mary", "George"]
    import_file(store, write("a.vcf", *(line for name in people for line in card("", name, f"EMAIL:{name}@b"))))
    changed = [line for name in reversed(people) for line in card("", name, f"EMAIL:{name}@b", "TITLE:x")]
    assert counts(import_file(store, write("a.vcf", *changed))) == (0, 5, 0, 0)
    assert names(store, "contacts", "title") == ["x"] * 5


def test_a_matched_contact_renamed_here_is_known_when_the_same_file_comes_again(store: Store, write: Write) -> None:
    import_file(store, write("a.csv", "Name,Email", "Ada,a@b"))
    path = write("a.csv", "Name,Email", "Ada,c@d")
    import_file(store, path)
    (ada,) = store.pool("contacts")
    ada.name = "Ada King"
    assert counts(import_file(store, path)) == (0, 0, 1, 0)
    assert names(store, "contacts", "name") == ["Ada King"]


# ------------------------------------------------------------------------------------ newer and older


def test_a_changed_record_updates_its_item_in_place(store: Store, write: Write) -> None:
    import_file(store, write("a.vcf", *card("1", "Ada", "TITLE:Countess", "TEL:1")))
    (ada,) = store.pool("contacts")
    report = import_file(store, write("a.vcf", *card("1", "Ada King", "TITLE:Countess")))
    assert counts(report) == (0, 1, 0, 0)
    assert (ada.name, ada.phones, len(store.pool("contacts"))) == ("Ada King", [], 1)


def test_a_record_written_otherwise_that_says_the_same_makes_no_commit(store: Store, write: Write) -> None:
    import_file(store, write("a.vcf", *card("1", "Ada", "TITLE:Countess")))
    before = commits(store)
    other = ["BEGIN:VCARD", "VERSION:4.0", "TITLE:Countess", "UID:1", "FN:Ada", "END:VCARD"]
    assert counts(import_file(store, write("a.vcf", *other))) == (0, 0, 1, 0)
    assert commits(store) == before


def test_an_older_revision_does_not_replace_a_newer_one_and_is_named(store: Store, write: Write) -> None:
    import_file(store, write("a.vcf", *card("1", "new", "REV:20250101T000000Z")))
    report = import_file(store, write("b.vcf", *card("1", "old", "REV:20240101T000000Z")))
    assert counts(report) == (0, 0, 0, 1)
    assert "older revision" in report.skipped[0].reason
    assert names(store, "contacts", "name") == ["new"]


def test_two_revisions_in_one_file_leave_the_newer_one_whichever_comes_first(store: Store, write: Write) -> None:
    old, new = card("1", "old", "REV:20240101T000000Z"), card("1", "new", "REV:20250101T000000Z")
    for number, lines in enumerate(([*old, *new], [*new, *old])):
        path = write(f"{number}.vcf", *lines)
        import_file(store, path)
        assert names(store, "contacts", "name") == ["new"]


def test_two_people_who_share_a_uid_are_both_kept(store: Store, write: Write) -> None:
    path = write("a.vcf", *card("1", "Ada"), *card("1", "Charles"))
    assert counts(import_file(store, path)) == (2, 0, 0, 0)
    assert counts(import_file(store, path)) == (0, 0, 2, 0)
    assert names(store, "contacts", "name") == ["Ada", "Charles"]


def test_two_events_with_one_uid_are_reported_by_line(store: Store, write: Write) -> None:
    path = write("a.ics", "BEGIN:VCALENDAR", *event("1", "Lunch"), *event("1", "Tea"), "END:VCALENDAR")
    for _ in range(2):
        report = import_file(store, path)
        assert [(skipped.line, "UID of another event" in skipped.reason) for skipped in report.skipped] == [(7, True)]
    assert names(store, "events", "summary") == ["Lunch"]


# ------------------------------------------------------------------------------------ invitations


def calendar(method: str, *lines: str) -> list[str]:
    return ["BEGIN:VCALENDAR", f"METHOD:{method}", *lines, "END:VCALENDAR"]


def test_an_updated_invitation_updates_its_event(store: Store, write: Write) -> None:
    first = write("1.ics", *calendar("REQUEST", *event("1", "Lunch")))
    import_file(store, first)
    report = import_file(store, write("2.ics", *calendar("REQUEST", *event("1", "Late lunch", "SEQUENCE:1"))))
    assert counts(report) == (0, 1, 0, 0)
    assert counts(import_file(store, first)) == (0, 0, 0, 1)
    assert names(store, "events", "summary") == ["Late lunch"]


def test_a_cancellation_cancels_and_keeps_the_event(store: Store, write: Write) -> None:
    import_file(store, write("1.ics", *calendar("REQUEST", *event("1", "Lunch"))))
    cancel = write(
        "2.ics", *calendar("CANCEL", "BEGIN:VEVENT", "UID:1", "SEQUENCE:2", "DTSTART:20240705T090000Z", "END:VEVENT")
    )
    assert counts(import_file(store, cancel)) == (0, 1, 0, 0)
    assert counts(import_file(store, cancel)) == (0, 0, 1, 0)
    (lunch,) = store.pool("events")
    assert (lunch.status, lunch.summary) == ("CANCELLED", "Lunch")


def test_a_cancellation_of_an_unknown_event_is_reported(store: Store, write: Write) -> None:
    report = import_file(store, write("1.ics", *calendar("CANCEL", *event("1", "Lunch"))))
    assert report.skipped[0].reason == "cancels an event that is not here"


EXCEPTION = [
    *("BEGIN:VEVENT", "UID:1", "RECURRENCE-ID:20240712T090000Z", "DTSTART:20240712T110000Z"),
    *("SUMMARY:moved", "END:VEVENT"),
]


def test_an_exception_that_comes_later_is_put_into_its_event(store: Store, write: Write) -> None:
    import_file(store, write("1.ics", *calendar("REQUEST", *event("1", "Lunch", "RRULE:FREQ=WEEKLY"))))
    patch = write("2.ics", *calendar("REQUEST", *EXCEPTION))
    assert counts(import_file(store, patch)) == (0, 1, 0, 0)
    assert counts(import_file(store, patch)) == (0, 0, 1, 0)
    (lunch,) = store.pool("events")
    assert [override["summary"] for override in lunch.overrides] == ["moved"]


def test_an_exception_that_comes_first_becomes_part_of_its_event(store: Store, write: Write) -> None:
    patch = write("2.ics", *calendar("REQUEST", *EXCEPTION))
    assert counts(import_file(store, patch)) == (1, 0, 0, 0)
    assert counts(import_file(store, patch)) == (0, 0, 1, 0)
    import_file(store, write("1.ics", *calendar("REQUEST", *event("1", "Lunch", "RRULE:FREQ=WEEKLY"))))
    (lunch,) = store.pool("events")
    assert (lunch.summary, lunch.recurrence, lunch.recurrence_id) == ("Lunch", "FREQ=WEEKLY", None)
    assert [override["summary"] for override in lunch.overrides] == ["moved"]


# ------------------------------------------------------------------------------------ mail


def test_a_copy_of_a_message_adds_its_flags_and_no_message(store: Store, write: Write) -> None:
    import_file(store, write("Inbox.mbox", *mail("1@b", "Hi", "text", "Status: RO")))
    report = import_file(store, write("Archive.mbox", *mail("1@b", "Hi", "text", "X-Status: F", "Received: elsewhere")))
    assert counts(report) == (0, 1, 0, 0)
    (message,) = store.pool("messages")
    assert (message.flags, message.folder) == (["flagged", "seen"], "Inbox")


def test_different_messages_with_one_message_id_are_both_kept(store: Store, write: Write) -> None:
    path = write("a.mbox", *mail("1@b", "Hi", "text"), *mail("1@b", "[list] Hi", "text\nand a footer"))
    assert counts(import_file(store, path)) == (2, 0, 0, 0)
    assert counts(import_file(store, path)) == (0, 0, 2, 0)


def test_a_maildir_with_subfolders(store: Store, write: Write, tmp_path: Path) -> None:
    for folder in ("", ".Sent.2024/"):
        for name in ("new", "tmp"):
            (tmp_path / f"Mail/{folder}{name}").mkdir(parents=True)
    write("Mail/cur/1:2,S", *mail("1@b", "Hi", "text")[1:])
    write("Mail/.Sent.2024/cur/2:2,", *mail("2@b", "Ho", "text")[1:])
    write("Mail/cur/3:2,", "this is no message", "", "at all")
    (tmp_path / "Mail/cur/passwd:2,").symlink_to("/etc/passwd")
    report = import_file(store, tmp_path / "Mail")
    assert counts(report) == (2, 0, 0, 1)
    assert report.skipped[0].path.endswith("3:2,")
    found = {message.subject: (message.folder, message.flags) for message in store.pool("messages")}
    assert found == {"Hi": ("Inbox", ["seen"]), "Ho": ("Sent/2024", [])}
    assert counts(import_file(store, tmp_path / "Mail")) == (0, 0, 2, 1)


# ------------------------------------------------------------------------------------ files and folders


def test_pictures_and_attachments_are_files_of_the_store(store: Store, write: Write) -> None:
    import_file(store, write("a.vcf", *card("1", "Ada", "PHOTO;ENCODING=b;TYPE=PNG:aGVsbG8=")))
    (ada,) = store.pool("contacts")
    assert (ada.photo.read(), ada.photo.media_type) == (b"hello", "image/png")


def test_a_picture_that_has_not_changed_is_not_kept_again(
    store: Store, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_file(store, write("a.vcf", *card("1", "Ada", "PHOTO;ENCODING=b;TYPE=PNG:aGVsbG8=")))
    monkeypatch.setattr(Store, "file", None)
    report = import_file(store, write("a.vcf", *card("1", "Ada King", "PHOTO;ENCODING=b;TYPE=PNG:aGVsbG8=")))
    assert counts(report) == (0, 1, 0, 0)


def test_a_folder_of_files_is_imported_file_by_file(store: Store, write: Write, tmp_path: Path) -> None:
    write("all/people/1.vcf", *card("1", "Ada"))
    write("all/people/2.vcf", *card("2", "Charles"))
    write("all/work.ics", "BEGIN:VCALENDAR", *event("1", "Lunch"), "END:VCALENDAR")
    write("all/books.csv", "isbn,price", "1,2")
    write("all/picture.png", b"\x89PNG\0\0")
    (tmp_path / "all" / "loop").symlink_to(tmp_path / "all")
    seen: list[tuple[int, int]] = []
    report = import_file(store, tmp_path / "all", progress=lambda done, total: seen.append((done, total)))
    assert counts(report) == (4, 0, 0, 1)
    assert report.skipped == [Skipped(str(tmp_path / "all/picture.png"), 0, "is of no format that can be imported")]
    assert [book.isbn for book in store.pool("books")] == ["1"]
    assert seen[-1] == (5, 5)


def test_two_address_books_of_one_folder_are_two_versions_of_the_same_people(store: Store, write: Write) -> None:
    write("all/2023.vcf", *card("1", "Ada"), *card("2", "Charles"))
    path = write("all/2024.vcf", *card("1", "Ada King"), *card("2", "Charles"))
    assert counts(import_file(store, path.parent)) == (2, 1, 1, 0)
    assert names(store, "contacts", "name") == ["Ada King", "Charles"]


def test_a_mailbox_of_apple_is_called_as_its_folder(store: Store, write: Write) -> None:
    import_file(store, write("Work.mbox/mbox", *mail("1@b", "Hi", "text")).parent)
    assert names(store, "messages", "folder") == ["Work"]


@pytest.mark.parametrize(
    ("name", "start", "expected"),
    [
        ("x", b"BEGIN:VCARD\r\n", "vcard"),
        ("x.txt", b"\xef\xbb\xbf\r\nbegin:vcard\n", "vcard"),
        ("x", "BEGIN:VCALENDAR\n".encode("utf-16"), "icalendar"),
        ("x.vcf", b"BEGIN:VCALENDAR\n", "icalendar"),
        ("x", b"From a@b Mon Jan  1 10:00:00 2024\n", "mbox"),
        ("x", b"Received: from a by b\n", "eml"),
        ("x.csv", b"Subject: a,b\n", "eml"),
        ("x", b'{"atop_export":1}', "jsonl"),
        ("x.csv", b"a,b\n", "csv"),
        ("x.txt", b"a;b\n", "csv"),
        ("x.ics", b"", "icalendar"),
        ("x.png", b"\x89PNG\0", None),
        ("x.txt", b"hello\n", None),
        ("x", b"PK\3\4\0\0", None),
    ],
)
def test_a_format_is_told_by_contents_before_name(
    tmp_path: Path, name: str, start: bytes, expected: str | None
) -> None:
    path = tmp_path / name
    path.write_bytes(start)
    assert sniff(path) == expected


def test_a_file_of_no_known_format_is_refused_and_the_store_untouched(store: Store, write: Write) -> None:
    before = commits(store)
    for path, kind in ((write("a.png", b"\x89PNG\0"), None), (write("a.vcf", *card("1")), "excel")):
        with pytest.raises(UnknownFormat) as caught:
            import_file(store, path, kind=kind)  # type: ignore[arg-type]
        assert isinstance(caught.value, AtopError)
    with pytest.raises(FileNotFoundError):
        import_file(store, path.with_name("absent"))
    assert commits(store) == before


def test_a_folder_has_no_format_of_its_own(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UnknownFormat, match="is a folder"):
        import_file(store, tmp_path, kind="vcard")


def test_a_pipe_can_be_imported(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    octets = "\r\n".join(["BEGIN:VCALENDAR", *event("1", "Lunch"), "BEGIN:VEVENT", "END:VCALENDAR"]).encode()
    writer = threading.Thread(target=path.write_bytes, args=(octets,))
    writer.start()
    report = import_file(store, path)
    writer.join()
    assert counts(report) == (1, 0, 0, 1)
    assert report.skipped[0].path == str(path)


# ------------------------------------------------------------------------------------ what is skipped


def test_a_broken_record_is_named_with_file_and_line_and_the_rest_goes_in(store: Store, write: Write) -> None:
    path = write("a.vcf", *card("1"), "BEGIN:VCARD", "FN:lost", *card("2"), "BEGIN:VCARD", "END:VCARD", *card("3"))
    told: list[Skipped] = []
    report = import_file(store, path, on_skip=told.append)
    assert (report.added, report.skipped_count) == (3, 2)
    assert [(skipped.path, skipped.line) for skipped in report.skipped] == [(str(path), 6), (str(path), 13)]
    assert told == report.skipped
    assert str(told[0]).startswith(f"{path}:6: is not finished")


def test_a_record_that_cannot_be_stored_does_not_take_its_batch_along(store: Store, write: Write) -> None:
    cards = [line for number in range(40) for line in card(str(number), "N" * (300_000 if number == 17 else 3))]
    report = import_file(store, write("a.vcf", *cards))
    assert (report.added, report.skipped_count) == (39, 1)
    assert "cannot be stored" in report.skipped[0].reason
    assert report.skipped[0].line == 17 * 5 + 1


EXPORT = '{"atop_export": 1, "pool": "x", "origin": "o"}'


@pytest.mark.parametrize(
    "item_id", ["0", "-5", "9223372036854775808", "99999999999999999999999", '"x"', "null", "true"]
)
@pytest.mark.parametrize("value", ["1", '{"$ref": 1}'])
def test_an_id_that_no_item_has_costs_its_line_only(store: Store, write: Write, item_id: str, value: str) -> None:
    lines = [
        f'{{"type": "atop.Item", "id": {n}, "attributes": {{"a": {value}}}}}' for n in ("1", item_id, str(2**63 - 1))
    ]
    report = import_file(store, write("a.jsonl", EXPORT, *lines))
    assert (report.added, [skipped.line for skipped in report.skipped]) == (2, [3])


@pytest.mark.parametrize("pool", ["\\ud800x", "\\u0000", "x" * 201])
def test_an_impossible_name_of_a_pool_costs_its_line_only(store: Store, write: Write, pool: str) -> None:
    item = '{"type": "atop.Item", "id": 1, "attributes": {"a": {"$int": "0x7"}}}'
    report = import_file(store, write("books.jsonl", EXPORT.replace('"x"', f'"{pool}"'), item))
    assert (report.added, [skipped.line for skipped in report.skipped]) == (1, [1])
    assert [book.a for book in store.pool("books")] == [7]


def test_a_table_whose_file_name_is_no_text_is_reported(store: Store, write: Write) -> None:
    report = import_file(store, write(os.fsdecode(b"b\xff.csv"), "isbn,price", "1,2"))
    assert (report.added, report.skipped_count) == (0, 1)
    assert "rename the file" in report.skipped[0].reason
    assert import_file(store, write(os.fsdecode(b"c\xff.vcf"), *card("1"))).added == 1


class Fussy(Item, type_name="test.Fussy"):
    """Refuses some attributes, in a way that nobody expects."""

    def __init__(self, store: Store, **attributes: Any) -> None:
        if "error" in attributes:
            raise {"key": KeyError, "overflow": OverflowError, "runtime": RuntimeError}[attributes["error"]]("no")
        super().__init__(store, **attributes)


@pytest.mark.parametrize("error", ["key", "overflow", "runtime"])
def test_whatever_a_record_raises_it_costs_itself_only(store: Store, write: Write, error: str) -> None:
    lines = [f'{{"type": "test.Fussy", "id": {n}, "attributes": {{"a": {n}}}}}' for n in range(1, 30)]
    lines[20] = f'{{"type": "test.Fussy", "id": 21, "attributes": {{"error": "{error}", "name": {10**300}}}}}'
    report = import_file(store, write("a.jsonl", EXPORT, *lines))
    assert (report.added, [skipped.line for skipped in report.skipped]) == (28, [22])


def test_the_report_names_so_many_and_counts_all(store: Store, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atop.pim.report.MAX_NAMED", 3)
    report = import_file(store, write("a.vcf", *["BEGIN:VCARD", "END:VCARD"] * 10))
    assert (len(report.skipped), report.skipped_count) == (3, 10)


def test_progress_ends_where_the_file_does(store: Store, write: Write) -> None:
    path = write("a.vcf", *[line for number in range(500) for line in card(str(number))])
    seen: list[tuple[int, int]] = []
    import_file(store, path, progress=lambda done, total: seen.append((done, total)))
    size = path.stat().st_size
    assert seen[-1] == (size, size)
    assert seen == sorted(seen)
    assert len(seen) > 2


def test_what_was_put_in_before_a_failure_is_whole_and_the_rest_follows(
    store: Store, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "BATCH_RECORDS", 10)
    path = write("a.vcf", *[line for number in range(35) for line in card(str(number))])
    whole = Store.transact
    calls = 0

    def failing(self: Store, *arguments: Any, **named: Any) -> Any:
        nonlocal calls
        if str(named.get("label", "")).startswith("import"):
            calls += 1
            if calls == 3:
                raise OSError("the disk is gone")
        return whole(self, *arguments, **named)

    monkeypatch.setattr(Store, "transact", failing)
    with pytest.raises(OSError, match="gone"):
        import_file(store, path)
    monkeypatch.undo()
    assert len(store.pool("contacts")) == 20
    assert counts(import_file(store, path)) == (15, 0, 20, 0)


# ------------------------------------------------------------------------------------ what a file may not do


@pytest.mark.parametrize(
    "line",
    [
        '{"type": "atop.Pool", "id": 1, "attributes": {"name": "x"}}',
        '{"type": "replication.membership.Member", "id": 1, "attributes": {}}',
        '{"type": "atop.Item", "id": 1, "attributes": {"_store": 1}}',
        '{"type": "atop.Item", "id": 1, "attributes": {"_id": 1}}',
        '{"type": "atop.Item", "id": 1, "attributes": {"_state": {"$ref": 1}}}',
        '{"type": "pim.Contact", "id": 1, "attributes": {"_views": [1, {}]}}',
        '{"type": "atop.Item", "id": 1, "attributes": {"delete": 1}}',
        '{"type": "atop.Item", "id": 1, "attributes": {"item_id": 1}}',
    ],
)
def test_a_file_makes_no_items_that_the_program_lives_by(store: Store, write: Write, line: str) -> None:
    report = import_file(store, write("a.jsonl", '{"atop_export": 1, "pool": "x", "origin": "o"}', line))
    assert (report.added, report.skipped_count) == (0, 1)


@pytest.mark.parametrize("pool", ["devices", "conflicts", ""])
def test_a_file_puts_nothing_into_the_pools_that_the_program_lives_by(store: Store, write: Write, pool: str) -> None:
    line = '{"type": "atop.Item", "id": 1, "attributes": {"name": "intruder"}}'
    header = f'{{"atop_export": 1, "pool": "{pool}", "origin": "o"}}'
    assert import_file(store, write("a.jsonl", header, line)).added == (1 if pool == "" else 0)
    assert not any(p.name in ("devices", "conflicts") for p in store.pools())
    assert import_file(store, write("devices.csv", "isbn,price", "1,2")).added == 0


def test_a_table_of_other_things_does_not_go_among_the_contacts(store: Store, write: Write) -> None:
    report = import_file(store, write("contacts.csv", "isbn,price", "1,2"))
    assert (report.added, report.skipped_count) == (0, 1)


def test_contents_of_a_file_that_are_not_those_named_are_refused(store: Store, write: Write) -> None:
    digest = Content(b"hello").digest().hex()
    info = f'{{"digest": "{digest}", "size": 5, "name": "a", "media_type": ""}}'
    report = import_file(
        store,
        write(
            "a.jsonl",
            '{"atop_export": 1, "pool": "contacts", "origin": "o"}',
            f'{{"file": "{digest}", "part": "aGVsbG9v", "last": true}}',
            f'{{"type": "pim.Contact", "id": 1, "attributes": {{"name": "Ada", "photo": {{"$file": {info}}}}}}}',
        ),
    )
    assert (report.added, report.skipped_count, report.incomplete_count) == (1, 1, 1)
    assert next(iter(store.pool("contacts"))).photo is None


# ------------------------------------------------------------------------------------ items by themselves


def test_an_item_made_in_a_program_has_a_uid(store: Store) -> None:
    first, second = Contact(store, name="Ada"), Contact(store, name="Ada")
    assert first.uid.startswith("urn:uuid:")
    assert first.uid != second.uid
    assert Event(store, summary="Lunch", uid="1").uid == "1"


def test_imported_items_are_found_by_their_indexes_and_words(store: Store, write: Write) -> None:
    import_file(store, write("a.vcf", *card("1", "Ada Lovelace", "EMAIL:Ada@Example.org", "NOTE:likes engines")))
    contacts = store.pool("contacts")
    assert [item.name for item in contacts.query("email", key="ada@example.org")] == ["Ada Lovelace"]
    assert [item.name for item in contacts.search("engines lovelace")] == ["Ada Lovelace"]
    assert isinstance(next(iter(contacts)), Item)


# ------------------------------------------------------------------------------------ size

IMPORT = """
import resource, sys
from atop import Store
from atop.pim import import_file
with Store(sys.argv[1], durability="buffered", cache_size=8 << 20) as store:
    report = import_file(store, sys.argv[2])
assert report.added == int(sys.argv[3]), report
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(store: Path, path: Path, count: int) -> int:
    """KiB of memory that the import of a file of so many records takes, in a process of its own."""
    command = [sys.executable, "-c", IMPORT, str(store), str(path), str(count)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["contacts.vcf", "calendar.ics", "mail.mbox", "table.csv"])
def test_ten_times_the_records_take_no_more_memory(tmp_path: Path, samples: ModuleType, name: str) -> None:
    peaks = []
    for count in (700, 7_000) if name != "mail.mbox" else (300, 3_000):
        path = tmp_path / f"{count}-{name}"
        if name == "table.csv":
            path.write_text("Name,Email\n" + "".join(f"Person {n},p{n}@example.org\n" for n in range(count)))
        else:
            writers = {".vcf": samples.write_contacts, ".ics": samples.write_calendar, ".mbox": samples.write_mailbox}
            writers[path.suffix](path, count)
        peaks.append(peak(tmp_path / f"store-{count}", path, count))
    assert peaks[1] < peaks[0] + 16 * 1024, peaks  # KiB: allocators and caches settle, records do not add up


@pytest.mark.slow
def test_a_line_without_end_is_not_read_into_memory(tmp_path: Path, write: Write) -> None:
    small = peak(tmp_path / "store-small", write("b.vcf", *card("1"), *card("2")), 2)
    path = tmp_path / "a.vcf"
    with path.open("wb") as stream:
        stream.write("\r\n".join([*card("1"), "BEGIN:VCARD", "NOTE:"]).encode())
        stream.truncate(256 << 20)  # a hole of 256 MiB
        stream.seek(0, 2)
        stream.write(("\r\nEND:VCARD\r\n" + "\r\n".join([*card("2"), ""])).encode())
    assert peak(tmp_path / "store-large", path, 2) < small + 100 * 1024


def test_labels_of_commits_say_which_part_of_which_file_or_folder(
    store: Store, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "BATCH_RECORDS", 2)
    import_file(store, write("a.mbox", *mail("1@b", "a", "x"), *mail("2@b", "b", "x"), *mail("3@b", "c", "x")))
    write("Post/new/.keep")
    for number in range(3):
        write(f"Post/cur/{number}:2,S", "From: a@b", f"Subject: {number}", "", "x")
    import_file(store, write("Post/cur/3", "From: a@b", "", "x").parent.parent)
    labels = [commit.label for commit in store.history() if commit.label.startswith("import")]
    assert labels[::-1] == [
        "import a.mbox, records 1-2",
        "import a.mbox, records 3-3",
        "import Post, records 1-2",
        "import Post, records 3-4",
    ]


def test_a_time_zone_that_nobody_knows_leaves_local_time_keeps_its_name_and_is_named(
    store: Store, write: Write, tmp_path: Path
) -> None:
    lines = ["BEGIN:VEVENT", "UID:1", "DTSTART;TZID=Mars/Base:20240705T090000", "DTEND;TZID=Mars/Base:20240705T100000"]
    report = import_file(store, write("a.ics", "BEGIN:VCALENDAR", *lines, "END:VEVENT", "END:VCALENDAR"))
    assert [("Mars/Base" in loss.reason, loss.line) for loss in report.incomplete] == [(True, 2)]
    (found,) = store.pool("events")
    assert (found.time_zone, found.parameters["DTSTART"]) == ("floating", {"TZID": ["Mars/Base"]})
    assert [found.start.hour, found.end.hour] == [9, 10]
    export_pool(store, "events", tmp_path / "b.ics")
    assert set(lines) <= set((tmp_path / "b.ics").read_text().splitlines())
    assert counts(import_file(store, tmp_path / "b.ics")) == (0, 0, 1, 0)
