"""A peer's end of a link: what it says when, and what it takes."""

import msgspec

from parallelz.protocol.envelope import Envelope, pack
from parallelz.protocol.messages import (
    PROTOCOL_VERSION,
    Goodbye,
    Hello,
    PeerInfo,
    SayHello,
    Welcome,
)
from parallelz.protocol.roles import ToClient
from parallelz.transport.link import GREETING_PERIOD_S, TELL_PERIOD_S, UNTOLD_COUNT_MAX, LinkEnd

HELLO = Hello(PROTOCOL_VERSION, "s", "client", "bulk", "token", 0, "", PeerInfo("h", "h", 1))
decode = msgspec.msgpack.Decoder(Envelope[Hello | Goodbye]).decode


class HeldLink(LinkEnd):
    """A link whose frames go nowhere."""

    def __init__(self):
        self.now_s = 0.0
        self.sent = []
        super().__init__(HELLO, ToClient, clock=lambda: self.now_s)
        self._greet()

    def _send(self, frames):
        self.sent.append(decode(frames[0]))

    def hear(self, *messages, number=0, acknowledged=0):
        items = []
        self._take_in(pack(number, acknowledged, messages), [], items)
        return [message for message, _ in items]

    def greetings(self):
        return [m for e in self.sent for m in e.messages if isinstance(m, Hello)]


def welcomed(received=0):
    link = HeldLink()
    link.hear(Welcome("c", received))
    return link


def test_nothing_leaves_before_the_answer_to_the_greeting():
    link = HeldLink()
    link.put(Goodbye("x"))
    link.flush()
    assert [type(e.messages[0]) for e in link.sent] == [Hello]
    link.hear(Welcome("c", 0))
    link.flush()
    assert link.sent[-1].messages == [Goodbye("x")]


def test_what_came_before_a_break_is_taken_after_it():
    link = welcomed()
    link._disconnected()
    assert link.hear(Goodbye("the last words"), number=1) == [Goodbye("the last words")]


def test_what_is_numbered_is_not_taken_before_the_answer_to_the_greeting():
    link = HeldLink()
    assert link.hear(Goodbye("early"), number=1) == []
    link.hear(Welcome("c", 0))
    assert link.hear(Goodbye("again"), number=1) == [Goodbye("again")]


def test_a_gap_leads_to_one_greeting_and_not_to_one_for_each_envelope_behind_it():
    link = welcomed()
    for number in (2, 3, 4):
        assert link.hear(Goodbye("x"), number=number) == []
    assert len(link.greetings()) == 2
    assert link.greetings()[-1].received == 0
    assert link.greetings()[-1].controller_id == "c"


def test_who_is_asked_says_hello_again():
    link = welcomed()
    link.hear(SayHello())
    assert len(link.greetings()) == 2


def test_a_greeting_without_an_answer_is_repeated():
    link = HeldLink()
    link.now_s = GREETING_PERIOD_S
    assert link.tick(link.now_s) == 2 * GREETING_PERIOD_S
    assert len(link.greetings()) == 2


def test_what_was_lost_in_a_break_is_sent_again_after_it():
    link = welcomed()
    for text in ("1", "2"):
        link.put(Goodbye(text))
        link.flush()
    link._disconnected()
    link._connected()
    link._connected()
    link.hear(Welcome("c", 1))
    assert link.sent[-1].number == 2


def test_another_controller_gets_all_that_is_kept_numbered_anew():
    link = welcomed()
    for text in ("1", "2", "3"):
        link.put(Goodbye(text))
        link.flush()
    link.hear(acknowledged=1)
    link.hear(SayHello())
    link.hear(Welcome("another", 0))
    assert [(e.number, e.messages[0].reason) for e in link.sent[-2:]] == [(1, "2"), (2, "3")]


def test_acknowledgements_find_something_to_ride_on_or_leave_after_a_while():
    link = welcomed()
    link.hear(Goodbye("x"), number=1)
    count = len(link.sent)
    due_s = link.tick(1.0)
    assert (due_s, len(link.sent)) == (1.0 + TELL_PERIOD_S, count)
    link.tick(due_s)
    assert (link.sent[-1].number, link.sent[-1].acknowledged) == (0, 1)


def test_an_acknowledgement_is_told_again_after_a_break_that_may_have_lost_it():
    link = welcomed()
    link.hear(Goodbye("x"), number=1)
    link.tick(link.tick(1.0))
    link._disconnected()
    link.hear(Welcome("c", 0))
    link.sent.clear()
    link.tick(link.tick(2.0))
    assert [(e.number, e.acknowledged) for e in link.sent] == [(0, 1)]


def test_many_acknowledgements_do_not_wait_for_the_clock():
    link = welcomed()
    for number in range(1, UNTOLD_COUNT_MAX + 1):
        link.hear(Goodbye("x"), number=number)
    link._took_all()
    assert link.sent[-1].acknowledged == UNTOLD_COUNT_MAX
