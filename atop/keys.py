"""Values to bytes that sort as the values do, and back.

Promises, for all values a and b that can be encoded:

- `encode(a) < encode(b)` exactly if a sorts before b, and equal values have identical bytes.
- No encoding is a proper prefix of another one. So encodings can be joined, to each other and to
  whatever follows: the result sorts element by element, and is taken apart again without lengths.
  All keys that begin with the element a are the byte range `encode(a)` to `successor(encode(a))`.
- `decode(encode(a)) == a`, and `decode` accepts only what `encode` writes, byte for byte. (Two values equal
  nothing in Python itself: NaN, and an aware datetime in the hour that a clock repeats, compared with another
  zone, PEP 495. The latter comes back as the same instant.)
- Bytes that `encode` did not write raise `ValueError`, whatever they are.

Never: executes anything found in the data, or depends on locale, decimal context, CPython's limit for
conversions between int and str, or the process that runs it.

Order: None < False < True < numbers < bytes < str < date < datetime < time < timedelta < UUID < tuple < item.

- Numbers: int, float and Decimal compare by exact value, and 1, 1.0 and Decimal(1) are the same key.
  NaN of any kind is first, then minus infinity; 0 and -0.0 are the same. They decode to int if integral,
  else to float if that is exact, else to Decimal.
- Strings by code point, with `nocase` by `str.casefold()`, also within tuples; lone surrogates are allowed.
- Naive datetimes, by the clock, come before aware ones, which compare by instant (`fold` only matters where
  it says which instant is meant) and decode to UTC. A time of day is naive: one with an offset from UTC has
  no single order across days and is refused.
- A list is encoded as a tuple, an enumeration member as its value, an item as its id (decodes to `ItemKey`).

The first byte is a tag, 0x02 to 0xFE, then:

    bytes, str (UTF-8)       contents with 00 as 01 01 and 01 as 01 02, then 00
    number except 0, inf     exponent, pairs of decimal digits, 00; every byte inverted if negative
      exponent               of the first digit, -100 to 100: 0x80 + exponent;
                             else 0x10 or 0xF0, then exponent + 2**63, u64
      pair of digits         two BCD digits, plus 1 (0x01 to 0x9A); the last pair is never 00
    date                     day number (1 January of year 1 is 1), u24
    datetime                 microseconds since the day before 1 January of year 1, u64
    time                     microseconds since midnight, u40
    timedelta                days + 999,999,999, u32; microseconds within the day, u40
    UUID                     its 16 bytes
    tuple                    its elements, then 00
    item                     its id, u64

All integers are big-endian. The order of the tags, and this format, are on people's disks.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import math
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from atop.errors import UnstorableValue

MAX_DIGITS = 10_000
"""Significant decimal digits of a number (all digits, for an int): 5 kB of key. A float has at most 767."""

MAX_DEPTH = 32
"""Tuples within tuples: bounds recursion on data from outside, and a list that contains itself."""


@dataclass(frozen=True, slots=True, order=True)
class ItemKey:
    """What the key of an item decodes to; encodes, compares and hashes by id."""

    item_id: int


# Tags. Gaps are left for types that may be added later.
_TAG_NONE = 0x08
_TAG_FALSE = 0x10
_TAG_TRUE = 0x11
_TAG_NAN = 0x18
_TAG_MINUS_INFINITY = 0x19
_TAG_NEGATIVE = 0x1A
_TAG_ZERO = 0x1B
_TAG_POSITIVE = 0x1C
_TAG_INFINITY = 0x1D
_TAG_BYTES = 0x20
_TAG_STR = 0x28
_TAG_DATE = 0x30
_TAG_NAIVE_DATETIME = 0x38
_TAG_AWARE_DATETIME = 0x39
_TAG_TIME = 0x40
_TAG_TIMEDELTA = 0x48
_TAG_UUID = 0x50
_TAG_TUPLE = 0x58
_TAG_ITEM = 0x60

_END = b"\0"
_NONE = bytes([_TAG_NONE])
_FALSE = bytes([_TAG_FALSE])
_TRUE = bytes([_TAG_TRUE])
_BYTES_START = bytes([_TAG_BYTES])
_STR_START = bytes([_TAG_STR])
_STR_START_TEXT = chr(_TAG_STR)  # the tag is ASCII so that it and the text are encoded in one step
_TUPLE_START = bytes([_TAG_TUPLE])

# --- Strings ---------------------------------------------------------------------------------------


def _escape(contents: bytes) -> bytes:
    return contents.replace(b"\1", b"\1\2").replace(b"\0", b"\1\1")


def _unescape(escaped: bytes) -> bytes:
    # Left to right, a run of 01 bytes is whole 01 01 pairs, then perhaps the start of 01 02: so this order.
    contents = escaped.replace(b"\1\1", b"\0").replace(b"\1\2", b"\1")
    if _escape(contents) != escaped:
        raise ValueError("not a key: a string has a byte 01 that escapes nothing")
    return contents


def encode_text(value: str) -> bytes:
    """Return the key of a string: `encode`, for those who know that it is one."""
    if "\0" in value or "\1" in value:
        return _STR_START + _escape(value.encode("utf-8", "surrogatepass")) + _END
    try:
        return f"{_STR_START_TEXT}{value}\0".encode()
    except UnicodeEncodeError:  # a lone surrogate
        return _STR_START + value.encode("utf-8", "surrogatepass") + _END


def _encode_bytes(value: bytes) -> bytes:
    return _BYTES_START + _escape(value) + _END


# --- Numbers ---------------------------------------------------------------------------------------

_NEAR_EXPONENT = 100  # exponents from minus this to this take one byte
_EXPONENT_ZERO = 0x80
_EXPONENT_FAR_BELOW = 0x10
_EXPONENT_FAR_ABOVE = 0xF0
_FAR_EXPONENT_BIAS = 1 << 63

_PLUS_ONE = bytes((byte + 1) & 0xFF for byte in range(256))
_MINUS_ONE = bytes((byte - 1) & 0xFF for byte in range(256))
_INVERT = bytes(byte ^ 0xFF for byte in range(256))

_ZERO = bytes([_TAG_ZERO])
_NAN = bytes([_TAG_NAN])
_INFINITY = bytes([_TAG_INFINITY])
_MINUS_INFINITY = bytes([_TAG_MINUS_INFINITY])
_NEGATIVE_START = bytes([_TAG_NEGATIVE])
_POSITIVE_START = bytes([_TAG_POSITIVE])

# The first bytes of a positive integer, by its number of digits.
_POSITIVE_STARTS = [bytes([_TAG_POSITIVE, _EXPONENT_ZERO + digits - 1]) for digits in range(_NEAR_EXPONENT + 2)]

_FAST_INT_LIMIT = 10**_NEAR_EXPONENT
_MAX_INT_BITS = MAX_DIGITS * 3322 // 1000 + 1  # log2(10) is a little less than 3.322
_SAFE_STR_DIGITS = 600  # CPython's limit on int <-> str conversions cannot be set below 640 digits


def _integer_digits(magnitude: int) -> str:
    try:
        return str(magnitude)
    except ValueError:  # past CPython's limit; Decimal has none, and is exact
        return str(Decimal(magnitude))


def _encode_number(negative: bool, digits: str, exponent: int) -> bytes:
    """Encode d.ddd * 10**exponent, not zero; `digits` may end, not begin, with zeros."""
    digits = digits.rstrip("0")
    if len(digits) > MAX_DIGITS:
        raise UnstorableValue(
            f"a number of {len(digits)} digits cannot be an index key: the most is {MAX_DIGITS}; "
            "round it, or leave its attribute out of the index"
        )
    if len(digits) % 2:
        digits += "0"
    if -_NEAR_EXPONENT <= exponent <= _NEAR_EXPONENT:
        start = bytes([_EXPONENT_ZERO + exponent])
    else:
        lead = _EXPONENT_FAR_BELOW if exponent < 0 else _EXPONENT_FAR_ABOVE
        start = bytes([lead]) + (exponent + _FAR_EXPONENT_BIAS).to_bytes(8, "big")
    body = start + bytes.fromhex(digits).translate(_PLUS_ONE) + _END
    return _NEGATIVE_START + body.translate(_INVERT) if negative else _POSITIVE_START + body


def _encode_int(value: int) -> bytes:
    if 0 < value < _FAST_INT_LIMIT:  # the same as _encode_number, at half the time
        digits = str(value)
        start = _POSITIVE_STARTS[len(digits)]
        digits = digits.rstrip("0")
        if len(digits) % 2:
            digits += "0"
        return start + bytes.fromhex(digits).translate(_PLUS_ONE) + _END
    if value == 0:
        return _ZERO
    # Two checks: the first spares the conversion of a huge number to digits, the second is exact.
    if value.bit_length() > _MAX_INT_BITS or len(digits := _integer_digits(abs(value))) > MAX_DIGITS:
        raise UnstorableValue(
            f"an integer of {value.bit_length()} bits cannot be an index key: the most is "
            f"{MAX_DIGITS} digits; leave its attribute out of the index"
        )
    return _encode_number(value < 0, digits, len(digits) - 1)


def _encode_float(value: float) -> bytes:
    if value != value:  # noqa: PLR0124 - the quickest test for NaN
        return _NAN
    if value == math.inf:
        return _INFINITY
    if value == -math.inf:
        return _MINUS_INFINITY
    # The denominator is a power of two, 2**k, and n / 2**k is n * 5**k / 10**k: finite in decimal.
    numerator, denominator = value.as_integer_ratio()
    if denominator == 1:
        return _encode_int(numerator)
    power = denominator.bit_length() - 1
    digits = _integer_digits(abs(numerator) * 5**power)
    return _encode_number(numerator < 0, digits, len(digits) - 1 - power)


def _encode_decimal(value: Decimal) -> bytes:
    sign, digits, exponent = value.as_tuple()
    if exponent == "F":
        return _MINUS_INFINITY if sign else _INFINITY
    if isinstance(exponent, str):  # quiet or signalling
        return _NAN
    if not value:
        return _ZERO
    return _encode_number(sign == 1, bytes(digits).hex()[1::2], exponent + len(digits) - 1)


def _decode_number(data: bytes, position: int, negative: bool) -> tuple[int | float | Decimal, int]:
    mask = 0xFF if negative else 0x00
    lead = _take(data, position, 1) ^ mask
    position += 1
    if lead in (_EXPONENT_FAR_BELOW, _EXPONENT_FAR_ABOVE):
        exponent = (_take(data, position, 8) ^ (mask * 0x0101010101010101)) - _FAR_EXPONENT_BIAS
        position += 8
        if (exponent > _NEAR_EXPONENT) != (lead == _EXPONENT_FAR_ABOVE) or abs(exponent) <= _NEAR_EXPONENT:
            raise ValueError("not a key: a number has an exponent in the wrong form")
    else:
        exponent = lead - _EXPONENT_ZERO
        if abs(exponent) > _NEAR_EXPONENT:
            raise ValueError("not a key: a number has an unknown kind of exponent")
    end = _find(data, mask, position)
    pairs = data[position:end]
    if negative:
        pairs = pairs.translate(_INVERT)
    digits = pairs.translate(_MINUS_ONE).hex()
    # An empty string is not decimal, so there is a first and a last pair.
    if not digits.isdecimal() or digits[0] == "0" or digits.endswith("00"):
        raise ValueError("not a key: a number has bytes that are no digits, or zeros around them")
    return _number(negative, digits.removesuffix("0"), exponent), end + 1


def _number(negative: bool, digits: str, exponent: int) -> int | float | Decimal:
    """Return d.ddd * 10**exponent as the simplest type that holds it exactly."""
    last = exponent - len(digits) + 1  # the exponent of the last digit
    if len(digits) > MAX_DIGITS or exponent > decimal.MAX_EMAX or last < decimal.MIN_ETINY:
        raise ValueError("not a key: a number is larger, smaller or longer than any that can be stored")
    text = f"{'-' if negative else ''}{digits}"
    if last >= 0 and exponent < _SAFE_STR_DIGITS:
        return int(text + "0" * last)
    exact = Decimal(f"{text}E{last}")
    if last >= 0 and exponent < MAX_DIGITS:
        return int(exact)
    nearest = float(exact)  # infinite or zero if out of range: then not equal
    return nearest if Decimal.from_float(nearest) == exact else exact


# --- Dates and times -------------------------------------------------------------------------------

_DAY = 86_400_000_000  # microseconds
_SECOND = 1_000_000  # microseconds
_ONE_DAY = datetime.timedelta(days=1)
_ONE_MICROSECOND = datetime.timedelta(microseconds=1)
_NAIVE_START = datetime.datetime(1, 1, 1)
_AWARE_START = datetime.datetime(1, 1, 1, tzinfo=datetime.UTC)
_MIN_DAYS = -999_999_999  # of a timedelta

# Local times at either end of the calendar can be up to a day outside of it in UTC.
_MAX_OFFSET = _ONE_DAY - _ONE_MICROSECOND

_DATE_TAGGED = _TAG_DATE << 24
_TIME_TAGGED = _TAG_TIME << 40
_TIMEDELTA_TAGGED = _TAG_TIMEDELTA << 72
_NAIVE_TAGGED = (_TAG_NAIVE_DATETIME << 64) + _DAY
_AWARE_TAGGED = (_TAG_AWARE_DATETIME << 64) + _DAY


def _encode_date(value: datetime.date) -> bytes:
    return (_DATE_TAGGED + value.toordinal()).to_bytes(4, "big")


def _encode_datetime(value: datetime.datetime) -> bytes:
    if value.tzinfo is None:
        since, start = value - _NAIVE_START, _NAIVE_TAGGED
    elif value.utcoffset() is None:  # Python counts this as naive, too
        since, start = value.replace(tzinfo=None) - _NAIVE_START, _NAIVE_TAGGED
    else:
        since, start = value - _AWARE_START, _AWARE_TAGGED
    return (start + since.days * _DAY + since.seconds * _SECOND + since.microseconds).to_bytes(9, "big")


def _encode_time(value: datetime.time) -> bytes:
    if value.utcoffset() is not None:
        raise UnstorableValue(
            f"the time {value.isoformat()} has an offset from UTC and cannot be an index key: "
            "use a time without one, or a datetime"
        )
    seconds = (value.hour * 60 + value.minute) * 60 + value.second
    return (_TIME_TAGGED + seconds * _SECOND + value.microsecond).to_bytes(6, "big")


def _encode_timedelta(value: datetime.timedelta) -> bytes:
    within_day = value.seconds * _SECOND + value.microseconds
    return (_TIMEDELTA_TAGGED + (value.days - _MIN_DAYS << 40) + within_day).to_bytes(10, "big")


def _decode_naive_datetime(number: int) -> datetime.datetime:
    return _NAIVE_START + datetime.timedelta(microseconds=number - _DAY)


def _decode_aware_datetime(number: int) -> datetime.datetime:
    since = datetime.timedelta(microseconds=number - _DAY)
    try:
        return _AWARE_START + since
    except OverflowError:  # not in the calendar in UTC, so in a zone where it is
        offset = _MAX_OFFSET if number < _DAY else -_MAX_OFFSET
        return (_NAIVE_START + (since + offset)).replace(tzinfo=datetime.timezone(offset))


def _decode_time(number: int) -> datetime.time:
    if number >= _DAY:
        raise ValueError("not a key: a time of day is past midnight")
    return (_NAIVE_START + datetime.timedelta(microseconds=number)).time()


def _decode_timedelta(number: int) -> datetime.timedelta:
    within_day = number & ((1 << 40) - 1)
    if within_day >= _DAY:
        raise ValueError("not a key: a timedelta has more than a day beside its days")
    return datetime.timedelta(days=(number >> 40) + _MIN_DAYS, microseconds=within_day)


# --- Other values ----------------------------------------------------------------------------------


def _encode_uuid(value: uuid.UUID) -> bytes:
    return ((_TAG_UUID << 128) + value.int).to_bytes(17, "big")


def _encode_item(value: object, item_id: int) -> bytes:
    if not 0 <= item_id < 1 << 64:
        raise UnstorableValue(f"{type(value).__qualname__} has the item id {item_id}, which is not one of a store")
    return ((_TAG_ITEM << 64) + item_id).to_bytes(9, "big")


_CONSTANTS: dict[int, object] = {
    _TAG_NONE: None,
    _TAG_FALSE: False,
    _TAG_TRUE: True,
    _TAG_NAN: math.nan,
    _TAG_MINUS_INFINITY: -math.inf,
    _TAG_ZERO: 0,
    _TAG_INFINITY: math.inf,
}

# By exact type; for subclasses in this order, so datetime comes before date.
_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda _: _NONE,
    bool: lambda value: _TRUE if value else _FALSE,
    int: _encode_int,
    float: _encode_float,
    Decimal: _encode_decimal,
    bytes: _encode_bytes,
    datetime.datetime: _encode_datetime,
    datetime.date: _encode_date,
    datetime.time: _encode_time,
    datetime.timedelta: _encode_timedelta,
    uuid.UUID: _encode_uuid,
}


# --- Encoding --------------------------------------------------------------------------------------


def encode(value: object, nocase: bool = False) -> bytes:
    """Return the key of one value; with `nocase`, of its strings casefolded.

    Raises `UnstorableValue` if the value has no place in the order, is a number of more than `MAX_DIGITS`
    digits, or nests deeper than `MAX_DEPTH`.
    """
    if type(value) is str:
        return encode_text(value.casefold() if nocase else value)
    encoder = _ENCODERS.get(type(value))
    if encoder is not None:
        return encoder(value)
    return _encode_other(value, nocase, 0)


def encode_tuple(values: Sequence[object], nocase: bool = False) -> bytes:
    """Return the keys of the values, joined: the key of a compound index.

    The key of the first few values is a prefix of the key of all of them.
    """
    return b"".join([encode(value, nocase) for value in values])


def encode_prefix(value: str | bytes, nocase: bool = False) -> bytes:
    """Return what the keys of exactly those strings that start with `value` start with."""
    if not isinstance(value, str | bytes):
        raise UnstorableValue(f"a prefix is str or bytes, not {type(value).__qualname__}: give a start and an end")
    return encode(value, nocase)[:-1]


def successor(prefix: bytes) -> bytes | None:
    """Return the smallest bytes greater than all that start with `prefix`; None if nothing is greater."""
    head = prefix.rstrip(b"\xff")
    return head[:-1] + bytes([head[-1] + 1]) if head else None


def _encode_other(value: object, nocase: bool, depth: int) -> bytes:
    """Encode what is not of one of the exact types of `_ENCODERS`, or str."""
    if isinstance(value, tuple | list):
        if depth == MAX_DEPTH:
            raise UnstorableValue(
                f"an index key nests deeper than {MAX_DEPTH} tuples, or contains itself: "
                "flatten it, or leave its attribute out of the index"
            )
        return _TUPLE_START + b"".join([_encode_element(each, nocase, depth + 1) for each in value]) + _END
    if isinstance(value, enum.Enum):  # before the plain types: it can be one of them as well
        return _encode_element(value.value, nocase, depth)
    # Subclasses may print and convert as they like: it is the plain value inside that counts.
    if isinstance(value, str):
        return encode(str.__str__(value), nocase)
    if isinstance(value, int):
        return _encode_int(int.__int__(value))
    if isinstance(value, float):
        return _encode_float(float.__float__(value))
    for base, encoder in _ENCODERS.items():
        if isinstance(value, base):
            return encoder(value)
    item_id = getattr(value, "item_id", None)
    if type(item_id) is int:
        return _encode_item(value, item_id)
    raise UnstorableValue(
        f"a value of type {type(value).__qualname__} cannot be an index key: those are None, bool, numbers, "
        "bytes, str, dates and times, UUIDs, items, and tuples and lists of these; "
        "leave its attribute out of the index"
    )


def _encode_element(value: object, nocase: bool, depth: int) -> bytes:
    if type(value) is str or type(value) in _ENCODERS:
        return encode(value, nocase)
    return _encode_other(value, nocase, depth)


# --- Decoding --------------------------------------------------------------------------------------


def decode(data: bytes) -> object:
    """Return the one value whose key is `data`; raises `ValueError` if it is no such key."""
    value, end = _decode_at(data, 0, 0)
    if end != len(data):
        raise ValueError(f"not a key: {len(data) - end} bytes follow the value")
    return value


def decode_tuple(data: bytes) -> tuple[object, ...]:
    """Return the values whose joined keys are `data`; raises `ValueError` if it is nothing such."""
    values = []
    position = 0
    while position < len(data):
        value, position = _decode_at(data, position, 0)
        values.append(value)
    return tuple(values)


def _take(data: bytes, position: int, size: int) -> int:
    chunk = data[position : position + size]
    if len(chunk) != size:
        raise ValueError("not a key: it is cut short")
    return int.from_bytes(chunk, "big")


def _find(data: bytes, terminator: int, position: int) -> int:
    end = data.find(terminator, position)
    if end < 0:
        raise ValueError("not a key: it is cut short")
    return end


# By tag: the size, and the value from the integer of that size.
_FIXED: dict[int, tuple[int, Callable[[int], object]]] = {
    _TAG_DATE: (3, datetime.date.fromordinal),
    _TAG_NAIVE_DATETIME: (8, _decode_naive_datetime),
    _TAG_AWARE_DATETIME: (8, _decode_aware_datetime),
    _TAG_TIME: (5, _decode_time),
    _TAG_TIMEDELTA: (9, _decode_timedelta),
    _TAG_UUID: (16, lambda number: uuid.UUID(int=number)),
    _TAG_ITEM: (8, ItemKey),
}


def _decode_at(data: bytes, position: int, depth: int) -> tuple[object, int]:
    """Return the value that starts at `position`, and the position after it."""
    if position >= len(data):
        raise ValueError("not a key: it is cut short")
    tag = data[position]
    position += 1
    if tag in (_TAG_STR, _TAG_BYTES):
        end = _find(data, 0, position)
        contents = data[position:end]
        if b"\1" in contents:
            contents = _unescape(contents)
        return contents if tag == _TAG_BYTES else contents.decode("utf-8", "surrogatepass"), end + 1
    if tag in _CONSTANTS:
        return _CONSTANTS[tag], position
    if tag in (_TAG_POSITIVE, _TAG_NEGATIVE):
        return _decode_number(data, position, tag == _TAG_NEGATIVE)
    if tag in _FIXED:
        size, convert = _FIXED[tag]
        try:
            return convert(_take(data, position, size)), position + size
        except OverflowError as error:
            raise ValueError(f"not a key: a date or time is out of range: {error}") from error
    if tag == _TAG_TUPLE:
        if depth == MAX_DEPTH:
            raise ValueError(f"not a key: it nests deeper than {MAX_DEPTH} tuples")
        elements = []
        while _take(data, position, 1) != 0:
            element, position = _decode_at(data, position, depth + 1)
            elements.append(element)
        return tuple(elements), position + 1
    raise ValueError(f"not a key: no value starts with the byte {tag:#04x}")
