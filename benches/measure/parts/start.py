"""Measures the time to start and the memory of the service, with many users and with almost none."""

import statistics

from bars import Bar
from bench import EMPTY_USERS, ENGINES, POSTGRESQL, SQLITE
from progress import log
from tables import short, table, whole


class Start:
    def __init__(self, bench):
        self.most_users, self.results = bench.most_users, {}
        for engine in ENGINES:
            starts = {EMPTY_USERS: [], bench.most_users: []}
            for users in (*starts,) * bench.scale.repetitions:
                starts[users].append(self._measure(bench, engine, users))
            for users, samples in starts.items():
                self.results[engine, users] = [statistics.median(figures) for figures in zip(*samples)]
            seconds, over_empty_mib = self.results[engine, bench.most_users][0], self._over_empty_mib(engine)
            log(f"start, {engine}: {seconds:.3f} s, {over_empty_mib:.1f} MiB over an empty store")

    @staticmethod
    def _measure(bench, engine, users):
        with bench.service(engine, users) as service:
            at_start = service.anonymous_mib()
            bench.load(service, users=users)
            return service.seconds_to_start, at_start, service.anonymous_mib()

    def _over_empty_mib(self, engine):
        """Returns the memory above that of an almost empty store: the larger difference of start and end of a
        load.
        """
        full, empty = self.results[engine, self.most_users], self.results[engine, EMPTY_USERS]
        return max(full[1] - empty[1], full[2] - empty[2], 0)

    def tables(self):
        rows = [
            [engine, whole(users), short(seconds), short(at_start), short(after_load)]
            for (engine, users), (seconds, at_start, after_load) in self.results.items()
        ]
        columns = ["engine", "users", "to SERVING, s", "after the start, MiB", "after a load, MiB"]
        return [table("Start and anonymous memory", "", columns, rows)]

    def bars(self):
        for engine, bound in ((SQLITE, 2), (POSTGRESQL, 3)):
            seconds = self.results[engine, self.most_users][0]
            yield Bar(f"{engine}, start to SERVING", seconds, " s", at_most=bound)
        for engine in ENGINES:
            name = f"{engine}, anonymous memory above that of an empty store"
            yield Bar(name, self._over_empty_mib(engine), " MiB", at_most=64)
