"""The story of a user with the clients of Python, each in turn: story.py CLIENT...

The names of the clients are the keys of CLIENTS. The environment variables and the output are those of
story.mjs.
"""

import email
import importlib
import json
import os
import pathlib
import re
import sys
import tempfile
import time
import urllib.error
import urllib.request

import grpc
from connectrpc.compat import google_protobuf_json_codec
from connectrpc.errors import ConnectError
from connectrpc.protocol import ProtocolType
from google.protobuf import json_format
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from grpc_tools import protoc
from pyqwest import HTTPVersion, SyncClient, SyncHTTPTransport

URL, CALLER_TOKEN, USERS = (os.environ[f"KAIROS_{name}"] for name in ("URL", "CALLER_TOKEN", "USERS"))
PASSWORD, NEW_PASSWORD = "plum-Voyage-84-kettle", "quartz-Lantern-57-meadow"


class Refusal(Exception):
    """Contains the code and the reason of an error, such as `NOT_FOUND USER_NOT_FOUND`."""

    def __init__(self, code, reason, request_id=None):
        super().__init__(f"{code.upper()} {reason}")
        assert request_id is None or re.fullmatch(r"[0-9a-f-]{36}", request_id), request_id


def generate_code(out):
    """Compiles the .proto files to messages, stubs of grpcio and clients of Connect."""
    folder = pathlib.Path(os.environ["KAIROS_PROTO"])
    include = pathlib.Path(protoc.__file__).parent / "_proto"
    plugin = pathlib.Path(sys.executable).with_name("protoc-gen-connectrpc")
    arguments = ["protoc", f"-I{folder}", f"-I{include}", f"--python_out={out}", f"--grpc_python_out={out}"]
    arguments += [f"--plugin={plugin}", f"--connectrpc_out={out}", "--connectrpc_opt=protobuf=google"]
    assert protoc.main(arguments + [str(path) for path in folder.rglob("*.proto")]) == 0
    sys.path.insert(0, out)


def generated(service, suffix):
    """Returns the generated module of a service: `_pb2`, `_pb2_grpc` or `_connect`."""
    file = service.replace("Service", "_service").lower()
    return importlib.import_module(f"kairos.identity.v1.{file}{suffix}")


def message(service, method, fields):
    return getattr(generated(service, "_pb2"), f"{method}Request")(**fields)


# A client returns a function of a service, a method, the fields of the request, and headers. That function
# returns the fields of the response as JSON has them, or raises a Refusal.


def standard_library():
    """Needs no package: JSON over HTTP/1.1."""

    def call(service, method, fields, headers):
        url = f"{URL}/kairos.identity.v1.{service}/{method}"
        headers = {"content-type": "application/json", **headers}
        try:
            request = urllib.request.Request(url, json.dumps(fields).encode(), headers)
            return json.load(urllib.request.urlopen(request, timeout=10))
        except urllib.error.HTTPError as error:
            details = json.load(error)
            reason = details["details"][0]["debug"]["reason"]
            raise Refusal(details["code"], reason, error.headers["kairos-request-id"]) from None

    return call


def grpcio():
    """Uses the stubs that grpc_tools generates."""
    address = URL.split("//")[1]
    is_tls = URL.startswith("https:")
    channel = grpc.secure_channel(address, grpc.ssl_channel_credentials()) if is_tls else grpc.insecure_channel(address)

    def call(service, method, fields, headers):
        stub = getattr(generated(service, "_pb2_grpc"), f"{service}Stub")(channel)
        try:
            answer = getattr(stub, method)(message(service, method, fields), metadata=list(headers.items()), timeout=10)
            return json_format.MessageToDict(answer)
        except grpc.RpcError as error:
            info = error_details_pb2.ErrorInfo()
            status = rpc_status.from_call(error)
            if status is None:
                raise
            next(detail for detail in status.details if detail.Is(info.DESCRIPTOR)).Unpack(info)
            request_id = dict(error.trailing_metadata() or ()).get("kairos-request-id")
            request_id = request_id or dict(error.initial_metadata())["kairos-request-id"]
            raise Refusal(error.code().name, info.reason, request_id) from None

    return call


