"""Compares subjects with a reference: each sample of a subject lies between two samples of the reference."""

import statistics


class Comparison:
    """The samples of a reference and of named subjects. A sample is a dictionary that a generator returned.
    """

    def __init__(self, references, trials):
        self._references, self._trials = references, trials

    def names(self):
        return self._trials.keys()

    def reference(self, key):
        """Returns the median over all samples of the reference."""
        return statistics.median(sample[key] for sample in self._references)

    def median(self, name, key):
        """Returns the median over all samples of a subject."""
        return statistics.median(sample[key] for _, sample, _ in self._trials[name])

    def ratio(self, name, key="calls_per_s"):
        """Returns the median of the ratios of each sample to the mean of the references before and after it.
        """
        return statistics.median(
            sample[key] / statistics.mean((before[key], after[key])) for before, sample, after in self._trials[name]
        )


def interleave(reference, subjects, repetitions):
    """Measures `{name: subject}` in turn, with one sample of the reference between two samples of subjects.
    """
    references, trials = [reference()], {name: [] for name in subjects}
    for _ in range(repetitions):
        for name, subject in subjects.items():
            sample = subject()
            references.append(reference())
            trials[name].append((references[-2], sample, references[-1]))
    return Comparison(references, trials)
