"""A cluster under faults keeps its promises, and a seed shows again what happened."""

import logging
import os
import subprocess
import sys
from dataclasses import asdict
from random import Random

import pytest

from parallelz.testing.faults import Faults
from parallelz.testing.simulation import PromiseBroken, Simulation, main
from parallelz.testing.workload import Workload

COMMAND = [sys.executable, "-m", "parallelz.testing.simulation"]


@pytest.fixture(autouse=True)
def quiet_log():
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("seed", range(10))
def test_promises_hold_under_faults(seed):
    Simulation(seed, workload=Workload(tasks_count=100)).run()


@pytest.mark.parametrize("seed", range(100, 106))
def test_the_contract_holds_where_controllers_are_killed(seed):
    faults = Faults.drawn(Random(seed))
    faults.controller_crash = 0.5
    simulation = Simulation(seed, faults, Workload(tasks_count=100))
    simulation.run()
    assert simulation.controllers.crashes_s


def test_all_tasks_end_well_where_nothing_goes_wrong():
    workload = Workload(tasks_count=100, request=0.0, dependent=0.0, unmet=0.0, inputs=0.0)
    simulation = Simulation(1, Faults(), workload)
    simulation.run()
    for client in simulation.clients:
        for task_id, ((ended, _),) in client.ends.items():
            if client.plans[task_id].work.outcome == "ok" and not client.plans[task_id].options:
                assert ended.status == "ok"


def test_kinds_of_faults_are_drawn_apart():
    drawn = [asdict(Faults.drawn(Random(seed))) for seed in range(20)]
    for kind in ("drop", "line_break", "partition", "engine_crash", "controller_crash"):
        assert {faults[kind] > 0 for faults in drawn} == {True, False}


def test_a_seed_gives_the_same_journal_again():
    first, again = Simulation(3), Simulation(3)
    first.run()
    again.run()
    assert first.timeline.journal == again.timeline.journal
    assert first.timeline.digest() == again.timeline.digest()


@pytest.mark.slow
def test_a_seed_gives_the_same_journal_in_every_process():
    outputs = {
        subprocess.run(
            [*COMMAND, "--seed", "5"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_a_broken_promise_is_told_with_the_seed_and_the_latest_events(monkeypatch, capsys):
    monkeypatch.setattr("parallelz.testing.simulation.LIMIT_S", 1.0)
    with pytest.raises(PromiseBroken, match=r"(?s)hears.*not quiet.*--seed 4"):
        Simulation(4).run()
    assert main(["--start", "4"]) == 1
    assert "--seed 4" in capsys.readouterr().err


def test_many_seeds_end_in_one_line(capsys):
    assert main(["--start", "0", "--count", "2"]) == 0
    assert capsys.readouterr().out.startswith("2 simulations with ")
