"""The disasters. Each function is one scenario on one engine; a round of it ends with the check of the ledger."""

import dataclasses
import os
import random
import re
import signal
import sqlite3
import subprocess
import threading
import time

from disk import EVERYTHING as EVERY_OPERATION
from disk import FAILS_SYNC, FAILS_WRITE, Disk, Shim
from ledger import Check, Ledger, Violation
from load import Load, Mail
from postgres import Cluster
from processes import give_to_unprivileged, reaper, until
from service import EVERYTHING, HEALTH_SECONDS, LOOK_UPS_ONLY, NOTHING, Service, new_folder

# After a full disk the health stays NOT_SERVING for ten more checks (src/grpc/health.rs).
FULL_DISK_SECONDS = HEALTH_SECONDS + 16


# On a busy machine, a call is made that an outage fails only after a while.
MEETS_OUTAGE_SECONDS = 15


@dataclasses.dataclass
class Skipped(Exception):
    """The machine lacks what the scenario needs."""

    reason: str


class Case:
    """One scenario on one engine, in a folder of its own."""

    def __init__(self, campaign, name, engine, seed, rounds, is_small):
        self.campaign, self.name, self.engine, self.seed = campaign, name, engine, seed
        self.rounds, self.is_small = rounds, is_small
        self.random = random.Random(f"{seed}/{name}/{engine}")
        self.folder = new_folder(campaign.folder, f"{name}-{engine}")
        self.folder.chmod(0o755)
        self.ledger_path = self.folder / "ledger"
        self.ledger = Ledger(self.ledger_path)
        self.figures = {}
        self.codes = {}
        self.done = 0
        self.checked = []
        self.service = self.watch = self.cluster = None

    def add(self, figure, number=1):
        self.figures[figure] = self.figures.get(figure, 0) + number

    def worst(self, figure, number):
        self.figures[figure] = max(self.figures.get(figure, 0), round(number, 1))

    def between(self, low, high):
        return self.random.uniform(low, high)

    # --- the database and the service ---

    @property
    def is_sqlite(self):
        return self.engine == "sqlite"

    @property
    def database_folder(self):
        return self.folder / "database"

    def sqlite_url(self):
        self.database_folder.mkdir(exist_ok=True)
        return f"sqlite://{self.database_folder}/kairos.sqlite3"

    def own_cluster(self, **options):
        """Starts a server for this case alone."""
        self.cluster = Cluster(self.folder / "postgres", self.campaign.template(), **options)
        return self.cluster.start()

    def url(self):
        """Returns the URL of a new database: on SQLite, or on the server that some cases share."""
        if self.is_sqlite:
            return self.sqlite_url()
        return self.campaign.shared_cluster().url(self.new_database())

    def new_database(self, options=""):
        name = f"{self.name}_{self.seed}".replace("-", "_")
        return self.campaign.shared_cluster().create_database(name, options)

    def shim(self, records=False):
        return Shim(self.campaign.shim(), self.folder / "shim", self.database_folder if self.is_sqlite else None, records)

    def serve(self, url, shim=None, settings=None, stderr=None):
        self.service = Service(self.campaign.binary, self.folder / "service", url, shim, settings)
        self.service.start(stderr)
        self.watch = self.service.watch()
        self.watch.becomes(EVERYTHING)
        return self.service

    def load(self, number, **options):
        options = {"timeout": 4, "pause": 0.03 if self.is_small else 0.005, **options}
        return Load(self.service, self.ledger, f"r{number}z", f"{self.seed}/{number}", **options)

    # --- the check ---

    def check(self, load, settle=0.3, **options):
        """Reads the ledger again, and compares the recovered service with it."""
        for code, count in load.codes.items():
            self.codes[code] = self.codes.get(code, 0) + count
        self.watch.becomes(EVERYTHING, FULL_DISK_SECONDS)
        time.sleep(settle)
        self.add("acknowledged", self.ledger.acknowledged - self.figures.get("acknowledged", 0))
        acknowledged = self.ledger.acknowledged
        read = Ledger.read(self.ledger_path)
        if {name: vars(user) for name, user in read.users.items()} != {name: vars(user) for name, user in self.ledger.users.items()}:
            raise Violation("the file of the ledger differs from what the load knows")
        api, mail = self.service.api(), Mail(self.service.mail)
        known = [name for name in self.ledger.users if name.startswith(tuple(self.checked)) and not name.endswith("victim")]
        self.checked.append(load.name)
        self.add("users", load.check(api, mail, self.random.sample(known, min(len(known), 5)), **options))
        api.close()
        # What the check itself did is not counted.
        self.figures["acknowledged"] = self.figures["acknowledged"] + self.ledger.acknowledged - acknowledged
        self.add("checks", acknowledged - self.ledger.acknowledged)

    def require(self, condition, text):
        if not condition:
            raise Violation(text)

    def require_only(self, load, allowed):
        """Requires that the callers have got no other codes than these, besides OK."""
        found = set(load.codes) - {"OK"} - set(allowed)
        self.require(not found, f"callers got {sorted(found)}; allowed are {sorted(allowed)}")

    def end(self):
        if self.watch:
            self.watch.end()
        if self.service and self.service.child and self.service.child.is_running():
            self.service.kill()
        if self.cluster:
            self.cluster.remove()


