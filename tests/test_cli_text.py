"""What the command shows is safe to show, whatever the data holds."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import re
import unicodedata
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atop.cli.keys import read_key, read_prefix
from atop.cli.text import describe, json_text, local, many, plain, size, to_json

any_text = st.text(st.characters(codec=None))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text | st.binary(max_size=40) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=8,
)


def unsafe_characters(text: str) -> set[str]:
    """Controls, lone surrogates, and marks that make text run the other way."""
    directions = {"RLO", "LRO", "RLE", "LRE", "PDF", "RLI", "LRI", "FSI", "PDI"}
    return {
        character
        for character in text
        if unicodedata.category(character) in {"Cc", "Cs"} or unicodedata.bidirectional(character) in directions
    }


@given(any_text)
def test_no_unsafe_character_is_left_in_plain_text(text: str) -> None:
    assert not unsafe_characters(plain(text))


@given(any_text)
def test_lines_are_kept_only_where_that_is_asked_for(text: str) -> None:
    assert unsafe_characters(plain(text, keep_lines=True)) <= {"\n", "\t"}


@given(values)
def test_no_unsafe_character_is_left_in_a_table_cell(value: Any) -> None:
    assert not unsafe_characters(describe(value))


@given(values)
def test_json_is_one_safe_line_that_every_parser_reads(value: Any) -> None:
    line = json_text({"value": value})
    assert not unsafe_characters(line)
    line.encode("utf-8")
    assert json.loads(line, parse_constant=pytest.fail) == {"value": to_json(value)}


def test_an_escape_sequence_is_shown_not_obeyed() -> None:
    assert plain("\x1b[31mred\x1b]0;title\x07") == r"\x1b[31mred\x1b]0;title\x07"


def test_text_of_people_is_left_as_it_is() -> None:
    for name in ("Zoë Åström", "李小龍", "محمد", "👩\u200d🚀"):
        assert plain(name) == name
        assert json_text(name) == f'"{name}"'


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "shown", "in_json"),
    [
        (None, "", None),
        (True, "yes", True),
        (7, "7", 7),
        (float("inf"), "inf", "inf"),
        (decimal.Decimal("1.50"), "1.50", "1.50"),
        (datetime.date(2026, 1, 31), "2026-01-31", "2026-01-31"),
        (datetime.datetime(2026, 1, 31, 9, 30), "2026-01-31 09:30", "2026-01-31T09:30:00"),
        (datetime.timedelta(minutes=90), "1:30:00", 5400.0),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000001"),
        (b"\x00\xff", "00 ff", "AP8="),
        ([1, "two"], "1, two", [1, "two"]),
        ({"b", "a"}, "a, b", ["a", "b"]),
        ({"home": "a"}, "home: a", {"home": "a"}),
        ({1: "a"}, "1: a", {"1": "a"}),
        (Colour.RED, "RED", "red"),
    ],
)
def test_each_kind_of_value_is_shown(value: Any, shown: str, in_json: Any) -> None:
    assert describe(value) == shown
    assert to_json(value) == in_json


HUGE = 1 << 40_000  # of 12,000 digits: Python refuses to write them


@dataclasses.dataclass(frozen=True)
class Distance:
    miles: int


def test_a_number_of_thousands_of_digits_is_shown_in_hexadecimal() -> None:
    shown = hex(HUGE)
    assert (describe(HUGE), describe(-HUGE), describe([HUGE, 1])) == (shown, f"-{shown}", f"{shown}, 1")
    assert json.loads(json_text({"a": HUGE, "b": [{HUGE: -HUGE}, {HUGE}], "c": Distance(HUGE)})) == {
        "a": shown,
        "b": [{shown: f"-{shown}"}, [shown]],
        "c": {"miles": shown},
    }
    assert describe(Distance(HUGE)) == "a Distance with a very large number"


def test_sizes_and_counts_are_in_words() -> None:
    assert [size(count) for count in (0, 999, 1000, 1500, 99_900, 20_000_000, 5 * 10**15)] == [
        "0 B", "999 B", "1.0 kB", "1.5 kB", "100 kB", "20 MB", "5000 TB",
    ]  # fmt: skip
    assert many(1, "item") == "1 item"
    assert many(2500, "item") == "2,500 items"


DAY = datetime.date(2026, 1, 31)
MORNING = datetime.datetime(2026, 1, 31, 9, 30)


@pytest.mark.parametrize(
    ("text", "samples", "key"),
    [
        ("12", ("text",), "12"),
        ("12", (None,), "12"),
        ("12", (5,), 12),
        ("1.5", (5,), decimal.Decimal("1.5")),
        ("yes", (False,), True),
        ("2026-01-31", (DAY,), DAY),
        ("2026-01-31T09:30", (MORNING,), MORNING),
        ("2026-01-31T09:30", (MORNING.astimezone(),), MORNING.astimezone()),
        ("2026-01-31T09:30+00:00", (MORNING.astimezone(),), MORNING.replace(tzinfo=datetime.UTC)),
        ("", (DAY,), None),
        ("", ("text",), ""),
        ("London", ("text", "text"), ("London",)),
        ("London,Bob,Jr", ("text", "text"), ("London", "Bob,Jr")),
        ('["Washington, D.C.", 5]', ("text", 7), ("Washington, D.C.", 5)),
    ],
)
def test_a_key_is_read_as_what_the_index_holds(text: str, samples: tuple[Any, ...], key: Any) -> None:
    assert read_key(text, samples) == key


@pytest.mark.parametrize(
    ("text", "samples", "expected"),
    [
        ("soon", (DAY,), "2026-01-31"),
        ("many", (5,), "a number"),
        ("maybe", (True,), "yes or no"),
        ('["a", "b", "c"]', ("text", "text"), "3 values"),
        ("[]", ("text", "text"), "0 values"),
        ("[oops", ("text", "text"), "JSON list"),
    ],
)
def test_a_key_of_another_kind_is_refused_with_an_example(text: str, samples: tuple[Any, ...], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        read_key(text, samples)


@pytest.mark.parametrize(
    ("text", "samples", "prefix"),
    [("Ad", ("text",), "Ad"), ("2026,Ad", (5, "text"), (2026, "Ad")), ("Lon", ("text", "text"), "Lon")],
)
def test_a_prefix_is_the_beginning_of_the_last_value(text: str, samples: tuple[Any, ...], prefix: Any) -> None:
    assert read_prefix(text, samples) == prefix


def test_a_prefix_of_dates_is_refused() -> None:
    with pytest.raises(ValueError, match="only text has a beginning"):
        read_prefix("2026-01", (DAY,))


def test_times_of_commits_have_seconds_also_at_the_full_minute() -> None:
    assert re.fullmatch(
        r"\d{4}-11-2[56] \d\d:37:00", local(datetime.datetime(2026, 11, 26, 0, 37, tzinfo=datetime.UTC))
    )
