"""Measures calls at a fixed rate, half of the throughput of a closed loop. Latencies include the wait before
a call is sent.
"""

from bench import ENGINES
from progress import log
from tables import table, whole

PART_OF_CLOSED_LOOP = 0.5


class OpenLoop:
    def __init__(self, bench):
        self.most_users, self.results = bench.most_users, {}
        with bench.echo() as echo:
            self._measure(bench, "echo", echo, rpc="echo")
        for engine in ENGINES:
            with bench.service(engine) as service:
                self._measure(bench, engine, service, rpc="resolve")

    def _measure(self, bench, name, server, rpc):
        closed = bench.load(server, rpc=rpc)
        rate = max(1, int(closed["calls_per_s"] * PART_OF_CLOSED_LOOP))
        self.results[name] = rate, bench.load(server, rpc=rpc, rate=rate, seconds=bench.scale.seconds * 2)
        log(f"open loop, {name}: {rate:,}/s, p99 {self.results[name][1]['p99_us']} µs")

    def tables(self):
        rows = [
            [name, whole(rate), *(whole(result[key]) for key in ("calls_per_s", "p50_us", "p99_us", "p999_us"))]
            for name, (rate, result) in self.results.items()
        ]
        note = (
            f"{self.most_users:,} users; each rate is {PART_OF_CLOSED_LOOP:.0%} of the throughput of a closed loop "
            "directly before. Times are in µs, from the time at which a call was due."
        )
        columns = ["server", "calls/s", "answered/s", "p50", "p99", "p99.9"]
        return [table("Look-ups at a fixed rate", note, columns, rows)]

    def bars(self):
        return []
