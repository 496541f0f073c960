"""What an AsyncResult becomes when it is pickled."""

from __future__ import annotations

from typing import Literal, NamedTuple, NoReturn

Shape = Literal["single", "list", "map", "joined"]


class DetachedResult(NamedTuple):
    """The tasks of an AsyncResult that was pickled, and how their results are put together.

    It belongs to no client. Any client of the cluster, or of a later one with the same
    database, takes it up: ``rc.get_result(detached)``.
    """

    msg_ids: tuple[str, ...]
    name: str
    shape: Shape
    chunk_lengths: tuple[int, ...] | None = None  # of a map: items of each task; None: one
    is_ordered: bool = True  # of a map
    returns_exceptions: bool = False  # of a map
    dist: str = "b"  # of parts that are joined

    def __repr__(self) -> str:
        count = len(self.msg_ids)
        return f"<DetachedResult({self.name}): {count} task{'' if count == 1 else 's'}>"

    def get(self, timeout: float | None = None) -> NoReturn:
        """Raise RuntimeError: only a client can get it."""
        raise RuntimeError(
            "a result that was pickled belongs to no client: take it up with"
            " rc.get_result(it), rc being a client of its cluster"
        )

    def result(self, timeout: float | None = None) -> NoReturn:
        """Raise RuntimeError, as `get` does."""
        self.get(timeout)