def connectrpc(protocol=ProtocolType.CONNECT, **options):
    """Uses the clients that protoc-gen-connectrpc generates."""

    def call(service, method, fields, headers):
        client_type = getattr(generated(service, "_connect"), f"{service}ClientSync")
        # It compresses requests by default, which the service refuses (docs/http.md).
        client = client_type(URL, protocol=protocol, send_compression=None, timeout_ms=10_000, **options)
        function = getattr(client, re.sub(r"(?<!^)(?=[A-Z])", "_", method).lower())
        try:
            return json_format.MessageToDict(function(message(service, method, fields), headers=headers))
        except ConnectError as error:
            infos = [detail.message_bytes for detail in error.details if detail.type_name == "google.rpc.ErrorInfo"]
            if not infos:
                raise
            # This client gives no access to the headers of an error.
            raise Refusal(error.code.value, error_details_pb2.ErrorInfo.FromString(infos[0]).reason) from None

    return call


CLIENTS = {
    "standard-library": standard_library,
    "grpcio": grpcio,
    "connectrpc": connectrpc,
    "connectrpc-json": lambda: connectrpc(codec=google_protobuf_json_codec()),
    # Without TLS it would use HTTP/1.1.
    "connectrpc-grpc": lambda: connectrpc(
        ProtocolType.GRPC, http_client=SyncClient(SyncHTTPTransport(http_version=HTTPVersion.HTTP2))
    ),
    "connectrpc-grpc-web": lambda: connectrpc(ProtocolType.GRPC_WEB),
}


def mailed_token(address):
    """Waits for the mail to a user, and returns the token in its link."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        for file in pathlib.Path(os.environ["KAIROS_MAIL_FOLDER"]).glob("*.eml"):
            mail = email.message_from_bytes(file.read_bytes())
            if mail["to"] == address:
                text = mail.get_payload(0).get_payload(decode=True).decode()
                return re.search(r"/verify\?token=([\w-]{43})\s", text).group(1)
        time.sleep(0.02)
    raise AssertionError(f"no mail to {address} arrived")


def assert_refused(expected, function, *arguments):
    try:
        function(*arguments)
    except Refusal as refusal:
        assert str(refusal) == expected, refusal
    else:
        raise AssertionError(f"not refused: {expected}")


def story(name, call, client_ip):
    caller = {"kairos-caller-token": CALLER_TOKEN, "kairos-client-ip": client_ip}
    username = USERS + re.sub(r"\W", "", name)
    address = f"{username}@example.com"
    steps = []

    def identity(method, fields, headers=caller):
        return call("IdentityService", method, fields, headers)

    def login(password):
        return identity("Login", {"email": address, "password": password})

    user = identity("Register", {"username": username, "email": address, "password": PASSWORD})["user"]
    assert "isVerified" not in user, user
    steps.append("register")

    without_token = ("Login", {"email": address, "password": PASSWORD}, {})
    assert_refused("UNAUTHENTICATED CALLER_UNKNOWN", identity, *without_token)
    assert_refused("INVALID_ARGUMENT INVALID_FIELDS", login, "")
    assert_refused("UNAUTHENTICATED INVALID_CREDENTIALS", login, "wrong-password")
    assert_refused("PERMISSION_DENIED EMAIL_NOT_VERIFIED", login, PASSWORD)
    link = mailed_token(address)
    assert identity("VerifyEmail", {"token": link})["user"]["isVerified"]
    steps.append("verify")

    first = login(PASSWORD)["tokens"]
    steps.append("log in")

    tokens = call("SessionService", "RefreshSession", {"refresh_token": first["refreshToken"]}, caller)["tokens"]
    steps.append("refresh")

    acting = {**caller, "authorization": f"Bearer {tokens['accessToken']}"}
    list_sessions = ("SessionService", "ListSessions", {})
    assert_refused("UNAUTHENTICATED INVALID_ACCESS_TOKEN", call, *list_sessions, caller)
    passwords = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    call("AccountService", "ChangePassword", passwords, acting)
    steps.append("change the password")

    [session] = call(*list_sessions, acting)["sessions"]
    assert (session["isCurrent"], session["caller"], session["clientIp"]) == (True, "bff", client_ip), session
    steps.append("list the sessions")

    by_token = ("ResolveToken", {"auth_token": user["authToken"]})
    assert identity(*by_token)["user"]["email"] == address
    call("AccountService", "DeleteAccount", {"current_password": NEW_PASSWORD}, acting)
    assert_refused("NOT_FOUND USER_NOT_FOUND", identity, *by_token)
    steps.append("delete the account")

    received = [each[key] for each in (first, tokens) for key in ("accessToken", "refreshToken")]
    return {"client": name, "steps": steps, "secrets": [CALLER_TOKEN, PASSWORD, NEW_PASSWORD, link, *received]}


with tempfile.TemporaryDirectory() as out:
    generate_code(out)
    for index, name in enumerate(sys.argv[1:]):
        print(json.dumps(story(name, CLIENTS[name](), f"203.0.113.{index + 1}")), flush=True)
