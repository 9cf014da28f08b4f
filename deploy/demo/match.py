#!/usr/bin/python3
"""The demo's fictional cricket match: reading it, scoring it, checking it.

match.json holds the match ball by ball. A Scorer takes the balls one after the
other and knows the state of the match after each; nothing in the file but the
balls decides the score, so the totals that the file also states are a check.

    match.py --check    replays the match and says whether everything adds up
"""

import json
import os
import sys

MATCH_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "match.json")
BALLS_PER_OVER = 6
OVERS = 20
WICKETS = 10
EXTRAS_NOT_BOWLED = ("wide", "no ball")  # count as runs, not as balls of the over
EXTRAS_NOT_CONCEDED = ("bye", "leg bye")  # are not held against the bowler
NOT_THE_BOWLERS = ("run out",)


def load(path=MATCH_FILE):
    """The match as written in the file."""
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def overs_text(balls):
    """Legal balls as cricket writes them: 20 is 3.2."""
    return f"{balls // BALLS_PER_OVER}.{balls % BALLS_PER_OVER}"


def badge(ball):
    """What stands in the little circle of a ball."""
    if "wicket" in ball:
        return "W"
    if "extra" in ball:
        short = {"wide": "wd", "no ball": "nb", "bye": "b", "leg bye": "lb"}[ball["extra"]]
        runs = ball["runs"] + ball["extras"]
        return short if runs == 1 else f"{runs}{short}"
    return str(ball["runs"])


class Innings:
    """One side's turn to bat, up to the latest ball."""

    def __init__(self, batting, bowling, target):
        self.batting = batting
        self.bowling = bowling
        self.target = target  # runs that win; None in the first innings
        self.runs = 0
        self.wickets = 0
        self.balls = 0  # legal ones
        self.extras = 0
        self.batters = {}  # name -> runs, balls, fours, sixes
        self.bowlers = {}  # name -> balls, runs, wickets
        self.at_crease = []  # striker of the next ball first
        self.bowler = None
        self.deliveries = 0  # all of them, wides and no balls too
        self.over = []  # badges of the current over
        self.by_over = []  # [runs, wickets] of each over bowled
        self.partnership = {"runs": 0, "balls": 0}
        self.last_wicket = None

    def over_ended(self):
        """True between the last ball of an over and the first of the next."""
        return self.balls > 0 and self.balls % BALLS_PER_OVER == 0

    def ended(self):
        """True when there is nothing left to bowl."""
        return (self.balls == OVERS * BALLS_PER_OVER or self.wickets == WICKETS
                or (self.target is not None and self.runs >= self.target))

    def take(self, ball):
        """Counts one ball."""
        extra = ball.get("extra")
        legal = extra not in EXTRAS_NOT_BOWLED
        if ball["bowler"] != self.bowler:
            self.over = []
            self.by_over.append([0, 0])
        self.bowler = ball["bowler"]
        batter = self.batters.setdefault(
            ball["batter"], {"runs": 0, "balls": 0, "fours": 0, "sixes": 0})
        self.batters.setdefault(
            ball["non_striker"], {"runs": 0, "balls": 0, "fours": 0, "sixes": 0})
        bowler = self.bowlers.setdefault(self.bowler, {"balls": 0, "runs": 0, "wickets": 0})

        runs = ball["runs"] + ball["extras"]
        self.runs += runs
        self.balls += legal
        self.deliveries += 1
        self.extras += ball["extras"]
        self.over.append(badge(ball))
        self.by_over[-1][0] += runs
        self.by_over[-1][1] += "wicket" in ball
        self.partnership["runs"] += runs
        self.partnership["balls"] += legal
        batter["runs"] += ball["runs"]
        batter["balls"] += extra != "wide"
        batter["fours"] += ball["runs"] == 4
        batter["sixes"] += ball["runs"] == 6
        bowler["balls"] += legal
        if extra not in EXTRAS_NOT_CONCEDED:
            bowler["runs"] += runs
        if "wicket" in ball:
            self._take_wicket(ball["wicket"], bowler)
        self.at_crease = self._next_pair(ball, runs)

    def _take_wicket(self, wicket, bowler):
        self.wickets += 1
        if wicket["how"] not in NOT_THE_BOWLERS:
            bowler["wickets"] += 1
        self.partnership = {"runs": 0, "balls": 0}
        out = self.batters[wicket["batter"]]
        self.last_wicket = {"batter": wicket["batter"], "how": wicket["how"],
                            "runs": out["runs"], "balls": out["balls"],
                            "at": f"{self.runs}/{self.wickets}"}

    def _next_pair(self, ball, runs):
        """Who faces next: an odd number of runs changes ends, and so does the
        end of an over. A new batter comes to the striker's end; until the ball
        names him he is None."""
        pair = [ball["batter"], ball["non_striker"]]
        if "wicket" in ball:
            pair[pair.index(ball["wicket"]["batter"])] = None
        elif (runs - (ball.get("extra") in EXTRAS_NOT_BOWLED)) % 2 == 1:
            pair.reverse()
        if ball.get("extra") not in EXTRAS_NOT_BOWLED and self.over_ended():
            pair.reverse()
        return pair


