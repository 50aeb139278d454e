"""The order of index keys: bytes that sort as the values do, proven against Python's own comparisons."""

from __future__ import annotations

import datetime
import decimal
import enum
import functools
import math
import sys
import uuid
import zoneinfo
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from atop import keys
from atop.errors import UnstorableValue
from atop.keys import ItemKey, decode, decode_tuple, encode, encode_prefix, encode_tuple, successor

UTC = datetime.UTC

# --- What sorts before what, said a second time and as plainly as possible --------------------------


def rank(value: object) -> int:
    if isinstance(value, bool):
        return 1
    if isinstance(value, datetime.datetime):
        return 6 if value.tzinfo is None else 7
    classes = [
        (type(None), 0),
        ((int, float, Decimal), 2),
        (bytes, 3),
        (str, 4),
        (datetime.date, 5),
        (datetime.time, 8),
        (datetime.timedelta, 9),
        (uuid.UUID, 10),
        ((tuple, list), 11),
        (ItemKey, 12),
    ]
    return next(number for classes_, number in classes if isinstance(value, classes_))


def compare(a, b) -> int:
    """Return -1, 0 or 1 as Python's own comparison has it, or the rank of the types if it has none."""
    if rank(a) != rank(b):
        return -1 if rank(a) < rank(b) else 1
    if isinstance(a, tuple | list):
        for left, right in zip(a, b, strict=False):
            if order := compare(left, right):
                return order
        return compare(len(a), len(b))
    if a is None:
        return 0
    return (a > b) - (a < b)


def compare_bytes(a: bytes, b: bytes) -> int:
    return (a > b) - (a < b)


# --- Values -----------------------------------------------------------------------------------------

any_character = st.characters(codec=None, exclude_categories=())
texts = st.text(any_character, max_size=12)
awkward_texts = st.text(st.sampled_from("\0\1\2aA\xff\ud800\udfff\uffff\U00010000ßſİ"), max_size=6)
awkward_bytes = st.lists(st.sampled_from([0, 1, 2, 97, 255]), max_size=6).map(bytes)
byte_strings = st.binary(max_size=12) | awkward_bytes
strings = texts | awkward_texts

small_integers = st.integers(-2000, 2000)
integers = small_integers | st.integers() | st.integers(-(10**400), 10**400)
floats = st.floats(allow_nan=False)
decimals = (
    st.decimals(allow_nan=False)
    | st.decimals(min_value=-50, max_value=50, places=3)
    | st.builds(
        lambda sign, digits, exponent: Decimal((sign, digits, exponent)),
        st.integers(0, 1),
        st.lists(st.integers(0, 9), min_size=1, max_size=6).map(tuple),
        st.integers(-110, 110) | st.integers(-(10**6), 10**6),
    )
)
numbers = integers | floats | decimals
# Many values that are the same number, or next to each other, in different types.
near_numbers = small_integers | small_integers.map(float) | small_integers.map(lambda n: Decimal(n) / 8) | floats

offsets = st.integers(-86_399_999_999, 86_399_999_999).map(
    lambda microseconds: datetime.timezone(datetime.timedelta(microseconds=microseconds))
)
naive_datetimes = st.datetimes()
aware_datetimes = st.builds(lambda when, zone: when.replace(tzinfo=zone), naive_datetimes, offsets)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    numbers,
    near_numbers,
    byte_strings,
    strings,
    st.dates(),
    naive_datetimes,
    aware_datetimes,
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.integers(0, 2**64 - 1).map(ItemKey),
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=6)
similar = st.sampled_from([None, False, 0, 1, 0.5, b"", b"\0", "", "\0", "\1", "a", "a\0", "a\1", "ab", (), ("",)])


def assert_same_order(a: object, b: object) -> None:
    assert compare_bytes(encode(a), encode(b)) == compare(a, b)


# --- Order ------------------------------------------------------------------------------------------


