"""What pickle alone cannot send: functions by value, memoryviews, users' own types.

A function that the other side can import goes by name, and this module has nothing to do with
it. Any other goes *by value*: its code, defaults, closure, its lines of source, and the values
of the global names that its code reads. Where it arrives,

* a function of ``__main__`` has the namespace (of the engine; on a client that of ``__main__``)
  as its globals. The names that came with it are *supplied*: set there, unless the user has set
  them otherwise. A name that was supplied may be supplied again with another value, one that
  the user has set may not;
* a function made inside another module, such as a lambda of a library, has globals of its own,
  so that what users call their things does not reach into libraries.

A global value that is large or cannot be pickled stays at home, and a `NameError` about it on
the engine gets a hint that says so.

What is in modules that the user has named to cloudpickle (`register_pickle_by_value`) counts as
not importable.
"""

from __future__ import annotations

import array
import builtins
import copyreg
import dis
import functools
import io
import marshal
import pickle
import sys
from collections.abc import Callable, Mapping
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

import cloudpickle
from cloudpickle import list_registry_pickle_by_value

from parallelz.protocol.source_lines import show_source, source_of

MAIN_MODULES = (None, "__main__", "__mp_main__")
VALUE_BYTES_MAX = 64 * 1024
"""A global value of more, pickled, does not travel along with a function."""

MISSING = object()
_LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_EVERYWHERE = {"__name__", "__builtins__", "__spec__", "__loader__", "__package__", "__doc__"}

serializers: dict[type, tuple[Callable[..., object], Callable[..., object]]] = {}
"""By exact type: what to send instead, and how to make the object of that."""


# -- where functions of __main__ arrive ---------------------------------------------------


class Globals(NamedTuple):
    """What a function and its helpers came with, and why other values did not come along."""

    supplied: dict[str, object]
    withheld: dict[str, str]  # reasons


class Supplies:
    """What clients' functions brought into a namespace, as opposed to what users set there."""

    def __init__(self, namespace: dict[str, object]) -> None:
        self.namespace = namespace
        self.collected: Globals | None = None  # of the function being loaded
        self._supplied: dict[str, object] = {}
        self._withheld: dict[str, str] = {}

    def supply(self, values: Mapping[str, object]) -> None:
        """Set these names, except those that the user has set."""
        for name, value in values.items():
            present = self.namespace.get(name, MISSING)
            if present is value:
                continue
            if present is MISSING or present is self._supplied.get(name, MISSING):
                self.namespace[name] = self._supplied[name] = value

    def withhold(self, reasons: Mapping[str, str]) -> None:
        """Remember why these names did not come along; no earlier value stands for them."""
        self._withheld.update(reasons)
        for name in reasons:
            supplied = self._supplied.pop(name, MISSING)
            if supplied is not MISSING and self.namespace.get(name, MISSING) is supplied:
                del self.namespace[name]

    def explain(self, reasons: Mapping[str, str]) -> None:
        """Remember why these names did not come along with a function of another module."""
        self._withheld.update(reasons)

    def hint(self, name: str) -> str:
        """Return why `name` did not come along; empty if it never was to."""
        reason = self._withheld.get(name)
        return f"{name!r} of the client did not come along: it {reason}" if reason else ""


_current = Supplies(sys.modules["__main__"].__dict__)


def current_supplies() -> Supplies:
    """Return those of the namespace where functions of ``__main__`` arrive."""
    return _current


def set_namespace(namespace: dict[str, object]) -> Supplies:
    """Let functions of ``__main__`` that are unpickled from now on have these globals."""
    if _current.namespace is not namespace:
        use_supplies(Supplies(namespace))
    return _current


def use_supplies(supplies: Supplies) -> Supplies:
    """Let functions of ``__main__`` arrive there from now on; return where they did before."""
    global _current
    before, _current = _current, supplies
    return before


# -- what a function is made of -----------------------------------------------------------


