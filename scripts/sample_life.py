"""A store that looks like somebody's: a few contacts, messages, events and notes of a person who does not exist.

For the pictures of the data browser. `sample_data` writes as much as one likes, for all other purposes.
"""

from __future__ import annotations

import datetime
from typing import Any

from atop import Store
from atop.pim import Contact, Event, Message, Note, open_pool

ZONE = datetime.timezone(datetime.timedelta(hours=2))
MONTH = datetime.date(2025, 5, 1)

PEOPLE = """
Ada Brenner|Brenner Instruments|Basel|violins, friends
Alma Reyes|Harbour Library|Porto|
Amir Haddad||Lyon|choir
Beatrix Nolan|Nolan & Daughters|Cork|
Bruno Keller|Kettle Press|Bern|printers
Camille Duval||Nantes|friends
Carla Fontana|Studio Fontana|Torino|
Daniel Okafor|City Hospital|Zürich|
Edith Lang||Basel|family
Elif Aydin|Aydin Architects|Izmir|
Emil Sørensen||Aarhus|friends
Fiona MacLeod|Orchard Trust|Inverness|
Frida Holm|Holm Ceramics|Malmö|
Greta Lang||Basel|family
Hannah Weiss|Weiss & Partner|Wien|
Henri Moreau||Lyon|choir
Ines Carvalho|Harbour Library|Porto|friends
Jakob Lang||Basel|family
Jonas Berg|Northern Ferries|Bergen|
Kaja Nowak|Nowak Translations|Kraków|
Lena Fischer|Kettle Press|Bern|printers
Liam Byrne||Galway|friends
Marta Silva|Silva Conservators|Lisboa|violins
Mateo Ruiz||Sevilla|choir
Nora Lindqvist|Lindqvist Maps|Uppsala|
Oskar Brandt|Brandt Violins|Cremona|violins
Pia Schmid|City Orchestra|Basel|
Quentin Favre||Genève|
Rosa Marino|Marino Travel|Torino|
Sofia Petrova|Petrova Dance|Sofia|friends
Tomás Vidal||Barcelona|choir
Ursula Graf|City Archive|Basel|
Viktor Hansen|Northern Ferries|Bergen|
Yara Haddad||Lyon|family
"""

# Sender, day and time, flags, subject, text; what begins with "Re:" answers the message before it.
MAIL = [
    (
        *("Lena Fischer", "2 09:12", "seen", "Proofs of the programme"),
        "Hello Nora,\n\nthe proofs are ready. Page 4 has the new photograph; the paper is the one you liked.\n\n"
        "Could you look at them before Friday?\n\nLena",
    ),
    (
        *("Nora Lindqvist", "2 11:40", "seen", "Re: Proofs of the programme"),
        "Dear Lena,\n\nthey are beautiful. One small thing: Mateo spells his name with an e.\n\n"
        "> the proofs are ready. Page 4 has the new photograph\n\nNora",
    ),
    (
        *("Lena Fischer", "2 12:05", "", "Re: Proofs of the programme"),
        "Corrected, thank you! We print on Monday; the boxes are with you on the 15th.\n\n"
        "The map of the hall is at https://kettle-press.example/hall\n\n"
        "> One small thing: Mateo spells his name with an e.\n>> the proofs are ready.\n\nLena",
    ),
    (
        *("Oskar Brandt", "6 16:30", "seen flagged", "The varnish is dry"),
        "It needs two more weeks before anyone should play it, but you may come and look.\n\nOskar",
    ),
    ("Harbour Library <news@harbour-library.example>", "8 08:00", "", "What is on in May", "HTML"),
    (
        *("Edith Lang", "9 19:22", "seen", "Sunday lunch"),
        "Jakob brings the children, Greta the cake. Half past twelve, and no presents!\n\nEdith",
    ),
    (
        *("Northern Ferries", "12 07:45", "", "Your booking BK-20417"),
        "Bergen - Hirtshals, 24 May, cabin 512.\nPlease be at the quay an hour before.\n",
    ),
    (
        *("Camille Duval", "13 21:03", "seen", "Photographs of the walk"),
        "All forty of them. The one at the mill is for your wall.\n\nCamille",
    ),
    (
        *("Amir Haddad", "14 10:18", "", "Tuesday's rehearsal"),
        "We begin with the Fauré, from bar 30. Henri has the scores.\n\nAmir",
    ),
]

NEWSLETTER = """<div style="max-width:560px;font-family:Georgia,serif;color:#2b2b2b">
<h1 style="color:#1b5a7a;font-size:26px;margin:0 0 4px">Harbour Library</h1>
<p style="color:#777;margin:0 0 18px">What is on in May</p>
<table cellpadding="10" cellspacing="0" style="width:100%;border-collapse:collapse">
<tr bgcolor="#eef4f7"><td style="width:90px"><b>10 May</b></td><td>Maps of the coast, 1600 to 1900. Opening at six, with
Nora Lindqvist.</td></tr>
<tr><td><b>17 May</b></td><td>Reading for children: <i>The whale that was a hill</i>.</td></tr>
<tr bgcolor="#eef4f7"><td><b>29 May</b></td><td>Closed for the holiday.</td></tr></table>
<p><a href="https://harbour-library.example/may">Read more</a> or
<a href="https://lists.example/u/81">leave this list</a>.</p>
<img src="https://lists.example/open.gif" width="1" height="1"></div>"""

