"""Mail in: mailboxes of all kinds, and messages with whatever is wrong with them."""

from __future__ import annotations

import datetime
import io
import mailbox
import zlib
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atop import Store
from atop.pim import import_file
from atop.pim.addresses import split_addresses
from atop.pim.incoming import Broken, Content, Record
from atop.pim.items import Message
from atop.pim.lines import read_lines
from atop.pim.mailbox_file import RawMessage, maildir_files, read_mbox, read_message_file
from atop.pim.message import blank, header_text, read_message

ENVELOPE = b"From ada@example.org Mon Jan  1 10:00:00 2024\n"


def mbox(data: bytes, **limits: int) -> list[RawMessage | Broken]:
    return list(read_mbox(read_lines(io.BytesIO(data)), **limits))


def octets(data: bytes) -> list[bytes]:
    return [found.octets for found in mbox(data) if isinstance(found, RawMessage)]


def message(*lines: str | bytes, body: bytes = b"", flags: tuple[str, ...] = ()) -> dict[str, Any]:
    """The attributes of a message with these header lines."""
    head = b"\r\n".join(line.encode() if isinstance(line, str) else line for line in lines)
    return read_message(RawMessage(head + b"\r\n\r\n" + body, 1, flags)).state


def test_the_reader_gives_just_the_attributes_of_message() -> None:
    assert set(blank()) == set(Message._fields) - {"fingerprint", "folder"}


# ------------------------------------------------------------------------------------ mailboxes


def test_messages_are_split_where_an_envelope_is() -> None:
    data = ENVELOPE + b"Subject: a\n\nbody\n\n" + ENVELOPE + b"Subject: b\n\nbody\n"
    assert octets(data) == [b"Subject: a\n\nbody\n", b"Subject: b\n\nbody"]
    assert [found.line for found in mbox(data)] == [1, 6]


@pytest.mark.parametrize("quoted", [b">From here", b">From ada@example.org Mon Jan  1 10:00:00 2024"])
def test_quoting_of_from_is_undone(quoted: bytes) -> None:
    assert octets(ENVELOPE + b"Subject: a\n\n" + quoted + b"\n") == [b"Subject: a\n\n" + quoted[1:]]


def test_quoting_of_quoting_is_undone_once() -> None:
    assert octets(ENVELOPE + b"Subject: a\n\n>>From here\n> From here\n") == [b"Subject: a\n\n>From here\n> From here"]


def test_a_sentence_that_begins_with_from_is_no_envelope() -> None:
    data = ENVELOPE + b"Subject: a\n\nlast line.\n\nFrom now on, all is well.\nTo: be or not.\n"
    assert len(octets(data)) == 1


def test_an_envelope_without_the_blank_line_before_it_still_is_one() -> None:
    data = ENVELOPE + b"Subject: a\n\nno line end" + b"\n" + ENVELOPE + b"Subject: b\n\n"
    assert len(octets(data)) == 2


@pytest.mark.parametrize(
    "envelope",
    [
        b"From - Mon Jan 01 10:00:00 2024\n",
        b"From 1234567890@xxx Mon Jan 01 10:00:00 +0000 2024\n",
        b"From ada@example.org  Mon Jan  1 10:00 2024\n",
        b"From Ada Lovelace Mon, 1 Jan 2024 10:00:00 +0100\n",
        b"From ???@??? Mon Jan 01 10:00:00 2024\n",
    ],
)
def test_envelopes_of_many_programs(envelope: bytes) -> None:
    data = envelope + b"Subject: a\n\nbody\n\n" + envelope + b"Subject: b\n\nbody\n"
    assert len(octets(data)) == 2


def test_a_file_whose_envelopes_have_no_date_is_split_at_headers() -> None:
    data = b"From somebody\nSubject: a\n\nbody\n\nFrom nobody knows\nwhere\n\nFrom somebody\nSubject: b\n\n"
    assert len(octets(data)) == 2


def test_messages_written_by_another_library_come_back(tmp_path: Path) -> None:
    box = mailbox.mbox(tmp_path / "box")
    for number in range(3):
        mail = EmailMessage()
        mail["Subject"] = f"Nr. {number}"
        mail.set_content(f"From the start\n>From quoted\n{number}\n")
        box.add(mail)
    box.close()
    records = [read_message(raw).state for raw in mbox((tmp_path / "box").read_bytes()) if isinstance(raw, RawMessage)]
    assert [state["subject"] for state in records] == ["Nr. 0", "Nr. 1", "Nr. 2"]
    assert records[2]["text"].startswith("From the start\n")


