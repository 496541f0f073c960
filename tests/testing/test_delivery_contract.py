"""The contract that simulations with killed controllers check can be broken, and tells so."""

from __future__ import annotations

import logging

import msgspec
import pytest

from parallelz.testing.faults import Faults
from parallelz.testing.simulation import Simulation
from parallelz.testing.work import Run
from parallelz.testing.workload import Workload

FAULTS = Faults(controller_crash=0.4, store_loss=0.0)
SEED = 5


@pytest.fixture
def simulation():
    logging.disable(logging.CRITICAL)
    workload = Workload(tasks_count=60, request=0.0, leave=0.0, unmet=0.0)
    simulation = Simulation(SEED, FAULTS, workload)
    simulation.calm()
    assert simulation.controllers.crashes_s
    assert simulation.keeps_history
    yield simulation
    simulation.close()
    logging.disable(logging.NOTSET)


def broken(simulation):
    return list(simulation.contract().broken())


def first_ok(simulation):
    client = simulation.clients[0]
    return client, next(t for t, ends in client.ends.items() if ends[0][0].status == "ok")


def test_it_is_kept_although_controllers_and_recorders_were_killed(simulation):
    assert broken(simulation) == []


def test_an_answer_that_is_missing_or_wrong_is_told(simulation):
    client, task_id = first_ok(simulation)
    (ended, buffers), *_ = client.ends[task_id]
    wrong = msgspec.structs.replace(ended, data=msgspec.msgpack.encode(-1))
    client.ends[task_id] = [(wrong, buffers)]
    assert broken(simulation) == [f"{task_id} has a wrong result"]
    del client.ends[task_id]
    assert broken(simulation) == [f"{task_id} has no answer"]


def test_a_loss_without_a_reason_is_told(simulation):
    client, task_id = first_ok(simulation)
    (ended, _), *_ = client.ends[task_id]
    client.ends[task_id] = [(msgspec.structs.replace(ended, status="lost"), ())]
    told = broken(simulation)
    assert any(f"{task_id} ended as lost for no reason" in each for each in told)
    assert any(f"{task_id} was answered as lost and is ok" in each for each in told)


def test_a_second_start_is_told(simulation):
    plans = {t: plan for c in simulation.clients for t, plan in c.plans.items()}
    task_id, runs = next(
        (t, runs) for t, runs in simulation.witness.starts.items() if not plans[t].retries
    )
    runs.append(Run(20.0, 9, runs[0].session_id, runs[0].engine_id))
    assert any(f"{task_id} started 2 times" in each for each in broken(simulation))