@given(values, values)
def test_keys_sort_as_values_do(a, b):
    assert_same_order(a, b)


@given(numbers, numbers)
@example(10**25, 1e25)
@example(0.1, Decimal("0.1"))
@example(2**53 + 1, float(2**53))
@example(-99, -100)
@example(5e-324, 0)
@example(sys.float_info.max, 10**309)
@example(Decimal("1E+101"), 10**100)
@example(Decimal("-1E-101"), Decimal("-1E-100"))
@example(math.inf, Decimal("1E+999999"))
def test_numbers_of_all_types_sort_by_exact_value(a, b):
    assert_same_order(a, b)


@given(near_numbers, near_numbers)
def test_equal_numbers_of_different_types_have_identical_keys(a, b):
    assert (encode(a) == encode(b)) == (a == b)


@given(strings, strings)
@example("\0", "\1")
@example("\1", "\1\0")
@example("\1", "\2")
@example("\ud800", "\U00010000")
def test_strings_sort_by_code_point(a, b):
    assert_same_order(a, b)


@given(byte_strings, byte_strings)
def test_bytes_sort_as_bytes(a, b):
    assert_same_order(a, b)


@given(naive_datetimes | aware_datetimes, naive_datetimes | aware_datetimes)
def test_datetimes_sort_by_instant_and_naive_ones_first(a, b):
    assert_same_order(a, b)


@given(st.lists(similar, max_size=4).map(tuple), st.lists(similar, max_size=4).map(tuple))
def test_tuples_sort_element_by_element(a, b):
    assert_same_order(a, b)
    assert compare_bytes(encode_tuple(a), encode_tuple(b)) == compare(a, b)


def test_types_sort_in_the_order_of_the_documentation():
    ascending = [
        None,
        False,
        True,
        math.nan,
        -math.inf,
        -(10**9999),
        -1,
        -0.5,
        0,
        Decimal("1E-1000000"),
        5e-324,
        0.1,
        1,
        10**9999,
        math.inf,
        b"",
        b"\xff\xff",
        "",
        "\U0010ffff",
        datetime.date.min,
        datetime.date.max,
        datetime.datetime.min,
        datetime.datetime.max,
        datetime.datetime.min.replace(tzinfo=UTC),
        datetime.datetime.max.replace(tzinfo=UTC),
        datetime.time.min,
        datetime.time.max,
        datetime.timedelta.min,
        datetime.timedelta(microseconds=-1),
        datetime.timedelta(0),
        datetime.timedelta.max,
        uuid.UUID(int=0),
        uuid.UUID(int=2**128 - 1),
        (),
        (None,),
        (ItemKey(5),),
        ItemKey(1),
        ItemKey(2**64 - 1),
    ]
    assert all(a < b for a, b in pairwise(map(encode, ascending)))


@pytest.mark.parametrize("nan", [math.nan, -math.nan, Decimal("NaN"), Decimal("sNaN12"), Decimal("-NaN")])
def test_every_nan_is_one_key_and_the_first_of_the_numbers(nan):
    assert encode(nan) == encode(math.nan)
    assert encode(True) < encode(nan) < encode(-math.inf)
    assert math.isnan(decode(encode(nan)))


@pytest.mark.parametrize("zero", [0.0, -0.0, Decimal("0"), Decimal("-0.000"), Decimal("0E+9")])
def test_all_zeros_are_one_key(zero):
    assert encode(zero) == encode(0)


def test_truth_values_are_not_the_numbers_one_and_zero():
    assert encode(True) != encode(1)
    assert decode(encode(True)) is True
    assert decode(encode(False)) is False


# --- Joining ----------------------------------------------------------------------------------------


@given(values, values)
@example("a", "a\0")
@example((), ((),))
@example(-1, -10)
def test_no_key_begins_with_the_key_of_another_value(a, b):
    assert encode(b).startswith(encode(a)) == (compare(a, b) == 0)


