"""Items: objects that are just there.

A class of items lists its attributes with annotations; `Item` itself takes any attributes. Reading and assigning
attributes is all there is to do: what is read comes from the store, what is assigned goes there with the current
transaction, or in one of its own.

Within a store the same id is the same object for as long as anyone holds it, in every thread; what a transaction has
changed and not committed is seen by that transaction alone. The object itself holds only committed state, so a
transaction that fails has nothing to put back.

Names that begin with an underscore are not stored: they are the program's own, on this object, in this process.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, dataclass_transform

from atop.containers import TRACKED, Root, present
from atop.errors import Conflict, NoSuchItem, ReadOnlyItem, UnstorableValue, UpgradeFailed
from atop.records import State
from atop.transaction import CURRENT, Transaction, current
from atop.values import ATOMS, FileInfo, Reference, live_converters, plain_text, to_stored, walk
from atop.writeset import same

if TYPE_CHECKING:
    from atop.journal import Revision
    from atop.pool import Pool
    from atop.store import Store

T = TypeVar("T")
Rule = Literal["nullify", "cascade", "restrict"]

_MISSING: Any = object()

_classes: dict[str, type[Item]] = {}  # type name -> the class defined last under it


class _Ref:
    """What `ref()` leaves in a class body for the metaclass to find."""

    __slots__ = ("default", "on_delete")

    def __init__(self, default: Any, on_delete: Rule) -> None:
        self.default = default
        self.on_delete = on_delete


def ref(*, default: Any = None, on_delete: Rule = "nullify") -> Any:
    """An attribute that refers to other items, with what happens when such an item is deleted.

    - `nullify` (what every attribute does): the attribute becomes None, or loses that element of its list or set.
    - `cascade`: this item is deleted too.
    - `restrict`: the deletion is refused with `Restricted`.
    """
    if on_delete not in ("nullify", "cascade", "restrict"):
        raise ValueError(f"on_delete must be nullify, cascade or restrict, not {on_delete!r}")
    return _Ref(default, on_delete)


UpgradeFunction = Callable[[dict[str, Any]], dict[str, Any]]


def upgrade(from_version: int) -> Callable[[UpgradeFunction], UpgradeFunction]:
    """Mark a function in a class body as the step from `from_version` of the class to the next.

    It is given the attributes as a dict in their stored form, and returns the new ones. It has no `self`: with
    `@staticmethod` beside it, type checkers and linters know that too.
    """

    def mark(function: UpgradeFunction) -> UpgradeFunction:
        function._upgrade_from = from_version  # type: ignore[attr-defined]  # a mark of ours on a plain function
        return function

    return mark


class Field:
    """The descriptor behind an annotated attribute of an item class."""

    __slots__ = ("default", "name", "on_delete", "required")

    def __init__(self, name: str, default: Any, on_delete: Rule) -> None:
        self.name = name
        self.required = default is _MISSING
        self.default = None if self.required else to_stored(default, f"the default of {name!r}")
        if next(walk(self.default), None) is not None:
            raise TypeError(f"the default of {name!r} cannot be an item or a file: those belong to one store")
        self.on_delete = on_delete

    def __get__(self, item: Item | None, owner: type | None = None) -> Any:
        if item is None:
            return self
        if CURRENT.get() is None:  # noqa: SIM108 - the way that most reads take should be easy to see
            attributes = (item._state or item._load()).attributes
        else:
            attributes = item._read()
        try:
            value = attributes[self.name]
        except KeyError:
            if self.required:
                raise item._no_attribute(self.name) from None
            value = self.default
        return value if type(value) in ATOMS else item._present(self.name, value)


def _slot(*, kw_only: bool = True) -> Any:
    """How `Item` describes its own slots to type checkers (PEP 681); never called."""


# `ref` is not among the specifiers, so that an attribute which is assigned one counts as having a default.
def _annotations(namespace: dict[str, Any]) -> dict[str, Any]:
    """The annotations in a class body; Python 3.14 and later work them out only when asked (PEP 649)."""
    if sys.version_info >= (3, 14) and "__annotations__" not in namespace:
        import annotationlib

        annotate = annotationlib.get_annotate_from_class_namespace(namespace)
        if annotate is None:
            return {}
        return annotationlib.call_annotate_function(annotate, annotationlib.Format.FORWARDREF)
    found: dict[str, Any] = namespace.get("__annotations__", {})
    return found


@dataclass_transform(kw_only_default=True, field_specifiers=(_slot,))
class ItemMeta(type):
    """Collects the annotated attributes of item classes, and registers the classes by type name."""

    _fields: dict[str, Field]
    _defaults: dict[str, Any]
    _required: frozenset[str]
    _upgrades: dict[int, UpgradeFunction]
    _schema: int
    _type_name: str
    _setters: dict[str, bool]

    def __new__(
        mcs,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        version: int | None = None,
        type_name: str = "",
    ) -> Any:
        """Make the class; `version` is the schema version of its records, `type_name` what they call it.

        A class that gives no version has the version and the upgrades of the class that it extends.
        """
        inherited_upgrades: dict[int, UpgradeFunction] = {}
        if version is None:
            extended = max(bases, key=lambda base: getattr(base, "_schema", 0), default=None)
            version = getattr(extended, "_schema", 1)
            inherited_upgrades = getattr(extended, "_upgrades", {})
        if type(version) is not int or version < 1:
            raise TypeError(f"class {name}: version must be 1 or more, not {version!r}")
        own = mcs._take_fields(name, bases, namespace)
        cls = super().__new__(mcs, name, bases, namespace)
        inherited: dict[str, Field] = {}
        for base in reversed(cls.__mro__[1:]):
            inherited.update(base.__dict__.get("_own_fields", {}))
        cls._own_fields = own  # type: ignore[attr-defined]  # read back just above, by subclasses
        cls._fields = fields = {**inherited, **own}
        cls._defaults = {n: f.default for n, f in fields.items() if not f.required}
        cls._required = frozenset(n for n, f in fields.items() if f.required)
        own_upgrades = {f._upgrade_from: f for f in namespace.values() if hasattr(f, "_upgrade_from")}
        cls._upgrades = {**inherited_upgrades, **own_upgrades}
        cls._schema = version
        cls._type_name = plain_text(type_name) or f"{cls.__module__}.{cls.__qualname__}"
        cls._setters = {}
        _classes[cls._type_name] = cls  # type: ignore[assignment]  # every class made here is an Item class
        return cls

    @staticmethod
    def _take_fields(class_name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> dict[str, Field]:
        """Replace the annotated attributes in a class body, and new defaults of inherited ones, by descriptors."""
        fields: dict[str, Field] = {}
        if namespace.get("__module__") == __name__:
            return fields  # Item's own annotations are not attributes of items
        for name, annotation in _annotations(namespace).items():
            if name.startswith("_") or "ClassVar" in str(annotation):
                continue
            if name in _RESERVED:
                raise TypeError(f"class {class_name}: {name!r} is a name of Item's own; call the attribute otherwise")
            default = namespace.get(name, _MISSING)
            rule: Rule = "nullify"
            if isinstance(default, _Ref):
                default, rule = default.default, default.on_delete
            fields[name] = Field(name, default, rule)
        inherited = {name: f for base in reversed(bases) for name, f in getattr(base, "_fields", {}).items()}
        for name, value in namespace.items():
            if name in fields:
                continue
            if isinstance(value, _Ref):
                raise TypeError(
                    f"class {class_name}: {name} = ref(...) needs an annotation: {name}: Item | None = ref()"
                )
            if name in inherited and not hasattr(type(value), "__get__"):
                fields[name] = Field(name, value, inherited[name].on_delete)
        namespace.update(fields)
        return fields

    if not TYPE_CHECKING:  # a checker should see the constructor that the annotations describe

        def __call__(cls, store, /, *arguments, **attributes):
            """Make an item, as one transaction where none is under way."""
            transaction = current(store)
            if transaction is None:
                if not hasattr(store, "_new_item_id"):
                    raise TypeError(f"{cls.__name__}(store, ...): the first argument is a Store, not {store!r}")
                make = functools.partial(super().__call__, store, *arguments, **attributes)
                return store.transact(make, label=f"create {cls.__name__}")
            if cls.__init__ is Item.__init__:
                return super().__call__(store, *arguments, **attributes)
            with transaction.savepoint():  # an `__init__` that raises half-way leaves no half of an item behind
                return super().__call__(store, *arguments, **attributes)


class Bare:
    """What an item holds in memory, and nothing else: here its slots can be set by assigning to them."""

    __slots__ = ("__dict__", "__weakref__", "_id", "_state", "_store", "_views")

    if TYPE_CHECKING:
        _store: Store
        _id: int
        # As last committed, or None until it is needed; replaced, never changed.
        _state: State | None
        # A state, and attribute -> container that shows what it has there, for reads outside of transactions. Not
        # used unless the state is the item's.
        _views: tuple[State, dict[str, Any]] | None


class Item(Bare, metaclass=ItemMeta, type_name="atop.Item"):
    """An object in a store. Subclass it with annotated attributes, or use it as it is with any."""

    __slots__ = ()

    if TYPE_CHECKING:
        _fields: ClassVar[dict[str, Field]]
        _setters: ClassVar[dict[str, bool]]
        # The only positional argument of the constructor that checkers work out for subclasses.
        store: Store = _slot(kw_only=False)

    def __init__(self, store: Store, /, **attributes: Any) -> None:
        """Create an item in `store` with these attributes.

        Raises:
            TypeError: an attribute without a default is missing, or has a name that cannot be used.
            UnstorableValue: a value is of a type that the store does not keep.
        """
        cls = type(self)
        transaction = current(store)
        if transaction is None:
            raise TypeError(
                f"{cls.__name__}.__init__ is not called by itself: {cls.__name__}(store, ...) makes an item"
            )
        fields = cls._fields
        later: dict[str, Any] = {}
        if set(map(type, attributes)) != _PLAIN_NAMES:
            attributes = {plain_text(name): value for name, value in attributes.items()}
        for name, value in attributes.items():
            if name[:1] == "_":
                raise TypeError(
                    f"{cls.__name__}: {name!r} begins with an underscore, so it is not stored: set it later"
                )
            if type(value) not in ATOMS:
                attributes[name] = to_stored(value, f"{cls.__name__}.{name}", store)
            if name not in fields and not self._stores(name):
                later[name] = value
        for name in later:
            del attributes[name]
        if not cls._required <= attributes.keys():
            missing = cls._required - attributes.keys()
            raise TypeError(f"{cls.__name__} needs {', '.join(sorted(missing))}")
        set_slots(self, store, store._new_item_id())
        if not later:
            transaction.create(self, {**cls._defaults, **attributes})
            store._objects.remember(self)
            return
        with transaction.savepoint():  # what the class's own properties refuse leaves no item behind
            transaction.create(self, {**cls._defaults, **attributes})
            store._objects.remember(self)
            for name, value in later.items():
                setattr(self, name, value)

    # -- what every item has

    if not TYPE_CHECKING:

        @property
        def store(self):
            """The store that holds this item."""
            return self._store

    @property
    def item_id(self) -> int:
        """The number of this item: the same on every device, and never used again."""
        return self._id

    @property
    def type_name(self) -> str:
        """What records call the class of this item, also where that class is not imported."""
        transaction = current(self._store)
        if transaction is not None and transaction.created(self._id):
            return type(self)._type_name
        return (self._state or self._load()).type_name

    @property
    def version(self) -> int:
        """The id of the commit that last wrote this item; 0 before its first."""
        transaction = current(self._store)
        if transaction is not None and transaction.created(self._id):
            return 0
        return (self._state or self._load()).version

    @property
    def attributes(self) -> Mapping[str, Any]:
        """All attributes by name, those with a default included. Read-only; a copy as of now."""
        names = [*self._fields, *(n for n in self._read() if n not in self._fields)]
        return MappingProxyType({n: v for n in names if (v := getattr(self, n, _MISSING)) is not _MISSING})

    @property
    def pools(self) -> tuple[Pool, ...]:
        """The pools that hold this item."""
        return tuple(self._store._pool_by_id(pool_id) for pool_id in self._pool_ids())

    def delete(self) -> None:
        """Delete this item, and do to those that refer to it what their attributes say (see `ref`).

        Raises:
            Restricted: an item that refers to this one forbids it.
        """
        self._store._run(lambda t: t.delete(self), f"delete {self._label()}")

    def touch(self) -> None:
        """Write this item again with the current transaction, as if it had changed."""
        self._store._run(lambda t: t.touch(self), f"touch {self._label()}")

    def referrers(self, attribute: str | None = None) -> Iterator[Item]:
        """The items that refer to this one, in order of id; with `attribute`, only those that do so there."""
        return self._store._referrers(self, attribute)

    def history(self, limit: int | None = None) -> Iterator[Revision]:
        """The commits that wrote this item, latest first, as far as the journal goes back; at most `limit`."""
        return self._store._item_history(self, limit)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Item):
            return NotImplemented
        return self._id == other._id and self._store is other._store

    def __hash__(self) -> int:
        return hash(self._id)

    def __repr__(self) -> str:
        try:
            named = self._read().get("name") or self._read().get("title")
        except NoSuchItem:
            return f"<{type(self).__name__} {self._id}, deleted>"
        except Exception as error:
            return f"<{type(self).__name__} {self._id}, unreadable: {error}>"
        return f"<{type(self).__name__} {self._id}{f' {_shown(named)}' if named is not None else ''}>"

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._read()]

    def __copy__(self) -> Item:
        return self

    def __deepcopy__(self, memo: Any) -> Item:
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(f"{self!r} belongs to its store: keep item_id, and get it again with store.get(item_id)")

    # -- attributes

    if not TYPE_CHECKING:  # a checker should report misspelt attributes of annotated classes

        def __getattr__(self, name):
            if name.startswith("_"):
                hint = ": call super().__init__(store, ...) first" if name == "_store" else ""
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}")
            value = self._read().get(name, _MISSING)
            if value is _MISSING:
                raise self._no_attribute(name)
            return value if type(value) in ATOMS else self._present(name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if type(name) is not str:
            name = plain_text(name)
        if not (type(self)._setters.get(name) or self._stores(name)):
            object.__setattr__(self, name, value)
            return
        stored = value if type(value) in ATOMS else to_stored(value, f"{self._label()}.{name}", self._store)
        transaction = current(self._store)
        if transaction is not None:
            transaction.assign(self, name, stored)
        else:
            self._store._run(lambda t: t.assign(self, name, stored), f"set {name} of {self._label()}")

    def __delattr__(self, name: str) -> None:
        name = plain_text(name)
        if not self._stores(name):
            object.__delattr__(self, name)
            return
        if name not in self._read() and name not in type(self)._defaults:
            raise self._no_attribute(name)
        self._store._run(lambda t: t.unassign(self, name), f"remove {name} of {self._label()}")

    @classmethod
    def _stores(cls, name: str) -> bool:
        """Whether assigning `name` writes to the store; False for `_names` and for properties of the class."""
        stores = cls._setters.get(name)
        if stores is None:
            there = _MISSING if name.startswith("_") else getattr(cls, name, _MISSING)
            if not name:
                raise AttributeError("an attribute needs a name")
            stores = not name.startswith("_") and (there is _MISSING or isinstance(there, Field))
            if not stores and not name.startswith("_") and not hasattr(type(there), "__set__"):
                raise AttributeError(
                    f"{name!r} is a name of class {cls.__name__}, so it cannot be an attribute of its items"
                )
            if name in _RESERVED:
                raise AttributeError(f"{name!r} of an item cannot be assigned")
            if stores and any("\ud800" <= character <= "\udfff" for character in name):
                raise UnstorableValue(f"{name!r} cannot be an attribute: it is no text that can be written as UTF-8")
            cls._setters[sys.intern(name)] = stores
        return stores

    def _no_attribute(self, name: str) -> AttributeError:
        return AttributeError(f"{self!r} has no attribute {name!r}", name=name, obj=self)

    def _read(self) -> dict[str, Any]:
        """The stored attributes, as the current transaction sees them. Not to be changed."""
        transaction = current(self._store)
        if transaction is None:
            return (self._state or self._load()).attributes
        return transaction.read(self)

    def _pool_ids(self) -> tuple[int, ...]:
        transaction = current(self._store)
        if transaction is None:
            return (self._state or self._load()).pools
        return transaction.pools_of(self)

    def _load(self) -> State:
        """Fetch the committed state. Raises `NoSuchItem` if the item is not there (any more)."""
        return self._store._objects.load_state(self)

    def _adapt(self, state: State) -> State:
        """The state as this class knows it: with the upgrades that lead from the record's version to the class's."""
        cls = type(self)
        if state.schema >= cls._schema or state.type_name != cls._type_name:
            return state
        attributes = dict(state.attributes)
        for version in range(state.schema, cls._schema):
            step = cls._upgrades.get(version)
            if step is None:
                continue
            try:
                given = {n: to_stored(v, n) for n, v in attributes.items()}  # a copy: the step may change it in place
                attributes = {str(n): to_stored(v, f"{cls.__name__}.{n}") for n, v in step(given).items()}
            except Exception as error:
                raise UpgradeFailed(
                    f"item {self._id}: the upgrade of {cls._type_name} from version {version} failed: "
                    f"{type(error).__name__}: {error}; the item is unchanged",
                    self._id,
                ) from error
        return state._replace(attributes=attributes, schema=cls._schema, raw=state)

    def _write_back(self, transaction: Transaction) -> bool:
        """Write the item if its record is behind its class; returns whether it is.

        It is where reading it takes an upgrade, or a default that is not None and that the class was given since.
        """
        state = transaction.state(self)
        held = state.attributes
        lacking = {n: d for n, d in type(self)._defaults.items() if d is not None and n not in held}
        if state.raw is None and not lacking:
            return False
        transaction.touch(self)
        transaction.write(self).update(lacking)
        return True

    def _check_writable(self, state: State) -> None:
        """Raise `ReadOnlyItem` if this program does not know the class, or the version, that wrote the item."""
        cls = type(self)
        if state.type_name == cls._type_name and state.schema <= cls._schema:
            return
        known = class_named(state.type_name)
        if known is None:
            raise ReadOnlyItem(
                f"item {self._id} is a {state.type_name}, which this program has not imported: import it to change it"
            )
        if state.schema > known._schema:
            raise ReadOnlyItem(
                f"item {self._id} was written by version {state.schema} of {state.type_name}; "
                f"this program has version {known._schema}: update it to change the item"
            )
        raise ReadOnlyItem(
            f"item {self._id} was read before {state.type_name} was imported: let go of it, and get it again"
        )

    def _present(self, name: str, stored: Any) -> Any:
        """The live form of a stored value of attribute `name`."""
        if type(stored) is Reference or type(stored) is FileInfo:
            return self._live_value(stored)
        if type(stored) in TRACKED or type(stored) not in _CONTAINERS:
            return stored
        transaction = current(self._store)
        if transaction is not None:
            views = transaction.views.setdefault(self._id, {})
            if name not in views and self._views is not None:
                view = self._views[1].get(name)  # the program may hold it: it should see what it changes
                if view is not None and same(to_stored(view, name), stored):
                    self._views[1].pop(name, None)
                    views[name] = view
        else:
            state = self._state
            if state is None or state.attributes.get(name, self._default(name)) is not stored:
                return present(stored, self, name)  # another thread's commit has come between
            views = self._views_of(state)
        view = views.get(name)
        if view is None:
            view = views[name] = present(stored, self, name)
        return view

    def _views_of(self, state: State) -> dict[str, Any]:
        """The containers that show the attributes of the item's present state."""
        views = self._views
        if views is None or views[0] is not state:
            views = state, {}
            set_views(self, views)
        return views[1]

    def _keep_view(self, name: str, top: Any) -> None:
        """Show this container from now on, if it holds what the attribute does."""
        state = self._state
        if state is not None:
            held = state.attributes.get(name, self._default(name))
            if same(to_stored(top, name), held):
                self._views_of(state).setdefault(name, top)

    def _live_value(self, stored: Reference | FileInfo) -> Any:
        """The item or file that a stored value stands for; None for an item that is gone."""
        if type(stored) is FileInfo:
            return self._store._file(stored)
        return self._store._objects.find(stored.item_id)  # type: ignore[union-attr]  # not a FileInfo, so a Reference

    def _before_delete(self, transaction: Transaction) -> None:
        """Called in the transaction that deletes the item, before it does."""

    def _after_restore(self, transaction: Transaction) -> None:
        """Called in the transaction that brings the deleted item back, when it has."""

    def _change_container(self, root: Root, operate: Callable[[], T]) -> T:
        """Change a container of this item in the current transaction, or in one of its own."""

        def change(transaction: Transaction) -> T:
            attributes = transaction.write(self)
            held = attributes.get(root.name, self._default(root.name))
            if held is not root.top:
                root.take(transaction)
                shown = to_stored(root.top, root.name)
                if not same(shown, to_stored(held, root.name) if type(held) in TRACKED else held):
                    raise Conflict(
                        f"item {self._id}: {root.name} changed since this {type(shown).__name__} was read from it: "
                        "read the attribute again",
                        self._id,
                    )
                attributes[root.name] = root.top
                transaction.views.setdefault(self._id, {})[root.name] = root.top
                transaction.borrow(root.top)
                if self._views is not None:
                    self._views[1].pop(root.name, None)
            return operate()

        if current(self._store) is not None:
            return self._store._run(change, "")
        # One try: what `operate` changes is the caller's object, which a second try would find changed.
        with self._store.transaction(f"change {root.name} of {self._label()}") as transaction:
            return change(transaction)

    def _default(self, name: str) -> Any:
        field = self._fields.get(name)
        return None if field is None else field.default

    def _label(self) -> str:
        return f"{type(self).__name__} {self._id}"


