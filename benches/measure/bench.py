"""The setup of the measurements: the programs, their databases, and the scale of the measurements."""

import contextlib
import dataclasses
import functools
import itertools
import os

from generators import Generators
from postgres import cluster
from process import Server, output_of
from progress import log

SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"
ENGINES = (SQLITE, POSTGRESQL)
EMPTY_USERS = 10


@dataclasses.dataclass(frozen=True, order=True)
class Shape:
    """A number of calls in flight, spread over a number of connections."""

    in_flight: int
    connections: int

    def __str__(self):
        return f"{self.in_flight} / {self.connections}"

    def description(self):
        streams = self.in_flight // self.connections
        return f"{self.connections} connections of {'one stream' if streams == 1 else f'{streams} streams'}"

    def flags(self):
        return {"in_flight": self.in_flight, "connections": self.connections}


WIDE, MANY_CONNECTIONS, SINGLE_CALL = Shape(128, 4), Shape(32, 32), Shape(1, 1)
SHAPES_WITH_BARS = (WIDE, MANY_CONNECTIONS, SINGLE_CALL)
OTHER_SHAPES = tuple(
    shape
    for shape in itertools.starmap(Shape, itertools.product((1, 32, 128, 512), (1, 4, 8)))
    if shape.in_flight >= shape.connections and shape not in SHAPES_WITH_BARS
)


@dataclasses.dataclass(frozen=True)
class Scale:
    """The sizes, the repetitions and the durations of the measurements."""

    users: tuple[int, ...] = (100_000, 1_000_000)
    few_users: int = 10_000
    shapes: tuple[Shape, ...] = SHAPES_WITH_BARS + OTHER_SHAPES
    repetitions: int = 5
    seconds: float = 2.0
    # The duration of most measurements without a bar.
    short_seconds: float = 1.0
    warm_up_seconds: float = 0.3
    # Longer than `seconds`, because a login takes a quarter of a second.
    login_seconds: float = 15.0
    imported_users: tuple[int, ...] = (10_000, 100_000)
    # The bcrypt cost of the users' hashes and of the service; `None` for the service's default.
    password_cost: int | None = None


FULL = Scale()
# Enough to check that the benchmarks work.
SMALL = Scale(
    users=(1_000,), few_users=100, shapes=(*SHAPES_WITH_BARS, Shape(32, 4)), repetitions=1,
    seconds=0.3, short_seconds=0.3, warm_up_seconds=0.1, login_seconds=2, imported_users=(1_000,),
    password_cost=8,
)


class Bench:
    """Starts servers, creates databases and runs the load generators."""

    def __init__(self, service, load, scale, folder, postgres):
        self.scale, self.folder, self.postgres = scale, folder, postgres
        self.generators = Generators(load, folder)
        self.service_program, self._load = service, load
        self._logs = itertools.count(1)
        self.secret_key = folder / "secret.key"
        self.secret_key.touch(mode=0o600)
        self.secret_key.write_text("q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=")
        self.most_users = max(scale.users)

    def echo(self):
        """Starts the reference server."""
        return self._start([self._load, "echo", "--listen=127.0.0.1:0"], "Serving echo on", {})

    def service(self, engine, users=None, **settings):
        """Starts the service with its default settings and with `settings`. It writes its log to a file."""
        command = [self.service_program, "serve", "--listen=127.0.0.1:0", "--http-listen=", "--telemetry-listen=127.0.0.1:0"]
        command += [f"--database-url={self.database(engine, users or self.most_users)}"]
        command += [f"--secret-key-file={self.secret_key}", f"--mail-url=file://{self.folder}/mail"]
        if self.scale.password_cost:
            settings |= {"password_cost": self.scale.password_cost, "password_insecure_low_cost": "true"}
        return self._start(command, "Serving gRPC on", settings)

    def _start(self, command, ready, settings):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KAIROS_")}
        environment |= {f"KAIROS_IDENTITY_{name.upper()}": str(value) for name, value in settings.items()}
        return Server(command, ready, self.folder / f"{next(self._logs)}.log", environment)

    @functools.cache
    def database(self, engine, users):
        """Returns the URL of a database with that many users. The first call creates the database."""
        log(f"filling {engine} with {users:,} users")
        if engine == SQLITE:
            url = f"sqlite://{self.folder}/{users}.sqlite3"
        else:
            url = self.postgres.create_database(f"bench{users}")
        output_of([self.service_program, "migrate", f"--database-url={url}"])
        cost = [f"--cost={self.scale.password_cost}"] if self.scale.password_cost else []
        output_of([self._load, "seed", f"--database-url={url}", f"--users={users}", *cost])
        return url

    def load(self, server, **options):
        """Runs benches/load. By default, it uses the database with the most users and the wide shape."""
        duration = {"seconds": self.scale.seconds, "warm_up": self.scale.warm_up_seconds}
        defaults = {"users": self.most_users, **duration, **WIDE.flags()}
        return self.generators.load(server, **{**defaults, **options})


@contextlib.contextmanager
def bench(service, load, scale, folder):
    with cluster(folder) as postgres:
        yield Bench(service, load, scale, folder, postgres)