@given(values | similar, st.binary(max_size=4), values | similar, st.binary(max_size=4))
def test_what_follows_a_key_decides_only_between_equal_keys(a, after_a, b, after_b):
    expected = compare(a, b) or compare_bytes(after_a, after_b)
    assert compare_bytes(encode(a) + after_a, encode(b) + after_b) == expected


@given(st.lists(values, max_size=3), st.lists(values, max_size=3))
def test_the_key_of_the_first_elements_is_a_prefix_of_the_key_of_all(first, rest):
    assert encode_tuple(first + rest) == encode_tuple(first) + encode_tuple(rest)


@given(values)
def test_the_first_byte_is_a_tag_clear_of_the_bytes_with_a_meaning(value):
    assert 0x02 <= encode(value)[0] <= 0xFE


# --- Prefixes ---------------------------------------------------------------------------------------


@given(strings, strings)
@example("", "")
@example("a\0", "a")
@example("a", "a\0")
def test_a_string_has_the_prefix_exactly_if_its_key_has(prefix, text):
    assert encode(text).startswith(encode_prefix(prefix)) == text.startswith(prefix)
    assert encode(prefix + text).startswith(encode_prefix(prefix))


@given(byte_strings, byte_strings)
def test_bytes_have_the_prefix_exactly_if_their_key_has(prefix, contents):
    assert encode(contents).startswith(encode_prefix(prefix)) == contents.startswith(prefix)
    assert encode(prefix + contents).startswith(encode_prefix(prefix))


@given(strings, strings)
@example("STRAS", "straße")
def test_a_prefix_without_case_finds_every_spelling(prefix, text):
    found = encode(text, nocase=True).startswith(encode_prefix(prefix, nocase=True))
    assert found == text.casefold().startswith(prefix.casefold())


def test_a_prefix_of_a_number_is_refused():
    with pytest.raises(UnstorableValue, match="not int"):
        encode_prefix(19)


@given(st.binary(max_size=4), st.binary(max_size=6))
@example(b"a\xff", b"b")
@example(b"\xff", b"\xff\xff")
def test_successor_is_the_end_of_the_range_of_a_prefix(prefix, data):
    end = successor(prefix)
    assert data.startswith(prefix) == (prefix <= data and (end is None or data < end))


def test_nothing_follows_the_highest_bytes():
    assert successor(b"") is None
    assert successor(b"\xff\xff") is None
    assert successor(b"a\xff") == b"b"


# --- Case -------------------------------------------------------------------------------------------


@given(strings, strings)
def test_without_case_strings_sort_casefolded(a, b):
    folded = compare(a.casefold(), b.casefold())
    assert compare_bytes(encode(a, nocase=True), encode(b, nocase=True)) == folded


def test_case_is_ignored_within_tuples_lists_and_enumerations():
    class City(enum.Enum):
        PARIS = "Paris"

    assert encode(("Ada", ["LONDON", b"X"]), nocase=True) == encode(("ada", ["london", b"X"]))
    assert encode_tuple(["Ada", 1], nocase=True) == encode_tuple(["ada", 1])
    assert encode(City.PARIS, nocase=True) == encode("paris")


# --- There and back ---------------------------------------------------------------------------------


@given(values)
@example("a\1")
@example("\ud83d\ude00\0\1")
@example(datetime.datetime.max.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=-5))))
@example(datetime.datetime.min.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=14))))
@example(datetime.timedelta.min)
@example(datetime.timedelta.max)
@example(Decimal((1, (1,), decimal.MIN_ETINY)))
@example(Decimal((0, (9,), decimal.MAX_EMAX)))
@example(5e-324)
@example(sys.float_info.max)
def test_decoding_returns_an_equal_value(value):
    assert decode(encode(value)) == value


@given(st.lists(values, max_size=4).map(tuple))
def test_decoding_a_joined_key_returns_its_elements(elements):
    assert decode_tuple(encode_tuple(elements)) == elements


