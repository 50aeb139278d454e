#!/usr/bin/env python
"""Writes sample files as people have them: an address book, a calendar and a mailbox, of any size.

    scripts/sample_data.py DIRECTORY [--contacts N] [--events N] [--messages N] [--seed N]

makes contacts.vcf (vCard 2.1 as a phone writes it, 3.0 as Apple and Google do, and 4.0), calendar.ics (time zones,
recurring events with exceptions, tasks, a diary) and mail.mbox (threads, HTML, attachments, many scripts and
encodings). The same numbers give the same octets, on any machine; all names, addresses and texts are invented.
Writes one record at a time, so the size of the files is limited by the disk alone.
"""

from __future__ import annotations

import argparse
import base64
import datetime
import quopri
import random
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

CONTACTS, EVENTS, MESSAGES = 500, 300, 400
SEED = 2004

# Given names, family names: each person's both from one line, so that a name is of one script.
PEOPLES = (
    ("Mara Tobin Elsie Orrin Wilma Jasper Nell Corin Petra Silas", "Hartwell Quillon Marsden Tolliver Brack Fenwright"),
    ("Jörg Änne Lütje Günda Höder Wölfrun", "Möllhaus Strößner Überlein Grünpfad Käsbeck"),
    ("Élodine Loïs Maëlys Anaëlle Gaëtane", "Béranchet Dusséaux L'Épinoy Crêpelle Roüet"),
    ("Łucjana Świętosz Bożydar Żaneta Ścibor", "Ździebło Gąsiorek Śliwczak Kołaczyna Pędziwiatr"),
    ("Ағата Борислав Веселина Ждан Милолика", "Облаков Ветрова Зимогорский Снежин Лугова"),
    ("Ανθούλα Κλεώνη Φίλανδρος Ζήνων Ηλιάνα", "Θαλασσάκης Πετρινός Ανεμόγλου Λιθαράς"),
    ("נועם תמרי אלישיב ורדית", "הרשלון בן־גיא ים־סוף כרמלין"),
    ("ليانا سهيلان مرجان نديماء", "البحراوين النخلاني الوردسي"),
    ("桜子 蓮太 葵依 湊介", "星ヶ原 雪之下 風早川 月見里"),
    ("하람이 도윤서 서하늘", "남궁솔 제갈온 황보람"),
    ("晓岚 子墨 雨泽 若溪", "欧阳林 司徒远 上官月"),
    ("आरव्या ईशाना मीनल वेदांशु", "सूर्यवंत चन्द्रपुर नदीवाल"),
)
CITIES = (
    "Lisbon",
    "Zürich",
    "Kraków",
    "Αθήνα",
    "Одеса",
    "京都",
    "서울",
    "חיפה",
    "Nantes",
    "Tromsø",
    "Bologna",
    "Galway",
)
STREETS = ("Mill Lane", "Rosengasse", "Rue des Tilleuls", "ul. Lipowa", "Οδός Ελιάς", "桜通り", "Via dei Cedri")
FIRMS = ("Quillon & Daughters", "Nordlicht Werkzeug", "Atelier Crêpelle", "Blue Kettle Co.", "雪之下商店", "Ветер и Ко")
WORDS = (
    *("garden", "lantern", "harbour", "ladder", "violin", "orchard", "kettle", "pebble", "meadow", "copper", "almond"),
    *("saddle", "winter", "parcel", "tunnel", "ribbon", "Straße", "naïve", "café", "smörgås", "тропа", "облако"),
    *("θάλασσα", "λίμνη", "山道", "雨傘", "바람", "דרך"),
)
TOPICS = ("Lunch", "Rehearsal", "Réunion", "Zahnarzt", "Совещание", "Book club", "散歩", "Choir", "Dentist", "Market")
ZONES = ("Europe/Zurich", "America/New_York", "Asia/Tokyo", "Europe/Lisbon")
LAST_DAY = datetime.date(2025, 12, 31)


class Person(NamedTuple):
    """Someone who does not exist."""

    number: int
    given: str
    family: str
    email: str
    city: str

    @property
    def name(self) -> str:
        return f"{self.given} {self.family}"


