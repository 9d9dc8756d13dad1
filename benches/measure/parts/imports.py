"""Measures the speed and the memory of an import from a Django backend whose passwords are already hashed."""

import pathlib
import random
import sqlite3
import subprocess
import time
import uuid

from bench import ENGINES, SQLITE
from process import ProgramError
from progress import log
from tables import short, table, whole

# The table that Django 5.2 creates from the documented model.
TABLE = (
    "CREATE TABLE core_user (id integer NOT NULL PRIMARY KEY AUTOINCREMENT, username varchar(150) NOT NULL UNIQUE, "
    "email varchar(254) NOT NULL UNIQUE, password varchar(128) NOT NULL, is_verified bool NOT NULL, "
    "auth_token char(32) NOT NULL UNIQUE, created_at datetime NOT NULL, updated_at datetime NOT NULL)"
)
HASH = "bcrypt_sha256$$2b$12$R9h/cIPz0gi.URNNX3kh2OYEnGawxEyRpLbFB99lPr2.b35ouTmeu"


class Imports:
    def __init__(self, bench):
        self.sizes = bench.scale.imported_users
        self.results = {}
        for users in self.sizes:
            source = self._source(bench.folder / f"django{users}.sqlite3", users)
            for engine in ENGINES:
                self.results[engine, users] = self._measure(bench, engine, users, source)
                seconds, peak_mib = self.results[engine, users]
                log(f"import, {engine}, {users:,} users: {users / seconds:,.0f}/s, {peak_mib:.0f} MiB")

    @staticmethod
    def _source(path, users):
        generator = random.Random(users)
        at = "2024-01-01 00:00:00.000001"
        rows = (
            (f"user {n}", f"user{n}@example.com", HASH, n % 2, uuid.UUID(int=generator.getrandbits(128), version=4).hex, at, at)
            for n in range(users)
        )
        with sqlite3.connect(path) as database:
            database.execute(TABLE)
            columns = "username, email, password, is_verified, auth_token, created_at, updated_at"
            database.executemany(f"INSERT INTO core_user ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        database.close()
        return f"sqlite://{path}"

    @staticmethod
    def _measure(bench, engine, users, source):
        if engine == SQLITE:
            to = f"sqlite://{bench.folder}/imported{users}.sqlite3"
        else:
            to = bench.postgres.create_database(f"imported{users}")
        began, peak_kib = time.monotonic(), 0
        importing = subprocess.Popen(
            [bench.service_program, "import", "django", f"--from={source}", f"--to={to}", f"--secret-key-file={bench.secret_key}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        while importing.poll() is None:
            try:
                status = pathlib.Path(f"/proc/{importing.pid}/status").read_text()
            except (FileNotFoundError, ProcessLookupError):
                break
            peaks = [int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:")]
            peak_kib = max([peak_kib, *peaks])
            time.sleep(0.01)
        if importing.wait() != 0:
            raise ProgramError(f"the import into {engine} failed")
        return time.monotonic() - began, peak_kib / 1024

    def tables(self):
        rows = [
            [engine, whole(users), short(seconds), whole(users / seconds), short(peak_mib)]
            for (engine, users), (seconds, peak_mib) in self.results.items()
        ]
        columns = ["target", "users", "s", "users/s", "peak anonymous memory, MiB"]
        note = "From a SQLite file, with the survey and the checksums; every password is already hashed."
        return [table("Users imported from Django", note, columns, rows)]

    def bars(self):
        return []
