"""vCards in and out: what real programs write, and what an export promises."""

from __future__ import annotations

import base64
import datetime
import io
from typing import Any

import pytest
import vobject
from hypothesis import given, settings
from hypothesis import strategies as st

from atop.pim.incoming import Broken, Content, Record
from atop.pim.items import Contact
from atop.pim.lines import read_lines
from atop.pim.vcard import ADDRESS_PARTS, blank, read_vcards
from atop.pim.vcard_out import Version, write_card

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


def read(data: bytes | str) -> list[Record | Broken]:
    octets = data.encode() if isinstance(data, str) else data
    return list(read_vcards(read_lines(io.BytesIO(octets))))


def card(*lines: str | bytes, version: str = "3.0") -> dict[str, Any]:
    """The attributes of one card with these properties."""
    octets = [line.encode() if isinstance(line, str) else line for line in lines]
    start, end = [b"BEGIN:VCARD", f"VERSION:{version}".encode()], [b"END:VCARD", b""]
    (found,) = read(b"\r\n".join([*start, *octets, *end]))
    assert isinstance(found, Record), found
    return found.state


def problems(data: bytes | str) -> list[tuple[int, str]]:
    return [(found.line, found.reason) for found in read(data) if isinstance(found, Broken)]


def test_the_reader_gives_just_the_attributes_of_contact() -> None:
    assert set(blank()) == set(Contact._fields) - {"fingerprint"}


# ------------------------------------------------------------------------------------ as it is written


def test_vcard_2_1_of_an_old_phone() -> None:
    state = card(
        "N;CHARSET=UTF-8;ENCODING=QUOTED-PRINTABLE:M=C3=BCller;J=C3=B6rg;;;",
        "FN;CHARSET=UTF-8;ENCODING=QUOTED-PRINTABLE:J=C3=B6rg M=C3=BCller",
        "TEL;CELL;PREF:+49 170 1",
        "TEL;HOME;VOICE:+49 30 2",
        "EMAIL;INTERNET:joerg@example.org",
        "NOTE;ENCODING=QUOTED-PRINTABLE;CHARSET=UTF-8:first line=0D=0Asecond li=",
        "ne, and: a colon",
        version="2.1",
    )
    assert (state["family"], state["given"], state["name"]) == ("Müller", "Jörg", "Jörg Müller")
    assert state["phones"] == [
        {"value": "+49 170 1", "kinds": ["cell"], "preferred": 1},
        {"value": "+49 30 2", "kinds": ["home", "voice"]},
    ]
    assert state["emails"] == [{"value": "joerg@example.org", "kinds": []}]
    assert state["note"] == "first line\nsecond line, and: a colon"


def test_a_charset_that_the_property_names_is_believed() -> None:
    state = card(
        b"FN;CHARSET=ISO-8859-1:Ren\xe9e",
        b"NICKNAME;CHARSET=Windows-1251;ENCODING=QUOTED-PRINTABLE:=CE=EB=FF",
        version="2.1",
    )
    assert (state["name"], state["nickname"]) == ("Renée", "Оля")


def test_a_card_of_no_declared_charset_is_read_as_utf_8_or_windows_1252() -> None:
    assert card("FN:Zoë €".encode())["name"] == "Zoë €"
    assert card("FN:Zoë €".encode("cp1252"))["name"] == "Zoë €"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_whole_file_in_another_unicode_encoding(encoding: str, tmp_path: Any) -> None:
    from atop.pim.lines import LineFile

    path = tmp_path / "a.vcf"
    path.write_bytes("BEGIN:VCARD\r\nVERSION:3.0\r\nFN:Łukasz\r\nEND:VCARD\r\n".encode(encoding))
    with LineFile(path) as lines:
        (found,) = read_vcards(lines)
    assert isinstance(found, Record)
    assert found.state["name"] == "Łukasz"


