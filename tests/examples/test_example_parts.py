"""What examples compute, without a cluster."""

from __future__ import annotations

import argparse
from pathlib import Path

import common
import dag_of_waits
import networkx as nx
import numpy as np
import option_prices
import parameter_search
import pi_digits
import pytest
import wave_sockets
import wave_solver
import word_count
from helpers_examples import EXAMPLES


def test_all_are_tested_and_in_the_readme() -> None:
    parts = {"common", "psum_ranks", "wave_solver"}
    names = {path.stem for path in EXAMPLES.glob("*.py")} - parts
    here = Path(__file__).parent
    tests = "".join(path.read_text() for path in here.glob("test_*_examples.py"))
    tests += (here / "test_examples.py").read_text()
    readmes = [folder / "README.md" for folder in (EXAMPLES, EXAMPLES.parent)]
    for text in (tests, *(readme.read_text() for readme in readmes)):
        assert {name for name in names if name not in text} == set()


# -- common -------------------------------------------------------------------------------


def test_a_table_has_numbers_on_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    common.print_table(("name", "count"), [("a", "1,024"), ("long", 7)])
    assert capsys.readouterr().out == (
        "\n"
        "name  count\n"
        "----  -----\n"
        "a     1,024\n"
        "long      7\n"
    )  # fmt: skip


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "x", ""])
def test_a_number_of_things_is_one_or_more(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="1 or more"):
        common.positive(text)


def test_a_cluster_is_started_or_found_not_both(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        common.new_parser("").parse_args(["--engines", "2", "--profile", "x"])
    assert "not allowed with argument --engines" in capsys.readouterr().err


# -- dag_of_waits -------------------------------------------------------------------------


def test_a_random_dag_is_one_of_its_size_and_seed() -> None:
    graph = dag_of_waits.random_dag(10, 30, seed=1)
    assert nx.is_directed_acyclic_graph(graph)
    assert (graph.number_of_nodes(), graph.number_of_edges()) == (10, 30)
    assert nx.utils.graphs_equal(graph, dag_of_waits.random_dag(10, 30, seed=1))
    assert not nx.utils.graphs_equal(graph, dag_of_waits.random_dag(10, 30, seed=2))


def test_too_many_edges_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        dag_of_waits.main(["--nodes", "4", "--edges", "7"])
    assert "4 nodes cannot have 7 edges" in capsys.readouterr().err


def test_the_longest_chain_is_that_of_time() -> None:
    graph = nx.DiGraph([(0, 1), (1, 2), (0, 3)])
    assert dag_of_waits.longest_chain_s(graph, {0: 1.0, 1: 1.0, 2: 1.0, 3: 5.0}) == 6.0


# -- pi_digits ----------------------------------------------------------------------------


def pi_by_machin(digit_count: int) -> int:
    """Return the digits of pi by 16 arctan(1/5) - 4 arctan(1/239)."""
    one = 10 ** (digit_count + 10)

    def arctan_of_one_over(x: int) -> int:
        total, power, odd = 0, one // x, 1
        while power:
            total += power // odd if odd % 4 == 1 else -(power // odd)
            power, odd = power // (x * x), odd + 2
        return total

    return (16 * arctan_of_one_over(5) - 4 * arctan_of_one_over(239)) // 10**10


@pytest.mark.parametrize("digit_count", [1, 10, 2000])
def test_digits_of_pi_are_those_of_another_series(digit_count: int) -> None:
    run = pi_digits.run_of_terms(0, pi_digits.term_count(digit_count))
    digits = pi_digits.digits_of(run, pi_digits.inverse_root(digit_count), digit_count)
    assert b"3" + digits == str(pi_by_machin(digit_count)).encode()


def test_runs_of_terms_can_be_cut_anywhere() -> None:
    whole = pi_digits.run_of_terms(0, 20)
    left, right = pi_digits.run_of_terms(0, 7), pi_digits.run_of_terms(7, 20)
    assert pi_digits.joined(left, right) == whole


@pytest.mark.parametrize("part_count", [1, 3, 50])
def test_each_pair_of_digits_is_counted_once(part_count: int) -> None:
    digits = b"14159265358979323846"
    parts = pi_digits.overlapping_parts(digits, part_count)
    counted = sum(pi_digits.count_pairs(part) for part in parts)
    assert counted.sum() == len(digits) - 1
    assert (counted[1, 4], counted[9, 7], counted[8, 4]) == (1, 1, 1)


# -- option_prices ------------------------------------------------------------------------


def test_black_scholes_gives_the_price_of_the_textbooks() -> None:
    market = option_prices.Market(spot=100, rate=0.05, years=1, days=1)
    assert option_prices.black_scholes(market, 100, 0.2) == pytest.approx(10.4506, abs=1e-4)


def test_the_price_of_a_simulation_depends_on_its_seed_only() -> None:
    market = option_prices.Market(spot=100, rate=0.05, years=1, days=20)
    seeds = np.random.SeedSequence(1).spawn(2)
    first = option_prices.price(market, 100, 0.2, seeds[0], 1500)
    assert option_prices.price(market, 100, 0.2, seeds[0], 1500) == first
    assert option_prices.price(market, 100, 0.2, seeds[1], 1500) != first
    european, error, asian, _ = first
    assert european == pytest.approx(10.4506, abs=5 * error)
    assert asian < european


# -- wave ---------------------------------------------------------------------------------


def test_parts_cover_the_grid_once() -> None:
    cells = np.zeros((7, 11), int)
    for part in wave_solver.cut(7, 11, 2, 3).values():
        cells[part.first_row : part.end_row, part.first_column : part.end_column] += 1
    assert (cells == 1).all()


@pytest.mark.parametrize(("count", "factors"), [(1, (1, 1)), (6, (2, 3)), (7, (1, 7))])
def test_engines_are_arranged_in_a_rectangle(count: int, factors: tuple[int, int]) -> None:
    assert wave_sockets.nearly_square(count) == factors


def test_the_pulse_runs_to_the_right_at_a_speed_of_one() -> None:
    row_count = 200
    wave = wave_solver.Wave(
        row_count, wave_solver.Part(0, row_count, 0, 2 * row_count), wave_solver.Ghosts()
    )
    step_count = 30
    wave.run(step_count)
    x = (np.arange(2 * row_count) + 0.5) / row_count
    y = (np.arange(row_count) + 0.5) / row_count
    expected = wave_solver.pulse(x - step_count * wave.step_length, y)
    assert np.abs(wave.inner - expected).max() < 0.1


# -- word_count ---------------------------------------------------------------------------


def test_words_are_those_of_docstrings(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        '"""One, two."""\ndef f():\n    """Two: it\'s."""\n    return "three"  # four\n'
    )
    assert word_count.count_words([path]) == {"one": 1, "two": 2, "it's": 1}


# -- parameter_search ---------------------------------------------------------------------


def test_configurations_are_within_their_limits() -> None:
    configurations = parameter_search.random_configurations(100, seed=1)
    assert configurations == parameter_search.random_configurations(100, seed=1)
    low, high = parameter_search.WIDTHS
    assert {low <= each.width <= high for each in configurations} == {True}


@pytest.mark.slow
def test_a_network_learns_what_it_was_not_shown() -> None:
    judge = parameter_search.spirals(parameter_search.JUDGE_SEED)
    before = parameter_search.learn(32, 0.02, 1e-5, seed=1, steps=1)
    after = parameter_search.learn(32, 0.02, 1e-5, seed=1, steps=500)
    assert parameter_search.accuracy(before, *judge) < 0.7
    assert parameter_search.accuracy(after, *judge) > 0.9
