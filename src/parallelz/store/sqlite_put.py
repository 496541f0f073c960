"""The statements that write tasks into SQLite, short for what is usual.

Most tasks have no label, no tags, no dependencies, no error and no output. To pass the nothing
that is in these columns for each of them would cost as much as all the rest of writing a row.
So there are two statements for each kind of row, and a row goes by the short one if it can.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter

from parallelz.store.rows import COLUMNS, END_COLUMNS, PENDING, PENDING_COLUMNS, Row

_USUAL_IN_PENDING: dict[str, object] = {
    "label": "",
    "tags": None,
    "after": None,
    "follow": None,
    "options": None,
    "payload_frames": None,
    "engine_id": None,
}
_USUAL_IN_END: dict[str, object] = {
    "frames": None,
    "ename": None,
    "evalue": None,
    "traceback": None,
    "stdout": "",
    "stderr": "",
    "outputs": None,
    "execute_result": None,
}
_USUAL_IN_ENDED = {
    name: value
    for name, value in (_USUAL_IN_PENDING | _USUAL_IN_END).items()
    if name != "engine_id"
}


class Put:
    """Writes rows of one kind.

    Parameters
    ----------
    columns
        Of the rows.
    usual
        Values by column, which the short statement has by itself; None is what is there
        without it.
    write
        Makes a statement from the columns that are passed, and those that are "".
    """

    def __init__(
        self,
        columns: Sequence[str],
        usual: Mapping[str, object],
        write: Callable[[Sequence[str], Sequence[str]], str],
    ) -> None:
        passed = [name for name in columns if name not in usual]
        self._any = write(columns, ())
        self._short = write(passed, [name for name, value in usual.items() if value == ""])
        self._parameters = itemgetter(*map(columns.index, passed))
        values_of = itemgetter(*map(columns.index, usual))
        values = tuple(usual.values())
        self._is_usual: Callable[[Row], bool] = lambda row: values_of(row) == values

    def execute(self, db: sqlite3.Connection, rows: Iterable[Row], run: int) -> int:
        """Write the rows, in order, into this run; return how many that changed."""
        count = 0
        for is_usual, some in groupby(rows, self._is_usual):
            if is_usual:
                statement = self._short.format(run=run)
                written = db.executemany(statement, map(self._parameters, some))
            else:
                written = db.executemany(self._any.format(run=run), some)
            count += written.rowcount
        return count


def _insert(passed: Sequence[str], empty: Sequence[str]) -> str:
    places = ["?"] * len(passed) + ["''"] * len(empty)
    return (
        f"INSERT INTO tasks ({', '.join([*passed, *empty])}, run)"
        f" VALUES ({', '.join(places)}, {{run}}) ON CONFLICT (msg_id) "
    )


def _insert_pending(passed: Sequence[str], empty: Sequence[str]) -> str:
    return _insert(passed, empty) + "DO NOTHING"


def _insert_ended(passed: Sequence[str], empty: Sequence[str]) -> str:
    changes = ", ".join(f"{name} = excluded.{name}" for name in END_COLUMNS)
    return f"{_insert(passed, empty)}DO UPDATE SET {changes} WHERE status = '{PENDING}'"


def _update(passed: Sequence[str], empty: Sequence[str]) -> str:
    *passed, last = passed
    assert last == "msg_id"
    changes = [*(f"{name} = ?" for name in passed), *(f"{name} = ''" for name in empty)]
    return f"UPDATE tasks SET {', '.join(changes)} WHERE msg_id = ? AND status = '{PENDING}'"


PUT_PENDING = Put(PENDING_COLUMNS, _USUAL_IN_PENDING, _insert_pending)
PUT_ENDED = Put(COLUMNS, _USUAL_IN_ENDED, _insert_ended)
PUT_END = Put((*END_COLUMNS, "msg_id"), _USUAL_IN_END, _update)
