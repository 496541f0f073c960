"""Progress bars."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self


class Bar(Protocol):
    """What is used of a progress bar."""

    n: float

    def update(self, n: float = 1) -> object:
        """Go on by `n`."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...


def progress_bar(total: int, unit: str, label: str = "") -> Bar:
    """Return a progress bar: a widget in notebooks, text elsewhere."""
    from tqdm.auto import tqdm  # slow to import, and seldom needed

    class OwnBar(tqdm):  # type: ignore[type-arg]
        monitor_interval = 0  # no thread that looks after bars: ours are updated all the time

    bar: Bar = OwnBar(total=total, unit=unit, desc=label or None)
    return bar
