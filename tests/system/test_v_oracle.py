"""The kill test's judge finds what is planted: losses, doubles, reorderings,
false and missing gaps, positions given twice; and nothing where nothing is."""
import contextlib
import time

import pytest

import harness
from oracle import ALL, REASONS, Oracle, Rule
from sse import Sse
from subscribers import Subscribers

A, B, C = 1000, 2000, 3000  # epochs
CHANNEL, READER = 7, 3


class Story:
    """A channel of messages 1, 2, 3 ..., acknowledged a second apart, and one
    reader."""

    def __init__(self, **rule):
        self.oracle = Oracle([Rule(0, 100, **{"size": 1000, **rule})])
        self.t = 100.0

    def record(self, kind, channel=CHANNEL, life=0, detail=0, count=0, a=0,
               b=0, c=0, d=0, t=None):
        t = self.t if t is None else t
        self.oracle.record((ord(kind), 0, detail, READER, life, channel, count,
                            0, a, b, c, d, int(t * 1e9)))
        return self

    def ack(self, *numbers, epoch=A, shift=0, sent=None):
        for n in numbers:
            self.t += 1
            self.oracle.acknowledged(CHANNEL, n, epoch, n + shift,
                                     self.t if sent is None else sent,
                                     self.t + 0.01)
        return self

    def ready(self, epoch, offset, **kw):
        return self.record("R", a=epoch, b=offset, **kw)

    def run(self, number, count, epoch=A, shift=0, **kw):
        self.t += 0.1
        return self.record("M", a=epoch, b=number + shift if epoch else 0,
                           c=number, count=count, **kw)

    def gap(self, reason, low, high, **kw):
        a, b = low or (0, 0)
        c, d = high or (0, 0)
        return self.record("G", detail=REASONS.index(reason), a=a, b=b, c=c,
                           d=d, **kw)

    def loss(self, seconds=1):
        self.oracle.lost("loss", self.t, self.t + seconds)
        self.t += seconds
        return self

    def wrong(self):
        verdict = self.oracle.judge()
        print("\n".join(verdict.lines()))  # of a test that fails
        return dict(verdict.wrong)


def test_all_is_well():
    s = Story().ready(A, 0).ack(*range(1, 11)).run(1, 4).run(5, 6)
    assert s.wrong() == {}
    assert s.oracle.verdict.seen["messages"] == 10


def test_finds_a_loss_at_the_end():
    assert Story().ready(A, 0).ack(1, 2, 3).run(1, 2).wrong() == {"lost": 1}


def test_finds_a_loss_in_the_middle():
    s = Story().ready(A, 0).ack(1, 2, 3, 4).run(1, 1).run(3, 2)
    assert s.wrong() == {"lost": 1, "holes": 1}


def test_finds_a_hole_of_what_nobody_acknowledged():
    s = Story().ready(A, 0).ack(1, 3).run(1, 1).run(3, 1)
    assert s.wrong() == {"holes": 1}


def test_before_the_anchor_nothing_is_owed():
    assert Story().ack(1, 2).ready(A, 2).ack(3).run(3, 1).wrong() == {}


def test_who_left_is_owed_what_is_before_its_last():
    s = Story().ready(A, 0).ack(1, 2, 3, 4).run(1, 1).run(3, 1)
    s.record("E", channel=ALL)
    assert s.wrong() == {"lost": 1, "holes": 1}
    s = Story().ready(A, 0).ack(1, 2, 3, 4).run(1, 3).record("E", channel=ALL)
    assert s.wrong() == {}


def test_a_new_life_is_owed_what_comes_after_its_beginning():
    s = Story().ready(A, 0).ack(1, 2).run(1, 2).record("E", channel=ALL)
    s.ack(3).ready(A, 3, life=1).ack(4, 5)
    assert s.run(4, 1, life=1).wrong() == {"lost": 1}


def test_finds_a_double():
    s = Story().ready(A, 0).ack(1, 2, 3).run(1, 3).run(2, 1)
    assert s.wrong() == {"doubled": 1}


def test_finds_reordering():
    s = Story().ready(A, 0).ack(1, 2, 3).run(1, 1).run(3, 1).run(2, 1)
    assert s.wrong() == {"holes": 1, "reordered": 1}


def test_finds_an_older_epoch_behind_a_newer():
    s = Story().ready(A, 0).ack(1, 2).run(1, 1).loss()
    s.ack(3, epoch=B, shift=-1).run(3, 1, epoch=B, shift=-1).run(2, 1)
    assert s.wrong() == {"reordered": 1}


