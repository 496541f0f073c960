"""Functions travel as definitions, once per connection; a digest names them afterwards.

A function that engines can import goes by name, others by value (`pickling` has the rules).
This module decides when a definition can be used again, so that sending the same function
costs a microsecond, and what a redefinition of anything that it refers to does: it takes effect
at the next call.

Theory of operation
-------------------
*On the client* a by-value function's definition is kept together with a watch on all that it
was made of: code, defaults, closure, and the global values it reads, those of its helper
functions included. As long as every one of these is the *identical* and immutable object, the
definition stands. Something mutable among them means that it is pickled anew for each call;
the bytes, and so the digest, are usually the same and nothing is sent again.

*Between processes* the sender of definitions (`SentDefinitions`) and their receiver
(`KnownDefinitions`) touch digests in the same order, that of the tasks on their connection. So
both forget the same one, and the sender knows without being told what to send again.

*On the engine* a definition is unpickled when its first task runs, in the thread that runs it.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType
from typing import Generic, NamedTuple, TypeVar, cast

from parallelz.errors import SerializationError, UnknownFunction
from parallelz.ids import Digest
from parallelz.protocol import payload
from parallelz.protocol.envelope import Buffer
from parallelz.protocol.payload import Payload
from parallelz.protocol.pickling import (
    MAIN_MODULES,
    MISSING,
    Globals,
    Supplies,
    global_names,
    goes_by_value,
    is_importable,
    set_namespace,
    use_supplies,
)
from parallelz.protocol.shared import view_of

DEFINITIONS_MAX = 512
"""How many functions each end of a connection remembers."""

_CACHED_BYTES_MAX = 1024 * 1024  # a larger definition is not kept on the client
_DIGEST_SIZE = 16

T = TypeVar("T")


class Definition(NamedTuple):
    """A function as it travels."""

    digest: Digest
    name: str
    payload: Payload


class Named(NamedTuple):
    """What the payload of a definition by name holds."""

    module: str
    qualname: str


class Reference:
    """Stands, in a call, for an object of the engine's namespace.

    Parameters
    ----------
    name
        A name, or an expression such as ``"a.b"`` or ``"x[3]"``; evaluated on the engine when
        the task runs, and NameError there if the engine does not have it. Usable as an
        argument, right inside a list, tuple or dict that is one, and as the function.
    """

    def __init__(self, name: str) -> None:
        if not isinstance(name, str):
            raise TypeError(f"a Reference is made of a str, not of {name!r}")
        self.name = name

    def __repr__(self) -> str:
        return f"<Reference: {self.name!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and other.name == self.name

    def __hash__(self) -> int:
        return hash((Reference, self.name))

    def resolve(self, namespace: dict[str, object]) -> object:
        """Return the object."""
        return eval(self.name, namespace)


def may_mention_reference(pickled: bytes) -> bool:
    """Whether there may be a `Reference` in what was pickled; for most calls there is none."""
    return _REFERENCE_MARK in pickled


_REFERENCE_MARK = Reference.__name__.encode()


def resolve_references(
    args: tuple[object, ...], kwargs: dict[str, object], namespace: dict[str, object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    """Return the arguments with what each `Reference` among them stands for."""
    if any(map(_may_refer, args)):
        args = tuple(_resolved(value, namespace) for value in args)
    if kwargs and any(map(_may_refer, kwargs.values())):
        kwargs = {name: _resolved(value, namespace) for name, value in kwargs.items()}
    return args, kwargs


def column_may_refer(column: Sequence[object]) -> bool:
    """Whether there may be a `Reference` in what a chunk of a map has for one argument."""
    return isinstance(column, list | tuple) and not _REFERRING.isdisjoint(map(type, column))


_REFERRING = frozenset([Reference, list, tuple, dict])


def _may_refer(value: object) -> bool:
    return type(value) in _REFERRING


def _resolved(value: object, namespace: dict[str, object]) -> object:
    if isinstance(value, Reference):
        return value.resolve(namespace)
    if type(value) in (list, tuple, dict):
        items = cast("Sequence[object]", value.values() if isinstance(value, dict) else value)
        if any(type(item) is Reference for item in items):
            found = [
                item.resolve(namespace) if isinstance(item, Reference) else item
                for item in items
            ]
            return (
                dict(zip(value, found, strict=True))
                if isinstance(value, dict)
                else (tuple(found) if isinstance(value, tuple) else found)
            )
    return value


# -- on the client ------------------------------------------------------------------------


def named_definition(module: str, qualname: str) -> Definition:
    """Return the definition of a function that engines import; it is not imported here."""
    return define(qualname, payload.dump(Named(module, qualname)))


def define(name: str, pickled: Payload) -> Definition:
    """Return the definition of a function that is pickled already."""
    digest = hashlib.blake2b(pickled.data, digest_size=_DIGEST_SIZE)
    for buffer in pickled.buffers:
        digest.update(view_of(buffer))
    return Definition(Digest(digest.digest()), name, pickled)


class DefinitionCache:
    """Makes the definitions of one client, each once as long as nothing about it changes."""

    def __init__(self) -> None:
        # By the id of what identifies it: its code, or the function itself if it goes by name.
        self._kept: OrderedDict[int, _ByValue | _ByName] = OrderedDict()

    def definition_of(self, function: Callable[..., object] | Reference) -> Definition:
        """Return the definition of any callable, or of a `Reference`, as it is now.

        Raises
        ------
        SerializationError
            If it refers to something that cannot be pickled, and names it. (Global values
            that cannot be pickled are left at home.)
        """
        if type(function) is not FunctionType:
            return self._of_object(function)
        kept = self._kept.get(id(function.__code__)) or self._kept.get(id(function))
        if kept is not None and kept.holds(function):
            return kept.definition
        if is_importable(function):
            definition = named_definition(function.__module__, function.__qualname__)
            self._keep(id(function), _ByName(function, definition))
            return definition
        definition = self._of_object(function)
        watch = _Watch(function)
        if watch.complete and definition.payload.nbytes <= _CACHED_BYTES_MAX:
            self._keep(id(function.__code__), _ByValue(function, watch, definition))
        return definition

    def _of_object(self, function: Callable[..., object] | Reference) -> Definition:
        name = getattr(function, "__name__", None) or type(function).__name__
        if isinstance(function, Reference):
            name = function.name
        try:
            return define(name, payload.dump(function))
        except SerializationError as error:
            raise SerializationError(f"function {name}, {error}") from error

    def _keep(self, key: int, kept: _ByValue | _ByName) -> None:
        self._kept[key] = kept
        self._kept.move_to_end(key)
        if len(self._kept) > DEFINITIONS_MAX:
            self._kept.popitem(last=False)


class _ByName:
    """The definition of a function that can be imported."""

    def __init__(self, function: FunctionType, definition: Definition) -> None:
        self.definition = definition
        self._function = function

    def holds(self, function: FunctionType) -> bool:
        return function is self._function and is_importable(function)


class _ByValue:
    """The definition of a function by value, and what it was made of.

    Functions that are made again and again, such as a lambda in a loop, are other objects of
    the same code; so what is the function's own is compared, not the function.
    """

    def __init__(self, function: FunctionType, watch: _Watch, definition: Definition) -> None:
        self.definition = definition
        self._code = function.__code__  # keeps it alive, and its id its own
        self._globals = function.__globals__
        self._name = (function.__qualname__, function.__module__)
        self._own = _own_parts(function)
        self._watch = watch
        self._is_by_choice = goes_by_value(function.__module__)

    def holds(self, function: FunctionType) -> bool:
        if (
            function.__code__ is not self._code
            or function.__globals__ is not self._globals
            or (function.__qualname__, function.__module__) != self._name
            or (self._is_by_choice and not goes_by_value(function.__module__))
        ):
            return False
        if self._own or _has_own_parts(function):
            parts = _own_parts(function)
            if len(parts) != len(self._own) or any(
                now is not then for now, then in zip(parts, self._own, strict=True)
            ):
                return False
        return self._watch.unchanged()


class _Watch:
    """All that a by-value function refers to, but what is its own.

    Attributes
    ----------
    complete
        Whether everything is immutable, or a function that is watched as well, so that
        identity means equality.
    """

    def __init__(self, function: FunctionType) -> None:
        self.complete = True
        self._globals: list[tuple[dict[str, object], str, object]] = []
        self._helpers: list[tuple[FunctionType, CodeType, list[object]]] = []
        self._module_count: int | None = None  # matters to whoever uses a package
        self._seen: set[int] = {id(function)}
        self._add(function)

    def unchanged(self) -> bool:
        for namespace, name, value in self._globals:
            if namespace.get(name, MISSING) is not value:
                return False
        for function, code, parts in self._helpers:
            now = _own_parts(function)
            if function.__code__ is not code or len(now) != len(parts):
                return False
            if any(new is not old for new, old in zip(now, parts, strict=True)):
                return False
        return self._module_count is None or self._module_count == len(sys.modules)

    def _add(self, function: FunctionType) -> None:
        for name in global_names(function.__code__):
            value = function.__globals__.get(name, MISSING)
            self._globals.append((function.__globals__, name, value))
            self._check(value)
        for value in _own_parts(function):
            self._check(value)

    def _check(self, value: object) -> None:
        if isinstance(value, ModuleType):
            if hasattr(value, "__path__"):
                self._module_count = len(sys.modules)
            self.complete &= not goes_by_value(value.__name__)
        elif isinstance(value, FunctionType):
            if id(value) not in self._seen and not is_importable(value):
                self._seen.add(id(value))
                self._helpers.append((value, value.__code__, _own_parts(value)))
                self._add(value)
        elif isinstance(value, tuple | frozenset) and type(value) in (tuple, frozenset):
            for item in value:
                self._check(item)
        elif isinstance(value, type):
            self.complete &= (
                value.__module__ not in MAIN_MODULES
                and "<locals>" not in value.__qualname__
                and not goes_by_value(value.__module__)
            )
        elif value is not MISSING and type(value) not in _ATOMS:
            self.complete = False


_ATOMS = frozenset(
    [int, float, complex, bool, str, bytes, type(None), type(...), BuiltinFunctionType]
)


def _has_own_parts(function: FunctionType) -> object:
    return (
        function.__defaults__
        or function.__kwdefaults__
        or function.__closure__
        or vars(function)
    )


def _own_parts(function: FunctionType) -> list[object]:
    """Return the values that are the function's own, and their names where they have one."""
    parts: list[object] = list(function.__defaults__ or ())
    for named in (function.__kwdefaults__, vars(function)):
        if named:
            parts += itertools.chain.from_iterable(named.items())
    return [*parts, *map(_content, function.__closure__ or ())]


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


