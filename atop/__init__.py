"""Atop: Atomic Transactional Object Persistence, an object store for personal data."""

from atop.backup import restore
from atop.conflicts import ConflictItem, Conflicts
from atop.errors import (
    AtopError,
    Conflict,
    NoMaster,
    NoSuchCall,
    NoSuchCommit,
    NoSuchFile,
    NoSuchIndex,
    NoSuchItem,
    NoSuchPool,
    NoSuchStore,
    NoTransaction,
    ReadOnlyItem,
    Restricted,
    StoreBusy,
    StoreClosed,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreReadOnly,
    TransactionTooLarge,
    UndoRefused,
    UnknownFormat,
    UnsafePickle,
    UnstorableValue,
    UnsupportedStore,
    UpgradeFailed,
)
from atop.files import File
from atop.indexes import IndexDefinition
from atop.item import Item, ref, upgrade
from atop.journal import Change, Commit, Revision
from atop.maintenance import CompactReport
from atop.pool import Index, Page, Pool
from atop.store import Store, transacted
from atop.values import FileInfo, Reference, UnknownValue, register_value
from atop.verify import VerifyReport
from atop.watching import Watch

__version__ = "0.1.0"

__all__ = [
    "AtopError",
    "Change",
    "Commit",
    "CompactReport",
    "Conflict",
    "ConflictItem",
    "Conflicts",
    "File",
    "FileInfo",
    "Index",
    "IndexDefinition",
    "Item",
    "NoMaster",
    "NoSuchCall",
    "NoSuchCommit",
    "NoSuchFile",
    "NoSuchIndex",
    "NoSuchItem",
    "NoSuchPool",
    "NoSuchStore",
    "NoTransaction",
    "Page",
    "Pool",
    "ReadOnlyItem",
    "Reference",
    "Restricted",
    "Revision",
    "Store",
    "StoreBusy",
    "StoreClosed",
    "StoreDamaged",
    "StoreError",
    "StoreFull",
    "StoreReadOnly",
    "TransactionTooLarge",
    "UndoRefused",
    "UnknownFormat",
    "UnknownValue",
    "UnsafePickle",
    "UnstorableValue",
    "UnsupportedStore",
    "UpgradeFailed",
    "VerifyReport",
    "Watch",
    "ref",
    "register_value",
    "restore",
    "transacted",
    "upgrade",
]
