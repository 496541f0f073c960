from __future__ import annotations

import pickle
import threading
import traceback
from typing import Any

import numpy as np
import pytest

from parallelz.errors import CompositeError, EngineError, RemoteError, TaskAborted
from parallelz.ids import EngineId
from parallelz.protocol import payload
from parallelz.protocol.failures import CHAIN_LENGTH_MAX, FailedItem, describe, rebuild
from parallelz.protocol.messages import ErrorInfo
from parallelz.protocol.texts import TEXT_LENGTH_MAX

HERE = __file__


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - any kind is raised here
        return caught


def travel(error: BaseException) -> RemoteError:
    info, sent = describe(raised(error))
    rebuilt = rebuild(info, *(sent or ()), engine=EngineId(2), host="h", pid=7)
    assert isinstance(rebuilt, RemoteError)
    return rebuilt


class Odd(Exception):
    """Whose constructor cannot be called with its args."""

    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__("something else")
        self.code = code
        self.reason = reason


class Slotted(ValueError):
    __slots__ = ("code",)


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("division by zero"),
        KeyError("k"),
        OSError(2, "no such", "file"),
        SyntaxError("bad", ("f.py", 1, 2, "x y", 1, 3)),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"),
        ImportError("no", name="mod", path="p"),
        Odd(3, reason="r"),
        ExceptionGroup("several", [ValueError(1), KeyError(2)]),
    ],
    ids=repr,
)
def test_a_remote_error_is_also_what_was_raised(error: Exception) -> None:
    rebuilt = travel(error)
    with pytest.raises(type(error)):
        raise rebuilt
    assert repr(rebuilt.args) == repr(error.args)
    assert rebuilt.ename == type(error).__name__
    assert str(rebuilt) == f"[2:apply] {type(error).__name__}: {error}"
    assert rebuilt.engine_info == {"engine_id": 2, "method": "apply", "host": "h", "pid": 7}


def test_attributes_are_kept_those_of_c_and_of_slots_too() -> None:
    system: Any = travel(FileNotFoundError(2, "no such", "file"))
    assert (system.errno, system.strerror, system.filename) == (2, "no such", "file")
    decode: Any = travel(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"))
    assert (decode.object, decode.start, decode.reason) == (b"\xff", 0, "no")
    odd: Any = travel(Odd(3, reason="r"))
    assert (odd.code, odd.reason) == (3, "r")
    slotted = Slotted("x")
    slotted.code = 4  # type: ignore[attr-defined]
    assert travel(slotted).code == 4  # type: ignore[attr-defined]
    group: Any = travel(ExceptionGroup("several", [ValueError(1)]))
    assert group.exceptions[0].args == (1,)


def test_classes_made_where_nobody_can_import_them_travel() -> None:
    class Local(LookupError):
        pass

    assert isinstance(travel(Local("x")), Local)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), StopIteration(1)])
def test_what_would_end_the_client_or_its_loop_arrives_as_a_plain_remote_error(
    error: BaseException,
) -> None:
    rebuilt = travel(error)
    assert type(rebuilt) is RemoteError
    assert rebuilt.ename == type(error).__name__


def test_parts_that_cannot_be_pickled_arrive_as_their_repr() -> None:
    lock = threading.Lock()
    error = Odd(3, reason="r")
    error.lock = lock  # type: ignore[attr-defined]
    rebuilt: Any = travel(error)
    assert isinstance(rebuilt, Odd)
    assert (rebuilt.code, rebuilt.lock) == (3, repr(lock))


def test_a_class_that_cannot_be_sent_arrives_as_text() -> None:
    class Unsendable(Exception):
        guard = threading.Lock()

    info, sent = describe(raised(Unsendable("text")))
    assert sent is None
    rebuilt = rebuild(info, engine=EngineId(1))
    assert str(rebuilt) == "[1:apply] Unsendable: text"


def explode() -> None:
    raise RuntimeError("no such thing here")


class Bomb(Exception):
    def __reduce__(self) -> Any:
        return (explode, ())


class Carrier(Exception):
    pass


def test_what_cannot_be_unpickled_falls_back_to_text_and_says_so() -> None:
    rebuilt = travel(Carrier(Bomb()))
    assert type(rebuilt) is RemoteError
    assert rebuilt.ename == "Carrier"
    assert "text only: RuntimeError: no such thing here" in rebuilt.traceback


def test_garbage_instead_of_an_exception_falls_back_to_text() -> None:
    for data in (b"garbage", payload.dump(3).data):
        rebuilt = rebuild(ErrorInfo("MyError", "v", "tb"), data)
        assert isinstance(rebuilt, RemoteError)
        assert "text only" in rebuilt.traceback


def test_a_class_that_does_not_want_to_be_derived_from_gives_a_plain_error() -> None:
    class Final(type):
        def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> Final:
            if any(isinstance(base, Final) for base in bases):
                raise TypeError("final")
            return super().__new__(mcs, name, bases, body)

    class Last(Exception, metaclass=Final):
        pass

    assert type(travel(Last("x"))) is RemoteError


def test_an_exception_without_a_text_is_described_all_the_same() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert travel(Mute()).evalue == "<str() of it failed: ValueError>"


