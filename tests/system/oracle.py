"""The judge of the kill test: what each reader was given, beside what was
acknowledged.

It is told what producers were answered, when the store may have gone back, and
when there were faults; it reads the logs of resumebench --log
(tests/bench/eventlog.h). It knows nothing of Stentor but what is promised:

- every acknowledged message of a channel that a reader listened to came to it
  once and in order, or is covered by a gap that it was told;
- a gap is true: its reason had a cause, and something in it may have been lost
  to that reader; what is in it neither came before nor comes later;
- a position (channel, epoch, offset) is given once, and a message has one in
  each epoch; what was sent after an answer has a greater one;
- a message of an ephemeral channel comes at most once.

Messages are told apart by their numbers, which producers give once in each
channel; a message whose call failed may be there or not. A store that went back
begins a new epoch, in which what is left keeps its offsets: (E2, n) is the same
message as (E1, n) up to some base, which the judge works out from what it knows
of both (`Log.shared`). Where that is not known for a message that nobody
acknowledged it gives the benefit of the doubt.

A *life* is a reader from its connection without an id to the end, or until it
forgets its id. A life owes nothing for what came after the last that it saw, if
it left; one that stays owes all.
"""
import bisect
import collections
import dataclasses
import struct

RECORD = struct.Struct("<BBHIIIIIQQQQQ")  # struct eventlog_record
ALL = 0xffffffff
REASONS = ("expired", "epoch", "unknown", "malformed", "rewound", "lagging")
OF_LOSS = {"epoch", "unknown", "rewound"}
EXAMPLES = 10  # of each kind of fault
LATE = 0.05    # seconds: what eventlog.h counts as prompt
AFTER = 5.0    # seconds after its end in which a fault still counts
NS = 1e9


@dataclasses.dataclass
class Rule:
    """What the judge must know of a range of channels."""

    first: int              # numbers of its channels in logs and stamps
    count: int
    size: int = 0           # 0: ephemeral
    lagging: str = "close"
    changes: bool = False   # it is ephemeral and reliable by turns

    def __contains__(self, channel):
        return self.first <= channel < self.first + self.count


@dataclasses.dataclass
class Ack:
    """An answer: seconds of CLOCK_MONOTONIC, `sent` at the first attempt,
    `tried` at the one that was answered."""

    number: int
    epoch: int
    offset: int
    sent: float
    acked: float
    tried: float


@dataclasses.dataclass
class Span:
    """A fault, from its beginning to when it was healed."""

    name: str
    begin: float
    end: float


class Log:
    """All that is known of a channel's positions."""

    def __init__(self):
        self.epochs = {}     # epoch -> {offset: number}
        self.places = {}     # number -> [(epoch, offset)]
        self.twice = []      # (epoch, offset, number, other)
        self.doubled = []    # (number, place, other)
        self._bases = {}

    def know(self, epoch, offset, number):
        at = self.epochs.setdefault(epoch, {})
        before = at.get(offset)
        if before == number:
            return
        if before is not None:
            self.twice.append((epoch, offset, before, number))
            return
        at[offset] = number
        self._bases.clear()
        places = self.places.setdefault(number, [])
        for e, o in places:
            if e == epoch:
                self.doubled.append((number, (e, o), (epoch, offset)))
        places.append((epoch, offset))

    def shared(self, old, new, offset):
        """Is (new, offset) the same message as (old, offset)? None: not
        known."""
        if old == new:
            return True
        key = old, new
        if key not in self._bases:
            a, b = self.epochs.get(old, {}), self.epochs.get(new, {})
            if len(b) < len(a):
                a, b = b, a
            other = min((o for o, n in a.items() if b.get(o, n) != n),
                        default=None)
            # Beyond it a message that was appended anew may be equal.
            same = max((o for o, n in a.items() if b.get(o) == n
                        and (other is None or o < other)), default=0)
            self._bases[key] = same, other
        same, other = self._bases[key]
        if offset <= same:
            return True
        if other is not None and offset >= other:
            return False
        return None

    def within(self, place, gap):
        """Is it in a gap? None: not known."""
        epoch, offset = place
        low, high = gap.low, gap.high
        if low is not None and epoch < low[0]:
            # It may have been read anew there, and then dropped.
            if self.shared(epoch, low[0], offset) is False:
                return False
            inside = self.within((low[0], offset), gap)
            return None if inside else inside
        if high is not None and (epoch, offset) > high:
            return False
        if low is None or low[0] == epoch:
            return low is None or offset >= low[1]
        if offset >= low[1]:
            return True
        same = self.shared(low[0], epoch, offset)
        return None if same is None else not same

    def covered(self, number, gaps):
        """By one of these gaps, in one of its places; the doubt is the
        server's benefit."""
        return any(self.within(place, gap) is not False
                   for place in self.places.get(number, ()) for gap in gaps)