def test_lone_carriage_returns_of_an_old_mac_end_lines(tmp_path: Any) -> None:
    from atop.pim.lines import LineFile

    path = tmp_path / "a.vcf"
    path.write_bytes(b"BEGIN:VCARD\rVERSION:3.0\rFN:Ada\rEND:VCARD\r")
    with LineFile(path) as lines:
        (found,) = read_vcards(lines)
    assert isinstance(found, Record)


def test_folding_may_cut_a_character_in_two() -> None:
    data = "FN:Jörg".encode()
    state = card(data[:5] + b"\r\n " + data[5:])
    assert state["name"] == "Jörg"


def test_apple_groups_become_labels() -> None:
    state = card(
        "FN:Ada",
        "item1.EMAIL;type=INTERNET;type=pref:ada@example.org",
        "item1.X-ABLabel:_$!<Work>!$_",
        "item2.URL;type=pref:https\\://example.org/",
        "item2.X-ABLabel:Engine room",
    )
    assert state["emails"] == [{"value": "ada@example.org", "kinds": [], "preferred": 1, "label": "Work"}]
    assert state["urls"] == [{"value": "https://example.org/", "kinds": [], "preferred": 1, "label": "Engine room"}]


def test_a_group_with_more_than_a_label_is_kept_as_it_is() -> None:
    state = card("FN:Ada", "item1.ADR;type=HOME:;;1 Mill Lane;Porlock;;;", "item1.X-ABADR:gb")
    assert state["addresses"][0]["group"] == "item1"
    assert state["properties"] == [{"name": "X-ABADR", "value": "gb", "group": "item1"}]


def test_apple_birthdays_without_a_year_are_not_in_1604() -> None:
    state = card("FN:Ada", "BDAY;X-APPLE-OMIT-YEAR=1604:1604-12-10")
    assert (state["birthday"], state["birthday_text"]) == (None, "--12-10")


@pytest.mark.parametrize(
    ("text", "birthday", "birthday_text"),
    [
        ("18151210", datetime.date(1815, 12, 10), ""),
        ("1815-12-10T00:00:00Z", datetime.date(1815, 12, 10), ""),
        ("--1210", None, "--12-10"),
        ("1815", None, "1815"),
        ("1815-02-30", None, "1815-02-30"),
        ("circa 1800", None, "circa 1800"),
    ],
)
def test_birthdays_that_are_no_full_date_are_kept_as_text(
    text: str, birthday: datetime.date | None, birthday_text: str
) -> None:
    state = card("FN:Ada", f"BDAY:{text}")
    assert (state["birthday"], state["birthday_text"]) == (birthday, birthday_text)


@pytest.mark.parametrize(
    "line",
    [
        "PHOTO;ENCODING=b;TYPE=PNG:{}",
        "PHOTO;ENCODING=BASE64;TYPE=image/png:{}",
        "PHOTO;PNG;BASE64:{}",
        "PHOTO:data:image/png;base64,{}",
        "PHOTO;VALUE=uri:data:image/png;base64\\,{}",
        "PHOTO;ENCODING=b:{}",
    ],
)
def test_photographs_in_every_spelling(line: str) -> None:
    data = base64.b64encode(PNG).decode()
    assert card("FN:Ada", line.format(data))["photo"] == Content(PNG, "", "image/png")


def test_a_folded_photograph_of_vcard_2_1_ends_with_a_blank_line() -> None:
    data = base64.b64encode(PNG).decode()
    rows = [f" {data[i : i + 60]}" for i in range(0, len(data), 60)]
    state = card("FN:Ada", "PHOTO;ENCODING=BASE64;PNG:", *rows, "", "NOTE:after", version="2.1")
    assert state["photo"] == Content(PNG, "", "image/png")
    assert state["note"] == "after"