def test_several_producers_numbers_in_any_order():
    s = Story().ready(A, 0)
    for number, offset in ((2, 1), (1, 2), (4, 3), (3, 4)):
        s.oracle.acknowledged(CHANNEL, number, A, offset, 100.5, 101)
        s.run(number, 1, shift=offset - number)
    assert s.wrong() == {}


# --- positions ----------------------------------------------------------------

def test_finds_a_position_given_twice():
    """D2: the acknowledged 3' at the offset of the delivered 3."""
    s = Story().ready(A, 0).ack(1, 2, 3).run(1, 3).loss()
    s.ack(4, shift=-1)
    wrong = s.wrong()
    assert wrong.pop("backwards") == 1
    assert wrong == {"given_twice": 1, "lost": 1}


def test_finds_a_position_that_readers_saw_twice():
    """Nobody was answered: a message that came and another."""
    s = Story().ready(A, 0).ack(1).run(1, 2).loss()
    s.record("R", life=1, a=A, b=1).run(9, 1, shift=-7, life=1)
    assert s.wrong() == {"given_twice": 1}


def test_finds_a_message_appended_twice():
    s = Story().ready(A, 0).ack(1, 2)
    s.run(1, 2).run(2, 1, shift=1)
    wrong = s.wrong()
    assert wrong == {"appended_twice": 1, "doubled": 1}


def test_finds_places_that_go_backwards():
    """An older epoch again (D2, iii)."""
    s = Story().ack(1, epoch=B).ack(2, epoch=A)
    assert s.wrong() == {"backwards": 1}


def test_finds_an_answer_of_a_log_that_is_gone():
    """D23: the retry meets the remembered answer, the message is nowhere."""
    s = Story().ready(A, 0).ack(1).run(1, 1).loss()
    s.ack(3, epoch=B, shift=-1).run(3, 1, epoch=B, shift=-1)
    s.oracle.acknowledged(CHANNEL, 2, A, 2, 102, 110, tried=109)
    assert s.wrong() == {"stale_answers": 1, "lost": 1}


def test_a_message_appended_anew_at_the_same_offset():
    """4 to 6 of A are lost; 6 was not answered and is given to B, where it is
    at 6 again: 4 and 5 are others all the same."""
    s = Story().ready(A, 0).ack(1, 2, 3, 4, 5).run(1, 6).loss()
    s.ack(7, 8, epoch=B, shift=-3).ack(6, epoch=B)
    s.run(7, 2, epoch=B, shift=-3).run(6, 1, epoch=B)
    assert s.wrong() == {}
    log = s.oracle.logs[CHANNEL]
    assert log.shared(A, B, 4) is False and log.shared(A, B, 3) is None


def test_in_flight_together_have_no_order():
    s = Story().ready(A, 0)
    s.ack(2, sent=100.0).ack(1, sent=100.0)
    s.oracle.acks[CHANNEL].sort(key=lambda a: a.acked)
    assert s.run(1, 2).wrong() == {}


# --- the store went back ------------------------------------------------------

def went_back(base, reader_at):
    """1 to 5 in epoch A, of which the store keeps `base`; then 6 and 7 in B at
    base + 1 and 2."""
    s = Story().ready(A, 0).ack(1, 2, 3, 4, 5)
    if reader_at:
        s.run(1, reader_at)
    s.loss()
    return s.ack(6, 7, epoch=B, shift=base - 5)


def test_a_level_reader_is_told_nothing():
    s = went_back(3, 5).run(6, 2, epoch=B, shift=-2)
    assert s.wrong() == {}


def test_others_are_told_exactly():
    s = went_back(3, 4).gap("rewound", (A, 5), (A, 5))
    assert s.run(6, 2, epoch=B, shift=-2).wrong() == {}


def test_what_is_left_follows_a_gap():
    """The reader was at 1; 2 and 3 come in the new epoch."""
    s = went_back(3, 1).gap("rewound", (A, 4), (B, 3))
    s.run(2, 2, epoch=B).run(6, 2, epoch=B, shift=-2)
    assert s.wrong() == {}


def test_finds_a_missing_gap():
    s = went_back(3, 4).run(6, 2, epoch=B, shift=-2)
    assert s.wrong() == {"lost": 1}


def test_finds_what_the_gap_leaves_out():
    s = went_back(3, 3).gap("rewound", (A, 5), (A, 5))
    assert s.run(6, 2, epoch=B, shift=-2).wrong() == {"lost": 1}


def test_finds_new_messages_that_a_gap_hides():
    """6 is in the new log, and could have been delivered."""
    s = went_back(3, 4).gap("rewound", (A, 5), (A, 5))
    assert s.run(7, 1, epoch=B, shift=-2).wrong() == {"lost": 1}