def test_the_traceback_begins_with_the_users_frames() -> None:
    user: dict[str, Any] = {}
    exec(compile("def user_code(): raise ValueError('mine')", "user.py", "exec"), user)

    def engine_loop() -> None:
        user["user_code"]()

    try:
        engine_loop()
    except ValueError as error:
        whole, _ = describe(error)
        trimmed, _ = describe(error, skip_frames_of=[HERE])
    assert "engine_loop" in whole.traceback
    assert trimmed.traceback == (
        "Traceback (most recent call last):\n"
        '  File "user.py", line 1, in user_code\n'
        "ValueError: mine\n"
    )


def test_frames_of_parallelz_itself_are_not_shown_first() -> None:
    try:
        payload.load(payload.dump(Carrier(Bomb())).data)
    except RuntimeError as error:
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        info, _ = describe(error)
    assert "payload.py" not in info.traceback
    assert "in explode" in info.traceback


def test_causes_and_contexts_are_in_the_text() -> None:
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ValueError("outer") from inner
    except ValueError as error:
        info, _ = describe(error)
    assert "KeyError: 'inner'" in info.traceback
    assert "direct cause" in info.traceback
    assert "ValueError: outer" in info.traceback


def test_what_it_was_raised_from_can_be_looked_at() -> None:
    try:
        try:
            try:
                raise KeyError("innermost")
            except KeyError as innermost:
                raise Odd(3, reason="r") from innermost
        except Odd:
            raise ValueError("outer")  # noqa: B904 - has a context and no cause
    except ValueError as error:
        rebuilt = travel(error)
    behind = rebuilt.__context__
    assert isinstance(behind, Odd)
    assert behind.reason == "r"
    assert isinstance(behind.__cause__, KeyError)
    assert str(behind.__cause__) == "[2:apply] KeyError: 'innermost'"
    assert rebuilt.__cause__ is None


def test_a_chain_that_cannot_be_sent_is_left_out() -> None:
    try:
        raise ValueError("outer") from RuntimeError(threading.Lock())
    except ValueError as error:
        rebuilt = travel(error)
    assert isinstance(rebuilt, ValueError)
    assert rebuilt.__cause__ is None
    assert "RuntimeError: <unlocked" in rebuilt.traceback


def test_an_endless_chain_ends() -> None:
    error = ValueError("0")
    end = error
    for number in range(1, 100):
        end.__cause__ = ValueError(str(number))
        end = end.__cause__
    end.__cause__ = error
    found: BaseException | None = travel(error)
    length = 0
    while found is not None:
        found, length = found.__cause__, length + 1
    assert length == CHAIN_LENGTH_MAX + 1


@pytest.mark.parametrize("kind", [MemoryError, BufferError, EOFError, StopAsyncIteration])
def test_what_is_built_in_can_be_caught_as_that(kind: type[Exception]) -> None:
    is_for_iterators = issubclass(kind, StopAsyncIteration)
    assert isinstance(travel(kind("x")), kind) is not is_for_iterators


def test_a_read_only_array_hints_at_copy() -> None:
    received = payload.load(*payload.dump(np.zeros(3)))
    try:
        received[0] = 1  # type: ignore[index]
    except ValueError as error:
        info, _ = describe(error)
    assert "x = x.copy()" in info.traceback
    assert "copy" not in info.evalue


def test_a_huge_message_is_cut_in_the_middle() -> None:
    info, _ = describe(raised(ValueError("a" + "x" * 1_000_000 + "b")))
    assert len(info.evalue) < TEXT_LENGTH_MAX + 100
    assert info.evalue.startswith("ax")
    assert info.evalue.endswith("xb")


def test_plain_python_shows_the_engines_traceback() -> None:
    shown = "".join(traceback.format_exception(travel(ValueError("x"))))
    assert "RemoteError: [2:apply] ValueError: x\nTraceback on the engine:\n" in shown
    assert "raise error" in shown


def test_remote_errors_and_composites_can_be_raised_on_engines_and_come_back() -> None:
    again = travel(travel(Odd(3, reason="r")))
    assert isinstance(again, Odd)
    composite = travel(CompositeError("m", [ValueError("a"), KeyError("b")]))
    assert isinstance(composite, CompositeError)
    assert [entry.ename for entry in composite.elist] == ["ValueError", "KeyError"]


def test_errors_of_the_controller_have_our_classes() -> None:
    lost = rebuild(ErrorInfo("EngineError", "engine 3 died: signal 9"))
    assert isinstance(lost, EngineError)
    assert isinstance(lost, RemoteError)
    assert str(lost) == "[Engine Exception] EngineError: engine 3 died: signal 9"
    assert isinstance(rebuild(ErrorInfo("KeyError", "No such message: x")), KeyError)


def test_an_abort_is_no_remote_error() -> None:
    aborted = rebuild(ErrorInfo("TaskAborted", "s-1"))
    assert isinstance(aborted, TaskAborted)
    assert aborted.msg_id == "s-1"


def test_a_failed_item_travels_inside_a_list_of_results() -> None:
    item = FailedItem.of(raised(Odd(1, reason="r")))
    results = payload.load(*payload.dump([1, item, pickle.loads(pickle.dumps(item))]))
    assert isinstance(results, list)
    for failed in results[1:]:
        rebuilt = failed.rebuild(EngineId(4))
        assert isinstance(rebuilt, Odd)
        assert rebuilt.engine_id == 4  # type: ignore[attr-defined]
