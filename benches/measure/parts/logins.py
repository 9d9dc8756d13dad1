"""Logins against what the cores can hash, look-ups beside them, and what a full queue answers."""

import os
import statistics

from bars import Bar
from bench import ALONE, ENGINES
from progress import say
from tables import short, table, whole

CORES = os.cpu_count()
CLIENTS = 64
# With that many clients it is always full. The hash pool is the service's own, so only logins can fill it.
SHORT_QUEUE = 8


class Logins:
    def __init__(self, bench):
        self.most_users = bench.most_users
        self.alone, self.beside, self.refusals = {}, {}, {}
        for engine in ENGINES:
            with bench.service(engine) as service:
                self.alone[engine] = Alone(bench, service)
                self.beside[engine] = Beside(bench, service)
            with bench.service(engine, password_queue_length=SHORT_QUEUE) as service:
                clients = {"in_flight": CLIENTS, "warm_up": 0, "seconds": bench.extent.seconds}
                self.refusals[engine] = bench.load(service, may_refuse=True, rpc="login", **clients)
            beside = self.beside[engine]
            say(
                f"logins, {engine}: {self.alone[engine].share():.3f} of their bound; p99 of look-ups beside them "
                f"{beside.p99_us:.0f} µs, idle {beside.idle_p99_us:.0f} µs; "
                f"refused after at most {self.refusals[engine]['refused_max_us']} µs"
            )

    def tables(self):
        return [self._table_of_logins(), self._table_of_look_ups(), self._table_of_refusals()]

    def _table_of_logins(self):
        rows = []
        for engine, seen in self.alone.items():
            figures = (seen.hash_seconds * 1000, seen.bound(), seen.logins_per_s, seen.share())
            rows.append([engine, *(short(figure) for figure in figures)])
        note = f"The bound is {CORES} cores ÷ the time of one hash, which is the p50 of one login at a time."
        columns = ["engine", "one hash, ms", "bound, logins/s", "logins/s", "÷ bound"]
        return table("Logins", note, columns, rows)

    def _table_of_look_ups(self):
        rows = [
            [
                engine, whole(seen.idle_calls_per_s), whole(seen.idle_p99_us), whole(seen.calls_per_s),
                whole(seen.p99_us), seen.errors, short(seen.logins_per_s),
            ]
            for engine, seen in self.beside.items()
        ]
        idle, beside = ["idle: calls/s", "p99, µs"], ["beside logins: calls/s", "p99, µs", "errors", "logins/s"]
        heading = f"Look-ups while {CLIENTS} clients log in without pause"
        return table(heading, f"{self.most_users:,} users.", ["engine", *idle, *beside], rows)

    def _table_of_refusals(self):
        keys = ("refused_p50_us", "refused_p99_us", "refused_max_us")
        rows = [
            [engine, whole(seen["refused"]), *(whole(seen[key]) for key in keys), short(seen["calls_per_s"])]
            for engine, seen in self.refusals.items()
        ]
        note = (
            f"{CLIENTS} clients and a queue of {SHORT_QUEUE} passwords; who is refused asks again at once. "
            "Times are in µs."
        )
        columns = ["engine", "refused", "p50", "p99", "longest", "logins/s"]
        return table("Logins refused for a full queue", note, columns, rows)

    def bars(self):
        for engine in ENGINES:
            yield Bar(f"{engine}, logins/s against their bound", self.alone[engine].share(), at_least=0.95)
        for engine, seen in self.beside.items():
            bound_ms = max(3 * seen.idle_p99_us / 1000, 10)
            what = f"{engine}, p99 of look-ups while {CLIENTS} log in"
            yield Bar(f"{what} (3 × idle, or 10 ms)", seen.p99_us / 1000, " ms", at_most=bound_ms)
            yield Bar(f"{engine}, errors of look-ups while {CLIENTS} log in", seen.errors, at_most=0)
        for engine, seen in self.refusals.items():
            what = f"{engine}, a login refused for a full queue answers within"
            yield Bar(what, seen["refused_max_us"] / 1000, " ms", at_most=50)


class Alone:
    """Nothing but logins."""

    def __init__(self, bench, service):
        one = {"rpc": "login", "seconds": bench.extent.login_seconds / 3, **ALONE.flags()}
        # Few more than there are threads, and no warm-up: what is under way when time is up does not count.
        many = {"rpc": "login", "seconds": bench.extent.login_seconds, "warm_up": 0, "in_flight": 2 * CORES}
        before, seen, after = bench.load(service, **one), bench.load(service, **many), bench.load(service, **one)
        self.hash_seconds = (before["p50_us"] + after["p50_us"]) / 2 / 1e6
        self.logins_per_s = seen["calls_per_s"]

    def bound(self):
        return CORES / self.hash_seconds

    def share(self):
        return self.logins_per_s / self.bound()


class Beside:
    """Look-ups, idle and while clients log in."""

    def __init__(self, bench, service):
        repetitions = range(bench.extent.repetitions)
        idle = [bench.load(service) for _ in repetitions]
        looks_seconds = len(repetitions) * (bench.extent.seconds + 1)
        clients = {"in_flight": CLIENTS, "connections": 4, "warm_up": 0, "seconds": looks_seconds}
        with bench.generators.load_beside(service, rpc="login", users=bench.most_users, **clients) as logins:
            looks = [bench.load(service) for _ in repetitions]
        self.idle_calls_per_s, self.idle_p99_us = _medians(idle)
        self.calls_per_s, self.p99_us = _medians(looks)
        self.errors = sum(look["failures"] + look["refused"] for look in looks)
        self.logins_per_s = logins["calls_per_s"]


def _medians(looks):
    return [statistics.median(look[key] for look in looks) for key in ("calls_per_s", "p99_us")]
