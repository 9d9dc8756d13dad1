"""Compares look-ups in a database with many users and in one with few."""

from bars import Bar
from bench import ENGINES
from comparison import interleave
from progress import log
from tables import short, table, whole


class Sizes:
    def __init__(self, bench):
        self.most_users, self.few_users, self.compared = bench.most_users, bench.scale.few_users, {}
        for engine in ENGINES:
            with bench.service(engine, self.few_users) as few, bench.service(engine) as many:
                self.compared[engine] = interleave(
                    lambda: bench.load(few, users=self.few_users),
                    {"many": lambda: bench.load(many)},
                    bench.scale.repetitions,
                )
            log(f"sizes, {engine}: {self.compared[engine].ratio('many'):.3f}")

    def tables(self):
        rows = [
            [
                engine, whole(compared.reference("calls_per_s")), whole(compared.median("many", "calls_per_s")),
                short(compared.ratio("many")),
            ]
            for engine, compared in self.compared.items()
        ]
        columns = ["engine", f"{self.few_users:,} users: calls/s", f"{self.most_users:,} users: calls/s", "ratio"]
        return [table("Many users compared with few", "", columns, rows)]

    def bars(self):
        for engine, compared in self.compared.items():
            name = f"{engine}, calls/s with {self.most_users:,} users compared with {self.few_users:,}"
            yield Bar(name, compared.ratio("many"), at_least=0.9)