def test_finds_a_gap_of_what_came():
    s = went_back(3, 5).gap("rewound", (A, 4), (A, 5))
    s.run(6, 2, epoch=B, shift=-2)
    assert s.wrong() == {"gaps_of_what_came": 1}


def test_finds_a_gap_of_what_comes():
    s = went_back(3, 3).gap("rewound", (A, 4), (B, 4))
    s.run(6, 2, epoch=B, shift=-2)
    # 6 at B:4 is in it, or the gap would be true.
    assert s.wrong() == {"gaps_false": 1}


def test_finds_a_gap_that_is_told_twice():
    s = went_back(3, 4).gap("rewound", (A, 5), (A, 5))
    s.gap("rewound", (A, 5), (A, 5)).run(6, 2, epoch=B, shift=-2)
    assert s.wrong() == {"gaps_without_cause": 1}


def test_finds_a_gap_of_a_loss_that_there_was_not():
    s = Story().ready(A, 0).ack(1, 2, 3).run(1, 1)
    s.gap("rewound", (A, 2), (A, 2)).run(3, 1)
    assert s.wrong() == {"gaps_without_cause": 1}


def test_finds_a_gap_for_who_came_after_the_loss():
    s = Story().ack(1, 2).loss().ack(*range(3, 10), epoch=B, shift=-1)
    s.ready(B, 8).gap("rewound", (A, 2), (B, 2))
    assert s.wrong() == {"gaps_without_cause": 1}


def test_a_log_that_moves_long_after_the_loss():
    """With its next message, under who came meanwhile."""
    s = Story().ack(1, 2).loss()
    s.t += 60
    s.ready(A, 2).gap("rewound", (A, 3), (B, 2))
    assert s.wrong() == {}


def test_finds_a_gap_of_what_was_before_the_beginning():
    """Who began at 3, which is lost, was never owed it."""
    s = Story().ack(1, 2, 3).ready(A, 3).loss()
    s.ack(4, epoch=B, shift=-1).gap("rewound", (A, 3), (A, 3))
    assert s.run(4, 1, epoch=B, shift=-1).wrong() == {"gaps_of_what_came": 1}


def test_a_log_that_begins_again():
    """FLUSHALL: the new epoch counts from 1, and is not the old log."""
    s = Story().ready(A, 0).ack(1, 2, 3).run(1, 3).loss()
    s.ack(4, 5, epoch=B, shift=-3).run(4, 2, epoch=B, shift=-3)
    assert s.wrong() == {}
    s = Story().ready(A, 0).ack(1, 2, 3).run(1, 1).loss()
    s.ack(4, 5, epoch=B, shift=-3).gap("epoch", (A, 2), (A, 3))
    assert s.run(4, 2, epoch=B, shift=-3).wrong() == {}


def test_lost_and_then_appended_anew():
    """Nobody was answered before the loss, so the producer sent it again."""
    s = Story().ready(A, 0).ack(1).run(1, 2).loss()
    s.ack(2, epoch=B).run(2, 1, epoch=B)
    assert s.wrong() == {}


def test_what_is_kept_follows_an_epoch_that_is_gone():
    """Once more; but not after a gap that says where the log goes on."""
    def story(reason, offset):
        s = Story().ready(A, 0).ack(1, 2, 3).run(1, 2).loss()
        return s.gap(reason, (A, 3), (B, offset)).run(1, 2, epoch=B).wrong()
    assert story("epoch", 0) == {}
    assert "doubled" in story("rewound", 2)


def test_finds_the_double_of_an_acknowledged_one():
    s = Story().ready(A, 0).ack(1, 2).run(1, 2).loss()
    s.run(2, 1, epoch=B, shift=1)
    assert s.wrong() == {"doubled": 1}


# --- what rules allow ---------------------------------------------------------

def test_expired_where_the_rule_keeps_less():
    def story(size):
        s = Story(size=size).ready(A, 0).ack(*range(1, 21)).run(1, 5)
        return s.gap("expired", (A, 6), (A, 10)).run(11, 10).wrong()
    assert story(10) == {}
    assert story(50) == {"gaps_without_cause": 1}


def test_lagging_where_the_rule_drops():
    def story(lagging):
        s = Story(lagging=lagging).ready(A, 0).ack(1, 2, 3).run(1, 1)
        return s.gap("lagging", (A, 2), (A, 2)).run(3, 1).wrong()
    assert story("drop_oldest") == {}
    assert story("close") == {"gaps_without_cause": 1}


