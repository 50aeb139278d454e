"""Tables and JSON Lines in: the headings and dialects of other programs, and values without loss."""

from __future__ import annotations

import datetime
import decimal
import enum
import io
import uuid
import zoneinfo
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atop import register_value
from atop.pim.cells import ABSENT, Column, read_cell, write_cell
from atop.pim.contact_table import read_table_date
from atop.pim.incoming import Broken, Record
from atop.pim.lines import read_lines
from atop.pim.rows import Row, read_rows
from atop.pim.table import read_clock, read_table
from atop.pim.typed import Decoder, dumps

DECODER = Decoder(lambda item_id: None, lambda info: None)


def rows(data: bytes, **limits: int) -> list[Row | Broken]:
    return list(read_rows(read_lines(io.BytesIO(data)), **limits))


def table(*lines: str) -> list[Record | Broken]:
    data = "\r\n".join([*lines, ""]).encode()
    return list(read_table(read_lines(io.BytesIO(data)), DECODER))


def one(*lines: str) -> dict[str, Any]:
    (found,) = table(*lines)
    assert isinstance(found, Record), found
    return found.state


# ------------------------------------------------------------------------------------ dialects


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(delimiter: str) -> None:
    data = f'a{delimiter}"b,;\t|"{delimiter}c\n1{delimiter}2{delimiter}3\n'.encode()
    assert rows(data)[1] == Row(2, ["1", "2", "3"])


def test_rows_know_the_line_where_they_begin() -> None:
    assert rows(b'a,b\n"x\ny",1\n\n2,3\n') == [Row(1, ["a", "b"]), Row(2, ["x\ny", "1"]), Row(5, ["2", "3"])]


def test_a_quote_that_is_never_closed_costs_its_row_only() -> None:
    found = rows(b'a,b\n"open,1\n2,3\n4,5\n')
    assert found == [
        Row(1, ["a", "b"]),
        Broken(2, "has a quote that is not closed"),
        Row(3, ["2", "3"]),
        Row(4, ["4", "5"]),
    ]


def test_a_row_too_large_costs_itself_only() -> None:
    found = rows(b'a,b\n"' + b"x,\n" * 50 + b'",1\n2,3\n', max_bytes=100)
    assert isinstance(found[1], Broken)
    assert found[-1] == Row(53, ["2", "3"])


def test_a_quote_inside_a_cell_is_a_character() -> None:
    assert rows(b'name,size\ndisk,5" or so\n')[1] == Row(2, ["disk", '5" or so'])


def test_each_row_is_read_in_its_own_encoding() -> None:
    assert [row.cells[0] for row in rows("Zoë,1\n".encode() + "Zoë,2\n".encode("cp1252")) if isinstance(row, Row)] == [
        "Zoë",
        "Zoë",
    ]


def test_a_row_with_more_cells_than_columns_is_reported() -> None:
    (found,) = table("Name,Email", "Ada,a@b,c,d")
    assert found == Broken(2, "has 4 cells, and the table has 2 columns")


# ------------------------------------------------------------------------------------ contacts of others


def test_google_contacts() -> None:
    state = one(
        "Name,Given Name,Family Name,Group Membership,E-mail 1 - Type,E-mail 1 - Value,E-mail 2 - Type,"
        "E-mail 2 - Value,Phone 1 - Type,Phone 1 - Value,Organization 1 - Name,Website 1 - Value,Birthday,"
        "Custom Field 1 - Type,Custom Field 1 - Value",
        "Ada Lovelace,Ada,Lovelace,* myContacts ::: Friends,* Work,ada@work,Home,ada@home ::: ada@old,"
        "Engine room,+44 1,Mills,https://example.org,1815-12-10,Horse,Bess",
    )
    assert (state["name"], state["given"], state["family"], state["organization"]) == (
        "Ada Lovelace",
        "Ada",
        "Lovelace",
        "Mills",
    )
    assert state["emails"] == [
        {"value": "ada@work", "kinds": ["work"], "preferred": 1},
        {"value": "ada@home", "kinds": ["home"]},
        {"value": "ada@old", "kinds": ["home"]},
    ]
    assert state["phones"] == [{"value": "+44 1", "kinds": [], "label": "Engine room"}]
    assert (state["birthday"], state["categories"]) == (datetime.date(1815, 12, 10), ["Friends"])
    assert state["properties"] == [
        {"name": "X-ATOP-COLUMN", "value": "Bess", "parameters": {"LABEL": ["Custom field: Horse"]}}
    ]


