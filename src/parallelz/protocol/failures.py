"""Exceptions travel: described on the engine, rebuilt on the client.

An exception is not pickled as such, since unpickling would call its constructor, and many a
constructor cannot be called with ``args``. What travels is its class, `args` and attributes,
besides a text of the traceback, which any client can show and which alone is left if the class
cannot be sent or cannot be made there. What is behind it (its cause, or else its context)
travels in the same way.
"""

from __future__ import annotations

import builtins
import traceback
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from parallelz import errors
from parallelz.errors import Chained, ExceptionState, RemoteError, TaskAborted, remote_error
from parallelz.ids import EngineId
from parallelz.protocol import payload
from parallelz.protocol.envelope import Buffer
from parallelz.protocol.messages import ErrorInfo
from parallelz.protocol.payload import Payload
from parallelz.protocol.pickling import current_supplies
from parallelz.protocol.shared import view_of
from parallelz.protocol.texts import clip, repr_of, text_of

CHAIN_LENGTH_MAX = 10
CHAINED_LENGTH = 1000  # of the text of an exception behind another one

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
    info = ErrorInfo(type(error).__name__, clip(text_of(error)), clip(text))
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
    if isinstance(error, ValueError) and "read-only" in text_of(error):
        return _READ_ONLY_HINT
    return ""


def _pickle(error: BaseException) -> Payload | None:
    if not isinstance(error, Exception):
        return None
    try:
        state = _chained_state(error, {id(error)})
        try:
            return payload.dump(state)
        except errors.SerializationError:
            return payload.dump(_sendable(state))
    except Exception:  # noqa: BLE001 - the class itself cannot be sent, or runs odd code
        return None


def _chained_state(error: BaseException, seen: set[int]) -> ExceptionState:
    """Return the state of an exception, with those behind it."""
    state = errors.exception_state(error)
    cause, context = error.__cause__, error.__context__
    if cause is not None:
        return state._replace(cause=_chained(cause, seen))
    if context is not None and not error.__suppress_context__:
        return state._replace(context=_chained(context, seen))
    return state


def _chained(error: BaseException, seen: set[int]) -> Chained | None:
    if id(error) in seen or len(seen) > CHAIN_LENGTH_MAX:
        return None
    seen.add(id(error))
    return Chained(
        _chained_state(error, seen), type(error).__name__, clip(text_of(error), CHAINED_LENGTH)
    )


def _sendable(state: ExceptionState) -> ExceptionState:
    args = tuple(arg if _can_be_sent(arg) else repr_of(arg) for arg in state.args)
    attributes = {
        name: value if _can_be_sent(value) else repr_of(value)
        for name, value in state.attributes.items()
    }
    behind = [
        chained if chained is not None and _can_be_sent(chained) else None
        for chained in (state.cause, state.context)
    ]
    return ExceptionState(state.original, args, attributes, *behind)


def _can_be_sent(value: object) -> bool:
    try:
        payload.dump(value)
    except errors.SerializationError:
        return False
    return True


def _state_by_name(error: ErrorInfo) -> ExceptionState | None:
    """Return the state of an error that came as text only, if its class is known by name."""
    classes: Mapping[str, object] = {**vars(builtins), **vars(errors)}
    found = classes.get(error.ename)
    if not isinstance(found, type) or not issubclass(found, Exception):
        return None
    if issubclass(found, RemoteError | UnicodeError | ExceptionGroup):
        return None  # those are not made of a text alone
    return ExceptionState(found, (error.evalue,), {})