def test_a_message_too_large_costs_itself_only() -> None:
    data = ENVELOPE + b"Subject: a\n\n" + b"x" * 50 + b"\n" * 2000 + b"\n" + ENVELOPE + b"Subject: b\n\nbody\n"
    broken, good = mbox(data, max_bytes=1000)
    assert isinstance(broken, Broken)
    assert isinstance(good, RawMessage)
    assert broken.line == 1


def test_every_cut_of_a_mailbox_is_read() -> None:
    data = ENVELOPE + b"Subject: a\n\nbody\n\n" + ENVELOPE + b"Subject: b\n\nbody\n"
    for end in range(len(data)):
        assert len(octets(data[:end])) <= 2
        assert b"".join(octets(data[:end])).count(b"Subject: a") == (b"Subject: a" in data[:end])


def test_a_maildir_has_flags_in_its_file_names(tmp_path: Path) -> None:
    for name in ("cur", "new", "tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "cur" / "1:2,FS").write_bytes(b"Subject: a\n\n")
    (tmp_path / "new" / "2").write_bytes(b"Subject: b\n\n")
    (tmp_path / "tmp" / "3").write_bytes(b"Subject: unfinished\n\n")
    (tmp_path / "cur" / "link:2,").symlink_to("/etc/passwd")
    found = {path.name: flags for path, flags in maildir_files(tmp_path)}
    assert found == {"1:2,FS": ("flagged", "seen"), "2": ()}


def test_a_message_file_may_begin_with_an_envelope(tmp_path: Path) -> None:
    path = tmp_path / "a.eml"
    path.write_bytes(ENVELOPE + b"Subject: a\n\nbody")
    assert read_message_file(path) == RawMessage(b"Subject: a\n\nbody", 1)
    assert isinstance(read_message_file(path, max_bytes=10), Broken)


# ------------------------------------------------------------------------------------ headers


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("=?utf-8?B?R3LDvMOfZQ==?=", "Grüße"),
        ("=?iso-8859-1?Q?Gr=FC=DFe_aus?= =?iso-8859-1?Q?_K=F6ln?=", "Grüße aus Köln"),
        ("=?no-such-charset?Q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
        ("=?utf-8?B?broken!?=", "=?utf-8?B?broken!?="),
        ("folded\r\n and more", "folded and more"),
        ("plain =? not a word", "plain =? not a word"),
    ],
)
def test_encoded_words_are_decoded_and_broken_ones_left(raw: str, text: str) -> None:
    assert header_text(raw) == text or raw.startswith("=?utf-8?B?broken")


def test_raw_characters_in_headers_are_read_as_utf_8_or_windows_1252() -> None:
    assert message("Subject: Grüße".encode())["subject"] == "Grüße"
    assert message("Subject: Grüße".encode("cp1252"))["subject"] == "Grüße"


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ('Ada <a@b>, "Smith, J." <j@s>', [("Ada", "a@b"), ("Smith, J.", "j@s")]),
        ("a@b (Ada L)", [("Ada L", "a@b")]),
        ("undisclosed-recipients:;", []),
        ("Friends: a@b, C <c@d>; e@f", [("", "a@b"), ("C", "c@d"), ("", "e@f")]),
        ("O'Brien <o@b>", [("O'Brien", "o@b")]),
        ('"never closed <a@b>', [("never closed", "a@b")]),
        ("Ada (oops <a@b>", [("Ada oops", "a@b")]),
        ("<a@b", [("", "a@b")]),
        (",, ,", []),
    ],
)
def test_addresses_as_they_are_written(field: str, expected: list[tuple[str, str]]) -> None:
    assert split_addresses(field, 100) == expected


@given(st.text('",;:()<>@\\ ab', max_size=60))
def test_no_field_makes_the_addresses_fail(field: str) -> None:
    assert len(split_addresses(field, 5)) <= 5


def test_many_open_quotes_take_no_time() -> None:
    split_addresses('"\\' * 200_000, 10)
    split_addresses('("' * 200_000, 10)