OUTAGE = ["UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"]
# A refused guess is no error of the disaster.
GUESS = ["UNAUTHENTICATED"]


def answered_again(load):
    """Waits until a call of the load is answered. Returns the seconds that it took."""
    began = time.monotonic()
    until("calls are answered again", 20, lambda: load.answered_at > began or load.failures)
    return time.monotonic() - began


def kill(case):
    """The service is killed under load, at a random moment."""
    case.serve(case.url())
    for number in range(case.rounds):
        with case.load(number) as load:
            time.sleep(case.between(0.1, 0.8))
            case.service.kill()
        case.require_only(load, [*OUTAGE, *GUESS])
        case.service.start()
        case.check(load)
        case.done += 1


def crash(case):
    """PostgreSQL stops at once (immediate stop, or a killed process of a connection) under load."""
    cluster = case.own_cluster()
    case.serve(cluster.url())
    for number in range(case.rounds):
        is_stop = case.random.random() < 0.7
        with case.load(number) as load:
            time.sleep(case.between(0.1, 0.8))
            if is_stop:
                cluster.crash()
                if number % 5 == 0:
                    case.watch.becomes(NOTHING)
                cluster.start()
            else:
                # The server ends all connections and recovers, as after a fault of a process of its own.
                os.kill(case.random.choice(cluster.backends()[1:]), signal.SIGKILL)
            case.worst("recovery s", answered_again(load))
        case.require_only(load, [*OUTAGE, *GUESS])
        case.check(load)
        case.done += 1


def power(case):
    """The power fails: of what SQLite wrote, only what it had synced is sure to be there. Several cuts of one load."""
    number = 0
    while case.done < case.rounds:
        shim = case.shim(records=True)
        url = case.sqlite_url()
        if case.service is None:
            # The tables are made before, and are on the disk.
            Service(case.campaign.binary, case.folder / "service", url).start().stop()
        copied = new_folder(case.folder, "before")
        for path in case.database_folder.iterdir():
            (copied / path.name).write_bytes(path.read_bytes())
        case.serve(url, shim)
        started = time.monotonic_ns()
        with case.load(number) as load:
            time.sleep(1.0 if case.is_small else 2.0)
            case.service.kill()
        ended = time.monotonic_ns()
        case.watch.end()
        case.watch = None
        disk = Disk(copied, shim.record_path)
        cuts = min(case.rounds - case.done, 2 if case.is_small else 10)
        # Each is between two operations of the disk. The last one is the moment of the kill.
        times = [at for at in disk.times() if at > started]
        for cut in sorted([*(case.random.choice(times) for _ in range(cuts - 1)), ended]):
            disk.advance(cut)
            check_cut(case, disk, cut)
        case.require(disk.syncs > 0 and shim["writes"] > 0, "the library recorded no write or no sync: it is not in use")
        case.add("syncs", disk.syncs)
        number += 1