def test_outlook_contacts() -> None:
    state = one(
        '"Title","First Name","Last Name","Company","Department","Job Title","Business Street","Business City",'
        '"Home City","Business Phone","Home Fax","E-mail Address","E-mail 2 Address","Birthday","Web Page","Spouse"',
        '"Lady","Ada","Lovelace","Mills","Sums","Countess","1 Mill Lane","Porlock",'
        '"London","1","2","a@b","c@d","0/0/00","","William"',
    )
    assert (state["prefix"], state["title"], state["departments"]) == ("Lady", "Countess", ["Sums"])
    assert state["name"] == "Lady Ada Lovelace"
    assert state["addresses"] == [
        {"street": "1 Mill Lane", "city": "Porlock", "kinds": ["work"]},
        {"city": "London", "kinds": ["home"]},
    ]
    assert state["phones"] == [{"value": "1", "kinds": ["work"]}, {"value": "2", "kinds": ["home", "fax"]}]
    assert [entry["value"] for entry in state["emails"]] == ["a@b", "c@d"]
    assert (state["birthday"], state["birthday_text"]) == (None, "")
    assert state["properties"][0]["parameters"] == {"LABEL": ["Spouse"]}


def test_a_list_of_addresses_made_with_a_spreadsheet() -> None:
    state = one(
        "\ufeffVorname;Nachname;E-Mail;Telefon;PLZ;Ort;Geburtstag", "Jörg;Müller;j@m;030 1;10115;Berlin;31.12.1980"
    )
    assert (state["name"], state["email"], state["phone"], state["city"]) == ("Jörg Müller", "j@m", "030 1", "Berlin")
    assert state["addresses"] == [{"postal_code": "10115", "city": "Berlin", "kinds": []}]
    assert state["birthday"] == datetime.date(1980, 12, 31)


def test_a_second_column_of_the_same_meaning_is_kept() -> None:
    state = one("Name,File As,Notes,Comment,Street,Address,Home City,Home City", "Ada,Lovelace,a,b,c,d,e,f")
    assert (state["note"], state["addresses"][0]["street"]) == ("a", "c")
    kept = {entry["parameters"]["LABEL"][0]: entry["value"] for entry in state["properties"]}
    assert kept == {"File As": "Lovelace", "Comment": "b", "Address": "d", "Home City": "f"}
    state = one("Subject,Start Date,Description,Notes", "Lunch,2024-05-30,a,b")
    assert (state["description"], state["properties"][0]["value"]) == ("a", "b")


def test_a_date_that_can_be_read_two_ways_is_kept_as_text_unless_another_row_tells() -> None:
    unclear = one("Name,Email,Birthday", "Ada,a@b,4/5/1985")
    assert (unclear["birthday"], unclear["birthday_text"]) == (None, "4/5/1985")
    first, _second = table("Name,Email,Birthday", "Ada,a@b,4/5/1985", "Charles,c@d,31/1/1985")
    assert isinstance(first, Record)
    assert first.state["birthday"] == datetime.date(1985, 5, 4)


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("1985-05-04", datetime.date(1985, 5, 4)),
        ("19850504", datetime.date(1985, 5, 4)),
        ("1985/5/4", datetime.date(1985, 5, 4)),
        ("4.5.1985", datetime.date(1985, 5, 4)),
        ("5/5/1985", datetime.date(1985, 5, 5)),
        ("5/13/1985", datetime.date(1985, 5, 13)),
        ("13/5/1985", datetime.date(1985, 5, 13)),
        ("4/5/1985", None),
        ("4/5/85", None),
        ("31/2/1985", None),
        ("soon", None),
    ],
)
def test_dates_of_tables(text: str, date: datetime.date | None) -> None:
    assert read_table_date(text, "") == date


# ------------------------------------------------------------------------------------ other tables


def test_the_calendar_table_of_google_and_outlook() -> None:
    timed, whole = table(
        "Subject,Start Date,Start Time,End Date,End Time,All Day Event,Location,Private",
        "Lunch,05/30/2024,12:00 PM,05/30/2024,1:15 PM,False,Mill Lane,True",
        "Fair,06/01/2024,,06/02/2024,,True,,",
    )
    assert isinstance(timed, Record)
    assert isinstance(whole, Record)
    assert timed.kind == "event"
    assert timed.state["start"] == datetime.datetime(2024, 5, 30, 12, tzinfo=datetime.UTC)
    assert timed.state["end"].time() == datetime.time(13, 15)
    assert (timed.state["time_zone"], timed.state["visibility"]) == ("floating", "PRIVATE")
    assert (whole.state["all_day"], whole.state["end"].date()) == (True, datetime.date(2024, 6, 3))