@dataclasses.dataclass
class Gap:
    reason: str
    low: tuple   # (epoch, offset) of the first; None: not known
    high: tuple  # of the last
    t: float


class Verdict:
    """Counts of what is wrong, with examples; and how late messages were."""

    def __init__(self):
        self.wrong = collections.Counter()
        self.examples = collections.defaultdict(list)
        self.seen = collections.Counter()  # of what was looked at
        self.latest = []  # the latest messages
        self.late = {}  # fault -> [count, seconds of those that were late]

    def fault(self, kind, text):
        self.wrong[kind] += 1
        examples = self.examples[kind]
        alike = text.split(" reader ")[0]
        if len(examples) < EXAMPLES and \
                sum(e.startswith(alike) for e in examples) < EXAMPLES // 3:
            examples.append(text)

    def quantiles(self):
        """{fault: {n, p50, p99, max}}; what was prompt counts as LATE."""
        table = {}
        for name, (count, late) in sorted(self.late.items()):
            late.sort()
            total = count + len(late)

            def at(share):
                rank = int(share * (total - 1))
                return late[rank - count] if rank >= count else LATE
            table[name] = {"n": total, "p50": at(0.5), "p99": at(0.99),
                           "max": late[-1] if late else LATE}
        return table

    def lines(self):
        text = []
        for kind, count in sorted(self.wrong.items()):
            text.append(f"{kind}: {count}")
            text += [f"  {line}" for line in self.examples[kind]]
        return text


