"""PostgreSQL clusters on loopback, copied from one that has the tables of the service."""

import os
import pathlib
import shutil
import signal
import subprocess

from processes import Child, as_unprivileged, free_port, give_to_unprivileged, until


def programs():
    """Returns the folder of PostgreSQL's programs: of the newest Debian packages, or from PATH."""
    packages = [path for path in pathlib.Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdigit()]
    newest = sorted(packages, key=lambda path: int(path.parent.name), reverse=True)
    for folder in [*newest, *map(pathlib.Path, os.environ["PATH"].split(":"))]:
        if all((folder / name).is_file() for name in ("initdb", "postgres", "psql", "pg_isready")):
            return folder
    raise RuntimeError("PostgreSQL's programs are missing: run `scripts/setup disasters`")


class Cluster:
    """A server. `role` owns the database `kairos` and is no superuser."""

    def __init__(self, folder, template=None, language=None, settings=()):
        self.folder, self.language, self.settings = folder, language, settings
        self.data = folder / "data"
        self.port = free_port()
        self.child = None
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        give_to_unprivileged(folder)
        if template is not None:
            self.run_as("cp", "-a", "--reflink=auto", template.data, self.data)
        else:
            options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
            self.run_as(programs() / "initdb", "-D", self.data, *options)

    def run_as(self, *command):
        run = subprocess.run(as_unprivileged(command), cwd="/", capture_output=True, text=True, check=False)
        assert run.returncode == 0, f"{command}: {run.stderr}"

    def url(self, database="kairos", query="sslmode=disable"):
        return f"postgres://kairos@127.0.0.1:{self.port}/{database}?{query}"

    def start(self):
        language = ["env", f"LANGUAGE={self.language}"] if self.language else ["env"]
        settings = ["listen_addresses=127.0.0.1", "max_connections=200", "shared_buffers=16MB", *self.settings]
        if self.language:
            # With the variable above, a server needs no locale of the language, only its messages.
            settings.append("lc_messages=C.UTF-8")
        options = [part for setting in settings for part in ("-c", setting)]
        command = [programs() / "postgres", "-D", self.data, "-p", self.port, "-k", self.folder, *options]
        self.child = Child(as_unprivileged([*language, *command]), self.folder.parent / f"{self.folder.name}.log")
        until(lambda: f"PostgreSQL answers: {self.child.log.read_text()[-800:]}", 60, self.is_ready)
        return self

    def is_ready(self):
        assert self.child.is_running(), f"PostgreSQL ended: {self.child.log.read_text()[-800:]}"
        return subprocess.run([programs() / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]).returncode == 0

    def psql(self, sql, database="postgres"):
        """Runs SQL as the superuser, and returns the rows as text."""
        url = f"postgres://postgres@127.0.0.1:{self.port}/{database}"
        command = [programs() / "psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", sql]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 0, f"{sql}: {run.stderr}"
        return run.stdout.strip()

    def set(self, setting, value):
        """Changes a setting of the running server."""
        self.psql(f"ALTER SYSTEM SET {setting} = '{value}'")
        self.psql("SELECT pg_reload_conf()")
        until(f"{setting} is {value!r}", 20, lambda: self.psql(f"SHOW {setting}") == value)

    def create_database(self, name, options=""):
        """Creates a copy of the empty database of the service."""
        self.psql(f"CREATE DATABASE {name} OWNER kairos TEMPLATE kairos {options}")
        return name

    def crash(self):
        """Stops the server at once: nothing is flushed, as if its processes were killed together."""
        self.child.signal(signal.SIGQUIT)
        self.child.wait(30)

    def backends(self):
        """Returns the server process and its children."""
        children = subprocess.run(["pgrep", "-P", str(self.child.pid)], capture_output=True, text=True, check=False)
        return [self.child.pid, *map(int, children.stdout.split())]

    def signal_all(self, number):
        """Sends a signal to the server process first, since it starts the others."""
        for pid in self.backends():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def freeze(self):
        self.signal_all(signal.SIGSTOP)

    def thaw(self):
        self.signal_all(signal.SIGCONT)

    def remove(self):
        if self.child and self.child.is_running():
            self.crash()
        shutil.rmtree(self.folder, ignore_errors=True)


def make_template(folder, binary, service):
    """Creates a cluster with the role and the migrated database of the service, and stops it again."""
    cluster = Cluster(folder, settings=["fsync=off"])
    cluster.start()
    cluster.psql("CREATE ROLE kairos LOGIN")
    cluster.psql("CREATE DATABASE kairos OWNER kairos TEMPLATE template0")
    service(binary, folder.parent / "migrate", cluster.url()).command("migrate")
    cluster.child.signal(signal.SIGINT)
    cluster.child.wait(30)
    return cluster
