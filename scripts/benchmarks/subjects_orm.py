"""Two object-relational mappers on SQLite, with the same columns, indexes and flushes as `subjects_sqlite`."""

from __future__ import annotations

import os
from datetime import date
from typing import Any

import peewee
from sqlalchemy import create_engine, event, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from subjects_sqlite import PRAGMAS
from workload import PAGE


class Base(DeclarativeBase):
    """Where SQLAlchemy keeps what it knows of the tables."""


class Contact(Base):
    """What the workload is about, for SQLAlchemy."""

    __tablename__ = "contact"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(index=True)
    email: Mapped[str] = mapped_column(index=True)
    city: Mapped[str] = mapped_column(index=True)
    phone: Mapped[str] = mapped_column(index=True)
    born: Mapped[date]
    note: Mapped[str]


class SQLAlchemy:
    """The ORM of SQLAlchemy: one session, which forgets objects that nobody holds."""

    def open(self, path: str) -> None:
        self._engine = create_engine(f"sqlite:///{os.path.join(path, 'contacts.sqlite')}")

        @event.listens_for(self._engine, "connect")
        def flush_each_commit(connection: Any, _: Any) -> None:
            for name, value in PRAGMAS.items():
                connection.execute(f"PRAGMA {name} = {value}")

        Base.metadata.create_all(self._engine)
        self._session = Session(self._engine, expire_on_commit=False)

    def create(self, people: list[dict[str, Any]]) -> None:
        self._session.add_all([Contact(**person) for person in people])
        self._session.commit()

    def ids(self) -> list[int]:
        return list(self._session.scalars(select(Contact.id).order_by(Contact.id)))

    def get(self, identifier: int) -> str:
        return self._session.get_one(Contact, identifier).name

    def page(self, start: str) -> list[str]:
        query = select(Contact).where(Contact.name >= start).order_by(Contact.name).limit(PAGE)
        return [person.name for person in self._session.scalars(query)]

    def update(self, identifiers: list[int], city: str) -> None:
        for identifier in identifiers:
            self._session.get_one(Contact, identifier).city = city
        self._session.commit()

    def close(self) -> None:
        self._session.close()
        self._engine.dispose()


class Person(peewee.Model):
    """What the workload is about, for peewee."""

    name = peewee.CharField(index=True)
    email = peewee.CharField(index=True)
    city = peewee.CharField(index=True)
    phone = peewee.CharField(index=True)
    born = peewee.DateField()
    note = peewee.CharField()


class Peewee:
    """peewee, with the fastest of its ways to make many objects."""

    def open(self, path: str) -> None:
        self._database = peewee.SqliteDatabase(os.path.join(path, "contacts.sqlite"), pragmas=PRAGMAS)
        self._database.bind([Person])
        self._database.create_tables([Person])

    def create(self, people: list[dict[str, Any]]) -> None:
        with self._database.atomic():
            Person.bulk_create([Person(**person) for person in people], batch_size=100)

    def ids(self) -> list[int]:
        return [row[0] for row in Person.select(Person.id).order_by(Person.id).tuples()]

    def get(self, identifier: int) -> str:
        return str(Person.get_by_id(identifier).name)

    def page(self, start: str) -> list[str]:
        return [p.name for p in Person.select().where(Person.name >= start).order_by(Person.name).limit(PAGE)]

    def update(self, identifiers: list[int], city: str) -> None:
        with self._database.atomic():
            for identifier in identifiers:
                person = Person.get_by_id(identifier)
                person.city = city
                person.save(only=[Person.city])

    def close(self) -> None:
        self._database.close()