def check_cut(case, disk, cut):
    """Starts the service on what a power cut leaves, and checks what was acknowledged before it."""
    folder = new_folder(case.folder, "cut")
    case.add("lost writes", disk.cut(case.random, folder))
    service = Service(case.campaign.binary, case.folder / "service", f"sqlite://{folder}/kairos.sqlite3").start()
    api = service.api()
    ledger = Ledger.read(case.ledger_path, cut)
    check = Check(api, ledger, Mail(service.mail), is_copy=True)
    case.add("acknowledged", ledger.acknowledged)
    names = [name for name in ledger.users if not name.endswith("victim")]
    check.users(case.random.sample(names, min(len(names), 40)))
    for victim in [user for name, user in ledger.users.items() if name.endswith("victim") and user.verified == "yes"][-1:]:
        check.guesses(victim)
    case.add("users", check.checked)
    api.close()
    service.kill()
    connection = sqlite3.connect(folder / "kairos.sqlite3")
    found = connection.execute("PRAGMA integrity_check").fetchall()
    connection.close()
    case.require(found == [("ok",)], f"the database is damaged after the power cut: {found[:3]}")
    for path in folder.iterdir():
        path.unlink()
    case.done += 1


def errors(case):
    """Writes and syncs of SQLite's files fail with EIO or ENOSPC: one of them, some, or all for a time."""
    shim = case.shim()
    case.serve(case.url(), shim)
    for number in range(case.rounds):
        error = case.random.choice(["EIO", "ENOSPC"])
        what = case.random.choice([FAILS_WRITE, FAILS_SYNC, EVERY_OPERATION])
        count = case.random.choice([1, 2, case.random.randint(3, 30)])
        failed = shim["failed"]
        with case.load(number) as load:
            time.sleep(case.between(0, 0.2))
            shim.fail(what, error, case.random.randint(0, 60), count)
            time.sleep(case.between(0.3, 0.8))
            shim.heal()
            if case.random.random() < 0.5:
                case.service.kill()
        case.add("failures", shim["failed"] - failed)
        case.require_only(load, [*OUTAGE, *GUESS, "DATA_LOSS"])
        if not case.service.child.is_running():
            case.service.start()
        case.check(load)
        case.done += 1
    case.require(shim["failed"] > 0, "the library made no operation fail: it is not in use")


def met_outage(load):
    """True if a call failed because of the outage."""
    return any(code in load.codes for code in [*OUTAGE, "DATA_LOSS"])


def wait_for_failure(load):
    """Waits until a call fails because of the outage, for at most `MEETS_OUTAGE_SECONDS`."""
    end = time.monotonic() + MEETS_OUTAGE_SECONDS
    while not met_outage(load) and time.monotonic() < end:
        time.sleep(0.1)


def outage(case, begin, heal, health, allowed, settle=0.3, seconds=1.0, load_options=None):
    """Runs rounds of an outage that begins and ends by these functions. Meanwhile the health must be this."""
    for number in range(case.rounds):
        with case.load(number, **(load_options or {})) as load:
            time.sleep(0.3)
            begin()
            case.worst("noticed s", case.watch.becomes(health))
            noticed = time.monotonic()
            time.sleep(seconds)
            # A call may need nothing that is missing: a row may fit into a page that is there already.
            wait_for_failure(load)
            answers = case.watch.since(noticed)
            # An instance that cannot answer for a moment is no wrong answer.
            case.require(answers <= {health}, f"the health did not stay {health} during the outage: {answers}")
            healed = time.monotonic()
            heal()
            case.watch.becomes(EVERYTHING, FULL_DISK_SECONDS)
            case.worst("recovery s", time.monotonic() - healed)
            time.sleep(0.5)
            case.require(load.failures or load.answered_at > healed, "no call was answered after the recovery")
        case.require_only(load, [*allowed, *GUESS])
        case.require(met_outage(load), f"the outage met no call: {load.codes}")
        case.check(load, settle)
        case.done += 1