def people(count: int, seed: int) -> Iterator[Person]:
    """Invented people, always the same."""
    dice = random.Random(seed)
    for number in range(count):
        given_names, families = (names.split() for names in dice.choice(PEOPLES))
        yield Person(
            number, dice.choice(given_names), dice.choice(families), f"p{number}@mail.example", dice.choice(CITIES)
        )


def sentence(dice: random.Random, length: int = 12) -> str:
    """Words that mean nothing."""
    return " ".join(dice.choice(WORDS) for _ in range(dice.randint(3, length))).capitalize() + "."


def street(dice: random.Random) -> str:
    """A street and a number."""
    return f"{dice.choice(STREETS)} {dice.randint(1, 99)}"


def picture(dice: random.Random, side: int = 24) -> bytes:
    """A square PNG of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    colour = bytes(dice.randrange(256) for _ in range(3))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    pixels = zlib.compress((b"\0" + colour * side) * side, 9)
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def a_day(dice: random.Random, years: int) -> datetime.date:
    """Some day in the years up to the end of 2025."""
    return LAST_DAY - datetime.timedelta(days=dice.randrange(365 * years))


# ------------------------------------------------------------------------------------------- contacts


def folded(lines: list[str]) -> bytes:
    """Content lines with CRLF, folded at 75 octets."""
    octets = []
    for line in lines:
        data, start = line.encode(), 0
        pieces = []
        while start < len(data):
            end = min(len(data), start + (75 if not start else 74))
            while end < len(data) and data[end] & 0xC0 == 0x80:
                end -= 1
            pieces.append(data[start:end])
            start = end
        octets.append(b"\r\n ".join(pieces or [b""]) + b"\r\n")
    return b"".join(octets)


def escaped(text: str) -> str:
    """A text value."""
    return text.replace("\\", "\\\\").replace(";", "\\;").replace(",", "\\,").replace("\n", "\\n")


def quoted(text: str) -> str:
    """A quoted-printable value on one line."""
    return quopri.encodestring(text.encode(), quotetabs=True).decode("ascii").replace("=\n", "").replace("\n", "=0A")


def phone_card(person: Person, dice: random.Random) -> bytes:
    """vCard 2.1, as telephones write it: quoted-printable, no UID, a photograph in base64."""
    charset = ";CHARSET=UTF-8;ENCODING=QUOTED-PRINTABLE"
    lines = [
        "BEGIN:VCARD",
        "VERSION:2.1",
        f"N{charset}:{quoted(person.family)};{quoted(person.given)};;;",
        f"FN{charset}:{quoted(person.name)}",
        f"TEL;CELL;PREF:+351 9{person.number:08}",
        f"EMAIL;HOME:{person.email}",
        f"NOTE{charset}:{quoted(sentence(dice) + chr(10) + sentence(dice))}",
    ]
    octets = "".join(line + "\r\n" for line in lines).encode()
    if person.number % 10 == 0:
        data = base64.b64encode(picture(dice)).decode("ascii")
        rows = "\r\n ".join(data[i : i + 72] for i in range(0, len(data), 72))
        octets += f"PHOTO;ENCODING=BASE64;PNG:{rows}\r\n\r\n".encode()
    return octets + b"END:VCARD\r\n"


def desk_card(person: Person, dice: random.Random) -> bytes:
    """vCard 3.0, as Apple's and Google's address books write it."""
    lines = [
        "BEGIN:VCARD",
        "VERSION:3.0",
        "PRODID:-//Sample Data//Address Book//EN",
        f"UID:urn:uuid:00000000-0000-4000-8000-{person.number:012}",
        f"N:{escaped(person.family)};{escaped(person.given)};;;",
        f"FN:{escaped(person.name)}",
        f"ORG:{escaped(dice.choice(FIRMS))};{dice.choice(WORDS).capitalize()}",
        f"EMAIL;type=INTERNET;type=WORK;type=pref:{person.email}",
        f"EMAIL;type=INTERNET;type=HOME:home.{person.email}",
        f"TEL;type=CELL;type=VOICE:+41 79 {person.number:07}",
        f"item1.ADR;type=HOME:;;{street(dice)};{person.city};;{dice.randint(1000, 9999)};",
        "item1.X-ABADR:ch",
        f"item2.URL:https://{person.number}.people.example/",
        "item2.X-ABLabel:_$!<HomePage>!$_",
        f"BDAY:{a_day(dice, 80).isoformat()}",
        f"NOTE:{escaped(sentence(dice, 40))}",
        f"CATEGORIES:{dice.choice(WORDS)},friends",
        "REV:2025-06-01T10:00:00Z",
    ]
    if person.number % 10 == 1:
        lines.append(f"PHOTO;ENCODING=b;TYPE=PNG:{base64.b64encode(picture(dice)).decode('ascii')}")
    return folded([*lines, "END:VCARD"])


def new_card(person: Person, dice: random.Random) -> bytes:
    """vCard 4.0."""
    lines = [
        "BEGIN:VCARD",
        "VERSION:4.0",
        f"UID:urn:uuid:00000000-0000-4000-9000-{person.number:012}",
        f"FN:{escaped(person.name)}",
        f"N:{escaped(person.family)};{escaped(person.given)};;;",
        f"EMAIL;TYPE=work;PREF=1:{person.email}",
        f'TEL;VALUE=uri;TYPE="voice,cell":tel:+47-{person.number:08}',
        f"ADR;TYPE=home:;;{street(dice)};{person.city};;{dice.randint(1000, 9999)};",
        f"BDAY:--{dice.randint(1, 12):02}{dice.randint(1, 28):02}",
        f"ANNIVERSARY:{a_day(dice, 40):%Y%m%d}",
        f"LANG:{dice.choice(('de', 'fr', 'ja', 'el'))}",
        f"NOTE:{escaped(sentence(dice, 40))}",
        "REV:20250601T100000Z",
    ]
    return folded([*lines, "END:VCARD"])


def write_contacts(path: Path, count: int, seed: int = SEED) -> None:
    """An address book of so many cards, of all versions in turn."""
    dice = random.Random(seed + 1)
    makers: tuple[Callable[[Person, random.Random], bytes], ...] = (desk_card, phone_card, new_card, desk_card)
    with path.open("wb") as stream:
        for person in people(count, seed):
            stream.write(makers[person.number % len(makers)](person, dice))


# ------------------------------------------------------------------------------------------- calendar

CALENDAR_START = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//Sample Data//Calendar//EN
CALSCALE:GREGORIAN
X-WR-CALNAME:Everything
BEGIN:VTIMEZONE
TZID:Harbour Time
BEGIN:STANDARD
DTSTART:19701025T030000
RRULE:FREQ=YEARLY;BYMONTH=10;BYDAY=-1SU
TZOFFSETFROM:+0200
TZOFFSETTO:+0100
END:STANDARD
BEGIN:DAYLIGHT
DTSTART:19700329T020000
RRULE:FREQ=YEARLY;BYMONTH=3;BYDAY=-1SU
TZOFFSETFROM:+0100
TZOFFSETTO:+0200
END:DAYLIGHT
END:VTIMEZONE"""