class FunctionState(NamedTuple):
    """What is set on a function after it was made, since it may refer to the function."""

    name: str
    qualname: str
    module: str | None
    doc: str | None
    defaults: tuple[object, ...] | None
    kwdefaults: dict[str, object] | None
    cells: dict[int, object]  # contents of the closure; an empty cell is left out
    attributes: dict[str, object]
    supplied: dict[str, object]
    withheld: dict[str, str]
    source: tuple[str, int, str]  # file name, number of the first line, the lines


def goes_by_value(module_name: str | None) -> bool:
    """Whether the user wants what is in this module, or a package around it, sent by value."""
    registered = list_registry_pickle_by_value()
    if not registered or module_name is None:
        return False
    return any(f"{module_name}.".startswith(f"{name}.") for name in registered)


def is_importable(function: FunctionType) -> bool:
    """Whether another process gets this function by importing its module."""
    if function.__module__ in MAIN_MODULES or goes_by_value(function.__module__):
        return False
    module = sys.modules.get(function.__module__)
    if module is None or getattr(module, "__spec__", None) is None:
        return False
    found: object = module
    for name in function.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is function


@functools.lru_cache(maxsize=1024)
def global_names(code: CodeType) -> tuple[str, ...]:
    """Return the global names that the code, and code inside it, reads, in order of use."""
    names = dict.fromkeys(
        step.argval for step in dis.get_instructions(code) if step.opname in _LOADS
    )
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names.update(dict.fromkeys(global_names(constant)))
    return tuple(name for name in names if name not in _EVERYWHERE)


def submodules_of(module: ModuleType, code: CodeType) -> list[str]:
    """Return the imported modules inside `module` that the code may reach by attributes."""
    words = _words(code)
    prefix = module.__name__ + "."
    return [
        name
        for name in list(sys.modules)
        if name.startswith(prefix) and words.issuperset(name[len(prefix) :].split("."))
    ]


