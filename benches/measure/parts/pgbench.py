"""Look-ups on PostgreSQL beside what pgbench gets out of the same server with the same query."""

from bars import Bar
from bench import POSTGRESQL, WIDE
from comparison import interleave
from progress import say
from tables import short, table, whole


class Pgbench:
    def __init__(self, bench):
        self.most_users = bench.most_users
        url, token = bench.database(POSTGRESQL, bench.most_users), bench.generators.token()
        seconds, repetitions = bench.extent.seconds, bench.extent.repetitions
        with bench.service(POSTGRESQL) as service:
            self.compared = interleave(
                lambda: bench.postgres.pgbench(url, token, WIDE.in_flight, seconds),
                {"service": lambda: bench.load(service)},
                repetitions,
            )
        say(f"pgbench: {self.compared.ratio('service'):.3f}")

    def tables(self):
        pgbench, service = self.compared.reference("calls_per_s"), self.compared.median("service", "calls_per_s")
        ratio = short(self.compared.ratio("service"))
        rows = [
            ["`pgbench -M prepared`", f"{WIDE.in_flight} clients", whole(pgbench), ""],
            ["service", WIDE.words(), whole(service), ratio],
        ]
        note = f"{self.most_users:,} users; pgbench asks for the same user always, the service for users at random."
        return [table("Beside pgbench", note, ["who", "", "calls/s", "÷ pgbench's"], rows)]

    def bars(self):
        what = f"{POSTGRESQL}, {WIDE.words()}, calls/s against `pgbench -M prepared`, {WIDE.in_flight} clients"
        yield Bar(what, self.compared.ratio("service"), at_least=1.2)