def test_a_photograph_elsewhere_is_kept_as_its_address_and_never_fetched() -> None:
    state = card("FN:Ada", "PHOTO;VALUE=uri:http://127.0.0.1:9/ada.png")
    assert state["photo"] is None
    assert state["properties"] == [
        {"name": "PHOTO", "value": "http://127.0.0.1:9/ada.png", "parameters": {"VALUE": ["uri"]}}
    ]


def test_logos_and_keys_are_files() -> None:
    state = card("FN:Ada", "KEY;ENCODING=b;TYPE=PGP:AQID", "LOGO:data:image/png;base64,AQID")
    assert [(f["property"], f["file"].data) for f in state["files"]] == [("KEY", b"\1\2\3"), ("LOGO", b"\1\2\3")]


def test_what_nobody_knows_is_kept() -> None:
    state = card("FN;SORT-AS=Ada:Ada", 'X-SPOUSE;X-A="b,c:d":Wil\\,liam', "GEO:48.2;16.3")
    assert state["parameters"] == {"FN": {"SORT-AS": ["Ada"]}}
    assert state["properties"] == [
        {"name": "X-SPOUSE", "value": "Wil\\,liam", "parameters": {"X-A": ["b,c:d"]}},
        {"name": "GEO", "value": "48.2;16.3"},
    ]


def test_a_line_that_is_no_property_goes_on_with_the_one_before() -> None:
    assert (
        card("FN:Ada", "NOTE:written without", "any folding", "TITLE:Countess")["note"]
        == "written without\nany folding"
    )


@pytest.mark.parametrize("stamp", ["00010101T000000+1400", "99991231T235959-1400", "20240230T000000Z", "never"])
def test_a_time_that_is_none_is_kept_as_it_is_written(stamp: str) -> None:
    state = card("FN:Ada", f"REV:{stamp}")
    assert (state["revised"] is None) == (state["properties"] == [{"name": "REV", "value": stamp}])


def test_a_card_without_a_name_is_called_by_what_it_has() -> None:
    assert card("N:Lovelace;Ada;;;")["name"] == "Ada Lovelace"
    assert card("ORG:Analytical Engines;Mills")["name"] == "Analytical Engines"
    assert card("EMAIL:ada@example.org")["name"] == "ada@example.org"


def test_a_card_in_a_card_is_kept_as_text() -> None:
    state = card(
        "FN:Ada", "AGENT:", "BEGIN:VCARD", "VERSION:2.1", "FN:Charles", "END:VCARD", "TITLE:Countess", version="2.1"
    )
    assert (state["name"], state["title"]) == ("Ada", "Countess")
    assert "FN:Charles" in state["properties"][0]["value"]


def test_groups_of_apple_and_of_vcard_4() -> None:
    apple = card("FN:Friends", "X-ADDRESSBOOKSERVER-KIND:group", "X-ADDRESSBOOKSERVER-MEMBER:urn:uuid:1")
    new = card("FN:Friends", "KIND:group", "MEMBER:urn:uuid:1", version="4.0")
    assert (apple["kind"], apple["members"]) == (new["kind"], new["members"]) == ("group", ["urn:uuid:1"])


def test_the_preferred_address_is_the_first() -> None:
    state = card(
        "FN:Ada", "EMAIL:a@example.org", "EMAIL;PREF=2:b@example.org", "EMAIL;PREF=1:c@example.org", version="4.0"
    )
    assert [entry["value"] for entry in state["emails"]] == ["c@example.org", "b@example.org", "a@example.org"]
    assert state["email"] == "c@example.org"


def test_quotes_that_are_never_closed_are_ordinary_characters() -> None:
    assert card("FN:Ada", 'TEL;TYPE="home:123')["phones"][0]["value"] == "123"


# ------------------------------------------------------------------------------------ what is broken


GOOD = "BEGIN:VCARD\r\nVERSION:3.0\r\nFN:{}\r\nEND:VCARD\r\n"