def event_lines(number: int, dice: random.Random) -> list[str]:
    """A component or two: meetings, series with an exception, days, tasks, a page of a diary."""
    day = a_day(dice, 4)
    uid = f"{number}@calendar.example"
    summary = f"SUMMARY:{dice.choice(TOPICS)} {number}"
    stamp = "DTSTAMP:20250601T100000Z"
    hour = dice.randint(7, 20)
    zone = dice.choice((*ZONES, "Harbour Time", "W. Europe Standard Time"))
    start, end = f"{day:%Y%m%d}T{hour:02}0000", f"{day:%Y%m%d}T{hour:02}4500"
    kind = number % 8
    if kind == 0:
        until = f"{day + datetime.timedelta(weeks=20):%Y%m%d}T235959Z"
        moved = day + datetime.timedelta(weeks=2)
        left_out = day + datetime.timedelta(weeks=3)
        return [
            *("BEGIN:VEVENT", f"UID:{uid}", stamp, f"DTSTART;TZID={zone}:{start}", f"DTEND;TZID={zone}:{end}", summary),
            *(f"RRULE:FREQ=WEEKLY;UNTIL={until}", f"EXDATE;TZID={zone}:{left_out:%Y%m%d}T{hour:02}0000", "END:VEVENT"),
            *("BEGIN:VEVENT", f"UID:{uid}", stamp, f"RECURRENCE-ID;TZID={zone}:{moved:%Y%m%d}T{hour:02}0000"),
            *(f"DTSTART;TZID={zone}:{moved:%Y%m%d}T210000", f"SUMMARY:{dice.choice(TOPICS)}, later", "END:VEVENT"),
        ]
    if kind == 1:
        return [
            *("BEGIN:VEVENT", f"UID:{uid}", stamp, f"DTSTART;VALUE=DATE:{day:%Y%m%d}", f"SUMMARY:{sentence(dice, 4)}"),
            *("RRULE:FREQ=YEARLY", "TRANSP:TRANSPARENT", f"CATEGORIES:{dice.choice(WORDS)}", "END:VEVENT"),
        ]
    if kind == 2:
        return [
            *("BEGIN:VTODO", f"UID:{uid}", stamp, f"DUE;VALUE=DATE:{day:%Y%m%d}", f"SUMMARY:{sentence(dice, 5)}"),
            *(f"STATUS:{dice.choice(('NEEDS-ACTION', 'COMPLETED'))}", f"PRIORITY:{dice.randint(1, 9)}", "END:VTODO"),
        ]
    if kind == 3:
        return [
            *(
                "BEGIN:VJOURNAL",
                f"UID:{uid}",
                stamp,
                f"DTSTART;VALUE=DATE:{day:%Y%m%d}",
                f"SUMMARY:{sentence(dice, 4)}",
            ),
            *(f"DESCRIPTION:{escaped(sentence(dice, 60))}", "END:VJOURNAL"),
        ]
    guest = dice.randrange(1000)
    return [
        *("BEGIN:VEVENT", f"UID:{uid}", stamp, f"DTSTART;TZID={zone}:{start}", f"DTEND;TZID={zone}:{end}", summary),
        *(
            f"LOCATION:{escaped(dice.choice(STREETS))} 4\\, {dice.choice(CITIES)}",
            f"DESCRIPTION:{escaped(sentence(dice, 30))}",
        ),
        *(
            "ORGANIZER;CN=Mara Hartwell:mailto:p0@mail.example",
            f"ATTENDEE;PARTSTAT=ACCEPTED:mailto:p{guest}@mail.example",
        ),
        *("BEGIN:VALARM", "ACTION:DISPLAY", "TRIGGER:-PT15M", "DESCRIPTION:Soon", "END:VALARM", "END:VEVENT"),
    ]


