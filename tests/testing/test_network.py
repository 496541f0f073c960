"""The simulated network does what libzmq does, as far as links can tell."""

from parallelz.protocol.messages import Goodbye
from parallelz.protocol.roles import ToClient
from parallelz.testing.network import HEARTBEAT_TIMEOUT_S, Mishaps, Network
from parallelz.testing.peers import SimProcess
from parallelz.testing.timeline import Timeline


class Talker(SimProcess):
    """A peer that only has one link."""

    def __init__(self, network):
        super().__init__(network, "talker", "client", "host", 1)
        self.thread = self.loop(lambda: None)
        self.control = self.link("control", ToClient, self.thread)


def talk(seed=0, mishaps=None):
    timeline = Timeline(seed)
    network = Network(timeline, mishaps or Mishaps(), busy_max_s=0.0)
    return timeline, network, Talker(network)


def pass_s(timeline, seconds):
    timeline.run(timeline.now_s + seconds, lambda: False)


def send(talker, *texts):
    for text in texts:
        talker.control._send([text])


def test_envelopes_arrive_in_order():
    timeline, network, talker = talk()
    send(talker, b"1", b"2", b"3")
    pass_s(timeline, 1.0)
    assert [a.first for a in network.router.receive(10)][1:] == [b"1", b"2", b"3"]


def test_a_line_that_breaks_loses_some_and_keeps_the_order_of_the_rest():
    texts = [b"%d" % n for n in range(20)]
    losses = 0
    for seed in range(20):
        timeline, network, talker = talk(seed)
        send(talker, *texts)
        network.lines_of("talker")[0].break_there()
        pass_s(timeline, 5.0)
        got = [a.first for a in network.router.receive(100) if a.first in texts]
        assert got == sorted(got, key=texts.index)
        assert len(network.router.broken_fds()) == 1
        losses += len(got) < len(texts)
    assert losses


def test_who_hears_nothing_breaks_the_line_and_the_peer_connects_anew_when_it_can():
    timeline, network, _talker = talk()
    network.cut("talker", up=True, down=False)
    pass_s(timeline, HEARTBEAT_TIMEOUT_S - 0.1)
    assert network.router.broken_fds() == []
    pass_s(timeline, 1.0)
    assert len(network.router.broken_fds()) == 1
    assert network.lines_of("talker") == []
    network.heal("talker")
    pass_s(timeline, 2.0)
    assert len(network.lines_of("talker")) == 1


def test_a_silence_shorter_than_the_time_out_only_delays():
    timeline, network, talker = talk()
    network.cut("talker", up=True, down=True)
    send(talker, b"late")
    pass_s(timeline, 1.0)
    assert list(network.router.receive(10)) == []
    network.heal("talker")
    pass_s(timeline, 5.0)
    assert [a.first for a in network.router.receive(10)][-1] == b"late"
    assert network.router.broken_fds() == []


def test_a_new_line_may_have_the_descriptor_of_the_last():
    timeline, network, _talker = talk()
    (old,) = network.lines_of("talker")
    old.break_there()
    pass_s(timeline, 5.0)
    (new,) = network.lines_of("talker")
    assert (new.fd, new.routing_id != old.routing_id) == (old.fd, True)


def test_sends_to_a_line_that_broke_fail_once_the_router_has_looked():
    _timeline, network, _talker = talk()
    (line,) = network.lines_of("talker")
    line.break_here()
    assert network.router.send(line.routing_id, [b"x"])
    network.router.poll(0.0)
    assert not network.router.send(line.routing_id, [b"x"])


def test_mishaps_drop_double_and_overtake():
    _, network, talker = talk(mishaps=Mishaps(drop=1.0))
    send(talker, b"x")
    assert network.lines_of("talker")[0].up.parcels == []
    timeline, network, talker = talk(mishaps=Mishaps(duplicate=1.0))
    pass_s(timeline, 1.0)
    assert len(list(network.router.receive(10))) == 2


def test_a_link_says_goodbye_to_nobody_before_it_is_welcome():
    timeline, network, talker = talk()
    talker.control.put(Goodbye("early"))
    talker.control.flush()
    pass_s(timeline, 1.0)
    assert len(list(network.router.receive(10))) == 1
