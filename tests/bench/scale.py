"""The row `scale` of bench.py: a simulated match day at full size
(tests/sim/scale.c), its sums as results and its curves as an SVG."""

import csv
import json
import math
import os
import subprocess

from measure import judge, row
from procs import BenchError

WIDTH, LEFT, RIGHT, TOP = 1000, 80, 20, 60
PANEL, GAP = 130, 50
COLOURS = ("#1f5fa8", "#c8501e", "#2f8f4e")
PANELS = [
    ("connections, thousands", 1e3, [("connected", "connected"),
                                    ("present", "clients there are")]),
    ("nodes", 1, [("nodes", "serve"), ("wanted", "wanted"),
                  ("draining", "drain")]),
    ("streams begun a second and node", 1, [("busiest", "busiest node"),
                                            ("mean", "mean")]),
    ("refused attempts a second, all nodes", 1, [("refused", "refused")]),
    ("sent away a second, all nodes", 1, [("sent_away", "to drain or level")]),
    ("seconds from a lost stream to the next", 1, [("back_p99", "p99"),
                                                  ("back_p50", "p50")]),
    ("connections of a node, thousands", 1e3, [("fullest", "fullest"),
                                               ("emptiest", "emptiest")]),
]


# --- drawing -------------------------------------------------------------------

def nice(top):
    """A round number at or above `top`."""
    size = 10 ** math.floor(math.log10(max(top, 1e-3)))
    return next(size * step for step in (1, 1.5, 2, 3, 5, 8, 10)
                if size * step >= top)


def text(x, y, what, anchor="start", more=""):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>'
            f"{what}</text>")


def line(x1, y1, x2, y2, colour):
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
            f'stroke="{colour}"/>')


class Chart:
    """Panels below each other over one axis of time."""

    def __init__(self, rows, title):
        self.rows = rows
        self.seconds = float(rows[-1]["second"])
        self.bottom = TOP + 20 + len(PANELS) * (PANEL + GAP) - GAP
        self.parts = [text(LEFT, 22, title, more='font-size="15"')]

    def x(self, second):
        return LEFT + float(second) / self.seconds * (WIDTH - LEFT - RIGHT)

    def phases(self):
        for i, now in enumerate(self.rows):
            if i and now["phase"] == self.rows[i - 1]["phase"]:
                continue
            x = self.x(now["second"])
            self.parts.append(line(x, TOP - 8, x, self.bottom, "#bbb"))
            # phases may be too short for their names: in two heights
            above = sum("<!--phase-->" in p for p in self.parts) % 2
            self.parts.append("<!--phase-->" + text(
                x + 2, TOP - 12 - 11 * above, now["phase"], more='fill="#666"'))

    def panel(self, y, title, unit, lines):
        top = nice(max(max(float(r[key]) for r in self.rows)
                       for key, _ in lines) / unit)

        def height(value):
            return y + PANEL - value / unit / top * PANEL

        for part in (0, 0.5, 1):
            at = y + PANEL * (1 - part)
            self.parts.append(line(LEFT, at, WIDTH - RIGHT, at, "#ddd"))
            self.parts.append(text(LEFT - 6, at + 4, f"{top * part:,g}", "end"))
        self.parts.append(text(LEFT, y - 6, title, more='font-weight="bold"'))
        x = LEFT + 320
        for (key, name), colour in zip(lines, COLOURS):
            points = " ".join(f"{self.x(r['second']):.1f},"
                              f"{height(float(r[key])):.1f}"
                              for r in self.rows)
            self.parts.append(f'<polyline points="{points}" fill="none" '
                              f'stroke="{colour}" stroke-width="1.2"/>')
            self.parts.append(text(x, y - 6, name, more=f'fill="{colour}"'))
            x += 130

    def time(self):
        for minute in range(0, int(self.seconds / 60) + 1, 30):
            x = self.x(minute * 60)
            self.parts.append(line(x, self.bottom, x, self.bottom + 5, "#666"))
            self.parts.append(text(x, self.bottom + 18, f"{minute} min",
                                   "middle"))

    def draw(self):
        self.phases()
        for i, (title, unit, lines) in enumerate(PANELS):
            self.panel(TOP + 20 + i * (PANEL + GAP), title, unit, lines)
        self.time()
        return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" '
                f'height="{self.bottom + 30}" font-family="sans-serif" '
                'font-size="11"><rect width="100%" height="100%" '
                'fill="white"/>\n' + "\n".join(self.parts) + "\n</svg>\n")


def draw(prefix, title):
    with open(prefix + ".csv") as f:
        chart = Chart(list(csv.DictReader(f)), title)
    with open(prefix + ".svg", "w") as f:
        f.write(chart.draw())


# --- the row --------------------------------------------------------------------

RUNS = {"random": [], "least": ["--least"]}


def simulate(build, plan):
    """Runs each kind of load balancer, at once: a core each."""
    folder = os.path.join(build, "bench")
    os.makedirs(folder, exist_ok=True)
    size = [] if plan.quick else ["--full"]
    running = {}
    for name, more in RUNS.items():
        prefix = os.path.join(folder, f"scale-{name}")
        running[prefix] = subprocess.Popen(
            [os.path.join(build, "sim", "scale"), *size, *more, "--out",
             prefix],
            env={**os.environ, "SIM_SEED": "1", "SIM_TRACE": "0"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        for prefix, process in running.items():
            output, _ = process.communicate()
            if process.returncode:
                raise BenchError(output.strip())
            yield prefix
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def row_scale(session, plan):
    results = []
    for prefix in simulate(session.build, plan):
        name = prefix.rsplit("-", 1)[1]
        with open(prefix + ".json") as f:
            sums = json.load(f)
        draw(prefix, f"A simulated match day; load balancer: {name}")
        peak = max(sums["phases"], key=lambda p: p["nodes"])
        result = row("scale", f"simulated match day, balancer {name}: "
                     "messages lost", 0, "value", "less")
        result["value"] = sums["lost"]
        result["runs"] = sums
        result["note"] = (
            f"{peak['nodes']} nodes; {sums['published']:,} published, "
            f"{sums['delivered']:,} delivered live, {sums['resumed']:,} after "
            f"a resume; table {sums['entries']:,} entries of "
            f"{sums['entry_bytes']} B; curves in "
            f"{os.path.relpath(prefix + '.svg')}")
        results.append(judge(result))
    return results
