"""The service under test, its health, and calls of its API."""

import base64
import collections
import os
import pathlib
import subprocess
import tempfile
import threading
import time

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from grpc_tools import protoc

from processes import Child, free_port, until

ROOT = pathlib.Path(__file__).resolve().parents[2]
LOOK_UPS = "kairos.identity.v1.LookupService"
API = ["", "kairos.identity.v1.IdentityService", "kairos.identity.v1.SessionService"]
START_SECONDS_MAX = 40
CALL_SECONDS = 4

# The health follows the database within 5 s (README.md); the rest is for a busy machine.
HEALTH_SECONDS = 5 + 4

# Health as (status of the API, status of the look-ups).
EVERYTHING, LOOK_UPS_ONLY, NOTHING = (True, True), (False, True), (False, False)

CHANNEL = [
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


def generate_stubs(folder):
    """Compiles the .proto files, as tests/support/grpcio_client.py does."""
    import sys

    protos = ROOT / "proto"
    files = [str(path) for path in protos.rglob("*.proto")]
    include = pathlib.Path(protoc.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{protos}", f"-I{include}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    assert protoc.main(arguments + files) == 0, "the .proto files do not compile"
    sys.path.insert(0, str(folder))


class Outcome:
    """The end of a call: a response, a documented error, or no answer."""

    def __init__(self, response=None, code=None, reason="", text=""):
        self.response, self.code, self.reason, self.text = response, code, reason, text

    def __str__(self):
        return "OK" if self.code is None else f"{self.code} {self.reason}: {self.text}"

    @property
    def is_ok(self):
        return self.code is None

    @property
    def is_outage(self):
        """True if it is unknown whether the call changed anything, or it changed nothing: try again later."""
        return self.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "DATA_LOSS") or self.reason == "OVERLOADED"


def outcome_of(error):
    """Returns the outcome of a failed call."""
    reason = ""
    try:
        status = rpc_status.from_call(error)
    except ValueError:
        status = None
    for detail in status.details if status else []:
        info = error_details_pb2.ErrorInfo()
        if detail.Is(info.DESCRIPTOR) and detail.Unpack(info):
            reason = info.reason
    return Outcome(code=error.code().name, reason=reason, text=error.details() or "")


class Api:
    """The methods of the services on one channel, by name."""

    def __init__(self, address):
        from kairos.identity.v1 import account_service_pb2, account_service_pb2_grpc
        from kairos.identity.v1 import identity_service_pb2, identity_service_pb2_grpc
        from kairos.identity.v1 import session_service_pb2, session_service_pb2_grpc

        self.channel = grpc.insecure_channel(address, options=CHANNEL)
        self.stubs = [
            (identity_service_pb2_grpc.IdentityServiceStub(self.channel), identity_service_pb2),
            (session_service_pb2_grpc.SessionServiceStub(self.channel), session_service_pb2),
            (account_service_pb2_grpc.AccountServiceStub(self.channel), account_service_pb2),
        ]
        self.health_stub = health_pb2_grpc.HealthStub(self.channel)

    def call(self, method, access_token=None, timeout=CALL_SECONDS, **fields):
        """Makes a call. Returns its outcome."""
        stub, messages = next((stub, messages) for stub, messages in self.stubs if hasattr(stub, method))
        request = getattr(messages, f"{method}Request")(**fields)
        metadata = [("authorization", f"Bearer {access_token}")] if access_token else []
        try:
            return Outcome(response=getattr(stub, method)(request, timeout=timeout, metadata=metadata))
        except grpc.RpcError as error:
            return outcome_of(error)

    def health(self, timeout=3):
        """Returns the health as (API, look-ups); None without an answer, or while the services of the API differ."""
        try:
            found = [
                self.health_stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=timeout).status
                for name in [*API, LOOK_UPS]
            ]
        except grpc.RpcError:
            return None
        is_serving = [status == health_pb2.HealthCheckResponse.SERVING for status in found]
        return (is_serving[0], is_serving[-1]) if len(set(is_serving[:-1])) == 1 else None

    def close(self):
        self.channel.close()


