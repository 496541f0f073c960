"""Exceptions travel: described on the engine, rebuilt on the client.

An exception is not pickled as such, since unpickling would call its constructor, and many a
constructor cannot be called with ``args``. What travels is its class, `args` and attributes,
besides a text of the traceback, which any client can show and which alone is left if the class
cannot be sent or cannot be made there. Causes and contexts are in the text only.
"""

from __future__ import annotations

import builtins
import traceback
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from parallelz import errors
from parallelz.errors import ExceptionState, RemoteError, TaskAborted, remote_error
from parallelz.ids import EngineId
from parallelz.protocol import payload
from parallelz.protocol.envelope import Buffer
from parallelz.protocol.messages import ErrorInfo
from parallelz.protocol.payload import Payload
from parallelz.protocol.pickling import current_supplies
from parallelz.protocol.shared import view_of

TEXT_LENGTH_MAX = 100_000
"""Of a message or a traceback; the middle of a longer one is left out."""

_OWN_FILES = str(Path(__file__).parent.parent)
_READ_ONLY_HINT = (
    "Arrays that come from another process are read-only; change a copy: x = x.copy()"
)


def describe(
    error: BaseException, skip_frames_of: Collection[str] = ()
) -> tuple[ErrorInfo, Payload | None]:
    """Return an exception as text, and as what `rebuild` can make an equal one of.

    Parameters
    ----------
    skip_frames_of
        Beginnings of file names. The outermost frames of the traceback are left out as long
        as they are in such files, or in parallelz itself.

    Returns
    -------
    tuple
        The second part is None if it is not an `Exception`, or of a class that cannot be sent.
        Parts of it that cannot be pickled are replaced by their repr.
    """
    hint = _hint_for(error)
    if hint and hint not in getattr(error, "__notes__", ()):
        error.add_note(hint)
    report = traceback.TracebackException.from_exception(error)
    _trim(report, (_OWN_FILES, *skip_frames_of), set())
    text = "".join(report.format())
    info = ErrorInfo(type(error).__name__, _clip(_text_of(error)), _clip(text))
    return info, _pickle(error)


def rebuild(
    error: ErrorInfo,
    data: bytes = b"",
    frames: Sequence[Buffer] = (),
    engine: EngineId = EngineId(-1),  # noqa: B008 - a plain int
    *,
    method: str = "apply",
    host: str = "",
    pid: int = 0,
) -> RemoteError | TaskAborted:
    """Return the exception to raise on the client.

    Parameters
    ----------
    data, frames
        The second part of what `describe` returned; may be empty.
    engine
        Where it happened; -1: nowhere.
    method
        What was called, for people.

    Returns
    -------
    RemoteError or TaskAborted
        The first is also an instance of the original class, if that can be made here (its
        text says so if not), is built in, or is one of `errors`.
    """
    where: dict[str, object] | None = None
    if engine >= 0:
        where = {"engine_id": int(engine), "method": method, "host": host, "pid": pid}
    text = error.traceback
    state = _state_by_name(error)
    if data or frames:
        try:
            loaded = payload.load(data, frames)
            assert isinstance(loaded, ExceptionState)
            state = loaded
        except Exception as cause:  # noqa: BLE001 - runs code of the user's classes
            text += (
                f"\n(The {error.ename} itself cannot be made here, this is its text only: "
                f"{type(cause).__name__}: {cause})\n"
            )
    if state is not None and state.original is TaskAborted:
        return TaskAborted(*map(str, state.args))
    return remote_error(state, error.ename, error.evalue, text, where)


class FailedItem(NamedTuple):
    """Takes the place of one item's result in a chunk that returns exceptions."""

    error: ErrorInfo
    payload: Payload | None

    @classmethod
    def of(cls, error: BaseException, skip_frames_of: Collection[str] = ()) -> FailedItem:
        """Return what `describe` says of an exception, as one thing that can be pickled."""
        info, pickled = describe(error, skip_frames_of)
        if pickled is not None:
            pickled = Payload(
                pickled.data, [bytes(view_of(buffer)) for buffer in pickled.buffers]
            )
        return cls(info, pickled)

    def rebuild(
        self, engine: EngineId, *, method: str = "map", host: str = "", pid: int = 0
    ) -> RemoteError | TaskAborted:
        """Return the exception, as the function of this name does."""
        data, frames = self.payload or (b"", ())
        return rebuild(self.error, data, frames, engine, method=method, host=host, pid=pid)


def _trim(
    report: traceback.TracebackException, skipped: tuple[str, ...], seen: set[int]
) -> None:
    if id(report) in seen:
        return
    seen.add(id(report))
    while report.stack and report.stack[0].filename.startswith(skipped):
        del report.stack[0]
    for other in (report.__cause__, report.__context__, *(report.exceptions or ())):
        if other is not None:
            _trim(other, skipped, seen)


def _hint_for(error: BaseException) -> str:
    if isinstance(error, NameError) and isinstance(error.name, str):
        return current_supplies().hint(error.name)
    if isinstance(error, ValueError) and "read-only" in _text_of(error):
        return _READ_ONLY_HINT
    return ""


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001 - the user's own __str__
        return f"<str() of it failed: {type(failure).__name__}>"


def _clip(text: str) -> str:
    if len(text) <= TEXT_LENGTH_MAX:
        return text
    half = TEXT_LENGTH_MAX // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"


def _pickle(error: BaseException) -> Payload | None:
    if not isinstance(error, Exception):
        return None
    try:
        state = errors.exception_state(error)
        try:
            return payload.dump(state)
        except errors.SerializationError:
            return payload.dump(_sendable(state))
    except Exception:  # noqa: BLE001 - the class itself cannot be sent, or runs odd code
        return None


def _sendable(state: ExceptionState) -> ExceptionState:
    args = tuple(arg if _can_be_sent(arg) else _repr(arg) for arg in state.args)
    attributes = {
        name: value if _can_be_sent(value) else _repr(value)
        for name, value in state.attributes.items()
    }
    return ExceptionState(state.original, args, attributes)


def _can_be_sent(value: object) -> bool:
    try:
        payload.dump(value)
    except errors.SerializationError:
        return False
    return True


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - the user's own __repr__
        return f"<{type(value).__name__}>"


def _state_by_name(error: ErrorInfo) -> ExceptionState | None:
    """Return the state of an error that came as text only, if its class is known by name."""
    classes: Mapping[str, object] = {**vars(builtins), **vars(errors)}
    found = classes.get(error.ename)
    if not isinstance(found, type) or not issubclass(found, Exception):
        return None
    if issubclass(found, RemoteError | UnicodeError | ExceptionGroup):
        return None  # those are not made of a text alone
    return ExceptionState(found, (error.evalue,), {})
