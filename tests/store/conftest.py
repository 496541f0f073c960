"""Every kind of store, for tests of what all of them promise.

A kind is a context manager that gives a function; each call of that begins with nothing
remembered and returns a function that opens the store, again and again as restarts would.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from itertools import count

import pytest
from helpers_postgres import PostgresServer, new_database
from helpers_store import RUN

from parallelz.store.interface import Store
from parallelz.store.memory import MemoryStore
from parallelz.store.sqlite import SqliteStore

Opener = Callable[[], Store]
Begin = Callable[[], Opener]


@contextlib.contextmanager
def _memory(request: pytest.FixtureRequest) -> Iterator[Begin]:
    def begin() -> Opener:
        store = MemoryStore()
        return lambda: store

    yield begin


@contextlib.contextmanager
def _sqlite(request: pytest.FixtureRequest) -> Iterator[Begin]:
    paths: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
    directory = paths.mktemp("sqlite")
    numbers = count()

    def begin() -> Opener:
        path = directory / f"{next(numbers)}.sqlite"
        return lambda: SqliteStore(path)

    yield begin


@contextlib.contextmanager
def _postgresql(request: pytest.FixtureRequest) -> Iterator[Begin]:
    # First, as it skips the test where there is no server; without one there may be no psycopg.
    server: PostgresServer = request.getfixturevalue("postgres_server")
    import psycopg

    from parallelz.store.postgres import PostgresStore

    with new_database(server) as url:

        def begin() -> Opener:
            PostgresStore(url).close()
            with psycopg.connect(url) as connection:
                tables = b"tasks, engines, functions, runs"
                connection.execute(b"SET search_path = parallelz; TRUNCATE " + tables)
            return lambda: PostgresStore(url)

        yield begin


STORES: dict[str, Callable[[pytest.FixtureRequest], contextlib.AbstractContextManager[Begin]]]
STORES = {"memory": _memory, "sqlite": _sqlite, "postgresql": _postgresql}
_SERVICES = {"postgresql"}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[pytest.mark.service] if name in _SERVICES else [])
        for name in STORES
    ],
)
def begin(request: pytest.FixtureRequest) -> Iterator[Begin]:
    """Return what gives an empty store of each kind."""
    with STORES[request.param](request) as made:
        yield made


@pytest.fixture
def open_store(begin: Begin) -> Opener:
    """Return what opens one store of each kind, which is empty at first."""
    return begin()


@pytest.fixture
def store(open_store: Opener) -> Iterator[Store]:
    """Return an open store of each kind, in a run."""
    made = open_store()
    made.begin_run(RUN, 0.0)
    yield made
    made.close()
