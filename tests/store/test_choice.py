"""Which stores can be chosen, and that no password gets onto a command line."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from parallelz.errors import ClusterError
from parallelz.store.choice import DATABASE_VARIABLE, conninfo_of, to_store

SECRET = "tiger"
needs_psycopg = pytest.mark.skipif(
    importlib.util.find_spec("psycopg") is None, reason="psycopg is not installed"
)


@pytest.mark.parametrize("name", ["sqlite", "memory", "none"])
def test_a_store_is_named(name: str) -> None:
    assert to_store(name) == name


@pytest.mark.parametrize("name", ["", "oracle", "mysql://host/db", "postgresql:/host"])
def test_an_unknown_store_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(ClusterError, match="sqlite, memory, none, postgresql"):
        to_store(name)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://scott:{SECRET}@host/db",
        f"postgres://scott:{SECRET}@one:1,two:2/db",
        f"postgresql:///db?user=scott&password={SECRET}",
        f"postgresql:///db?sslpassword={SECRET}",
        f"postgresql:/scott:{SECRET}@host/db",
    ],
)
def test_a_password_in_an_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ClusterError) as caught:
        to_store(url)
    assert SECRET not in str(caught.value)


def test_it_is_said_where_a_password_may_be() -> None:
    with pytest.raises(ClusterError, match=f"{DATABASE_VARIABLE}.*~/.pgpass"):
        to_store("postgresql://scott:tiger@host/db")


@needs_psycopg
def test_an_address_without_a_password_is_as_it_was() -> None:
    assert to_store("postgresql://scott@host:5433/db") == "postgresql://scott@host:5433/db"


@needs_psycopg
def test_the_environment_may_hold_the_whole_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATABASE_VARIABLE, f"postgresql://scott:{SECRET}@host/db")
    assert to_store("postgresql") == "postgresql"
    assert conninfo_of("postgresql") == f"postgresql://scott:{SECRET}@host/db"
    assert conninfo_of("postgresql:///other") == "postgresql:///other"


@needs_psycopg
@pytest.mark.parametrize(
    "password", [f"{SECRET}/x", f"1/{SECRET}", f"x@{SECRET}", f"%{SECRET}"]
)
def test_an_address_that_makes_no_sense_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    monkeypatch.setenv(DATABASE_VARIABLE, f"postgresql://scott:{password}@host/db")
    with pytest.raises(ClusterError, match="%XX") as caught:
        to_store("postgresql")
    assert SECRET not in str(caught.value)


@pytest.mark.slow
def test_without_psycopg_it_is_said_at_the_start_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "psycopg.py").write_text("raise ImportError('no psycopg here')")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = "from parallelz.cli.ipcontrollerz import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", command, "--store", "postgresql", "--profile-dir", tmp_path],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "pip install 'parallelz[postgres]'" in done.stderr
    assert "no psycopg here" in done.stderr