class Scorer:
    """The state of the match after the balls taken so far."""

    def __init__(self, match, play=0):
        self.match = match
        self.play = play  # which time the match is played: a page that sees a new number starts afresh
        self.innings = []

    def start_innings(self):
        """The next side bats."""
        batting = self.match["innings"][len(self.innings)]["batting"]
        target = self.innings[0].runs + 1 if self.innings else None
        self.innings.append(Innings(batting, 1 - batting, target))

    def take(self, ball):
        """Counts one ball and returns it as the commentary tells it."""
        innings = self.innings[-1]
        innings.take(ball)
        return {
            "play": self.play,
            "innings": len(self.innings),
            "delivery": innings.deliveries,
            "over": f"{ball['over']}.{ball['ball']}",
            "batter": ball["batter"],
            "bowler": ball["bowler"],
            "runs": ball["runs"],
            "extras": ball["extras"],
            "extra": ball.get("extra", ""),
            "wicket": ball.get("wicket"),
            "badge": badge(ball),
            "text": ball["text"],
            "score": f"{innings.runs}/{innings.wickets}",
            "over_end": ball.get("extra") not in EXTRAS_NOT_BOWLED and innings.over_ended(),
        }

    def score(self, phase, note):
        """The whole score as one JSON-able value. `phase` is live, break or
        result; `note` is the sentence under the score."""
        match = self.match
        return {
            "play": self.play,
            "fictional": True,
            "notice": match["notice"],
            "title": match["title"],
            "ground": match["ground"],
            "format": match["format"],
            "teams": [{"name": t["name"], "short": t["short"]} for t in match["teams"]],
            "phase": phase,
            "note": note,
            "innings": [self._innings_value(i) for i in self.innings],
        }

    @staticmethod
    def _innings_value(innings):
        bowler = innings.bowlers.get(innings.bowler)
        return {
            "batting": innings.batting,
            "runs": innings.runs,
            "wickets": innings.wickets,
            "overs": overs_text(innings.balls),
            "overs_max": OVERS,
            "by_over": innings.by_over,
            "extras": innings.extras,
            "target": innings.target,
            "this_over": innings.over,
            "partnership": innings.partnership,
            "last_wicket": innings.last_wicket,
            "batters": [dict(innings.batters.get(name, {"runs": 0, "balls": 0, "fours": 0, "sixes": 0}),
                             name=name, striker=i == 0)
                        for i, name in enumerate(innings.at_crease) if name is not None],
            "bowler": bowler and {"name": innings.bowler, "overs": overs_text(bowler["balls"]),
                                  "runs": bowler["runs"], "wickets": bowler["wickets"]},
        }


def result_text(match, innings):
    """Who won, in one sentence."""
    first, second = innings
    chasing = match["teams"][second.batting]["name"]
    defending = match["teams"][first.batting]["name"]
    if second.runs > first.runs:
        return f"{chasing} win by {WICKETS - second.wickets} wickets"
    if second.runs < first.runs:
        return f"{defending} win by {first.runs - second.runs} runs"
    return "The match is tied"


def check(match):
    """Replays the match. Returns the list of everything that does not add up."""
    faults = []
    scorer = Scorer(match)
    for number, told in enumerate(match["innings"], 1):
        scorer.start_innings()
        innings = scorer.innings[-1]
        for index, ball in enumerate(told["balls"]):
            where = f"innings {number}, ball {index + 1} ({ball['over']}.{ball['ball']})"
            faults += [f"{where}: {fault}" for fault in _ball_faults(match, innings, ball)]
            innings.take(ball)
        if (innings.runs, innings.wickets) != (told["runs"], told["wickets"]):
            faults.append(f"innings {number}: the balls add up to {innings.runs}/{innings.wickets},"
                          f" the file says {told['runs']}/{told['wickets']}")
        if sum(b["runs"] for b in innings.batters.values()) + innings.extras != innings.runs:
            faults.append(f"innings {number}: batters and extras do not add up to the total")
        if not innings.ended():
            faults.append(f"innings {number}: stops before it is over")
    return faults


def _ball_faults(match, innings, ball):
    batting = [p["name"] for p in match["teams"][innings.batting]["players"]]
    bowling = [p["name"] for p in match["teams"][innings.bowling]["players"]]
    if innings.ended():
        yield "bowled after the innings was over"
    expected = [innings.balls // BALLS_PER_OVER, innings.balls % BALLS_PER_OVER + 1]
    if [ball["over"], ball["ball"]] != expected:
        yield f"expected {expected[0]}.{expected[1]}"
    for name in (ball["batter"], ball["non_striker"]):
        if name not in batting:
            yield f"{name} does not bat for this side"
    if ball["bowler"] not in bowling:
        yield f"{ball['bowler']} does not bowl for this side"
    for name, told in zip(innings.at_crease, (ball["batter"], ball["non_striker"])):
        if name is not None and name != told:
            yield f"{name} should be where {told} is"
        if name is None and told in innings.batters:
            yield f"{told} has batted already"
    if innings.bowler is not None:
        new_over = innings.over_ended() and ball["ball"] == 1 and len(innings.over) >= BALLS_PER_OVER
        if new_over and ball["bowler"] == innings.bowler:
            yield f"{ball['bowler']} bowls two overs running"
        if not innings.over_ended() and ball["bowler"] != innings.bowler:
            yield "the bowler changes within the over"
    if innings.bowlers.get(ball["bowler"], {"balls": 0})["balls"] >= OVERS // 5 * BALLS_PER_OVER:
        yield f"{ball['bowler']} bowls more than {OVERS // 5} overs"
    if bool(ball["extras"]) != ("extra" in ball):
        yield "extras without their kind, or a kind without extras"
    if "wicket" in ball and ball["wicket"]["batter"] not in (ball["batter"], ball["non_striker"]):
        yield "a wicket of somebody who is not in"
    if not ball["text"].strip():
        yield "no commentary"


def main():
    """--check: 0 and one line when the match adds up, else 1 and the faults."""
    if sys.argv[1:] != ["--check"]:
        sys.exit(__doc__)
    match = load()
    faults = check(match)
    for fault in faults:
        print(fault, file=sys.stderr)
    balls = sum(len(i["balls"]) for i in match["innings"])
    print(f"{balls} balls, {len(faults)} faults")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