@pytest.mark.parametrize(
    ("text", "time"),
    [("14:30", (14, 30)), ("2:30 PM", (14, 30)), ("12:00 AM", (0, 0)), ("9.15", (9, 15)), ("25:00", None), ("", None)],
)
def test_times_of_tables(text: str, time: tuple[int, int] | None) -> None:
    assert read_clock(text) == (datetime.time(*time) if time else None)


def test_a_table_of_notes() -> None:
    state = one("Title,Text,Tags,Colour", "Rain,It rained.,weather; diary,grey")
    assert (state["title"], state["text"], state["tags"]) == ("Rain", "It rained.", ["weather", "diary"])
    assert state["properties"][0]["value"] == "grey"


def test_any_other_table_is_plain_items_of_texts() -> None:
    (found,) = table("ISBN,Price (CHF),2nd price,delete,,store", "0123,1.50,,x,y,z")
    assert isinstance(found, Record)
    assert (found.kind, found.type_name) == ("item", "atop.Item")
    assert found.state == {
        "isbn": "0123",
        "price_chf": "1.50",
        "column_2nd_price": "",
        "delete_": "x",
        "column_5": "y",
        "store_": "z",
    }


# ------------------------------------------------------------------------------------ values without loss

plain_texts = st.text(max_size=20)
zones = st.sampled_from(
    [None, datetime.UTC, datetime.timezone(datetime.timedelta(hours=-5)), zoneinfo.ZoneInfo("Europe/Paris")]
)
atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    plain_texts,
    st.binary(max_size=20),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.dates(),
    st.datetimes(timezones=zones),
    st.times(),
    st.timedeltas(),
)
hashable = st.one_of(atoms, st.tuples(atoms, atoms))
values = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.sets(hashable, max_size=3),
        st.frozensets(hashable, max_size=3),
        st.dictionaries(
            st.one_of(st.text(max_size=5), st.sampled_from(["$date", "$ref"]), st.integers()), inner, max_size=3
        ),
    ),
    max_leaves=8,
)


@given(values)
def test_a_typed_value_is_read_back_equal_and_of_the_same_type(value: Any) -> None:
    line = dumps(value).encode("utf-8", "backslashreplace").decode()
    again = DECODER.loads(line)
    assert again == value
    assert type(again) is type(value)


@given(
    values, st.sampled_from(["str", "list", "dict", "int", "bool", "datetime.date", "datetime.datetime", "File", ""])
)
def test_a_cell_is_read_back_equal_and_of_the_same_type(value: Any, kind: str) -> None:
    column = Column("" if kind == "str" else ABSENT, kind)
    cell = write_cell(value, column).encode("utf-8", "backslashreplace").decode()
    again = read_cell(cell, column, DECODER)
    assert again == value
    assert type(again) is type(value)