def write_calendar(path: Path, count: int, seed: int = SEED) -> None:
    """A calendar of so many events, tasks and pages of a diary."""
    dice = random.Random(seed + 2)
    with path.open("wb") as stream:
        stream.write(folded(CALENDAR_START.split("\n")))
        for number in range(count):
            stream.write(folded(event_lines(number, dice)))
        stream.write(b"END:VCALENDAR\r\n")


# ------------------------------------------------------------------------------------------- mail


def header_words(text: str, charset: str = "utf-8") -> str:
    """A header's text, as an encoded word where it is not ASCII."""
    if text.isascii():
        return text
    return f"=?{charset}?B?{base64.b64encode(text.encode(charset)).decode('ascii')}?="


def attachment(number: int, dice: random.Random) -> tuple[str, str, bytes]:
    """Name, media type and contents of a file that came with a message."""
    kind = number % 3
    if kind == 0:
        return f"Bild {number}.png", "image/png", picture(dice, 64)
    if kind == 1:
        rows = "".join(f"{i};{dice.choice(WORDS)};{dice.randint(1, 99)}\n" for i in range(50))
        return f"таблица-{number}.csv", "text/csv", rows.encode()
    return f"notes {number}.txt", "text/plain", sentence(dice, 200).encode()


def body(number: int, dice: random.Random) -> tuple[list[str], bytes]:
    """Content headers and octets of a message's body: plain, of an old encoding, HTML, or with an attachment."""
    text = "\n".join(sentence(dice, 30) for _ in range(dice.randint(1, 8))) + "\nFrom here on, nothing more.\n"
    kind = number % 5
    if kind == 0:
        return ["Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 8bit"], text.encode()
    if kind == 1:
        latin = text.encode("latin-1", "ignore")
        headers = ["Content-Type: text/plain; charset=iso-8859-1", "Content-Transfer-Encoding: quoted-printable"]
        return headers, quopri.encodestring(latin)
    boundary = f"=_sample_{number}"
    html = f"<html><body><p>{text.strip()}</p></body></html>\n"
    parts = [
        ("text/plain; charset=utf-8", "8bit", text.encode(), ""),
        ("text/html; charset=utf-8", "quoted-printable", quopri.encodestring(html.encode()), ""),
    ]
    subtype = "alternative"
    if kind == 3:
        name, media_type, data = attachment(number, dice)
        parts[1] = (media_type, "base64", base64.encodebytes(data), header_words(name))
        subtype = "mixed"
    octets = b""
    for content_type, encoding, data, name in parts:
        head = f"--{boundary}\nContent-Type: {content_type}\nContent-Transfer-Encoding: {encoding}\n"
        if name:
            head += f'Content-Disposition: attachment; filename="{name}"\n'
        octets += head.encode() + b"\n" + data.rstrip(b"\n") + b"\n"
    return [f'Content-Type: multipart/{subtype}; boundary="{boundary}"'], octets + f"--{boundary}--\n".encode()