# -- between processes --------------------------------------------------------------------


class SentDefinitions:
    """The sender's end of a connection: which definitions the receiver has."""

    def __init__(self, length_max: int = DEFINITIONS_MAX) -> None:
        self._digests: OrderedDict[Digest, None] = OrderedDict()
        self._length_max = length_max

    def __iter__(self) -> Iterator[Digest]:
        return iter(self._digests)

    def need(self, digest: Digest) -> bool:
        """Whether to send the definition before the task; call it once for each task."""
        if digest in self._digests:
            self._digests.move_to_end(digest)
            return False
        self._digests[digest] = None
        if len(self._digests) > self._length_max:
            self._digests.popitem(last=False)
        return True


class KnownDefinitions(Generic[T]):
    """The receiver's end of a connection: the same digests, and what each means."""

    def __init__(self, length_max: int = DEFINITIONS_MAX) -> None:
        self._known: OrderedDict[Digest, T] = OrderedDict()
        self._length_max = length_max

    def __iter__(self) -> Iterator[Digest]:
        return iter(self._known)

    def put(self, digest: Digest, definition: T) -> None:
        """Take in a definition, when it arrives."""
        self._known[digest] = definition
        self._known.move_to_end(digest)
        if len(self._known) > self._length_max:
            self._known.popitem(last=False)

    def get(self, digest: Digest) -> T:
        """Return what the task means, when the *task arrives*: the order of calls counts.

        Raises
        ------
        UnknownFunction
            If it was never put, or was not the sender's to name any more.
        """
        try:
            self._known.move_to_end(digest)
        except KeyError:
            raise UnknownFunction(
                f"the function {digest.hex()} of a task is not defined on this connection"
            ) from None
        return self._known[digest]