@given(floats, st.integers(-(10**30), 10**30))
def test_numbers_decode_to_the_simplest_type_that_is_exact(number, integer):
    decoded = decode(encode(number))
    assert type(decoded) is (int if number.is_integer() else float)
    assert type(decode(encode(Decimal(integer)))) is int


def test_decimals_that_no_float_equals_decode_to_decimal():
    assert isinstance(decode(encode(Decimal("0.1"))), Decimal)
    assert isinstance(decode(encode(Decimal("1E+20000"))), Decimal)
    assert isinstance(decode(encode(Decimal("0.125"))), float)


def test_aware_datetimes_decode_to_utc():
    noon = datetime.datetime(2026, 7, 1, 12, tzinfo=zoneinfo.ZoneInfo("Europe/Paris"))
    decoded = decode(encode(noon))
    assert decoded == noon
    assert decoded.tzinfo is UTC


def test_the_repeated_hour_is_two_instants_when_aware_and_one_clock_time_when_naive():
    first = datetime.datetime(2026, 10, 25, 2, 30, tzinfo=zoneinfo.ZoneInfo("Europe/Paris"))
    second = first.replace(fold=1)
    assert encode(first) < encode(second)
    assert encode(first.replace(tzinfo=None)) == encode(second.replace(tzinfo=None))


def test_a_datetime_whose_zone_knows_no_offset_is_naive():
    class Unknown(datetime.tzinfo):
        def utcoffset(self, when: datetime.datetime | None) -> None:
            return None

    assert encode(datetime.datetime(2026, 1, 2, tzinfo=Unknown())) == encode(datetime.datetime(2026, 1, 2))


def test_a_list_is_encoded_as_a_tuple():
    assert encode([1, ["a"]]) == encode((1, ("a",)))


def test_an_item_is_encoded_by_its_id():
    class Contact:
        item_id = 7

    assert encode(Contact()) == encode(ItemKey(7))
    assert decode(encode((Contact(), "x"))) == (ItemKey(7), "x")


class Colour(enum.Enum):
    RED = 3


class Level(enum.IntEnum):
    HIGH = 9


class Mood(enum.StrEnum):
    GOOD = "good"


@pytest.mark.parametrize("member", [Colour.RED, Level.HIGH, Mood.GOOD])
def test_an_enumeration_member_is_encoded_as_its_value(member):
    assert encode(member) == encode(member.value)
    assert encode((member,)) == encode((member.value,))


def test_subclasses_are_encoded_as_the_plain_value_inside():
    class Loud(str):
        def __str__(self) -> str:
            return "LOUD"

    class Odd(int):
        def __str__(self) -> str:
            return "odd"

    class Stamp(datetime.datetime):
        pass

    assert encode(Loud("a")) == encode("a")
    assert encode(Odd(12)) == encode(12)
    assert encode(Stamp(2026, 1, 2)) == encode(datetime.datetime(2026, 1, 2))


# --- Caps and refusals ------------------------------------------------------------------------------


