"""The view that addresses engines by their ids: each of them runs the call."""

from __future__ import annotations

import contextlib
import itertools
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import SupportsIndex

from parallelz.client.cells import verb
from parallelz.client.definitions import Function, UserFunction
from parallelz.client.imports import recorded_imports
from parallelz.client.ledger import Submission
from parallelz.client.map_results import AsyncJoinedResult, AsyncMapResult
from parallelz.client.outcomes import is_told_by_its_text
from parallelz.client.partition import (
    Sliceable,
    as_sliceable,
    check_dist,
    columns,
    partition,
    slices,
)
from parallelz.client.results import AsyncResult, Value
from parallelz.client.session import Targets
from parallelz.client.tables import cut
from parallelz.client.view import View
from parallelz.ids import EngineId
from parallelz.protocol.functions import Definition, named_definition
from parallelz.protocol.last_resort import use_cloudpickle, use_dill
from parallelz.protocol.messages import TaskOptions
from parallelz.protocol.payload import BOUND, BOUND_CHUNK, CHUNK, PLAIN, Call

__tracebackhide__ = is_told_by_its_text


class DirectView(View):
    """Engines by their ids; also their namespaces, as if they were a dict.

    For one id results are bare values, for a list of ids, even of length one, lists in the
    order of the ids. ``"all"`` means those that are there at the time of a call.
    """

    __iter__ = None  # no sequence, though it has a length and items

    def _is_balanced(self) -> bool:
        return False

    def _aim(self, chosen: int | list[int] | None) -> None:
        self._targets = "all" if chosen is None else chosen

    def _engine_ids(self) -> list[EngineId]:
        self._connection.check_open()
        return self._session.engine_ids(self._targets)

    def _options(self) -> TaskOptions | None:
        if not self.label and not self.tags:
            return None
        return TaskOptions(label=self.label, tags=dict(self.tags))

    def _submit(
        self,
        function: Function,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        *,
        bound: bool,
        name: str = "",
    ) -> AsyncResult:
        call: Call = (BOUND if bound else PLAIN, args, kwargs)
        submission = self._connection.submit_direct(
            function, call, self._engine_ids(), self._options()
        )
        self._note(submission)
        is_single = isinstance(self._targets, int)
        return AsyncResult(self._connection, submission, name, is_single=is_single)

    def _submit_parts(
        self, function: Function, calls: Sequence[Call], engine_ids: Sequence[EngineId]
    ) -> Submission:
        if calls:
            submission = self._connection.submit_parts(
                function, calls, engine_ids, self._options()
            )
            self._note(submission)
            return submission
        return Submission(self._connection.session_id, 0, 0, time.time(), ())

    def _call_each(
        self, function: Definition, arguments: Sequence[tuple[object, ...]]
    ) -> list[object]:
        engine_ids = self._engine_ids()
        turns = [engine_ids[number % len(engine_ids)] for number in range(len(arguments))]
        calls: list[Call] = [(PLAIN, args, {}) for args in arguments]
        submission = self._submit_parts(function, calls, turns)
        result = AsyncMapResult(self._connection, submission).get()
        assert isinstance(result, list)
        return result

    def _submitter(self) -> Callable[[Function, Call], Submission]:
        options = self._options()
        turns = itertools.count()

        def submit(function: Function, call: Call) -> Submission:
            engine_ids = self._engine_ids()
            engine_id = engine_ids[next(turns) % len(engine_ids)]
            submission = self._connection.submit_direct(function, call, [engine_id], options)
            self._note(submission)
            return submission

        return submit

    # -- maps ------------------------------------------------------------------------------

    def map_async(
        self,
        f: UserFunction,
        /,
        *sequences: Iterable[object],
        bound: bool | None = None,
        chunksize: SupportsIndex | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
    ) -> AsyncMapResult:
        """Call `f` on each item, each engine on one part; without waiting. See `map`."""
        if chunksize is not None:
            warnings.warn("`chunksize` is ignored unless load balancing", stacklevel=2)
        cols = columns(sequences)
        engine_ids = self._engine_ids()
        length = len(cols[0])
        parts = slices(length, min(len(engine_ids), length)) if length else []
        kind = BOUND_CHUNK if (self.bound if bound is None else bound) else CHUNK
        kwargs: dict[str, object] = {"return_exceptions": True} if return_exceptions else {}
        calls: list[Call] = [
            (kind, tuple(cut(col, part) for col in cols), kwargs) for part in parts
        ]
        submission = self._submit_parts(f, calls, engine_ids)
        return AsyncMapResult(
            self._connection,
            submission,
            chunk_lengths=[part.stop - part.start for part in parts],
            ordered=ordered,
            return_exceptions=return_exceptions,
        )

    def map_parts(
        self,
        f: Callable[..., object],
        sequences: Sequence[Sliceable],
        *,
        dist: str = "b",
        chunksize: SupportsIndex | None = None,
    ) -> AsyncJoinedResult:
        """Call `f` on one part of the sequences per engine; what it returns is joined."""
        if chunksize is not None:
            warnings.warn("`chunksize` is ignored unless load balancing", stacklevel=3)
        engine_ids = self._engine_ids()
        count = max(1, min(len(engine_ids), len(sequences[0])))
        parts = [partition(sequence, count, dist) for sequence in sequences]
        kind = BOUND if self.bound else PLAIN
        calls: list[Call] = [(kind, args, {}) for args in zip(*parts, strict=True)]
        submission = self._submit_parts(f, calls, engine_ids)
        return AsyncJoinedResult(self._connection, submission, dist=dist)

    # -- namespaces ------------------------------------------------------------------------

    def push(
        self,
        ns: Mapping[str, object],
        block: bool | None = None,  # noqa: FBT001 - as users know it
        track: object = None,
        *,
        targets: Targets = None,
    ) -> Value:
        """Set names of the engines' namespaces to values.

        Parameters
        ----------
        ns
            By name; ``"a.b"`` sets an attribute of ``a``, ``"x[3]"`` an item of ``x``.
        track
            Without effect; `AsyncResult.wait_for_send` works always.
        targets
            Other engines than those of this view.
        """
        if not isinstance(ns, Mapping):
            raise TypeError(f"Must push a dict by name, not a {type(ns)}")
        values = {_assignable(name): value for name, value in ns.items()}
        return self._finish(self._at(targets)._verb("push", values), block)

    def pull(
        self,
        names: str | Iterable[str],
        block: bool | None = None,  # noqa: FBT001 - as users know it
        *,
        targets: Targets = None,
    ) -> Value:
        """Return the values of names, of each engine; for several names a list per engine.

        Parameters
        ----------
        names
            Also ``"a.b"`` and ``"x[3]"``. A NameError if an engine has no such name.
        targets
            Other engines than those of this view.
        """
        wanted = _name_of(names) if isinstance(names, str) else _names_of(names)
        return self._finish(self._at(targets)._verb("pull", wanted), block)

    def get(self, key: str) -> Value:
        """Return the value of a name, or a list of those of the engines; waits."""
        return self._finish(self._verb("pull", _name_of(key)), block=True)

    def update(self, ns: Mapping[str, object]) -> Value:
        """Set names, as `push` does."""
        return self.push(ns)

    def __getitem__(self, key: str) -> Value:
        return self.get(key)

    def __setitem__(self, key: str, value: object) -> None:
        self.push({key: value})

    def scatter(
        self,
        key: str,
        seq: Iterable[object],
        dist: str = "b",
        flatten: bool = False,  # noqa: FBT001, FBT002 - as users know it
        block: bool | None = None,  # noqa: FBT001
        track: object = None,
        *,
        targets: Targets = None,
    ) -> Value:
        """Cut a sequence and set a name on each engine to its part.

        Parameters
        ----------
        seq
            What can be cut is (lists, arrays along their first axis, strings); of anything
            else that is iterable a list is made first, but of a dict.
        dist
            ``"b"``: runs of neighbours, the first ones one longer if need be; ``"r"``: dealt
            out one by one.
        flatten
            Set a part of length one to its item.
        targets
            Other engines than those of this view.
        """
        return self._finish(self._at(targets)._scattered(key, seq, dist, flatten), block)

    def _scattered(
        self,
        key: str,
        seq: Iterable[object],
        dist: str,
        flatten: bool,  # noqa: FBT001
    ) -> AsyncResult:
        engine_ids = self._engine_ids()
        parts: list[object] = [
            cut(part, 0) if flatten and len(part) == 1 else part
            for part in partition(as_sliceable(seq), len(engine_ids), dist)
        ]
        calls: list[Call] = [(BOUND, ({_assignable(key): part},), {}) for part in parts]
        submission = self._submit_parts(verb("push"), calls, engine_ids)
        is_single = isinstance(self._targets, int)
        return AsyncResult(self._connection, submission, "scatter", is_single=is_single)

    def gather(
        self,
        key: str,
        dist: str = "b",
        block: bool | None = None,  # noqa: FBT001 - as users know it
        *,
        targets: Targets = None,
    ) -> Value:
        """Put the parts that a name has on the engines together again; see `scatter`.

        Parameters
        ----------
        dist
            How they were cut.
        targets
            Other engines than those of this view.

        Returns
        -------
        object
            An array of arrays, a frame of frames (so for series and tables), a list of the
            items of lists, tuples and ranges, of anything else a list of the parts.
            AsyncResult if it does not block; to iterate over that gives items (of frames and
            tables: the parts) as soon as the engines have sent them.
        """
        check_dist(dist)
        return self._finish(self._at(targets)._gathered(key, dist), block)

    def _gathered(self, key: str, dist: str) -> AsyncResult:
        submission = self._connection.submit_direct(
            verb("pull"), (BOUND, (_name_of(key),), {}), self._engine_ids(), self._options()
        )
        self._note(submission)
        return AsyncJoinedResult(self._connection, submission, "gather", dist=dist)

    def clear(self, targets: Targets = None, block: object = None) -> None:
        """Delete all names of users from the engines' namespaces; waits."""
        self._session.clear(self._own(targets))

    @contextlib.contextmanager
    def sync_imports(
        self,
        local: bool = True,  # noqa: FBT001, FBT002 - as users know it
        quiet: bool = False,  # noqa: FBT001, FBT002
    ) -> Iterator[None]:
        """Repeat on the engines what the ``with`` block imports; waits for them.

        Names by ``import x as y`` are ``x`` there. If the block raises, also because something
        cannot be imported here, nothing is imported there.

        Parameters
        ----------
        local
            Only True: what is imported there is imported here as well.
        quiet
            Do not print what is imported.
        """
        if not local:
            raise NotImplementedError(
                "sync_imports imports here, too; for the engines alone:"
                ' execute("import ...", block=True)'
            )
        with recorded_imports(quiet=quiet) as statements:
            yield
        if statements:
            self._execute(("\n".join(statements), "<sync_imports>"), block=True)

    @property
    def importer(self) -> contextlib.AbstractContextManager[None]:
        """``sync_imports()`` as a property."""
        return self.sync_imports()

    # -- picklers --------------------------------------------------------------------------

    def use_dill(self) -> None:
        """Let dill pickle, here and on these engines, what cannot be pickled otherwise; waits.

        Engines that come later do not know.

        Raises
        ------
        ImportError
            If it is not installed here.
        RemoteError, CompositeError
            If it is not installed there.
        """
        use_dill()
        self._use("use_dill")

    def use_cloudpickle(self) -> None:
        """Use pickle and cloudpickle alone, here and on these engines, as at first; waits."""
        use_cloudpickle()
        self._use("use_cloudpickle")

    def use_pickle(self) -> None:
        """Do as `use_cloudpickle`: functions always go by value where they must."""
        self.use_cloudpickle()

    def _use(self, name: str) -> None:
        definition = named_definition("parallelz.protocol.last_resort", name)
        self._submit(definition, (), {}, bound=False, name=name).get()

    def _finish(self, result: AsyncResult, block: bool | None) -> Value:  # noqa: FBT001
        return result.get() if self._is_blocking(block) else result


def _assignable(key: object) -> str:
    return _checked(key, "{} = 0", "exec")


def _name_of(key: object) -> str:
    return _checked(key, "{}", "eval")


def _names_of(names: object) -> list[str]:
    if not isinstance(names, list | tuple | set | frozenset):
        raise TypeError(f"give a name or a list of names, not {names!r}")
    return [_name_of(name) for name in names]


def _checked(key: object, statement: str, mode: str) -> str:
    """Return the name, if an engine can make something of it."""
    if not isinstance(key, str):
        raise TypeError(f"names of a namespace are str, not {key!r}")
    if not key.isidentifier():
        try:
            compile(statement.format(key), "<name>", mode)
        except SyntaxError as error:
            raise ValueError(
                f"{key!r} is not a name, nor an attribute or item of one, such as 'a.b' or"
                f" 'x[3]': {error.msg}"
            ) from None
    return key