def test_a_card_without_an_end_is_reported_and_the_next_one_read() -> None:
    data = GOOD.format("Ada") + "BEGIN:VCARD\r\nVERSION:3.0\r\nFN:Lost\r\n" + GOOD.format("Charles")
    assert [found.state["name"] for found in read(data) if isinstance(found, Record)] == ["Ada", "Charles"]
    assert problems(data) == [(5, "is not finished: END:VCARD is missing before the next BEGIN:VCARD")]


def test_a_file_that_ends_in_a_card_says_so() -> None:
    data = GOOD.format("Ada") + "BEGIN:VCARD\r\nFN:Lost"
    assert problems(data) == [(5, "is not finished: the file ends at line 6 without END:VCARD")]


def test_an_empty_card_and_stray_text_are_reported_once_each() -> None:
    data = "hello\nworld\n" + GOOD.format("Ada") + "BEGIN:VCARD\nVERSION:3.0\nEND:VCARD\nEND:VCARD\n"
    assert problems(data) == [
        (1, "text that belongs to no record"),
        (7, "has no name, organization, e-mail address or number"),
        (10, "END:VCARD without BEGIN:VCARD"),
    ]


def test_a_line_too_long_costs_its_card_only() -> None:
    data = (GOOD.format("A" * 5000) + GOOD.format("Ada")).encode()
    found = list(read_vcards(read_lines(io.BytesIO(data), max_line=1000)))
    assert isinstance(found[0], Broken)
    assert isinstance(found[1], Record)
    assert (found[0].line, found[0].reason) == (1, "has a line that is too long")


def test_a_card_too_large_costs_itself_only() -> None:
    data = (GOOD.format("Ada\r\n" + "NOTE:x\r\n" * 500) + GOOD.format("Charles")).encode()
    found = list(read_vcards(read_lines(io.BytesIO(data)), max_bytes=1000))
    assert isinstance(found[0], Broken)
    assert isinstance(found[1], Record)


def test_a_card_of_a_million_properties_is_refused() -> None:
    assert problems("BEGIN:VCARD\n" + "X:1\n" * 30_000 + "END:VCARD\n")[0][1].startswith("has more than")


def test_every_cut_of_a_file_gives_whole_cards_or_reports() -> None:
    data = (GOOD.format("Ada") + GOOD.format("Charles")).encode()
    for end in range(len(data)):
        found = read(data[:end])
        whole = data[:end].count(b"END:VCARD")
        rest = data[:end].rpartition(b"END:VCARD")[2] if whole else data[:end]
        assert [f.state["name"] for f in found if isinstance(f, Record)] == ["Ada", "Charles"][:whole]
        assert sum(isinstance(f, Broken) for f in found) == bool(rest.strip()), end


@given(st.binary(max_size=300))
def test_no_octets_make_the_reader_fail(junk: bytes) -> None:
    read(b"BEGIN:VCARD\nFN:Ada\n" + junk + b"\nEND:VCARD\n" + GOOD.format("Charles").encode())


# ------------------------------------------------------------------------------------ identity


def test_a_card_without_uid_has_the_same_one_whenever_it_is_exported() -> None:
    first, second, other = read(
        "BEGIN:VCARD\r\nVERSION:3.0\r\nFN:Ada\r\nREV:20240101T000000Z\r\nEND:VCARD\r\n"
        "BEGIN:VCARD\nVERSION:3.0\nFN:Ada\nREV:20250101T000000Z\nEND:VCARD\n"
        "BEGIN:VCARD\nVERSION:3.0\nFN:Eda\nEND:VCARD\n"
    )
    assert isinstance(first, Record)
    assert isinstance(second, Record)
    assert isinstance(other, Record)
    assert first.uid == second.uid != other.uid