def test_conflation_owes_the_newest():
    s = Story(lagging="conflate").ready(A, 0).ack(1, 2, 3).run(1, 1).run(3, 1)
    assert s.wrong() == {}
    s = Story(lagging="conflate").ready(A, 0).ack(1, 2, 3).run(1, 2)
    assert s.wrong() == {"lost": 1}


def test_ephemeral_at_most_once():
    s = Story(size=0).ready(0, 0).run(1, 3, epoch=0).run(5, 1, epoch=0)
    assert s.wrong() == {}
    s = Story(size=0).ready(0, 0).run(1, 3, epoch=0).run(2, 1, epoch=0)
    assert s.wrong() == {"doubled": 1}


def test_finds_a_reliable_message_without_a_place():
    s = Story().ready(A, 0).ack(1).run(1, 1, epoch=0)
    assert s.wrong() == {"unplaced": 1}


def test_finds_an_id_that_is_not_the_position():
    s = Story().ready(A, 0).ack(1).run(1, 1)
    assert s.record("W", a=A, b=1, c=A, d=2).wrong() == {"misplaced": 1}


def test_class_changes():
    """D20: owed from the first that was stored after the reader was there."""
    s = Story(changes=True).ready(0, 0).run(1, 2, epoch=0)
    s.ack(3, 4, shift=-2)
    assert s.run(4, 1, shift=-2).wrong() == {"lost": 1}


def test_the_store_must_have_what_was_acknowledged():
    s = Story().ack(1, 2, 3)
    s.oracle.stored(CHANNEL, (A, 3), [(A, n, n) for n in (1, 2, 3)])
    assert s.wrong() == {}
    s = Story().ack(1, 2, 3)
    s.oracle.stored(CHANNEL, (A, 3), [(A, 1, 1), (A, 3, 3)])
    assert s.wrong() == {"stored_wrong": 1, "stored_lost": 1}


# --- how late -----------------------------------------------------------------

def test_late_after_the_fault():
    s = Story().ready(A, 0).ack(1, 2)
    s.oracle.fault("redis-stop", s.t - 1, s.t + 2)
    s.run(1, 2).record("L", a=int(s.t * 1e9), b=1, c=2, t=s.t + 9)
    s.record("P", channel=ALL, a=int(s.t), b=99)
    s.oracle.judge()
    late = s.oracle.verdict.quantiles()["redis-stop"]
    assert late["n"] == 100 and late["p50"] == 0.05
    assert late["max"] == pytest.approx(7.1, abs=0.2)


# --- the whole way: a real stream, its log, and the judge ---------------------

RULES = """
rules:
- match: "kill:*"
  history: {size: 100, ttl: 10m}
"""


@pytest.fixture
def real(make_cluster):
    c = make_cluster(1, 1, 1, rules=RULES)
    with contextlib.ExitStack() as stack:
        log = c.dir / "events"
        readers = Subscribers(
            c.dir / "readers.log", [f"127.0.0.1:{c.n.port}"], 16,
            channel="kill:%d", channels=2, also="eph:%d", also_base=50,
            format="mixed", log=log)
        stack.callback(readers.close)
        readers.wait_ready()
        yield c, readers, log


def publish(c, number, channel=0):
    """As the producers of the kill test do."""
    stamp = f"{channel + 1:08d} {number:010d} {0:019d} ".ljust(60, "x")
    name = f"eph:{channel - 50}" if channel >= 50 else f"kill:{channel}"
    return c.d.grpc.publish(channel=name, data=stamp).position


def test_real_streams(real):
    c, readers, log = real
    oracle = Oracle([Rule(0, 2, 100), Rule(50, 2)])
    for number in (1, 2, 3, 5, 4, 6):
        for channel in (0, 1, 50):
            sent = time.monotonic()
            place = publish(c, number, channel)
            oracle.acknowledged(channel, number, place.epoch, place.offset,
                                sent, time.monotonic())
    # One more that came, and was answered to nobody.
    place = publish(c, 7)
    harness.wait_until(lambda: readers.stats()["messages"] == 3 * 8 * 6 + 8)
    readers.flush()
    # And one that was answered, and came to nobody.
    now = time.monotonic()
    oracle.acknowledged(1, 99, place.epoch + 10 ** 9, 99, now, now)
    oracle.read(log)
    verdict = oracle.judge()
    assert dict(verdict.wrong) == {"lost": 8}, verdict.lines()
    assert verdict.seen["messages"] == 3 * 8 * 6 + 8


def test_real_raw_stream_has_its_own_order(real):
    """What the judge is shown is what a reader sees."""
    c, _, _ = real
    with Sse(c.n.port, "kill:0") as sub:
        sub.wait_ready()
        place = publish(c, 1)
        sub.wait_messages(1)
        assert place.offset == 1
