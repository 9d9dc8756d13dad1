"""Draws an SVG with two panels: throughput and p99 by the number of calls in flight."""

import math

WIDTH, HEIGHT = 960, 430
PANEL_WIDTH, PANEL_HEIGHT, TOP = 370, 270, 90
LEFTS = (80, 560)
# Colours of Okabe and Ito, which colour-blind readers can distinguish. The markers differ, too.
STYLES = {
    "echo": ("#555555", '<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}"/>'),
    "SQLite": ("#0072b2", '<rect x="{x0:.1f}" y="{y0:.1f}" width="8" height="8" fill="{colour}"/>'),
    "PostgreSQL": ("#d55e00", '<path d="M{x:.1f} {y0:.1f}l5 9h-10z" fill="{colour}"/>'),
}


def svg(curves, subtitle):
    """Draws curves of the form `{server: [(calls in flight, calls/s, p99 in µs)]}`."""
    calls = [point[0] for point in curves["echo"]]
    throughputs = [point[1] / 1000 for curve in curves.values() for point in curve]
    latencies = [point[2] / 1000 for curve in curves.values() for point in curve]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="system-ui, Helvetica, Arial, sans-serif" font-size="12" fill="#222222">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(LEFTS[0], 26, f"ResolveToken, {subtitle}", size=15, weight="bold"),
        *_legend(curves),
        *_panel(LEFTS[0], "Throughput, thousand calls/s", calls, Linear(throughputs), _pick(curves, 1)),
        *_panel(LEFTS[1], "p99, ms (log scale)", calls, Logarithmic(latencies), _pick(curves, 2)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _pick(curves, column):
    return {name: [(point[0], point[column] / 1000) for point in curve] for name, curve in curves.items()}


class Linear:
    """A linear scale from 0 to a round number that is at least the largest value."""

    def __init__(self, values):
        magnitude = 10 ** math.floor(math.log10(max(values) / 4))
        self.step = next(step for n in (1, 2, 5, 10) if (step := n * magnitude) * 5 >= max(values))
        self.steps = math.ceil(max(values) / self.step)

    def height(self, value):
        return value / (self.step * self.steps)

    def ticks(self):
        return [(n * self.step, f"{n * self.step:g}") for n in range(self.steps + 1)]


class Logarithmic:
    """A logarithmic scale. Both ends are 1, 2 or 5 times a power of ten."""

    def __init__(self, values):
        decades = range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1)
        marks = [n * 10**decade for decade in decades for n in (1, 2, 5)]
        lowest = max(mark for mark in marks if mark <= min(values))
        highest = min(mark for mark in marks if mark >= max(values))
        self.marks = [mark for mark in marks if lowest <= mark <= highest]

    def height(self, value):
        low, high = self.marks[0], self.marks[-1]
        return math.log(value / low) / math.log(high / low)

    def ticks(self):
        return [(mark, f"{mark:g}") for mark in self.marks]


def _panel(left, title, calls, scale, curves):
    def x(in_flight):
        return left + 20 + (PANEL_WIDTH - 40) * math.log(in_flight) / math.log(max(calls))

    def y(value):
        return TOP + PANEL_HEIGHT * (1 - scale.height(value))

    bottom, right = TOP + PANEL_HEIGHT, left + PANEL_WIDTH
    yield _text(left, TOP - 14, title, weight="bold")
    for value, label in scale.ticks():
        yield _line(left, y(value), right, y(value), "#dddddd")
        yield _text(left - 8, y(value) + 4, label, anchor="end")
    for in_flight in calls:
        yield _line(x(in_flight), bottom, x(in_flight), bottom + 5, "#222222")
        yield _text(x(in_flight), bottom + 20, in_flight, anchor="middle")
    yield _line(left, bottom, right, bottom, "#222222")
    yield _line(left, TOP, left, bottom, "#222222")
    label = "calls in flight (log scale) over 4 connections; 1 call over 1 connection"
    yield _text((left + right) / 2, bottom + 42, label, anchor="middle")
    for name, points in curves.items():
        corners = " ".join(f"{x(in_flight):.1f},{y(value):.1f}" for in_flight, value in points)
        yield f'<polyline points="{corners}" fill="none" stroke="{STYLES[name][0]}" stroke-width="2"/>'
        for in_flight, value in points:
            yield _marker(name, x(in_flight), y(value))


def _legend(curves):
    for position, name in enumerate(curves):
        left = LEFTS[0] + position * 110
        yield _line(left, 48, left + 24, 48, STYLES[name][0], width=2)
        yield _marker(name, left + 12, 48)
        yield _text(left + 32, 52, name)


def _marker(name, x, y):
    colour, shape = STYLES[name]
    return shape.format(x=x, y=y, x0=x - 4, y0=y - (6 if name == "PostgreSQL" else 4), colour=colour)


def _line(x1, y1, x2, y2, colour, width=1):
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width}"/>'


def _text(x, y, text, anchor="start", size=12, weight="normal"):
    style = f'text-anchor="{anchor}" font-size="{size}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{text}</text>'