def disk(case):
    """The disk is full, and then has space again."""
    if case.is_sqlite:
        shim = case.shim()
        case.serve(case.url(), shim)
        outage(case, lambda: shim.fail(FAILS_WRITE, "ENOSPC"), shim.heal, LOOK_UPS_ONLY, OUTAGE)
        return
    if os.getuid() != 0:
        raise Skipped("only root can mount a small disk")
    mounted = case.folder / "disk"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m,mode=0777", "tmpfs", mounted], check=True)
    reaper().tell("mount", mounted)
    cluster = case.campaign.shared_cluster()
    try:
        (mounted / "space").mkdir()
        give_to_unprivileged(mounted / "space")
        space = f"space_{case.seed}"
        cluster.psql(f"CREATE TABLESPACE {space} LOCATION '{mounted / 'space'}'")
        database = case.new_database(f"TABLESPACE {space}")
        case.serve(cluster.url(database))

        def fill():
            filled = subprocess.run(["dd", "if=/dev/zero", f"of={mounted / 'filler'}", "bs=64k"], stderr=subprocess.DEVNULL)
            case.require(filled.returncode != 0, "the disk is not full")

        # Rows use the space that is left in the pages of each table, so the load is larger here.
        more = {"pause": 0, "workers": 4, "mix": {"register": 5, "login": 3, "resolve": 1}}
        outage(case, fill, (mounted / "filler").unlink, LOOK_UPS_ONLY, OUTAGE, load_options=more)
    finally:
        case.end()
        case.service = case.watch = None
        cluster.psql(f"DROP DATABASE IF EXISTS {case.name}_{case.seed} WITH (FORCE)")
        cluster.psql(f"DROP TABLESPACE IF EXISTS space_{case.seed}")
        subprocess.run(["umount", "-l", mounted], check=False)


def readonly(case):
    """The database accepts no writes."""
    if case.is_sqlite:
        shim = case.shim()
        case.serve(case.url(), shim)
        outage(case, lambda: shim.fail(EVERY_OPERATION, "EROFS"), shim.heal, LOOK_UPS_ONLY, [*OUTAGE, "DATA_LOSS"])
        return
    cluster, database = case.campaign.shared_cluster(), case.new_database()
    case.serve(cluster.url(database))

    def switch(value):
        cluster.psql(f"ALTER DATABASE {database} SET default_transaction_read_only = {value}")
        cluster.psql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")

    outage(case, lambda: switch("on"), lambda: switch("off"), LOOK_UPS_ONLY, OUTAGE)


def lock(case):
    """Another client holds the write lock of SQLite's file."""
    case.serve(case.url(), settings={"KAIROS_IDENTITY_DATABASE_SQLITE_BUSY_TIMEOUT": "1s"})
    held = []

    def hold():
        connection = sqlite3.connect(case.database_folder / "kairos.sqlite3", timeout=10, isolation_level=None, check_same_thread=False)
        connection.execute("BEGIN IMMEDIATE")
        held.append(connection)

    outage(case, hold, lambda: held.pop().close(), LOOK_UPS_ONLY, OUTAGE)


def frozen(case):
    """PostgreSQL is frozen (SIGSTOP): its connections stay open and answer nothing."""
    cluster = case.own_cluster()
    case.serve(cluster.url())
    # A statement that waits in the server may still commit for database.statement-timeout after the thaw.
    outage(case, cluster.freeze, cluster.thaw, NOTHING, OUTAGE, settle=3.5)


def paused(case):
    """The service itself is frozen (SIGSTOP) and goes on later."""
    case.serve(case.url())
    for number in range(case.rounds):
        with case.load(number, timeout=1) as load:
            time.sleep(case.between(0.1, 0.5))
            case.service.child.signal(signal.SIGSTOP)
            time.sleep(1.5)
            case.service.child.signal(signal.SIGCONT)
            answered_again(load)
        case.require_only(load, [*OUTAGE, *GUESS])
        case.check(load, settle=1)
        case.done += 1


