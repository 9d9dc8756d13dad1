"""What must be reached, and whether it was."""

import dataclasses

from tables import short, table


@dataclasses.dataclass(frozen=True)
class Bar:
    """A bound on one measured value: from below (`at_least`) or from above (`at_most`)."""

    what: str
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
        return [self.what, bound + self.unit, short(self.measured) + self.unit, self.verdict()]


def table_of(bars):
    return table("The bars", "", ["what", "bar", "measured", "verdict"], [bar.row() for bar in bars])
