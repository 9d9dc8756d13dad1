"""`ResolveTokens` against single calls, in users/s."""

import functools

from bars import Bar
from bench import ENGINES
from comparison import interleave
from progress import say
from tables import short, table, whole

TOKENS = (10, 100, 1_000)
IN_FLIGHT = 16


class Batches:
    def __init__(self, bench):
        self.most_users, self.compared = bench.most_users, {}
        for engine in ENGINES:
            with bench.service(engine) as service:
                look = functools.partial(bench.load, service, seconds=bench.extent.short_seconds)
                subjects = {
                    tokens: functools.partial(look, rpc="resolve-batch", batch=tokens, in_flight=IN_FLIGHT)
                    for tokens in TOKENS
                }
                self.compared[engine] = interleave(look, subjects, bench.extent.repetitions)
            ratios = [self.compared[engine].ratio(tokens, "items_per_s") for tokens in TOKENS]
            say(f"batches, {engine}: {', '.join(short(ratio) for ratio in ratios)}")

    def tables(self):
        rows = []
        for engine, compared in self.compared.items():
            rows.append([engine, "single calls", whole(compared.reference("items_per_s")), "", ""])
            for tokens in TOKENS:
                figures = [compared.median(tokens, key) for key in ("items_per_s", "p99_us")]
                ratio = short(compared.ratio(tokens, "items_per_s"))
                rows.append([engine, f"{tokens:,}", whole(figures[0]), whole(figures[1]), ratio])
        note = f"{self.most_users:,} users; {IN_FLIGHT} calls in flight. Times are in µs."
        columns = ["engine", "tokens a call", "users/s", "p99", "÷ single calls'"]
        return [table("`ResolveTokens`", note, columns, rows)]

    def bars(self):
        for engine, compared in self.compared.items():
            ratio = compared.ratio(TOKENS[-1], "items_per_s")
            what = f"{engine}, `ResolveTokens` of {TOKENS[-1]:,}, users/s against single calls"
            yield Bar(what, ratio, at_least=10)