class Life:
    """One reader and channel, from one beginning to its end: judges the
    records as they come, and what is missing at the end."""

    def __init__(self, oracle, channel, log, name, rule):
        self.oracle, self.channel, self.log = oracle, channel, log
        self.name, self.rule = name, rule
        self.anchor = None      # place; everything behind it is owed
        self.anchored = None    # when
        self.place = None       # of what came last; at first the anchor
        self.came = {}          # number -> place
        self.gaps = []
        self.last = None        # the greatest place that came, or was told

    def wrong(self, kind, text):
        self.oracle.verdict.fault(
            kind, f"channel {self.channel} reader {self.name}: {text}")

    def begin(self, place, t):
        if self.anchored is None:
            self.anchor, self.anchored = place, t
            self.place = place

    def ready(self, r):
        self.begin((r[8], r[9]) if r[8] else None, r[12] / NS)

    # --- messages ---

    def run(self, r):
        count, epoch, offset, number, t = r[6], r[8], r[9], r[10], r[12] / NS
        self.oracle.verdict.seen["messages"] += count
        if epoch == 0:
            self.unplaced(number, count, t)
            return
        if self.anchored is None:
            self.begin((epoch, offset - 1), t)
        self.order(epoch, offset, number, t)
        came, gaps = self.came, self.gaps
        for i in range(count):
            n = number + i
            if n in came:
                self.again(n, (epoch, offset + i), t)
            came[n] = epoch, offset + i
            if gaps:
                self.not_gone(n, (epoch, offset + i))
        self.move((epoch, offset + count - 1))

    def unplaced(self, number, count, t):
        """Messages without a place: ephemeral, at most once."""
        self.begin(None, t)
        for n in range(number, number + count):
            if n in self.came and not self.tried_anew(n):
                self.wrong("doubled", f"{n} without a place, again")
            self.came.setdefault(n, None)
        if not (self.rule.changes or self.rule.size == 0):
            self.wrong("unplaced", f"{number} has no place")

    def tried_anew(self, number):
        """What was published again may be there twice, if a key did not
        count any more the second time, for the channel keeps nothing."""
        ack = self.oracle.ack(self.channel, number)
        return self.rule.changes and (ack is None or ack.tried > ack.sent)

    def order(self, epoch, offset, number, t):
        """Does the first of a run follow what came before?"""
        at = self.place
        if at is None or epoch > at[0]:
            return
        if epoch < at[0] or offset <= at[1]:
            if number not in self.came:
                self.wrong("reordered",
                           f"{number} at {epoch}:{offset} behind {at}")
        elif offset > at[1] + 1 and self.rule.lagging != "conflate" and \
                not (self.told((epoch, at[1] + 1))
                     and self.told((epoch, offset - 1))):
            self.wrong("holes", f"{at} and then {epoch}:{offset}, at {t:.3f}")

    def told(self, place):
        """That it is gone."""
        return any(self.log.within(place, gap) is not False
                   for gap in self.gaps)

    def begun_anew(self, place):
        """What is kept follows a place that means nothing any more; it may come
        as late as in an epoch that goes on from that one."""
        return any(gap.reason in ("epoch", "unknown", "malformed")
                   and gap.high is not None and gap.high[0] <= place[0]
                   for gap in self.gaps)

    def again(self, number, place, t):
        """A second time. A store that lost it may have been given it anew, or
        what was sent again may have been there twice, and one of them lost."""
        if self.begun_anew(place):
            return
        before, ack = self.came[number], self.oracle.ack(self.channel, number)
        anew = (before is not None and before[0] != place[0]
                and self.oracle.lost_since(0, t)
                and (ack is None or ack.tried > ack.sent
                     or (ack.epoch, ack.offset) == place))
        if not anew:
            self.wrong("doubled", f"{number} at {before} and {place}")

    def not_gone(self, number, place):
        ack = self.oracle.ack(self.channel, number)
        for gap in self.gaps:
            # One without an end ends with what was there when it was told.
            if gap.high is None and (ack is None or ack.acked > gap.t):
                continue
            if self.log.within(place, gap) is True:
                self.wrong("gaps_false",
                           f"{number} at {place} came after {gap}")
                return

    def move(self, place):
        if self.place is None or place > self.place:
            self.place = place
        if self.last is None or place > self.last:
            self.last = place

    # --- gaps ---

    def gap(self, r):
        reason = REASONS[r[2]] if r[2] < len(REASONS) else "?"
        gap = Gap(reason, (r[8], r[9]) if r[8] else None,
                  (r[10], r[11]) if r[10] else None, r[12] / NS)
        self.oracle.verdict.seen["gap " + reason] += 1
        first = self.anchored is None
        self.begin(None, gap.t)
        if not self.caused(gap, first):
            self.wrong("gaps_without_cause", f"{gap}")
        self.had(gap)
        self.gaps.append(gap)
        # From one epoch into another: what it lacked before comes all the same.
        if gap.high is not None and gap.low and gap.low[0] == gap.high[0] and (
                self.last is None or gap.high > self.last):
            self.last = gap.high

    def caused(self, gap, first):
        if gap.reason in OF_LOSS and not self.rule.changes:
            # Told once, to those who were there before it.
            again = any((g.low, g.high) == (gap.low, gap.high)
                        for g in self.gaps)
            # A log that moves to another epoch under a reader may do that long
            # after the loss: with its next message.
            moved = (gap.low and gap.high and self.anchor
                     and gap.low[0] != gap.high[0] > self.anchor[0])
            begin = 0 if moved else self.anchored - AFTER
            return not first and not again and bool(
                self.oracle.lost_since(begin, gap.t))
        if gap.reason == "expired":
            return self.expired(gap)
        if gap.reason == "lagging":
            return self.rule.lagging == "drop_oldest"
        return self.rule.changes

    def expired(self, gap):
        """So many were there that the rule need not keep its first."""
        if gap.low is None or self.rule.changes:
            return self.rule.changes
        return (self.oracle.top(self.channel, gap.low[0], gap.t)
                - gap.low[1] >= self.rule.size
                or self.oracle.top(self.channel, (gap.high or gap.low)[0],
                                   gap.t) >= self.rule.size)

    def had(self, gap):
        """Nothing that came before is in it."""
        if gap.low is None:
            return
        if self.anchor and gap.low[0] == self.anchor[0] and \
                gap.low[1] <= self.anchor[1]:
            self.wrong("gaps_of_what_came",
                       f"{gap} lies before its beginning, {self.anchor}")
        had = [n for n, place in self.came.items() if place is not None
               and place >= gap.low and self.log.within(place, gap)]
        if had:
            self.wrong("gaps_of_what_came",
                       f"{gap} has {len(had)} that came, {had[:3]}")

    # --- the end ---

    def end(self, stays):
        """What is owed and neither came nor was told gone. Looks backwards
        from the newest, whose end is the same for all."""
        acks = self.oracle.acks.get(self.channel, ())
        if self.anchored is None or self.rule.size == 0:
            return
        came = self.came
        missing = [a for a in acks if a.number not in came
                   and a.epoch and self.owed(a, stays)]
        if self.rule.lagging == "conflate":
            missing = missing and missing[-1:] if missing and stays and \
                missing[-1] is acks[-1] else []
        gone = [a for a in missing if not self.log.covered(a.number,
                                                           self.gaps)]
        self.oracle.verdict.seen["owed"] += len(self.came) + len(missing)
        if gone:
            some = ", ".join(
                f"{a.number} at {a.epoch}:{a.offset} acked {a.acked:.3f}"
                for a in gone[:3])
            self.oracle.verdict.wrong["lost"] += len(gone) - 1
            self.wrong("lost", f"{len(gone)}: {some}; anchor {self.anchor} "
                       f"at {self.anchored:.3f}, gaps {self.gaps[-2:]}")

    def owed(self, a, stays):
        at = self.anchor
        if at is not None and a.epoch == at[0] and a.offset <= at[1]:
            return False  # most of what did not come to who joined late
        places = self.log.places.get(a.number, ())
        if self.anchor is None:
            if a.sent <= self.anchored:
                return False
        elif not self.behind_anchor(a, places):
            return False
        if stays:
            return True
        return self.last is not None and any(
            e == self.last[0] and o <= self.last[1] for e, o in places)

    def behind_anchor(self, a, places):
        epoch, offset = self.anchor
        for e, o in places:
            if e == epoch:
                return o > offset
        if a.epoch < epoch:
            return False
        # A later epoch, of which it may have been part before.
        return a.sent > self.anchored


