"""Python objects <-> buffers.

Pickle, protocol 5: arrays and the like give their memory out of band, and nothing is copied on
the way out; where pickle cannot, cloudpickle and our rules for functions (`pickling`).

What is small travels as `data` inside the envelope, what is large in frames of its own.
`data` (or, if that is large, the first frame) is the pickle itself, or, if there are buffers
too small for a frame, a *block*::

    1, 3 spare bytes, count of buffers (4 bytes), length of each (8 bytes; LARGE: next frame)
    the small buffers, each at a multiple of 16
    the pickle

Arrays are read-only where they arrive, whether small or large: with half of them writable, a
program would work until its data grow.
"""

from __future__ import annotations

import array
import io
import itertools
import pickle
import struct
from collections.abc import Callable, Iterable, Sequence
from types import FunctionType
from typing import Any, NamedTuple, TypeVar

from cloudpickle import list_registry_pickle_by_value

from parallelz.errors import SerializationError
from parallelz.protocol.last_resort import dump_otherwise
from parallelz.protocol.pickling import ByValuePickler, Raw, SerializerTable, serializers
from parallelz.protocol.shared import Buffer, Frame, size_of, view_of
from parallelz.protocol.texts import brief_repr, text_of

INLINE_BYTES_MAX = 16 * 1024
"""From this size on, a buffer is a frame of its own."""

T = TypeVar("T")

_BLOCK = 1
_PICKLE = 0x80  # with which every pickle begins
_LARGE = 2**64 - 1
_ALIGNMENT = 16  # of every type of array, and of the memory of a bytes object
_MAIN_MARK = b"_main__"  # also of __mp_main__: what has this name is something else elsewhere
_RAW_TYPES = frozenset([bytes, bytearray, array.array])
_SIMPLE_TYPES = frozenset([type(None), bool, int, float, str])  # nothing in them is special
_SEARCHED_TYPES = frozenset([tuple, list, dict])
_SEARCHED_LENGTH_MAX = 64
_SEARCHED_DEPTH = 3  # (kind, arguments, keyword arguments) and what is right inside arguments

_table = SerializerTable()

Call = tuple[int, tuple[object, ...], dict[str, object]]
"""What a task is pickled from: kind, arguments, keyword arguments."""

PLAIN, BOUND, CHUNK, BOUND_CHUNK = range(4)
"""Kinds of tasks: ``f(*args)``, ``f(namespace, *args)``, and the same for each of a chunk."""


class Payload(NamedTuple):
    """A pickled object, as it travels in a message and in the frames behind the envelope."""

    data: bytes
    buffers: Sequence[Buffer]

    @property
    def frame_count(self) -> int:
        """How many frames belong to it."""
        return len(self.buffers)

    @property
    def nbytes(self) -> int:
        """Size of all of it."""
        return len(self.data) + sum(map(size_of, self.buffers))


def register_serializer(
    kind: type[T],
    serialize: Callable[[T], object],
    deserialize: Callable[..., T],
) -> None:
    """Say how objects of exactly this type are sent, from this process.

    Parameters
    ----------
    serialize
        Returns what to send instead: anything that can be pickled. The memory of a
        `pickle.PickleBuffer` anywhere in it is not copied.
    deserialize
        Is called with that where it arrives, and need not be registered there. It gets a
        read-only memoryview for each `PickleBuffer`.
    """
    serializers[kind] = (serialize, deserialize)


def dump(obj: object) -> Payload:
    """Pickle an object; its large buffers are not copied, so leave them alone until sent.

    Raises
    ------
    SerializationError
        If something in it cannot be pickled. Names the part, such as ``argument 1, ['lock']``
        for ``(kind, args, kwargs)``.
    """
    if type(obj) in _SIMPLE_TYPES and not serializers:
        return _dump_simple(obj)
    buffers: list[pickle.PickleBuffer] = []
    lean = _expose(obj, {}, _SEARCHED_DEPTH) if _has_raw((obj,), _SEARCHED_DEPTH) else obj
    try:
        if serializers:
            stream = _dump_registered(lean, buffers)
        else:
            stream = pickle.dumps(lean, 5, buffer_callback=buffers.append)
        by_value = _MAIN_MARK in stream or _names_by_value(stream)
    except Exception:  # noqa: BLE001 - the user's own __reduce__ may raise anything
        by_value = True
    if by_value:
        buffers.clear()
        try:
            stream = _dump_by_value(lean, buffers)
        except Exception as error:
            buffers.clear()
            try:
                otherwise = dump_otherwise(lean)
            except Exception as last:
                raise SerializationError(_explain(obj, last)) from last
            if otherwise is None:
                raise SerializationError(_explain(obj, error)) from error
            stream = otherwise
    if not buffers and len(stream) < INLINE_BYTES_MAX:
        return Payload(stream, ())
    return _lay_out(stream, buffers)