# Day, hour, length in hours (days where there is no hour), summary, more.
EVENTS: list[tuple[int, float | None, float, str, dict[str, Any]]] = [
    (-24, 19.5, 2, "Choir", {"recurrence": "FREQ=WEEKLY;BYDAY=TU", "location": "St Martin's, upper room"}),
    (-60, 9, 0.5, "Stand-up", {"recurrence": "FREQ=WEEKLY;BYDAY=MO,WE,FR", "calendar": "work"}),
    (-700, None, 1, "Edith's birthday", {"recurrence": "FREQ=YEARLY", "calendar": "family"}),
    (1, None, 1, "Labour Day", {"calendar": "holidays"}),
    (29, None, 1, "Ascension Day", {"calendar": "holidays"}),
    (2, 14, 1, "Call with Kettle Press", {"calendar": "work", "location": "Telephone"}),
    (5, 10, 2, "Archive: the harbour plans", {"calendar": "work", "location": "City Archive"}),
    (6, 12.5, 1, "Lunch with Ada", {"location": "Markthalle"}),
    (8, 17, 1.5, "Dentist", {"location": "Spalenring 4"}),
    (10, 18, 2, "Opening at the library", {"calendar": "work", "location": "Harbour Library"}),
    (11, 12.5, 3, "Lunch at Edith's", {"calendar": "family"}),
    (12, None, 3, "Printing at Kettle Press", {"calendar": "work"}),
    (13, 15, 1, "Oskar: look at the violin", {"location": "Cremona, by telephone"}),
    (14, 11, 1, "Maps for the ferry line", {"calendar": "work"}),
    (14, 11.5, 1, "Viktor calls", {"calendar": "work"}),
    (16, 20, 2.5, "Concert: City Orchestra", {"location": "Stadtcasino"}),
    (19, 13, 1, "Review of the atlas", {"calendar": "work"}),
    (21, 8.5, 1, "Car to the garage", {}),
    (24, None, 8, "Norway with Camille", {"location": "Bergen"}),
    (27, 10, 2, "Ferry office", {"calendar": "work", "location": "Bergen, quay 3"}),
]


def fill(store: Store) -> None:
    """Put everything into the store."""
    with store.transaction("somebody's life"):
        _add_contacts(store)
        _add_messages(store)
        _add_events(store)
        notes = open_pool(store, "note")
        day = datetime.datetime(2025, 5, 9, 20, tzinfo=ZONE)
        for title, text in (
            ("Packing for Norway", "Rain coat\nThe good lens\nOskar's book"),
            ("Words", "quay, hull, stern"),
        ):
            notes.add(Note(store, title=title, text=text, created=day, modified=day))


def _add_contacts(store: Store) -> None:
    pool = open_pool(store, "contact")
    for number, line in enumerate(PEOPLE.strip().split("\n")):
        name, organization, city, categories = line.split("|")
        given, _, family = name.partition(" ")
        address = name.lower().replace(" ", ".").encode("ascii", "ignore").decode()
        emails = [{"value": f"{address}@mail.example", "kinds": ["home"]}]
        if organization:
            at_work = organization.split()[0].lower()
            emails.append({"value": f"{given.lower()}@{at_work}.example", "kinds": ["work"]})
        pool.add(
            Contact(
                store,
                name=name,
                given=given,
                family=family,
                organization=organization,
                emails=emails,
                email=f"{address}@mail.example",
                phones=[{"value": f"+41 61 555 {number:02} {number * 7 % 90 + 10}", "kinds": ["cell"]}],
                phone=f"+41 61 555 {number:02} {number * 7 % 90 + 10}",
                addresses=[{"street": f"Rheingasse {number + 3}", "city": city, "kinds": ["home"]}],
                city=city,
                birthday=datetime.date(1950 + number, number % 12 + 1, number % 27 + 1) if number % 3 else None,
                note="Plays the viola. Knows where the old scores are." if number == 25 else "",
                title="Violin maker" if number == 25 else "",
                categories=[category for category in categories.split(", ") if category],
            )
        )


def _add_messages(store: Store) -> None:
    pool = open_pool(store, "message")
    for number, (sender, when, flags, subject, text) in enumerate(MAIL):
        day, _, clock = when.partition(" ")
        moment = datetime.datetime.fromisoformat(f"2025-05-{int(day):02}T{clock}").replace(tzinfo=ZONE)
        name = sender.partition(" <")[0]
        address = f"{name.lower().replace(' ', '.')}@mail.example"
        more: dict[str, Any] = {}
        if text == "HTML":
            more["html"] = NEWSLETTER
        if "Photographs" in subject or number == 2:
            more["attachments"] = [store.file(b"\0" * 48_200, name="programme.pdf", media_type="application/pdf")]
        pool.add(
            Message(
                store,
                subject=subject,
                sender=sender if "<" in sender else f"{sender} <{address}>",
                to=["Nora Lindqvist <nora.lindqvist@mail.example>"],
                date=moment,
                text="What is on in May at the Harbour Library: maps of the coast." if more.get("html") else text,
                flags=flags.split(),
                folder="Inbox",
                message_id=f"{number}@mail.example",
                in_reply_to=f"{number - 1}@mail.example" if subject.startswith("Re:") else "",
                headers=[["From", sender], ["Subject", subject]],
                **more,
            )
        )


def _add_events(store: Store) -> None:
    pool = open_pool(store, "event")
    for day, hour, length, summary, more in EVENTS:
        date = MONTH + datetime.timedelta(days=day - 1)
        if hour is None:
            date = date.replace(day=18, month=5) if "birthday" in summary else date
            start = datetime.datetime.combine(date, datetime.time(), datetime.UTC)
            end = start + datetime.timedelta(days=length)
            pool.add(Event(store, summary=summary, start=start, end=end, all_day=True, **more))
            continue
        start = datetime.datetime.combine(date, datetime.time(), ZONE) + datetime.timedelta(hours=hour)
        end = start + datetime.timedelta(hours=length)
        pool.add(Event(store, summary=summary, start=start, end=end, time_zone="Europe/Zurich", **more))