# ------------------------------------------------------------------------------------ round trip

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=30)
words = texts.filter(lambda text: text.strip() == text and text != "")
kinds = st.lists(st.sampled_from(["home", "work", "cell", "x-ω y"]), unique=True, max_size=2)
parameters = st.dictionaries(st.sampled_from(["X-A", "LANGUAGE"]), st.lists(words, min_size=1, max_size=2), max_size=1)
dates = st.dates(datetime.date(1, 1, 1))
instants = st.datetimes(timezones=st.just(datetime.UTC)).map(lambda moment: moment.replace(microsecond=0))


@st.composite
def entries(draw: st.DrawFn) -> dict[str, Any]:
    entry: dict[str, Any] = {"value": draw(words), "kinds": draw(kinds)}
    optional = {"preferred": st.integers(1, 100), "label": words, "formatted": words, "parameters": parameters}
    for name in draw(st.sets(st.sampled_from(sorted(optional)), max_size=2)):
        entry[name] = draw(optional[name])
    return {name: value for name, value in entry.items() if value != {}}


@st.composite
def addresses(draw: st.DrawFn) -> dict[str, Any]:
    parts = draw(st.dictionaries(st.sampled_from(ADDRESS_PARTS), words, min_size=1))
    return {**parts, "kinds": draw(kinds)}


contents = st.builds(
    Content, st.binary(min_size=1, max_size=40), texts, st.sampled_from(["image/png", "image/jpeg", "application/x-y"])
)


@st.composite
def contacts(draw: st.DrawFn) -> dict[str, Any]:
    """The attributes of a contact, as the reader or the library would make it."""
    state = blank()
    state["uid"], state["name"] = draw(words), draw(words)
    for name in (
        "family",
        "given",
        "additional",
        "prefix",
        "suffix",
        "nickname",
        "organization",
        "title",
        "role",
        "note",
    ):
        state[name] = draw(texts)
    for name in ("emails", "phones", "urls", "ims"):
        state[name] = draw(st.lists(entries(), max_size=2))
    state["addresses"] = draw(st.lists(addresses(), max_size=2))
    for name in ("emails", "phones", "addresses"):
        state[name].sort(key=lambda entry: entry.get("preferred", 101))
    state["email"] = next((entry["value"] for entry in state["emails"]), "")
    state["phone"] = next((entry["value"] for entry in state["phones"]), "")
    state["city"] = next((entry.get("city", "") for entry in state["addresses"]), "")
    state["departments"] = draw(st.lists(words, max_size=2))
    state["birthday"] = draw(st.none() | dates)
    state["birthday_text"] = "" if state["birthday"] else draw(st.sampled_from(["", "--04-12", "circa 1800"]))
    state["anniversary"], state["revised"] = draw(st.none() | dates), draw(st.none() | instants)
    state["categories"] = draw(st.lists(words, unique=True, max_size=2))
    state["members"] = draw(st.lists(texts, max_size=2))
    state["kind"] = draw(st.sampled_from(["", "group", "org"]))
    state["photo"] = draw(st.none() | contents)
    state["files"] = draw(st.lists(st.fixed_dictionaries({"property": st.just("KEY"), "file": contents}), max_size=1))
    state["properties"] = draw(st.lists(st.fixed_dictionaries({"name": st.just("X-Y"), "value": st.just("a\\,b")})))[:2]
    return state


@given(contacts(), st.sampled_from(["4.0", "3.0"]))
def test_what_is_written_is_read_back_attribute_for_attribute(state: dict[str, Any], version: Version) -> None:
    (found,) = read(write_card(state, version))
    assert isinstance(found, Record)
    assert found.state == state


@given(contacts(), st.sampled_from(["4.0", "3.0"]))
def test_lines_are_folded_at_75_octets_and_within_no_character(state: dict[str, Any], version: Version) -> None:
    octets = write_card(state, version)
    for line in octets.removesuffix(b"\r\n").split(b"\r\n"):
        assert len(line) <= 75
        line.decode()