def dump_simple_call(call: Call) -> Payload | None:
    """Pickle a call whose arguments are numbers and texts, in a fraction of the time of `dump`.

    None: it has others.
    """
    _, args, kwargs = call
    if kwargs or serializers or not _SIMPLE_TYPES.issuperset(map(type, args)):
        return None
    return _dump_simple(call)


def _dump_simple(obj: object) -> Payload:
    stream = pickle.dumps(obj, 5)
    return Payload(stream, ()) if len(stream) < INLINE_BYTES_MAX else _lay_out(stream, ())


def load(data: bytes, frames: Sequence[Buffer] = ()) -> object:
    """Return the object; its arrays are read-only and refer to `data` and `frames`."""
    if data and not frames and data[0] == _PICKLE:
        return pickle.loads(data)
    views = [view_of(frame) for frame in frames]
    block: Frame = data or views.pop(0)
    if memoryview(block)[0] == _PICKLE:
        return pickle.loads(block, buffers=views)
    view = memoryview(block).toreadonly()
    (count,) = struct.unpack_from("<I", view, 4)
    lengths = struct.unpack_from(f"<{count}Q", view, 8)
    large = iter(views)
    buffers: list[memoryview] = []
    position = 8 + 8 * count
    for length in lengths:
        if length == _LARGE:
            buffers.append(next(large))
        else:
            position += -position % _ALIGNMENT
            buffers.append(view[position : position + length])
            position += length
    return pickle.loads(view[position:], buffers=buffers)


def _lay_out(stream: bytes, buffers: Sequence[pickle.PickleBuffer]) -> Payload:
    views = [buffer.raw() for buffer in buffers]
    large = [view for view in views if view.nbytes >= INLINE_BYTES_MAX]
    if len(large) < len(views):
        lengths = [view.nbytes if view.nbytes < INLINE_BYTES_MAX else _LARGE for view in views]
        block = bytearray(struct.pack(f"<BxxxI{len(views)}Q", _BLOCK, len(views), *lengths))
        for view in views:
            if view.nbytes < INLINE_BYTES_MAX:
                block += bytes(-len(block) % _ALIGNMENT)
                block += view
        block += stream
        stream = bytes(block)
    if len(stream) < INLINE_BYTES_MAX:
        return Payload(stream, tuple(large))
    return Payload(b"", (stream, *large))


def _names_by_value(stream: bytes) -> bool:
    """Return whether a pickle may name something that the user wants sent by value."""
    registered = list_registry_pickle_by_value()
    return bool(registered) and any(name.encode() in stream for name in registered)


def _dump_registered(obj: object, buffers: list[pickle.PickleBuffer]) -> bytes:
    file = io.BytesIO()
    pickler = pickle.Pickler(file, 5, buffer_callback=buffers.append)
    pickler.dispatch_table = _table  # type: ignore[assignment]
    pickler.dump(obj)
    return file.getvalue()


def _dump_by_value(obj: object, buffers: list[pickle.PickleBuffer]) -> bytes:
    file = io.BytesIO()
    ByValuePickler(file, buffers.append).dump(obj)
    return file.getvalue()


# -- bytes, which pickle would copy -------------------------------------------------------


def _has_raw(items: Iterable[object], depth: int) -> bool:
    """Whether there are large bytes and the like, not deeper than `depth`."""
    for item in items:
        kind = type(item)
        if kind in _SEARCHED_TYPES:
            inner: Any = item
            if not inner or not depth or len(inner) > _SEARCHED_LENGTH_MAX:
                continue
            if _has_raw(inner.values() if kind is dict else inner, depth - 1):
                return True
        elif kind in _RAW_TYPES and memoryview(item).nbytes >= INLINE_BYTES_MAX:  # type: ignore[arg-type]
            return True
    return False


