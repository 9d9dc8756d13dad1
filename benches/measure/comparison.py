"""Interleaving: each look at a subject lies between two looks at the reference, and medians count."""

import statistics


class Comparison:
    """Looks are dictionaries, as the generators give them; subjects go by their names."""

    def __init__(self, references, trials):
        self._references, self._trials = references, trials

    def names(self):
        return self._trials.keys()

    def reference(self, key):
        """The median over all looks at the reference."""
        return statistics.median(look[key] for look in self._references)

    def median(self, name, key):
        return statistics.median(look[key] for _, look, _ in self._trials[name])

    def ratio(self, name, key="calls_per_s"):
        """The median of the ratios of each look to the mean of its neighbours."""
        return statistics.median(
            look[key] / statistics.mean((before[key], after[key])) for before, look, after in self._trials[name]
        )


def interleave(reference, subjects, repetitions):
    """Looks at `{name: subject}` in turn; neighbours share the look at the reference between them."""
    references, trials = [reference()], {name: [] for name in subjects}
    for _ in range(repetitions):
        for name, subject in subjects.items():
            look = subject()
            references.append(reference())
            trials[name].append((references[-2], look, references[-1]))
    return Comparison(references, trials)
