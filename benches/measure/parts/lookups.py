"""Measures `ResolveToken` in a closed loop of benches/load, in many shapes, compared with the reference
server.
"""

import contextlib
import functools

from bars import Bar
from bench import ENGINES, MANY_CONNECTIONS, POSTGRESQL, SHAPES_WITH_BARS, SINGLE_CALL, SQLITE, WIDE
from comparison import interleave
from progress import log
from tables import short, table, whole

OTHER_REPETITIONS_MAX = 3


class LookUps:
    def __init__(self, bench):
        self.most_users, self.compared = bench.most_users, {}
        with contextlib.ExitStack() as stack:
            echo = stack.enter_context(bench.echo())
            services = {
                (engine, users): stack.enter_context(bench.service(engine, users))
                for users in bench.scale.users
                for engine in ENGINES
            }
            for (_, users), service in services.items():
                bench.load(service, users=users, seconds=bench.scale.short_seconds)
            for shape in bench.scale.shapes:
                self.compared[shape] = self._compare(bench, shape, echo, services)
                log(f"look-ups at {shape}: {self._ratios(shape)}")

    @staticmethod
    def _compare(bench, shape, echo, services):
        scale = bench.scale
        seconds, repetitions = scale.seconds, scale.repetitions
        if shape not in SHAPES_WITH_BARS:
            seconds, repetitions = scale.short_seconds, min(repetitions, OTHER_REPETITIONS_MAX)
        load = functools.partial(bench.load, seconds=seconds, **shape.flags())
        subjects = {
            (engine, users): functools.partial(load, service, users=users)
            for (engine, users), service in services.items()
        }
        return interleave(functools.partial(load, echo, rpc="echo"), subjects, repetitions)

    def _ratios(self, shape):
        compared = self.compared[shape]
        ratios = {f"{engine} {users:,}": compared.ratio((engine, users)) for engine, users in compared.names()}
        return ", ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items())

    def tables(self):
        columns = [
            "in flight / connections", "server", "users", "calls/s", "p50", "p99", "p99.9", "CPU per call",
            "calls/s ÷ echo", "p50 ÷ echo",
        ]
        rows = [row for shape in sorted(self.compared) for row in self._rows(shape)]
        note = (
            "Times are in µs. The CPU time is that of the server's process, without PostgreSQL's processes. "
            f"Values of shapes without a bar are medians of at most {OTHER_REPETITIONS_MAX} samples."
        )
        return [table("Look-ups", note, columns, rows)]

    def _rows(self, shape):
        compared = self.compared[shape]
        keys = ("calls_per_s", "p50_us", "p99_us", "p999_us", "cpu_us")
        figures = [compared.reference(key) for key in keys]
        yield [shape, "echo", "", *(whole(figure) for figure in figures[:-1]), short(figures[-1]), "", ""]
        for engine, users in compared.names():
            figures = [compared.median((engine, users), key) for key in keys]
            ratios = [compared.ratio((engine, users), key) for key in ("calls_per_s", "p50_us")]
            yield [
                shape, engine, whole(users), *(whole(figure) for figure in figures[:-1]), short(figures[-1]),
                *(short(ratio) for ratio in ratios),
            ]

    def bars(self):
        against_echo = [
            (WIDE, SQLITE, {"at_least": 0.85}),
            (WIDE, POSTGRESQL, {"at_least": 0.75}),
            (MANY_CONNECTIONS, SQLITE, {"at_least": 0.9}),
            (MANY_CONNECTIONS, POSTGRESQL, {"at_least": 0.6}),
            (SINGLE_CALL, SQLITE, {"at_most": 1.3}),
            (SINGLE_CALL, POSTGRESQL, {"at_most": 2.5}),
        ]
        for shape, engine, bound in against_echo:
            key = "p50_us" if shape == SINGLE_CALL else "calls_per_s"
            name = "one call in flight, p50" if shape == SINGLE_CALL else f"{shape.description()}, calls/s"
            ratio = self.compared[shape].ratio((engine, self.most_users), key)
            yield Bar(f"{engine}, {name} compared with `echo`", ratio, **bound)

    def curves(self):
        """Returns `{server: [(calls in flight, calls/s, p99 in µs)]}`.

        The shapes are those with as many connections as the wide shape, and the single call.
        """
        shapes = sorted(
            shape for shape in self.compared if shape.connections == WIDE.connections or shape == SINGLE_CALL
        )
        figures = {"echo": lambda compared, key: compared.reference(key)}
        for engine in ENGINES:
            figures[engine] = lambda compared, key, name=(engine, self.most_users): compared.median(name, key)
        return {
            name: [
                (shape.in_flight, *(figure(self.compared[shape], key) for key in ("calls_per_s", "p99_us")))
                for shape in shapes
            ]
            for name, figure in figures.items()
        }
