"""Runs the service, the limit (`load echo`) and PostgreSQL, and writes what the load generators saw.

Every ratio is of one run: the limit is measured directly before and after the service, several times, and the median of the
ratios counts. Started by scripts/bench.
"""

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import statistics
import struct
import subprocess
import tempfile
import time

RESOLVE = "/kairos.identity.v1.IdentityService/ResolveToken"


class Process:
    """A server that was started, and is stopped at the end."""

    def __init__(self, command, ready, folder, env=None):
        self.log = open(pathlib.Path(folder) / f"{time.monotonic_ns()}.log", "w+")
        began = time.monotonic()
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, env={**os.environ, **(env or {})})
        while True:
            self.log.seek(0)
            text = self.log.read()
            if ready in text:
                break
            assert self.process.poll() is None, text
            assert time.monotonic() - began < 60, text
            time.sleep(0.005)
        self.seconds_to_start = time.monotonic() - began
        address = re.search(r"Serving \w+ on (\S+)", text)
        self.url = f"http://{address.group(1)}" if address else None

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def anonymous_mib(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"RssAnon:\s+(\d+) kB", status).group(1)) / 1024

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait()


class Bench:
    """What is measured with, and how long."""

    def __init__(self, arguments, folder):
        self.arguments, self.folder = arguments, folder
        self.seconds = 0.3 if arguments.small else 3.0
        self.repetitions = 1 if arguments.small else arguments.repetitions
        self.stack = contextlib.ExitStack()
        self.echo = self.start([arguments.load, "echo", "--listen", "127.0.0.1:0"], "Serving echo on")

    def start(self, command, ready, env=None):
        process = Process([str(part) for part in command], ready, self.folder, env)
        self.stack.callback(process.stop)
        return process

    def service(self, database_url, **settings):
        """The service on a database; its log lines go to a file, as they would go to a collector."""
        key = self.folder / "secret.key"
        if not key.exists():
            key.touch(mode=0o600)
            key.write_text("q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=")
        env = {f"KAIROS_IDENTITY_{name.upper()}": str(value) for name, value in settings.items()}
        command = [self.arguments.service, "serve", "--listen", "127.0.0.1:0", "--database-url", database_url]
        command += ["--secret-key-file", key, "--mail-url", f"file://{self.folder}/mail", "--insecure-low-cost"]
        return self.start(command, "Serving gRPC on", env)

    def seeded(self, database_url, users):
        subprocess.run([self.arguments.service, "migrate", "--database-url", database_url], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([self.arguments.load, "seed", "--database-url", database_url, "--users", str(users)], check=True)

    def load(self, url, **options):
        """Our own generator: every answer checked, tokens drawn at random."""
        options = {"seconds": self.seconds, "warm-up": 0.3, **options}
        flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        output = subprocess.run([self.arguments.load, "run", "--url", url, *flags], check=True, capture_output=True, text=True)
        return json.loads(output.stdout)

    def h2load(self, url, connections, streams):
        """Calls/s. h2load counts gRPC errors as successes: the bytes tell that there were answers."""
        token = subprocess.run([self.arguments.load, "token", "0"], check=True, capture_output=True, text=True).stdout.strip()
        message = b"\x0a" + bytes([len(token)]) + token.encode()
        request = self.folder / "request"
        request.write_bytes(b"\0" + struct.pack(">I", len(message)) + message)
        command = ["h2load", "-D", str(max(1, round(self.seconds))), "--warm-up-time=1", "-t", "1", "-c", str(connections)]
        command += ["-m", str(streams), "-d", str(request), "-H", "content-type: application/grpc", "-H", "te: trailers"]
        output = subprocess.run([*command, url + RESOLVE], check=True, capture_output=True, text=True).stdout
        rate = float(re.search(r"([\d.]+) req/s", output).group(1))
        requests, data = re.search(r"(\d+) succeeded", output), re.search(r"\((\d+)\) data", output)
        assert int(data.group(1)) > 60 * int(requests.group(1)), f"the answers hold no users:\n{output}"
        return rate

    def ratio(self, of_echo, of_service):
        """The median of service against limit, each measured with the limit before and after; and the last service."""
        ratios, last = [], None
        before = of_echo()
        for _ in range(self.repetitions):
            last = of_service()
            after = of_echo()
            ratios.append(last["calls_per_s"] / ((before["calls_per_s"] + after["calls_per_s"]) / 2))
            before = after
        return statistics.median(ratios), last, before


def rows_of_look_ups(bench, name, service, users):
    """Our own generator at several widths."""
    for connections, in_flight in [(1, 1), (4, 32), (4, 128), (8, 512), (32, 32)]:
        shape = {"connections": connections, "in-flight": in_flight}
        cpu = service.cpu_seconds()
        ratio, seen, limit = bench.ratio(
            lambda: bench.load(bench.echo.url, rpc="echo", **shape),
            lambda: bench.load(service.url, users=users, **shape),
        )
        assert seen["failures"] == 0, seen
        per_call = (service.cpu_seconds() - cpu) * 1e6 / (seen["calls_per_s"] * (bench.seconds + 0.3) * bench.repetitions)
        yield (
            f"| {name} | {users:,} | {in_flight} / {connections} | {seen['calls_per_s']:,.0f} | {seen['p50_us']} | {seen['p99_us']} "
            f"| {seen['p999_us']} | {per_call:.1f} | {limit['p50_us']} | **{ratio:.2f}** |"
        )


def row_of_h2load(bench, name, service, users):
    ratio, seen, _ = bench.ratio(
        lambda: {"calls_per_s": bench.h2load(bench.echo.url, 4, 32)},
        lambda: {"calls_per_s": bench.h2load(service.url, 4, 32)},
    )
    return f"| {name}, h2load | {users:,} | 128 / 4 | {seen['calls_per_s']:,.0f} | | | | | | **{ratio:.2f}** |"


def rows_of_batches(bench, name, service, users):
    single = bench.load(service.url, users=users)["calls_per_s"]
    for batch in (10, 100, 1000):
        seen = bench.load(service.url, users=users, rpc="resolve-batch", batch=batch, **{"in-flight": 16})
        assert seen["failures"] == 0, seen
        yield f"| {name} | {batch} | {seen['items_per_s']:,.0f} | {seen['items_per_s'] / single:.1f} |"


def rows_of_logins(bench, name, service, users):
    """Logins against their bound, and look-ups beside them."""
    idle = bench.load(service.url, users=users)
    one = bench.load(service.url, users=users, rpc="login", connections=1, **{"in-flight": 1, "seconds": bench.seconds * 2})
    cores = os.cpu_count()
    command = [bench.arguments.load, "run", "--url", service.url, "--rpc", "login", "--users", str(users), "--in-flight", "64"]
    storm = subprocess.Popen([*command, "--seconds", str(bench.seconds * 3)], stdout=subprocess.PIPE, text=True)
    time.sleep(1)
    beside = bench.load(service.url, users=users)
    storm = json.loads(storm.communicate()[0])
    alone = bench.load(service.url, users=users, rpc="login", **{"in-flight": 16, "seconds": bench.seconds * 3})
    bound = cores / (one["p50_us"] / 1e6)
    yield f"| Login/s, 16 at once | {alone['calls_per_s']:.1f}, of a bound of {bound:.1f} ({cores} cores / {one['p50_us'] / 1000:.0f} ms): {alone['calls_per_s'] / bound:.2f} |"
    yield f"| ResolveToken idle ({name}) | {idle['calls_per_s']:,.0f}/s, p99 {idle['p99_us']} µs |"
    yield f"| while 64 log in | {beside['calls_per_s']:,.0f}/s, p99 {beside['p99_us']} µs, {beside['failures']} errors; {storm['calls_per_s']:.1f} logins/s, {storm['failures']} refused |"


@contextlib.contextmanager
def postgres(folder):
    """A cluster of our own; root runs it as nobody."""
    programs = max(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), default=pathlib.Path(shutil.which("postgres") or "").parent)
    data, port = folder / "pg", 20_000 + os.getpid() % 10_000
    prefix = []
    if os.getuid() == 0:
        account = "postgres" if subprocess.run(["id", "postgres"], capture_output=True).returncode == 0 else "nobody"
        prefix = ["setpriv", f"--reuid={account}", "--regid=nogroup", "--clear-groups"]
        data.mkdir()
        shutil.chown(data, account)
        os.chmod(folder, 0o755)
    subprocess.run([*prefix, programs / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8"], check=True, capture_output=True)
    settings = [f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={data}", "shared_buffers=512MB", "max_connections=300"]
    command = [*prefix, programs / "postgres", "-D", data, *(part for setting in settings for part in ("-c", setting))]
    server = Process([str(part) for part in command], "ready to accept connections", folder)
    try:
        yield f"postgres://postgres@127.0.0.1:{port}", programs
    finally:
        server.stop(signal.SIGINT)


def pgbench(bench, programs, url, clients):
    """Transactions/s of the same single-row SELECT, prepared."""
    script = bench.folder / "select.sql"
    token = subprocess.run([bench.arguments.load, "token", "0"], check=True, capture_output=True, text=True).stdout.strip()
    columns = "id, username, username_key, email, is_verified, auth_token, created_at, updated_at"
    script.write_text(f"SELECT {columns} FROM core_user WHERE auth_token = '{token}';\n")
    program = shutil.which("pgbench") or programs / "pgbench"
    command = [program, "-n", "-M", "prepared", "-c", str(clients), "-j", "2", "-T", str(max(1, round(bench.seconds))), "-f", script, url]
    output = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout
    return float(re.search(r"tps = ([\d.]+)", output).group(1))


def measure(bench, report):
    """Every table."""
    sizes = [1_000] if bench.arguments.small else bench.arguments.users
    report.append("## Look-ups\n\n`in flight / connections`; latencies in µs; CPU is the server's, in µs a call; the ratio is to `echo`.\n")
    report.append("| engine | users | shape | calls/s | p50 | p99 | p99.9 | CPU | echo's p50 | ratio |\n|---|---|---|---|---|---|---|---|---|---|")
    batches, logins, starts = [], [], []
    with postgres(bench.folder) as (server, programs):
        for users in sizes:
            for name in ("SQLite", "PostgreSQL"):
                url = f"sqlite://{bench.folder}/{users}.sqlite3"
                if name == "PostgreSQL":
                    url = f"{server}/bench{users}"
                    subprocess.run([programs / "psql", f"{server}/postgres", "-qc", f"CREATE DATABASE bench{users}"], check=True)
                bench.seeded(url, users)
                service = bench.service(url)
                starts.append(f"| {name} | {users:,} | {service.seconds_to_start:.2f} s | {service.anonymous_mib():.1f} MiB |")
                report.extend(rows_of_look_ups(bench, name, service, users))
                report.append(row_of_h2load(bench, name, service, users))
                if users == sizes[-1]:
                    batches.extend(rows_of_batches(bench, name, service, users))
                    if name == "SQLite":
                        logins.extend(rows_of_logins(bench, name, service, users))
                    else:
                        ratio, seen, peer = bench.ratio(
                            lambda: {"calls_per_s": pgbench(bench, programs, url, 128)}, lambda: bench.load(service.url, users=users)
                        )
                        logins.append(f"| PostgreSQL against `pgbench -M prepared`, 128 clients | {seen['calls_per_s']:,.0f}/s against {peer['calls_per_s']:,.0f}/s: **{ratio:.2f}** |")
    report.append("\n## `ResolveTokens`\n\n| engine | tokens a call | users/s | against single calls |\n|---|---|---|---|")
    report.extend(batches)
    report.append("\n## Beside it\n\n| what | measured |\n|---|---|")
    report.extend(logins)
    report.append("\n## Start and memory\n\n| engine | users | to SERVING | anonymous memory then |\n|---|---|---|---|")
    report.extend(starts)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--service", required=True)
    parser.add_argument("--load", required=True)
    parser.add_argument("--small", action="store_true", help="a minute, to see that it works")
    parser.add_argument("--users", type=int, nargs="+", default=[10_000, 1_000_000], help="sizes of the databases")
    parser.add_argument("--repetitions", type=int, default=5, help="how many ratios each median is of")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kairos-bench-") as folder:
        bench = Bench(arguments, pathlib.Path(folder))
        cpu = re.search(r"model name\s+: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
        report = ["# Results\n", "Made by `scripts/bench`, client and server on the same cores; each ratio is the median of "
                  f"{bench.repetitions}, the limit measured before and after.\n"]
        report.append(f"{datetime.date.today()}, {os.cpu_count()} cores, {cpu.group(1) if cpu else platform.machine()}, Linux {platform.release()}.\n")
        with bench.stack:
            measure(bench, report)
    target = pathlib.Path("target/bench/RESULTS.md" if arguments.small else "benches/RESULTS.md")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join(report) + "\n")
    print(target.read_text())


main()
