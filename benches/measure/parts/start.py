"""How soon it serves, and how much memory it takes, over many users and over almost none."""

import statistics

from bars import Bar
from bench import EMPTY_USERS, ENGINES, POSTGRESQL, SQLITE
from progress import say
from tables import short, table, whole


class Start:
    def __init__(self, bench):
        self.most_users, self.seen = bench.most_users, {}
        for engine in ENGINES:
            starts = {EMPTY_USERS: [], bench.most_users: []}
            for users in (*starts,) * bench.extent.repetitions:
                starts[users].append(self._look(bench, engine, users))
            for users, looks in starts.items():
                self.seen[engine, users] = [statistics.median(figures) for figures in zip(*looks)]
            seconds, over_empty_mib = self.seen[engine, bench.most_users][0], self._over_empty_mib(engine)
            say(f"start, {engine}: {seconds:.3f} s, {over_empty_mib:.1f} MiB over an empty store")

    @staticmethod
    def _look(bench, engine, users):
        with bench.service(engine, users) as service:
            at_start = service.anonymous_mib()
            bench.load(service, users=users)
            return service.seconds_to_start, at_start, service.anonymous_mib()

    def _over_empty_mib(self, engine):
        """The larger of what it is right after the start and after the load."""
        full, empty = self.seen[engine, self.most_users], self.seen[engine, EMPTY_USERS]
        return max(full[1] - empty[1], full[2] - empty[2], 0)

    def tables(self):
        rows = [
            [engine, whole(users), short(seconds), short(at_start), short(after_load)]
            for (engine, users), (seconds, at_start, after_load) in self.seen.items()
        ]
        columns = ["engine", "users", "to SERVING, s", "then, MiB", "after a load, MiB"]
        return [table("Start and anonymous memory", "", columns, rows)]

    def bars(self):
        for engine, bound in ((SQLITE, 2), (POSTGRESQL, 3)):
            seconds = self.seen[engine, self.most_users][0]
            yield Bar(f"{engine}, start to SERVING", seconds, " s", at_most=bound)
        for engine in ENGINES:
            what = f"{engine}, anonymous memory over that of an empty store"
            yield Bar(what, self._over_empty_mib(engine), " MiB", at_most=64)