def message(number: int, sender: Person, receiver: Person, dice: random.Random) -> bytes:
    """One message with its envelope line, quoted as mboxrd."""
    when = datetime.datetime.combine(a_day(dice, 4), datetime.time(dice.randrange(24), dice.randrange(60)))
    headers = [
        "MIME-Version: 1.0",
        f"From: {header_words(sender.name)} <{sender.email}>",
        f"To: {header_words(receiver.name)} <{receiver.email}>",
        f"Subject: {header_words(sentence(dice, 6).rstrip('.'))}",
        f"Date: {when:%a, %d %b %Y %H:%M:%S} +0100",
    ]
    if number % 20 != 19:  # some programs forget it
        headers.append(f"Message-ID: <{number}@mail.example>")
    if number % 4 == 3:
        headers += [f"In-Reply-To: <{number - 1}@mail.example>", f"References: <{number - 1}@mail.example>"]
    if number % 3:
        headers.append("Status: RO")
    content_headers, octets = body(number, dice)
    raw = "\n".join([*headers, *content_headers]).encode() + b"\n\n" + octets
    lines = [b">" + line if line.lstrip(b">").startswith(b"From ") else line for line in raw.split(b"\n")]
    return f"From {sender.email} {when:%a %b %d %H:%M:%S %Y}\n".encode() + b"\n".join(lines) + b"\n"


def write_mailbox(path: Path, count: int, seed: int = SEED) -> None:
    """A mailbox of so many messages."""
    dice = random.Random(seed + 3)
    circle = list(people(200, seed))
    with path.open("wb") as stream:
        for number in range(count):
            stream.write(message(number, dice.choice(circle), dice.choice(circle), dice))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Write sample files: contacts.vcf, calendar.ics and mail.mbox.")
    parser.add_argument("directory", type=Path, help="where to; made if it is not there")
    parser.add_argument("--contacts", type=int, default=CONTACTS, metavar="N", help="cards (default %(default)s)")
    parser.add_argument("--events", type=int, default=EVENTS, metavar="N", help="events (default %(default)s)")
    parser.add_argument("--messages", type=int, default=MESSAGES, metavar="N", help="messages (default %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, metavar="N", help="another number, other data")
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    write_contacts(arguments.directory / "contacts.vcf", arguments.contacts, arguments.seed)
    write_calendar(arguments.directory / "calendar.ics", arguments.events, arguments.seed)
    write_mailbox(arguments.directory / "mail.mbox", arguments.messages, arguments.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
