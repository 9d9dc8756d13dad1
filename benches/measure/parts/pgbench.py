"""Compares look-ups on PostgreSQL with pgbench, which runs the same query on the same server."""

from bars import Bar
from bench import POSTGRESQL, WIDE
from comparison import interleave
from progress import log
from tables import short, table, whole


class Pgbench:
    def __init__(self, bench):
        self.most_users = bench.most_users
        url, token = bench.database(POSTGRESQL, bench.most_users), bench.generators.token()
        seconds, repetitions = bench.scale.seconds, bench.scale.repetitions
        with bench.service(POSTGRESQL) as service:
            self.compared = interleave(
                lambda: bench.postgres.pgbench(url, token, WIDE.in_flight, seconds),
                {"service": lambda: bench.load(service)},
                repetitions,
            )
        log(f"pgbench: {self.compared.ratio('service'):.3f}")

    def tables(self):
        pgbench, service = self.compared.reference("calls_per_s"), self.compared.median("service", "calls_per_s")
        ratio = short(self.compared.ratio("service"))
        rows = [
            ["`pgbench -M prepared`", f"{WIDE.in_flight} clients", whole(pgbench), ""],
            ["service", WIDE.description(), whole(service), ratio],
        ]
        note = f"{self.most_users:,} users; pgbench always queries the same user, the service random users."
        return [table("Compared with pgbench", note, ["program", "load", "calls/s", "÷ pgbench"], rows)]

    def bars(self):
        reference = f"`pgbench -M prepared`, {WIDE.in_flight} clients"
        name = f"{POSTGRESQL}, {WIDE.description()}, calls/s compared with {reference}"
        yield Bar(name, self.compared.ratio("service"), at_least=1.2)
