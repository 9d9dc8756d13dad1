"""Bars: the bounds that measured values must meet."""

import dataclasses

from tables import short, table


@dataclasses.dataclass(frozen=True)
class Bar:
    """A lower (`at_least`) or an upper bound (`at_most`) of a measured value."""

    name: str
    measured: float
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None

    def is_met(self):
        return self.measured >= self.at_least if self.at_most is None else self.measured <= self.at_most

    def verdict(self):
        if self.is_met():
            return "met"
        bound = self.at_least if self.at_most is None else self.at_most
        if bound == 0:
            return "**missed**"
        return f"**missed** by {abs(self.measured / bound - 1):.1%}"

    def row(self):
        bound = f"≥ {self.at_least:.3g}" if self.at_most is None else f"≤ {self.at_most:.3g}"
        return [self.name, bound + self.unit, short(self.measured) + self.unit, self.verdict()]


def table_of(bars):
    note = "A bar is a bound that the measured value must meet."
    return table("The bars", note, ["measurement", "bar", "measured", "result"], [bar.row() for bar in bars])
