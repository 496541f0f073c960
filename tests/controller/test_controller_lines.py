"""Lines come and go, and the controller knows in the end who is there."""

import pytest

from parallelz.controller.attendance import SUPERVISOR_GRACE_S
from parallelz.testing.faults import Faults
from parallelz.testing.simulation import Simulation
from parallelz.testing.work import SimWork
from parallelz.testing.workload import Workload


@pytest.fixture
def cluster():
    simulation = Simulation(2, Faults(), Workload(tasks_count=0))
    simulation.advance(1.0)
    yield simulation
    simulation.close()


def engine_ids(cluster):
    return sorted(cluster.clients[0].engine_ids)


def test_an_engine_whose_greeting_is_read_after_its_line_broke_is_not_taken_for_alive(cluster):
    """The greeting of a new connection, its break and the end of its process come together."""
    for supervisor in cluster.supervisors:
        supervisor.die("it is not to tell")
    cluster.start_engine("host-0")
    cluster.advance(0.5)
    engine = cluster.engines[-1]
    before = engine_ids(cluster)
    (line,) = [x for x in cluster.network.lines_of(engine.name) if x.link is engine.control]
    line.break_there()
    line.break_here()
    cluster.network.connect(engine.control)
    engine.control.receive()  # it greets
    (line,) = [x for x in cluster.network.lines_of(engine.name) if x.link is engine.control]
    for parcel in list(line.up.parcels):
        line.up.parcels.remove(parcel)
        cluster.network.router.deliver(line, parcel.frames)
    lines = cluster.network.lines_of(engine.name)
    engine.die("it was killed")
    for line in lines:
        line.break_here()
    cluster.advance(SUPERVISOR_GRACE_S + 1.0)
    assert engine_ids(cluster) == [e for e in before if e != engine.engine_id]
    assert not any(cluster.controller.remains().values())


def test_an_engine_that_is_given_up_and_lives_comes_back_as_the_one_it_was(cluster):
    engine = next(e for e in cluster.engines if e.peer.host == "host-0")
    engine.freeze()
    (line,) = [x for x in cluster.network.lines_of(engine.name) if x.link is engine.bulk]
    line.break_here()
    cluster.advance(0.1)
    assert engine.engine_id not in engine_ids(cluster)
    assert [x.link for x in cluster.network.lines_of(engine.name)] == [engine.control]
    engine.thaw()
    cluster.advance(3.0)
    assert engine.is_alive
    assert engine.engine_id in engine_ids(cluster)


def test_an_acknowledgement_that_a_break_lost_is_told_again(cluster):
    client = cluster.clients[0]
    client.submit_direct(SimWork(1, 0.0), engine_ids(cluster)[:1])
    cluster.advance(0.0005)
    for line in cluster.network.lines_of(client.name):
        line.break_there()
    cluster.advance(5.0)
    assert client.is_satisfied


def test_each_controller_numbers_envelopes_from_somewhere_else(cluster):
    """What was meant for the one before, and comes late, is not taken for what it expects."""
    supervisor = cluster.supervisors[0]
    first = supervisor.control.welcome
    cluster.controllers.kill_soon()
    cluster.advance(8.0)
    second = supervisor.control.welcome
    assert cluster.controllers.crashes_s
    assert first.controller_id != second.controller_id
    assert abs(first.received - second.received) > 1000


def test_the_cause_of_a_death_is_waited_for_if_its_supervisor_is_slow(cluster):
    engine = cluster.engines[0]
    supervisor = next(s for s in cluster.supervisors if s.peer.host == engine.peer.host)
    supervisor.freeze()
    engine.die("it was killed")
    cluster.advance(0.5)
    assert engine.engine_id in engine_ids(cluster)
    supervisor.thaw()
    cluster.advance(0.5)
    assert engine.engine_id not in engine_ids(cluster)
    roster = cluster.controllers.scheduler.roster
    assert "it was killed" in roster.why_gone(engine.engine_id)


def test_no_cause_is_waited_for_that_a_dead_supervisor_would_have_told(cluster):
    engine = cluster.engines[0]
    supervisor = next(s for s in cluster.supervisors if s.peer.host == engine.peer.host)
    killed_s = cluster.timeline.now_s
    engine.die("it was killed")
    supervisor.die("it was killed, too")
    while engine.engine_id in engine_ids(cluster):
        cluster.advance(0.01)
    assert cluster.timeline.now_s - killed_s < SUPERVISOR_GRACE_S