def _expose(obj: object, seen: dict[int, Raw], depth: int) -> object:
    """Return the same with a `Raw` in place of large bytes and the like."""
    if isinstance(obj, bytes | bytearray | array.array):
        if type(obj) in _RAW_TYPES and memoryview(obj).nbytes >= INLINE_BYTES_MAX:
            return seen.setdefault(id(obj), Raw(obj))
    elif depth and type(obj) in _SEARCHED_TYPES and len(obj) <= _SEARCHED_LENGTH_MAX:  # type: ignore[arg-type]
        if isinstance(obj, dict):
            return {key: _expose(value, seen, depth - 1) for key, value in obj.items()}
        if isinstance(obj, tuple | list):
            return type(obj)(_expose(item, seen, depth - 1) for item in obj)
    return obj


# -- which part cannot be pickled ---------------------------------------------------------


def _explain(obj: object, error: Exception) -> str:
    path: tuple[str, ...] = ()
    cause = error
    if not _is_recursion(error):
        try:
            path, cause = _locate(obj, (), error, frozenset())
        except Exception:  # noqa: BLE001 - the user's own __class__, __dict__, ... may raise
            path, cause = (), error
    match obj:
        case (int(), tuple(), dict()) if len(path) > 1:
            path = (f"argument {path[1][1:-1]}", *path[2:])
    if not path:
        return _reason(cause)
    where = path[0]
    for above, label in itertools.pairwise(path):
        joined = label[0] in "[." and above[0] in "[."
        where += label if joined else f", {label}"
    return f"{where}: {_reason(cause)}"


def _is_recursion(error: Exception) -> bool:
    # cloudpickle raises another error from it.
    return isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError)


def _reason(error: Exception) -> str:
    if _is_recursion(error):
        return "it is nested too deeply to be pickled"
    text = text_of(error)
    # These are pickle's own, and say it in a whole sentence.
    is_plain = isinstance(error, TypeError | AttributeError | pickle.PickleError)
    return text if is_plain else f"{type(error).__name__}: {text}"


def _locate(
    obj: object, path: tuple[str, ...], error: Exception, above: frozenset[int]
) -> tuple[tuple[str, ...], Exception]:
    """Return the way to the innermost part that cannot be pickled, and why it cannot."""
    above |= {id(obj)}
    parts = [(label, part) for label, part in _parts_of(obj) if id(part) not in above]
    failure = None
    while parts:
        half = (len(parts) + 1) // 2
        failure = _failure_of([part for _, part in parts[:half]])
        if len(parts) == 1:
            break
        parts = parts[:half] if failure else parts[half:]
    if failure is None:
        return path, error
    label, part = parts[0]
    return _locate(part, (*path, label), _failure_of(part) or failure, above)


def _failure_of(obj: object) -> Exception | None:
    try:
        _dump_by_value(obj, [])
    except Exception as error:  # noqa: BLE001 - the user's own __reduce__ may raise anything
        return error
    return None


def _parts_of(obj: object) -> list[tuple[str, object]]:
    if isinstance(obj, dict):
        return [(f"[{brief_repr(key)}]", value) for key, value in obj.items()]
    if isinstance(obj, list | tuple):
        return [(f"[{number}]", item) for number, item in enumerate(obj)]
    if isinstance(obj, set | frozenset):
        return [(f"element {brief_repr(item)}", item) for item in obj]
    if isinstance(obj, FunctionType):
        variables = zip(obj.__code__.co_freevars, obj.__closure__ or (), strict=True)
        return [
            *((f"variable {name!r} of {obj.__name__}", cell) for name, cell in variables),
            *((f"default of {obj.__name__}", value) for value in obj.__defaults__ or ()),
        ]
    if isinstance(type(obj).__reduce__, FunctionType):
        return []  # it says by itself what is pickled, or why it cannot be
    attributes = getattr(obj, "__dict__", None)
    if isinstance(attributes, dict) and not isinstance(obj, type):
        return [(f".{name}", value) for name, value in attributes.items()]
    return []
