"""Runs a temporary PostgreSQL cluster, and pgbench on it."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess

from process import Server, output_of

# The query of the service for one token. pgbench always uses the same token, which is an advantage for
# pgbench.
SELECT = (
    "SELECT id, username, username_key, email, is_verified, auth_token, created_at, updated_at "
    "FROM core_user WHERE auth_token = '{token}';\n"
)


class Cluster:
    """A running cluster."""

    def __init__(self, programs, url, folder):
        self.programs, self.url, self.folder = programs, url, folder

    def create_database(self, name):
        output_of([self.programs / "psql", f"{self.url}/postgres", "-qc", f"CREATE DATABASE {name}"])
        return f"{self.url}/{name}"

    def pgbench(self, database_url, token, clients, seconds):
        """Measures calls/s of the service's query for one row as a prepared statement."""
        script = self.folder / "select.sql"
        script.write_text(SELECT.format(token=token))
        command = [shutil.which("pgbench") or self.programs / "pgbench", "--no-vacuum", "--protocol=prepared"]
        command += [f"--client={clients}", "--jobs=2", f"--time={max(1, round(seconds))}", f"--file={script}"]
        output = output_of([*command, database_url])
        return {"calls_per_s": float(re.search(r"tps = ([\d.]+)", output).group(1))}

    def version(self):
        return output_of([self.programs / "postgres", "--version"]).split(") ")[-1].split()[0]


@contextlib.contextmanager
def cluster(folder):
    """Runs a cluster for the duration of the block."""
    debian = max(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), default=None)
    programs = debian or pathlib.Path(shutil.which("postgres")).parent
    data, account = folder / "pg", _account()
    data.mkdir()
    if account:
        shutil.chown(data, account[0].removeprefix("--reuid="))
        folder.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    initdb = [programs / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8"]
    output_of(["setpriv", *account, *initdb] if account else initdb)
    settings = {
        "port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": data,
        "shared_buffers": "512MB", "max_connections": 300,
    }
    command = [programs / "postgres", "-D", data]
    command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    # At SIGINT, PostgreSQL disconnects its clients instead of waiting for them.
    options = {"account": account, "stop_signal": signal.SIGINT}
    with Server(command, "ready to accept connections", folder / "postgres.log", **options):
        yield Cluster(programs, f"postgres://postgres@127.0.0.1:{port}", folder)


def _account():
    """Returns arguments of setpriv that select the account of PostgreSQL, which refuses to run as root."""
    if os.getuid() != 0:
        return []
    has_postgres = subprocess.run(["id", "postgres"], capture_output=True).returncode == 0
    return [f"--reuid={'postgres' if has_postgres else 'nobody'}", "--regid=nogroup", "--clear-groups"]