# The slots of an item are set with these, and by `make`, past `Item.__setattr__`, which writes to the store.
set_store: Callable[[Item, Any], None] = Item._store.__set__  # type: ignore[attr-defined]  # a slot
set_id: Callable[[Item, int], None] = Item._id.__set__  # type: ignore[attr-defined]  # a slot
set_state: Callable[[Item, State | None], None] = Item._state.__set__  # type: ignore[union-attr]  # a slot
set_views: Callable[[Item, Any], None] = Item._views.__set__  # type: ignore[union-attr]  # a slot


def make(cls: type[Item], store: Store, item_id: int, state: State | None) -> Item:
    """A new object that stands for an item. What the class does when it is called is not done."""
    # To set the slots of a bare one takes a fraction of what those of an item take, for an empty `__dict__` (64 bytes).
    bare: Any = Bare()
    bare._store = store
    bare._id = item_id
    bare._state = state
    bare._views = None
    try:
        bare.__class__ = cls
    except TypeError:  # it has slots of its own
        item = object.__new__(cls)
        set_slots(item, store, item_id)
        set_state(item, state)
        return item
    made: Item = bare
    return made


def set_slots(item: Item, store: Store, item_id: int) -> None:
    """Make a bare object stand for an item, without its state."""
    set_store(item, store)
    set_id(item, item_id)
    set_state(item, None)
    set_views(item, None)