class HealthWatch:
    """Asks for the health all the time, in a thread, and notes each change with its time."""

    def __init__(self, address):
        self.api = Api(address)
        self.changes = collections.deque([(time.monotonic(), None)])
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.ended.wait(0.1):
            health = self.api.health()
            if health != self.changes[-1][1]:
                self.changes.append((time.monotonic(), health))

    @property
    def now(self):
        return self.changes[-1][1]

    def becomes(self, health, seconds=HEALTH_SECONDS):
        """Waits until the health is this. Returns the seconds that it took."""
        began = time.monotonic()
        until(lambda: f"health is {health} (API, look-ups); it is {self.now}", seconds, lambda: self.now == health)
        return time.monotonic() - began

    def since(self, began):
        """Returns the different answers since this time."""
        changes = list(self.changes)
        before = [health for at, health in changes if at <= began][-1:]
        return {health for health in [*before, *(health for at, health in changes if at > began)] if health is not None}

    def end(self):
        self.ended.set()
        self.thread.join()
        self.api.close()


class Service:
    """The binary, on a fixed port, so that its clients find it again after a restart."""

    def __init__(self, binary, folder, database_url, shim=None, settings=None):
        folder.mkdir(exist_ok=True)
        self.binary, self.folder, self.url, self.shim = binary, folder, database_url, shim
        self.settings = settings or {}
        self.address = f"127.0.0.1:{free_port()}"
        self.mail = folder / "mail"
        self.mail.mkdir(exist_ok=True)
        self.log = folder / "log"
        self.child = None
        key = folder / "secret.key"
        if not key.exists():
            key.touch(0o600)
            key.write_bytes(base64.b64encode(os.urandom(32)))

    def environment(self):
        kept = {key: value for key, value in os.environ.items() if not key.startswith("KAIROS_")}
        return {
            **kept,
            "KAIROS_IDENTITY_DATABASE_URL": self.url,
            "KAIROS_IDENTITY_SECRET_KEY_FILE": str(self.folder / "secret.key"),
            "KAIROS_IDENTITY_SERVER_LISTEN": self.address,
            "KAIROS_IDENTITY_HTTP_LISTEN": "",
            "KAIROS_IDENTITY_TELEMETRY_LISTEN": "",
            "KAIROS_IDENTITY_MAIL_URL": f"file://{self.mail}",
            "KAIROS_IDENTITY_PASSWORD_COST": "4",
            "KAIROS_IDENTITY_PASSWORD_INSECURE_LOW_COST": "true",
            "KAIROS_IDENTITY_PASSWORD_SCORE_MIN": "0",
            # The mails of a killed instance are sent after twice this time.
            "KAIROS_IDENTITY_MAIL_TIMEOUT": "500ms",
            "KAIROS_IDENTITY_MAIL_RETRY_FIRST": "500ms",
            "KAIROS_IDENTITY_MAIL_RETRY_MAX": "1s",
            **self.settings,
        }

    def command(self, *arguments):
        """Runs another command of the binary, and returns what it prints."""
        run = subprocess.run(
            [self.binary, *arguments], env=self.environment(), cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, f"{arguments}: {run.stderr}"
        return run.stdout

    def start(self, stderr=None, waits=True):
        environment = {**self.environment(), **(self.shim.environment if self.shim else {})}
        written = self.log.stat().st_size if self.log.exists() else 0
        self.child = Child([self.binary, "serve"], self.log, environment, self.folder, stderr)
        if waits:
            until(lambda: f"the service serves; its log ends with {self.last_lines()}", START_SECONDS_MAX, lambda: self.serves(written))
        return self

    def serves(self, written):
        assert self.child.is_running(), f"the service ended: {self.last_lines()}"
        with self.log.open("rb") as log:
            log.seek(written)
            return b"Serving gRPC on " in log.read()

    def last_lines(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-8:])

    def kill(self):
        self.child.kill()

    def stop(self):
        """Stops the service with SIGTERM."""
        code = self.child.stop(45)
        assert code == 0, f"the service ended with {code}: {self.last_lines()}"

    def api(self):
        return Api(self.address)

    def watch(self):
        return HealthWatch(self.address)


def new_folder(parent, name):
    return pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))