def test_an_attribute_set_alone_replaces_the_first_of_its_list() -> None:
    state = {**blank(), "name": "Ada", "email": "new@example.org", "city": "London"}
    state["emails"] = [{"value": "old@example.org", "kinds": ["home"]}]
    (found,) = read(write_card(state))
    assert isinstance(found, Record)
    assert found.state["emails"] == [{"value": "new@example.org", "kinds": ["home"]}]
    assert found.state["addresses"] == [{"city": "London", "kinds": []}]


@settings(max_examples=30)
@given(contacts())
def test_another_library_reads_the_same_from_vcard_3(state: dict[str, Any]) -> None:
    for name in ("name", "note", "family", "given"):
        state[name] = "".join(char for char in state[name] if char.isprintable()).strip() or "x"
    state |= {"parameters": {}, "urls": [], "ims": [], "members": [], "files": [], "photo": None}
    for name in ("emails", "phones", "addresses", "categories"):
        state[name] = []
    other = vobject.readOne(write_card(state, "3.0").decode(), allowQP=False)
    assert other.fn.value == state["name"]
    assert other.note.value == state["note"]
    assert (other.n.value.family, other.n.value.given) == (state["family"], state["given"])


def test_names_and_values_from_data_cannot_begin_a_line_of_their_own() -> None:
    state = {**blank(), "name": "Ada\r\nEND:VCARD", "uid": "1\nX:2"}
    state["properties"] = [
        {"name": "X-A\r\nEND:VCARD\r\nB", "value": "1\rEND:VCARD", "parameters": {"P\nQ": ["a\r\nb"]}}
    ]
    octets = write_card(state)
    assert octets.count(b"\r\nEND:VCARD") == 1
    assert b"\nX:2" not in octets


@pytest.mark.parametrize("text", ["BDAY:--0517", "BDAY:--05-17", "BDAY;X-APPLE-OMIT-YEAR=1604:1604-05-17"])
def test_a_birthday_without_a_year_has_one_form_here_and_its_own_in_each_version(text: str) -> None:
    state = card("FN:Ada", text)
    assert (state["birthday"], state["birthday_text"]) == (None, "--05-17")
    assert b"BDAY:--0517\r\n" in write_card(state, "4.0")
    assert b"BDAY;X-APPLE-OMIT-YEAR=1604:1604-05-17\r\n" in write_card(state, "3.0")


@pytest.mark.parametrize("version", ["3.0", "4.0"])
def test_labels_of_apple_stay_with_what_they_label(version: Version) -> None:
    lines = [
        "item1.X-ABRELATEDNAMES;type=pref:Charles",
        "item1.X-ABLabel:_$!<Friend>!$_",
        "item2.X-ABDATE:2001-02-03",
        "item2.X-ABLabel:First program",
        "item3.URL:https://example.org/",
        "item3.X-ABLabel:_$!<HomePage>!$_",
        "item4.EMAIL:a@b",
        "item4.X-ABLabel:_$!<Nonesuch>!$_",
    ]
    state = card("FN:Ada", *lines)
    assert [(entry["name"], entry["label"]) for entry in state["properties"]] == [
        ("X-ABRELATEDNAMES", "Friend"),
        ("X-ABDATE", "First program"),
    ]
    assert (state["urls"][0]["label"], state["emails"][0]["label"]) == ("HomePage", "_$!<Nonesuch>!$_")
    written = write_card(state, version)
    for label in (b"_$!<Friend>!$_", b"First program", b"_$!<HomePage>!$_", b"_$!<Nonesuch>!$_"):
        assert b".X-ABLabel:" + label + b"\r\n" in written
    (back,) = read(written)
    assert isinstance(back, Record)
    assert back.state == state


def test_a_date_that_apple_labels_anniversary_is_one() -> None:
    state = card("FN:Ada", "item1.X-ABDATE;type=pref:1835-07-08", "item1.X-ABLabel:_$!<Anniversary>!$_")
    assert (state["anniversary"], state["properties"]) == (datetime.date(1835, 7, 8), [])
