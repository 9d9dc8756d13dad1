"""Compares `ResolveTokens` with single `ResolveToken` calls, in users/s."""

import functools

from bars import Bar
from bench import ENGINES
from comparison import interleave
from progress import log
from tables import short, table, whole

TOKENS = (10, 100, 1_000)
IN_FLIGHT = 16


class Batches:
    def __init__(self, bench):
        self.most_users, self.compared = bench.most_users, {}
        for engine in ENGINES:
            with bench.service(engine) as service:
                measure = functools.partial(bench.load, service, seconds=bench.scale.short_seconds)
                subjects = {
                    tokens: functools.partial(measure, rpc="resolve-batch", batch=tokens, in_flight=IN_FLIGHT)
                    for tokens in TOKENS
                }
                self.compared[engine] = interleave(measure, subjects, bench.scale.repetitions)
            ratios = [self.compared[engine].ratio(tokens, "items_per_s") for tokens in TOKENS]
            log(f"batches, {engine}: {', '.join(short(ratio) for ratio in ratios)}")

    def tables(self):
        rows = []
        for engine, compared in self.compared.items():
            rows.append([engine, "single calls", whole(compared.reference("items_per_s")), "", ""])
            for tokens in TOKENS:
                figures = [compared.median(tokens, key) for key in ("items_per_s", "p99_us")]
                ratio = short(compared.ratio(tokens, "items_per_s"))
                rows.append([engine, f"{tokens:,}", whole(figures[0]), whole(figures[1]), ratio])
        note = f"{self.most_users:,} users; {IN_FLIGHT} calls in flight. Times are in µs."
        columns = ["engine", "tokens per call", "users/s", "p99", "÷ single calls"]
        return [table("`ResolveTokens`", note, columns, rows)]

    def bars(self):
        for engine, compared in self.compared.items():
            ratio = compared.ratio(TOKENS[-1], "items_per_s")
            name = f"{engine}, `ResolveTokens` of {TOKENS[-1]:,}, users/s compared with single calls"
            yield Bar(name, ratio, at_least=10)