@given(st.one_of(values, st.sampled_from(["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "\r=1"])))
def test_no_cell_is_a_formula(value: Any) -> None:
    cell = write_cell(value, Column("", "str"))
    assert not cell or cell[0] not in "=+-@\t\r" or cell.strip("+- ()/.,0123456789") == ""


def test_telephone_numbers_stay_as_they_are() -> None:
    assert write_cell("+49 (30) 123-45", Column("", "str")) == "+49 (30) 123-45"


@pytest.mark.parametrize(
    "line",
    [
        '{"$date": 5}',
        '{"$date": "2024-02-30"}',
        '{"$datetime": "2024-01-01", "zone": "../../etc/passwd"}',
        '{"$bytes": "not base64!"}',
        '{"$decimal": "1e"}',
        '{"$set": [[1]]}',
        '{"$set": 5}',
        '{"$tuple": null}',
        '{"$file": {"digest": "00"}}',
        '{"$value": ["os.system"]}',
        '{"$dict": [[1]]}',
        '{"$timedelta": [1e99, 0, 0]}',
        '{"$int": 5}',
        '{"$uuid": ""}',
        '{"$whatever": 1}',
        "NaN",
        "[" * 5_000,
        "[" * 200 + "]" * 200,
        "1" * 5_000,
        "{",
    ],
)
def test_what_is_no_typed_value_is_a_value_error(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the message is of no matter here
        DECODER.loads(line)


def test_a_typed_value_names_no_class_that_is_not_registered() -> None:
    value = DECODER.loads('{"$value": ["os.system", "true"]}')
    assert repr(value) == "<os.system 'true', of a class that is not imported here>"


@register_value
class Kind(enum.StrEnum):
    FRIEND = "friend"


@register_value
class Size(enum.IntEnum):
    SMALL = 1


@pytest.mark.parametrize(
    "value",
    [
        Kind.FRIEND,
        Size.SMALL,
        {Kind.FRIEND: [Size.SMALL]},
        datetime.time(1, tzinfo=datetime.timezone(datetime.timedelta(hours=1), "CET")),
        datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=1), "CET")),
    ],
)
def test_a_typed_value_is_what_it_was_and_no_plain_one(value: Any) -> None:
    again = DECODER.loads(dumps(value))
    assert (repr(again), type(again)) == (repr(value), type(value))


def test_exact_values_of_the_typed_form() -> None:
    moment = datetime.datetime(2024, 5, 1, 9, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
    assert dumps([datetime.date(1815, 12, 10), moment, decimal.Decimal("1.10"), b"\1\2", uuid.UUID(int=1), 2**53]) == (
        '[{"$date":"1815-12-10"},{"$datetime":"2024-05-01T09:00:00+02:00"},{"$decimal":"1.10"},{"$bytes":"AQI="},'
        '{"$uuid":"00000000-0000-0000-0000-000000000001"},{"$int":"0x20000000000000"}]'
    )


def test_outlook_in_german() -> None:
    cells = {
        "Anrede": "Dr.",
        "Vorname": "Ada",
        "Weitere Vornamen": "Augusta",
        "Nachname": "Lovelace",
        "Firma": "Engines",
        "Abteilung": "Mill",
        "Position": "Countess",
        "Straße geschäftlich": "Dorset St 1",
        "Straße geschäftlich 2": "Hof",
        "Ort geschäftlich": "London",
        "Postleitzahl geschäftlich": "W1",
        "Land/Region geschäftlich": "UK",
        "Straße privat": "Am Weg 2",
        "Ort privat": "Ockham",
        "Weiterer Ort": "Paris",
        "Fax geschäftlich": "4",
        "Telefon geschäftlich": "1",
        "Telefon geschäftlich 2": "2",
        "Telefon privat": "3",
        "Mobiltelefon": "5",
        "Weiteres Telefon": "6",
        "E-Mail-Adresse": "ada@example.org",
        "E-Mail 2: Adresse": "a@b",
        "Geburtstag": "10.12.1815",
        "Jahrestag": "8.7.1835",
        "Webseite": "https://example.org/",
        "Kategorien": "Freunde;Mathematik",
        "Notizen": "x",
        "Regierungs-Nr.": "17",
    }
    state = one(";".join(cells), ";".join(f'"{cell}"' for cell in cells.values()))
    assert state["name"] == "Dr. Ada Augusta Lovelace"
    assert (state["organization"], state["departments"], state["title"]) == ("Engines", ["Mill"], "Countess")
    assert state["addresses"] == [
        {"street": "Dorset St 1", "extended": "Hof", "city": "London", "postal_code": "W1", "country": "UK"}
        | {"kinds": ["work"]},
        {"street": "Am Weg 2", "city": "Ockham", "kinds": ["home"]},
        {"city": "Paris", "kinds": ["other"]},
    ]
    assert [(entry["value"], entry["kinds"]) for entry in state["phones"]] == [
        ("4", ["work", "fax"]),
        ("1", ["work"]),
        ("2", ["work"]),
        ("3", ["home"]),
        ("5", ["cell"]),
        ("6", ["other"]),
    ]
    assert [entry["value"] for entry in state["emails"]] == ["ada@example.org", "a@b"]
    assert (state["birthday"], state["anniversary"]) == (datetime.date(1815, 12, 10), datetime.date(1835, 7, 8))
    assert (state["categories"], state["note"]) == (["Freunde", "Mathematik"], "x")
    assert [entry["parameters"]["LABEL"] for entry in state["properties"]] == [["Regierungs-Nr."]]


def test_a_line_that_is_too_large_by_itself_is_left_out_once() -> None:
    """It was read again without end."""
    assert rows(b'a,b\n"' + b"x" * 200 + b"\n1,2\n", max_bytes=100) == [
        Row(1, ["a", "b"]),
        Broken(2, "is a row of more than 0 MiB: perhaps a quote is not closed"),
        Row(3, ["1", "2"]),
    ]