class Oracle:
    def __init__(self, rules):
        self.rules = list(rules)
        self.verdict = Verdict()
        self.acks = collections.defaultdict(list)
        self.losses, self.faults = [], []
        self.logs = collections.defaultdict(Log)
        self._acks = {}
        self._records = collections.defaultdict(list)  # channel -> ...
        self._ended = set()  # lives that ended before the test did
        self._late, self._prompt = [], collections.Counter()
        self._tops = {}
        self._stored = []

    # --- what it is told ---

    def acknowledged(self, channel, number, epoch, offset, sent, acked,
                     tried=None):
        """epoch 0: the answer had no position."""
        self.acks[channel].append(Ack(number, epoch, offset, sent, acked,
                                      tried or sent))

    def lost(self, name, begin, end):
        """The store may have gone back in between."""
        self.losses.append(Span(name, begin, end))

    def fault(self, name, begin, end):
        self.faults.append(Span(name, begin, end))

    def stored(self, channel, top, messages, first=1):
        """What the store has in the end: its top (epoch, offset), the offset
        of the first that it keeps, and (epoch, offset, number) of the last of
        them, as many as were asked for."""
        self._stored.append((channel, top, messages, first))

    def read(self, path, name=""):
        """A log of resumebench."""
        with open(path, "rb") as f:
            data = f.read()
        data = data[:len(data) // RECORD.size * RECORD.size]
        for r in RECORD.iter_unpack(data):
            self.record(r, name)

    def record(self, r, name=""):
        kind, reader, life, channel = chr(r[0]), r[3], r[4], r[5]
        if channel != ALL and kind not in "LW":
            self._records[channel].append((name, reader, life, r))
        elif kind == "L":
            self._late.append((channel, r[10], r[8] / NS, r[9] / NS,
                               r[12] / NS, f"{name}/{reader}.{life}"))
        elif kind == "P":
            self._prompt[r[8]] += r[9]
        elif kind == "W":
            self.verdict.fault("misplaced", f"channel {channel}: position "
                               f"{r[8]}:{r[9]} under the id of {r[10]}:{r[11]}")
        elif kind == "E":
            self._ended.add((name, reader, life))
        if channel == ALL:
            self.verdict.seen[{"B": "lives", "C": "resumes",
                               "X": "connections_ended"}.get(kind, "other")] \
                += 1

    # --- what its parts ask ---

    def rule(self, channel):
        return next(r for r in self.rules if channel in r)

    def ack(self, channel, number):
        if channel not in self._acks:
            self._acks = {channel: {a.number: a for a in self.acks[channel]}}
        return self._acks[channel].get(number)

    def lost_since(self, begin, end):
        return sum(s.end > begin and s.begin < end for s in self.losses)

    def top(self, channel, epoch, t):
        """Greatest offset of an epoch that can have been there at a time."""
        if channel not in self._tops:
            self._tops = {channel: {}}
        table = self._tops[channel].get(epoch)
        if table is None:
            found = sorted((a.sent, a.offset) for a in self.acks[channel]
                           if a.epoch == epoch)
            best, table = 0, ([], [])
            for sent, offset in found:
                best = max(best, offset)
                table[0].append(sent)
                table[1].append(best)
            self._tops[channel][epoch] = table
        i = bisect.bisect(table[0], t)
        return table[1][i - 1] if i else 0

    # --- the judgement ---

    def judge(self):
        for channel in sorted(set(self.acks) | set(self._records)):
            self.acks[channel].sort(key=lambda a: (a.epoch, a.offset))
            self.judge_positions(channel)
            self.judge_readers(channel)
        for stored in self._stored:
            self.judge_stored(*stored)
        self.judge_late()
        return self.verdict

    def judge_positions(self, channel):
        log = self.logs[channel]
        for a in self.acks[channel]:
            if a.epoch:
                log.know(a.epoch, a.offset, a.number)
        self.judge_growth(channel)
        for _, _, _, r in self._records[channel]:
            if r[0] == ord("M") and r[8]:
                at, offset, number = log.epochs.get(r[8], {}), r[9], r[10]
                for i in range(r[6]):
                    if at.get(offset + i) != number + i:
                        log.know(r[8], offset + i, number + i)
        for epoch, offset, one, other in log.twice:
            self.verdict.fault(
                "given_twice", f"channel {channel} {epoch}:{offset} is "
                f"{one} and {other}")
        for number, one, other in log.doubled:
            self.verdict.fault(
                "appended_twice", f"channel {channel}: {number} at {one} and "
                f"{other}")

    def judge_growth(self, channel):
        """What is sent after an answer gets a greater place; and a retry no
        answer of a log that is gone."""
        for a, best in self.answers_before(channel, lambda a: a.sent):
            if (a.epoch, a.offset) <= best:
                self.verdict.fault(
                    "backwards", f"channel {channel}: {a} was sent after "
                    f"{best} was acknowledged")
        for a, best in self.answers_before(channel, lambda a: a.tried):
            if a.tried > a.sent and a.epoch < best[0]:
                self.verdict.fault(
                    "stale_answers", f"channel {channel}: {a}, after {best}")

    def answers_before(self, channel, when):
        """Each answer with the greatest place of those that had been given at
        the time `when` of it."""
        acks = [a for a in self.acks[channel] if a.epoch]
        answers = sorted(acks, key=lambda a: a.acked)
        best, i = (0, 0), 0
        for a in sorted(acks, key=when):
            while i < len(answers) and answers[i].acked < when(a):
                best = max(best, (answers[i].epoch, answers[i].offset))
                i += 1
            yield a, best

    def judge_readers(self, channel):
        rule, lives = self.rule(channel), {}
        for name, reader, life, r in self._records.pop(channel, ()):
            key = name, reader, life
            judged = lives.get(key)
            if judged is None:
                judged = lives[key] = Life(
                    self, channel, self.logs[channel],
                    f"{name}/{reader}.{life}", rule)
            {"R": judged.ready, "M": judged.run, "G": judged.gap}[
                chr(r[0])](r)
        for key, judged in lives.items():
            judged.end(key not in self._ended)
        self.verdict.seen["reader_channels"] += len(lives)

    def judge_stored(self, channel, top, messages, first):
        """It has the last that were acknowledged, once and in order."""
        rule, log = self.rule(channel), self.logs[channel]
        offsets = [o for _, o, _ in messages]
        if offsets and offsets != list(range(offsets[0], top[1] + 1)):
            self.verdict.fault("stored_wrong", f"channel {channel}: {offsets}")
        for epoch, offset, number in messages:
            known = log.epochs.get(epoch, {}).get(offset, number)
            if known != number:
                self.verdict.fault(
                    "given_twice", f"channel {channel} {epoch}:{offset} is "
                    f"{known}, and {number} in the store")
        have = {number for _, _, number in messages}
        shown = offsets[0] if offsets else top[1] + 1
        gone = [a for a in self.acks[channel] if a.epoch == top[0]
                and a.offset > top[1] - rule.size
                and (a.offset < first or not messages
                     or a.offset >= shown and a.number not in have)]
        if gone:
            self.verdict.fault("stored_lost", f"channel {channel}: "
                               f"{len(gone)} of {top}, {gone[:2]}")

    def judge_late(self):
        """Seen after it was acknowledged, its reader ready and the last fault
        over, whichever was last; by the fault."""
        late = {"none": [0, []]}
        for s in self.faults:
            late.setdefault(s.name, [0, []])
        for second, count in self._prompt.items():
            for name in self.names(second, second + 1):
                late[name][0] += count
        latest = []
        for channel, number, sent, ready, t, reader in sorted(self._late):
            ack = self.ack(channel, number)
            spans = self.near(sent, t)
            if any(s.end > t for s in spans):
                continue  # under way
            begin = max([ack.acked if ack else sent, ready]
                        + [s.end for s in spans])
            seconds = max(LATE, t - begin)
            for name in {s.name for s in spans} or {"none"}:
                late[name][1].append(seconds)
            latest.append((round(seconds, 3), channel, number, reader,
                           round(t, 3), sorted({s.name for s in spans})))
        self.verdict.latest = sorted(latest, reverse=True)[:EXAMPLES]
        self.verdict.late = {k: v for k, v in late.items() if v[0] or v[1]}

    def near(self, begin, end):
        """Faults that may have to do with what happened then."""
        return [s for s in self.faults
                if s.begin < end and s.end + AFTER > begin]

    def names(self, begin, end):
        return {s.name for s in self.near(begin, end)} or {"none"}