@pytest.fixture(params=[640, 4300, 0])
def int_digits_limit(request):
    """CPython's limit on conversions between int and str: lowest, default and none."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(request.param)
    yield
    sys.set_int_max_str_digits(before)


@pytest.mark.usefixtures("int_digits_limit")
def test_long_integers_do_not_depend_on_the_limit_of_cpython():
    for value in (10**599, 10**600 + 1, 7**2000, -(3**20000), 10**keys.MAX_DIGITS - 1):
        assert decode(encode(value)) == value


@pytest.mark.usefixtures("int_digits_limit")
def test_the_longest_floats_do_not_depend_on_the_limit_of_cpython():
    longest = math.nextafter(sys.float_info.min, 0)
    assert decode(encode(longest)) == longest


@pytest.mark.parametrize(
    "value", [10**keys.MAX_DIGITS, -(10**keys.MAX_DIGITS), 1 << 1_000_000], ids=["above", "below", "far"]
)
def test_integers_past_the_cap_are_refused(value):
    with pytest.raises(UnstorableValue, match=str(keys.MAX_DIGITS)):
        encode(value)


def test_decimals_past_the_cap_are_refused_but_trailing_zeros_do_not_count():
    with pytest.raises(UnstorableValue, match=str(keys.MAX_DIGITS)):
        encode(Decimal("0." + "1" * (keys.MAX_DIGITS + 1)))
    assert encode(Decimal("0.5" + "0" * keys.MAX_DIGITS)) == encode(0.5)


@given(decimals)
def test_keys_do_not_depend_on_the_decimal_context(value):
    expected = encode(value)
    with decimal.localcontext(decimal.Context(prec=1, traps=list(decimal.Context().flags))):
        assert encode(value) == expected
        decoded = decode(expected)
    assert decoded == value


@pytest.mark.parametrize("value", [{"a": 1}, {1}, object(), 1j, bytearray(b"a"), range(3), int, ItemKey, len])
def test_values_without_a_place_in_the_order_are_refused_by_type(value):
    for attempt in (value, (1, [value])):
        with pytest.raises(UnstorableValue, match=f"type {type(value).__qualname__} cannot"):
            encode(attempt)


def test_a_time_of_day_with_an_offset_is_refused_and_one_without_is_naive():
    with pytest.raises(UnstorableValue, match="offset"):
        encode(datetime.time(12, tzinfo=UTC))
    paris = zoneinfo.ZoneInfo("Europe/Paris")
    assert encode(datetime.time(12, tzinfo=paris)) == encode(datetime.time(12))


@pytest.mark.parametrize("item_id", [-1, 2**64])
def test_an_impossible_item_id_is_refused(item_id):
    with pytest.raises(UnstorableValue, match=str(item_id)):
        encode(ItemKey(item_id))


def nested(depth: int) -> object:
    return functools.reduce(lambda inner, _: (inner,), range(depth), None)


def test_nesting_is_capped_both_ways():
    deepest = encode(nested(keys.MAX_DEPTH))
    assert decode(deepest) == nested(keys.MAX_DEPTH)
    with pytest.raises(UnstorableValue, match="deeper"):
        encode(nested(keys.MAX_DEPTH + 1))
    with pytest.raises(ValueError, match="deeper"):
        decode(encode(())[:1] + deepest + b"\0")


def test_a_list_that_contains_itself_is_refused():
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(UnstorableValue, match="itself"):
        encode(endless)


# --- Bytes that are no keys -------------------------------------------------------------------------


def assert_rejected_or_canonical(data: bytes) -> None:
    try:
        elements = decode_tuple(data)
    except ValueError:
        return
    assert encode_tuple(elements) == data


@given(st.binary(max_size=40))
def test_arbitrary_bytes_are_rejected_or_are_what_encode_writes(data):
    assert_rejected_or_canonical(data)


@given(st.integers(0, 255), st.binary(min_size=3, max_size=18))
def test_arbitrary_bytes_after_a_tag_are_rejected_or_are_what_encode_writes(tag, data):
    assert_rejected_or_canonical(bytes([tag]) + data)
    assert_rejected_or_canonical(bytes([tag]) + data + b"\0")


@given(st.booleans(), st.integers(0, 255), st.binary(min_size=8, max_size=8), st.binary(max_size=3))
@example(False, 0xF0, b"\xff" * 8, b"\x11")
@example(False, 0x10, b"\0" * 8, b"\x11")
@example(False, 0xF0, (2**63 + 100).to_bytes(8, "big"), b"\x11")
def test_arbitrary_numbers_are_rejected_or_are_what_encode_writes(negative, lead, far, pairs):
    for exponent in (b"", far):
        body = bytes([lead]) + exponent + pairs + b"\0"
        inverted = bytes(byte ^ 0xFF for byte in body)
        assert_rejected_or_canonical(encode(-1)[:1] + inverted if negative else encode(1)[:1] + body)


NEVER_WRITTEN = {
    "nothing at all": "",
    "an unknown tag": "ff",
    "01 at the end of a string": "28 01 00",
    "01 before anything but 01 and 02": "20 0103 00",
    "UTF-8 that is too long": "28 c1a1 00",
    "a number without digits": "1c 80 00",
    "a digit above 9": "1c 80 1b 00",
    "a number that begins with zero": "1c 80 02 00",
    "a number that ends with a pair of zeros": "1c 80 11 01 00",
    "a small exponent in the form of a large one": "1c f0 8000000000000064 11 00",
    "a small exponent in the form of a very negative one": "1c 10 8000000000000005 11 00",
    "a negative exponent marked as large": "1c f0 7000000000000000 11 00",
    "an exponent past what Decimal has": "1c f0 ffffffffffffffff 11 00",
    "an exponent below what Decimal has": "1c 10 0000000000000000 11 00",
    "more digits than the cap": "1c 80 " + "12" * (keys.MAX_DIGITS // 2 + 1) + " 00",
    "day 0": "30 000000",
    "a day after the year 9999": "30 ffffff",
    "a datetime after the year 9999": "38 ffffffffffffffff",
    "a datetime before the year 1": "38 0000000000000000",
    "an aware datetime that no zone has": "39 ffffffffffffffff",
    "a time past midnight": "40 141dd76000",
    "a timedelta of too many days": "48 ffffffff 0000000000",
    "a timedelta with another day in its microseconds": "48 3b9ac9ff 141dd76000",
    "a tuple without an end": "58 08",
}


@pytest.mark.parametrize("key", NEVER_WRITTEN.values(), ids=NEVER_WRITTEN.keys())
def test_keys_that_encode_never_writes_are_rejected(key):
    with pytest.raises(ValueError, match=r"not a key|codec|ordinal|year"):
        decode(bytes.fromhex(key))


@given(values, st.data())
def test_a_key_with_one_byte_changed_is_rejected_or_is_what_encode_writes(value, data):
    key = bytearray(encode(value))
    key[data.draw(st.integers(0, len(key) - 1))] = data.draw(st.integers(0, 255))
    assert_rejected_or_canonical(bytes(key))


@given(values)
def test_every_cut_of_a_key_is_rejected(value):
    key = encode(value)
    for size in range(len(key)):
        with pytest.raises(ValueError, match="not a key"):
            decode(key[:size])


@given(values, st.binary(min_size=1, max_size=3))
def test_bytes_after_the_value_are_rejected(value, rest):
    with pytest.raises(ValueError, match="not a key"):
        decode(encode(value) + rest)


# --- The format on disk -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (None, "08"),
        (True, "11"),
        (0, "1b"),
        (5, "1c 80 51 00"),
        (1234, "1c 83 13 35 00"),
        (-5, "1a 7f ae ff"),
        (0.5, "1c 7f 51 00"),
        (Decimal("1E+101"), "1c f0 8000000000000065 11 00"),
        (b"a\0\1", "20 61 0101 0102 00"),
        ("Bob", "28 426f62 00"),
        (datetime.date(1, 1, 1), "30 000001"),
        (datetime.datetime(1, 1, 1), "38 000000141dd76000"),
        (datetime.datetime(1, 1, 1, tzinfo=UTC), "39 000000141dd76000"),
        (datetime.time(0, 0, 1), "40 00000f4240"),
        (datetime.timedelta(0), "48 3b9ac9ff 0000000000"),
        (uuid.UUID(int=1), "50 00000000000000000000000000000001"),
        (("a", None), "58 286100 08 00"),
        (ItemKey(1), "60 0000000000000001"),
    ],
)
def test_the_format_on_disk_stays_as_documented(value, key):
    assert encode(value) == bytes.fromhex(key)
