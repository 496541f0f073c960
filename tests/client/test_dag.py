from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import networkx
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex

from parallelz.client import dag_plot
from parallelz.client.dag import plot_dag, predecessors_of, validate_graph

START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Ran:
    """The result of a task that ran from `start_s` for `ran_s`."""

    start_s: float
    ran_s: float = 1.0
    engine_id: int = 0
    metadata: dict[str, object] = field(init=False)

    def __post_init__(self) -> None:
        started = START + timedelta(seconds=self.start_s)
        self.metadata = {
            "started": started,
            "completed": started + timedelta(seconds=self.ran_s),
            "engine_id": self.engine_id,
        }


@dataclass
class NeverRan:
    metadata: dict[str, object] = field(
        default_factory=lambda: {"started": None, "completed": None, "engine_id": None}
    )


CAKE = {"cake": ["dough", "oven"], "dough": ["flour"]}
BAKED = {
    "flour": Ran(0),
    "oven": Ran(0, ran_s=2, engine_id=1),
    "dough": Ran(1),
    "cake": Ran(2.5, engine_id=1),
}


def test_a_dict_of_predecessors_is_a_graph() -> None:
    assert predecessors_of(CAKE) == {
        "cake": ["dough", "oven"],
        "dough": ["flour"],
        "oven": [],
        "flour": [],
    }


def test_a_networkx_graph_leads_from_predecessors() -> None:
    graph = networkx.DiGraph([("flour", "dough"), ("dough", "cake"), ("oven", "cake")])
    assert predecessors_of(graph) == {
        "flour": [],
        "dough": ["flour"],
        "cake": ["dough", "oven"],
        "oven": [],
    }


def test_to_start_when_the_predecessor_completes_is_in_order() -> None:
    validate_graph(CAKE, BAKED)


def test_to_start_earlier_is_not() -> None:
    results = {**BAKED, "cake": Ran(1.75)}
    message = r"'cake' started 0\.250000 s before its predecessor 'dough' had completed"
    with pytest.raises(ValueError, match=message):
        validate_graph(CAKE, results)


@pytest.mark.parametrize("results", [{**BAKED, "oven": NeverRan()}, {"cake": Ran(9)}])
def test_all_nodes_must_have_run(results: dict[str, Ran | NeverRan]) -> None:
    with pytest.raises(ValueError, match="has not run"):
        validate_graph(CAKE, results)


def test_the_picture_is_saved(tmp_path: Path) -> None:
    path = tmp_path / "run.png"
    plot_dag(CAKE, BAKED, path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_nodes_are_at_start_and_run_time_in_the_color_of_their_engine() -> None:
    axes = plot_dag(CAKE, BAKED).axes[0]
    dots = [c for c in axes.collections if isinstance(c, PathCollection)]
    places = [sorted(map(tuple, each.get_offsets().tolist())) for each in dots]
    assert places == [[(0.0, 1000.0), (1.0, 1000.0)], [(0.0, 2000.0), (2.5, 1000.0)]]
    assert len({to_hex(each.get_facecolor()[0]) for each in dots}) == 2


def test_what_has_not_run_is_left_out() -> None:
    axes = plot_dag(CAKE, {**BAKED, "cake": NeverRan()}).axes[0]
    assert axes.get_title("left") == "tasks: 3, dependencies: 1, engines: 2, time: 2.00 s"


def test_nothing_ran() -> None:
    assert plot_dag(CAKE, {}).axes[0].get_title() == "nothing has run"


def chain(length: int) -> dict[int, list[int]]:
    return {node: [node - 1] if node else [] for node in range(length)}


def test_an_edge_out_of_order_is_red_among_many() -> None:
    length = dag_plot.ARROWS_MAX + 2
    results = {node: Ran(float(node)) for node in range(length)}
    results[7] = Ran(6.5)
    lines = [
        each
        for each in plot_dag(chain(length), results).axes[0].collections
        if isinstance(each, LineCollection)
    ]
    by_color = {to_hex(each.get_colors()[0]): each.get_segments() for each in lines}
    assert [segment.tolist() for segment in by_color[dag_plot.RED]] == [
        [[6.0, 1000.0], [6.5, 1000.0]]
    ]
    assert len(lines) == 2


def test_run_times_far_apart_are_drawn_on_a_logarithmic_scale() -> None:
    results = {0: Ran(0, ran_s=0.001), 1: Ran(1, ran_s=9)}
    assert plot_dag(chain(2), results).axes[0].get_yscale() == "log"
    assert plot_dag(CAKE, BAKED).axes[0].get_yscale() == "linear"
