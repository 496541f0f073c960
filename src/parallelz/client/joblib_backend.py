"""Engines as a backend of joblib, and so of scikit-learn and whatever else uses that.

::

    lv.register_joblib_backend()
    with joblib.parallel_config(backend="parallelz"):
        joblib.Parallel()(joblib.delayed(f)(x) for x in items)
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from joblib import register_parallel_backend
from joblib._parallel_backends import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
)

from parallelz.client.executor import TaskFuture
from parallelz.client.session import Session
from parallelz.client.view import View


class ParallelzBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Runs the batches of joblib as tasks of a balanced view.

    Parameters
    ----------
    view
        Whose engines run them, with its flags, such as labels and retries. None: all engines
        of the cluster that ``Client()`` finds; each Parallel has a client of its own then, for
        as long as it runs.
    """

    supports_retrieve_callback = True
    supports_timeout = True
    default_n_jobs = -1  # all engines

    def __init__(self, view: View | None = None, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self._view = view
        self._executor = None if view is None else view.executor
        self._client: Session | None = None  # made for one Parallel, which ends by `terminate`
        self._futures: dict[TaskFuture[Any], None] = {}

    def configure(
        self, n_jobs: int | None = 1, parallel: object = None, **kwargs: object
    ) -> int:
        """Return how many jobs run at the same time; see joblib.

        Raises
        ------
        FallbackToBackend
            For joblib: what this Parallel, and no other one, is to use instead.
        """
        if self._view is None:
            raise FallbackToBackend(self._connected())
        try:
            count: int = super().configure(n_jobs, parallel, **kwargs)
        except BaseException:
            self.terminate()  # joblib does so only later
            raise
        if count == 1 and self._client is not None:
            self.terminate()  # joblib runs the jobs itself, and terminates nothing
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        return count

    def _connected(self) -> ParallelzBackend:
        from parallelz.client.client import Client

        client = Client()
        made = ParallelzBackend(client.load_balanced_view(), nesting_level=self.nesting_level)
        made._client = client
        return made

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many jobs run at the same time: one on each engine at most."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        engine_count = max(self._count_engines(), 1)
        if n_jobs is None:
            return engine_count
        if n_jobs < 0:
            return max(engine_count + 1 + n_jobs, 1)
        return min(n_jobs, engine_count)

    def _count_engines(self) -> int:
        if self._view is not None:
            return len(self._view)
        from parallelz.client.client import Client

        with Client() as client:
            return len(client)

    def submit(
        self,
        func: Callable[[], object],
        callback: Callable[[Future[Any]], object] | None = None,
    ) -> Future[Any]:
        """Start a batch; see joblib."""
        assert self._executor is not None  # as joblib has configured it
        # As an argument: as a function, engines would keep it, with all the data in it.
        future = self._executor.submit(_call, func)
        self._futures[future] = None
        future.add_done_callback(lambda _: self._futures.pop(future, None))
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Future[Any]) -> object:
        """Return what a batch returned, or raise what it raised."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:  # noqa: FBT001, FBT002
        """Give up all batches that have not ended."""
        if self._executor is not None:
            self._executor.give_up(list(self._futures))
        self._futures.clear()

    def terminate(self) -> None:
        """Forget what was learned of the batches; the engines go on. May be called again."""
        self.reset_batch_stats()
        if self._client is not None:
            self._client.close()
            self._client = self._view = self._executor = None

    def get_nested_backend(self) -> tuple[ParallelBackendBase, None]:
        """Return what runs a Parallel inside a batch: its engine, one after the other."""
        return SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), None


def _call(batch: Callable[[], object]) -> object:
    return batch()


def register(view: View | None, name: str, *, make_default: bool) -> None:
    """Let joblib know the engines of a view by a name; see `register_joblib_backend`."""

    def backend(**kwargs: object) -> ParallelzBackend:
        given = kwargs.pop("view", None)
        return ParallelzBackend(view if given is None else given, **kwargs)  # type: ignore[arg-type]

    register_parallel_backend(name, backend, make_default=make_default)
