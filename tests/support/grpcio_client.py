"""Calls the service with Python's grpcio, an implementation of gRPC that is independent of tonic.

Usage: grpcio_client.py ADDRESS MAIL_FOLDER PROTO_FOLDER
"""

import email
import pathlib
import re
import sys
import tempfile
import time

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from grpc_tools import protoc

PASSWORD = "plum-Voyage-84-kettle"


def generate_stubs(proto_folder, out):
    """Compiles the .proto files like a client of the service."""
    files = [str(path) for path in pathlib.Path(proto_folder).rglob("*.proto")]
    include = pathlib.Path(protoc.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{proto_folder}", f"-I{include}", f"--python_out={out}", f"--grpc_python_out={out}"]
    assert protoc.main(arguments + files) == 0, "the protos compile"
    sys.path.insert(0, out)


def rejection(call, request, code, reason):
    """Makes a call that must fail with this code and reason; returns the details of the error."""
    try:
        call(request, timeout=10)
    except grpc.RpcError as error:
        assert error.code() == code, f"{error.code()}: {error.details()}"
        details = {}
        for detail in rpc_status.from_call(error).details:
            for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest):
                if detail.Is(kind.DESCRIPTOR):
                    details[kind] = kind()
                    detail.Unpack(details[kind])
        info = details[error_details_pb2.ErrorInfo]
        assert (info.reason, info.domain) == (reason, "identity.kairos"), info
        return details
    raise AssertionError(f"{request} was not rejected")


def assert_deadline_ends(stream):
    """Checks that an endless stream sends one message and is ended by the client's deadline."""
    messages = 0
    try:
        for _ in stream:
            messages += 1
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error.code()
    else:
        raise AssertionError("the server ended the stream")
    assert messages == 1, messages


def mailed_token(folder):
    """Waits for a mail and returns the token in the link of the newest one."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        files = sorted(pathlib.Path(folder).glob("*.eml"))
        if files:
            message = email.message_from_bytes(files[-1].read_bytes())
            text = next(part for part in message.walk() if part.get_content_type() == "text/plain")
            return re.search(r"/verify\?token=([\w-]{43})\s", text.get_payload(decode=True).decode()).group(1)
        time.sleep(0.05)
    raise AssertionError("no mail arrived")


def main(address, mail_folder, proto_folder):
    """Registers, verifies, logs in and looks up a user, and checks the errors of each step."""
    generate_stubs(proto_folder, tempfile.mkdtemp())
    from kairos.identity.v1 import identity_service_pb2 as pb
    from kairos.identity.v1 import identity_service_pb2_grpc as pb_grpc

    channel = grpc.insecure_channel(address)
    api = pb_grpc.IdentityServiceStub(channel)

    details = rejection(api.Register, pb.RegisterRequest(), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
    fields = [violation.field for violation in details[error_details_pb2.BadRequest].field_violations]
    assert sorted(fields) == ["email", "password", "username"], fields

    ada = api.Register(pb.RegisterRequest(username="Ada", email="Ada@Example.com", password=PASSWORD)).user
    assert ada.email == "ada@example.com" and not ada.is_verified and ada.created_at.ToMicroseconds() > 0
    login = pb.LoginRequest(email="ada@example.com", password=PASSWORD)
    rejection(api.Login, login, grpc.StatusCode.PERMISSION_DENIED, "EMAIL_NOT_VERIFIED")
    wrong = pb.LoginRequest(email="ada@example.com", password="wrong")
    rejection(api.Login, wrong, grpc.StatusCode.UNAUTHENTICATED, "INVALID_CREDENTIALS")

    token = mailed_token(mail_folder)
    assert api.VerifyEmail(pb.VerifyEmailRequest(token=token)).user.is_verified
    verify = pb.VerifyEmailRequest(token=token)
    rejection(api.VerifyEmail, verify, grpc.StatusCode.FAILED_PRECONDITION, "EMAIL_ALREADY_VERIFIED")
    assert api.Login(login).user.auth_token == ada.auth_token

    for spelling in (ada.auth_token, ada.auth_token.upper(), ada.auth_token.replace("-", "")):
        assert api.ResolveToken(pb.ResolveTokenRequest(auth_token=spelling)).user.username == "Ada"
    unknown = "00000000-0000-4000-8000-000000000000"
    batch = api.ResolveTokens(pb.ResolveTokensRequest(auth_tokens=[unknown, ada.auth_token]))
    assert [user.auth_token for user in batch.users] == [ada.auth_token]
    assert list(batch.unknown_auth_tokens) == [unknown]
    assert api.FindUser(pb.FindUserRequest(username="ADA")).user.auth_token == ada.auth_token
    rejection(api.FindUser, pb.FindUserRequest(username="bob"), grpc.StatusCode.NOT_FOUND, "USER_NOT_FOUND")
    api.ResendVerificationEmail(pb.ResendVerificationEmailRequest(email="unknown@example.com"))

    # grpcio sends the list of addresses as `:authority`, which HTTP/2 does not allow. The service logs it.
    with grpc.insecure_channel(f"ipv4:{address},{address}") as without_authority:
        try:
            pb_grpc.IdentityServiceStub(without_authority).ResolveToken(pb.ResolveTokenRequest(), timeout=10)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.INTERNAL, error
        else:
            raise AssertionError("a list of addresses was accepted as :authority")
    options = [("grpc.default_authority", "identity.test"), ("grpc.lb_policy_name", "round_robin")]
    with grpc.insecure_channel(f"ipv4:{address},{address}", options) as several:
        again = pb_grpc.IdentityServiceStub(several).ResolveToken(pb.ResolveTokenRequest(auth_token=ada.auth_token))
        assert again.user.username == "Ada"

    # A compressed request is refused, and the refusal names what is supported.
    with grpc.insecure_channel(address, compression=grpc.Compression.Gzip) as compressing:
        large = pb.ResolveTokensRequest(auth_tokens=[ada.auth_token] * 100)
        try:
            pb_grpc.IdentityServiceStub(compressing).ResolveTokens(large, timeout=10)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
            assert "identity" in error.details(), error
        else:
            raise AssertionError("a compressed request was accepted")

    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "kairos.identity.v1.IdentityService"):
        status = health.Check(health_pb2.HealthCheckRequest(service=service)).status
        assert status == health_pb2.HealthCheckResponse.SERVING, status
    assert_deadline_ends(health.Watch(health_pb2.HealthCheckRequest(), timeout=0.5))

    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    response = next(reflection.ServerReflectionInfo(iter([request])))
    names = [service.name for service in response.list_services_response.service]
    assert "kairos.identity.v1.IdentityService" in names, names


main(*sys.argv[1:])
