"""A real Patroni cluster: three nodes and etcd on loopback, with the settings of docs/high-availability.md."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

import postgres
from ledger import Violation
from processes import Child, as_unprivileged, free_port, give_to_unprivileged, until
from scenarios import GUESS, OUTAGE, POSTGRES, Scenario, Skipped
from service import ROOT, Service

DOCUMENT = ROOT / "docs/high-availability.md"
POOLER_DOCUMENT = ROOT / "docs/pgbouncer.md"
POOLER = ROOT / ".tools/bin/pgbouncer"
PATRONI = ROOT / ".tools/patroni"
# Debian's, which has the libraries that Patroni needs.
PYTHON = "/usr/bin/python3"

# Writes succeed again this long after the new primary accepts them.
WRITES_SECONDS_MAX = 15
FAILOVER_SECONDS_MAX = 60

# Twice the `loop_wait` of the document.
WHOLE_SECONDS = 6


def block(document, language, replaced):
    """Returns the first block of the document in this language, with the names of servers replaced."""
    text = re.search(rf"```{language}\n(.*?)```", document.read_text(), re.DOTALL).group(1)
    for written, used in replaced:
        assert written in text, f"{document.name} does not have {written}"
        text = text.replace(written, str(used))
    return text


class Wire:
    """The network between one node and etcd. It can be cut."""

    def __init__(self, target):
        self.target, self.is_cut, self.open = target, False, set()
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.server.accept()
            except OSError:
                return
            if self.is_cut:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.target), 2)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            self.open |= {near, far}
            if self.is_cut:
                self.cut()
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self.pump, args=(source, target), daemon=True).start()

    def pump(self, source, target):
        try:
            while data := source.recv(65_536):
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            self.open.discard(end)
            end.close()

    def cut(self):
        self.is_cut = True
        for end in list(self.open):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def join(self):
        self.is_cut = False


class Node:
    def __init__(self, cluster, number):
        self.cluster, self.name = cluster, f"db{number}"
        self.folder = cluster.folder / self.name
        self.folder.mkdir()
        give_to_unprivileged(self.folder)
        self.port, self.rest = free_port(), free_port()
        self.wire = Wire(cluster.etcd_port)
        self.data = self.folder / "data"
        replaced = [
            ("name: db1", f"name: {self.name}"),
            ("0.0.0.0:8008", f"127.0.0.1:{self.rest}"),
            ("db1.example:8008", f"127.0.0.1:{self.rest}"),
            ("etcd1.example:2379,etcd2.example:2379,etcd3.example:2379", f"127.0.0.1:{self.wire.port}"),
            ("0.0.0.0:5432", f"127.0.0.1:{self.port}"),
            ("db1.example:5432", f"127.0.0.1:{self.port}"),
            ("data_dir: /var/lib/postgresql/15/kairos", f"data_dir: {self.data}"),
            ("bin_dir: /usr/lib/postgresql/15/bin", f"bin_dir: {postgres.programs()}"),
        ]
        text = block(DOCUMENT, "yaml", replaced)
        # What servers on one machine need too: a folder for the socket and the passwords, and less memory.
        own = f"  pgpass: {self.folder}/pgpass\n  parameters:\n    unix_socket_directories: {self.folder}\n    shared_buffers: 16MB\n"
        self.file = self.folder / "patroni.yml"
        text = text.replace("  authentication:\n", own + "  authentication:\n")
        # Otherwise Patroni asks etcd for its address, and goes around the wire.
        self.file.write_text(text.replace("etcd3:\n", "etcd3:\n  use_proxies: true\n"))
        self.child = None

    def start(self):
        command = as_unprivileged([PYTHON, "-m", "patroni", self.file])
        self.child = Child(command, self.folder / "log", self.cluster.environment, self.folder)

    def get(self, path):
        """Returns the status and the JSON of the REST API of the node; (0, {}) without an answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.rest}{path}", timeout=2) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, {}
        except (OSError, ValueError, http.client.HTTPException):
            return 0, {}

    def is_primary(self):
        """True if it accepts writes and holds the lease."""
        return self.get("/primary")[0] == 200

    def processes(self):
        """Returns Patroni, the server process and its children."""
        found = [self.child.pid]
        pid_file = self.data / "postmaster.pid"
        if pid_file.exists():
            server = pid_file.read_text().split()[0]
            children = subprocess.run(["pgrep", "-P", server], capture_output=True, text=True, check=False).stdout.split()
            found += [int(server), *map(int, children)]
        return found

    def signal_all(self, number):
        for pid in self.processes():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass


class PatroniCluster:
    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        folder.chmod(0o755)
        give_to_unprivileged(folder)
        # The account that runs it may have no access to the repository.
        shutil.copytree(PATRONI, folder / "programs")
        self.environment = {**os.environ, "PYTHONPATH": str(folder / "programs"), "PYTHONDONTWRITEBYTECODE": "1"}
        self.etcd_port, peer = free_port(), free_port()
        client, peers = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{peer}"
        command = ["etcd", "--data-dir", folder / "etcd", "--unsafe-no-fsync", "--log-level", "error"]
        command += ["--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peers]
        command += ["--initial-advertise-peer-urls", peers, "--initial-cluster", f"default={peers}"]
        self.etcd = Child(as_unprivileged(command), folder.parent / "etcd.log", cwd=folder)
        until("etcd knows the version of its cluster", 30, lambda: self.etcd_version() not in (None, "not_decided"))
        self.proxies = []
        self.nodes = [Node(self, number) for number in (1, 2, 3)]
        self.nodes[0].start()
        until(lambda: f"the first node is primary: {self.log()}", 90, self.nodes[0].is_primary)
        for node in self.nodes[1:]:
            node.start()
        self.wait_until_whole()

    def etcd_version(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.etcd_port}/version", timeout=2) as answer:
                return json.load(answer)["etcdcluster"]
        except (OSError, ValueError):
            return None

    def log(self):
        return [(node.name, (node.folder / "log").read_text()[-400:]) for node in self.nodes if (node.folder / "log").exists()]

    def members(self):
        for node in self.nodes:
            status, found = node.get("/cluster")
            if status == 200:
                return {member["name"]: member for member in found["members"]}
        return {}

    def wait_until_whole(self):
        """Waits until there are a primary, a synchronous standby and a third server that streams, for longer than
        Patroni takes to notice that a server must be rewound."""

        def is_whole():
            members = self.members().values()
            # A standby that is rewound is "running" too.
            states = {"leader": "running", "sync_standby": "streaming", "replica": "streaming"}
            roles = sorted(member["role"] for member in members if states.get(member["role"]) == member["state"])
            timelines = {member.get("timeline") for member in members}
            return roles == ["leader", "replica", "sync_standby"] and len(timelines) == 1

        def stays_whole():
            began = time.monotonic()
            while is_whole():
                if time.monotonic() - began > WHOLE_SECONDS:
                    return True
                time.sleep(0.2)
            return False

        until(lambda: f"the cluster is whole: {self.members()}", 120, stays_whole)

    def primary(self):
        return until("a node is primary", 60, lambda: next((node for node in self.nodes if node.is_primary()), None))

    def psql(self, sql, database="postgres"):
        url = f"postgres://postgres:SUPERUSER-PASSWORD@127.0.0.1:{self.primary().port}/{database}"
        command = [postgres.programs() / "psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", sql]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 0, f"{sql}: {run.stderr}"
        return run.stdout.strip()

    def remove(self):
        for proxy in self.proxies:
            proxy.kill()
        for node in self.nodes:
            node.wire.server.close()
            if node.child:
                node.signal_all(signal.SIGKILL)
        self.etcd.kill()


def missing(programs):
    """Returns what the machine lacks, or None."""
    path = f"{POOLER.parent}:/usr/sbin:{os.environ['PATH']}"
    absent = [program for program in programs if not shutil.which(program, path=path)]
    absent += [] if (PATRONI / "patroni").is_dir() else ["patroni"]
    return f"run `scripts/setup disasters`: {' and '.join(absent)} not installed" if absent else None


def direct(cluster):
    """The service knows all three nodes. Returns its settings and the URL of the database."""
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in cluster.nodes)
    return {}, f"postgres://kairos:PASSWORD@{hosts}/kairos?sslmode=disable"


def start_haproxy(cluster):
    """Starts HAProxy with the settings of the document. Returns its port."""
    port = free_port()
    replaced = [("bind 0.0.0.0:5000", f"bind 127.0.0.1:{port}")]
    for number, node in enumerate(cluster.nodes, 1):
        replaced += [(f"db{number}.example:5432 check port 8008", f"127.0.0.1:{node.port} check port {node.rest}")]
    file = cluster.folder / "haproxy.cfg"
    file.write_text(block(DOCUMENT, "haproxy", replaced))
    command = ["/usr/sbin/haproxy", "-db", "-f", file]
    cluster.proxies.append(Child(as_unprivileged(command), cluster.folder.parent / "haproxy.log", cwd=cluster.folder))
    return port


def through_haproxy(cluster):
    """The service knows HAProxy alone."""
    return {}, f"postgres://kairos:PASSWORD@127.0.0.1:{start_haproxy(cluster)}/kairos?sslmode=disable"