# -- on the engine ------------------------------------------------------------------------


class DefinedFunction:
    """A definition on the engine; made when it arrives, unpickled when it first runs."""

    def __init__(
        self, supplies: Supplies, name: str, data: bytes, frames: Sequence[Buffer]
    ) -> None:
        self.name = name
        self._supplies = supplies
        self._pickled: Payload | None = Payload(data, tuple(frames))
        self._function: Callable[..., object] | None = None
        self._globals = Globals({}, {})

    def resolve(self) -> Callable[..., object]:
        """Return the function, ready to be called in the namespace as it is now.

        Raises whatever unpickling or importing it raises, and again the next time.
        """
        if self._pickled is not None:
            self._load(self._pickled)
        # Another client's function may have brought something else of one of these names.
        supplied, withheld = self._globals
        if supplied:
            self._supplies.supply(supplied)
        if withheld:
            self._supplies.withhold(withheld)
        function = self._function
        if isinstance(function, Reference):
            return cast("Callable[..., object]", function.resolve(self._supplies.namespace))
        assert function is not None
        return function

    def _load(self, pickled: Payload) -> None:
        before = use_supplies(self._supplies)
        self._supplies.collected = Globals({}, {})
        try:
            loaded = payload.load(*pickled)
            self._globals = self._supplies.collected
        finally:
            self._supplies.collected = None
            use_supplies(before)
        if isinstance(loaded, Named):
            loaded = _import(loaded)
        self._function = cast("Callable[..., object]", loaded)
        self._pickled = None


class FunctionTable:
    """The functions that an engine knows.

    Parameters
    ----------
    namespace
        The globals of functions by value, from now on also of those that arrive inside
        arguments.
    """

    def __init__(self, namespace: dict[str, object]) -> None:
        self._supplies = set_namespace(namespace)
        self._known: KnownDefinitions[DefinedFunction] = KnownDefinitions()

    def define(
        self, digest: Digest, name: str, data: bytes, frames: Sequence[Buffer] = ()
    ) -> None:
        """Take in a definition, when it arrives; nothing is unpickled yet."""
        self._known.put(digest, DefinedFunction(self._supplies, name, data, frames))

    def find(self, digest: Digest) -> DefinedFunction:
        """Return the definition, when its *task arrives*; its `resolve` is for when it runs.

        Raises
        ------
        UnknownFunction
            If it is not known.
        """
        return self._known.get(digest)

    def resolve(self, digest: Digest) -> Callable[..., object]:
        """Return the function itself, for tasks that run in the order in which they arrive."""
        return self._known.get(digest).resolve()


def _import(named: Named) -> object:
    found: object = importlib.import_module(named.module)
    for name in named.qualname.split("."):
        found = getattr(found, name)
    return found