def hung(case):
    """Commits hang: the synchronous standby is gone. Look-ups go on."""
    cluster = case.own_cluster()
    short = {"KAIROS_IDENTITY_DATABASE_STATEMENT_TIMEOUT": "1s", "KAIROS_IDENTITY_DATABASE_ACQUIRE_TIMEOUT": "500ms"}
    case.serve(cluster.url(), settings=short)

    def begin():
        cluster.set("synchronous_standby_names", "nobody")

    def heal():
        cluster.set("synchronous_standby_names", "")

    outage(case, begin, heal, LOOK_UPS_ONLY, OUTAGE, settle=1)


def foreign(case, language):
    """A server with messages in another language and REPEATABLE READ: a restart, ended connections, hot rows."""
    cluster = case.own_cluster(language=language, settings=["default_transaction_isolation=repeatable read"])
    case.require("ision" not in messages(cluster), f"the server has no messages in {language}")
    case.serve(cluster.url())
    for number in range(case.rounds):
        # Many callers of the same users: with the level of the server, most of their transactions would fail.
        with case.load(number, workers=3, pause=0.005) as load, Crowd(case, load.steady.user):
            time.sleep(0.3)
            cluster.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'kairos'")
            time.sleep(0.3)
            cluster.crash()
            time.sleep(0.2)
            cluster.start()
            case.worst("recovery s", answered_again(load))
        case.require_only(load, [*OUTAGE, *GUESS])
        case.check(load)
        case.done += 1


def messages(cluster):
    url = f"postgres://postgres@127.0.0.1:{cluster.port}/postgres"
    run = subprocess.run(["psql", "-X", "-d", url, "-c", "SELECT 1/0"], capture_output=True, text=True, check=False)
    return run.stderr if "ERROR: " in run.stderr else ""


def foreign_de(case):
    """PostgreSQL, with German messages and REPEATABLE READ, ends connections and restarts."""
    foreign(case, "de")


def foreign_fr(case):
    """The same as `foreign-de`, with French messages."""
    foreign(case, "fr")


class Crowd:
    """Logs one user in from many threads at once."""

    def __init__(self, case, user):
        self.case, self.user, self.failures, self.ended = case, user, [], threading.Event()
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(4)]

    def run(self):
        api = self.case.service.api()
        while not self.ended.wait(0.02):
            outcome = api.call("Login", email=self.user.email, password=self.user.passwords[0])
            if not (outcome.is_ok or outcome.is_outage):
                self.failures.append(outcome)
        api.close()

    def __enter__(self):
        for thread in self.threads:
            thread.start()

    def __exit__(self, kind, error, trace):
        self.ended.set()
        for thread in self.threads:
            thread.join(20)
        if error is None and self.failures:
            raise Violation(f"a right password among concurrent logins: {self.failures[0]}")


DAY = 86_400


def clock(case):
    """The clock jumps, forward and back, and is corrected. The service runs on, or starts under the wrong clock."""
    shim = case.shim()
    case.serve(case.url(), shim)
    jumps = [2 * 3_600, 40 * DAY, 3_650 * DAY, -3_600, -400 * DAY]
    for number in range(case.rounds):
        jump = jumps[(case.seed + number) % len(jumps)]
        with case.load(number) as before:
            time.sleep(0.5)
        shim.set_clock(jump)
        if case.random.random() < 0.5:
            case.service.kill()
            case.service.start()
        # Sessions that begin under a clock far ahead need not hold later, users and passwords must.
        mix = {"register": 4, "login": 4, "reset": 1, "resolve": 2}
        with case.load(f"{number}j", mix=mix, keeps_sessions=False) as during:
            time.sleep(1.5)
            case.require(case.watch.now == EVERYTHING, f"the health after a jump of {jump} s is {case.watch.now}")
        shim.set_clock(0)
        with case.load(f"{number}a") as after:
            time.sleep(0.5)
        for load in (before, during, after):
            case.require_only(load, [*GUESS, *OUTAGE])
            # Failures that were counted 400 days ago have expired when the clock is right again.
            case.check(load, links_hold=load is not during, failures_hold=load is not during or jump > -DAY)
        case.done += 1