def through_pgbouncer(cluster):
    """The service knows PgBouncer alone, which connects through HAProxy."""
    balancer = start_haproxy(cluster)
    cluster.psql(block(POOLER_DOCUMENT, "sql", []))
    port = free_port()
    users, program = cluster.folder / "users.txt", cluster.folder / "pgbouncer"
    users.write_text('"kairos" "PASSWORD"\n')
    # The account that runs it may have no access to the repository.
    shutil.copy(POOLER, program)
    own = f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {users}\n"
    replaced = [("host=haproxy.example port=5000", f"host=127.0.0.1 port={balancer}")]
    databases = block(DOCUMENT, "ini", replaced)
    file = cluster.folder / "pgbouncer.ini"
    file.write_text(block(POOLER_DOCUMENT, "ini", []) + own + databases)
    command = [program, file]
    cluster.proxies.append(Child(as_unprivileged(command), cluster.folder.parent / "pgbouncer.log", cwd=cluster.folder))
    url = f"postgres://kairos:PASSWORD@127.0.0.1:{port}/kairos?sslmode=disable"
    return {"KAIROS_IDENTITY_DATABASE_POOLER": "true"}, url


def patroni(case, act, heal, connected=direct, programs=()):
    """Runs rounds in which the primary is lost, on one cluster. `connected` says what the service connects to."""
    if lacking := missing(["etcd", *programs]):
        raise Skipped(lacking)
    case.cluster = cluster = PatroniCluster(case.folder / "patroni")
    cluster.psql("CREATE ROLE kairos LOGIN PASSWORD 'PASSWORD'")
    cluster.psql("CREATE DATABASE kairos OWNER kairos TEMPLATE template0")
    _, every_node = direct(cluster)
    Service(case.campaign.binary, case.folder / "service", every_node).command("migrate")
    settings, url = connected(cluster)
    case.serve(url, settings=settings)
    for number in range(case.rounds):
        old = cluster.primary()
        with case.load(number, workers=2, pause=0.04) as load:
            time.sleep(case.between(0.3, 1.5))
            began = time.monotonic()
            act(cluster, old)
            others = [node for node in cluster.nodes if node is not old]
            until("another node is primary", FAILOVER_SECONDS_MAX, lambda: any(node.is_primary() for node in others) or load.failures)
            elected = time.monotonic()
            # A write that began after the election and was acknowledged.
            until(
                lambda: f"a write succeeds after the new primary is elected: {case.watch.now}", WRITES_SECONDS_MAX,
                lambda: load.written_since > elected or load.failures,
            )  # fmt: skip
            case.worst("new primary after s", elected - began)
            case.worst("writes after that s", load.first_write_since(elected) - elected)
            heal(cluster, old)
            # The load goes on while the old primary returns, which is when it could serve what it should not.
            cluster.wait_until_whole()
        case.require_only(load, [*OUTAGE, *GUESS])
        case.check(load, settle=1)
        case.done += 1


def kill_primary(_cluster, node):
    node.signal_all(signal.SIGKILL)


def start_again(_cluster, node):
    node.child.wait(10)
    node.start()


def patroni_kill(case):
    """The primary and its Patroni are killed."""
    patroni(case, kill_primary, start_again)


def patroni_freeze(case):
    """The primary and its Patroni are frozen, and go on when another node is primary."""

    def thaw(_cluster, node):
        node.signal_all(signal.SIGCONT)

    patroni(case, lambda _, node: node.signal_all(signal.SIGSTOP), thaw)


def patroni_haproxy(case):
    """The primary and its Patroni are killed, and the service connects through HAProxy."""
    patroni(case, kill_primary, start_again, through_haproxy, ["haproxy"])


def patroni_pgbouncer(case):
    """The primary and its Patroni are killed, and the service connects through PgBouncer and HAProxy."""
    patroni(case, kill_primary, start_again, through_pgbouncer, ["haproxy", "pgbouncer"])


def patroni_demote(case):
    """The primary no longer reaches etcd: Patroni demotes it, and another node takes over."""
    patroni(case, lambda _, node: node.wire.cut(), lambda _, node: node.wire.join())


def patroni_switch(case):
    """`patronictl switchover` makes another node primary."""

    def switch(cluster, node):
        standby = next(name for name, member in cluster.members().items() if member["role"] == "sync_standby")
        command = [PYTHON, "-c", "from patroni.ctl import ctl; ctl()", "-c", str(node.file), "switchover", "kairos"]
        command += ["--leader", node.name, "--candidate", standby, "--force"]
        run = subprocess.run(
            as_unprivileged(command), cwd="/", env=cluster.environment, capture_output=True, text=True, check=False
        )
        if run.returncode != 0 or "Error" in run.stdout:
            raise Violation(f"patronictl: {run.stdout} {run.stderr}")

    patroni(case, switch, lambda _, node: None)


SCENARIOS = [
    Scenario(patroni_kill, POSTGRES, 20, 1),
    Scenario(patroni_switch, POSTGRES, 20, 0),
    Scenario(patroni_freeze, POSTGRES, 20, 0),
    Scenario(patroni_demote, POSTGRES, 20, 0),
    Scenario(patroni_haproxy, POSTGRES, 20, 0),
    Scenario(patroni_pgbouncer, POSTGRES, 20, 0),
]
