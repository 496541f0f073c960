"""Tasks that were given up before they came.

An order to give up passes the queues, so it may be here before what it names. It is kept until
that comes.
"""

from __future__ import annotations

from collections import OrderedDict

from parallelz.core.ended import EndedTasksByClient
from parallelz.ids import EngineId, SessionId, TaskId

ORDERS_COUNT_MAX = 100_000
RANGES_COUNT_MAX = 1000  # of each client, for different sets of engines

EngineIds = frozenset[EngineId] | None


class EarlyStops:
    """Orders for tasks that have not come yet; of many, the oldest are forgotten."""

    def __init__(self) -> None:
        self._by_id: OrderedDict[TaskId, set[EngineIds]] = OrderedDict()
        self._below: dict[SessionId, dict[EngineIds, int]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_id or self._below)

    def add(
        self,
        task_ids: list[TaskId],
        source: SessionId,
        engine_ids: list[EngineId] | None,
        ended: EndedTasksByClient,
    ) -> None:
        """Keep an order of a client for those of its own tasks that are still to come."""
        only = None if engine_ids is None else frozenset(engine_ids)
        known = ended.of(source)
        for task_id in task_ids:
            session_id, _, number = task_id.rpartition("-")
            is_own = session_id == source and number.isascii() and number.isdecimal()
            if is_own and int(number) not in known:
                self._by_id.setdefault(task_id, set()).add(only)
                if len(self._by_id) > ORDERS_COUNT_MAX:
                    self._by_id.popitem(last=False)

    def add_below(
        self, number_end: int, source: SessionId, engine_ids: list[EngineId] | None
    ) -> None:
        """Keep an order of a client for all of its tasks with smaller numbers."""
        only = None if engine_ids is None else frozenset(engine_ids)
        if not number_end:
            return
        if only is None:
            self._below[source] = {}  # it takes in all orders before it
        ends = self._below.setdefault(source, {})
        ends.pop(only, None)
        ends[only] = number_end
        if len(ends) > RANGES_COUNT_MAX:
            del ends[next(iter(ends))]

    def take(
        self, task_id: TaskId, source: SessionId, number: int, engine_id: EngineId | None
    ) -> bool:
        """Return whether a task that has just come was given up; of one that was, once."""
        orders: list[EngineIds] = []
        ends = self._below.get(source)
        if ends is not None:
            orders = [only for only, end in ends.items() if number < end]
            if not orders:
                del self._below[source]  # a client's tasks come in order: all of them are here
        if task_id in self._by_id:
            orders.extend(self._by_id.pop(task_id))
        return any(only is None or engine_id in only for only in orders)

    def forget(self, source: SessionId) -> None:
        """Drop what a client has ordered."""
        self._below.pop(source, None)
