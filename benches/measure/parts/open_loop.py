"""Calls that leave at a fixed rate, half of what a closed loop reaches, so that waiting is counted."""

from bench import ENGINES
from progress import say
from tables import table, whole

PART_OF_CLOSED_LOOP = 0.5


class OpenLoop:
    def __init__(self, bench):
        self.most_users, self.seen = bench.most_users, {}
        with bench.echo() as echo:
            self._look(bench, "echo", echo, rpc="echo")
        for engine in ENGINES:
            with bench.service(engine) as service:
                self._look(bench, engine, service, rpc="resolve")

    def _look(self, bench, name, server, rpc):
        closed = bench.load(server, rpc=rpc)
        rate = max(1, int(closed["calls_per_s"] * PART_OF_CLOSED_LOOP))
        self.seen[name] = rate, bench.load(server, rpc=rpc, rate=rate, seconds=bench.extent.seconds * 2)
        say(f"open loop, {name}: {rate:,}/s, p99 {self.seen[name][1]['p99_us']} µs")

    def tables(self):
        rows = [
            [name, whole(rate), *(whole(seen[key]) for key in ("calls_per_s", "p50_us", "p99_us", "p999_us"))]
            for name, (rate, seen) in self.seen.items()
        ]
        note = (
            f"{self.most_users:,} users; each rate is {PART_OF_CLOSED_LOOP:.0%} of what a closed loop reached "
            "just before. Times are in µs, from when a call should have left."
        )
        columns = ["who", "calls/s", "answered/s", "p50", "p99", "p99.9"]
        return [table("Look-ups at a fixed rate", note, columns, rows)]

    def bars(self):
        return []
