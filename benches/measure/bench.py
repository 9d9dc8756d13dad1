"""What is measured with: the programs, the databases they serve, and how long each look lasts."""

import contextlib
import dataclasses
import functools
import itertools
import os

from generators import Generators
from postgres import cluster
from process import Server, output_of
from progress import say

SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"
ENGINES = (SQLITE, POSTGRESQL)
EMPTY_USERS = 10


@dataclasses.dataclass(frozen=True, order=True)
class Shape:
    """Calls in flight, over all the connections."""

    in_flight: int
    connections: int

    def __str__(self):
        return f"{self.in_flight} / {self.connections}"

    def words(self):
        streams = self.in_flight // self.connections
        return f"{self.connections} connections of {'one stream' if streams == 1 else f'{streams} streams'}"

    def flags(self):
        return {"in_flight": self.in_flight, "connections": self.connections}


WIDE, MANY_CONNECTIONS, ALONE = Shape(128, 4), Shape(32, 32), Shape(1, 1)
SHAPES_OF_BARS = (WIDE, MANY_CONNECTIONS, ALONE)
OTHER_SHAPES = tuple(
    shape
    for shape in itertools.starmap(Shape, itertools.product((1, 32, 128, 512), (1, 4, 8)))
    if shape.in_flight >= shape.connections and shape not in SHAPES_OF_BARS
)


@dataclasses.dataclass(frozen=True)
class Extent:
    """How much is measured."""

    users: tuple[int, ...] = (100_000, 1_000_000)
    few_users: int = 10_000
    shapes: tuple[Shape, ...] = SHAPES_OF_BARS + OTHER_SHAPES
    repetitions: int = 5
    seconds: float = 2.0
    # Where no bar hangs on it.
    short_seconds: float = 1.0
    warm_up_seconds: float = 0.3
    # Long for a look, as a login takes a quarter of a second.
    login_seconds: float = 15.0
    imported_users: tuple[int, ...] = (10_000, 100_000)
    # Of the users' hashes, and of the service's setting when it is not the default.
    password_cost: int | None = None


FULL = Extent()
# Enough to see that it works.
SMALL = Extent(
    users=(1_000,), few_users=100, shapes=(*SHAPES_OF_BARS, Shape(32, 4)), repetitions=1,
    seconds=0.3, short_seconds=0.3, warm_up_seconds=0.1, login_seconds=2, imported_users=(1_000,),
    password_cost=8,
)


class Bench:
    """Starts servers and makes databases; `load` and the other generators are those of `Generators`."""

    def __init__(self, service, load, extent, folder, postgres):
        self.extent, self.folder, self.postgres = extent, folder, postgres
        self.generators = Generators(load, folder)
        self.service_program, self._load = service, load
        self._logs = itertools.count(1)
        self.secret_key = folder / "secret.key"
        self.secret_key.touch(mode=0o600)
        self.secret_key.write_text("q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=")
        self.most_users = max(extent.users)

    def echo(self):
        """The limit."""
        return self._start([self._load, "echo", "--listen=127.0.0.1:0"], "Serving echo on", {})

    def service(self, engine, users=None, **settings):
        """The service with its default settings; its log goes to a file, as it would go to a collector."""
        command = [self.service_program, "serve", "--listen=127.0.0.1:0", "--http-listen="]
        command += [f"--database-url={self.database(engine, users or self.most_users)}"]
        command += [f"--secret-key-file={self.secret_key}", f"--mail-url=file://{self.folder}/mail"]
        if self.extent.password_cost:
            settings |= {"password_cost": self.extent.password_cost, "password_insecure_low_cost": "true"}
        return self._start(command, "Serving gRPC on", settings)

    def _start(self, command, ready, settings):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KAIROS_")}
        environment |= {f"KAIROS_IDENTITY_{name.upper()}": str(value) for name, value in settings.items()}
        return Server(command, ready, self.folder / f"{next(self._logs)}.log", environment)

    @functools.cache
    def database(self, engine, users):
        """The URL of a database of that many users, which is made at the first call."""
        say(f"filling {engine} with {users:,} users")
        if engine == SQLITE:
            url = f"sqlite://{self.folder}/{users}.sqlite3"
        else:
            url = self.postgres.create_database(f"bench{users}")
        output_of([self.service_program, "migrate", f"--database-url={url}"])
        cost = [f"--cost={self.extent.password_cost}"] if self.extent.password_cost else []
        output_of([self._load, "seed", f"--database-url={url}", f"--users={users}", *cost])
        return url

    def load(self, server, **options):
        """Our own generator on the database of most users, unless `options` say otherwise."""
        length = {"seconds": self.extent.seconds, "warm_up": self.extent.warm_up_seconds}
        defaults = {"users": self.most_users, **length, **WIDE.flags()}
        return self.generators.load(server, **{**defaults, **options})


@contextlib.contextmanager
def bench(service, load, extent, folder):
    with cluster(folder) as postgres:
        yield Bench(service, load, extent, folder, postgres)