def log(case):
    """Standard error is not read: its pipe and the queue of the log are full."""
    url = case.url()
    read, write = os.pipe()
    case.service = Service(case.campaign.binary, case.folder / "service", url, settings={"KAIROS_IDENTITY_LOG_LEVEL": "debug"})
    reader = threading.Thread(target=lambda: drain(read, case.service.log), daemon=True)
    reader.start()
    case.service.start(stderr=write)
    os.close(write)
    case.watch = case.service.watch()
    case.watch.becomes(EVERYTHING)
    STUCK.add(read)
    for number in range(case.rounds):
        with case.load(number, pause=0.002) as load, Flood(case, load.steady.user, 800 if case.is_small else 20_000):
            time.sleep(2)
            case.require(case.watch.now == EVERYTHING, f"the health with a stuck log is {case.watch.now}")
        case.require_only(load, GUESS)
        case.check(load)
        case.done += 1
    if not case.is_small:
        # Once it is read again, the log tells how many lines did not fit into the queue.
        STUCK.discard(read)
        dropped = until("the log tells what it has dropped", 20, lambda: re.findall(r"Dropped (\d+) ", case.service.log.read_text()))
        case.add("dropped lines", sum(map(int, dropped)))
        STUCK.add(read)
    case.watch.end()
    case.watch = None
    # The service also ends while its standard error is not read.
    case.service.stop()
    STUCK.discard(read)
    reader.join(5)


STUCK = set()


def drain(pipe, path):
    """Copies a pipe into a file, and stops reading while the pipe is in STUCK."""
    with path.open("ab", buffering=0) as file, os.fdopen(pipe, "rb", buffering=0) as source:
        while True:
            while pipe in STUCK:
                time.sleep(0.05)
            data = source.read(65_536)
            if not data:
                return
            file.write(data)


class Flood:
    """Makes look-ups, each of which logs a line, from some threads."""

    def __init__(self, case, user, calls):
        self.case, self.user, self.calls, self.failures = case, user, calls, []
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(4)]

    def run(self):
        api = self.case.service.api()
        for _ in range(self.calls // len(self.threads)):
            outcome = api.call("ResolveToken", auth_token=self.user.auth_token)
            if not outcome.is_ok:
                self.failures.append(outcome)
        api.close()

    def __enter__(self):
        for thread in self.threads:
            thread.start()

    def __exit__(self, kind, error, trace):
        for thread in self.threads:
            thread.join(120)
        if error is None and self.failures:
            raise Violation(f"a look-up while the log is stuck: {self.failures[0]}")


@dataclasses.dataclass(frozen=True)
class Scenario:
    run: object
    engines: tuple
    rounds: int
    """Of a full run, on each engine."""
    small: int = 1

    @property
    def name(self):
        return self.run.__name__.replace("_", "-")

    @property
    def text(self):
        return self.run.__doc__.split(".")[0].split(":")[0]


BOTH, SQLITE, POSTGRES = ("sqlite", "postgres"), ("sqlite",), ("postgres",)

# The longest come first, because several run at the same time.
SCENARIOS = [
    Scenario(disk, BOTH, 10),
    Scenario(frozen, POSTGRES, 10),
    Scenario(hung, POSTGRES, 10),
    Scenario(clock, BOTH, 10),
    Scenario(readonly, BOTH, 10),
    Scenario(lock, SQLITE, 10),
    Scenario(crash, POSTGRES, 160, 2),
    Scenario(kill, BOTH, 160, 2),
    Scenario(power, SQLITE, 400, 2),
    Scenario(errors, SQLITE, 300, 3),
    Scenario(foreign_de, POSTGRES, 10),
    Scenario(foreign_fr, POSTGRES, 10),
    Scenario(log, BOTH, 3),
    Scenario(paused, BOTH, 10),
]