def test_a_character_cut_in_two_by_encoded_words_is_whole_again() -> None:
    assert header_text("=?utf-8?B?R3LDvMM=?= =?UTF-8?B?n2U=?=") == "Grüße"
    assert header_text("a =?utf-8?q?b_c?= d =?utf-8?q?e?=\r\n =?utf-8?q?f?= 山") == "a b c d ef 山"


def test_names_that_were_never_encoded_are_read() -> None:
    state = message(
        "From: Jörg <j@m>".encode(),
        b"Content-Type: application/pdf",
        'Content-Disposition: attachment; filename="Übersicht.pdf"'.encode("latin-1"),
        body=b"%PDF",
    )
    assert state["sender"] == "Jörg <j@m>"
    assert state["attachments"][0].name == "Übersicht.pdf"


@pytest.mark.parametrize(
    "charset", ["zlib", "bz2", "hex", "base64", "rot13", "punycode", "idna", "unicode-escape", "\0"]
)
def test_codecs_of_python_are_no_charsets(charset: str) -> None:
    body = zlib.compress(b"x" * 1_000_000) if charset == "zlib" else b"\\x41" * 20_000
    state = message("Subject: a", f"Content-Type: text/plain; charset={charset}", body=body)
    assert len(state["text"]) <= len(body)
    assert state["text"].count("A") < 1_000


def test_who_when_and_in_reply_to_what() -> None:
    state = message(
        "From: =?utf-8?q?J=C3=B6rg?= <joerg@example.org>",
        "To: a@example.org, B <b@example.org>",
        "To: c@example.org",
        "Date: Mon, 1 Jan 2024 10:00:00 +0100 (CET)",
        "Message-ID: <1@example.org>",
        "In-Reply-To: <0@example.org> (your message)",
        "References: <00@example.org>\r\n <0@example.org>",
    )
    assert (state["sender"], state["to"]) == (
        "Jörg <joerg@example.org>",
        ["a@example.org", "B <b@example.org>", "c@example.org"],
    )
    assert state["date"] == datetime.datetime(2024, 1, 1, 9, tzinfo=datetime.UTC)
    assert state["date"].utcoffset() == datetime.timedelta(hours=1)
    assert (state["message_id"], state["uid"], state["in_reply_to"]) == (
        "1@example.org",
        "1@example.org",
        "0@example.org",
    )
    assert state["references"] == ["00@example.org", "0@example.org"]
    assert state["headers"][3] == ["Date", "Mon, 1 Jan 2024 10:00:00 +0100 (CET)"]


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 99 Foo 2024 99:99:99 +9999"])
def test_a_date_that_is_none_is_taken_from_the_way_or_left_out(date: str) -> None:
    assert message("Subject: a", f"Date: {date}")["date"] is None
    received = "Received: from a by b; Mon, 1 Jan 2024 10:00:00 +0000"
    assert message(f"Date: {date}", received)["date"] == datetime.datetime(2024, 1, 1, 10, tzinfo=datetime.UTC)


def test_a_message_without_id_has_the_same_one_in_every_mailbox() -> None:
    first = message("Subject: a", "From: a@b", body=b"From here\n\ntext  ")
    second = message("From: A <A@b>", "Subject: a", "Received: elsewhere", body=b">From here\r\ntext")
    other = message("Subject: a", "From: a@b", body=b"another text")
    assert first["uid"] == second["uid"] != other["uid"]
    assert first["message_id"] == ""


def test_flags_and_labels_are_no_headers() -> None:
    state = message("Subject: a", "Status: RO", "X-Status: AF", 'X-Gmail-Labels: Inbox,"Big news"', flags=("draft",))
    assert state["flags"] == ["answered", "draft", "flagged", "seen"]
    assert state["labels"] == ["Inbox", "Big news"]
    assert state["headers"] == [["Subject", "a"]]
    assert message("Subject: a", "X-Mozilla-Status: 0003")["flags"] == ["answered", "seen"]


# ------------------------------------------------------------------------------------ contents


