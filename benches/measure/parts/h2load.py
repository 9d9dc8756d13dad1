"""Measures `ResolveToken` with h2load, compared with the reference server."""

import contextlib
import functools

from bars import Bar
from bench import ENGINES, MANY_CONNECTIONS, POSTGRESQL, SQLITE, WIDE
from comparison import interleave
from progress import log
from tables import short, table, whole

# The user whose response has the length of the reference server's response: benches/load/echo.rs.
ECHO_USER = 123_456


class H2load:
    def __init__(self, bench):
        self.most_users, self.compared = bench.most_users, {}
        with contextlib.ExitStack() as stack:
            echo = stack.enter_context(bench.echo())
            services = {engine: stack.enter_context(bench.service(engine)) for engine in ENGINES}
            for shape in (WIDE, MANY_CONNECTIONS):
                measure = functools.partial(
                    bench.generators.h2load, connections=shape.connections,
                    streams=shape.in_flight // shape.connections, seconds=bench.scale.seconds,
                    user=min(ECHO_USER, bench.most_users - 1),
                )
                subjects = {engine: functools.partial(measure, service) for engine, service in services.items()}
                compared = interleave(functools.partial(measure, echo), subjects, bench.scale.repetitions)
                self.compared[shape] = compared
                log(f"h2load at {shape}: {', '.join(f'{name} {compared.ratio(name):.3f}' for name in ENGINES)}")

    def tables(self):
        rows = []
        for shape, compared in self.compared.items():
            rows.append([shape, "echo", whole(compared.reference("calls_per_s")), ""])
            for engine in ENGINES:
                calls_per_s = compared.median(engine, "calls_per_s")
                rows.append([shape, engine, whole(calls_per_s), short(compared.ratio(engine))])
        note = f"{self.most_users:,} users; h2load always sends the same token."
        columns = ["in flight / connections", "server", "calls/s", "÷ echo"]
        return [table("Look-ups with h2load", note, columns, rows)]

    def bars(self):
        bounds = [
            (WIDE, SQLITE, 0.85),
            (WIDE, POSTGRESQL, 0.75),
            (MANY_CONNECTIONS, SQLITE, 0.9),
            (MANY_CONNECTIONS, POSTGRESQL, 0.6),
        ]
        for shape, engine, bound in bounds:
            name = f"{engine}, {shape.description()}, calls/s compared with `echo`, h2load"
            yield Bar(name, self.compared[shape].ratio(engine), at_least=bound)