@functools.lru_cache(maxsize=1024)
def _words(code: CodeType) -> frozenset[str]:
    inner = (_words(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return frozenset(code.co_names).union(*inner)


def _globals_to_send(function: FunctionType) -> tuple[dict[str, object], dict[str, str]]:
    """Return the global values to send along, and why others are not."""
    supplied: dict[str, object] = {}
    withheld: dict[str, str] = {}
    is_of_main = function.__module__ in MAIN_MODULES
    remedy = "push it, or make it an argument" if is_of_main else "make it an argument"
    for name in global_names(function.__code__):
        value = function.__globals__.get(name, MISSING)
        if value is MISSING:
            continue  # built in, or the engine has it, or it is an error to show there
        if isinstance(value, ModuleType):
            submodules = submodules_of(value, function.__code__)
            supplied[name] = _Package(value, submodules) if submodules else value
        elif isinstance(value, FunctionType | type) or not (
            reason := _why_withheld(value, remedy)
        ):
            supplied[name] = value
        elif is_of_main or goes_by_value(function.__module__):
            withheld[name] = reason
        else:
            supplied[name] = _Attribute(function.__module__, name)
    return supplied, withheld


def _reduce_function(
    function: FunctionType, own_globals: dict[int, dict[str, object]]
) -> tuple[object, ...]:
    own = None
    if function.__module__ not in MAIN_MODULES:
        # One dict for all functions of a module, so that they still share their globals.
        fresh: dict[str, object] = {"__name__": function.__module__}
        own = own_globals.setdefault(id(function.__globals__), fresh)
    cells = {}
    for number, cell in enumerate(function.__closure__ or ()):
        try:
            cells[number] = cell.cell_contents
        except ValueError:
            continue  # empty: the variable has no value yet
    state = FunctionState(
        function.__name__,
        function.__qualname__,
        function.__module__,
        function.__doc__,
        function.__defaults__,
        function.__kwdefaults__,
        cells,
        dict(vars(function)),
        *_globals_to_send(function),
        source_of(function),
    )
    made_of = (function.__code__, own, len(function.__closure__ or ()))
    return (_make_function, made_of, tuple(state), None, None, _set_function)


@functools.lru_cache(maxsize=1024)
def _marshalled(code: CodeType, filename: str) -> bytes:
    # Marshalling twice may give different bytes, which would be two digests. The file name is
    # there for the cache: without it, codes of different files may be equal.
    assert code.co_filename == filename
    return marshal.dumps(code)


def _make_function(
    code: CodeType, own: dict[str, object] | None, cell_count: int
) -> FunctionType:
    namespace = _current.namespace
    if own is not None:
        # What is written in C and imports something, as numpy does, looks for it there.
        own.setdefault("__builtins__", builtins)
        namespace = own
    cells = tuple(CellType() for _ in range(cell_count))
    return FunctionType(code, namespace, None, None, cells)


def _set_function(function: FunctionType, values: tuple[object, ...]) -> None:
    state = FunctionState(*values)  # type: ignore[arg-type]
    function.__name__ = state.name
    function.__qualname__ = state.qualname
    function.__module__ = state.module or "__main__"
    function.__doc__ = state.doc
    function.__defaults__ = state.defaults
    function.__kwdefaults__ = state.kwdefaults
    vars(function).update(state.attributes)
    for number, content in state.cells.items():
        assert function.__closure__ is not None
        function.__closure__[number].cell_contents = content
    show_source(*state.source)
    if function.__globals__ is not _current.namespace:
        function.__globals__.update(state.supplied)
        _current.explain(state.withheld)
        return
    _current.supply(state.supplied)
    _current.withhold(state.withheld)
    if _current.collected is not None:
        _current.collected.supplied.update(state.supplied)
        _current.collected.withheld.update(state.withheld)


# -- the picklers -------------------------------------------------------------------------


class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles whatever can be, functions and classes that cannot be imported by value."""

    def __init__(
        self, file: io.BytesIO, buffer_callback: Callable[[pickle.PickleBuffer], object]
    ) -> None:
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)
        self._own_globals: dict[int, dict[str, object]] = {}

    def reducer_override(self, obj: object) -> object:
        """For pickle: return how to make `obj`, or NotImplemented."""
        kind = type(obj)
        if kind is FunctionType and not is_importable(obj):  # type: ignore[arg-type]
            return _reduce_function(obj, self._own_globals)  # type: ignore[arg-type]
        if kind is CodeType:
            # Not as cloudpickle does it, which drops the file name, and with it the lines.
            return (marshal.loads, (_marshalled(obj, obj.co_filename),))  # type: ignore[attr-defined]
        if kind is memoryview:
            return reduce_memoryview(obj)  # type: ignore[arg-type]
        if kind in serializers:
            return reduce_registered(obj)
        return super().reducer_override(obj)


class SerializerTable(dict[type, Callable[[object], object]]):
    """Pickle's table of reducers with the registered types, for the plain C pickler."""

    def __missing__(self, kind: type) -> Callable[[object], object]:
        if kind in serializers:
            return reduce_registered
        return copyreg.dispatch_table[kind]


def reduce_registered(obj: object) -> tuple[object, ...]:
    """Return how to make an object of a registered type."""
    serialize, deserialize = serializers[type(obj)]
    return (deserialize, (serialize(obj),))


def reduce_memoryview(view: memoryview) -> tuple[object, ...]:
    """Return how to make an equal, read-only view; contiguous memory is not copied."""
    if not _can_be_cast(view) and (array := _as_array(view)) is not None:
        return (_make_memoryview_of, (array,))
    flat = view.cast("B") if view.c_contiguous and view.nbytes else memoryview(view.tobytes())
    return (_make_memoryview, (pickle.PickleBuffer(flat), view.format, view.shape))


def _can_be_cast(view: memoryview) -> bool:
    """Whether a view of bytes can be made such a one."""
    try:
        memoryview(bytes(view.itemsize)).cast(view.format)  # type: ignore[call-overload]
    except (ValueError, TypeError):
        return False
    return view.ndim == 1 or view.nbytes > 0


def _as_array(view: memoryview) -> object:
    """Return an array of numpy that has the view's format and shape; None if there is none."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    try:
        return numpy.asarray(view, order="C")
    except ValueError:
        return None  # a format that numpy does not know


def _make_memoryview_of(array: Any) -> memoryview:  # noqa: ANN401 - of numpy
    return memoryview(array).toreadonly()


def _make_memoryview(buffer: memoryview, code: Any, shape: tuple[int, ...]) -> Any:  # noqa: ANN401
    view = memoryview(buffer).toreadonly()
    try:
        return view.cast(code) if len(shape) == 1 else view.cast(code, shape)
    except (ValueError, TypeError):
        return view  # a format or a shape that neither memoryview nor numpy can make


class Raw:
    """Stands for bytes, a bytearray or an array.array, to send its memory without a copy."""

    def __init__(self, obj: bytes | bytearray | array.array[int]) -> None:
        self._obj = obj

    def __reduce__(self) -> tuple[object, ...]:
        buffer = pickle.PickleBuffer(self._obj)
        if isinstance(self._obj, array.array):
            return (_make_array, (self._obj.typecode, buffer))
        return (_make_bytes if isinstance(self._obj, bytes) else bytearray, (buffer,))


def _make_array(typecode: str, buffer: memoryview) -> array.array[int]:
    made: array.array[int] = array.array(typecode)
    made.frombytes(memoryview(buffer).cast("B"))
    return made


def _make_bytes(buffer: memoryview | bytes) -> bytes:
    view = memoryview(buffer)
    if type(view.obj) is bytes and len(view.obj) == view.nbytes:
        return view.obj
    return bytes(view)


class _Package:
    """Stands for a package, some modules inside which have to be imported as well."""

    def __init__(self, module: ModuleType, submodules: list[str]) -> None:
        self._module = module
        self._submodules = submodules

    def __reduce__(self) -> tuple[object, ...]:
        return (_import_package, (self._module, self._submodules))


def _import_package(module: ModuleType, submodules: list[str]) -> ModuleType:
    for name in submodules:
        try:
            __import__(name)
        except ImportError:
            continue  # the code says best what it misses, if it does
    return module


class _Attribute:
    """Stands for a global value of an importable module that is not to be sent."""

    def __init__(self, module: str | None, name: str) -> None:
        self._where = (module, name)

    def __reduce__(self) -> tuple[object, ...]:
        return (_import_attribute, self._where)


def _import_attribute(module: str, name: str) -> object:
    __import__(module)
    return getattr(sys.modules[module], name)


# -- which global values stay at home -----------------------------------------------------


class _TooLarge(Exception):
    """Ends a measurement."""


class _Scale:
    """A file that only weighs what is written to it."""

    def __init__(self) -> None:
        self._size = 0

    def write(self, data: bytes) -> int:
        self.add(len(data))
        return len(data)

    def add(self, size: int) -> None:
        self._size += size
        if self._size > VALUE_BYTES_MAX:
            raise _TooLarge

    def add_buffer(self, buffer: pickle.PickleBuffer) -> None:
        self.add(memoryview(buffer).nbytes)


class _Probe(ByValuePickler):
    """Finds out whether a value can be sent; code weighs nothing."""

    def reducer_override(self, obj: object) -> object:
        by_value = isinstance(obj, FunctionType) and not is_importable(obj)
        if by_value or (isinstance(obj, type) and obj.__module__ in MAIN_MODULES):
            return (tuple, ())
        return super().reducer_override(obj)


def _why_withheld(value: object, remedy: str) -> str:
    if type(value) in (int, float, bool, type(None)):
        return ""
    scale = _Scale()
    try:
        _Probe(scale, scale.add_buffer).dump(value)  # type: ignore[arg-type]
    except _TooLarge:
        return f"is larger than {VALUE_BYTES_MAX // 1024} kB; {remedy}"
    except Exception as error:  # noqa: BLE001 - the user's own __reduce__ may raise anything
        return f"cannot be pickled ({error})"
    return ""