_PLAIN_NAMES = {str}
_CONTAINERS = frozenset({list, dict, set, tuple, frozenset})
_RESERVED: frozenset[str] = frozenset()
_RESERVED = frozenset(n for n in vars(Item) if not n.startswith("_"))


def class_named(type_name: str) -> type[Item] | None:
    """The imported class whose records have this type name."""
    return _classes.get(type_name)


def lacks_default(state: State, names: Iterable[str]) -> bool:
    """Whether reading one of these attributes gives a default that the record does not hold, and so no index has."""
    cls = class_named(state.type_name)
    if cls is None or cls._schema < state.schema:
        return False
    return any(n not in state.attributes and cls._defaults.get(n) is not None for n in names)


def _shown(value: Any) -> str:
    """What `repr` says, which refuses integers of thousands of digits."""
    try:
        return repr(value)
    except ValueError:
        return hex(value) if isinstance(value, int) else f"{type(value).__name__} with a very large number"


def _convert_item(value: Any, store: Store | None) -> Reference | None:
    if not isinstance(value, Item):
        return None
    if store is not None and value._store is not store:
        raise UnstorableValue(f"{value!r} belongs to another store, so an item of this one cannot refer to it")
    if store is not None and store._objects.find(value._id) is None:
        raise NoSuchItem(value._id)
    return Reference(value._id)


live_converters.append(_convert_item)