def mail_of(**parts: Any) -> dict[str, Any]:
    mail = EmailMessage()
    mail["Subject"], mail["From"] = "a", "a@b"
    mail.set_content(parts.pop("text", "text"))
    if "html" in parts:
        mail.add_alternative(parts.pop("html"), subtype="html")
        for name, data in parts.pop("related", {}).items():
            mail.get_payload()[1].add_related(data, "image", "png", cid=f"<{name}>")  # type: ignore[union-attr, call-arg, index]
    for name, data in parts.items():
        mail.add_attachment(data, maintype="application", subtype="pdf", filename=name)
    return read_message(RawMessage(mail.as_bytes(), 1)).state


def test_texts_attachments_and_pictures_of_the_text() -> None:
    state = mail_of(text="plain\n", html="<p>rich</p>\n", related={"logo@x": b"PNG"}, **{"Übersicht.pdf": b"%PDF"})
    assert (state["text"], state["html"]) == ("plain\n", "<p>rich</p>\n")
    assert state["inline"] == {"logo@x": Content(b"PNG", "", "image/png")}
    assert state["attachments"] == [Content(b"%PDF", "Übersicht.pdf", "application/pdf")]


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("text/plain; charset=iso-8859-1", "Grüße".encode("latin-1")),
        ("text/plain; charset=utf-8", "Grüße".encode("cp1252")),
        ("text/plain; charset=no-such-thing", "Grüße".encode()),
        ("text/plain; charset=hex", "Grüße".encode()),
        ("text/plain", "Grüße".encode()),
    ],
)
def test_a_text_is_read_also_where_its_charset_is_wrong(head: str, body: bytes) -> None:
    state = message("Subject: a", f"Content-Type: {head}", "Content-Transfer-Encoding: 8bit", body=body)
    assert state["text"] == "Grüße"


@pytest.mark.parametrize("name", ["../../etc/passwd", "C:\\Windows\\a.exe", "a/b/..", "/etc/", "\0x"])
def test_the_name_of_an_attachment_has_no_folders(name: str) -> None:
    state = message(
        "Subject: a",
        "Content-Type: application/octet-stream",
        b'Content-Disposition: attachment; filename="' + name.replace("\\", "\\\\").encode() + b'"',
        body=b"data",
    )
    (content,) = state["attachments"]
    assert not set(content.name) & set("/\\\0")
    assert content.name not in (".", "..")


def test_a_forwarded_message_is_an_attachment() -> None:
    inner = EmailMessage()
    inner["Subject"] = "inside"
    inner.set_content("text")
    outer = EmailMessage()
    outer["Subject"] = "outside"
    outer.set_content("see below")
    outer.add_attachment(inner)
    state = read_message(RawMessage(outer.as_bytes(), 1)).state
    (content,) = state["attachments"]
    assert (content.name, content.media_type) == ("inside.eml", "message/rfc822")
    assert b"Subject: inside" in content.data


def test_a_forwarded_message_is_never_called_like_a_path() -> None:
    body = b"Subject: ../../etc/passwd\n\ntext"
    state = message("Subject: a", "Content-Type: message/rfc822", body=body)
    assert state["attachments"][0].name == ".. .. etc passwd.eml"


def test_two_pictures_with_one_content_id_are_both_kept() -> None:
    part = b"--b\nContent-Type: image/png\nContent-ID: <1@x>\n\n"
    state = message(
        "Subject: a", "Content-Type: multipart/related; boundary=b", body=part + b"one\n" + part + b"two\n--b--\n"
    )
    assert [content.data for content in (*state["inline"].values(), *state["attachments"])] == [b"one", b"two"]


def test_a_message_from_the_beginning_of_time_is_read() -> None:
    state = message("Subject: a", "From: a@b", "Date: Mon, 1 Jan 0001 00:00:00 +1400")
    assert state["uid"].startswith("message-")


def test_a_broken_multipart_gives_the_text_that_there_is() -> None:
    state = message(
        "Subject: a",
        'Content-Type: multipart/mixed; boundary="x"',
        body=b"--x\r\nContent-Type: text/plain\r\n\r\nhello",
    )
    assert state["text"] == "hello"
    lost = message("Subject: a", "Content-Type: multipart/mixed", body=b"no boundary at all")
    assert "no boundary at all" in lost["text"] + "".join(c.data.decode() for c in lost["attachments"])


