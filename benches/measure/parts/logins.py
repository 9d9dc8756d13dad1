"""Measures logins compared with the hashing capacity of the cores, look-ups during logins, and rejected
logins.
"""

import os
import statistics

from bars import Bar
from bench import ENGINES, SINGLE_CALL
from progress import log
from tables import short, table, whole

CORES = os.cpu_count()
CLIENTS = 64
# A queue of this length is always full with that many clients. Only logins use the queue.
SHORT_QUEUE = 8


class Logins:
    def __init__(self, bench):
        self.most_users = bench.most_users
        self.logins, self.look_ups, self.refusals = {}, {}, {}
        for engine in ENGINES:
            with bench.service(engine) as service:
                self.logins[engine] = LoginsOnly(bench, service)
                self.look_ups[engine] = LookUpsDuringLogins(bench, service)
            with bench.service(engine, password_queue_length=SHORT_QUEUE) as service:
                clients = {"in_flight": CLIENTS, "warm_up": 0, "seconds": bench.scale.seconds}
                self.refusals[engine] = bench.load(service, may_refuse=True, rpc="login", **clients)
            look_ups = self.look_ups[engine]
            log(
                f"logins, {engine}: {self.logins[engine].share():.3f} of their bound; p99 of look-ups during logins "
                f"{look_ups.p99_us:.0f} µs, without logins {look_ups.idle_p99_us:.0f} µs; "
                f"rejected after at most {self.refusals[engine]['refused_max_us']} µs"
            )

    def tables(self):
        return [self._table_of_logins(), self._table_of_look_ups(), self._table_of_refusals()]

    def _table_of_logins(self):
        rows = []
        for engine, logins in self.logins.items():
            figures = (logins.hash_seconds * 1000, logins.bound(), logins.logins_per_s, logins.share())
            rows.append([engine, *(short(figure) for figure in figures)])
        note = f"The bound is {CORES} cores ÷ the time of one hash, measured as the p50 of one login at a time."
        columns = ["engine", "one hash, ms", "bound, logins/s", "logins/s", "÷ bound"]
        return table("Logins", note, columns, rows)

    def _table_of_look_ups(self):
        rows = [
            [
                engine, whole(look_ups.idle_calls_per_s), whole(look_ups.idle_p99_us), whole(look_ups.calls_per_s),
                whole(look_ups.p99_us), look_ups.errors, short(look_ups.logins_per_s),
            ]
            for engine, look_ups in self.look_ups.items()
        ]
        idle = ["without logins: calls/s", "p99, µs"]
        busy = ["during logins: calls/s", "p99, µs", "errors", "logins/s"]
        heading = f"Look-ups while {CLIENTS} clients log in continuously"
        return table(heading, f"{self.most_users:,} users.", ["engine", *idle, *busy], rows)

    def _table_of_refusals(self):
        keys = ("refused_p50_us", "refused_p99_us", "refused_max_us")
        rows = [
            [engine, whole(result["refused"]), *(whole(result[key]) for key in keys), short(result["calls_per_s"])]
            for engine, result in self.refusals.items()
        ]
        note = (
            f"{CLIENTS} clients and a queue of {SHORT_QUEUE} passwords; a rejected client retries immediately. "
            "Times are in µs."
        )
        columns = ["engine", "rejected", "p50", "p99", "longest", "logins/s"]
        return table("Logins rejected because the queue is full", note, columns, rows)

    def bars(self):
        for engine in ENGINES:
            yield Bar(f"{engine}, logins/s compared with their bound", self.logins[engine].share(), at_least=0.95)
        for engine, look_ups in self.look_ups.items():
            bound_ms = max(3 * look_ups.idle_p99_us / 1000, 10)
            name = f"{engine}, p99 of look-ups while {CLIENTS} clients log in"
            yield Bar(f"{name} (3 × that without logins, or 10 ms)", look_ups.p99_us / 1000, " ms", at_most=bound_ms)
            yield Bar(f"{engine}, errors of look-ups while {CLIENTS} clients log in", look_ups.errors, at_most=0)
        for engine, result in self.refusals.items():
            name = f"{engine}, longest time to reject a login because the queue is full"
            yield Bar(name, result["refused_max_us"] / 1000, " ms", at_most=50)


class LoginsOnly:
    """The throughput of logins without other load, and the time of one hash."""

    def __init__(self, bench, service):
        one = {"rpc": "login", "seconds": bench.scale.login_seconds / 3, **SINGLE_CALL.flags()}
        # Only a few more calls than threads and no warm-up, since calls in flight at the end are not counted.
        many = {"rpc": "login", "seconds": bench.scale.login_seconds, "warm_up": 0, "in_flight": 2 * CORES}
        before, result, after = bench.load(service, **one), bench.load(service, **many), bench.load(service, **one)
        self.hash_seconds = (before["p50_us"] + after["p50_us"]) / 2 / 1e6
        self.logins_per_s = result["calls_per_s"]

    def bound(self):
        return CORES / self.hash_seconds

    def share(self):
        return self.logins_per_s / self.bound()


class LookUpsDuringLogins:
    """Look-ups without logins, and while clients log in."""

    def __init__(self, bench, service):
        repetitions = range(bench.scale.repetitions)
        idle = [bench.load(service) for _ in repetitions]
        login_seconds = len(repetitions) * (bench.scale.seconds + 1)
        clients = {"in_flight": CLIENTS, "connections": 4, "warm_up": 0, "seconds": login_seconds}
        with bench.generators.background_load(service, rpc="login", users=bench.most_users, **clients) as logins:
            busy = [bench.load(service) for _ in repetitions]
        self.idle_calls_per_s, self.idle_p99_us = _medians(idle)
        self.calls_per_s, self.p99_us = _medians(busy)
        self.errors = sum(result["failures"] + result["refused"] for result in busy)
        self.logins_per_s = logins["calls_per_s"]


def _medians(results):
    return [statistics.median(result[key] for result in results) for key in ("calls_per_s", "p99_us")]