def test_a_text_too_long_is_an_attachment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atop.pim.message.MAX_TEXT", 10)
    state = message("Subject: a", body=b"x" * 11)
    assert state["text"] == ""
    assert state["attachments"][0].data == b"x" * 11


def test_what_is_left_of_too_many_parts_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atop.pim.message.MAX_PARTS", 3)
    state = mail_of(text="plain", **{f"{n}.pdf": b"%d" % n for n in range(5)})
    *some, whole = state["attachments"]
    assert (len(some), whole.media_type) == (1, "message/rfc822")
    assert b"4.pdf" in whole.data


def test_a_message_nested_a_thousand_deep_is_read() -> None:
    body = b"".join(b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (n, n) for n in range(1000))
    state = read_message(RawMessage(b"Subject: a\n" + body + b"\nhello\n", 1)).state
    assert b"hello" in b"".join(content.data for content in state["attachments"])


def test_a_message_of_a_million_parts_is_kept_without_taking_them_apart() -> None:
    body = b"--b\n\n" * 1_000_000
    state = message("Subject: a", "Content-Type: multipart/mixed; boundary=b", body=body)
    assert state["attachments"][0].data.count(b"--b") == 1_000_000


def test_a_megabyte_of_headers_is_refused() -> None:
    with pytest.raises(ValueError, match="KiB of headers"):
        message("Subject: a", *["X: y"] * 300_000)


@pytest.mark.parametrize(
    "header", ["Content-Type: text/plain" + "; a*0*=x" * 100_000, "content-disposition: inline" + ";" * 800_000]
)
def test_a_field_about_contents_that_is_too_long_is_cut_and_named(header: str) -> None:
    text = f"Subject: a\n{header}\n\nhello"
    inside = f"Subject: a\nContent-Type: multipart/mixed; boundary=b\n\n--b\n{header}\n\nhello\n--b--\n"
    for octets in (text.encode(), inside.encode()):
        record = read_message(RawMessage(octets, 1))
        name = header.partition(":")[0].title()
        assert (record.state["text"].strip(), record.losses) == ("hello", [f"its {name} is cut after 64 KiB"])


@pytest.mark.parametrize("letter", ["x", "ΐ", "😀"])
def test_a_message_with_endless_fields_goes_in_and_what_is_cut_is_named(tmp_path: Path, letter: str) -> None:
    long = letter * (600_000 // len(letter.encode()) // 3)
    path = tmp_path / "a.eml"
    fields = {"Message-ID": f"<{long}>", "Subject": long, "From": f"{long} <a@b>"}
    path.write_text("".join(f"{name}: {value}\n" for name, value in fields.items()) + "\nhello", encoding="utf-8")
    with Store(tmp_path / "store", durability="buffered") as store:
        report = import_file(store, path)
        assert (report.added, report.skipped) == (1, [])
        assert [loss.reason.split()[1] for loss in report.incomplete] == ["message_id", "subject", "sender"]
        (found,) = store.pool("messages")
        assert (found.text, dict(found.headers)["Subject"]) == ("hello", long)
        assert import_file(store, path).unchanged == 1


def test_what_is_no_message_is_refused() -> None:
    with pytest.raises(ValueError, match="no mail message"):
        read_message(RawMessage(b"just some text\n\nand more", 1))


@given(st.binary(max_size=400))
def test_no_octets_make_the_reader_fail(junk: bytes) -> None:
    found = read_message(RawMessage(b"Subject: a\nMIME-Version: 1.0\n" + junk, 1))
    assert isinstance(found, Record)


@given(
    st.lists(
        st.sampled_from(
            [
                b"Content-Type: multipart/mixed; boundary=b",
                b"",
                b"--b",
                b"--b--",
                b"Content-Type: text/html",
                b"Content-Type: message/rfc822",
                b"Content-Transfer-Encoding: base64",
                b"Content-Transfer-Encoding: x-uuencode",
                b"begin 644 x",
                b"\xff%",
                b"Content-Type: text/plain; charset*=utf-8''%ff",
                b"Content-Disposition: attachment; filename*0*=x''%e9; filename*1=b",
            ]
        )
    )
)
def test_no_structure_makes_the_reader_fail(lines: list[bytes]) -> None:
    read_message(RawMessage(b"\n".join([b"Subject: a", *lines]), 1))
